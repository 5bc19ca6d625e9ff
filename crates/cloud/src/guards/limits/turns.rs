//! Turns at looking up keys that nobody was known by here lately.
//!
//! A key found good within the hour needs none: its gateway goes on whatever its neighbours send. Others share a few
//! turns and wait for one; once an address has used up its wrong keys ([`super::Limits`]), all such addresses
//! together have one turn, and whoever finds it taken comes back later. A good gateway behind such an address, new
//! to this replica, so gets in after a few tries.

use super::{Limits, block};
use crate::error::{Error, Result};
use crate::guards::{client_address, principal};
use actix_web::{HttpRequest, web};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A lookup takes a millisecond; who waits so long stands in a storm.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) struct Turns {
    strangers: Arc<Semaphore>,
    suspects: Arc<Semaphore>,
    patience: Duration,
}

impl Turns {
    pub(super) fn new(lookups: usize) -> Self {
        Self {
            strangers: Arc::new(Semaphore::new(lookups.max(1))),
            suspects: Arc::new(Semaphore::new(1)),
            patience: PATIENCE,
        }
    }
}

/// Waits for a turn at looking up the request's key, to be given back afterwards; nothing for a known one.
///
/// # Errors
/// [`Error::TooMany`] where the address has brought too many wrong keys, [`Error::Busy`] in a storm.
pub async fn turn(request: &HttpRequest) -> Result<Option<OwnedSemaphorePermit>> {
    let limits = request.app_data::<web::Data<Limits>>();
    let (Some(limits), Some(hash)) = (limits, principal::bearer_hash(request.headers())) else {
        return Ok(None);
    };
    limits.turn(&hash, client_address(request)).await
}

impl Limits {
    async fn turn(&self, key: &[u8; 32], from: std::net::IpAddr) -> Result<Option<OwnedSemaphorePermit>> {
        let now = Instant::now();
        if self.known(key, now).is_some() {
            return Ok(None);
        }
        // Not all at once again.
        let retry_after = 2 + fastrand::u64(0..8);
        if self.refused.look(&block(from), now).is_err() {
            let taken = |_| Error::TooMany { retry_after };
            return Arc::clone(&self.turns.suspects).try_acquire_owned().map(Some).map_err(taken);
        }
        let waited =
            tokio::time::timeout(self.turns.patience, Arc::clone(&self.turns.strangers).acquire_owned())
                .await;
        waited.ok().and_then(std::result::Result::ok).map(Some).ok_or_else(|| Error::Busy {
            retry_after,
            reason: "too many unknown keys are being looked up".into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::guards::principal::Principal;
    use std::net::IpAddr;

    #[tokio::test]
    async fn invented_keys_have_a_few_turns_and_known_gateways_need_none() {
        let mut rates = Config::load(None).unwrap().limits;
        rates.refused = "2/1h".parse().unwrap();
        let mut limits = Limits::new(&rates, 2);
        limits.turns.patience = Duration::from_millis(1);
        let (kitchen, school): (IpAddr, IpAddr) =
            ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let good = [1; 32];
        limits.learn(good, Some(Principal::Key(good)), false, kitchen, Instant::now());

        let held =
            [limits.turn(&[2; 32], kitchen).await.unwrap(), limits.turn(&[3; 32], school).await.unwrap()];
        assert!(held.iter().all(Option::is_some));
        assert!(
            matches!(limits.turn(&[4; 32], school).await, Err(Error::Busy { .. })),
            "a third lookup at once"
        );
        assert!(limits.turn(&good, kitchen).await.unwrap().is_none(), "a known gateway waits");

        // The kitchen's address has brought too many wrong ones: one lookup at a time is left to it.
        for key in [5, 6] {
            limits.learn([key; 32], None, true, kitchen, Instant::now());
        }
        let last = limits.turn(&[7; 32], kitchen).await.unwrap();
        assert!(matches!(limits.turn(&[8; 32], kitchen).await, Err(Error::TooMany { .. })));
        assert!(limits.turn(&good, kitchen).await.unwrap().is_none(), "its neighbour shuts a gateway out");
        drop(last);
        assert!(limits.turn(&[9; 32], kitchen).await.is_ok(), "a new gateway there never gets in");
        drop(held);
        assert!(limits.turn(&[4; 32], school).await.is_ok());
    }
}
