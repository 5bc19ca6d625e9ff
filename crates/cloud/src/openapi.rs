//! OpenAPI 3.1 at `/openapi.json`, generated from the handlers, and Swagger UI from the binary at `/docs/`.

use crate::{dashboard, distribution, health, identity, ingest};
use actix_web::{HttpResponse, get, web};
use serde::Serialize;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{Components, OpenApi as Document};
use utoipa::{OpenApi, ToSchema};
use utoipa_swagger_ui::{Config, SwaggerUi};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Lumbung cloud",
        description = "Keeps every record of every gateway exactly once and serves it to people.\n\n\
            Gateways call with their own key (`lbg_…`), readers with an access key (`lbk_…`), both as \
            `Authorization: Bearer`. Errors always have the same body; their `code` is stable, their message \
            follows Accept-Language (id, en)."
    ),
    tags(
        (name = "gateways", description = "Enrolment and records, for gateways"),
        (name = "distribution", description = "Goods on the move"),
        (name = "dashboard", description = "What people look at first"),
        (name = "operations", description = "Is it alive")
    )
)]
struct Root;

/// The whole document.
pub fn document() -> Document {
    let mut document = Root::openapi();
    for part in [
        identity::enrol::Docs::openapi(),
        ingest::Docs::openapi(),
        distribution::scans::Docs::openapi(),
        distribution::live::Docs::openapi(),
        dashboard::summary::Docs::openapi(),
        health::Docs::openapi(),
    ] {
        document.merge(part);
    }
    let bearer = |of: &str| {
        SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format(of).build())
    };
    let components = document.components.get_or_insert_with(Components::new);
    components.add_security_scheme("gateway_key", bearer("lbg_…"));
    components.add_security_scheme("access_key", bearer("lbk_…"));
    document
}

pub(crate) fn routes(routes: &mut web::ServiceConfig) {
    routes
        .app_data(web::Data::new(document()))
        .service(openapi_json)
        .service(SwaggerUi::new("/docs/{_:.*}").config(Config::from("/openapi.json")));
}

#[get("/openapi.json")]
async fn openapi_json(document: web::Data<Document>) -> HttpResponse {
    HttpResponse::Ok().json(document.get_ref())
}

/// The body of every error.
#[derive(Serialize, ToSchema)]
pub(crate) struct ErrorBody {
    #[schema(example = false)]
    success: bool,
    error: ErrorDescription,
    #[schema(example = "6f1c9a70c2b94d1e")]
    request_id: String,
}

#[derive(Serialize, ToSchema)]
struct ErrorDescription {
    /// Stable; programs decide by it.
    #[schema(example = "validation_failed")]
    code: String,
    /// For people, in the language of Accept-Language.
    #[schema(example = "Ada isian yang perlu diperbaiki.")]
    message: String,
    details: Vec<ErrorDetail>,
}

#[derive(Serialize, ToSchema)]
struct ErrorDetail {
    #[schema(example = "limit")]
    field: String,
    #[schema(example = "must be between 1 and 500")]
    message: String,
}

/// A claim and the gateway's own new key.
#[derive(Serialize, ToSchema)]
pub(crate) struct EnrolBody {
    #[schema(example = "7QK3M-0W2ZD-…")]
    claim: String,
    /// `lbg_` and 32 random bytes in base64url without padding.
    key: String,
    hardware: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct RotateBody {
    /// `lbg_` and 32 random bytes in base64url without padding.
    new_key: String,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct EnrolledBody {
    #[schema(example = "GW-DAPUR-MENTENG")]
    gateway_id: String,
    site: EnrolledSiteBody,
    server_time: String,
}

#[derive(Serialize, ToSchema)]
struct EnrolledSiteBody {
    code: String,
    name: String,
    #[schema(example = "Asia/Jakarta")]
    time_zone: String,
}

/// The object form or the old clients' array.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "read by the schema only")]
pub(crate) enum SyncBody {
    Batch(SyncBatch),
    Records(Vec<LegacyRecord>),
}

#[derive(Serialize, ToSchema)]
pub(crate) struct SyncBatch {
    #[schema(example = 1)]
    protocol: u16,
    /// The sending run's epoch, 16 hex digits.
    #[schema(example = "9f86d081884c7d65")]
    run: String,
    /// The gateway's idea of now.
    #[schema(example = "2026-11-21T02:30:00.000Z")]
    sent_at: String,
    /// Milliseconds since the gateway booted.
    mono_ms: i64,
    /// `unset`, `held` or `synced`.
    #[schema(example = "held")]
    clock: String,
    statuses: Vec<String>,
    /// Oldest first: `{epoch, start?, streams: {scan: [{seq, n, step?, cols}]}}`.
    runs: Vec<serde_json::Value>,
    health: Option<serde_json::Value>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct LegacyRecord {
    #[schema(example = "NFC_TAG_ALPHA")]
    nfc_tag_id: String,
    #[schema(example = "2026-11-21T02:30:00")]
    timestamp: String,
    #[schema(example = "makanan_keluar")]
    status_scan: String,
    #[schema(example = "GW-DAPUR-MENTENG")]
    gateway_id: String,
}

/// The answer to the object form: verdicts by run and stream.
#[derive(Serialize, ToSchema)]
pub(crate) struct SyncAnswer {
    protocol: u16,
    server_time: String,
    gateway_id: String,
    /// `{epoch, streams: {scan: {acked_through, exceptions: [{seq, through?, verdict, reason?}], held}}}`
    runs: Vec<serde_json::Value>,
    alarms: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_is_openapi_3_1_and_names_every_endpoint_with_its_security() {
        let json = serde_json::to_value(document()).unwrap();
        assert!(json["openapi"].as_str().unwrap().starts_with("3.1"));
        let paths = json["paths"].as_object().unwrap();
        for path in ["/api/sync_gateway_data", "/api/scans", "/api/tags/{id}", "/api/live", "/api/health"] {
            assert!(paths.contains_key(path), "{path}");
        }
        assert!(json["paths"]["/api/scans"]["get"]["security"][0]["access_key"].is_array());
    }
}
