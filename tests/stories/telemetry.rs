//! What sensors and meters say, and what happens to the gateways themselves: each record once, at its time.

use anyhow::Result;
use lumbung_shared::reading::{Quality, Reading};
use lumbung_shared::time::ClockState;
use lumbung_shared::wire::{
    Batch, EVENT_STREAM, Epoch, Health, READING_STREAM, RunStart, Verdict, whole_segment, write_events,
    write_readings,
};
use lumbung_tests::programs::Cloud;
use lumbung_tests::programs::faults::TurnedClock;
use lumbung_tests::proxy::{Line, Proxy};
use lumbung_tests::story::story;
use lumbung_tests::wait::eventually;
use lumbung_tests::wire::{event, now_ms, reading, start, telemetry, whole};
use serde_json::{Value, json};

const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;

async fn list(cloud: &Cloud, path: &str, of: &str) -> Result<Vec<Value>> {
    let body = cloud.get(path).await?.expect(200)?;
    Ok(body[of].as_array().cloned().unwrap_or_default())
}

/// The one series of that name.
async fn series(cloud: &Cloud, name: &str) -> Result<Value> {
    let found = list(cloud, &format!("/api/telemetry/series?prefix={name}"), "series").await?;
    assert_eq!(found.len(), 1, "{found:?}");
    Ok(found[0].clone())
}

async fn readings(cloud: &Cloud, series_id: &Value) -> Result<Vec<Value>> {
    list(cloud, &format!("/api/telemetry/readings?series_id={series_id}&limit=1000"), "readings").await
}

fn values(readings: &[Value]) -> Vec<f64> {
    readings.iter().filter_map(|reading| reading["value"].as_f64()).collect()
}

/// Readings of a fridge, a second apart, the first an hour ago.
fn fridge(first: i64, count: i64) -> Result<Vec<Reading>> {
    (first..first + count)
        .map(|seq| {
            let mut one = reading(seq, "kulkas-1/temperature", "Cel", seq as f64)?;
            one.wall_ms += seq * 1_000 - HOUR;
            // In step with the wall clock: a batch is sent at 120,000.
            one.mono_ms = 120_000 + seq * 1_000 - HOUR;
            Ok(one)
        })
        .collect()
}

/// The same records of run `epoch` in boot `boot`, sent by run 9 in another boot.
fn left_over(batch: Batch, boot: &str) -> Batch {
    let mut whole = whole(9, None, Vec::new(), Vec::new());
    let mut runs = batch.runs;
    for run in &mut runs {
        run.start = Some(RunStart { boot: boot.to_owned(), ..start(None) });
    }
    runs.append(&mut whole.runs);
    Batch { runs, ..whole }
}

fn unset(mut reading: Reading, mono_ms: i64) -> Reading {
    (reading.mono_ms, reading.wall_ms, reading.clock) = (mono_ms, mono_ms, ClockState::Unset);
    reading
}

#[test]
fn readings_arrive_once_and_the_latest_of_a_series_is_its_newest() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let gateway = cloud.hand_made("GW-1").await?;
        let answer = gateway.send(&telemetry(1, fridge(1, 3_000)?, vec![])?).await?;
        let stream = &answer.runs[0].streams[READING_STREAM];
        assert_eq!((stream.acked_through, stream.exceptions.len(), stream.held.count), (3_000, 0, 3_000));
        // Sent again, and overlapping what is there: nothing twice.
        let answer = gateway.send(&telemetry(1, fridge(2_990, 20)?, vec![])?).await?;
        let exceptions = &answer.runs[0].streams[READING_STREAM].exceptions;
        assert_eq!((exceptions.len(), exceptions[0].seq, exceptions[0].through), (1, 2_990, Some(3_000)));
        assert_eq!(exceptions[0].verdict, Verdict::Duplicate);
        gateway.send(&telemetry(1, fridge(1, 3_009)?, vec![])?).await?;
        let stored: (i64, i64) = sqlx::query_as("select count(*), count(distinct seq) from reading")
            .fetch_one(&cloud.database().await?)
            .await?;
        assert_eq!(stored, (3_009, 3_009));
        let fridge_1 = series(&cloud, "kulkas-1/").await?;
        assert_eq!((&fridge_1["gateway_id"], &fridge_1["unit"]), (&json!("GW-1"), &json!("Cel")));
        assert_eq!(fridge_1["latest"]["value"], 3_009.0);
        // An older one that comes late is stored and does not stand for the series.
        let mut late = reading(4_000, "kulkas-1/temperature", "Cel", 99.5)?;
        (late.wall_ms, late.mono_ms) = (late.wall_ms - 2 * HOUR, 120_000 - 2 * HOUR);
        late.content.quality = Quality::Implausible;
        gateway.send(&telemetry(1, vec![late], vec![])?).await?;
        assert_eq!(series(&cloud, "kulkas-1/").await?["latest"]["value"], 3_009.0);
        let oldest = readings(&cloud, &fridge_1["series_id"]).await?;
        assert_eq!(oldest[0]["value"], 3_009.0, "newest first");
        // What it says of itself is shown as it says it, and its own batch is no longer unsent.
        let mut told = telemetry(1, vec![], vec![])?;
        let unsent = [(READING_STREAM.to_owned(), 12), (EVENT_STREAM.to_owned(), 3)].into();
        told.health = Some(Health { unsent, undervoltage: Some(true), ..Health::default() });
        gateway.send(&told).await?;
        let line = cloud.summary_of("GW-1").await?;
        assert_eq!((&line["readings"]["unsent"], &line["events"]["unsent"]), (&json!(12), &json!(3)));
        assert_eq!(line["health"]["undervoltage"], true, "{line}");
        assert_eq!((&line["readings"]["held"], &line["readings"]["gaps"]), (&json!(3_010), &json!(990)));
        assert_eq!(line["held"], 0, "scans have their own numbers");
        Ok(())
    })
}

