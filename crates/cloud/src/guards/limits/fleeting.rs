//! A map that forgets: every entry holds until its time, and there is room for so many.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Instant;

pub(super) struct Fleeting<K, V> {
    entries: HashMap<K, (Instant, V)>,
    room: usize,
    /// How many entries are worth looking through.
    sweep_at: usize,
}

impl<K: Hash + Eq, V> Fleeting<K, V> {
    pub(super) fn new(room: usize) -> Self {
        Self { entries: HashMap::new(), room, sweep_at: room.min(1_024) }
    }

    pub(super) fn get(&self, key: &K, now: Instant) -> Option<&(Instant, V)> {
        self.entries.get(key).filter(|(until, _)| *until > now)
    }

    /// When it is full, the half goes that would go first anyway.
    pub(super) fn put(&mut self, key: K, until: Instant, value: V, now: Instant) {
        if self.entries.len() >= self.sweep_at && !self.entries.contains_key(&key) {
            self.entries.retain(|_, (until, _)| *until > now);
            if self.entries.len() >= self.room {
                let mut ends: Vec<Instant> = self.entries.values().map(|(until, _)| *until).collect();
                let (_, middle, _) = ends.select_nth_unstable(self.room / 2);
                let middle = *middle;
                self.entries.retain(|_, (until, _)| *until > middle);
            }
            self.sweep_at = (2 * self.entries.len()).clamp(self.room.min(1_024), self.room);
        }
        self.entries.insert(key, (until, value));
    }

    pub(super) fn remove(&mut self, key: &K) {
        self.entries.remove(key);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn it_never_holds_more_than_it_has_room_for_and_keeps_what_holds_longest() {
        let (mut map, now) = (Fleeting::new(2_000), Instant::now());
        map.put(u64::MAX, now + Duration::from_secs(3_600), (), now);
        for key in 0..50_000 {
            map.put(key, now + Duration::from_secs(60 + key % 7), (), now);
            assert!(map.len() <= 2_000);
        }
        assert!(map.get(&u64::MAX, now).is_some());
        // All alike: still bounded.
        for key in 50_000..60_000 {
            map.put(key, now + Duration::from_secs(60), (), now);
            assert!(map.len() <= 2_000);
        }
    }

    #[test]
    fn what_is_past_is_gone_and_swept_out() {
        let (mut map, now) = (Fleeting::new(100_000), Instant::now());
        for key in 0..10_000 {
            let now = now + Duration::from_millis(key);
            map.put(key, now + Duration::from_millis(100), (), now);
            assert!(map.len() <= 1_025, "nobody sweeps");
        }
        assert!(map.get(&1, now + Duration::from_secs(1)).is_none());
    }
}
