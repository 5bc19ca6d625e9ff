//! Whatever order runs, anchors and repeats come in, everything is kept once and what is derived from the rows
//! stays equal to them.

use anyhow::Result;
use fastrand::Rng;
use lumbung_shared::event::Event;
use lumbung_shared::reading::Reading;
use lumbung_shared::scan::Scan;
use lumbung_shared::time::ClockState;
use lumbung_shared::wire::{
    Batch, EVENT_STREAM, Epoch, READING_STREAM, RunSection, RunStart, SCAN_STREAM, Statuses, write_events,
    write_readings, write_scans,
};
use lumbung_tests::story::story;
use lumbung_tests::wire::{HandMade, event, now_ms, reading, scan, start, whole};
use serde_json::json;
use sqlx::PgPool;

const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;
/// The run that is alive and sends; the others are what it finds on its card.
const LIVING: u64 = 1_000;

/// A piece of a run as one batch brings it.
#[derive(Clone, Default)]
struct Piece {
    epoch: u64,
    boot: String,
    scans: Vec<Scan>,
    readings: Vec<Reading>,
    events: Vec<Event>,
}

/// A gateway's life: boots of two runs each, records of all three streams whose clocks are right, wrong, lying
/// or in 1970, and time that is donated now and then.
fn life(rng: &mut Rng) -> Result<Vec<Piece>> {
    let mut pieces = Vec::new();
    let (mut scans, mut readings, mut events) = (0, 0, 0);
    for boot in 0..4 {
        let began_ms = now_ms() - (6 - boot) * DAY;
        let mut mono_ms = 0;
        let mut run = 0;
        for n in 0..8 {
            run = if n == 4 { run + 1 } else { run };
            let epoch = u64::try_from(10 * (boot + 1) + run)?;
            let mut piece = Piece { epoch, boot: format!("boot-{boot}"), ..Piece::default() };
            for _ in 0..rng.i64(1..30) {
                mono_ms += rng.i64(1_000..200_000);
                let right_ms = began_ms + mono_ms;
                let (clock, wall_ms) = match rng.u8(0..8) {
                    0..4 => (ClockState::Unset, mono_ms),
                    4..6 => (ClockState::Held, right_ms + rng.i64(-DAY..DAY)),
                    6 => (ClockState::Held, right_ms),
                    _ if rng.u8(0..8) == 0 => (ClockState::Synced, right_ms - DAY),
                    _ => (ClockState::Synced, right_ms),
                };
                match rng.u8(0..12) {
                    0..5 => {
                        scans += 1;
                        let status = ["makanan_keluar", "makanan_masuk"][rng.usize(0..2)];
                        let mut one = scan(scans, &format!("TAG-{scans}"), status)?;
                        (one.mono_ms, one.wall_ms, one.clock) = (mono_ms, wall_ms, clock);
                        piece.scans.push(one);
                    }
                    5..10 => {
                        readings += 1;
                        let name = format!("kulkas-{}/temperature", rng.u8(1..4));
                        let mut one = reading(readings, &name, "Cel", f64::from(rng.i8(..)))?;
                        (one.mono_ms, one.wall_ms, one.clock) = (mono_ms, wall_ms, clock);
                        piece.readings.push(one);
                    }
                    kind => {
                        events += 1;
                        let source = ["cloud", "phone", "ntp"][rng.usize(0..3)];
                        let wall =
                            right_ms + rng.i64(-2_000..2_000) - i64::from(rng.u8(0..6) == 0) * 5 * HOUR;
                        let body = match kind {
                            10 if rng.bool() => json!({ "mono_ms": mono_ms, "wall_ms": wall,
                                "uncertainty_ms": rng.i64(0..60_000), "source": source }),
                            _ => {
                                json!({ "sensor": format!("kulkas-{}", rng.u8(1..3)), "reason": "no answer" })
                            }
                        };
                        let kind = match body["sensor"].is_string() {
                            true => ["sensor_down", "sensor_up"][rng.usize(0..2)],
                            false => "clock_anchor",
                        };
                        let mut one = event(events, kind, &body);
                        (one.mono_ms, one.wall_ms, one.clock) = (mono_ms, wall_ms, clock);
                        piece.events.push(one);
                    }
                }
            }
            pieces.push(piece);
        }
    }
    Ok(pieces)
}

