//! The other checkpoints of the demo: enrolled as every gateway is, then fed with the day's plan and a
//! gentle trickle on top.

use super::country::{FAR_SITE, SITES, Site};
use super::morning::{self, DAY};
use super::place::Place;
use super::seed::Operator;
use super::simulated::{Pushed, Simulated};
use anyhow::Result;
use chrono::Utc;
use fastrand::Rng;
use lumbung_tests::programs::append;
use reqwest::Client;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// A gateway with nothing to send reports about this often.
const STILL_HERE: Duration = Duration::from_secs(55);
/// How often somewhere in the country somebody taps a tag outside the plan.
const TRICKLE: std::ops::Range<f32> = 4.0..13.0;
const TICK: Duration = Duration::from_millis(500);
/// Scans that the far place cannot send.
const FAR_UNSENT: usize = 17;

pub(crate) struct Fleet {
    members: Vec<Member>,
    operator: Operator,
    http: Client,
    log: PathBuf,
    rng: Rng,
}

struct Member {
    site: &'static Site,
    gateway: Simulated,
    next: Instant,
    failures: u32,
}

fn now_ms() -> i64 {
    Utc::now().timestamp_millis()
}

impl Fleet {
    /// Opens every simulated gateway and plays the plan up to now; nothing is sent yet.
    pub(crate) fn open(place: &Place, operator: Operator, http: Client) -> Result<Self> {
        let now = now_ms();
        let members = SITES
            .iter()
            .map(|site| {
                let code = site.gateway();
                let file = place.dir("fleet").join(format!("{code}.json"));
                let held_back = if site.code == FAR_SITE { FAR_UNSENT } else { 0 };
                // Yesterday is played too: early in the morning there is little of today to see.
                let first = morning::midnight(site, morning::day_of(site, now)) - DAY;
                let gateway = Simulated::open(code, site.code, file, held_back, first)?;
                Ok(Member { site, gateway, next: Instant::now(), failures: 0 })
            })
            .collect::<Result<_>>()?;
        let mut fleet = Self { members, operator, http, log: place.log("fleet"), rng: Rng::new() };
        fleet.play(now)?;
        Ok(fleet)
    }

    /// Enrols those that are not, and brings the morning to the cloud.
    pub(crate) async fn catch_up(&mut self) -> Result<usize> {
        let mut sent = 0;
        for member in &mut self.members {
            if !member.gateway.enrolled() {
                member.enrol(&self.operator, &self.http).await?;
            }
            // Each reports at least once, so that nobody looks asleep after a restart.
            loop {
                let before = member.gateway.ready();
                if member.gateway.push(&self.http, &self.operator.cloud, now_ms()).await? == Pushed::Unknown {
                    member.enrol(&self.operator, &self.http).await?;
                    continue;
                }
                sent += before - member.gateway.ready();
                if member.gateway.ready() == 0 {
                    break;
                }
            }
        }
        Ok(sent)
    }

    /// Goes on for ever; ends only when this machine itself fails (a full disk).
    pub(crate) async fn run(mut self) -> Result<()> {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut next_tap = Instant::now();
        // Reports are spread over the minute, as they are in the country.
        for (i, member) in (0u32..).zip(&mut self.members) {
            member.next = Instant::now() + STILL_HERE / 13 * i;
        }
        loop {
            tick.tick().await;
            let now = now_ms();
            self.play(now)?;
            if Instant::now() >= next_tap {
                next_tap = Instant::now()
                    + Duration::from_secs_f32(TRICKLE.start + self.rng.f32() * (TRICKLE.end - TRICKLE.start));
                let chosen = self.rng.usize(..self.members.len());
                if let Some(member) = self.members.get_mut(chosen) {
                    let tap = morning::chance_tap(member.site, now, &mut self.rng);
                    member.gateway.record(vec![tap], None)?;
                }
            }
            for member in &mut self.members {
                let due =
                    Instant::now() >= member.next || (member.gateway.ready() > 0 && member.failures == 0);
                if !due {
                    continue;
                }
                match member.turn(&self.operator, &self.http).await {
                    Ok(()) => {
                        member.failures = 0;
                        member.next = Instant::now() + STILL_HERE;
                    }
                    Err(error) => {
                        member.failures = (member.failures + 1).min(6);
                        let pause = Duration::from_secs(1 << member.failures);
                        member.next = Instant::now() + pause.mul_f32(self.rng.f32());
                        if let Ok(mut log) = append(&self.log) {
                            let _ = writeln!(log, "{} {}: {error:#}", Utc::now(), member.gateway.code);
                        }
                    }
                }
            }
        }
    }

    /// Makes every tap of the plan whose time has come.
    fn play(&mut self, now: i64) -> Result<()> {
        for member in &mut self.members {
            let taps = morning::taps(member.site, member.gateway.planned_through_ms(), now);
            member.gateway.record(taps, Some(now))?;
        }
        Ok(())
    }
}

impl Member {
    async fn turn(&mut self, operator: &Operator, http: &Client) -> Result<()> {
        if !self.gateway.enrolled() {
            self.enrol(operator, http).await?;
        }
        // A key that is not known any more asks for a new claim at the next turn.
        self.gateway.push(http, &operator.cloud, now_ms()).await?;
        Ok(())
    }

    async fn enrol(&mut self, operator: &Operator, http: &Client) -> Result<()> {
        let claim = operator.claim(&self.gateway.code, self.site.code).await?;
        self.gateway.enrol(http, &operator.cloud, &claim.claim).await
    }
}
