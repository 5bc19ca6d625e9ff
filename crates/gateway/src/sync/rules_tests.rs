use super::*;

fn rules() -> Rules {
    Rules::new(&config::Sync {
        interval: Duration::from_secs(60),
        probe_interval: Duration::from_secs(300),
        backoff_base: Duration::from_secs(1),
        backoff_max: Duration::from_secs(300),
        request_timeout: Duration::from_secs(60),
        batch_max: 5_000,
    })
}

fn settled(more: bool) -> Reply {
    Reply::Settled { more, retry_after: None }
}

/// Plays a cloud that refuses any batch with a bad record in it. Returns the parked records and how
/// many requests it took until every other record had arrived.
fn play(total: usize, bad: &[usize]) -> (Vec<usize>, usize) {
    let mut rules = rules();
    let mut waiting: std::collections::VecDeque<usize> = (1..=total).collect();
    let (mut parked, mut requests) = (Vec::new(), 0);
    while !waiting.is_empty() {
        requests += 1;
        assert!(requests < 20_000, "it never ends");
        let (sent, reply, count) = match rules.send() {
            Send::Records { limit } => {
                let count = limit.min(waiting.len());
                let spoilt = waiting.iter().take(count).any(|record| bad.contains(record));
                let reply = if spoilt { Reply::Refused } else { settled(waiting.len() > count) };
                (Sent::Records { count }, reply, if spoilt { 0 } else { count })
            }
            Send::Envelope => (Sent::Envelope, settled(true), 0),
            Send::Probe => unreachable!("the key was never refused"),
        };
        let step = rules.after(sent, reply, 0.5);
        waiting.drain(..count);
        if step.park.is_some() {
            parked.extend(waiting.pop_front());
        }
        if !waiting.is_empty() {
            assert_eq!(step.wait, Wait::NONE, "one bad record must not delay the others");
        }
    }
    (parked, requests)
}

#[test]
fn one_bad_record_among_five_hundred_is_found_by_halving() {
    for bad in [1, 100, 250, 499, 500] {
        let (parked, requests) = play(500, &[bad]);
        assert_eq!(parked, [bad]);
        assert!(requests <= 21, "{requests} requests for record {bad}");
    }
}

#[test]
fn a_batch_of_only_bad_records_is_parked_one_by_one() {
    let all: Vec<usize> = (1..=300).collect();
    let (parked, requests) = play(300, &all);
    assert_eq!(parked, all);
    assert!(requests <= 3 * 300 + 20, "{requests}");
    let every_other: Vec<usize> = (1..=300).step_by(2).collect();
    let (parked, _) = play(300, &every_other);
    assert_eq!(parked, every_other);
}

#[test]
fn nothing_is_parked_while_the_envelope_itself_is_refused() {
    let mut rules = rules();
    let mut count = 500;
    while count > 1 {
        rules.after(Sent::Records { count }, Reply::Refused, 0.5);
        let Send::Records { limit } = rules.send() else { panic!("{rules:?}") };
        count = limit;
    }
    rules.after(Sent::Records { count: 1 }, Reply::Refused, 0.5);
    assert_eq!(rules.send(), Send::Envelope);
    let step = rules.after(Sent::Envelope, Reply::Refused, 0.5);
    assert_eq!(step.park, None);
    assert!(step.wait.long > Duration::ZERO && rules.is_backing_off());
    assert_eq!(rules.send(), Send::Records { limit: 500 });
}

#[test]
fn a_link_that_drops_during_the_confirmation_parks_nothing_and_asks_again() {
    let mut rules = rules();
    rules.after(Sent::Records { count: 1 }, Reply::Refused, 0.5);
    let step = rules.after(Sent::Envelope, Reply::Failed { timed_out: false }, 0.5);
    assert_eq!(step.park, None);
    assert_eq!(rules.send(), Send::Records { limit: 1 });
    // This time the record is taken: it was the cloud's bad moment.
    let step = rules.after(Sent::Records { count: 1 }, settled(false), 0.5);
    assert_eq!(step.park, None);
    assert!(matches!(rules.send(), Send::Records { limit } if limit > 1));
}

#[test]
fn a_batch_too_large_is_halved_and_a_single_record_too_large_is_parked() {
    let mut rules = rules();
    rules.after(Sent::Records { count: 500 }, Reply::TooLarge, 0.5);
    assert_eq!(rules.send(), Send::Records { limit: 250 });
    rules.after(Sent::Records { count: 250 }, settled(true), 0.5);
    assert_eq!(rules.send(), Send::Records { limit: 250 }, "not straight back to what was too large");
    rules.after(Sent::Records { count: 1 }, Reply::TooLarge, 0.5);
    assert_eq!(rules.send(), Send::Envelope);
    let step = rules.after(Sent::Envelope, settled(true), 0.5);
    assert_eq!((step.park, rules.send()), (None, Send::Records { limit: 1 }));
    let step = rules.after(Sent::Records { count: 1 }, Reply::TooLarge, 0.5);
    assert_eq!(step.park, Some(ParkReason::TooLarge));
}

#[test]
fn a_refusal_that_passes_parks_nothing() {
    let mut rules = rules();
    rules.after(Sent::Records { count: 1 }, Reply::Refused, 0.5);
    rules.after(Sent::Envelope, settled(true), 0.5);
    let step = rules.after(Sent::Records { count: 1 }, settled(false), 0.5);
    assert_eq!((step.park, step.wait.long), (None, Duration::from_secs(60)));
}

#[test]
fn runs_that_are_too_many_for_one_batch_go_out_in_smaller_ones() {
    let mut rules = rules();
    rules.after(Sent::Records { count: 0 }, Reply::TooLarge, 0.5);
    assert_eq!(rules.send(), Send::Records { limit: 250 });
}