/// A batch of the living run with pieces of others; now and then nobody says how their runs began.
fn sent(pieces: &[Piece], introduced: bool) -> Result<Batch> {
    let mut batch = whole(LIVING, None, Vec::new(), Vec::new());
    let mut statuses = Statuses::default();
    for piece in pieces {
        let streams = [
            (SCAN_STREAM.to_owned(), write_scans(piece.scans.clone(), &mut statuses)?.into_iter().collect()),
            (READING_STREAM.to_owned(), write_readings(piece.readings.clone())?.into_iter().collect()),
            (EVENT_STREAM.to_owned(), write_events(piece.events.clone())?.into_iter().collect()),
        ];
        let start = introduced.then(|| RunStart { boot: piece.boot.clone(), ..start(None) });
        batch.runs.push(RunSection { epoch: Epoch(piece.epoch), start, streams: streams.into() });
    }
    batch.statuses = statuses.into_codes();
    Ok(batch)
}

/// How many rows say otherwise than the rows they are derived from; each must be none.
const CLAIMS: [(&str, &str); 9] = [
    (
        "the count per day is the count of the rows",
        "select count(*) from (select gateway_id, site_id, local_day, status_scan, count(*) as scans from scan_event
             group by 1, 2, 3, 4) e
         full join scan_day d using (gateway_id, site_id, local_day, status_scan)
         where e.scans is distinct from d.scans",
    ),
    (
        "a day is the site's own day of the event",
        "select count(*) from scan_event e join site s using (site_id)
         where local_day <> (event_time at time zone s.time_zone)::date",
    ),
    (
        "the latest of a series is its newest row",
        "select count(*) from (select distinct on (series_id) series_id, reading_time, epoch, seq, value, time_basis,
                 uncertainty_ms from reading order by series_id, reading_time desc, epoch desc, seq desc) r
         full join series_latest l using (series_id)
         where (r.reading_time, r.epoch, r.seq, r.value, r.time_basis, r.uncertainty_ms)
             is distinct from (l.reading_time, l.epoch, l.seq, l.value, l.time_basis, l.uncertainty_ms)",
    ),
    (
        "what is taken of readings is what is kept of them, once",
        "select count(*) from (select gateway_id, epoch, count(*) as n, count(distinct seq) as each from (
                 select s.gateway_id, r.epoch, r.seq from reading r join series s using (series_id)
                 union all select gateway_id, epoch, seq from waiting_reading) k group by 1, 2) k
         full join (select * from run_stream where stream = 'reading' and not isempty(held)) h using (gateway_id, epoch)
         where (numbers_held(h.taken), numbers_held(h.held), k.each) is distinct from (k.n, k.n, k.n)",
    ),
    (
        "what is held of scans is what is kept of them",
        "select count(*) from (select gateway_id, epoch, count(*) as n from scan_event group by 1, 2) k
         full join (select * from run_stream where stream = 'scan' and not isempty(held)) h using (gateway_id, epoch)
         where numbers_held(h.held) is distinct from k.n",
    ),
    (
        "a gateway's counts are those of its rows",
        "select count(*) from gateway_state g
         where scans <> (select count(*) from scan_event e where e.gateway_id = g.gateway_id)
             or readings <> (select count(*) from reading join series s using (series_id)
                 where s.gateway_id = g.gateway_id)
                 + (select count(*) from waiting_reading w where w.gateway_id = g.gateway_id)",
    ),
    (
        "nothing is uncertain or waits once its boot is tied to the time of day",
        "select count(*) from gateway_run join boot_anchor using (gateway_id, boot_id)
         join (select gateway_id, epoch from scan_event where time_basis = 3
             union all select gateway_id, epoch from gateway_event where time_basis = 3
             union all select gateway_id, epoch from waiting_reading
             union all select s.gateway_id, r.epoch from reading r join series s using (series_id)
                 where time_basis = 3) doubtful using (gateway_id, epoch)",
    ),
    (
        "no anchored record contradicts what its boot is tied by",
        "select count(*) from gateway_run join boot_anchor a using (gateway_id, boot_id)
         join (select gateway_id, epoch, event_time as at, mono_ms, uncertainty_ms from scan_event where time_basis = 1
             union all select s.gateway_id, r.epoch, r.reading_time, r.mono_ms, r.uncertainty_ms
                 from reading r join series s using (series_id) where time_basis = 1) e using (gateway_id, epoch)
         where abs(extract(epoch from e.at) * 1000 - (a.offset_ms + e.mono_ms))
             > e.uncertainty_ms + a.uncertainty_ms + abs(e.mono_ms - a.mono_ms) / 10000 + 1000",
    ),
    (
        "a part is as the last word of its run says, since then",
        "select count(*) from gateway_part p where not exists (
             select from gateway_event e
             where (e.gateway_id, e.epoch, e.seq) = (p.gateway_id, p.epoch, p.seq) and e.event_time = p.since
                 and p.down = (e.kind = 'sensor_down') and not exists (
                     select from gateway_event n where (n.gateway_id, n.epoch) = (e.gateway_id, e.epoch)
                         and n.seq > e.seq and n.kind in ('sensor_down', 'sensor_up')
                         and n.body::jsonb ->> 'sensor' = p.name))",
    ),
];