#[test]
fn pages_of_readings_and_of_series_hold_everything_once() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let gateway = cloud.hand_made("GW-1").await?;
        let mut all = fridge(1, 25)?;
        for n in 1..=5 {
            all.push(reading(25 + n, &format!("panel_{n}/power"), "W", n as f64)?);
        }
        all[3].content.quality = Quality::Implausible;
        gateway.send(&telemetry(1, all, vec![])?).await?;
        let id = series(&cloud, "kulkas-1/").await?["series_id"].clone();
        let mut found = Vec::new();
        let mut path = format!("/api/telemetry/readings?series_id={id}&limit=10");
        loop {
            let page = cloud.get(&path).await?.expect(200)?;
            found.extend(page["readings"].as_array().cloned().unwrap_or_default());
            let Some(next) = page["next_cursor"].as_str() else { break };
            path = format!("/api/telemetry/readings?series_id={id}&limit=10&cursor={next}");
        }
        assert_eq!(values(&found), (1..=25).rev().map(f64::from).collect::<Vec<_>>());
        let marked: Vec<_> = found.iter().filter(|one| one["quality"] == "implausible").collect();
        assert_eq!(marked.len(), 1);
        assert_eq!(marked[0]["value"], 4.0);
        let between = |n: usize| found[n]["reading_time"].as_str().unwrap_or_default().to_owned();
        let path = format!("/api/telemetry/readings?series_id={id}&from={}&to={}", between(9), between(4));
        assert_eq!(values(&list(&cloud, &path, "readings").await?), [20.0, 19.0, 18.0, 17.0, 16.0]);
        let first = cloud.get("/api/telemetry/series?prefix=panel_&limit=3").await?.expect(200)?;
        let next = first["next_cursor"].as_str().unwrap_or_default();
        let path = format!("/api/telemetry/series?prefix=panel_&limit=3&cursor={next}");
        let rest = list(&cloud, &path, "series").await?;
        let names: Vec<Value> = [first["series"].as_array().cloned().unwrap_or_default(), rest]
            .concat()
            .into_iter()
            .map(|series| series["name"].clone())
            .collect();
        assert_eq!(names, (1..=5).map(|n| json!(format!("panel_{n}/power"))).collect::<Vec<_>>());
        assert!(list(&cloud, "/api/telemetry/series?site=SEKOLAH-9", "series").await?.is_empty());
        for (path, status) in [
            ("/api/telemetry/series?limit=501", 400),
            ("/api/telemetry/series?cursor=x", 400),
            ("/api/telemetry/readings?series_id=999999", 404),
            ("/api/telemetry/readings?series_id=1&limit=1001", 400),
            ("/api/telemetry/readings?series_id=1&from=kemarin", 400),
            ("/api/telemetry/readings", 400),
            ("/api/gateways/GW-9/events", 404),
            ("/api/gateways/GW-1/events?cursor=x", 400),
        ] {
            assert_eq!(cloud.get(path).await?.status, status, "{path}");
        }
        Ok(())
    })
}

