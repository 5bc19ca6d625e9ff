//! Goods on the move.

use super::super::callers::{Caller, Stage};
use super::super::row::{For, Row, get};
use super::{INVALID, UNREADABLE};
use anyhow::Result;

pub(super) fn rows(_: &Stage) -> Result<Vec<Row>> {
    Ok(vec![
        get("/api/live", For::Readers),
        get("/api/scans", For::Readers)
            .refuses("/api/scans?limit=0", 400, INVALID)
            .refuses("/api/scans?limit=banyak", 400, UNREADABLE)
            .refuses("/api/scans?from=kemarin", 400, INVALID)
            .refuses("/api/scans?cursor=x", 400, INVALID),
        get("/api/tags/{id}", For::Readers)
            .example("/api/tags/ADA-1")
            .but(Caller::OtherOperator, 404)
            .refuses("/api/tags/TIDAK-ADA", 404, "NOT_FOUND")
            .refuses("/api/tags/%00", 400, INVALID),
    ])
}
