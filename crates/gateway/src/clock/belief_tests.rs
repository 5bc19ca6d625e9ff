use super::super::memory::Last;
use super::*;

const BUILT: i64 = EARLIEST_MS + 300 * DAY_MS;
const HOUR: i64 = 3_600_000;
const YESTERDAY: i64 = BUILT + 10 * DAY_MS;

fn fresh() -> Belief {
    Belief::new(0, BUILT, &Known::default())
}

/// After a boot that ended with this record.
fn after(wall_ms: i64, trusted: bool) -> Belief {
    let last = Some(Last { wall_ms, mono_ms: 0, trusted });
    Belief::new(0, BUILT, &Known { last, ..Known::default() })
}

fn donation(source: TimeSource, mono_ms: i64, wall_ms: i64, uncertainty_ms: i64) -> Donation {
    Donation { source, offset_ms: wall_ms - mono_ms, uncertainty_ms, mono_ms }
}

fn anchors(belief: &mut Belief) -> Vec<(TimeSource, i64)> {
    let news = belief.take_news().into_iter();
    news.filter_map(|news| match news {
        News::Anchor(anchor) => Some((anchor.source, anchor.uncertainty_ms)),
        News::Step(_) => None,
    })
    .collect()
}

fn steps(belief: &mut Belief) -> Vec<Step> {
    let news = belief.take_news().into_iter();
    news.filter_map(|news| if let News::Step(step) = news { Some(step) } else { None }).collect()
}

#[test]
fn jitter_keeps_the_offset_and_a_step_either_way_is_followed_at_once() {
    assert_eq!(steadied(None, 5_000), 5_000);
    for (fresh, kept) in [(5_020, 5_000), (4_980, 5_000), (5_021, 5_021), (4_979, 4_979)] {
        assert_eq!(steadied(Some(5_000), fresh), kept);
    }
    let mut belief = fresh();
    let noon = BUILT + 50 * DAY_MS;
    belief.read(1_000, noon, false);
    assert_eq!(belief.read(2_000, noon + 1_015, false).wall_ms, noon + 1_000);
    assert_eq!(belief.read(2_000, noon + 1_000 - HOUR, false).wall_ms, noon + 1_000 - HOUR);
    let back = Step { from_ms: noon + 1_000, to_ms: noon + 1_000 - HOUR };
    assert_eq!(steps(&mut belief), [back]);
    assert_eq!(belief.read(2_000, noon + 30 * DAY_MS, false).wall_ms, noon + 30 * DAY_MS);
    assert_eq!(steps(&mut belief).len(), 1);
    belief.read(3_000, noon + 30 * DAY_MS + 1_300, false);
    assert_eq!(steps(&mut belief), [], "a third of a second is no event");
}

#[test]
fn a_clock_below_the_floor_counts_up_from_it_and_is_unset() {
    for (mut belief, floor) in [(fresh(), BUILT - DAY_MS), (after(YESTERDAY, false), YESTERDAY)] {
        for system in [10_000, 1_478_193_403_000, floor - 1] {
            let now = belief.read(7_000, system, false);
            assert_eq!((now.wall_ms, now.state), (floor + 7_000, ClockState::Unset));
        }
        let later = belief.read(8_000, 11_000, true);
        assert_eq!((later.wall_ms, later.state), (floor + 8_000, ClockState::Unset), "1970 is no ntp time");
        let risen = belief.read(9_000, floor, false);
        assert_eq!((risen.wall_ms, risen.state), (floor, ClockState::Held));
        assert_eq!(belief.read(9_000, floor + 5, true).state, ClockState::Synced);
    }
}

#[test]
fn a_step_back_is_followed_down_to_the_floor_and_no_further() {
    let mut belief = after(YESTERDAY, false);
    assert_eq!(belief.read(0, YESTERDAY + 2 * HOUR, false).wall_ms, YESTERDAY + 2 * HOUR);
    assert_eq!(belief.read(0, YESTERDAY + HOUR, false).wall_ms, YESTERDAY + HOUR);
    let now = belief.read(500, YESTERDAY - HOUR, false);
    assert_eq!((now.wall_ms, now.state), (YESTERDAY + 500, ClockState::Unset));
}

