//! `GET /api/dashboard/summary`: how much, how today, and how every checkpoint and gateway is doing.

use crate::database::anew;
use crate::distribution::scans::{self, ClockWord, Filter, Label, ScanView};
use crate::error::Result;
use crate::identity::{SiteReader, Sites};
use crate::state::State;
use actix_web::{HttpResponse, get, web};
use chrono::{DateTime, NaiveDate, Utc};
use lumbung_shared::FieldError;
use lumbung_shared::scan::known_status;
use lumbung_shared::time::{ClockState, rfc3339};
use lumbung_shared::wire::Epoch;
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use std::collections::BTreeMap;
use utoipa::{IntoParams, ToSchema};

pub(super) fn routes(routes: &mut web::ServiceConfig) {
    routes.service(summary);
}

#[derive(Serialize, ToSchema)]
struct Summary {
    generated_at: String,
    totals: Totals,
    /// Scans of each site's own today.
    today: Vec<StatusCount>,
    /// Sites by code, at most `limit`.
    checkpoints: Vec<Checkpoint>,
    /// The newest 20.
    latest: Vec<ScanView>,
}

#[derive(Serialize, ToSchema)]
struct Totals {
    scans: i64,
    gateways: i64,
    sites: i64,
    /// Open entries of the quarantine.
    quarantined: i64,
}

#[derive(Serialize, ToSchema)]
struct StatusCount {
    status_scan: String,
    label: Option<Label>,
    biz_step: Option<&'static str>,
    count: i64,
}

#[derive(Serialize, ToSchema)]
struct Checkpoint {
    site: SiteView,
    programme: String,
    /// Today, there.
    local_day: NaiveDate,
    today: i64,
    by_status: BTreeMap<String, i64>,
    gateways: Vec<GatewayView>,
}

#[derive(Serialize, ToSchema)]
struct SiteView {
    code: String,
    name: String,
    kind: String,
    time_zone: String,
}

#[derive(Serialize, ToSchema)]
struct GatewayView {
    gateway_id: String,
    last_heard_at: Option<String>,
    /// Scans it had not sent yet when last heard.
    unsent: i64,
    oldest_unsent_at: Option<String>,
    clock_state: Option<ClockWord>,
    /// Its clock minus the cloud's, milliseconds.
    clock_skew_ms: Option<i64>,
    /// Scan numbers the cloud holds.
    held: i64,
    /// Numbers missing between the first and the last that it holds.
    gaps: i64,
    readings: StreamView,
    /// Readings that the cloud holds back until something ties their boot to the time of day.
    waiting_readings: i64,
    events: StreamView,
    /// Sensors and readers that are silent.
    down: Vec<DownView>,
    /// Records set aside on the gateway.
    parked: i64,
    disk_free_bytes: Option<i64>,
    reader: Option<String>,
    undervoltage: Option<bool>,
    version: Option<String>,
    run: Option<String>,
    /// Records brought back from a damaged store.
    salvaged: Option<i64>,
    /// All that it said of itself with its last batch.
    #[schema(value_type = Option<Object>)]
    health: Option<serde_json::Value>,
    /// `fork`, `conflict`
    alarms: Vec<String>,
    revoked: bool,
}

/// One stream of a gateway beside its scans.
#[derive(Serialize, ToSchema)]
struct StreamView {
    /// Not sent yet when last heard.
    unsent: i64,
    /// Numbers the cloud holds.
    held: i64,
    /// Numbers missing between the first and the last that it holds.
    gaps: i64,
}

#[derive(Serialize, ToSchema)]
struct DownView {
    /// `sensor` or `reader`
    part: String,
    #[schema(example = "kulkas-1")]
    name: String,
    reason: Option<String>,
    since: String,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Scope {
    /// Only this programme's sites.
    programme: Option<String>,
    /// Checkpoints listed at most: 0 to 10,000, default 500.
    #[param(minimum = 0, maximum = 10_000)]
    limit: Option<i64>,
}

#[derive(utoipa::OpenApi)]
#[openapi(paths(summary))]
pub(crate) struct Docs;

/// Totals, today, checkpoints with their gateways, latest scans. For who may read (admin, key with the scope `read`); operators and officers see their own sites'.
#[utoipa::path(tag = "dashboard", path = "/api/dashboard/summary", params(Scope), security(("access_key" = []), ("session" = [])),
    responses((status = 200, body = Summary), (status = 400, body = crate::error::ErrorBody),
        (status = 401, body = crate::error::ErrorBody),
        (status = 403, description = "`NOT_GRANTED`", body = crate::error::ErrorBody)))]
