//! `GET /api/admin/jobs` and `POST /api/admin/jobs/{name}/run`.

use super::run::{Ran, history, run_now};
use super::{JOBS, Timetable};
use crate::error::{Error, ErrorBody, Result};
use crate::identity::Admin;
use crate::state::State;
use actix_web::{HttpRequest, HttpResponse, get, post, web};
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

/// Rounds of each job that are listed.
const ROUNDS: i64 = 5;

pub(crate) fn routes(routes: &mut web::ServiceConfig) {
    routes.service(list).service(run);
}

#[derive(utoipa::OpenApi)]
#[openapi(paths(list, run))]
pub(crate) struct Docs;

#[derive(Serialize, ToSchema)]
struct JobList {
    #[schema(example = true)]
    success: bool,
    jobs: Vec<Line>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = JobLine)]
struct Line {
    #[schema(example = "sessions_purge")]
    name: &'static str,
    /// Second, minute, hour, day, month, weekday, in UTC; null: only when it is asked for.
    #[schema(example = "0 20 18 * * *")]
    cron: Option<String>,
    next_at: Option<DateTime<Utc>>,
    /// The latest first, at most 5.
    rounds: Vec<Ran>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = JobDone)]
struct Done {
    #[schema(example = true)]
    success: bool,
    round: Ran,
}

/// What the cloud does by itself: when each job goes and how its latest rounds ended, on whichever server. For admins.
#[utoipa::path(tag = "operations", path = "/api/admin/jobs", security(("session" = [])),
    responses((status = 200, body = JobList), (status = 401, body = ErrorBody),
        (status = 403, description = "`ADMIN_ONLY`", body = ErrorBody)))]
#[get("/api/admin/jobs")]
async fn list(_: Admin, state: web::Data<State>, timetable: web::Data<Timetable>) -> Result<HttpResponse> {
    let (rounds, now) = (history(&state.people, ROUNDS).await?, Utc::now());
    let line = |name: &'static str| {
        let time = timetable.of(name, now);
        let rounds = rounds.iter().filter(|round| round.job == name).cloned().collect();
        Line {
            name,
            cron: time.map(|(cron, _)| cron.to_owned()),
            next_at: time.and_then(|(_, next)| next),
            rounds,
        }
    };
    let jobs = JOBS.iter().map(|job| line(job.name)).collect();
    Ok(HttpResponse::Ok().json(JobList { success: true, jobs }))
}

/// Run a job's round now and wait for how it ends; that it failed is part of the answer, whose status is 200 then too.
/// A round that takes longer than an answer may (408) goes on, and the list says how it ended. For admins.
#[utoipa::path(tag = "operations", path = "/api/admin/jobs/{name}/run", security(("session" = [])),
    params(("name" = String, Path, description = "from the list", example = "sessions_purge")),
    responses((status = 200, body = Done), (status = 401, body = ErrorBody),
        (status = 403, description = "`ADMIN_ONLY`", body = ErrorBody), (status = 404, body = ErrorBody),
        (status = 408, description = "it is still running", body = ErrorBody),
        (status = 409, description = "`JOB_RUNNING`", body = ErrorBody)))]
#[post("/api/admin/jobs/{name}/run")]
async fn run(
    request: HttpRequest,
    admin: Admin,
    state: web::Data<State>,
    name: web::Path<String>,
) -> Result<HttpResponse> {
    let job = super::find(&name).ok_or(Error::NotFound("NOT_FOUND"))?;
    let by = admin.0.by(&request);
    let owned = state.get_ref().clone();
    // On a task of its own: a client that hangs up must leave neither a round without its lock nor one that nobody
    // is named for.
    let round = tokio::spawn(async move {
        let Some(round) = run_now(job, &owned, "person").await? else { return Ok(None) };
        super::told(&owned.people, &by, &round).await?;
        Ok::<_, Error>(Some(round))
    });
    let round = round.await.map_err(anyhow::Error::from)??.ok_or(Error::Conflict("JOB_RUNNING"))?;
    Ok(HttpResponse::Ok().json(Done { success: true, round }))
}
