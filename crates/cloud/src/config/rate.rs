//! How often something may be done: `60/1m` is sixty times at once, and then one each second.

use serde::Deserialize;
use std::str::FromStr;
use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Rate {
    pub quota: u32,
    pub window: Duration,
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no rate such as 60/1m");
        let (quota, window) = text.split_once('/').ok_or_else(wrong)?;
        let quota = quota.parse().map_err(|_| wrong())?;
        let window: humantime_serde::re::humantime::Duration = window.parse().map_err(|_| wrong())?;
        let window = Duration::from(window);
        let day = Duration::from_secs(86_400);
        if quota == 0 || window < Duration::from_secs(1) || window > day {
            return Err(format!("{text:?}: at least once, in one second to one day"));
        }
        Ok(Self { quota, window })
    }
}

impl TryFrom<String> for Rate {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_number_and_a_time() {
        assert_eq!("60/1m".parse(), Ok(Rate { quota: 60, window: Duration::from_secs(60) }));
        for text in ["", "60", "60/", "/1m", "0/1m", "60/0s", "60/10ms", "60/1 fortnight", "-1/1m", "1/2days"]
        {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
    }
}
