use super::*;
use std::sync::Arc;

/// A clock over sources that a test turns.
fn turned(flag: &std::path::Path) -> (Clock, Arc<AtomicI64>, Arc<AtomicI64>) {
    let (system, boot) = (Arc::new(AtomicI64::new(0)), Arc::new(AtomicI64::new(0)));
    let read = |of: &Arc<AtomicI64>| {
        let of = Arc::clone(of);
        move || of.load(Relaxed)
    };
    let sources =
        Sources { system: Box::new(read(&system)), boot: Box::new(read(&boot)), flag: flag.to_owned() };
    (Clock::with(sources, &Known::default()), system, boot)
}

#[test]
fn readings_rise_and_share_one_offset() {
    let clock = Clock::default();
    let (a, b) = (clock.now(), clock.now());
    assert!(b.mono_ms >= a.mono_ms);
    assert_eq!(a.wall_ms - a.mono_ms, b.wall_ms - b.mono_ms);
}

#[test]
fn the_kernels_word_is_asked_for_again_every_second() {
    let dir = tempfile::tempdir().unwrap();
    let flag = dir.path().join("synchronized");
    let (clock, system, boot) = turned(&flag);
    system.store(built_ms() + 1_000, Relaxed);
    assert_eq!(clock.now().state, ClockState::Held);
    std::fs::write(&flag, "").unwrap();
    boot.store(LOOK_EVERY_MS - 1, Relaxed);
    assert_eq!(clock.now().state, ClockState::Held);
    boot.store(LOOK_EVERY_MS, Relaxed);
    assert_eq!(clock.now().state, ClockState::Synced);
    std::fs::remove_file(&flag).unwrap();
    clock.kernel_said.store(true, Relaxed);
    boot.store(2 * LOOK_EVERY_MS, Relaxed);
    assert_eq!(clock.now().state, ClockState::Synced);
    assert!(matches!(clock.take_news()[0], News::Anchor(Anchor { source: TimeSource::Ntp, .. })));
    assert_eq!(clock.take_news(), []);
}

#[test]
fn an_answer_tells_the_time_in_the_middle_of_its_way_give_or_take_half_of_it() {
    let (clock, _, boot) = turned("/nowhere".as_ref());
    let noon = built_ms() + 3_600_000;
    boot.store(10_400, Relaxed);
    clock.hear_cloud(10_000, 10_400, noon, false).unwrap();
    let view = clock.view();
    assert_eq!((view.now.wall_ms, view.now.state), (noon + 200, ClockState::Held));
    assert_eq!((view.source, view.uncertainty_ms), (Some(TimeSource::Cloud), Some(202)));
    assert!(clock.trusted_time().confirmed && clock.trusted_time().earliest_ms < noon, "not proven");
    clock.hear_cloud(10_000, 10_400, noon, true).unwrap();
    assert_eq!(clock.trusted_time().earliest_ms, noon);
    assert_eq!(clock.hear_phone(1_000, 2_000), Err(Unbelieved::TooEarly));
}
