//! What people look at first, and whether the cloud is alive.

use super::super::callers::Stage;
use super::super::row::{For, Row, get};
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
        get("/api/dashboard/summary", For::Readers).refuses("/api/dashboard/summary?limit=-1", 400, INVALID),
    ])
}
