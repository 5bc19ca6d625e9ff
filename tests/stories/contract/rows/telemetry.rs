//! What farms and meters say.

use super::super::callers::Stage;
use super::super::row::{For, Row, get};
use super::INVALID;
use anyhow::Result;

pub(super) fn rows(_: &Stage) -> Result<Vec<Row>> {
    Ok(vec![
        get("/api/telemetry/series", For::Readers).refuses("/api/telemetry/series?limit=-1", 400, INVALID),
        get("/api/telemetry/readings", For::Readers)
            .example("/api/telemetry/readings?series_id=1")
            .answered(404)
            .refuses("/api/telemetry/readings?series_id=1&limit=0", 400, INVALID),
    ])
}
