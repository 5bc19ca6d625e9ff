//! A scan with all that the cloud adds to it.

use crate::moment::When;
use chrono::{DateTime, NaiveDate, Utc};
use lumbung_shared::scan::Scan;
use lumbung_shared::wire::Epoch;

/// (gateway, epoch, seq): a scan's name for ever.
pub(crate) type Name = (i32, i64, i64);

/// A scan with all that the cloud adds to it.
pub(crate) struct NewScan<'a> {
    pub(crate) gateway_id: i32,
    pub(crate) epoch: Epoch,
    pub(crate) scan: &'a Scan,
    pub(crate) site_id: i32,
    pub(crate) when: When,
    pub(crate) local_day: NaiveDate,
    pub(crate) received_at: DateTime<Utc>,
}

impl NewScan<'_> {
    pub(crate) fn name(&self) -> Name {
        (self.gateway_id, self.epoch.to_db(), self.scan.seq)
    }
}
