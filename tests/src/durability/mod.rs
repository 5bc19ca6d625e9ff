//! The kill harness: gateways under load, a line that fails, wall clocks that jump, and kill -9 for
//! everything, at random.
//!
//! The ledger is outside the programs. At the end everything is healed, drained, killed once more and
//! compared: what was acknowledged is in the cloud, once, as it was said, and nothing else is.

mod chaos;
mod green_light;
mod load;

use crate::ledger::{self, Findings, Ledger};
use crate::programs::faults::{TurnedClock, slow_card};
use crate::programs::{Broker, Cloud, Gateway, mutant_gateway, settings};
use crate::proxy::Proxy;
use crate::stand::{Stand, embedded_database};
use crate::wait::{eventually, eventually_within, when};
use anyhow::{Context, Result};
use load::Load;
use std::fmt::Display;
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long the last messages may take from the broker to the cloud.
const LATECOMERS: Duration = Duration::from_secs(20);

/// A known-bad build or database that the harness must catch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Mutant {
    /// The gateway answers before the commit.
    EarlyAck,
    /// The gateway marks a batch as sent before it has the verdict.
    FlagEarly,
    /// The gateway throws a batch away on 401.
    #[value(name = "drop_on_401")]
    DropOn401,
    /// The cloud's table has lost its primary key.
    NoUnique,
}

impl Mutant {
    /// What the gateway's mutant build is told, if it is the gateway's.
    fn of_gateway(self) -> Option<&'static str> {
        match self {
            Self::EarlyAck => Some("early_ack"),
            Self::FlagEarly => Some("flag_early"),
            Self::DropOn401 => Some("drop_on_401"),
            Self::NoUnique => None,
        }
    }
}

/// One run of the harness.
#[derive(Debug, Clone)]
pub struct Plan {
    pub cycles: u32,
    /// No new cycle begins after this long.
    pub longest: Option<Duration>,
    pub seed: u64,
    pub gateways: usize,
    pub mutant: Option<Mutant>,
    /// Every write to the gateways' databases takes a few milliseconds, as on a worn card: what is said
    /// before it is written is then seen. (A killed program's writes are safe with the kernel, so a lie
    /// about them shows only while they are still to be made.)
    pub slow_card: bool,
    /// Where the ledger and the logs of a failed run are kept.
    pub keep: Option<PathBuf>,
}

/// How it ended.
#[derive(Debug, Clone)]
pub struct Report {
    pub findings: Findings,
    pub cycles: u32,
    pub seed: u64,
    /// Fork or conflict alarms: there was neither a clone nor a backup.
    pub false_alarms: i64,
    pub drained: bool,
}

impl Report {
    pub fn passed(&self) -> bool {
        self.findings.clean() && self.findings.acked > 0 && self.false_alarms == 0 && self.drained
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} cycles={} seed={}", self.findings, self.cycles, self.seed)
    }
}

/// Everything that can be killed.
pub(crate) struct Fleet {
    pub(crate) cloud: Cloud,
    pub(crate) gateways: Vec<Gateway>,
    /// Of each gateway.
    pub(crate) clocks: Vec<TurnedClock>,
    pub(crate) proxy: Proxy,
    pub(crate) broker: Broker,
}

impl Fleet {
    async fn build(stand: &Stand, plan: &Plan) -> Result<Self> {
        let mut cloud = Cloud::new(settings("cloud", stand.path(), None))?;
        cloud.start().await?;
        cloud.furnish().await?;
        if plan.mutant == Some(Mutant::NoUnique) {
            let database = embedded_database(&cloud).await?;
            sqlx::query("alter table scan_event drop constraint scan_event_pk").execute(&database).await?;
        }
        let proxy = Proxy::start(&cloud.address())?;
        let codes: Vec<_> = (1..=plan.gateways).map(|n| format!("GW-{n}")).collect();
        let devices: Vec<_> = codes.iter().map(String::as_str).collect();
        let mut broker = Broker::new(&stand.path().join("broker"), &stand.log("broker"), &devices)?;
        broker.start().await?;
        let (mut gateways, mut clocks) = (Vec::new(), Vec::new());
        for code in &codes {
            let mut gateway = stand.gateway_not_started(code, &cloud, &proxy.base()).await?;
            let map = format!(
                "{}[[mqtt.map]]\ntopic = \"{}\"\nfields = [{{ series = \"{code}/mqtt\", unit = \"{}\" }}]\n",
                broker.section(),
                load::topic(code),
                load::UNIT
            );
            gateway.config_file(&map)?;
            gateway.set("sync.request_timeout", "3s");
            if plan.slow_card || plan.mutant == Some(Mutant::EarlyAck) {
                gateway.under(slow_card(&gateway)?);
            }
            if let Some(name) = plan.mutant.and_then(Mutant::of_gateway) {
                gateway.with_binary(mutant_gateway()?).env("LUMBUNG_MUTANT", name);
            }
            clocks.push(TurnedClock::on(&mut gateway, "+0")?);
            gateway.start().await?;
            // A broker keeps messages only for those it has met: what a gateway that was killed before
            // its first subscription did not get was never its own.
            eventually("the gateway has subscribed", || async {
                Ok(when(gateway.status().await?["mqtt"]["state"] == "connected"))
            })
            .await?;
            gateways.push(gateway);
        }
        Ok(Self { cloud, gateways, clocks, proxy, broker })
    }

