//! `POST /api/sync_gateway_data`: gives each record to its domain and answers per record.
//!
//! What must stay true:
//! - A verdict is sent only after the transaction that stored its record has committed.
//! - A record is named by (gateway, epoch, stream, seq); the same name twice is stored once, and the same
//!   name with other content is kept in quarantine and raised.
//! - What cannot be understood is kept whole. Only an unusable envelope is refused.
//! - Nothing here decides by the gateway's clock.

mod body;
pub mod carried;
pub mod check;
mod clock;
pub(crate) mod events;
mod legacy;
mod parse;
pub mod quarantine;
mod schema;
mod store;
mod streams;
#[cfg(any(test, fuzzing))]
mod whole;
mod writers;

#[cfg(fuzzing)]
pub use body::must_hold as sent_must_hold;
pub use check::{Boxes, boxes};
#[cfg(fuzzing)]
pub use whole::must_hold;
pub use writers::{Ingest, Writers};

use crate::error::{Error, Result};
use crate::identity::Gateway;
use crate::state::State;
use actix_web::{HttpRequest, HttpResponse, post, web};
use chrono::Utc;

pub fn routes(routes: &mut web::ServiceConfig) {
    routes.service(sync_gateway_data);
    events::routes(routes);
}

#[derive(utoipa::OpenApi)]
#[openapi(paths(sync_gateway_data))]
pub(crate) struct Docs;

/// Take a batch of records. Gateways call it with their own key.
///
/// The body is the object form (one section per run, columns of records; protocol 1) or the old clients'
/// array `[{nfc_tag_id, timestamp, status_scan, gateway_id}, …]`. `Content-Encoding` may be `zstd` or
/// `gzip`. Every record gets a verdict: accepted, duplicate or quarantined; once answered 200 the cloud
/// holds all of them.
#[utoipa::path(tag = "gateways", path = "/api/sync_gateway_data", security(("gateway_key" = [])),
    request_body(content = schema::SyncBody, content_type = "application/json"),
    responses((status = 200, description = "a verdict per record", body = schema::SyncAnswered),
        (status = 400, description = "unusable envelope", body = crate::error::ErrorBody),
        (status = 401, body = crate::error::ErrorBody), (status = 403, body = crate::error::ErrorBody),
        (status = 408, body = crate::error::ErrorBody), (status = 413, body = crate::error::ErrorBody),
        (status = 415, body = crate::error::ErrorBody), (status = 429, body = crate::error::ErrorBody),
        (status = 503, body = crate::error::ErrorBody)))]
#[post("/api/sync_gateway_data")]
async fn sync_gateway_data(
    gateway: Gateway,
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<State>,
    ingest: web::Data<Ingest>,
) -> Result<HttpResponse> {
    // Decided before the body is read: a storm is turned away at the door.
    let _place = ingest.admit(gateway.id)?;
    let encoding = body::Encoding::of(&request)?;
    let sent = body::read(&request, payload, &state.config).await?;
    let bytes = sent.len();
    let received_at = Utc::now();
    let limit = state.config.ingest.max_decoded_bytes;
    let code = gateway.code.clone();
    let incoming = web::block(move || parse::parse(&gateway, encoding.decode(&sent, limit)?, received_at))
        .await
        .map_err(|error| Error::Unexpected(error.into()))??;
    let (records, form) = (incoming.count(), incoming.form());
    let outcome = ingest.store(incoming).await?;
    tracing::info!(gateway = code, records, bytes, "Berhasil menerima {records} data dari {code}");
    Ok(HttpResponse::Ok().json(form.answer(&code, received_at, outcome)))
}
