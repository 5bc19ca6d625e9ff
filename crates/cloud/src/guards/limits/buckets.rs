//! A bucket per caller (GCRA): as many at once as the quota, then one by one, evenly over the window.

use super::fleeting::Fleeting;
use crate::config::Rate;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Callers remembered at most; some 64 bytes each.
const CALLERS: usize = 50_000;

pub(super) struct Buckets<K> {
    rate: Rate,
    /// Until when each caller's bucket is not full again.
    owed: Mutex<Fleeting<K, ()>>,
}

/// What a caller has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Left {
    pub(super) remaining: u32,
    /// Until the bucket is full again; when nothing is left, until one more fits.
    pub(super) wait: Duration,
}

impl<K: Hash + Eq> Buckets<K> {
    pub(super) fn new(rate: Rate) -> Self {
        Self { rate, owed: Mutex::new(Fleeting::new(CALLERS)) }
    }

    pub(super) fn rate(&self) -> Rate {
        self.rate
    }

    /// Takes one out.
    ///
    /// # Errors
    /// Nothing is left, and nothing was taken.
    pub(super) fn take(&self, key: K, now: Instant) -> Result<Left, Left> {
        let mut owed = self.owed.lock().unwrap_or_else(PoisonError::into_inner);
        let before = owed.get(&key, now).map_or(Duration::ZERO, |(until, ())| until.duration_since(now));
        let after = before + self.each();
        if after > self.rate.window {
            return Err(Left { remaining: 0, wait: after - self.rate.window });
        }
        owed.put(key, now + after, (), now);
        Ok(Left { remaining: self.fits(after), wait: after })
    }

    /// Whether one could be taken, without taking it.
    ///
    /// # Errors
    /// Nothing is left.
    pub(super) fn look(&self, key: &K, now: Instant) -> Result<(), Left> {
        let owed = self.owed.lock().unwrap_or_else(PoisonError::into_inner);
        let after =
            owed.get(key, now).map_or(Duration::ZERO, |(until, ())| until.duration_since(now)) + self.each();
        if after > self.rate.window {
            Err(Left { remaining: 0, wait: after - self.rate.window })
        } else {
            Ok(())
        }
    }

    fn each(&self) -> Duration {
        self.rate.window / self.rate.quota
    }

    fn fits(&self, owed: Duration) -> u32 {
        let left = self.rate.window.saturating_sub(owed).as_nanos() / self.each().as_nanos().max(1);
        u32::try_from(left).unwrap_or(self.rate.quota)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quota_may_be_used_at_once_and_then_comes_back_evenly() {
        let (buckets, start) = (Buckets::new("3/1m".parse().unwrap()), Instant::now());
        for remaining in [2, 1, 0] {
            assert_eq!(buckets.take("budi", start).unwrap().remaining, remaining);
        }
        let refused = Left { remaining: 0, wait: Duration::from_secs(20) };
        assert_eq!(buckets.take("budi", start), Err(refused));
        assert_eq!(buckets.look(&"budi", start), Err(refused));
        assert!(buckets.take("siti", start).is_ok(), "another caller pays for it");
        // A refused try costs nothing.
        let later = start + Duration::from_secs(20);
        assert!(buckets.look(&"budi", later).is_ok());
        assert_eq!(buckets.take("budi", later).unwrap().remaining, 0);
        assert!(buckets.take("budi", later).is_err());
        let rested = later + Duration::from_secs(60);
        assert_eq!(buckets.take("budi", rested), Ok(Left { remaining: 2, wait: Duration::from_secs(20) }));
    }

    #[test]
    fn a_flood_of_callers_takes_bounded_memory_and_frees_nobody_who_used_all() {
        let (buckets, start) = (Buckets::new("10/1m".parse().unwrap()), Instant::now());
        while buckets.take(u32::MAX, start).is_ok() {}
        for caller in 0..200_000 {
            assert!(buckets.take(caller, start).is_ok());
        }
        assert!(buckets.owed.lock().unwrap().len() <= CALLERS);
        assert!(buckets.take(u32::MAX, start).is_err());
    }
}