#[test]
fn a_clock_that_starts_again_in_one_boot_goes_on_where_it_was() {
    let last = Some(Last { wall_ms: YESTERDAY, mono_ms: 60_000, trusted: false });
    let mut belief = Belief::new(0, BUILT, &Known { last, ..Known::default() });
    assert_eq!(belief.read(61_500, 61_500, false).wall_ms, YESTERDAY + 1_500);
}

#[test]
fn a_program_that_was_built_after_the_boot_adds_no_uptime_to_its_date() {
    let mut belief = Belief::new(90 * DAY_MS, BUILT, &Known::default());
    assert_eq!(belief.read(90 * DAY_MS + 7, 0, false).wall_ms, BUILT - DAY_MS + 7);
}

#[test]
fn a_floor_ahead_of_a_trusted_source_is_taken_back() {
    let month_ahead = YESTERDAY + 30 * DAY_MS;
    let mut by_ntp = after(month_ahead, true);
    let now = by_ntp.read(5_000, YESTERDAY, true);
    assert_eq!((now.wall_ms, now.state), (YESTERDAY, ClockState::Synced));
    assert_eq!(by_ntp.floor_ms(), YESTERDAY);

    let mut by_cloud = after(month_ahead, true);
    assert_eq!(by_cloud.read(5_000, 5_000, false).wall_ms, month_ahead + 5_000);
    by_cloud.donate(donation(TimeSource::Cloud, 5_000, YESTERDAY, 40)).unwrap();
    let now = by_cloud.read(6_000, 6_000, false);
    assert_eq!((now.wall_ms, now.state), (YESTERDAY + 1_000, ClockState::Held));
    assert_eq!(by_cloud.floor_ms(), YESTERDAY);
    assert_eq!(steps(&mut by_cloud).len(), 1);
}

#[test]
fn a_stored_time_years_ahead_of_what_is_proven_makes_no_floor() {
    let far = BUILT + 6 * YEAR_MS;
    for trusted in [false, true] {
        let mut belief = after(far, trusted);
        assert_eq!(belief.read(0, YESTERDAY, false).wall_ms, YESTERDAY);
    }
    // Unless the cloud has proven that it is that late.
    let last = Some(Last { wall_ms: far, mono_ms: 0, trusted: false });
    let known = Known { last, proven_ms: far - YEAR_MS, ..Known::default() };
    assert_eq!(Belief::new(0, BUILT, &known).read(0, YESTERDAY, false).wall_ms, far);
}

#[test]
fn ntp_beats_the_cloud_the_cloud_beats_a_phone_and_a_phone_beats_an_unconfirmed_clock() {
    let mut belief = fresh();
    let wall = |belief: &mut Belief, synced| belief.read(1_000, YESTERDAY, synced).wall_ms - YESTERDAY;
    assert_eq!(wall(&mut belief, false), 0);
    belief.donate(donation(TimeSource::Phone, 1_000, YESTERDAY + 7_000, 2_000)).unwrap();
    assert_eq!(wall(&mut belief, false), 7_000);
    belief.donate(donation(TimeSource::Cloud, 1_000, YESTERDAY + 8_000, 500)).unwrap();
    assert_eq!(wall(&mut belief, false), 8_000);
    belief.donate(donation(TimeSource::Phone, 1_000, YESTERDAY + 9_000, 2_000)).unwrap();
    assert_eq!(wall(&mut belief, false), 8_000, "a phone does not beat the cloud");
    assert_eq!(belief.source(1_000), Some((TimeSource::Cloud, 500)));
    assert_eq!(wall(&mut belief, true), 0, "ntp beats the cloud");
    assert_eq!(belief.source(1_000), Some((TimeSource::Ntp, NTP_UNCERTAINTY_MS)));
    let told: Vec<_> = anchors(&mut belief).into_iter().map(|(source, _)| source).collect();
    assert_eq!(told, [TimeSource::Phone, TimeSource::Cloud, TimeSource::Ntp]);
}

