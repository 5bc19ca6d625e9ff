//! What is asked when Prometheus or a person looks: the database, the gateways, the disk.

use crate::metrics::{Figures, Pool};
use crate::state::State;
use crate::{backup, database, ingest, jobs, privacy};
use nix::sys::statvfs::statvfs;

/// Looks at everything, within the patience of its caller.
pub(super) async fn look(state: &State) -> anyhow::Result<Figures> {
    let database = database::check::figures(&state.people).await?;
    let ingest = ingest::check::figures(&state.people).await?;
    let jobs = jobs::standings(&state.people, &state.config.jobs).await?;
    let disk = statvfs(&state.config.data_dir).ok();
    let size = |blocks: u64| disk.as_ref().map_or(0, |disk| blocks * disk.fragment_size());
    Ok(Figures {
        database_bytes: database.bytes,
        database_skew_ms: database.apart_ms,
        gateways_heard: ingest.heard,
        gateways_silent: ingest.silent,
        quarantined: ingest.quarantined,
        privacy: privacy::retention::figures(&state.people).await?,
        latest_backup: backup::latest(&state.people).await?,
        jobs: jobs.iter().map(|one| (one.job, one.failed, one.overdue)).collect(),
        disk_free_bytes: size(disk.as_ref().map_or(0, |disk| disk.blocks_available())),
        disk_bytes: size(disk.as_ref().map_or(0, |disk| disk.blocks())),
    })
}

/// The connections of each pool at this moment.
pub(super) fn pools(state: &State) -> [Pool; 2] {
    let settings = &state.config.database;
    [
        Pool::of("people", &state.people, settings.max_connections),
        Pool::of("gateways", &state.gateways, settings.ingest_connections),
    ]
}