#[test]
fn readings_of_a_clock_in_1970_wait_until_their_boot_is_tied_to_the_time_of_day() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let gateway = cloud.hand_made("GW-1").await?;
        let cold = (1..=3)
            .map(|n| Ok(unset(reading(n, "kulkas-1/temperature", "Cel", n as f64)?, n * 10_000)))
            .collect::<Result<Vec<_>>>()?;
        // One whose clock was plausible stands at its guess meanwhile.
        let mut guessed = reading(4, "kulkas-1/temperature", "Cel", 4.0)?;
        (guessed.clock, guessed.mono_ms) = (ClockState::Held, 40_000);
        let batch = telemetry(1, [cold.clone(), vec![guessed]].concat(), vec![])?;
        let answer = gateway.send(&left_over(batch, "cold-boot")).await?;
        let stream = &answer.runs[0].streams[READING_STREAM];
        assert_eq!((stream.exceptions.len(), stream.held.count), (0, 4));
        let fridge_1 = series(&cloud, "kulkas-1/").await?;
        let seen = readings(&cloud, &fridge_1["series_id"]).await?;
        assert_eq!((values(&seen), &seen[0]["time_basis"]), (vec![4.0], &json!("uncertain")));
        assert_eq!(cloud.summary_of("GW-1").await?["waiting_readings"], 3);
        // Sent again while they wait: still once.
        let again = telemetry(1, cold, vec![])?;
        let answer = gateway.send(&left_over(again, "cold-boot")).await?;
        assert_eq!(answer.runs[0].streams[READING_STREAM].exceptions[0].through, Some(3));
        // A phone had told the boot the time, two days ago; that event comes at last.
        let known_ms = now_ms() - 2 * DAY;
        let body =
            json!({ "mono_ms": 100_000, "wall_ms": known_ms, "uncertainty_ms": 2_000, "source": "phone" });
        let mut donated = event(1, "clock_anchor", &body);
        (donated.mono_ms, donated.wall_ms, donated.clock) = (100_000, known_ms, ClockState::Held);
        gateway.send(&left_over(telemetry(2, vec![], vec![donated])?, "cold-boot")).await?;
        let seen = readings(&cloud, &fridge_1["series_id"]).await?;
        assert_eq!(values(&seen), [4.0, 3.0, 2.0, 1.0]);
        for (one, mono_ms) in seen.iter().zip([40_000, 30_000, 20_000, 10_000]) {
            let at: chrono::DateTime<chrono::Utc> =
                one["reading_time"].as_str().unwrap_or_default().parse()?;
            assert_eq!(at.timestamp_millis(), known_ms - 100_000 + mono_ms, "{one}");
            assert_eq!(one["time_basis"], "anchored");
            assert!((2_000..2_100).contains(&one["uncertainty_ms"].as_i64().unwrap_or_default()), "{one}");
        }
        let told: Vec<&str> = seen.iter().filter_map(|one| one["timestamp"].as_str()).collect();
        assert_eq!(told[3], "1970-01-01T00:00:10.000Z", "what was told is never changed");
        let fridge_1 = series(&cloud, "kulkas-1/").await?;
        assert_eq!(
            (&fridge_1["latest"]["value"], &fridge_1["latest"]["time_basis"]),
            (&json!(4.0), &json!("anchored"))
        );
        assert_eq!(cloud.summary_of("GW-1").await?["waiting_readings"], 0);
        let events = list(&cloud, "/api/gateways/GW-1/events", "events").await?;
        assert_eq!(
            (&events[0]["kind"], &events[0]["time_basis"]),
            (&json!("clock_anchor"), &json!("gateway"))
        );
        Ok(())
    })
}

