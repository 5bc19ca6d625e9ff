//! When a tag in the field is a tap.
//!
//! What must stay true:
//! - A tag that stays is one tap, however long it stays and however often a look misses it.
//! - Time in which nobody looked, such as a repair, is no time in which the tag was away.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Of the time between two looks, at most this counts as absence.
const LOOK: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Debounce {
    window: Duration,
    looked_at: Option<Instant>,
    present: HashMap<String, Absence>,
}

#[derive(Debug, Default)]
struct Absence {
    so_far: Duration,
    /// The tap came to nothing: the next one counts as soon as the tag has been away.
    forgiven: bool,
}

impl Debounce {
    pub(super) fn new(window: Duration) -> Self {
        Self { window, looked_at: None, present: HashMap::new() }
    }

    /// One look: of the tags in the field, those that are a tap.
    pub(super) fn look(&mut self, now: Instant, field: &[String]) -> Vec<String> {
        let since = self.looked_at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at)).min(LOOK);
        self.looked_at = Some(now);
        let window = self.window;
        self.present.retain(|tag, absence| {
            if field.contains(tag) {
                absence.so_far = Duration::ZERO;
                return true;
            }
            absence.so_far += since;
            !absence.forgiven && absence.so_far < window
        });
        let mut taps = Vec::new();
        for tag in field {
            if !self.present.contains_key(tag) {
                self.present.insert(tag.clone(), Absence::default());
                taps.push(tag.clone());
            }
        }
        taps
    }

    /// The tap could not be read: the very next look may try again.
    pub(super) fn retry(&mut self, tag: &str) {
        self.present.remove(tag);
    }

    /// The tap was refused: lifting the tag is enough to try again.
    pub(super) fn forgive(&mut self, tag: &str) {
        if let Some(absence) = self.present.get_mut(tag) {
            absence.forgiven = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Looks {
        debounce: Debounce,
        now: Instant,
    }

    impl Looks {
        fn new() -> Self {
            Self { debounce: Debounce::new(Duration::from_secs(3)), now: Instant::now() }
        }

        /// A look `ms` after the last one.
        fn after(&mut self, ms: u64, field: &[&str]) -> Vec<String> {
            self.now += Duration::from_millis(ms);
            let field: Vec<String> = field.iter().map(|tag| (*tag).to_owned()).collect();
            self.debounce.look(self.now, &field)
        }
    }

    #[test]
    fn a_tag_that_stays_or_flickers_is_one_tap_and_comes_again_after_the_window() {
        let mut looks = Looks::new();
        assert_eq!(looks.after(0, &["A"]), ["A"]);
        for _ in 0..100 {
            assert!(looks.after(250, &["A"]).is_empty());
            assert!(looks.after(250, &[]).is_empty());
        }
        for _ in 0..12 {
            assert!(looks.after(250, &[]).is_empty());
        }
        assert_eq!(looks.after(250, &["A"]), ["A"]);
    }

    #[test]
    fn each_tag_has_a_window_of_its_own() {
        let mut looks = Looks::new();
        assert_eq!(looks.after(0, &["A"]), ["A"]);
        assert_eq!(looks.after(100, &["A", "B"]), ["B"]);
        assert_eq!(looks.after(100, &["C"]), ["C"]);
        assert!(looks.after(100, &["A", "B", "C"]).is_empty());
    }

    #[test]
    fn a_repair_that_took_a_minute_does_not_make_a_second_tap() {
        let mut looks = Looks::new();
        assert_eq!(looks.after(0, &["A"]), ["A"]);
        assert!(looks.after(60_000, &[]).is_empty());
        assert!(looks.after(100, &["A"]).is_empty());
    }

    #[test]
    fn a_refused_tap_may_be_repeated_as_soon_as_the_tag_was_lifted() {
        let mut looks = Looks::new();
        assert_eq!(looks.after(0, &["A"]), ["A"]);
        looks.debounce.forgive("A");
        assert!(looks.after(100, &["A"]).is_empty());
        assert!(looks.after(100, &[]).is_empty());
        assert_eq!(looks.after(100, &["A"]), ["A"]);
        looks.debounce.retry("A");
        assert_eq!(looks.after(100, &["A"]), ["A"]);
    }
}
