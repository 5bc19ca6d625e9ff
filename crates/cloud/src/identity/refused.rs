//! Signed-in people who ask for what they may not: told in the audit log, a few times a minute each, then as a number.

use crate::audit::{self, Action, Actor, Entry, Object, Origin, Outcome};
use crate::error::{Error, Result};
use crate::guards;
use crate::state::State;
use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::middleware::Next;
use actix_web::{HttpRequest, ResponseError, web};
use serde_json::json;

/// Around every request. Whoever was refused is not kept from their answer when it cannot be told.
pub(crate) async fn tell_refused(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> std::result::Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let response = next.call(request).await?.map_into_boxed_body();
    let refused = response.response().error().and_then(|error| error.as_error::<Error>());
    let code = refused.filter(|error| error.status_code() == StatusCode::FORBIDDEN).map(Error::code);
    if let (Some(code), Some(user_id)) = (code, guards::accepted_person(response.request()))
        && let Err(error) = tell(response.request(), user_id, code).await
    {
        tracing::warn!("a refusal is not in the audit log: {error}");
    }
    Ok(response)
}

async fn tell(request: &HttpRequest, user_id: i64, code: &'static str) -> Result<()> {
    let Some(state) = request.app_data::<web::Data<State>>() else { return Ok(()) };
    let entry = Entry {
        object: Some(Object::new("user", &user_id)),
        outcome: Outcome::Refused,
        reason: Some(code),
        // The route's pattern: what stands in the path itself may be a secret.
        detail: json!({ "method": request.method().as_str(), "route": request.match_pattern() }),
        origin: Some(Origin::of(request)),
        ..Entry::of(Actor::Person(user_id), Action::AccessRefused)
    };
    audit::record_capped(&mut *state.people.acquire().await?, &entry).await
}
