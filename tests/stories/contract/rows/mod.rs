//! The rows, by domain.

mod admin;
mod distribution;
mod files;
mod gateways;
mod messages;
mod operations;
mod people;
mod places;
mod privacy;
mod telemetry;

use super::callers::Stage;
use super::row::Row;
use anyhow::Result;

const INVALID: &str = "VALIDATION_ERROR";
const UNREADABLE: &str = "UNREADABLE_REQUEST";
/// Where two with one Idempotency-Key meet.
const ONCE: &str =
    "made_once::what_answers_a_secret_is_made_once_by_two_replicas_and_its_secret_lies_nowhere";

pub(super) fn all(stage: &Stage) -> Result<Vec<Row>> {
    let domains = [
        admin::rows(stage)?,
        distribution::rows(stage)?,
        files::rows(stage)?,
        gateways::rows(stage)?,
        messages::rows(stage)?,
        operations::rows(stage)?,
        people::rows(stage)?,
        places::rows(stage)?,
        privacy::rows(stage)?,
        telemetry::rows(stage)?,
    ];
    Ok(domains.into_iter().flatten().collect())
}
