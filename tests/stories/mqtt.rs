//! Sensors that speak MQTT: a real Mosquitto with the shipped configuration between them and the gateway.

use anyhow::{Context, Result};
use lumbung_tests::programs::{Broker, Gateway, Published, Publisher, lets_in};
use lumbung_tests::stand::Stand;
use lumbung_tests::story::story;
use lumbung_tests::wait::{eventually, when};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const MAPS: &str = r#"
    [[mqtt.map]]
    topic = "kulkas/{device}/suhu"
    fields = [{ series = "{device}/temperature", unit = "Cel", plausible = [-40, 60] }]

    [[mqtt.map]]
    topic = "meter/{device}"
    time = "/time"
    fields = [
        { pointer = "/energy", series = "{device}/energy", unit = "kW.h", scale = 0.001 },
        { pointer = "/power", series = "{device}/power", unit = "W" },
    ]

    [[mqtt.map]]
    topic = "hitung/{device}"
    fields = [{ series = "{device}/count", unit = "1" }]
"#;

async fn broker(stand: &Stand) -> Result<Broker> {
    let mut broker = Broker::new(&stand.path().join("broker"), &stand.log("broker"), &["k-1", "k-2"])?;
    broker.start().await?;
    Ok(broker)
}

/// A gateway that nobody has enrolled and that is not started.
fn gateway(stand: &Stand, broker: &Broker) -> Result<Gateway> {
    let mut gateway = stand.bare_gateway("GW-1")?;
    gateway.config_file(&format!("{}{MAPS}", broker.section()))?;
    Ok(gateway)
}

async fn state(gateway: &Gateway, wanted: &str) -> Result<Value> {
    eventually(&format!("the broker is {wanted}"), || async {
        let mqtt = gateway.status().await?["mqtt"].clone();
        Ok((mqtt["state"] == wanted).then_some(mqtt))
    })
    .await
}