    /// Starts again whatever ended, as systemd would.
    pub(crate) async fn revive(&mut self) -> Result<()> {
        if !self.broker.runs()? {
            self.broker.start().await?;
        }
        for gateway in &mut self.gateways {
            if gateway.pid().is_none() || gateway.ended()?.is_some() {
                gateway.spawn()?;
            }
        }
        if self.cloud.pid().is_none() || self.cloud.ended()?.is_some() {
            self.cloud.spawn()?;
        }
        Ok(())
    }

    /// Everything up and the line whole, until every gateway has sent everything.
    async fn heal_and_drain(&mut self) -> Result<()> {
        self.proxy.heal();
        let deadline = Instant::now() + Duration::from_secs(180);
        loop {
            self.revive().await?;
            let mut unsent = 0;
            for gateway in &self.gateways {
                unsent += gateway.unsent_of_all().unwrap_or(1);
                // A run of 413s may rightly have set a lone record aside; a person asks for it again.
                if gateway.parked().unwrap_or(0) > 0 {
                    let _ = gateway.post("/api/quarantine/retry", &serde_json::json!({})).await;
                }
            }
            if unsent == 0 {
                return Ok(());
            }
            anyhow::ensure!(
                Instant::now() < deadline,
                "{unsent} records are still unsent, with everything healed"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Runs the plan; progress goes to `out`.
pub async fn run(plan: &Plan, out: &mut (dyn Write + Send)) -> Result<Report> {
    let stand = Stand::new()?;
    let result = run_on(&stand, plan, out).await;
    let failed = result.as_ref().map_or(true, |report| !report.passed());
    if let Some(keep) = plan.keep.as_ref().filter(|_| failed) {
        std::fs::create_dir_all(keep)?;
        for entry in std::fs::read_dir(stand.path())?.flatten() {
            if entry.path().is_file() {
                std::fs::copy(entry.path(), keep.join(entry.file_name()))?;
            }
        }
        writeln!(out, "ledger and logs of this run: {}", keep.display())?;
    }
    result
}

async fn run_on(stand: &Stand, plan: &Plan, out: &mut (dyn Write + Send)) -> Result<Report> {
    let mut chaos = chaos::Chaos::new(plan.seed);
    let mut fleet = Fleet::build(stand, plan).await?;
    let ledger = Arc::new(Mutex::new(Ledger::open(&stand.path().join("ledger.log"))?));
    let load = Load::start(&fleet.gateways, &fleet.broker, &ledger, plan.seed)?;
    let began = Instant::now();
    let mut cycles = 0;
    while cycles < plan.cycles && plan.longest.is_none_or(|longest| began.elapsed() < longest) {
        cycles += 1;
        let what = chaos.cycle(&mut fleet, &ledger).await?;
        if cycles % 10 == 0 || plan.cycles <= 20 {
            let acked = ledger.lock().unwrap_or_else(PoisonError::into_inner).acked();
            let seconds = began.elapsed().as_secs();
            writeln!(out, "cycle {cycles}/{} {seconds}s acked={acked} last: {what}", plan.cycles)?;
        }
    }
    load.stop().await;
    let drained = fleet.heal_and_drain().await;
    if let Err(error) = &drained {
        writeln!(out, "not drained: {error:#}")?;
    }
    // What waits at the broker is on its way too.
    let arrived = eventually_within(LATECOMERS, "what the broker took has arrived", || async {
        let held = everything(&embedded_database(&fleet.cloud).await?).await?;
        Ok(when(ledger.lock().unwrap_or_else(PoisonError::into_inner).check(&held).lost.is_empty()))
    });
    if let Err(error) = arrived.await {
        writeln!(out, "{error:#}")?;
    }
    // What is committed must also survive the end of the cloud and its PostgreSQL.
    crate::programs::faults::kill_postmaster(&fleet.cloud);
    fleet.cloud.kill();
    fleet.cloud.start().await?;
    let database = embedded_database(&fleet.cloud).await?;
    let held = everything(&database).await?;
    let false_alarms: i64 =
        sqlx::query_scalar("select count(*) from gateway_incident").fetch_one(&database).await?;
    database.close().await;
    let findings = ledger.lock().unwrap_or_else(PoisonError::into_inner).check(&held);
    if !findings.clean() {
        writeln!(out, "{}", findings.examples())?;
    }
    if false_alarms > 0 {
        writeln!(out, "{false_alarms} false alarms of forks or conflicts")?;
    }
    if plan.mutant.is_none() {
        stop_all(&mut fleet).await?;
    }
    Ok(Report { findings, cycles, seed: plan.seed, false_alarms, drained: drained.is_ok() })
}

/// Scans and readings alike: the ledger knows both.
async fn everything(database: &sqlx::PgPool) -> Result<Vec<ledger::Held>> {
    let mut held = ledger::held(database).await?;
    held.extend(ledger::held_readings(database).await?);
    Ok(held)
}

/// After all that, a clean stop is still a clean stop.
async fn stop_all(fleet: &mut Fleet) -> Result<()> {
    for gateway in &mut fleet.gateways {
        // It may have been started a moment ago, and answers when it can be stopped.
        gateway.ready().await?;
        gateway.stop().await.context("stopping a gateway")?;
    }
    eventually_within(Duration::from_secs(30), "the cloud is ready", || async {
        Ok(when(fleet.cloud.get("/readyz").await?.status == 200))
    })
    .await?;
    fleet.cloud.stop().await.context("stopping the cloud")
}
