//! Readings that waited on the gateway: behind the scans, once each, whatever the line does.

use anyhow::Result;
use lumbung_tests::proxy::{Fate, Line};
use lumbung_tests::stand::cloud_holds;
use lumbung_tests::story::story;
use lumbung_tests::wait::{eventually, when};
use serde_json::json;

#[test]
fn readings_and_scans_of_an_outage_arrive_once_though_answers_are_lost() -> Result<()> {
    story(async |stand| {
        let (cloud, proxy, mut gateway) = stand.trio().await?;
        proxy.line(Line::Refused);
        let mut tags = Vec::new();
        for minute in 0..40 {
            let value = |sensor: i32| f64::from(minute) / 4.0 + f64::from(sensor);
            let readings: Vec<_> = (0..8)
                .map(|sensor| json!({ "series": format!("suhu-{sensor}"), "unit": "Cel", "value": value(sensor) }))
                .collect();
            gateway.post("/api/readings", &json!({ "readings": readings })).await?.expect(201)?;
            if minute % 10 == 0 {
                tags.extend(gateway.scan_many(&format!("MENIT-{minute}"), 3).await?);
            }
            if minute == 20 {
                gateway.restart().await?;
            }
        }
        let unsent = gateway.status().await?["unsent"]["reading"].clone();
        assert_eq!(unsent, json!(320));
        let shell = gateway.look()?;
        let waiting: i64 = shell.query_row(
            "select count(*) from reading where synced_to_main_server = 0 and unit = 'Cel'",
            [],
            |row| row.get(0),
        )?;
        assert_eq!(waiting, 320);
        proxy.next([Fate::LoseAnswer, Fate::ResetMidBody, Fate::LoseRequest, Fate::Twice, Fate::LoseAnswer]);
        proxy.line(Line::Up);
        gateway.nudge().await?;
        gateway.drained().await?;
        eventually("no reading waits", || async {
            Ok(when(gateway.status().await?["unsent"]["reading"] == json!(0)))
        })
        .await?;
        let database = cloud.database().await?;
        cloud_holds(&database, &tags).await?;
        let (count, sum): (i64, f64) =
            sqlx::query_as("select count(*), sum(value) from reading").fetch_one(&database).await?;
        let expected: f64 =
            (0..40).flat_map(|m| (0..8).map(move |s| f64::from(m) / 4.0 + f64::from(s))).sum();
        assert_eq!((count, sum), (320, expected), "each once");
        let refused: i64 = sqlx::query_scalar("select count(*) from quarantine").fetch_one(&database).await?;
        assert_eq!(refused, 0);
        Ok(())
    })
}
