//! Who gets a connection on the local network: decided before the TLS handshake, which costs a Pi a millisecond.
//!
//! What must stay true:
//! - Addresses that never showed a valid token share a quarter of the places; the rest wait for phones.
//! - No address has more than a few connections, whoever it is.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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
    strangers: usize,
    known: HashSet<IpAddr>,
}

/// A place; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    gate: Arc<Gate>,
    ip: IpAddr,
    stranger: bool,
}

impl Gate {
    /// A place for a connection from this address, if it may have one more.
    pub(super) fn enter(self: &Arc<Self>, ip: IpAddr) -> Option<Place> {
        let ip = ip.to_canonical();
        let mut inside = self.locked();
        let stranger = !inside.known.contains(&ip);
        let most = if stranger { MOST_OF_ONE_STRANGER } else { MOST_OF_ONE_PHONE };
        let has = inside.connections.get(&ip).copied().unwrap_or(0);
        if has >= most || (stranger && inside.strangers >= MOST_STRANGERS) {
            return None;
        }
        inside.connections.insert(ip, has + 1);
        inside.strangers += usize::from(stranger);
        Some(Place { gate: Arc::clone(self), ip, stranger })
    }

    /// A valid token came from this address.
    pub(super) fn welcome(&self, ip: IpAddr) {
        let mut inside = self.locked();
        if inside.known.len() >= MOST_KNOWN {
            inside.known.clear();
        }
        inside.known.insert(ip.to_canonical());
    }

    fn locked(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut inside = self.gate.locked();
        inside.strangers = inside.strangers.saturating_sub(usize::from(self.stranger));
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

    #[test]
    fn strangers_fill_their_own_places_and_a_phone_still_comes_in() {
        let gate = Arc::new(Gate::default());
        gate.welcome(ip(200));
        let mut places: Vec<Place> = (0..=100)
            .flat_map(|last| (0..50).map(move |_| last))
            .filter_map(|last| gate.enter(ip(last)))
            .collect();
        assert_eq!(places.len(), MOST_STRANGERS);
        assert!(gate.enter(ip(201)).is_none(), "a stranger came in all the same");
        assert!(gate.enter(ip(200)).is_some());
        places.pop();
        assert!(gate.enter(ip(201)).is_some());
    }

    #[test]
    fn one_address_has_only_so_many_connections_and_gets_them_back() {
        let gate = Arc::new(Gate::default());
        let places: Vec<Place> = (0..50).filter_map(|_| gate.enter(ip(1))).collect();
        assert_eq!(places.len(), MOST_OF_ONE_STRANGER);
        drop(places);
        let inside = gate.locked();
        assert!(inside.connections.is_empty() && inside.strangers == 0);
    }
}
