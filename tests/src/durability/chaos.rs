//! One cycle of misfortune, drawn from the seed.
//!
//! The kinds are dealt from a deck, so that a short run too meets every one of them.

use super::load::Shared;
use super::{Fleet, green_light};
use crate::programs::Gateway;
use crate::programs::faults::kill_postmaster;
use crate::proxy::{Fate, Line};
use anyhow::Result;
use fastrand::Rng;
use std::time::Duration;

#[derive(Debug, Clone, Copy)]
enum Misfortune {
    /// Killed as its light turned green.
    GreenLight,
    GatewayKilled,
    AllGatewaysKilled,
    BrokerRestarted,
    ClockTurned,
    CloudKilled,
    PostgresKilled,
    CloudAndPostgresKilled,
    LineCut,
    LineSilent,
    AnswersLost,
    Unauthorised,
    Unavailable,
    Broken,
    TooLarge,
    ResetInBodies,
    EverythingTwice,
    RequestsLost,
    Slices,
}

/// How often each kind is in the deck.
const DECK: &[(Misfortune, usize)] = &[
    (Misfortune::GreenLight, 4),
    (Misfortune::GatewayKilled, 3),
    (Misfortune::AllGatewaysKilled, 1),
    (Misfortune::BrokerRestarted, 2),
    (Misfortune::ClockTurned, 4),
    (Misfortune::CloudKilled, 3),
    (Misfortune::PostgresKilled, 2),
    (Misfortune::CloudAndPostgresKilled, 1),
    (Misfortune::LineCut, 2),
    (Misfortune::LineSilent, 1),
    (Misfortune::AnswersLost, 2),
    (Misfortune::Unauthorised, 2),
    (Misfortune::Unavailable, 1),
    (Misfortune::Broken, 1),
    (Misfortune::TooLarge, 1),
    (Misfortune::ResetInBodies, 1),
    (Misfortune::EverythingTwice, 1),
    (Misfortune::RequestsLost, 1),
    (Misfortune::Slices, 1),
];

/// How far off a gateway's clock may be: right, by hours, by months, years ahead, before its own build
/// and where a Pi without a battery starts.
const CLOCKS: &[&str] =
    &["+0", "-1h", "+1h", "-26h", "+90d", "-90d", "+10y", "@2016-11-03 17:16:43", "@1970-01-01 00:00:10"];

/// Deals misfortunes.
pub(super) struct Chaos {
    rng: Rng,
    deck: Vec<Misfortune>,
}

impl Chaos {
    pub(super) fn new(seed: u64) -> Self {
        Self { rng: Rng::with_seed(seed), deck: Vec::new() }
    }

    /// Something happens, then perhaps something else while the first is still felt; the load goes on
    /// throughout.
    pub(super) async fn cycle(&mut self, fleet: &mut Fleet, ledger: &Shared) -> Result<String> {
        let mut what = self.happen(fleet, ledger).await?;
        self.pause(60, 300).await;
        if self.rng.u8(..3) == 0 {
            what = format!("{what} + {}", self.happen(fleet, ledger).await?);
        }
        fleet.revive().await?;
        self.pause(60, 300).await;
        // The line heals in two of three cycles, so that most batches get through under fire.
        if self.rng.u8(..3) > 0 {
            fleet.proxy.mend();
        }
        fleet.revive().await?;
        self.pause(30, 150).await;
        Ok(what)
    }

    async fn pause(&mut self, from: u64, to: u64) {
        tokio::time::sleep(Duration::from_millis(self.rng.u64(from..to))).await;
    }

    fn deal(&mut self) -> Option<Misfortune> {
        if self.deck.is_empty() {
            self.deck = DECK.iter().flat_map(|(kind, count)| vec![*kind; *count]).collect();
            self.rng.shuffle(&mut self.deck);
        }
        self.deck.pop()
    }

    async fn happen(&mut self, fleet: &mut Fleet, ledger: &Shared) -> Result<String> {
        let Some(kind) = self.deal() else { return Ok(String::new()) };
        let n = self.rng.usize(..fleet.gateways.len());
        match kind {
            Misfortune::GreenLight => {
                green_light::pull_the_plug_at(&mut fleet.gateways[n], ledger, &mut self.rng).await?;
            }
            Misfortune::GatewayKilled => fleet.gateways[n].kill(),
            Misfortune::AllGatewaysKilled => fleet.gateways.iter_mut().for_each(Gateway::kill),
            // A clean end: what a killed broker has told nobody else is its own to lose.
            Misfortune::BrokerRestarted => fleet.broker.stop().await?,
            // It stays wrong, over kills too, until it is turned again.
            Misfortune::ClockTurned => {
                let setting = CLOCKS[self.rng.usize(..CLOCKS.len())];
                fleet.clocks[n].turn(setting)?;
                return Ok(format!("{kind:?} {setting}"));
            }
            Misfortune::CloudKilled => fleet.cloud.kill(),
            Misfortune::PostgresKilled => {
                kill_postmaster(&fleet.cloud);
            }
            Misfortune::CloudAndPostgresKilled => {
                kill_postmaster(&fleet.cloud);
                fleet.cloud.kill();
            }
            Misfortune::LineCut => fleet.proxy.line(Line::Refused),
            Misfortune::LineSilent => fleet.proxy.line(Line::Silent),
            Misfortune::AnswersLost => self.on_the_line(fleet, Fate::LoseAnswer),
            Misfortune::Unauthorised => self.on_the_line(fleet, Fate::refuse(401)),
            Misfortune::Unavailable => self.on_the_line(fleet, Fate::refuse(503)),
            Misfortune::Broken => self.on_the_line(fleet, Fate::refuse(500)),
            Misfortune::TooLarge => self.on_the_line(fleet, Fate::refuse(413)),
            Misfortune::ResetInBodies => self.on_the_line(fleet, Fate::ResetMidBody),
            Misfortune::EverythingTwice => self.on_the_line(fleet, Fate::Twice),
            Misfortune::RequestsLost => self.on_the_line(fleet, Fate::LoseRequest),
            Misfortune::Slices => self.on_the_line(fleet, Fate::Sliced(3)),
        }
        Ok(format!("{kind:?}"))
    }

    /// The next few batches, and in half of the cases also some of all until the line heals.
    fn on_the_line(&mut self, fleet: &Fleet, fate: Fate) {
        fleet.proxy.next(vec![fate.clone(); self.rng.usize(1..4)]);
        if self.rng.bool() {
            return;
        }
        let share = self.rng.u64(1..4);
        fleet.proxy.rule(move |request| match request.number % share {
            0 => fate.clone(),
            _ => Fate::Pass,
        });
    }
}
