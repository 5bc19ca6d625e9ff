//! OpenAPI 3.1 at `/openapi.json`, generated from the handlers, and Swagger UI from the binary at `/docs/`.

mod bounds;

use crate::guards::{self, Keys, TAKES_KEYS};
use crate::{
    admin, dashboard, distribution, files, health, identity, inbox, ingest, jobs, privacy, telemetry,
};
use actix_web::{HttpResponse, get, web};
use std::collections::BTreeSet;
use utoipa::OpenApi;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::{Operation, Parameter, ParameterBuilder, ParameterIn, PathItem};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{
    Components, ContentBuilder, OpenApi as Document, Ref, RefOr, Response, ResponseBuilder,
};
use utoipa_swagger_ui::{Config, SwaggerUi};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Lumbung cloud",
        description = "Keeps every record of every gateway exactly once and serves it to people.\n\n\
            Gateways call with their own key (`lbg_…`), readers with an access key (`lbk_…`), people with the \
            token of their sign-in, all as `Authorization: Bearer`. Errors always have the same body; their `code` is stable, their message \
            and the messages of their details follow Accept-Language (id, en). \
            Where the installation asks people for a second factor, whoever has none yet is answered 403 \
            `TOTP_ENROLMENT_REQUIRED` everywhere but at `/api/auth/totp` and `/api/auth/logout`. \
            Whatever answers GET answers HEAD, and OPTIONS says which methods there are. A request by a name \
            that is not this cloud's is answered 421, `BAD_HOST`.\n\n\
            Endpoints that list the header `Idempotency-Key` do a request once, however often it is sent within 24 \
            hours; a repeat gets the first answer with `Idempotency-Replayed: true`. Refusals are not kept. \
            Answers are kept encrypted, and only their request opens them: where they hold a secret (keys, claims, \
            tokens) the header must be a random UUID."
    ),
    tags(
        (name = "gateways", description = "Enrolment and records, for gateways"),
        (name = "people", description = "Accounts, signing in, profiles"),
        (name = "messages", description = "What people are told"),
        (name = "privacy", description = "What people agree to, and their own data"),
        (name = "files", description = "What people uploaded"),
        (name = "distribution", description = "Goods on the move"),
        (name = "telemetry", description = "What farms and meters say"),
        (name = "dashboard", description = "What people look at first"),
        (name = "admin", description = "People, keys and places, for admins and operators"),
        (name = "operations", description = "Is it alive")
    )
)]
struct Root;

/// What each module says of its endpoints.
fn parts() -> Vec<Document> {
    vec![
        identity::enrol::Docs::openapi(),
        identity::people::Docs::openapi(),
        identity::refresh::Docs::openapi(),
        identity::profile::Docs::openapi(),
        identity::account::Docs::openapi(),
        identity::picture::Docs::openapi(),
        identity::consent::Docs::openapi(),
        privacy::export::Docs::openapi(),
        privacy::leave::Docs::openapi(),
        privacy::requests::Docs::openapi(),
        files::serve::Docs::openapi(),
        inbox::list::Docs::openapi(),
        inbox::deliveries::Docs::openapi(),
        inbox::preferences::Docs::openapi(),
        inbox::phone::Docs::openapi(),
        inbox::push::Docs::openapi(),
        inbox::webhooks::Docs::openapi(),
        inbox::outbox::Docs::openapi(),
        identity::google::Docs::openapi(),
        identity::second_factor::sign_in::Docs::openapi(),
        identity::second_factor::own::Docs::openapi(),
        identity::verification::Docs::openapi(),
        identity::reset::Docs::openapi(),
        identity::email::Docs::openapi(),
        identity::mail_page::Docs::openapi(),
        ingest::Docs::openapi(),
        ingest::events::Docs::openapi(),
        telemetry::series::Docs::openapi(),
        telemetry::readings::Docs::openapi(),
        distribution::scans::Docs::openapi(),
        distribution::live::Docs::openapi(),
        dashboard::page::Docs::openapi(),
        dashboard::summary::Docs::openapi(),
        health::Docs::openapi(),
        admin::users::Docs::openapi(),
        admin::standing::Docs::openapi(),
        admin::second_factor::Docs::openapi(),
        admin::keys::Docs::openapi(),
        admin::places::Docs::openapi(),
        admin::gateways::Docs::openapi(),
        admin::audit::Docs::openapi(),
        admin::dashboard::Docs::openapi(),
        jobs::api::Docs::openapi(),
        Docs::openapi(),
    ]
}

