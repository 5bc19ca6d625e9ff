//! One cycle of misfortune, drawn from the seed.

use super::Fleet;
use crate::programs::faults::kill_postmaster;
use crate::proxy::{Fate, Line};
use anyhow::Result;
use fastrand::Rng;
use std::time::Duration;

/// Something happens, then something else while the first is still felt; the load goes on throughout.
pub(super) async fn cycle(fleet: &mut Fleet, rng: &mut Rng) -> Result<String> {
    let first = misfortune(fleet, rng);
    pause(rng, 60, 300).await;
    let second = if rng.u8(..3) == 0 { format!(" + {}", misfortune(fleet, rng)) } else { String::new() };
    fleet.revive()?;
    pause(rng, 60, 300).await;
    // The line heals in two of three cycles, so that most batches get through under fire.
    if rng.u8(..3) > 0 {
        fleet.proxy.heal();
    }
    fleet.revive()?;
    pause(rng, 30, 150).await;
    Ok(format!("{first}{second}"))
}

async fn pause(rng: &mut Rng, from: u64, to: u64) {
    tokio::time::sleep(Duration::from_millis(rng.u64(from..to))).await;
}

fn misfortune(fleet: &mut Fleet, rng: &mut Rng) -> String {
    match rng.u8(..100) {
        0..30 => {
            let n = rng.usize(..fleet.gateways.len());
            fleet.gateways[n].kill();
            format!("gateway {} killed", n + 1)
        }
        30..36 => {
            fleet.gateways.iter_mut().for_each(crate::programs::Gateway::kill);
            "all gateways killed".to_owned()
        }
        36..50 => {
            fleet.cloud.kill();
            "cloud killed".to_owned()
        }
        50..58 => match kill_postmaster(&fleet.cloud) {
            Some(_) => "postgres killed".to_owned(),
            None => "postgres was not there to be killed".to_owned(),
        },
        58..62 => {
            kill_postmaster(&fleet.cloud);
            fleet.cloud.kill();
            "cloud and postgres killed".to_owned()
        }
        62..70 => {
            fleet.proxy.line(Line::Refused);
            "line cut".to_owned()
        }
        70..74 => {
            fleet.proxy.line(Line::Silent);
            "line silent".to_owned()
        }
        other => on_the_line(fleet, rng, other),
    }
}

fn on_the_line(fleet: &Fleet, rng: &mut Rng, kind: u8) -> String {
    let (fate, name) = match kind {
        74..82 => (Fate::LoseAnswer, "answers lost"),
        82..88 => (Fate::refuse(401), "401"),
        88..90 => (Fate::refuse(503), "503"),
        90..91 => (Fate::refuse(500), "500"),
        91..93 => (Fate::refuse(413), "413"),
        93..95 => (Fate::ResetMidBody, "resets in bodies"),
        95..97 => (Fate::Twice, "everything twice"),
        97..98 => (Fate::LoseRequest, "requests lost"),
        _ => (Fate::Sliced(3), "slices"),
    };
    // Either the next few, or some of all until the line heals.
    if rng.bool() {
        fleet.proxy.next(vec![fate; rng.usize(1..6)]);
    } else {
        let share = rng.u64(1..4);
        fleet.proxy.rule(move |request| match request.number % share {
            0 => fate.clone(),
            _ => Fate::Pass,
        });
    }
    name.to_owned()
}
