//! OpenAPI 3.1 at `/openapi.json`, generated from the handlers, and Swagger UI from the binary at `/docs/`.

use crate::{dashboard, distribution, health, identity, ingest, telemetry};
use actix_web::{HttpResponse, get, web};
use utoipa::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{Components, OpenApi as Document};
use utoipa_swagger_ui::{Config, SwaggerUi};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Lumbung cloud",
        description = "Keeps every record of every gateway exactly once and serves it to people.\n\n\
            Gateways call with their own key (`lbg_…`), readers with an access key (`lbk_…`), people with the \
            token of their sign-in, all as `Authorization: Bearer`. Errors always have the same body; their `code` is stable, their message \
            follows Accept-Language (id, en)."
    ),
    tags(
        (name = "gateways", description = "Enrolment and records, for gateways"),
        (name = "people", description = "Accounts, signing in, profiles"),
        (name = "distribution", description = "Goods on the move"),
        (name = "telemetry", description = "What farms and meters say"),
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
        identity::people::Docs::openapi(),
        identity::profile::Docs::openapi(),
        identity::account::Docs::openapi(),
        ingest::Docs::openapi(),
        ingest::events::Docs::openapi(),
        telemetry::series::Docs::openapi(),
        telemetry::readings::Docs::openapi(),
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
    components.add_security_scheme("session", bearer("JWT"));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_is_openapi_3_1_and_names_every_endpoint_with_its_security() {
        let json = serde_json::to_value(document()).unwrap();
        assert!(json["openapi"].as_str().unwrap().starts_with("3.1"));
        let paths = json["paths"].as_object().unwrap();
        for path in [
            "/api/sync_gateway_data",
            "/api/scans",
            "/api/tags/{id}",
            "/api/live",
            "/api/health",
            "/api/gateways/{gateway_id}/events",
            "/api/telemetry/series",
            "/api/telemetry/readings",
            "/api/auth/register",
            "/api/auth/login",
            "/api/auth/logout",
            "/api/auth/sessions",
            "/api/auth/sessions/{id}",
            "/api/auth/change-password",
            "/api/users/me",
        ] {
            assert!(paths.contains_key(path), "{path}");
        }
        assert!(json["paths"]["/api/scans"]["get"]["security"][0]["access_key"].is_array());
    }
}
