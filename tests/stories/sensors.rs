//! Sensors of the gateway's own: their values arrive, their deaths are told, and looking at them is easy.

use anyhow::Result;
use lumbung_tests::programs::faults::TurnedClock;
use lumbung_tests::programs::{Cloud, Gateway};
use lumbung_tests::proxy::{Line, Proxy};
use lumbung_tests::stand::Stand;
use lumbung_tests::story::story;
use lumbung_tests::wait::{eventually, when};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// An enrolled gateway with these sensors, not started.
async fn with_sensors(stand: &Stand, toml: &str) -> Result<(Cloud, Proxy, Gateway)> {
    let cloud = stand.cloud().await?;
    let proxy = Proxy::start(&cloud.address())?;
    let mut gateway = stand.gateway_not_started("GW-1", &cloud, &proxy.base()).await?;
    configure(stand, &mut gateway, toml)?;
    Ok((cloud, proxy, gateway))
}

fn configure(stand: &Stand, gateway: &mut Gateway, toml: &str) -> Result<()> {
    let file = stand.path().join("gateway.toml");
    std::fs::write(&file, toml)?;
    gateway.env("LUMBUNG_GATEWAY_CONFIG", file.display());
    Ok(())
}

const SIMULATED: &str = "[[sensor]]\nname = \"tiruan\"\nkind = \"simulated\"\nevery = \"1s\"\n";

/// A DS18B20 as the kernel shows it, in a folder that a story can change.
struct Wire(PathBuf);

impl Wire {
    fn new(stand: &Stand) -> Self {
        Self(stand.path().join("w1").join("28-0316a2794bff"))
    }

    fn sensor(&self) -> String {
        let folder = self.0.display();
        format!(
            "[[sensor]]\nname = \"kulkas\"\nkind = \"ds18b20\"\naddress = \"w1:{folder}\"\nevery = \"1s\"\n"
        )
    }

    fn shows(&self, milli: i32) -> Result<()> {
        std::fs::create_dir_all(&self.0)?;
        let bytes = "50 05 4b 46 7f ff 0c 10 1c";
        let text = format!("{bytes} : crc=1c YES\n{bytes} t={milli}\n");
        // Replaced whole, so that the gateway never reads half of it.
        let new = self.0.join("new");
        std::fs::write(&new, text)?;
        Ok(std::fs::rename(&new, self.0.join("w1_slave"))?)
    }

    fn is_gone(&self) -> Result<()> {
        Ok(std::fs::remove_dir_all(&self.0)?)
    }
}

async fn list(cloud: &Cloud, path: &str, of: &str) -> Result<Vec<Value>> {
    let body = cloud.get(path).await?.expect(200)?;
    Ok(body[of].as_array().cloned().unwrap_or_default())
}

/// The readings of a series that the cloud holds, oldest first; none while it does not know the series.
async fn readings(cloud: &Cloud, name: &str) -> Result<Vec<Value>> {
    let found = list(cloud, &format!("/api/telemetry/series?prefix={name}"), "series").await?;
    let Some(series) = found.first() else { return Ok(Vec::new()) };
    let path = format!("/api/telemetry/readings?series_id={}&limit=1000", series["series_id"]);
    let mut readings = list(cloud, &path, "readings").await?;
    readings.reverse();
    Ok(readings)
}

/// The kinds and reasons of the sensor's events that the cloud holds, oldest first.
async fn told(cloud: &Cloud) -> Result<Vec<String>> {
    let events = list(cloud, "/api/gateways/GW-1/events?limit=500", "events").await?;
    let of_sensors = events.iter().rev().filter(|event| event["body"]["sensor"].is_string());
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Ok(of_sensors
        .map(|event| format!("{} {}", word(&event["kind"]), word(&event["body"]["reason"])))
        .collect())
}

async fn until_told(cloud: &Cloud, last: &str) -> Result<()> {
    eventually(&format!("the cloud is told {last}"), || async {
        Ok(when(told(cloud).await?.last().is_some_and(|event| event == last)))
    })
    .await
}

fn kept(gateway: &Gateway) -> Result<i64> {
    Ok(gateway.look()?.query_row("select count(*) from reading", [], |row| row.get(0))?)
}

#[test]
fn what_sensors_say_while_there_is_no_network_arrives_once_with_its_unit() -> Result<()> {
    story(async |stand| {
        let (cloud, proxy, mut gateway) = with_sensors(stand, SIMULATED).await?;
        proxy.line(Line::Refused);
        gateway.start().await?;
        eventually("three turns are stored", || async { Ok(when(kept(&gateway)? >= 6)) }).await?;
        proxy.line(Line::Up);
        let arrived = eventually("they arrive", || async {
            let arrived = readings(&cloud, "tiruan/humidity").await?;
            Ok((arrived.len() >= 3).then_some(arrived))
        })
        .await?;
        let mut numbers: Vec<_> = arrived.iter().filter_map(|reading| reading["seq"].as_i64()).collect();
        numbers.dedup();
        assert_eq!(numbers.len(), arrived.len());
        assert!(arrived.iter().all(|reading| reading["quality"] == "good"), "{arrived:?}");
        let series = list(&cloud, "/api/telemetry/series?prefix=tiruan/", "series").await?;
        let units: Vec<_> = series.iter().filter_map(|series| series["unit"].as_str()).collect();
        assert_eq!(units, ["%RH", "Cel"]);
        until_told(&cloud, "sensor_up started").await?;
        assert_eq!(told(&cloud).await?, ["sensor_up started"]);
        Ok(())
    })
}

