//! Messages that are no readings: kept as events, so that nothing acknowledged is lost, and so few of them that
//! a broken device cannot fill the card.

use super::map::Unreadable;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Events with their payload, in one hour: of one topic, and of all.
const WHOLE_PER_TOPIC: u32 = 5;
const WHOLE: u32 = 60;
const HOUR: Duration = Duration::from_secs(3_600);
/// How much of a payload and of a topic an event holds; their worst escapes stay below an event's limit.
const PAYLOAD_BYTES: usize = 1_024;
const TOPIC_BYTES: usize = 256;

/// What is kept of an unreadable message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    Whole,
    /// That there were so many in this hour of which nothing else is kept.
    Count(u32),
    Nothing,
}

/// What may still be kept in this hour.
#[derive(Debug, Default)]
pub(super) struct Budget {
    began: Option<Instant>,
    topics: HashMap<String, u32>,
    whole: u32,
    more: u32,
}

impl Budget {
    /// Counts one more unreadable message.
    pub(super) fn ask(&mut self, topic: &str, now: Instant) -> Keep {
        if self.began.is_none_or(|began| now.saturating_duration_since(began) >= HOUR) {
            *self = Self { began: Some(now), ..Self::default() };
        }
        // Topics are asked for only while there is anything to give, so there are few of them.
        if self.whole < WHOLE {
            let given = self.topics.entry(topic.to_owned()).or_default();
            if *given < WHOLE_PER_TOPIC {
                *given += 1;
                self.whole += 1;
                return Keep::Whole;
            }
        }
        self.more = self.more.saturating_add(1);
        // 1, 10, 100 …: a flood is told while it goes on, in a handful of events.
        if self.more == 10_u32.saturating_pow(self.more.ilog10()) {
            Keep::Count(self.more)
        } else {
            Keep::Nothing
        }
    }
}

/// The event's body for a message.
pub(super) fn body(topic: &str, payload: &[u8], why: &Unreadable) -> Value {
    let mut body = json!({
        "topic": bounded(topic, TOPIC_BYTES),
        "reason": why.reason,
        "about": bounded(&why.about, TOPIC_BYTES),
        "bytes": payload.len(),
    });
    let is_plain = |text: &&str| !text.chars().any(|c| c.is_control() && !['\n', '\r', '\t'].contains(&c));
    match str::from_utf8(payload).ok().filter(is_plain) {
        Some(text) => body["payload"] = bounded(text, PAYLOAD_BYTES).into(),
        None => {
            let kept = payload.get(..PAYLOAD_BYTES).unwrap_or(payload);
            body["payload_base64"] = STANDARD.encode(kept).into();
        }
    }
    body
}

fn bounded(text: &str, most: usize) -> String {
    let end = (0..=most.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
    text.get(..end).unwrap_or_default().replace(|c: char| c.is_control() && c != '\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use lumbung_shared::event::{BODY_MAX_BYTES, check_event};

    #[test]
    fn a_broken_device_is_kept_a_few_times_and_then_counted_until_the_hour_is_over() {
        let (mut budget, now) = (Budget::default(), Instant::now());
        let first: Vec<_> = (0..5).map(|_| budget.ask("a", now)).collect();
        assert_eq!(first, [Keep::Whole; 5]);
        let then: Vec<_> = (0..10).map(|_| budget.ask("a", now)).collect();
        assert_eq!((then[0], then[1], then[9]), (Keep::Count(1), Keep::Nothing, Keep::Count(10)));
        assert_eq!(budget.ask("b", now), Keep::Whole, "another device is not to blame");
        assert_eq!(budget.ask("a", now + HOUR), Keep::Whole);
    }

    #[test]
    fn a_thousand_broken_devices_together_have_a_limit_too() {
        let (mut budget, now) = (Budget::default(), Instant::now());
        let whole = (0..100_000).filter(|n| budget.ask(&n.to_string(), now) != Keep::Nothing).count();
        assert_eq!(whole, 60 + 5);
    }

    #[test]
    fn whatever_came_fits_into_an_event() {
        let why = Unreadable { reason: "not_a_number", about: "\"".repeat(5_000) };
        let grain = "🌾".repeat(3_000);
        let payloads: [&[u8]; 5] = [&[0; 9_000], &[b'"'; 9_000], &[0xff; 9_000], grain.as_bytes(), b""];
        for payload in payloads {
            let text = body(&"\u{1}\"🌾".repeat(2_000), payload, &why).to_string();
            check_event("mqtt_unreadable", &text).unwrap();
            assert!(text.len() < BODY_MAX_BYTES);
        }
        assert_eq!(body("t", b"dingin", &why)["payload"], "dingin");
    }
}