#[get("/api/dashboard/summary")]
async fn summary(
    reader: SiteReader,
    state: web::Data<State>,
    scope: web::Query<Scope>,
) -> Result<HttpResponse> {
    let limit = scope.limit.unwrap_or(500);
    if !(0..=10_000).contains(&limit) {
        return Err(FieldError::not_between("limit", 0, 10_000).into());
    }
    if let Some(programme) = &scope.programme {
        crate::places::check_code("programme", programme)?;
    }
    let (pool, sites) = (&state.people, &reader.sites);
    let latest = Filter::newest(20);
    let (totals, checkpoints, latest) = tokio::try_join!(
        totals(pool, sites),
        checkpoints(pool, sites, scope.programme.as_deref(), limit),
        scans::list(pool, sites, &latest)
    )?;
    let today = today(pool, sites, scope.programme.as_deref()).await?;
    Ok(HttpResponse::Ok().json(Summary {
        generated_at: rfc3339(Utc::now().timestamp_millis()),
        totals,
        today,
        checkpoints,
        latest: latest.scans,
    }))
}

async fn totals(pool: &PgPool, sites: &Sites) -> Result<Totals> {
    if let Some(sites) = sites.only() {
        // Scans by the site they were made at; what a gateway counts of itself goes where the gateway goes.
        return Ok(sqlx::query_as!(
            Totals,
            r#"select (select coalesce(sum(scans), 0)::bigint from scan_day where site_id = any($1)) as "scans!",
                   (select count(*) from gateway where revoked_at is null and site_id = any($1)) as "gateways!",
                   (select count(*) from site where site_id = any($1)) as "sites!",
                   (select count(*) from quarantine q join gateway_run r using (gateway_id, epoch)
                       where q.replayed_at is null and r.site_id = any($1)) as "quarantined!""#,
            sites
        )
        .fetch_one(pool)
        .await?);
    }
    Ok(sqlx::query_as!(
        Totals,
        r#"select (select coalesce(sum(scans), 0)::bigint from gateway_state) as "scans!",
               (select count(*) from gateway where revoked_at is null) as "gateways!",
               (select count(*) from site) as "sites!",
               (select count(*) from quarantine where replayed_at is null) as "quarantined!""#
    )
    .fetch_one(pool)
    .await?)
}

async fn today(pool: &PgPool, sites: &Sites, programme: Option<&str>) -> Result<Vec<StatusCount>> {
    let rows = sqlx::query!(
        r#"select d.status_scan, sum(d.scans)::bigint as "count!"
           from scan_day d join site s using (site_id) join programme p using (programme_id)
           where d.local_day between current_date - 1 and current_date + 1
               and d.local_day = (now() at time zone s.time_zone)::date
               and ($1::text is null or p.code = $1) and ($2::int[] is null or d.site_id = any($2))
           group by d.status_scan order by 2 desc, 1 limit 100"#,
        programme,
        sites.only()
    )
    .fetch_all(anew(pool))
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| StatusCount {
            label: Label::of(&row.status_scan),
            biz_step: known_status(&row.status_scan).map(|known| known.biz_step),
            status_scan: row.status_scan,
            count: row.count,
        })
        .collect())
}

async fn checkpoints(
    pool: &PgPool,
    sites: &Sites,
    programme: Option<&str>,
    limit: i64,
) -> Result<Vec<Checkpoint>> {
    let sites = sqlx::query!(
        r#"select s.site_id, s.code, s.name, s.kind, s.time_zone, p.code as programme,
               (now() at time zone s.time_zone)::date as "local_day!"
           from site s join programme p using (programme_id)
           where ($1::text is null or p.code = $1) and ($3::int[] is null or s.site_id = any($3))
           order by s.code limit $2"#,
        programme,
        limit,
        sites.only()
    )
    .fetch_all(anew(pool))
    .await?;
    let ids: Vec<i32> = sites.iter().map(|site| site.site_id).collect();
    let mut counts: BTreeMap<i32, BTreeMap<String, i64>> = BTreeMap::new();
    let days: Vec<NaiveDate> = sites.iter().map(|site| site.local_day).collect();
    let rows = sqlx::query!(
        r#"select d.site_id, d.status_scan, sum(d.scans)::bigint as "count!"
           from unnest($1::int[], $2::date[]) as k (site_id, local_day)
           join scan_day d on d.local_day = k.local_day and d.site_id = k.site_id
           group by d.site_id, d.status_scan"#,
        &ids,
        &days
    )
    .fetch_all(pool)
    .await?;
    for row in rows {
        counts.entry(row.site_id).or_default().insert(row.status_scan, row.count);
    }
    let mut gateways = gateways(pool, &ids).await?;
    Ok(sites
        .into_iter()
        .map(|site| {
            let by_status = counts.remove(&site.site_id).unwrap_or_default();
            Checkpoint {
                gateways: gateways.remove(&site.site_id).unwrap_or_default(),
                today: by_status.values().sum(),
                by_status,
                local_day: site.local_day,
                programme: site.programme,
                site: SiteView {
                    code: site.code,
                    name: site.name,
                    kind: site.kind,
                    time_zone: site.time_zone,
                },
            }
        })
        .collect())
}

