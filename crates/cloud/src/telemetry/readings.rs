//! `GET /api/telemetry/readings`: the readings of one series, newest first.

use super::series::{self, QualityWord, SeriesView};
use crate::database::anew;
use crate::error::Result;
use crate::identity::{SiteReader, Sites};
use crate::moment::TimeBasis;
use crate::page;
use crate::state::State;
use actix_web::{HttpResponse, get, web};
use chrono::{DateTime, Utc};
use lumbung_shared::reading::Quality;
use lumbung_shared::time::rfc3339;
use lumbung_shared::wire::Epoch;
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use utoipa::{IntoParams, ToSchema};

/// Most readings on a page.
const MOST: i64 = 1_000;

pub(super) fn routes(routes: &mut web::ServiceConfig) {
    routes.service(list_readings);
}

/// One value. Times are RFC 3339 in UTC.
#[derive(Debug, Serialize, ToSchema)]
struct ReadingView {
    /// The gateway's run, 16 hex digits.
    epoch: String,
    /// The gateway's own number for the reading.
    seq: i64,
    #[schema(example = 4.2)]
    value: f64,
    quality: QualityWord,
    /// As the gateway or the source told it.
    timestamp: String,
    /// The best that is known of when it was measured.
    reading_time: String,
    /// `gateway`, `anchored`, `phone` (the source's own time) or `uncertain`.
    time_basis: &'static str,
    /// How far `reading_time` may be from the truth, milliseconds; null where nothing tells.
    uncertainty_ms: Option<i32>,
    received_at: String,
}

/// What to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Filter {
    /// As `/api/telemetry/series` gives it.
    series_id: i64,
    /// 1 to 1,000, default 50.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<i64>,
    /// `next_cursor` of the page before.
    #[param(schema_with = page::cursor::<3>)]
    cursor: Option<String>,
    /// Reading time at or after, RFC 3339 with offset.
    from: Option<String>,
    /// Reading time before, RFC 3339 with offset.
    to: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
struct ReadingPage {
    series: SeriesView,
    readings: Vec<ReadingView>,
    /// For the next page; null on the last.
    next_cursor: Option<String>,
}

#[derive(utoipa::OpenApi)]
#[openapi(paths(list_readings))]
pub(crate) struct Docs;

/// List the readings of a series, newest reading time first. For who may read (admin, key with the scope `read`); operators and officers see their own sites'.
#[utoipa::path(tag = "telemetry", path = "/api/telemetry/readings", params(Filter), security(("access_key" = []), ("session" = [])),
    responses((status = 200, body = ReadingPage), (status = 400, body = crate::error::ErrorBody),
        (status = 401, body = crate::error::ErrorBody),
        (status = 403, description = "`NOT_GRANTED`", body = crate::error::ErrorBody), (status = 404, body = crate::error::ErrorBody)))]
#[get("/api/telemetry/readings")]
async fn list_readings(
    reader: SiteReader,
    state: web::Data<State>,
    filter: web::Query<Filter>,
) -> Result<HttpResponse> {
    Ok(HttpResponse::Ok().json(list(&state.people, &reader.sites, &filter).await?))
}

async fn list(pool: &PgPool, sites: &Sites, filter: &Filter) -> Result<ReadingPage> {
    let limit = page::limit(filter.limit, MOST)?;
    let from = page::time("from", filter.from.as_deref())?;
    let to = page::time("to", filter.to.as_deref())?;
    let after = filter.cursor.as_deref().map(page::read_cursor::<3>).transpose()?;
    let at = after.map(|[micros, ..]| page::time_of_cursor(micros));
    let series = series::one(pool, sites, filter.series_id).await?;
    let mut rows = sqlx::query!(
        r#"select reading_time, epoch, seq, value, quality, "timestamp", time_basis, uncertainty_ms, received_at
           from reading
           where series_id = $1
               and ($3::timestamptz is null or reading_time >= $3)
               and ($4::timestamptz is null or reading_time < $4)
               and ($5::timestamptz is null or (reading_time, epoch, seq) < ($5, $6, $7))
           order by reading_time desc, epoch desc, seq desc limit $2"#,
        filter.series_id,
        limit + 1,
        from,
        to,
        at,
        after.map(|[_, epoch, _]| epoch),
        after.map(|[.., seq]| seq)
    )
    .fetch_all(anew(pool))
    .await?;
    let more = page::cut(&mut rows, limit);
    let next_cursor = rows
        .last()
        .filter(|_| more)
        .map(|row| page::write_cursor([row.reading_time.timestamp_micros(), row.epoch, row.seq]));
    let time = |t: DateTime<Utc>| rfc3339(t.timestamp_millis());
    let readings = rows
        .into_iter()
        .map(|row| ReadingView {
            epoch: Epoch::from_db(row.epoch).to_string(),
            seq: row.seq,
            value: row.value,
            quality: QualityWord(Quality::from_code(row.quality)),
            timestamp: time(row.timestamp),
            reading_time: time(row.reading_time),
            time_basis: TimeBasis::word(row.time_basis),
            uncertainty_ms: row.uncertainty_ms,
            received_at: time(row.received_at),
        })
        .collect();
    Ok(ReadingPage { series, readings, next_cursor })
}
