//! How often one address may try: enough for people, too little for guessing.

use crate::error::{Error, Result};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const WINDOW: Duration = Duration::from_secs(60);
/// Addresses remembered at most.
const ADDRESSES: usize = 10_000;

/// Tries per address in the running minute.
pub struct Attempts {
    per_minute: u32,
    windows: Mutex<HashMap<IpAddr, (Instant, u32)>>,
}

impl Attempts {
    pub fn new(per_minute: u32) -> Self {
        Self { per_minute, windows: Mutex::new(HashMap::new()) }
    }

    /// Counts one try.
    ///
    /// # Errors
    /// [`Error::TooMany`] with the seconds until the address may try again.
    pub fn count(&self, address: IpAddr, now: Instant) -> Result<()> {
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        if windows.len() >= ADDRESSES {
            windows.retain(|_, (since, _)| now.duration_since(*since) < WINDOW);
            // Still full: so many addresses at once are an attack, and memory counts more than their turn.
            if windows.len() >= ADDRESSES {
                windows.clear();
            }
        }
        let (since, count) = windows.entry(block(address)).or_insert((now, 0));
        let age = now.duration_since(*since);
        if age >= WINDOW {
            (*since, *count) = (now, 0);
        }
        *count = count.saturating_add(1);
        if *count > self.per_minute {
            return Err(Error::TooMany { retry_after: WINDOW.saturating_sub(age).as_secs() + 1 });
        }
        Ok(())
    }
}

/// One IPv6 customer owns a /64.
fn block(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & (u128::MAX << 64)).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_try_again_in_the_next_minute() {
        let (attempts, start) = (Attempts::new(2), Instant::now());
        let address = "2001:db8::1".parse().unwrap();
        let neighbour = "2001:db8::2".parse().unwrap();
        assert!(attempts.count(address, start).is_ok());
        assert!(attempts.count(neighbour, start).is_ok());
        assert!(matches!(attempts.count(address, start), Err(Error::TooMany { retry_after: 61 })));
        assert!(attempts.count("192.0.2.1".parse().unwrap(), start).is_ok());
        assert!(attempts.count(address, start + WINDOW).is_ok());
    }
}
