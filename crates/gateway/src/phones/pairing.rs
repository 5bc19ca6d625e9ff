//! Open pairings: six digits to type and a long secret in the QR code, good for one phone.
//!
//! What must stay true:
//! - A pairing makes at most one phone and ends after ten minutes by a clock that nobody can set.
//! - Digits can be guessed, so wrong ones count: against every open pairing, whose digits end after
//!   five, and against the hour, in which digits are not looked at any more after twenty.
//! - The secret cannot be guessed: a neighbour who burns the digits does not end the QR code.
//! - A restart ends all pairings.

use super::{Phone, PhonesError, random};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};
use subtle::ConstantTimeEq;

const LIFE: Duration = Duration::from_secs(600);
const TRIES: u8 = 5;
const HOUR: Duration = Duration::from_secs(3_600);
const TRIES_AN_HOUR: usize = 20;
/// Officers who are being paired at the same time.
const MOST_OPEN: usize = 8;

/// What the phone will be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Terms {
    pub officer: Option<String>,
    /// Beats the name the phone gives itself.
    pub name: Option<String>,
    pub may_pair: bool,
}

/// A pairing as it is shown to the person who opened it.
pub struct Opened {
    pub digits: String,
    pub secret: String,
    pub life: Duration,
}

/// A new phone and its token, which nobody sees again.
pub struct Paired {
    pub phone: Phone,
    pub token: String,
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Opened(…)")
    }
}

impl fmt::Debug for Paired {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Paired({:?})", self.phone)
    }
}

/// A pairing that nobody used yet.
pub(super) struct Open {
    digits: String,
    secret: String,
    pub(super) terms: Terms,
    ends: Instant,
    tries_left: u8,
}

/// All of them, and the wrong codes of the last hour.
#[derive(Default)]
pub(super) struct Pairings {
    open: Vec<Open>,
    wrong: VecDeque<Instant>,
}

impl fmt::Debug for Pairings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pairings({} open)", self.open.len())
    }
}

impl Pairings {
    pub(super) fn open(&mut self, terms: Terms, now: Instant) -> Result<Opened, PhonesError> {
        self.forget_old(now);
        let digits = loop {
            let digits = draw_digits()?;
            if self.open.iter().all(|open| open.digits != digits) {
                break digits;
            }
        };
        let secret = URL_SAFE_NO_PAD.encode(random::<32>()?);
        if self.open.len() >= MOST_OPEN {
            self.open.remove(0);
        }
        let opened = Opened { digits: digits.clone(), secret: secret.clone(), life: LIFE };
        self.open.push(Open { digits, secret, terms, ends: now + LIFE, tries_left: TRIES });
        Ok(opened)
    }

    pub(super) fn redeem(&mut self, code: &str, now: Instant) -> Result<Open, PhonesError> {
        self.forget_old(now);
        if let Some(at) = self.open.iter().position(|open| same(&open.secret, code)) {
            return Ok(self.open.remove(at));
        }
        // People write "123 456".
        let digits: String = code.chars().filter(|c| !matches!(c, ' ' | '-')).collect();
        if digits.len() != 6 || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(PhonesError::WrongCode);
        }
        if self.wrong.len() >= TRIES_AN_HOUR {
            let wait = self.wrong.front().map_or(HOUR, |first| HOUR.saturating_sub(now - *first));
            return Err(PhonesError::TooManyTries(wait));
        }
        let right = |open: &Open| open.tries_left > 0 && same(&open.digits, &digits);
        if let Some(at) = self.open.iter().position(right) {
            return Ok(self.open.remove(at));
        }
        // Where nothing is open there is nothing to guess.
        if self.open.iter().any(|open| open.tries_left > 0) {
            self.wrong.push_back(now);
            // At most so many lines an hour, whoever tries.
            tracing::warn!(in_this_hour = self.wrong.len(), "a wrong pairing code was tried");
        }
        for open in &mut self.open {
            open.tries_left = open.tries_left.saturating_sub(1);
        }
        Err(PhonesError::WrongCode)
    }

    pub(super) fn put_back(&mut self, open: Open) {
        self.open.push(open);
    }

    fn forget_old(&mut self, now: Instant) {
        self.open.retain(|open| open.ends > now);
        while self.wrong.front().is_some_and(|first| now.duration_since(*first) >= HOUR) {
            self.wrong.pop_front();
        }
    }
}

