//! Which cloud, and with which key: read again whenever the identity's file changes.

use super::work::SyncWorker;
use crate::identity::{Enrolment, Stamp};

/// The cloud as this gateway knows it now.
#[derive(Debug)]
pub(super) struct Cloud {
    pub(super) enrolment: Enrolment,
    pub(super) url: String,
}

/// What the identity's file said when it was last looked at.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) cloud: Option<Cloud>,
    pub(super) stamp: Option<Stamp>,
    /// Whether that state of the file could be read; an unreadable one is tried again.
    read: bool,
}

/// How the identity differs from what was known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    None,
    /// Another key, or none at all any more.
    Key,
    /// A cloud, or a name there, that this process has not spoken with.
    Cloud,
}

impl SyncWorker {
    /// Reads the identity again if its file has changed.
    pub(super) fn refresh(&self, known: &mut Known) -> Change {
        let stamp = self.identity.stamp();
        if known.read && known.stamp == stamp {
            return Change::None;
        }
        // Remembered whether it can be read or not: a file that cannot must not keep the loop from waiting.
        let seen = std::mem::replace(&mut known.stamp, stamp);
        let enrolment = match self.identity.read() {
            Ok(identity) => identity.enrolled,
            Err(error) => {
                if seen != stamp {
                    tracing::error!(%error, "the identity cannot be read; nothing is lost, everything waits");
                }
                known.read = false;
                return Change::None;
            }
        };
        known.read = true;
        let fresh = enrolment.map(|enrolment| {
            let own = (!self.cloud_url.is_empty()).then(|| self.cloud_url.clone());
            let url = own.unwrap_or_else(|| enrolment.cloud_url.clone());
            Cloud { enrolment, url }
        });
        self.handle.change(|view| {
            view.gateway_id = fresh.as_ref().map(|c| c.enrolment.gateway_id.clone());
            view.site = fresh.as_ref().map(|c| c.enrolment.site.code.clone());
            view.cloud = fresh.as_ref().map(|c| c.url.clone());
        });
        let change = match (&known.cloud, &fresh) {
            (None, None) => Change::None,
            (Some(old), Some(new))
                if old.url == new.url && old.enrolment.gateway_id == new.enrolment.gateway_id =>
            {
                if old.enrolment.key == new.enrolment.key { Change::None } else { Change::Key }
            }
            (_, Some(_)) => Change::Cloud,
            (Some(_), None) => Change::Key,
        };
        known.cloud = fresh;
        change
    }
}
