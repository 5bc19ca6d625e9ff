//! `GET /api/scans` and `GET /api/tags/{id}`: what happened, newest first.

use super::record::Name;
use crate::database::anew;
use crate::error::{Error, Result};
use crate::identity::{SiteReader, Sites};
use crate::moment::TimeBasis;
use crate::page;
use crate::places;
use crate::state::State;
use actix_web::{HttpResponse, get, web};
use chrono::{DateTime, NaiveDate, Utc};
use lumbung_shared::scan::{Source, known_status};
use lumbung_shared::tag::TagId;
use lumbung_shared::time::{ClockState, rfc3339};
use lumbung_shared::wire::Epoch;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::{PgConnection, PgPool};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

pub(super) fn routes(routes: &mut web::ServiceConfig) {
    routes.service(list_scans).service(tag_history);
}

/// A scan as everyone reads it. Times are RFC 3339 in UTC.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct ScanView {
    #[schema(example = "GW-DAPUR-MENTENG")]
    gateway_id: String,
    /// The gateway's run, 16 hex digits.
    epoch: String,
    /// The gateway's own number for the scan.
    seq: i64,
    #[schema(example = "04A22B1C5D6E80")]
    nfc_tag_id: String,
    #[schema(example = "makanan_keluar")]
    status_scan: String,
    label: Option<Label>,
    /// GS1 CBV business step, where the status is known.
    #[schema(example = "shipping")]
    biz_step: Option<&'static str>,
    /// As the gateway or the phone told it.
    timestamp: String,
    /// The best that is known of when it happened.
    event_time: String,
    received_at: String,
    clock_state: ClockWord,
    /// `gateway`, `anchored`, `phone` or `uncertain`.
    time_basis: &'static str,
    /// How far `event_time` may be from the truth, milliseconds; null where nothing tells.
    #[schema(example = 1000)]
    uncertainty_ms: Option<i32>,
    /// `reader`, `phone`, `field_manual` or `legacy`.
    source: SourceWord,
    site: String,
    note: Option<String>,
    officer: Option<String>,
    quantity: Option<f64>,
    client_ref: Option<Uuid>,
    /// The site's key, for who may see it.
    #[serde(skip)]
    pub(super) site_id: i32,
}

/// What people read for a status.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct Label {
    id: &'static str,
    en: &'static str,
}

impl Label {
    pub(crate) fn of(status: &str) -> Option<Self> {
        known_status(status).map(|known| Self { id: known.label_id, en: known.label_en })
    }
}

#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(value_type = String, example = "synced")]
pub(crate) struct ClockWord(pub(crate) ClockState);

#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(value_type = String, example = "reader")]
struct SourceWord(Source);

struct Row {
    gateway: String,
    gateway_id: i32,
    epoch: i64,
    seq: i64,
    nfc_tag_id: String,
    status_scan: String,
    timestamp: DateTime<Utc>,
    event_time: DateTime<Utc>,
    received_at: DateTime<Utc>,
    clock_state: i16,
    time_basis: i16,
    uncertainty_ms: Option<i32>,
    source: i16,
    site: String,
    note: Option<String>,
    officer: Option<String>,
    quantity: Option<f64>,
    client_ref: Option<Uuid>,
    site_id: i32,
}

impl From<Row> for ScanView {
    fn from(row: Row) -> Self {
        let time = |t: DateTime<Utc>| rfc3339(t.timestamp_millis());
        Self {
            label: Label::of(&row.status_scan),
            biz_step: known_status(&row.status_scan).map(|known| known.biz_step),
            gateway_id: row.gateway,
            epoch: Epoch::from_db(row.epoch).to_string(),
            seq: row.seq,
            nfc_tag_id: row.nfc_tag_id,
            status_scan: row.status_scan,
            timestamp: time(row.timestamp),
            event_time: time(row.event_time),
            received_at: time(row.received_at),
            clock_state: ClockWord(ClockState::from_code(row.clock_state)),
            time_basis: TimeBasis::word(row.time_basis),
            uncertainty_ms: row.uncertainty_ms,
            source: SourceWord(Source::from_code(row.source)),
            site: row.site,
            note: row.note,
            officer: row.officer,
            quantity: row.quantity,
            client_ref: row.client_ref,
            site_id: row.site_id,
        }
    }
}

/// Where a page begins: after this scan in (event time, name), newest first.
struct Cursor {
    event_time: DateTime<Utc>,
    name: Name,
}

impl Cursor {
    fn of(row: &Row) -> Self {
        Self { event_time: row.event_time, name: (row.gateway_id, row.epoch, row.seq) }
    }

    fn write(&self) -> String {
        let (gateway, epoch, seq) = self.name;
        page::write_cursor([self.event_time.timestamp_micros(), i64::from(gateway), epoch, seq])
    }

