//! What people look at first, and whether the cloud is alive.

use super::super::callers::Stage;
use super::super::row::{For, Row, get, post};
use super::INVALID;
use anyhow::Result;

pub(super) fn rows(_: &Stage) -> Result<Vec<Row>> {
    Ok(vec![
        get("/", For::Anyone),
        get("/openapi.json", For::Anyone),
        get("/livez", For::Anyone),
        get("/readyz", For::Anyone),
        get("/metrics", For::Watchers),
        get("/api/health", For::Anyone),
        get("/api/health/detailed", For::Watchers),
        get("/api/admin/jobs", For::Admins),
        post("/api/admin/jobs/{name}/run", For::Admins, None)
            .example("/api/admin/jobs/claims_purge/run")
            .refuses("/api/admin/jobs/tidak_ada/run", 404, "NOT_FOUND")
            .told_in(409, "oversight::an_admin_runs_a_job_sees_how_it_ended_and_the_log_says_who_it_was"),
        get("/api/dashboard/summary", For::Readers).refuses("/api/dashboard/summary?limit=-1", 400, INVALID),
    ])
}
