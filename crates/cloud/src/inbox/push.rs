//! `GET` and `POST /api/notifications/push-subscriptions`, `DELETE …/{id}`: browsers that may be woken.

use crate::error::{Error, Result};
use crate::guards;
use crate::identity::Person;
use crate::json::{Done, Json};
use crate::notify::subscriptions;
use crate::outside::{Outside, Subscription};
use crate::state::State;
use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, delete, get, post, web};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub(super) fn routes(routes: &mut web::ServiceConfig) {
    routes.service(list).service(subscribe).service(unsubscribe);
}

#[derive(utoipa::OpenApi)]
#[openapi(paths(list, subscribe, unsubscribe))]
pub(crate) struct Docs;

#[derive(Serialize, ToSchema)]
struct Subscriptions {
    #[schema(example = true)]
    success: bool,
    /// `applicationServerKey` for the browser's `pushManager.subscribe`.
    #[schema(
        example = "BLn9b-VR0ca83knDNZ32dCHGyjJp-1riX9ZTN40MqV8K_LpQmLqxC_DoHvqvFXO_nGdAB4W9dogZb_sM-uV4JbY"
    )]
    public_key: String,
    subscriptions: Vec<Browser>,
}

#[derive(Serialize, ToSchema)]
struct Browser {
    #[schema(example = 5)]
    id: i64,
    /// The push service's host.
    #[schema(example = "push.example.com")]
    service: String,
    created_at: DateTime<Utc>,
}

/// Your browsers that may be woken, and the key to subscribe with. Whoever is signed in may call.
#[utoipa::path(tag = "messages", path = "/api/notifications/push-subscriptions", security(("session" = [])),
    responses((status = 200, body = Subscriptions), (status = 401, body = crate::error::ErrorBody)))]
#[get("/api/notifications/push-subscriptions")]
async fn list(person: Person, state: web::Data<State>, outside: web::Data<Outside>) -> Result<HttpResponse> {
    let rows = subscriptions::list(&state.people, person.user_id).await?;
    let subscriptions = rows
        .into_iter()
        .map(|row| Browser { id: row.id, service: row.service, created_at: row.created_at })
        .collect();
    let public_key = outside.push_key();
    Ok(HttpResponse::Ok().json(Subscriptions { success: true, public_key, subscriptions }))
}

/// What a browser's `PushSubscription` says of itself.
#[derive(Deserialize, ToSchema)]
struct Subscribing {
    /// https, at most 2048 characters.
    #[schema(example = "https://push.example.com/wake/f0a1b2")]
    endpoint: String,
    keys: Keys,
}

#[derive(Deserialize, ToSchema)]
struct Keys {
    /// Base64url of 65 bytes: a point of P-256.
    #[schema(
        example = "BLn9b-VR0ca83knDNZ32dCHGyjJp-1riX9ZTN40MqV8K_LpQmLqxC_DoHvqvFXO_nGdAB4W9dogZb_sM-uV4JbY"
    )]
    p256dh: String,
    /// Base64url of 16 bytes.
    #[schema(example = "_ordMnz7uTCmrpBTeUV4Bw")]
    auth: String,
}

#[derive(Serialize, ToSchema)]
struct Subscribed {
    #[schema(example = true)]
    success: bool,
    #[schema(example = 5)]
    id: i64,
}

/// Let this browser be woken. Whoever is signed in may call; the same browser again is the same subscription.
#[utoipa::path(tag = "messages", path = "/api/notifications/push-subscriptions", request_body = Subscribing,
    security(("session" = [])),
    responses((status = 201, body = Subscribed), (status = 400, body = crate::error::ErrorBody),
        (status = 401, body = crate::error::ErrorBody)))]
#[post("/api/notifications/push-subscriptions")]
async fn subscribe(
    request: HttpRequest,
    person: Person,
    state: web::Data<State>,
    outside: web::Data<Outside>,
    body: Json<Subscribing>,
) -> Result<HttpResponse> {
    let Subscribing { endpoint, keys } = body.into_inner();
    outside.check_address(&endpoint).map_err(|words| Error::wrong("endpoint", words))?;
    let bytes = |text: &str| URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).unwrap_or_default();
    let browser = Subscription { endpoint, p256dh: bytes(&keys.p256dh), auth: bytes(&keys.auth) };
    browser.check().map_err(|words| Error::wrong("keys", words))?;
    let mut tx = state.people.begin().await?;
    let id = subscriptions::keep(&mut tx, person.user_id, &browser).await?;
    guards::commit(&request, tx, StatusCode::CREATED, &Subscribed { success: true, id }).await
}

/// Let one of your browsers sleep. Whoever is signed in may call.
#[utoipa::path(tag = "messages", path = "/api/notifications/push-subscriptions/{id}", security(("session" = [])),
    params(("id" = i64, Path, description = "from the list")),
    responses((status = 200, body = Done), (status = 400, body = crate::error::ErrorBody),
        (status = 401, body = crate::error::ErrorBody),
        (status = 404, description = "not one of yours", body = crate::error::ErrorBody)))]
#[delete("/api/notifications/push-subscriptions/{id}")]
async fn unsubscribe(person: Person, state: web::Data<State>, id: web::Path<i64>) -> Result<HttpResponse> {
    subscriptions::end(&state.people, person.user_id, *id).await?;
    Ok(HttpResponse::Ok().json(Done::YES))
}