fn same(one: &str, other: &str) -> bool {
    one.as_bytes().ct_eq(other.as_bytes()).into()
}

/// Six digits, each number as likely as any other.
fn draw_digits() -> Result<String, PhonesError> {
    const NUMBERS: u32 = 1_000_000;
    loop {
        let number = u32::from_le_bytes(random()?);
        if number < u32::MAX - u32::MAX % NUMBERS {
            return Ok(format!("{:06}", number % NUMBERS));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn other_than(digits: &str) -> &'static str {
        if digits == "000000" { "000001" } else { "000000" }
    }

    #[test]
    fn digits_and_secret_are_each_good_once_and_for_one_phone_together() {
        let (mut pairings, now) = (Pairings::default(), Instant::now());
        let opened = pairings.open(Terms::default(), now).unwrap();
        let spoken = format!("{} {}", &opened.digits[..3], &opened.digits[3..]);
        assert!(pairings.redeem(&spoken, now).is_ok());
        for code in [&opened.digits, &opened.secret] {
            assert!(matches!(pairings.redeem(code, now), Err(PhonesError::WrongCode)));
        }
        let opened = pairings.open(Terms::default(), now).unwrap();
        assert!(pairings.redeem(&opened.secret, now).is_ok());
        assert!(pairings.redeem(&opened.digits, now).is_err());
    }

    #[test]
    fn a_pairing_lives_ten_minutes() {
        let (mut pairings, now) = (Pairings::default(), Instant::now());
        let opened = pairings.open(Terms::default(), now).unwrap();
        assert!(pairings.redeem(&opened.secret, now + LIFE).is_err());
    }

    #[test]
    fn five_wrong_tries_end_the_digits_of_every_open_pairing_but_not_its_qr_code() {
        let (mut pairings, now) = (Pairings::default(), Instant::now());
        let first = pairings.open(Terms::default(), now).unwrap();
        let second = pairings.open(Terms::default(), now).unwrap();
        for _ in 0..TRIES {
            let mut wrong = other_than(&first.digits);
            if wrong == second.digits {
                wrong = "999999";
            }
            assert!(matches!(pairings.redeem(wrong, now), Err(PhonesError::WrongCode)));
        }
        assert!(matches!(pairings.redeem(&first.digits, now), Err(PhonesError::WrongCode)));
        assert!(pairings.redeem(&second.secret, now).is_ok());
    }

    #[test]
    fn after_twenty_wrong_digits_none_are_looked_at_for_the_rest_of_the_hour() {
        let (mut pairings, now) = (Pairings::default(), Instant::now());
        for _ in 0..TRIES_AN_HOUR / usize::from(TRIES) {
            let opened = pairings.open(Terms::default(), now).unwrap();
            for _ in 0..TRIES {
                pairings.redeem(other_than(&opened.digits), now).err().unwrap();
            }
            pairings.open.clear();
        }
        let opened = pairings.open(Terms::default(), now).unwrap();
        let refused = pairings.redeem(&opened.digits, now);
        assert!(matches!(refused, Err(PhonesError::TooManyTries(wait)) if wait <= HOUR));
        assert!(pairings.redeem(&opened.secret, now).is_ok());
        let later = now + HOUR;
        let opened = pairings.open(Terms::default(), later).unwrap();
        assert!(pairings.redeem(&opened.digits, later).is_ok());
    }

    #[test]
    fn a_neighbour_who_guesses_while_nothing_is_open_uses_up_nothing() {
        let (mut pairings, now) = (Pairings::default(), Instant::now());
        for _ in 0..100 {
            pairings.redeem("123456", now).err().unwrap();
        }
        let opened = pairings.open(Terms::default(), now).unwrap();
        assert!(pairings.redeem(&opened.digits, now).is_ok());
    }
}
