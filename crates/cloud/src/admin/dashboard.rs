//! `GET /api/admin/dashboard`: the whole cloud in figures, for admins.
//!
//! Cheap however large the database is: totals of large tables are estimates of PostgreSQL's own, what happened lately
//! is counted along indexes, scans come from their rollup, and each server asks once in [`FRESH`], however many look.

use crate::audit::{self, Brief};
use crate::distribution::scans_per_day;
use crate::error::{ErrorBody, Result};
use crate::files::{self, Uploads};
use crate::identity::{self, Accounts, Admin};
use crate::ingest::{self, Boxes};
use crate::notify::undelivered::{self, Messages};
use crate::state::State;
use actix_web::{HttpRequest, HttpResponse, get, web};
use chrono::{DateTime, Days, NaiveDate, Utc};
use serde::Serialize;
use std::collections::HashMap;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;
use utoipa::ToSchema;

/// How long an answer is given again.
const FRESH: Duration = Duration::from_secs(5);
/// Days of a chart, today included.
const DAYS: u8 = 30;
/// Entries of the audit log that are shown.
const RECENT: i64 = 20;

pub(super) fn routes(routes: &mut web::ServiceConfig) {
    routes.service(dashboard);
}

#[derive(utoipa::OpenApi)]
#[openapi(paths(dashboard))]
pub(crate) struct Docs;

/// What this server found last; shared by its workers.
#[derive(Default)]
pub struct Board(Mutex<Option<(Instant, Overview)>>);

#[derive(Clone, Serialize, ToSchema)]
#[schema(as = AdminOverview)]
struct Overview {
    #[schema(example = true)]
    success: bool,
    /// When it was counted; an answer may be 5 seconds old.
    generated_at: DateTime<Utc>,
    stats: Stats,
    charts: Charts,
    /// What changed power, places or accounts, and what was refused: the latest 20 entries of the audit log.
    recent_activity: Vec<Brief>,
}

#[derive(Clone, Serialize, ToSchema)]
#[schema(as = AdminStats)]
struct Stats {
    users: Accounts,
    uploads: Uploads,
    gateways: Boxes,
    messages: Messages,
}

/// The last 30 days, today included, a figure for each; days without any are there too.
#[derive(Clone, Serialize, ToSchema)]
#[schema(as = AdminCharts)]
struct Charts {
    /// Of what days of people are; scans are of their site's own days.
    #[schema(example = "Asia/Jakarta")]
    time_zone: &'static str,
    sign_ups: Vec<Day>,
    uploads: Vec<Day>,
    scans: Vec<Day>,
}

#[derive(Clone, Serialize, ToSchema)]
#[schema(as = AdminDay)]
struct Day {
    day: NaiveDate,
    #[schema(example = 42)]
    count: i64,
}

/// The whole cloud in figures. Of what this cloud does not have yet (posts, campaigns, donations, volunteers, feedback)
/// there is no figure. Reading it is kept in the audit log once an hour for each admin. For admins.
#[utoipa::path(tag = "admin", path = "/api/admin/dashboard", security(("session" = [])),
    responses((status = 200, body = Overview), (status = 401, body = ErrorBody),
        (status = 403, description = "`ADMIN_ONLY`", body = ErrorBody)))]
#[get("/api/admin/dashboard")]
async fn dashboard(
    request: HttpRequest,
    admin: Admin,
    state: web::Data<State>,
    board: web::Data<Board>,
) -> Result<HttpResponse> {
    let by = admin.0.by(&request);
    let seen = audit::Object::new("dashboard", &"*");
    audit::tell_look(&mut *state.people.acquire().await?, &by, seen).await?;
    // Whoever comes meanwhile waits for the same answer instead of asking for another one.
    let mut kept = board.0.lock().await;
    let overview = match &*kept {
        Some((at, overview)) if at.elapsed() < FRESH => overview.clone(),
        _ => {
            let overview = look(&state).await?;
            *kept = Some((Instant::now(), overview.clone()));
            overview
        }
    };
    Ok(HttpResponse::Ok().json(overview))
}

/// All of it, from one moment.
async fn look(state: &State) -> Result<Overview> {
    let mut tx = state.people.begin_with("begin isolation level repeatable read, read only").await?;
    let stats = Stats {
        users: identity::accounts(&mut tx).await?,
        uploads: files::uploads(&mut tx).await?,
        gateways: ingest::boxes(&mut tx).await?,
        messages: undelivered::messages(&mut tx).await?,
    };
    let moment =
        sqlx::query!(r#"select now() as "now!", (now() at time zone 'Asia/Jakarta')::date as "today!""#)
            .fetch_one(&mut *tx)
            .await?;
    let first = moment.today - Days::new(u64::from(DAYS) - 1);
    let every_day = |counted: Vec<(NaiveDate, i64)>| {
        let counted: HashMap<_, _> = counted.into_iter().collect();
        let days = first.iter_days().take(DAYS.into());
        days.map(|day| Day { day, count: counted.get(&day).copied().unwrap_or(0) }).collect()
    };
    let charts = Charts {
        time_zone: "Asia/Jakarta",
        sign_ups: every_day(identity::sign_ups_per_day(&mut tx, first).await?),
        uploads: every_day(files::uploads_per_day(&mut tx, first).await?),
        scans: every_day(scans_per_day(&mut tx, first).await?),
    };
    let recent_activity = audit::recent(&mut tx, RECENT).await?;
    tx.commit().await?;
    Ok(Overview { success: true, generated_at: moment.now, stats, charts, recent_activity })
}
