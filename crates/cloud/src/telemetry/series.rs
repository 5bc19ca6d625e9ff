//! `GET /api/telemetry/series`: what is measured where, with the latest of each.

use crate::database::anew;
use crate::error::{Error, Result};
use crate::identity::{SiteReader, Sites};
use crate::moment::TimeBasis;
use crate::page;
use crate::places;
use crate::state::State;
use actix_web::{HttpResponse, get, web};
use chrono::{DateTime, Utc};
use lumbung_shared::reading::{Quality, SERIES_MAX_CHARS};
use lumbung_shared::time::rfc3339;
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use utoipa::{IntoParams, ToSchema};

/// Most series on a page.
const MOST: i64 = 500;

pub(super) fn routes(routes: &mut web::ServiceConfig) {
    routes.service(list_series);
}

/// One measured quantity of one gateway at one site.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SeriesView {
    series_id: i64,
    #[schema(example = "GW-DAPUR-MENTENG")]
    gateway_id: String,
    #[schema(example = "DAPUR-MENTENG")]
    site: String,
    #[schema(example = "kulkas-1/temperature")]
    name: String,
    /// As SenML and UCUM write it.
    #[schema(example = "Cel")]
    unit: String,
    /// The newest reading; null while all that came waits for its gateway's clock.
    latest: Option<Latest>,
}

#[derive(Debug, Serialize, ToSchema)]
struct Latest {
    #[schema(example = 4.2)]
    value: f64,
    quality: QualityWord,
    /// The best that is known of when it was measured.
    reading_time: String,
    /// `gateway`, `anchored`, `phone` (the source's own time) or `uncertain`.
    time_basis: &'static str,
    /// How far `reading_time` may be from the truth, milliseconds; null where nothing tells.
    uncertainty_ms: Option<i32>,
    received_at: String,
}

/// `good`, or `implausible`: outside what the sensor can measure, kept and marked.
#[derive(Debug, Serialize, ToSchema)]
#[schema(value_type = String, example = "good")]
pub(super) struct QualityWord(pub(super) Quality);

struct Row {
    series_id: i64,
    gateway: String,
    site: String,
    name: String,
    unit: String,
    value: Option<f64>,
    quality: Option<i16>,
    reading_time: Option<DateTime<Utc>>,
    time_basis: Option<i16>,
    uncertainty_ms: Option<i32>,
    received_at: Option<DateTime<Utc>>,
}

impl From<Row> for SeriesView {
    fn from(row: Row) -> Self {
        let time = |t: DateTime<Utc>| rfc3339(t.timestamp_millis());
        let latest = || {
            Some(Latest {
                value: row.value?,
                quality: QualityWord(Quality::from_code(row.quality?)),
                reading_time: time(row.reading_time?),
                time_basis: TimeBasis::word(row.time_basis?),
                uncertainty_ms: row.uncertainty_ms,
                received_at: time(row.received_at?),
            })
        };
        Self {
            latest: latest(),
            series_id: row.series_id,
            gateway_id: row.gateway,
            site: row.site,
            name: row.name,
            unit: row.unit,
        }
    }
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
    #[param(schema_with = page::cursor::<1>)]
    cursor: Option<String>,
    /// A gateway's code.
    gateway_id: Option<String>,
    /// A site's code: what was measured there.
    site: Option<String>,
    /// How the name begins, such as `kulkas-1/`.
    #[param(min_length = 1, max_length = 128)]
    prefix: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
struct SeriesPage {
    series: Vec<SeriesView>,
    /// For the next page; null on the last.
    next_cursor: Option<String>,
}

#[derive(utoipa::OpenApi)]
#[openapi(paths(list_series))]
pub(crate) struct Docs;

/// List series by name, each with its latest reading. For who may read (admin, key with the scope `read`); operators and officers see their own sites'.
#[utoipa::path(tag = "telemetry", path = "/api/telemetry/series", params(Filter), security(("access_key" = []), ("session" = [])),
    responses((status = 200, body = SeriesPage), (status = 400, body = crate::error::ErrorBody),
        (status = 401, body = crate::error::ErrorBody),
        (status = 403, description = "`NOT_GRANTED`", body = crate::error::ErrorBody)))]