#[test]
fn an_answer_on_no_record_ends_the_search_for_a_bad_one_instead_of_spinning() {
    let mut rules = rules();
    rules.after(Sent::Records { count: 8 }, Reply::Refused, 0.5);
    let step = rules.after(Sent::Records { count: 0 }, settled(false), 0.5);
    assert_eq!(step.wait.long, Duration::from_secs(60));
    assert_eq!(rules.send(), Send::Records { limit: 500 });
}

#[test]
fn verdicts_that_found_no_room_make_the_next_batch_smaller() {
    let mut rules = rules();
    let step = rules.after(Sent::Records { count: 500 }, Reply::NotKept, 0.5);
    assert!(step.wait.long > Duration::ZERO && rules.is_backing_off());
    assert_eq!(rules.send(), Send::Records { limit: 250 });
}

#[test]
fn batches_grow_with_success_up_to_the_limit() {
    let mut rules = rules();
    let mut limits = Vec::new();
    for _ in 0..5 {
        let Send::Records { limit } = rules.send() else { panic!("{rules:?}") };
        limits.push(limit);
        rules.after(Sent::Records { count: limit }, settled(true), 0.5);
    }
    assert_eq!(limits, [500, 1_000, 2_000, 4_000, 5_000]);
    rules.after(Sent::Records { count: 5_000 }, Reply::Failed { timed_out: true }, 0.5);
    assert_eq!(rules.send(), Send::Records { limit: 2_500 });
}

#[test]
fn back_off_doubles_to_its_ceiling_and_success_ends_it() {
    let mut rules = rules();
    let failed = Reply::Failed { timed_out: false };
    let longest =
        |rules: &mut Rules| rules.after(Sent::Records { count: 9 }, failed, 1.0).wait.long.as_secs();
    let waits: Vec<u64> = (0..11).map(|_| longest(&mut rules)).collect();
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
    let drawn = rules.after(Sent::Records { count: 9 }, failed, 0.0).wait;
    assert_eq!(drawn.long, Duration::ZERO, "full jitter reaches down to nothing");
    let step = rules.after(Sent::Records { count: 9 }, settled(false), 0.5);
    assert_eq!(step.wait.long, Duration::from_secs(60));
    assert!(!rules.is_backing_off());
    assert_eq!(longest(&mut rules), 1);
}

#[test]
fn a_scan_cuts_a_back_off_short_but_not_below_retry_after() {
    let mut rules = rules();
    for _ in 0..8 {
        rules.after(Sent::Records { count: 9 }, Reply::Failed { timed_out: false }, 1.0);
    }
    let wait = rules.after(Sent::Records { count: 9 }, Reply::Busy { retry_after: None }, 1.0).wait;
    assert!(wait.by_scan && wait.long == Duration::from_secs(256));
    assert_eq!(wait.at_least, Duration::from_secs(1), "a burst of scans must not become a burst of attempts");
    let retry_after = Some(Duration::from_secs(600));
    let wait = rules.after(Sent::Records { count: 9 }, Reply::Busy { retry_after }, 0.0).wait;
    assert_eq!((wait.long, wait.at_least), (Duration::from_secs(600), Duration::from_secs(600)));
    let forever = Some(Duration::from_secs(u64::MAX / 1_000));
    let wait = rules.after(Sent::Records { count: 9 }, Reply::Busy { retry_after: forever }, 0.0).wait;
    assert_eq!(wait.long, LONGEST_RETRY_AFTER);
}

#[test]
fn an_answer_that_settles_nothing_is_a_failure() {
    let mut rules = rules();
    let step = rules.after(Sent::Records { count: 9 }, Reply::SettledNothing { retry_after: None }, 1.0);
    assert!(step.wait.long >= Duration::from_secs(1) && rules.is_backing_off());
}

#[test]
fn a_refused_key_sends_only_probes_until_one_is_welcome() {
    for (reply, lock) in [(Reply::Unauthorised, Lock::Unauthorised), (Reply::Revoked, Lock::Revoked)] {
        let mut rules = rules();
        let step = rules.after(Sent::Records { count: 9 }, reply, 0.5);
        assert_eq!((rules.lock(), rules.send(), step.park), (Some(lock), Send::Probe, None));
        assert!(!step.wait.by_scan && step.wait.long == Duration::from_secs(300));
        let step = rules.after(Sent::Probe, Reply::Busy { retry_after: None }, 0.5);
        assert_eq!((rules.lock(), step.wait.long), (Some(lock), Duration::from_secs(300)));
        rules.after(Sent::Probe, settled(false), 0.5);
        assert_eq!(rules.send(), Send::Records { limit: 500 });
    }
}

#[test]
fn another_key_is_tried_at_once() {
    let mut rules = rules();
    rules.after(Sent::Records { count: 9 }, Reply::Unauthorised, 0.5);
    rules.identity_changed();
    assert_eq!(rules.send(), Send::Records { limit: 500 });
}

#[test]
fn after_a_success_scans_are_gathered_for_a_moment_and_the_cloud_may_ask_for_quiet() {
    let mut rules = rules();
    let wait = rules.after(Sent::Records { count: 1 }, settled(false), 0.5).wait;
    assert_eq!((wait.at_least, wait.long, wait.by_scan), (GATHER, Duration::from_secs(60), true));
    let asked = Reply::Settled { more: true, retry_after: Some(Duration::from_secs(30)) };
    let wait = rules.after(Sent::Records { count: 1 }, asked, 0.5).wait;
    assert_eq!((wait.at_least, wait.long), (Duration::from_secs(30), Duration::from_secs(30)));
}