#[test]
fn events_are_kept_once_and_say_which_sensors_are_silent() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let gateway = cloud.hand_made("GW-1").await?;
        let down = event(1, "sensor_down", &json!({ "sensor": "kulkas-1", "reason": "no answer" }));
        let unknown = event(2, "moon_rise", &json!({ "phase": 0.5, "note": "purnama" }));
        let events = vec![down.clone(), unknown, event(3, "reader_down", &json!({ "reason": "i2c" }))];
        for exceptions in [0, 1] {
            let answer = gateway.send(&telemetry(1, vec![], events.clone())?).await?;
            let stream = &answer.runs[0].streams[EVENT_STREAM];
            assert_eq!((stream.exceptions.len(), stream.held.count), (exceptions, 3), "{stream:?}");
        }
        let listed = list(&cloud, "/api/gateways/GW-1/events", "events").await?;
        let kinds: Vec<_> = listed.iter().filter_map(|event| event["kind"].as_str()).collect();
        assert_eq!(kinds.len(), 3);
        assert!(kinds.contains(&"moon_rise"), "an unknown kind is kept: {kinds:?}");
        let moon = list(&cloud, "/api/gateways/GW-1/events?kind=moon_rise", "events").await?;
        assert_eq!(moon[0]["body"], json!({ "phase": 0.5, "note": "purnama" }));
        let silent = cloud.summary_of("GW-1").await?["down"].clone();
        let parts: Vec<_> =
            silent.as_array().into_iter().flatten().map(|d| (&d["part"], &d["name"])).collect();
        assert_eq!(parts, [(&json!("reader"), &json!("")), (&json!("sensor"), &json!("kulkas-1"))]);
        assert_eq!(silent[1]["reason"], "no answer");
        let mut up = event(4, "sensor_up", &json!({ "sensor": "kulkas-1" }));
        up.wall_ms += 5_000;
        gateway.send(&telemetry(1, vec![], vec![up])?).await?;
        let silent = cloud.summary_of("GW-1").await?["down"].clone();
        assert_eq!(silent.as_array().map(Vec::len), Some(1), "{silent}");
        // The same number with another content is raised, not ignored.
        let other = event(1, "sensor_down", &json!({ "sensor": "kulkas-2" }));
        let answer = gateway.send(&telemetry(1, vec![], vec![other])?).await?;
        let stream = &answer.runs[0].streams[EVENT_STREAM];
        assert_eq!(stream.exceptions[0].reason.as_deref(), Some("conflict"));
        assert_eq!(answer.alarms, ["conflict"]);
        Ok(())
    })
}

#[test]
fn a_bad_reading_spoils_itself_only_and_is_replayed_after_a_fix() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let gateway = cloud.hand_made("GW-1").await?;
        let mut body = serde_json::to_value(telemetry(1, fridge(1, 100)?, vec![])?)?;
        body["runs"][0]["streams"][READING_STREAM][0]["cols"]["v"][49] = json!("panas");
        let answer = gateway.post(body.to_string()).await?.expect(200)?;
        let stream = &answer["runs"][0]["streams"][READING_STREAM];
        assert_eq!((&stream["exceptions"][0]["seq"], &stream["held"]["count"]), (&json!(50), &json!(100)));
        let id = series(&cloud, "kulkas-1/").await?["series_id"].clone();
        assert_eq!(readings(&cloud, &id).await?.len(), 99);
        let database = cloud.database().await?;
        sqlx::query(r#"update quarantine set raw = replace(raw, '"panas"', '50')"#)
            .execute(&database)
            .await?;
        cloud.must(&["quarantine", "replay", "--all"]).await?;
        assert_eq!(values(&readings(&cloud, &id).await?), (1..=100).rev().map(f64::from).collect::<Vec<_>>());
        // And what the gateway sends once more is a duplicate, the replayed one too.
        gateway.send(&telemetry(1, fridge(1, 100)?, vec![])?).await?;
        assert_eq!(readings(&cloud, &id).await?.len(), 100);
        assert_eq!(cloud.summary_of("GW-1").await?["readings"]["held"], 100);
        Ok(())
    })
}

/// Puts a segment into the quarantine as a cloud did that did not know its stream yet, and holds its numbers.
async fn kept_unread(cloud: &Cloud, stream: &str, segment: lumbung_shared::wire::Segment) -> Result<()> {
    let seqs: Vec<i64> = (segment.seq..segment.seq + i64::try_from(segment.n)?).collect();
    let refusal = whole_segment(&segment, &seqs, &[], "unknown_stream", "not known yet");
    let database = cloud.database().await?;
    sqlx::query(
        "insert into quarantine (gateway_id, epoch, stream, seq, through, reason, detail, raw, raw_hash, received_at)
         select gateway_id, $1, $2, $3, $4, $5, $6, $7, sha256($7::bytea), now() from gateway",
    )
    .bind(Epoch(1).to_db())
    .bind(stream)
    .bind(refusal.seq)
    .bind(refusal.through)
    .bind(refusal.reason)
    .bind(refusal.detail)
    .bind(refusal.raw)
    .execute(&database)
    .await?;
    sqlx::query(
        "insert into run_stream (gateway_id, epoch, stream, held)
         select gateway_id, $1, $2, int8multirange(int8range($3, $4, '[]')) from gateway
         on conflict on constraint run_stream_pk do update set held = run_stream.held + excluded.held",
    )
    .bind(Epoch(1).to_db())
    .bind(stream)
    .bind(refusal.seq)
    .bind(refusal.through)
    .execute(&database)
    .await?;
    Ok(())
}