#[get("/api/telemetry/series")]
async fn list_series(
    reader: SiteReader,
    state: web::Data<State>,
    filter: web::Query<Filter>,
) -> Result<HttpResponse> {
    Ok(HttpResponse::Ok().json(list(&state.people, &reader.sites, &filter).await?))
}

async fn list(pool: &PgPool, sites: &Sites, filter: &Filter) -> Result<SeriesPage> {
    let limit = page::limit(filter.limit, MOST)?;
    for (field, code) in [("gateway_id", &filter.gateway_id), ("site", &filter.site)] {
        if let Some(code) = code {
            places::check_code(field, code)?;
        }
    }
    if let Some(prefix) = &filter.prefix {
        lumbung_shared::check_text("prefix", prefix, SERIES_MAX_CHARS)?;
    }
    let prefix = filter.prefix.as_deref().map(begins_with);
    // A series keeps its number and its name for ever, so its number is its place in the list.
    let after = filter.cursor.as_deref().map(page::read_cursor::<1>).transpose()?.map(|[id]| id);
    let mut rows = sqlx::query_as!(
        Row,
        r#"select s.series_id, g.code as gateway, t.code as site, s.name, s.unit, l.value as "value?",
               l.quality as "quality?", l.reading_time as "reading_time?", l.time_basis as "time_basis?",
               l.uncertainty_ms, l.received_at as "received_at?"
           from series s join gateway g using (gateway_id) join site t on t.site_id = s.site_id
           left join series_latest l using (series_id)
           where ($2::text is null or g.code = $2) and ($3::text is null or t.code = $3)
               and ($4::text is null or s.name like $4)
               and ($5::bigint is null or (s.name, s.series_id) > (
                   select name, series_id from series where series_id = $5))
               and ($6::int[] is null or s.site_id = any($6))
           order by s.name, s.series_id limit $1"#,
        limit + 1,
        filter.gateway_id,
        filter.site,
        prefix,
        after,
        sites.only()
    )
    .fetch_all(anew(pool))
    .await?;
    let more = page::cut(&mut rows, limit);
    let next_cursor = rows.last().filter(|_| more).map(|row| page::write_cursor([row.series_id]));
    Ok(SeriesPage { series: rows.into_iter().map(SeriesView::from).collect(), next_cursor })
}

/// The pattern of names that begin so; a name may hold `_`, which a pattern reads as any character.
fn begins_with(prefix: &str) -> String {
    let mut pattern = String::with_capacity(prefix.len() + 1);
    for c in prefix.chars() {
        if matches!(c, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern.push('%');
    pattern
}

/// One series of these sites.
///
/// # Errors
/// [`Error::NotFound`] for a number that none of theirs has, or the database's.
pub(super) async fn one(pool: &PgPool, sites: &Sites, series_id: i64) -> Result<SeriesView> {
    let row = sqlx::query_as!(
        Row,
        r#"select s.series_id, g.code as gateway, t.code as site, s.name, s.unit, l.value as "value?",
               l.quality as "quality?", l.reading_time as "reading_time?", l.time_basis as "time_basis?",
               l.uncertainty_ms, l.received_at as "received_at?"
           from series s join gateway g using (gateway_id) join site t on t.site_id = s.site_id
           left join series_latest l using (series_id)
           where s.series_id = $1 and ($2::int[] is null or s.site_id = any($2))"#,
        series_id,
        sites.only()
    )
    .fetch_optional(anew(pool))
    .await?
    .ok_or(Error::NotFound("NOT_FOUND"))?;
    Ok(row.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_means_its_own_characters() {
        assert_eq!(begins_with("kulkas_1/"), r"kulkas\_1/%");
        assert_eq!(begins_with(r"100%\"), r"100\%\\%");
    }
}
