//! What happened to the gateways themselves: `GET /api/gateways/{gateway_id}/events`, newest first.

mod keep;
mod parts;

pub(super) use keep::{NewEvent, correct, keep};

use super::clock::Anchor;
use crate::database::anew;
use crate::error::{Error, Result};
use crate::identity::{SiteReader, Sites};
use crate::moment::TimeBasis;
use crate::page;
use crate::places;
use crate::state::State;
use actix_web::{HttpResponse, get, web};
use chrono::{DateTime, Utc};
use lumbung_shared::event::{Event, KIND_MAX_CHARS};
use lumbung_shared::time::{ClockState, rfc3339};
use lumbung_shared::wire::Epoch;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::PgPool;
use utoipa::{IntoParams, ToSchema};

/// Most events on a page.
const MOST: i64 = 500;

pub(super) fn routes(routes: &mut web::ServiceConfig) {
    routes.service(list_events);
}

/// One event. Times are RFC 3339 in UTC.
#[derive(Debug, Serialize, ToSchema)]
struct EventView {
    /// The gateway's run, 16 hex digits.
    epoch: String,
    /// The gateway's own number for the event.
    seq: i64,
    /// `sensor_down`, `sensor_up`, `reader_down`, `reader_up`, `clock_anchor`, `clock_step`, `undervoltage`,
    /// `phone_paired`, `phone_revoked`, or one that a newer gateway knows.
    #[schema(example = "sensor_down")]
    kind: String,
    #[schema(value_type = Object, example = json!({ "sensor": "kulkas-1", "reason": "no answer" }))]
    body: Value,
    /// As the gateway told it.
    timestamp: String,
    /// The best that is known of when it happened.
    event_time: String,
    clock_state: &'static str,
    /// `gateway`, `anchored` or `uncertain`.
    time_basis: &'static str,
    /// How far `event_time` may be from the truth, milliseconds; null where nothing tells.
    uncertainty_ms: Option<i32>,
    received_at: String,
}

/// What to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Filter {
    /// 1 to 500, default 50.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<i64>,
    /// `next_cursor` of the page before.
    #[param(schema_with = page::cursor::<3>)]
    cursor: Option<String>,
    #[param(min_length = 1, max_length = 64)]
    kind: Option<String>,
    /// Event time at or after, RFC 3339 with offset.
    from: Option<String>,
    /// Event time before, RFC 3339 with offset.
    to: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
struct EventPage {
    gateway_id: String,
    events: Vec<EventView>,
    /// For the next page; null on the last.
    next_cursor: Option<String>,
}

#[derive(utoipa::OpenApi)]
#[openapi(paths(list_events))]
pub(crate) struct Docs;

/// List what happened to a gateway, newest first. For who may read (admin, key with the scope `read`); operators and officers see their own sites'.
#[utoipa::path(tag = "gateways", path = "/api/gateways/{gateway_id}/events", security(("access_key" = []), ("session" = [])),
    params(("gateway_id" = String, Path, description = "a gateway's code", example = "GW-DAPUR-MENTENG"), Filter),
    responses((status = 200, body = EventPage), (status = 400, body = crate::error::ErrorBody),
        (status = 401, body = crate::error::ErrorBody),
        (status = 403, description = "`NOT_GRANTED`", body = crate::error::ErrorBody), (status = 404, body = crate::error::ErrorBody)))]
#[get("/api/gateways/{gateway_id}/events")]
async fn list_events(
    reader: SiteReader,
    state: web::Data<State>,
    gateway: web::Path<String>,
    filter: web::Query<Filter>,
) -> Result<HttpResponse> {
    Ok(HttpResponse::Ok().json(list(&state.people, &reader.sites, gateway.into_inner(), &filter).await?))
}

async fn list(pool: &PgPool, sites: &Sites, gateway_id: String, filter: &Filter) -> Result<EventPage> {
    let limit = page::limit(filter.limit, MOST)?;
    let from = page::time("from", filter.from.as_deref())?;
    let to = page::time("to", filter.to.as_deref())?;
    places::check_code("gateway_id", &gateway_id)?;
    if let Some(kind) = &filter.kind {
        lumbung_shared::check_text("kind", kind, KIND_MAX_CHARS)?;
    }
    let after = filter.cursor.as_deref().map(page::read_cursor::<3>).transpose()?;
    let at = after.map(|[micros, ..]| page::time_of_cursor(micros));
    // What happened in a run belongs to the site that the run was at, wherever the gateway stands now.
    let key = sqlx::query_scalar!(
        "select g.gateway_id from gateway g
         where g.code = $1 and ($2::int[] is null or g.site_id = any($2) or exists (
             select from gateway_run r where r.gateway_id = g.gateway_id and r.site_id = any($2)))",
        gateway_id,
        sites.only()
    )
    .fetch_optional(anew(pool))
    .await?
    .ok_or(Error::NotFound("NOT_FOUND"))?;
    let mut rows = sqlx::query!(
        r#"select epoch, seq, kind, body, "timestamp", event_time, time_basis, uncertainty_ms, received_at,
               clock_state
           from gateway_event
           where gateway_id = $1 and ($3::text is null or kind = $3)
               and ($4::timestamptz is null or event_time >= $4)
               and ($5::timestamptz is null or event_time < $5)
               and ($6::timestamptz is null or (event_time, epoch, seq) < ($6, $7, $8))
               and ($9::int[] is null or epoch in (
                   select r.epoch from gateway_run r where r.gateway_id = $1 and r.site_id = any($9)))
           order by event_time desc, epoch desc, seq desc limit $2"#,
        key,
        limit + 1,
        filter.kind,
        from,
        to,
        at,
        after.map(|[_, epoch, _]| epoch),
        after.map(|[.., seq]| seq),
        sites.only()
    )
    .fetch_all(anew(pool))
    .await?;
    let more = page::cut(&mut rows, limit);
    let next_cursor = rows
        .last()
        .filter(|_| more)
        .map(|row| page::write_cursor([row.event_time.timestamp_micros(), row.epoch, row.seq]));
    let time = |t: DateTime<Utc>| rfc3339(t.timestamp_millis());
    let events = rows
        .into_iter()
        .map(|row| EventView {
            epoch: Epoch::from_db(row.epoch).to_string(),
            seq: row.seq,
            kind: row.kind,
            // It was an object when it came in.
            body: serde_json::from_str(&row.body).unwrap_or_default(),
            timestamp: time(row.timestamp),
            event_time: time(row.event_time),
            clock_state: match ClockState::from_code(row.clock_state) {
                ClockState::Unset => "unset",
                ClockState::Held => "held",
                ClockState::Synced => "synced",
            },
            time_basis: TimeBasis::word(row.time_basis),
            uncertainty_ms: row.uncertainty_ms,
            received_at: time(row.received_at),
        })
        .collect();
    Ok(EventPage { gateway_id, events, next_cursor })
}

/// The anchor that an event tells of, if it does.
pub(super) fn anchor(event: &Event, received_ms: i64) -> Option<Anchor> {
    #[derive(Deserialize)]
    struct Donated {
        mono_ms: i64,
        wall_ms: i64,
        uncertainty_ms: i64,
        #[serde(default)]
        source: String,
    }
    if event.kind != "clock_anchor" {
        return None;
    }
    let told: Donated = serde_json::from_str(&event.body).ok()?;
    Anchor::of_donation(told.mono_ms, told.wall_ms, told.uncertainty_ms, &told.source, received_ms)
}