/// The whole document.
pub fn document() -> Document {
    let mut document = Root::openapi();
    for part in parts() {
        document.merge(part);
    }
    let bearer = |of: &str| {
        SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format(of).build())
    };
    let components = document.components.get_or_insert_with(Components::new);
    components.add_security_scheme("gateway_key", bearer("lbg_…"));
    components.add_security_scheme("access_key", bearer("lbk_…"));
    components.add_security_scheme("session", bearer("JWT"));
    for (name, response) in everywhere() {
        components.responses.insert(name.to_owned(), response.into());
    }
    let mut bodies = BTreeSet::new();
    for (path, item) in &mut document.paths.paths {
        for (method, operation) in operations(item) {
            complete(method, path, operation);
            operation.parameters.iter_mut().flatten().for_each(bounds::bind_parameter);
            bodies.extend(operation.request_body.iter().flat_map(bounds::parts_of_body));
        }
    }
    bounds::bind_schemas(components, bodies);
    document
}

/// Errors that come from what stands around the endpoints, so that no endpoint has to name them.
fn everywhere() -> [(&'static str, Response); 7] {
    let error = |description: &str| {
        let body = ContentBuilder::new().schema(Some(Ref::from_schema_name("ErrorBody"))).build();
        ResponseBuilder::new().description(description).content("application/json", body)
    };
    let header = |kind: Type, description: &str| {
        HeaderBuilder::new()
            .schema(Some(ObjectBuilder::new().schema_type(kind)))
            .description(Some(description))
            .build()
    };
    let seconds = header(Type::Integer, "seconds until it is worth coming back");
    let policy = header(Type::String, "the rate: `\"read\";q=600;w=60` is 600 in 60 s");
    let left = header(Type::String, "what is left: `\"read\";r=0;t=1`, with seconds until there is more");
    let moment = error("`IDEMPOTENCY_IN_FLIGHT`: the same request is being done right now");
    let busy = error("the database does not answer, or too much is going on");
    [
        ("TooSlow", error("the body did not arrive in time").build()),
        ("TooLarge", error("the body is larger than is taken here").build()),
        ("Unsupported", error("the body must be JSON and say so").build()),
        (
            "TooMany",
            error("the caller's rate for this kind of action is used up")
                .header("Retry-After", seconds.clone())
                .header("RateLimit-Policy", policy)
                .header("RateLimit", left)
                .build(),
        ),
        ("InFlight", moment.header("Retry-After", seconds.clone()).build()),
        ("KeyReused", error("`IDEMPOTENCY_KEY_REUSED`: that key came with another body before").build()),
        ("Busy", busy.header("Retry-After", seconds).build()),
    ]
}

fn complete(method: &str, path: &str, operation: &mut Operation) {
    let body: &[_] = &[("408", "TooSlow"), ("413", "TooLarge"), ("415", "Unsupported")];
    let always: &[_] = &[("429", "TooMany"), ("503", "Busy")];
    let with_body = operation.request_body.is_some().then_some(body);
    let counted = guards::counts(method, path).then_some(always);
    let once: &[_] = &[("409", "InFlight"), ("422", "KeyReused")];
    let keys = TAKES_KEYS.iter().find(|(known, _)| method == "POST" && *known == path).map(|(_, keys)| *keys);
    if let Some(keys) = keys {
        operation.parameters.get_or_insert_default().push(idempotency_key(keys).into());
    }
    let takes_keys = keys.map(|_| once);
    for (status, name) in [with_body, counted, takes_keys].into_iter().flatten().flatten() {
        let responses = &mut operation.responses.responses;
        responses.entry((*status).to_owned()).or_insert_with(|| RefOr::Ref(Ref::from_response_name(*name)));
    }
}

fn idempotency_key(keys: Keys) -> Parameter {
    let once = "the same with every repeat: done once within 24 hours. While it is being done a repeat gets \
        409 `IDEMPOTENCY_IN_FLIGHT`; with another body, 422 `IDEMPOTENCY_KEY_REUSED`";
    let text = ObjectBuilder::new().schema_type(Type::String);
    let key = ParameterBuilder::new().name("Idempotency-Key").parameter_in(ParameterIn::Header);
    match keys {
        Keys::Any => key
            .description(Some(format!("best a UUID, {once}")))
            .schema(Some(text.min_length(Some(1)).max_length(Some(64)).pattern(Some("^[!-~]+$"))))
            .example(Some("8e03978e-40d5-43dd-bc93-6894a57f9324".into())),
        // Without an example, for nobody may use it.
        Keys::Random | Keys::RandomOfAnyone => key
            .description(Some(format!(
                "a random UUID (version 4), drawn anew for each request, for it opens the answer, whose secret is \
                 kept nowhere else; {once}. The answer is the first one: what it gave may have ended since"
            )))
            .schema(Some(text.pattern(Some(
                "^[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-4[0-9A-Fa-f]{3}-[89ABab][0-9A-Fa-f]{3}-[0-9A-Fa-f]{12}$",
            )))),
    }
    .build()
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = (&'static str, &mut Operation)> {
    let PathItem { get, post, put, patch, delete, .. } = item;
    [("GET", get), ("POST", post), ("PUT", put), ("PATCH", patch), ("DELETE", delete)]
        .into_iter()
        .filter_map(|(method, operation)| Some((method, operation.as_mut()?)))
}

/// The methods that a path may be asked with; none for an unknown path.
pub(crate) fn methods(document: &Document, path: &str) -> Vec<&'static str> {
    let mut items = document.paths.paths.iter().filter(|(pattern, _)| fits(pattern, path));
    // A path with its own name comes before a pattern that would fit it too.
    let exact = items.clone().find(|(pattern, _)| *pattern == path);
    let found = exact.or_else(|| items.next()).map(|(_, item)| item.clone());
    found.map(|mut item| operations(&mut item).map(|(method, _)| method).collect()).unwrap_or_default()
}

fn fits(pattern: &str, path: &str) -> bool {
    let (mut pattern, mut path) = (pattern.split('/'), path.split('/'));
    loop {
        match (pattern.next(), path.next()) {
            (None, None) => return true,
            (Some(p), Some(h)) if p == h || (p.starts_with('{') && !h.is_empty()) => {}
            _ => return false,
        }
    }
}

#[derive(OpenApi)]
#[openapi(paths(openapi_json))]
struct Docs;

pub(crate) fn routes(routes: &mut web::ServiceConfig) {
    routes
        .app_data(web::Data::new(document()))
        .service(openapi_json)
        .service(SwaggerUi::new("/docs/{_:.*}").config(Config::from("/openapi.json")));
}

/// This document. Anyone may ask.
#[utoipa::path(tag = "operations", path = "/openapi.json",
    responses((status = 200, content_type = "application/json", body = serde_json::Value)))]