#[test]
fn a_sensor_that_dies_and_comes_back_while_there_is_no_network_is_told_both() -> Result<()> {
    story(async |stand| {
        let wire = Wire::new(stand);
        let (cloud, proxy, mut gateway) = with_sensors(stand, &wire.sensor()).await?;
        wire.shows(4_250)?;
        gateway.start().await?;
        eventually("its first value arrives", || async {
            let arrived = readings(&cloud, "kulkas/temperature").await?;
            Ok(when(arrived.first().is_some_and(|reading| reading["value"] == 4.25)))
        })
        .await?;
        proxy.line(Line::Refused);
        wire.is_gone()?;
        eventually("the gateway says that it is down", || async {
            let status = gateway.status().await?;
            Ok(when(status["sensors"][0]["state"] == "down"))
        })
        .await?;
        let metrics = gateway.get("/metrics").await?.text;
        assert!(metrics.contains("lumbung_gateway_sensor_up{sensor=\"kulkas\"} 0"), "{metrics}");
        // What it holds when its power has just come back.
        wire.shows(85_000)?;
        eventually("it is read again", || async {
            let status = gateway.status().await?;
            Ok(when(status["sensors"][0]["state"] == "ok"))
        })
        .await?;
        wire.shows(5_125)?;
        proxy.line(Line::Up);
        until_told(&cloud, "sensor_up answers_again").await?;
        assert_eq!(
            told(&cloud).await?,
            ["sensor_up started", "sensor_down absent", "sensor_up answers_again"]
        );
        let arrived = eventually("its last value arrives", || async {
            let arrived = readings(&cloud, "kulkas/temperature").await?;
            Ok(arrived.last().is_some_and(|reading| reading["value"] == 5.125).then_some(arrived))
        })
        .await?;
        for reading in &arrived {
            let expected = if reading["value"] == 85.0 { "implausible" } else { "good" };
            assert_eq!(reading["quality"], expected, "{reading}");
        }
        assert!(arrived.iter().any(|reading| reading["value"] == 85.0), "kept, not dropped: {arrived:?}");
        Ok(())
    })
}

#[test]
fn a_sensor_that_goes_by_the_time_of_day_goes_on_when_the_clock_is_set_back_by_years() -> Result<()> {
    story(async |stand| {
        let sensor = SIMULATED.replace("every = \"1s\"", "cron = \"* * * * * *\"");
        let mut gateway = stand.bare_gateway("GW-1")?;
        configure(stand, &mut gateway, &sensor)?;
        let clock = TurnedClock::on(&mut gateway, "+1500d")?;
        gateway.start().await?;
        eventually("it is read", || async { Ok(when(kept(&gateway)? > 0)) }).await?;
        clock.turn("+0")?;
        let before = kept(&gateway)?;
        // One turn may be on its way already.
        eventually("it is read on", || async { Ok(when(kept(&gateway)? >= before + 6)) }).await?;
        Ok(())
    })
}

#[test]
fn sensors_can_be_looked_at_while_the_gateway_runs_and_while_it_does_not() -> Result<()> {
    story(async |stand| {
        let wire = Wire::new(stand);
        let mut gateway = stand.bare_gateway("GW-1")?;
        let nothing = gateway.cli(&["sensor", "read"]).await?;
        assert_eq!(nothing.code(), 3, "{}", nothing.stderr);
        configure(stand, &mut gateway, &format!("{SIMULATED}{}", wire.sensor()))?;
        wire.shows(-1_500)?;
        for running in [false, true] {
            if running {
                gateway.start().await?;
            }
            let read = gateway.cli(&["--lang", "en", "sensor", "read", "kulkas"]).await?.ok()?;
            assert!(read.contains("kulkas/temperature") && read.contains("-1.5 Cel"), "{running}: {read}");
            assert!(!read.contains("tiruan"), "{read}");
        }
        eventually("it is listed with what it said", || async {
            let listed = gateway.cli(&["--lang", "en", "sensor", "list"]).await?.ok()?;
            Ok(when(listed.contains("tiruan/humidity") && listed.contains("-1.5 Cel")))
        })
        .await?;
        wire.is_gone()?;
        let failed = gateway.cli(&["--lang", "en", "sensor", "read"]).await?;
        assert_eq!(failed.code(), 1);
        assert!(failed.stdout.contains("tiruan/humidity"), "the others are shown: {}", failed.stdout);
        assert!(failed.stdout.contains("no answer, check wires"), "{}", failed.stdout);
        assert!(failed.stderr.contains("kulkas"), "{}", failed.stderr);
        let unknown = gateway.cli(&["sensor", "read", "oven"]).await?;
        assert_eq!(
            (unknown.code(), unknown.stderr.contains("tiruan, kulkas")),
            (2, true),
            "{}",
            unknown.stderr
        );
        eventually("status shows it down", || async {
            let page = gateway.cli(&["--lang", "en", "status"]).await?.ok()?;
            Ok(when(page.contains("kulkas: DOWN")))
        })
        .await
    })
}

#[test]
fn a_sensor_that_is_configured_wrongly_is_said_before_anything_begins() -> Result<()> {
    story(async |stand| {
        let mut gateway = stand.bare_gateway("GW-1")?;
        configure(stand, &mut gateway, &SIMULATED.replace("every = \"1s\"", "cron = \"every day\""))?;
        let ended = gateway.cli(&["run"]).await?;
        assert_eq!(ended.code(), 2);
        assert!(
            ended.stderr.contains("sensor \"tiruan\": cron") && ended.stderr.contains("six fields"),
            "{}",
            ended.stderr
        );
        assert!(!Path::new(&gateway.database()).exists(), "no run has begun");
        Ok(())
    })
}