#[test]
fn segments_of_a_stream_that_was_unknown_are_replayed_once_each_after_an_update() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let gateway = cloud.hand_made("GW-1").await?;
        gateway.send(&telemetry(1, vec![], vec![])?).await?;
        // The answer was lost, and the gateway cut its segments elsewhere the second time.
        for (first, count) in [(1, 100), (51, 100)] {
            let segment = write_readings(fridge(first, count)?)?;
            kept_unread(&cloud, READING_STREAM, segment.unwrap()).await?;
        }
        let events = vec![event(1, "sensor_down", &json!({ "sensor": "kulkas-1" }))];
        kept_unread(&cloud, EVENT_STREAM, write_events(events)?.unwrap()).await?;
        // An updated gateway sends some of them itself before anyone replays.
        let answer = gateway.send(&telemetry(1, fridge(140, 20)?, vec![])?).await?;
        assert_eq!(answer.runs[0].streams[READING_STREAM].held.count, 159);
        let replayed = cloud.must(&["quarantine", "replay", "--all"]).await?;
        assert!(replayed.contains("3 replayed, 0 stay"), "{replayed}");
        let id = series(&cloud, "kulkas-1/").await?["series_id"].clone();
        assert_eq!(values(&readings(&cloud, &id).await?), (1..=159).rev().map(f64::from).collect::<Vec<_>>());
        assert_eq!(list(&cloud, "/api/gateways/GW-1/events", "events").await?.len(), 1);
        let summary = cloud.summary().await?;
        assert_eq!(summary["totals"]["quarantined"], 0);
        assert_eq!(cloud.summary_of("GW-1").await?["down"][0]["name"], "kulkas-1");
        let counted: i64 = sqlx::query_scalar("select readings from gateway_state")
            .fetch_one(&cloud.database().await?)
            .await?;
        assert_eq!(counted, 159);
        Ok(())
    })
}

#[test]
fn a_gateway_that_moves_begins_new_series_and_leaves_the_old_ones_where_they_were() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let gateway = cloud.hand_made("GW-1").await?;
        gateway.send(&telemetry(1, fridge(1, 10)?, vec![])?).await?;
        cloud.add_site("SEKOLAH-1").await?;
        cloud.must(&["gateway", "stood", "GW-1", "--site", "SEKOLAH-1"]).await?;
        let mut moved = telemetry(2, fridge(11, 5)?, vec![])?;
        let site = Some("SEKOLAH-1".to_owned());
        moved.runs[0].start = Some(RunStart { site, ..start(Some(Epoch(1))) });
        gateway.send(&moved).await?;
        for (site, count) in [("DAPUR-1", 10), ("SEKOLAH-1", 5)] {
            let there = list(&cloud, &format!("/api/telemetry/series?site={site}"), "series").await?;
            assert_eq!(there.len(), 1, "{site}");
            assert_eq!(readings(&cloud, &there[0]["series_id"]).await?.len(), count, "{site}");
        }
        Ok(())
    })
}

#[test]
fn readings_of_a_real_gateway_made_offline_by_a_clock_in_1970_arrive_at_their_time() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let proxy = Proxy::start(&cloud.address())?;
        let mut gateway = stand.gateway_not_started("GW-1", &cloud, &proxy.base()).await?;
        let _clock = TurnedClock::on(&mut gateway, "@1970-01-01 00:00:10")?;
        proxy.line(Line::Refused);
        gateway.start().await?;
        let before = now_ms();
        for value in 1..=3 {
            let one = json!({ "series": "kulkas-1/temperature", "unit": "Cel", "value": value });
            gateway.post("/api/readings", &json!({ "readings": [one] })).await?.expect(201)?;
        }
        let after = now_ms();
        gateway.scan("BERSAMA", "makanan_keluar").await?;
        proxy.line(Line::Up);
        let seen = eventually("the cloud has the readings", || async {
            let found = list(&cloud, "/api/telemetry/series?prefix=kulkas-1/", "series").await?;
            let Some(fridge_1) = found.first() else { return Ok(None) };
            let seen = readings(&cloud, &fridge_1["series_id"]).await?;
            Ok((seen.len() == 3).then_some(seen))
        })
        .await?;
        assert_eq!(values(&seen), [3.0, 2.0, 1.0], "in the order they were made");
        for one in &seen {
            let at: chrono::DateTime<chrono::Utc> =
                one["reading_time"].as_str().unwrap_or_default().parse()?;
            let at = at.timestamp_millis();
            assert!((before - 5_000..after + 5_000).contains(&at), "{one}");
            assert_eq!(one["time_basis"], "anchored", "{one}");
        }
        Ok(())
    })
}