#[get("/openapi.json")]
async fn openapi_json(document: web::Data<Document>) -> HttpResponse {
    HttpResponse::Ok().json(document.get_ref())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use std::collections::BTreeMap;

    /// The document has one place for all names: of two, one would be described by the other.
    #[test]
    fn no_two_types_bear_one_name() {
        let mut known = BTreeMap::new();
        for (name, schema) in parts().into_iter().filter_map(|part| part.components).flat_map(|c| c.schemas) {
            let schema = serde_json::to_value(schema).unwrap();
            let first = known.entry(name.clone()).or_insert_with(|| schema.clone());
            assert_eq!(*first, schema, "{name}: give one another with #[schema(as = …)]");
        }
    }

    /// What is sent here may be anything: the document says what is taken, so that clients can check it too and
    /// drawn requests (`make schemathesis`) know what must be let in.
    #[test]
    fn every_text_and_number_in_a_request_is_bounded() {
        let document = serde_json::to_value(document()).unwrap();
        let mut bare = Vec::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let at = format!("{method} {path}");
                for parameter in operation["parameters"].as_array().into_iter().flatten() {
                    let name = parameter["name"].as_str().unwrap();
                    unbounded(&document, &format!("{at} {name}"), &parameter["schema"], &mut bare);
                }
                for content in operation["requestBody"]["content"].as_object().into_iter().flatten() {
                    unbounded(&document, &at, &content.1["schema"], &mut bare);
                }
            }
        }
        assert!(bare.is_empty(), "{}", bare.join("\n"));
    }

    fn unbounded(document: &Value, at: &str, schema: &Value, bare: &mut Vec<String>) {
        if let Some(to) = schema["$ref"].as_str() {
            return unbounded(
                document,
                at,
                document.pointer(&to[1..]).unwrap_or_else(|| panic!("{at}: no {to}")),
                bare,
            );
        }
        let is = |kind: &str| {
            schema["type"] == kind || schema["type"].as_array().is_some_and(|k| k.contains(&kind.into()))
        };
        let has = |word: &str| !schema[word].is_null();
        // A format says all, but for an address and a password also how long.
        let text = has("enum") || has("pattern") || has("format");
        let number = has("format") || has("minimum") && has("maximum");
        if is("string") && !text || (is("integer") || is("number")) && !number {
            bare.push(at.to_owned());
        }
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            unbounded(document, &format!("{at} {name}"), property, bare);
        }
        for word in ["allOf", "anyOf", "oneOf"] {
            for part in schema[word].as_array().into_iter().flatten() {
                unbounded(document, at, part, bare);
            }
        }
        if has("items") {
            unbounded(document, &format!("{at} []"), &schema["items"], bare);
        }
    }

    #[test]
    fn a_name_means_the_same_in_every_request() {
        let document = serde_json::to_value(document()).unwrap();
        let parts = &document["components"]["schemas"];
        assert_eq!(parts["NewGateway"]["properties"]["site"]["pattern"], "^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$");
        assert_eq!(parts["Credentials"]["properties"]["password"]["minLength"], 1);
        assert_eq!(parts["Registration"]["properties"]["password"]["minLength"], 8);
        let cursor = &document["paths"]["/api/scans"]["get"]["parameters"][1]["schema"]["pattern"];
        assert_eq!(cursor, "^[0-9a-f]{64}$");
    }

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
            "/api/auth/refresh",
            "/api/auth/google",
            "/api/auth/verify-email",
            "/api/auth/reset-password",
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