async fn gateways(pool: &PgPool, sites: &[i32]) -> Result<BTreeMap<i32, Vec<GatewayView>>> {
    let rows = sqlx::query!(
        r#"select g.site_id, g.gateway_id, g.code, g.revoked_at is not null as "revoked!", st.last_heard_at as "last_heard_at?",
               st.epoch as "epoch?", st.clock_state as "clock_state?", st.clock_skew_ms as "clock_skew_ms?",
               st.unsent as "unsent?", st.oldest_unsent_at, st.parked as "parked?", st.disk_free_bytes, st.reader,
               st.undervoltage, st.version as "version?", st.salvaged,
               st.health, st.unsent_readings as "unsent_readings?", st.unsent_events as "unsent_events?",
               numbers_held(st.held_scans) as "held!", numbers_missing(st.held_scans) as "gaps!",
               numbers_held(st.held_readings) as "held_readings!", numbers_missing(st.held_readings) as "reading_gaps!",
               numbers_held(st.held_events) as "held_events!", numbers_missing(st.held_events) as "event_gaps!",
               (select count(*) from waiting_reading w where w.gateway_id = g.gateway_id) as "waiting!",
               array(select distinct i.kind from gateway_incident i where i.gateway_id = g.gateway_id order by 1)
                   as "alarms!"
           from gateway g left join gateway_state st using (gateway_id)
           where g.site_id = any($1)
           order by g.code"#,
        sites
    )
    .fetch_all(pool)
    .await?;
    let mut down = down(pool, sites).await?;
    let time = |t: DateTime<Utc>| rfc3339(t.timestamp_millis());
    let mut by_site: BTreeMap<i32, Vec<GatewayView>> = BTreeMap::new();
    for row in rows {
        by_site.entry(row.site_id).or_default().push(GatewayView {
            gateway_id: row.code,
            last_heard_at: row.last_heard_at.map(time),
            unsent: row.unsent.unwrap_or(0),
            oldest_unsent_at: row.oldest_unsent_at.map(time),
            clock_state: row.clock_state.map(|code| ClockWord(ClockState::from_code(code))),
            clock_skew_ms: row.clock_skew_ms,
            held: row.held,
            gaps: row.gaps,
            readings: StreamView {
                unsent: row.unsent_readings.unwrap_or(0),
                held: row.held_readings,
                gaps: row.reading_gaps,
            },
            waiting_readings: row.waiting,
            events: StreamView {
                unsent: row.unsent_events.unwrap_or(0),
                held: row.held_events,
                gaps: row.event_gaps,
            },
            down: down.remove(&row.gateway_id).unwrap_or_default(),
            parked: row.parked.unwrap_or(0),
            disk_free_bytes: row.disk_free_bytes,
            reader: row.reader,
            undervoltage: row.undervoltage,
            version: row.version,
            run: row.epoch.filter(|&epoch| epoch != 0).map(|epoch| Epoch::from_db(epoch).to_string()),
            salvaged: row.salvaged,
            health: row.health.and_then(|text| serde_json::from_str(&text).ok()),
            alarms: row.alarms,
            revoked: row.revoked,
        });
    }
    Ok(by_site)
}

/// What is silent, by gateway.
async fn down(pool: &PgPool, sites: &[i32]) -> Result<BTreeMap<i32, Vec<DownView>>> {
    let rows = sqlx::query!(
        "select p.gateway_id, p.part, p.name, p.reason, p.since
         from gateway_part p join gateway g using (gateway_id)
         where g.site_id = any($1) and p.down order by p.gateway_id, p.part, p.name",
        sites
    )
    .fetch_all(pool)
    .await?;
    let mut down: BTreeMap<i32, Vec<DownView>> = BTreeMap::new();
    for row in rows {
        let since = rfc3339(row.since.timestamp_millis());
        let view = DownView { part: row.part, name: row.name, reason: row.reason, since };
        down.entry(row.gateway_id).or_default().push(view);
    }
    Ok(down)
}