#[test]
fn a_phone_is_not_believed_before_what_is_certain_nor_years_ahead() {
    let phone = |wall| donation(TimeSource::Phone, 0, wall, 2_000);
    let mut certain = after(YESTERDAY, true);
    for (wall, refusal) in [
        (BUILT - 2 * DAY_MS, Unbelieved::TooEarly),
        (YESTERDAY - HOUR, Unbelieved::TooEarly),
        (BUILT + 6 * YEAR_MS, Unbelieved::TooLate),
        (i64::MAX, Unbelieved::TooLate),
        (i64::MIN, Unbelieved::TooEarly),
    ] {
        assert_eq!(certain.donate(phone(wall)), Err(refusal), "{wall}");
    }
    let vague = donation(TimeSource::Phone, 0, YESTERDAY - 2 * DAY_MS, 30 * DAY_MS);
    assert_eq!(certain.donate(vague), Err(Unbelieved::TooEarly), "however little it claims to know");
    assert_eq!(certain.read(0, 0, false).state, ClockState::Unset);

    // A floor that nobody confirmed: a day may be the phone's fault, more was the clock's.
    let mut guessed = after(YESTERDAY, false);
    guessed.donate(phone(YESTERDAY - HOUR)).unwrap();
    assert_eq!(guessed.read(0, 0, false).wall_ms, YESTERDAY);
    guessed.donate(phone(YESTERDAY - 2 * DAY_MS)).unwrap();
    assert_eq!(guessed.read(0, 0, false).wall_ms, YESTERDAY - 2 * DAY_MS);
}

#[test]
fn the_best_donation_is_kept_until_it_may_have_drifted_further_than_the_next_is_wrong() {
    let mut belief = fresh();
    let cloud = |mono: i64, off: i64, unc| donation(TimeSource::Cloud, mono, YESTERDAY + mono + off, unc);
    belief.donate(cloud(0, 0, 400)).unwrap();
    belief.donate(cloud(60_000, 30, 600)).unwrap();
    assert_eq!(belief.donated().unwrap().uncertainty_ms, 400, "a worse one that agrees");
    belief.donate(cloud(120_000, 30, 150)).unwrap();
    assert_eq!(belief.donated().unwrap().uncertainty_ms, 150);
    belief.donate(cloud(180_000, 40, 152)).unwrap();
    assert_eq!(belief.donated().unwrap().uncertainty_ms, 152, "as good as the old one is by now");
    assert_eq!(anchors(&mut belief), [(TimeSource::Cloud, 400), (TimeSource::Cloud, 150)]);
    // Hours later the crystal has run off, and the next rounds say so.
    for minute in 0..60 {
        belief.donate(cloud(4 * HOUR + minute * 60_000, 400, 150)).unwrap();
    }
    assert_eq!(anchors(&mut belief), [(TimeSource::Cloud, 150)], "once, not every minute");
}

#[test]
fn only_the_cloud_inside_its_certificate_proves_a_time_and_nothing_takes_it_back() {
    let mut belief = after(YESTERDAY, true);
    let now = belief.read(0, 0, false);
    let trusted = belief.trusted_time(now);
    assert_eq!((trusted.now_ms, trusted.earliest_ms), (YESTERDAY, BUILT - DAY_MS));
    assert!(!trusted.confirmed);
    belief.prove(YESTERDAY + DAY_MS);
    belief.prove(YESTERDAY);
    let now = belief.read(0, YESTERDAY, true);
    let trusted = belief.trusted_time(now);
    assert_eq!((trusted.now_ms, trusted.earliest_ms), (YESTERDAY + DAY_MS, YESTERDAY + DAY_MS));
    assert!(trusted.confirmed);
}

#[test]
fn ntp_is_told_once_in_a_boot() {
    let mut belief = fresh();
    for _ in 0..3 {
        belief.read(1_000, YESTERDAY, true);
        belief.read(2_000, YESTERDAY, false);
    }
    assert_eq!(anchors(&mut belief), [(TimeSource::Ntp, NTP_UNCERTAINTY_MS)]);
    let known = Known { ntp_told: true, ..Known::default() };
    let mut again = Belief::new(0, BUILT, &known);
    again.read(1_000, YESTERDAY, true);
    assert_eq!(anchors(&mut again), []);
}