async fn all_claims_hold(database: &PgPool, when: &str) -> Result<()> {
    for (claim, sql) in CLAIMS {
        let wrong: i64 = sqlx::query_scalar(sql).fetch_one(database).await?;
        assert_eq!(wrong, 0, "{when}: {claim}");
    }
    Ok(())
}

#[test]
fn what_is_derived_equals_the_rows_whatever_comes_in_whatever_order() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let database = cloud.database().await?;
        for seed in 1..=6 {
            let mut rng = Rng::with_seed(seed);
            let gateway = cloud.hand_made(&format!("GW-{seed}")).await?;
            let life = life(&mut rng)?;
            let mut order = [life.clone(), rng.choose_multiple(life.iter().cloned(), 12)].concat();
            rng.shuffle(&mut order);
            for piece in &order {
                gateway.send(&sent(std::slice::from_ref(piece), rng.u8(0..3) > 0)?).await?;
            }
            all_claims_hold(&database, &format!("seed {seed}, shuffled")).await?;
            // The whole life once more, now with every run introduced.
            for piece in &life {
                gateway.send(&sent(std::slice::from_ref(piece), true)?).await?;
            }
            all_claims_hold(&database, &format!("seed {seed}, repeated")).await?;
            let kept: i64 = sqlx::query_scalar(
                "select scans + readings + (select count(*) from gateway_event e where e.gateway_id = g.gateway_id)
                 from gateway_state s join gateway g using (gateway_id) where g.code = $1",
            )
            .bind(format!("GW-{seed}"))
            .fetch_one(&database)
            .await?;
            let made: usize = life.iter().map(|p| p.scans.len() + p.readings.len() + p.events.len()).sum();
            assert_eq!(usize::try_from(kept)?, made, "seed {seed}");
        }
        Ok(())
    })
}

#[test]
fn gateways_that_talk_to_two_replicas_at_once_keep_everything_once() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let replica = stand.replica_of(&cloud).await?;
        let database = cloud.database().await?;
        let mut senders = Vec::new();
        let mut made = 0;
        for seed in 11..=14 {
            let mut rng = Rng::with_seed(seed);
            let gateway = cloud.hand_made(&format!("GW-{seed}")).await?;
            let life = life(&mut rng)?;
            made += life.iter().map(|p| p.scans.len() + p.readings.len() + p.events.len()).sum::<usize>();
            for base in [cloud.base(), replica.base()] {
                let gateway = HandMade::with_key(&gateway.code, &base, &gateway.key)?;
                let mut pieces = life.clone();
                rng.shuffle(&mut pieces);
                senders.push(tokio::spawn(async move {
                    for piece in &pieces {
                        gateway.send(&sent(std::slice::from_ref(piece), true)?).await?;
                    }
                    anyhow::Ok(())
                }));
            }
        }
        for sender in senders {
            sender.await??;
        }
        all_claims_hold(&database, "two replicas").await?;
        let kept: i64 = sqlx::query_scalar(
            "select (sum(scans + readings) + (select count(*) from gateway_event))::bigint from gateway_state",
        )
        .fetch_one(&database)
        .await?;
        assert_eq!(usize::try_from(kept)?, made);
        Ok(())
    })
}
