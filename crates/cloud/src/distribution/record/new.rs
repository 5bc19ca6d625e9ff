//! A scan with all that the cloud adds to it.

use chrono::{DateTime, NaiveDate, Utc};
use lumbung_shared::scan::Scan;
use lumbung_shared::wire::Epoch;

/// How an event time is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TimeBasis {
    /// The gateway's clock, synced or confirmed by the batch that brought the scan.
    Gateway,
    /// Milliseconds since boot, tied to the cloud's clock by a batch of the same boot.
    Anchored,
    /// The phone that scanned.
    Phone,
    /// The best guess there is.
    Uncertain,
}

impl TimeBasis {
    pub(super) fn code(self) -> i16 {
        match self {
            Self::Gateway => 0,
            Self::Anchored => 1,
            Self::Phone => 2,
            Self::Uncertain => 3,
        }
    }

    /// The word of a stored number.
    pub(crate) fn word(code: i16) -> &'static str {
        match code {
            0 => "gateway",
            1 => "anchored",
            2 => "phone",
            _ => "uncertain",
        }
    }
}

/// (gateway, epoch, seq): a scan's name for ever.
pub(crate) type Name = (i32, i64, i64);

/// A scan with all that the cloud adds to it.
pub(crate) struct NewScan<'a> {
    pub(crate) gateway_id: i32,
    pub(crate) epoch: Epoch,
    pub(crate) scan: &'a Scan,
    pub(crate) site_id: i32,
    pub(crate) event_time: DateTime<Utc>,
    pub(crate) time_basis: TimeBasis,
    pub(crate) local_day: NaiveDate,
    pub(crate) received_at: DateTime<Utc>,
}

impl NewScan<'_> {
    pub(crate) fn name(&self) -> Name {
        (self.gateway_id, self.epoch.to_db(), self.scan.seq)
    }
}
