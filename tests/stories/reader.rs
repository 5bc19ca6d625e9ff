//! The gateway's own reader: the real program at an emulated PN532 on a serial line.

use crate::emulator::{Card, Fault, SerialPn532};
use anyhow::Result;
use lumbung_tests::programs::Gateway;
use lumbung_tests::stand::cloud_holds;
use lumbung_tests::story::story;
use lumbung_tests::wait::{eventually, eventually_within, when};
use std::time::Duration;

/// A fault of the reader is seen within this time, and so is its end.
const LIMIT: Duration = Duration::from_secs(15);

fn with_reader(gateway: &mut Gateway, serial: &SerialPn532) {
    gateway.set("reader.kind", "pn532").set("reader.pn532.link", format!("hsu:{}", serial.device.display()));
}

fn hold(serial: &SerialPn532, last: u8) -> String {
    serial.world.lock().unwrap().cards = vec![Card::ntag215([4, 1, 2, 3, 4, 5, last])];
    format!("040102030405{last:02X}")
}

async fn stored_within(gateway: &Gateway, tags: &[String], patience: Duration) -> Result<()> {
    eventually_within(patience, "each tap is stored once", || async { Ok(when(gateway.tags()? == tags)) })
        .await
}

async fn reader_is(gateway: &Gateway, state: &str) -> Result<()> {
    let what = format!("the reader is {state}");
    eventually_within(LIMIT, &what, || async { Ok(when(gateway.status().await?["reader"] == state)) }).await
}

#[test]
fn a_tap_turns_the_light_green_and_is_in_the_cloud_with_the_chosen_action() -> Result<()> {
    story(async |stand| {
        let serial = SerialPn532::start();
        let cloud = stand.cloud().await?;
        let mut gateway = stand.gateway_not_started("GW-1", &cloud, &cloud.base()).await?;
        with_reader(&mut gateway, &serial);
        gateway
            .set("reader.pn532.status", "wadah_kembali")
            .env("RUST_LOG", "info,lumbung_gateway::hardware=debug");
        gateway.start().await?;
        assert_eq!(gateway.status().await?["action"], "wadah_kembali");
        let tag = hold(&serial, 1);
        eventually("the light is green", || async {
            Ok(when(gateway.logged().contains("green: the scan is kept")))
        })
        .await?;
        assert_eq!(gateway.tags()?, [tag.as_str()]);
        gateway.drained().await?;
        cloud_holds(&cloud.database().await?, &[tag]).await?;
        let scan = cloud.get("/api/scans").await?.expect(200)?["scans"][0].clone();
        assert_eq!((&scan["status_scan"], &scan["source"]), (&"wadah_kembali".into(), &"reader".into()));
        Ok(())
    })
}

#[test]
fn a_reader_that_stops_in_the_middle_of_an_answer_is_seen_and_found_again_by_itself() -> Result<()> {
    story(async |stand| {
        let serial = SerialPn532::start();
        let mut gateway = stand.bare_gateway("GW-1")?;
        with_reader(&mut gateway, &serial);
        gateway.start().await?;
        let mut tags = vec![hold(&serial, 1)];
        stored_within(&gateway, &tags, LIMIT).await?;
        {
            let mut world = serial.world.lock().unwrap();
            world.faults.push_back(Fault::Half);
            world.dead = true;
        }
        reader_is(&gateway, "down").await?;
        // Phones go on meanwhile.
        gateway.scan("TELEPON", "makanan_keluar").await?;
        tags.push("TELEPON".to_owned());
        serial.world.lock().unwrap().dead = false;
        tags.push(hold(&serial, 2));
        stored_within(&gateway, &tags, LIMIT).await?;
        reader_is(&gateway, "ok").await?;
        gateway.stop().await
    })
}