    fn read(text: &str) -> Result<Self> {
        let [micros, gateway, epoch, seq] = page::read_cursor(text)?;
        let name = (page::number_of_cursor(gateway), epoch, seq);
        Ok(Self { event_time: page::time_of_cursor(micros), name })
    }
}

/// What to list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Filter {
    /// 1 to 500, default 50.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<i64>,
    /// `next_cursor` of the page before.
    #[param(schema_with = page::cursor::<4>)]
    cursor: Option<String>,
    /// A gateway's code.
    gateway_id: Option<String>,
    /// A site's code.
    site: Option<String>,
    /// A tag as anyone writes it; hex UIDs are normalised.
    nfc_tag_id: Option<String>,
    #[param(min_length = 1, max_length = 128)]
    status_scan: Option<String>,
    /// Event time at or after, RFC 3339 with offset.
    from: Option<String>,
    /// Event time before, RFC 3339 with offset.
    until: Option<String>,
}

impl Filter {
    /// Everything, the newest `limit`.
    pub(crate) fn newest(limit: i64) -> Self {
        Self { limit: Some(limit), ..Self::default() }
    }
}

/// A page of scans.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Page {
    pub(crate) scans: Vec<ScanView>,
    /// For the next page; null on the last.
    next_cursor: Option<String>,
}

impl Page {
    const EMPTY: Self = Self { scans: Vec::new(), next_cursor: None };
}

#[derive(utoipa::OpenApi)]
#[openapi(paths(list_scans, tag_history))]
pub(crate) struct Docs;

/// List scans, newest event time first. For who may read (admin, key with the scope `read`); operators and officers see their own sites'.
#[utoipa::path(tag = "distribution", path = "/api/scans", params(Filter), security(("access_key" = []), ("session" = [])),
    responses((status = 200, body = Page), (status = 400, body = crate::error::ErrorBody),
        (status = 401, body = crate::error::ErrorBody),
        (status = 403, description = "`NOT_GRANTED`", body = crate::error::ErrorBody)))]
#[get("/api/scans")]
async fn list_scans(
    reader: SiteReader,
    state: web::Data<State>,
    filter: web::Query<Filter>,
) -> Result<HttpResponse> {
    Ok(HttpResponse::Ok().json(list(&state.people, &reader.sites, &filter).await?))
}

/// A tag's history, newest first. For who may read (admin, key with the scope `read`); operators and officers see their own sites'.
#[utoipa::path(tag = "distribution", path = "/api/tags/{id}", security(("access_key" = []), ("session" = [])),
    params(("id" = String, Path, description = "a tag as anyone writes it", example = "04A22B1C5D6E80"), Filter),
    responses((status = 200, body = Page), (status = 400, body = crate::error::ErrorBody),
        (status = 401, body = crate::error::ErrorBody),
        (status = 403, description = "`NOT_GRANTED`", body = crate::error::ErrorBody), (status = 404, body = crate::error::ErrorBody)))]
#[get("/api/tags/{id}")]
async fn tag_history(
    reader: SiteReader,
    state: web::Data<State>,
    id: web::Path<String>,
    filter: web::Query<Filter>,
) -> Result<HttpResponse> {
    let tag = parse_tag("id", &id)?;
    let filter = Filter { nfc_tag_id: Some(tag.clone()), ..filter.into_inner() };
    let first_page = filter.cursor.is_none();
    let page = list(&state.people, &reader.sites, &filter).await?;
    if page.scans.is_empty() && first_page {
        return Err(Error::NotFound("NOT_FOUND"));
    }
    Ok(HttpResponse::Ok().json(json!({
        "nfc_tag_id": tag, "scans": page.scans, "next_cursor": page.next_cursor
    })))
}

fn parse_tag(field: &'static str, text: &str) -> Result<String> {
    TagId::parse(text).map(TagId::into_string).map_err(|wrong| Error::wrong(field, wrong.words))
}

