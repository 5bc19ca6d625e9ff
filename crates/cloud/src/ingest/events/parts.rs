//! Which sensors and readers of a gateway are silent, by the latest word of each.

use super::NewEvent;
use chrono::{DateTime, Utc};
use lumbung_shared::event::Event;
use serde::Deserialize;
use sqlx::PgConnection;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// Longest name and reason that are shown.
const SHOWN_CHARS: usize = 200;

/// A part that went silent or came back.
#[derive(Debug, PartialEq)]
struct Word {
    part: &'static str,
    name: String,
    down: bool,
    reason: Option<String>,
}

/// How a part is, since when, by the word of which event.
struct State {
    since: DateTime<Utc>,
    epoch: i64,
    seq: i64,
    down: bool,
    reason: Option<String>,
}

impl State {
    fn is_newer_than(&self, known: &Self) -> bool {
        if self.epoch == known.epoch { self.seq > known.seq } else { self.since >= known.since }
    }
}

fn word(event: &Event) -> Option<Word> {
    #[derive(Deserialize)]
    struct Body {
        #[serde(alias = "reader")]
        sensor: Option<String>,
        reason: Option<String>,
    }
    let (part, down) = match event.kind.as_str() {
        "sensor_down" => ("sensor", true),
        "sensor_up" => ("sensor", false),
        "reader_down" => ("reader", true),
        "reader_up" => ("reader", false),
        _ => return None,
    };
    let body: Body = serde_json::from_str(&event.body).ok()?;
    let shown = |text: String| text.chars().filter(|c| !c.is_control()).take(SHOWN_CHARS).collect();
    // A gateway has one reader, and need not name it; a sensor without a name is none.
    let name = body.sensor.map(shown).or_else(|| (part == "reader").then(String::new))?;
    Some(Word { part, name, down, reason: body.reason.map(shown).filter(|_| down) })
}

/// Notes what these events say of parts, unless something newer is known of the part. Within a run the number
/// tells which word is newer; only between runs their times must.
pub(super) async fn note<'a>(
    tx: &mut PgConnection,
    events: impl Iterator<Item = &'a NewEvent<'a>>,
) -> sqlx::Result<()> {
    let mut latest: BTreeMap<(i32, &'static str, String), State> = BTreeMap::new();
    for new in events {
        let Some(word) = word(new.event) else { continue };
        let state = State {
            since: new.when.at,
            epoch: new.epoch,
            seq: new.event.seq,
            down: word.down,
            reason: word.reason,
        };
        match latest.entry((new.gateway_id, word.part, word.name)) {
            Entry::Occupied(known) if !state.is_newer_than(known.get()) => {}
            Entry::Occupied(mut known) => *known.get_mut() = state,
            Entry::Vacant(place) => {
                place.insert(state);
            }
        }
    }
    if latest.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "insert into gateway_part (gateway_id, part, name, down, reason, since, epoch, seq)
         select * from unnest($1::int[], $2::text[], $3::text[], $4::bool[], $5::text[], $6::timestamptz[],
             $7::bigint[], $8::bigint[])
         on conflict on constraint gateway_part_pk do update
             set down = excluded.down, reason = excluded.reason, since = excluded.since, epoch = excluded.epoch,
                 seq = excluded.seq
             where case when excluded.epoch = gateway_part.epoch then excluded.seq > gateway_part.seq
                 else excluded.since >= gateway_part.since end",
        &latest.keys().map(|key| key.0).collect::<Vec<_>>(),
        &latest.keys().map(|key| key.1).collect::<Vec<_>>() as &[&str],
        &latest.keys().map(|key| key.2.as_str()).collect::<Vec<_>>() as &[&str],
        &latest.values().map(|state| state.down).collect::<Vec<_>>(),
        &latest.values().map(|state| state.reason.as_deref()).collect::<Vec<_>>() as &[Option<&str>],
        &latest.values().map(|state| state.since).collect::<Vec<_>>(),
        &latest.values().map(|state| state.epoch).collect::<Vec<_>>(),
        &latest.values().map(|state| state.seq).collect::<Vec<_>>(),
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Parts of which one of these events is the word are as they are since its time, which became known better.
pub(super) async fn renew(
    tx: &mut PgConnection,
    gateways: &[i32],
    epochs: &[i64],
    seqs: &[i64],
) -> sqlx::Result<()> {
    sqlx::query!(
        "update gateway_part p set since = e.event_time
         from unnest($1::int[], $2::bigint[], $3::bigint[]) as k (gateway_id, epoch, seq)
         join gateway_event e on (e.gateway_id, e.epoch, e.seq) = (k.gateway_id, k.epoch, k.seq)
         where (p.gateway_id, p.epoch, p.seq) = (e.gateway_id, e.epoch, e.seq)",
        gateways,
        epochs,
        seqs
    )
    .execute(tx)
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use lumbung_shared::time::ClockState;

    fn told(kind: &str, body: &str) -> Option<Word> {
        let (kind, body) = (kind.to_owned(), body.to_owned());
        word(&Event { seq: 1, mono_ms: 0, wall_ms: 0, clock: ClockState::Held, kind, body })
    }

    #[test]
    fn parts_speak_through_events_and_other_events_say_nothing_of_them() {
        let down = told("sensor_down", r#"{"sensor":"kulkas-1","reason":"no answer"}"#).unwrap();
        assert_eq!((down.part, down.name.as_str(), down.down), ("sensor", "kulkas-1", true));
        assert_eq!(down.reason.as_deref(), Some("no answer"));
        assert!(!told("sensor_up", r#"{"sensor":"kulkas-1"}"#).unwrap().down);
        assert_eq!(told("reader_down", "{}").unwrap().name, "");
        for (kind, body) in [("sensor_down", "{}"), ("sensor_down", r#"{"sensor":7}"#), ("clock_step", "{}")]
        {
            assert_eq!(told(kind, body), None, "{kind} {body}");
        }
    }
}