/// Publishes numbers from `from` on, each once, until it is stopped; says what became of each.
async fn count(
    mut device: Publisher,
    topic: String,
    from: u32,
    stop: CancellationToken,
) -> BTreeMap<u32, Published> {
    let mut told = BTreeMap::new();
    for n in from.. {
        if stop.is_cancelled() {
            break;
        }
        match device.publish(&topic, n.to_string().as_bytes()).await {
            Ok(outcome) => {
                told.insert(n, outcome);
                // A device, not a flood: a broker whose queue is full drops what it has acknowledged.
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
    told
}

/// Waits until all that the broker has acknowledged is in the store, and says that nothing is there twice and
/// nothing that nobody sent.
async fn arrived_once(gateway: &Gateway, series: &str, told: &BTreeMap<u32, Published>) -> Result<()> {
    let found = eventually("everything that was acknowledged is in the store", || async {
        let mut found: BTreeMap<u32, usize> = BTreeMap::new();
        for (name, value) in gateway.readings()? {
            if name == series {
                *found.entry(value as u32).or_default() += 1;
            }
        }
        let missing: Vec<_> = told
            .iter()
            .filter(|(n, outcome)| **outcome == Published::Yes && !found.contains_key(n))
            .map(|(n, _)| *n)
            .collect();
        if missing.is_empty() {
            return Ok(Some(found));
        }
        anyhow::bail!("{} of {} are missing: {:.200}", missing.len(), told.len(), format!("{missing:?}"))
    })
    .await?;
    let twice: Vec<_> = found.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "{series}, more than once: {twice:?}");
    let invented: Vec<_> = found.keys().filter(|n| !told.contains_key(n)).collect();
    assert!(invented.is_empty(), "{series}, never sent: {invented:?}");
    Ok(())
}

#[test]
fn numbers_and_json_become_readings() -> Result<()> {
    story(async |stand| {
        let broker = broker(stand).await?;
        let mut gateway = gateway(stand, &broker)?;
        gateway.start().await?;
        state(&gateway, "connected").await?;
        let mut device = broker.device("k-1");
        device.publish("kulkas/k-1/suhu", b"4.5").await?;
        device.publish("kulkas/k-1/suhu", b"85").await?;
        let json = br#"{"time":"2026-11-21T09:30:00+07:00","energy":1500,"power":"40.5","noise":true}"#;
        device.publish("meter/k-1", json).await?;
        device.throw("hitung/k-1", b"7").await?;
        eventually("all readings are there", || async { Ok(when(gateway.readings()?.len() == 5)) }).await?;
        let expected = [
            ("k-1/temperature", 4.5),
            ("k-1/temperature", 85.0),
            ("k-1/energy", 1.5),
            ("k-1/power", 40.5),
            ("k-1/count", 7.0),
        ];
        assert_eq!(gateway.readings()?, expected.map(|(series, value)| (series.to_owned(), value)));
        let details: (String, String, String) = gateway.look()?.query_row(
            "select group_concat(quality, ''), min(timestamp), group_concat(unit, ' ') from reading",
            [],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )?;
        assert_eq!(details.0, "01000", "85 degrees in a fridge are doubted");
        assert_eq!(details.1, "2026-11-21T02:30:00.000Z", "the meter's own time");
        assert_eq!(details.2, "Cel Cel kW.h W 1");
        Ok(())
    })
}

#[test]
fn a_message_that_cannot_be_read_is_kept_as_an_event_and_holds_nothing_up() -> Result<()> {
    story(async |stand| {
        let broker = broker(stand).await?;
        let mut gateway = gateway(stand, &broker)?;
        gateway.start().await?;
        state(&gateway, "connected").await?;
        let mut device = broker.device("k-1");
        let huge = vec![b'1'; 65_000];
        for n in 0..200_u32 {
            device.publish("hitung/k-1", n.to_string().as_bytes()).await?;
            let poison: &[u8] = match n % 4 {
                0 => b"dingin sekali",
                1 => b"\x00\xff\xfe",
                2 => b"{\"a\":",
                _ => &huge,
            };
            device.publish("kulkas/k-1/suhu", poison).await?;
        }
        device.publish("kulkas/k-1/suhu", b"4.5").await?;
        eventually("all that can be read arrives", || async { Ok(when(gateway.readings()?.len() >= 201)) })
            .await?;
        assert_eq!(gateway.readings()?.len(), 201);
        let events = gateway.events("mqtt_unreadable")?;
        assert_eq!(events[0]["payload"], "dingin sekali");
        assert_eq!(events[0]["topic"], "kulkas/k-1/suhu");
        assert!(events.len() < 20, "a broken device cannot fill the card: {}", events.len());
        assert!(events.iter().any(|event| event["not_kept_this_hour"] == 100), "{events:?}");
        Ok(())
    })
}

#[test]
fn a_gateway_killed_again_and_again_keeps_each_message_once() -> Result<()> {
    story(async |stand| {
        let broker = broker(stand).await?;
        let mut gateway = gateway(stand, &broker)?;
        gateway.start().await?;
        state(&gateway, "connected").await?;
        let stop = CancellationToken::new();
        let one = tokio::spawn(count(broker.device("k-1"), "hitung/k-1".to_owned(), 0, stop.clone()));
        let two = tokio::spawn(count(broker.device("k-2"), "hitung/k-2".to_owned(), 0, stop.clone()));
        let mut rng = fastrand::Rng::with_seed(7);
        for _ in 0..15 {
            let before = gateway.readings()?.len();
            eventually("messages arrive", || async { Ok(when(gateway.readings()?.len() > before + 20)) })
                .await?;
            tokio::time::sleep(Duration::from_millis(rng.u64(..40))).await;
            gateway.kill();
            gateway.start().await?;
        }
        stop.cancel();
        arrived_once(&gateway, "k-1/count", &one.await?).await?;
        arrived_once(&gateway, "k-2/count", &two.await?).await
    })
}

#[test]
fn what_waits_at_the_broker_outlives_its_restart() -> Result<()> {
    story(async |stand| {
        let mut broker = broker(stand).await?;
        let mut gateway = gateway(stand, &broker)?;
        gateway.start().await?;
        state(&gateway, "connected").await?;
        gateway.kill();
        let mut device = broker.device("k-1");
        for n in 0..500_u32 {
            device.publish("hitung/k-1", n.to_string().as_bytes()).await?;
        }
        // Sent without a promise, and kept for the gateway all the same.
        device.throw("hitung/k-1", b"500").await?;
        broker.stop().await?;
        gateway.start().await?;
        state(&gateway, "down").await?;
        eventually("the reason is shown", || async {
            Ok(when(gateway.status().await?["mqtt"]["last_error"].is_string()))
        })
        .await?;
        eventually("it is an event", || async { Ok(when(!gateway.events("mqtt_down")?.is_empty())) }).await?;
        let metrics = gateway.get("/metrics").await?.text;
        assert!(metrics.contains("lumbung_gateway_mqtt_connected{} 0"), "{metrics}");
        broker.start().await?;
        state(&gateway, "connected").await?;
        let told = (0..=500).map(|n| (n, Published::Yes)).collect();
        arrived_once(&gateway, "k-1/count", &told).await?;
        eventually("its return is one too", || async { Ok(when(!gateway.events("mqtt_up")?.is_empty())) })
            .await
    })
}

#[test]
fn a_broker_that_restarts_mid_stream_costs_nothing() -> Result<()> {
    story(async |stand| {
        let mut broker = broker(stand).await?;
        let mut gateway = gateway(stand, &broker)?;
        gateway.start().await?;
        state(&gateway, "connected").await?;
        let stop = CancellationToken::new();
        let counting = tokio::spawn(count(broker.device("k-1"), "hitung/k-1".to_owned(), 0, stop.clone()));
        for _ in 0..6 {
            let before = gateway.readings()?.len();
            eventually("messages arrive", || async { Ok(when(gateway.readings()?.len() > before + 20)) })
                .await?;
            // A clean end: what a killed broker had said and not yet handed on is its own to lose.
            broker.stop().await?;
            state(&gateway, "down").await?;
            broker.start().await?;
            state(&gateway, "connected").await?;
        }
        let before = gateway.readings()?.len();
        eventually("messages arrive", || async { Ok(when(gateway.readings()?.len() > before)) }).await?;
        stop.cancel();
        arrived_once(&gateway, "k-1/count", &counting.await?).await
    })
}

#[test]
fn messages_wait_at_the_broker_while_there_is_no_room() -> Result<()> {
    story(async |stand| {
        let broker = broker(stand).await?;
        let mut gateway = gateway(stand, &broker)?;
        // Room for the schema and a little more.
        gateway.set("storage.max_bytes", 150_000).set("storage.reserve_bytes", 0);
        gateway.start().await?;
        state(&gateway, "connected").await?;
        let mut device = broker.device("k-1");
        for n in 0..3_000_u32 {
            device.publish("hitung/k-1", n.to_string().as_bytes()).await?;
        }
        state(&gateway, "no_room").await?;
        assert!(gateway.readings()?.len() < 3_000);
        gateway.set("storage.max_bytes", 0);
        gateway.restart().await?;
        let told = (0..3_000).map(|n| (n, Published::Yes)).collect();
        arrived_once(&gateway, "k-1/count", &told).await?;
        state(&gateway, "connected").await?;
        Ok(())
    })
}

#[test]
fn the_shipped_broker_lets_nobody_in_without_a_name_and_everybody_to_their_own() -> Result<()> {
    story(async |stand| {
        let broker = broker(stand).await?;
        assert!(!lets_in(&broker, "k-1", None).await, "without a password");
        assert!(!lets_in(&broker, "k-1", Some("salah")).await, "with a wrong one");
        assert!(!lets_in(&broker, "", None).await, "anonymously");
        assert!(!lets_in(&broker, "k-9", Some("rahasia-sekali")).await, "a stranger");
        let mut gateway = gateway(stand, &broker)?;
        gateway.start().await?;
        state(&gateway, "connected").await?;
        // The broker acknowledges what it throws away.
        broker.device("k-1").publish("hitung/k-2", b"1").await?;
        broker.device("k-1").publish("hitung/k-1", b"2").await?;
        let readings = eventually("the device's own arrives", || async {
            Ok(Some(gateway.readings()?).filter(|readings| !readings.is_empty()))
        })
        .await?;
        assert_eq!(readings, [("k-1/count".to_owned(), 2.0)]);
        let log = gateway.logged();
        assert!(!log.contains("rahasia-sekali"));
        log.contains("connected to the MQTT broker").then_some(()).context("it is not in the log")
    })
}