/// One page of what the filter asks for, of these sites.
pub(crate) async fn list(pool: &PgPool, sites: &Sites, filter: &Filter) -> Result<Page> {
    let limit = page::limit(filter.limit, 500)?;
    let from = page::time("from", filter.from.as_deref())?;
    let until = page::time("until", filter.until.as_deref())?;
    let tag = filter.nfc_tag_id.as_deref().map(|text| parse_tag("nfc_tag_id", text)).transpose()?;
    for (field, code) in [("gateway_id", &filter.gateway_id), ("site", &filter.site)] {
        if let Some(code) = code {
            places::check_code(field, code)?;
        }
    }
    // PostgreSQL cannot hold NUL, so nothing stored can match it.
    if let Some(status) = &filter.status_scan {
        lumbung_shared::check_text("status_scan", status, 128)?;
    }
    // Before anything that answers without looking for rows.
    let after = filter.cursor.as_deref().map(Cursor::read).transpose()?;
    let of_one;
    let sites = match filter.site.as_deref() {
        None => sites.only(),
        Some(code) => match places::site_named(pool, code).await? {
            Some(site) if sites.include(site) => {
                of_one = [site];
                Some(&of_one[..])
            }
            _ => return Ok(Page::EMPTY),
        },
    };
    if !is_known_status(pool, filter.status_scan.as_deref()).await? {
        return Ok(Page::EMPTY);
    }
    let (at, name) = after.map(|c| (c.event_time, c.name)).unzip();
    // One statement for every combination: the pool plans it anew for each call's own values.
    let mut rows = sqlx::query_as!(
        Row,
        r#"select g.code as gateway, e.gateway_id, e.epoch, e.seq, e.nfc_tag_id, e.status_scan, e."timestamp",
               e.event_time, e.received_at, e.clock_state, e.time_basis, e.uncertainty_ms, e.source, s.code as site,
               e.note, e.officer, e.quantity, e.client_ref, e.site_id
           from scan_event e join gateway g using (gateway_id) join site s on s.site_id = e.site_id
           where ($2::text is null or g.code = $2)
               and ($3::int[] is null or (e.site_id = any($3) and e.gateway_id = any(array(
                   select distinct d.gateway_id from scan_day d where d.site_id = any($3)))))
               and ($4::text is null or e.nfc_tag_id = $4) and ($5::text is null or e.status_scan = $5)
               and ($6::timestamptz is null or e.event_time >= $6)
               and ($7::timestamptz is null or e.event_time < $7)
               and ($8::timestamptz is null or (e.event_time, e.gateway_id, e.epoch, e.seq) < ($8, $9, $10, $11))
           order by e.event_time desc, e.gateway_id desc, e.epoch desc, e.seq desc
           limit $1"#,
        limit + 1,
        filter.gateway_id,
        sites,
        tag,
        filter.status_scan,
        from,
        until,
        at,
        name.map(|n| n.0),
        name.map(|n| n.1),
        name.map(|n| n.2)
    )
    .fetch_all(anew(pool))
    .await?;
    let more = page::cut(&mut rows, limit);
    let next_cursor = rows.last().filter(|_| more).map(|row| Cursor::of(row).write());
    Ok(Page { scans: rows.into_iter().map(ScanView::from).collect(), next_cursor })
}

/// Whether any scan has the status, or none is given: what nobody scanned need not be looked for in all
/// of history.
async fn is_known_status(pool: &PgPool, status: Option<&str>) -> Result<bool> {
    let Some(status) = status else { return Ok(true) };
    let known = sqlx::query_scalar!(
        r#"select exists (select from scan_day where status_scan = $1) as "known!""#,
        status
    )
    .fetch_one(pool)
    .await?;
    Ok(known)
}

/// The scans of these ranges of numbers (gateway, epoch, first, last), oldest first, the newest `limit` of them.
pub(super) async fn in_ranges(
    pool: &PgPool,
    ranges: &[(i32, i64, i64, i64)],
    limit: i64,
) -> Result<Vec<ScanView>> {
    let rows = sqlx::query_as!(
        Row,
        r#"select g.code as gateway, e.gateway_id, e.epoch, e.seq, e.nfc_tag_id, e.status_scan, e."timestamp",
               e.event_time, e.received_at, e.clock_state, e.time_basis, e.uncertainty_ms, e.source, s.code as site,
               e.note, e.officer, e.quantity, e.client_ref, e.site_id
           from unnest($1::int[], $2::bigint[], $3::bigint[], $4::bigint[]) as k (gateway_id, epoch, first, last)
           join scan_event e on e.gateway_id = k.gateway_id and e.epoch = k.epoch and e.seq between k.first and k.last
           join gateway g on g.gateway_id = e.gateway_id join site s on s.site_id = e.site_id
           order by e.event_time desc, e.gateway_id desc, e.epoch desc, e.seq desc
           limit $5"#,
        &ranges.iter().map(|r| r.0).collect::<Vec<_>>(),
        &ranges.iter().map(|r| r.1).collect::<Vec<_>>(),
        &ranges.iter().map(|r| r.2).collect::<Vec<_>>(),
        &ranges.iter().map(|r| r.3).collect::<Vec<_>>(),
        limit
    )
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().rev().map(ScanView::from).collect())
}

/// Scans of each of their sites' own days from `first`, from the counts that are kept of them; days without any are
/// left out.
///
/// # Errors
/// The database's.
pub(crate) async fn scans_per_day(
    conn: &mut PgConnection,
    first: NaiveDate,
) -> Result<Vec<(NaiveDate, i64)>> {
    let rows = sqlx::query!(
        r#"select local_day as "day!", sum(scans)::bigint as "count!" from scan_day where local_day >= $1 group by 1"#,
        first
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| (row.day, row.count)).collect())
}
