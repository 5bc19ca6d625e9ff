//! Settling by the cloud's receipt for a bundle that people carried.
//!
//! What must stay true:
//! - Only the cloud whose key this gateway keeps can settle anything, and only for this gateway.
//! - A record is settled when it is of the run that the receipt names: another card had other records under
//!   the same numbers.
//! - One receipt is in memory at a time: a phone that was stolen must not fill a small Pi with large ones.

use crate::clock::Clock;
use crate::identity::{IdentityError, IdentityFile};
use crate::outbox::{Outbox, OutboxError, Settlement, Stream};
use crate::signing::{SigningError, SigningFile};
use lumbung_shared::receipt::{Receipt, ReceiptError, Statement};
use lumbung_shared::time::rfc3339;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::{Semaphore, SemaphorePermit};

#[derive(Debug, thiserror::Error)]
pub enum SettleError {
    #[error(transparent)]
    Receipt(#[from] ReceiptError),
    #[error("the receipt is for the gateway {0}")]
    Foreign(String),
    /// Without a pinned key nothing can be believed.
    #[error("this gateway knows no cloud that signs receipts; let it reach its cloud once")]
    NoCloud,
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Signing(#[from] SigningError),
    #[error(transparent)]
    Store(#[from] OutboxError),
}

/// What settles by receipts.
#[derive(Debug)]
pub struct Receipts {
    outbox: Outbox,
    clock: Arc<Clock>,
    identity: IdentityFile,
    turn: Semaphore,
}

impl Receipts {
    /// For the gateway whose data directory this is.
    pub fn in_dir(dir: &Path, outbox: Outbox, clock: Arc<Clock>) -> Self {
        Self { outbox, clock, identity: IdentityFile::in_dir(dir), turn: Semaphore::new(1) }
    }

    /// To be held from before a receipt is read until it is settled; `None` while somebody else holds it.
    pub fn turn(&self) -> Option<SemaphorePermit<'_>> {
        self.turn.try_acquire().ok()
    }

    /// Settles what the receipt says; answers how many records were still unsent until now.
    pub async fn settle(&self, receipt: &[u8]) -> Result<u64, SettleError> {
        let statement = believed(&self.identity, receipt)?;
        let mut settlement = Settlement { at: rfc3339(self.clock.now().wall_ms), ..Settlement::default() };
        for run in statement.runs {
            settlement.runs.push(run.epoch);
            for (name, held) in run.streams {
                // A stream that this build does not know is none of its own.
                let Some(stream) = Stream::from_name(&name) else { continue };
                let ranges = self.outbox.unsent_of(run.epoch, stream, held.held).await?;
                for range in &ranges {
                    for seq in range.first..=range.through {
                        let of = |(first, last, _): &&(i64, i64, String)| (*first..=*last).contains(&seq);
                        if let Some((_, _, reason)) = held.quarantined.iter().find(of) {
                            settlement.quarantined.push((stream, seq, reason.clone()));
                        }
                    }
                }
                settlement.ranges.extend(ranges);
            }
        }
        let settled = self.outbox.settle(settlement).await?;
        tracing::info!(records = settled, bundle = statement.bundle, "a receipt was brought");
        Ok(settled)
    }
}

fn believed(identity: &IdentityFile, receipt: &[u8]) -> Result<Statement, SettleError> {
    let receipt = Receipt::read(receipt)?;
    let enrolment = identity.read()?.enrolled.ok_or(SettleError::NoCloud)?;
    let registered = SigningFile::in_dir(identity.dir()).read()?.and_then(|(_, registered)| registered);
    let cloud =
        registered.filter(|known| known.gateway_id == enrolment.gateway_id).ok_or(SettleError::NoCloud)?;
    let statement = receipt.open(&cloud.receipt_key)?;
    if statement.gateway_id != enrolment.gateway_id {
        return Err(SettleError::Foreign(statement.gateway_id));
    }
    Ok(statement)
}
