//! Who gets a connection on the local network: decided before the TLS handshake, which costs a Pi a millisecond.
//!
//! What must stay true:
//! - Addresses that never showed a valid token share a quarter of the places; the rest wait for phones.
//! - No address has more than a few connections, whoever it is.
//! - After a restart every phone is a stranger. So strangers who fill their places keep nobody out: the oldest
//!   connection of the address that has most of them ends for the one that comes.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

/// Connections on the local network at once, beside those of the loopback server.
pub(super) const MOST: usize = 128;
const MOST_STRANGERS: usize = 32;
const MOST_OF_ONE_STRANGER: usize = 8;
const MOST_OF_ONE_PHONE: usize = 16;
/// Addresses that are remembered; networks give phones new ones.
const MOST_KNOWN: usize = 256;

#[derive(Debug, Default)]
pub struct Gate {
    inside: Mutex<Inside>,
}

#[derive(Debug, Default)]
struct Inside {
    connections: HashMap<IpAddr, usize>,
    /// Oldest first.
    strangers: VecDeque<Stranger>,
    known: HashSet<IpAddr>,
    /// Number of the next connection.
    next: u64,
}

#[derive(Debug)]
struct Stranger {
    number: u64,
    ip: IpAddr,
    end: CancellationToken,
}

/// A place; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    gate: Arc<Gate>,
    ip: IpAddr,
    number: u64,
    end: CancellationToken,
}

impl Place {
    /// Resolves when another needs this place more.
    pub(super) fn ended(&self) -> WaitForCancellationFuture<'_> {
        self.end.cancelled()
    }
}

impl Gate {
    /// A place for a connection from this address, if it may have one more.
    pub(super) fn enter(self: &Arc<Self>, ip: IpAddr) -> Option<Place> {
        let ip = ip.to_canonical();
        let mut inside = self.locked();
        let stranger = !inside.known.contains(&ip);
        let most = if stranger { MOST_OF_ONE_STRANGER } else { MOST_OF_ONE_PHONE };
        let has = inside.connections.get(&ip).copied().unwrap_or(0);
        if has >= most {
            return None;
        }
        let (number, end) = (inside.next, CancellationToken::new());
        if stranger {
            if inside.strangers.len() >= MOST_STRANGERS {
                inside.end_one();
            }
            inside.strangers.push_back(Stranger { number, ip, end: end.clone() });
        }
        inside.connections.insert(ip, has + 1);
        inside.next += 1;
        Some(Place { gate: Arc::clone(self), ip, number, end })
    }

    /// A valid token came from this address.
    pub(super) fn welcome(&self, ip: IpAddr) {
        let mut inside = self.locked();
        if inside.known.len() >= MOST_KNOWN {
            inside.known.clear();
        }
        let ip = ip.to_canonical();
        inside.known.insert(ip);
        // Nobody may end what it has open already.
        inside.strangers.retain(|stranger| stranger.ip != ip);
    }

    fn locked(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inside {
    /// Ends the oldest connection of the stranger that has most of them.
    fn end_one(&mut self) {
        let has = |stranger: &Stranger| self.strangers.iter().filter(|other| other.ip == stranger.ip).count();
        // Of equals the last one counts, and that is the oldest.
        let one = (0..self.strangers.len()).rev().max_by_key(|at| self.strangers.get(*at).map(has));
        if let Some(stranger) = one.and_then(|at| self.strangers.remove(at)) {
            stranger.end.cancel();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut inside = self.gate.locked();
        inside.strangers.retain(|stranger| stranger.number != self.number);
        match inside.connections.get_mut(&self.ip) {
            Some(has) if *has > 1 => *has -= 1,
            _ => {
                inside.connections.remove(&self.ip);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([192, 168, 1, last])
    }

    fn ended(place: &Place) -> bool {
        place.end.is_cancelled()
    }

    #[test]
    fn strangers_fill_their_own_places_and_a_phone_still_comes_in() {
        let gate = Arc::new(Gate::default());
        gate.welcome(ip(200));
        let phone = gate.enter(ip(200)).unwrap();
        let strangers: Vec<Place> = (0..=100)
            .flat_map(|last| (0..50).map(move |_| last))
            .filter_map(|last| gate.enter(ip(last)))
            .collect();
        assert_eq!(strangers.iter().filter(|place| !ended(place)).count(), MOST_STRANGERS);
        assert!(!ended(&phone) && gate.enter(ip(200)).is_some());
    }

    #[test]
    fn a_phone_that_nobody_knows_yet_comes_in_at_the_cost_of_whoever_has_most() {
        let gate = Arc::new(Gate::default());
        let crowd = [1, 1, 1].into_iter().chain((2..).take(MOST_STRANGERS - 3));
        let crowd: Vec<Place> = crowd.filter_map(|last| gate.enter(ip(last))).collect();
        assert!(!crowd.iter().any(ended));
        let phone = gate.enter(ip(200)).unwrap();
        let over: Vec<bool> = crowd.iter().map(ended).collect();
        assert!(over[0] && !over[1..].contains(&true), "{over:?}");
        // Its token was good: from now on nobody's coming ends it.
        gate.welcome(ip(200));
        let more: Vec<Place> = (100..190).filter_map(|last| gate.enter(ip(last))).collect();
        assert_eq!(more.len(), 90);
        assert!(!ended(&phone));
    }

    #[test]
    fn one_address_has_only_so_many_connections_and_gets_them_back() {
        let gate = Arc::new(Gate::default());
        let places: Vec<Place> = (0..50).filter_map(|_| gate.enter(ip(1))).collect();
        assert_eq!(places.len(), MOST_OF_ONE_STRANGER);
        drop(places);
        let inside = gate.locked();
        assert!(inside.connections.is_empty() && inside.strangers.is_empty());
    }
}
