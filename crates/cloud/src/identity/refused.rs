//! What is refused at the door is told in the audit log: to signed-in people who ask for what they may not, and to
//! whoever asks for too much. A few times a minute each, then as a number.

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
use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A flood that is turned away from memory must not write to the database with each request.
const AGAIN_AFTER: Duration = Duration::from_secs(60);
/// People remembered in that time.
const REMEMBERED: usize = 10_000;

/// Who was told of lately in this replica as one that asks for too much: people, and strangers all as one.
#[derive(Default)]
pub struct Excess(Mutex<(Option<Instant>, HashSet<Option<i64>>)>);

impl Excess {
    /// Whether this one is to be told now.
    fn is_first(&self, whose: Option<i64>, now: Instant) -> bool {
        let (since, told) = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if since.is_none_or(|since| now.saturating_duration_since(since) >= AGAIN_AFTER) {
            (*since, *told) = (Some(now), HashSet::new());
        }
        told.len() < REMEMBERED && told.insert(whose)
    }
}

/// Around every request. Whoever was refused is not kept from their answer when it cannot be told.
pub(crate) async fn tell_refused(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> std::result::Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let response = next.call(request).await?.map_into_boxed_body();
    let refused = response.response().error().and_then(|error| error.as_error::<Error>());
    let Some((status, code)) = refused.map(|error| (error.status_code(), error.code())) else {
        return Ok(response);
    };
    let request = response.request();
    let whose = guards::accepted_person(request);
    let action = match status {
        StatusCode::FORBIDDEN if whose.is_some() => Some(Action::AccessRefused),
        StatusCode::TOO_MANY_REQUESTS => {
            let excess = request.app_data::<web::Data<Excess>>();
            excess
                .is_some_and(|excess| excess.is_first(whose, Instant::now()))
                .then_some(Action::RateExceeded)
        }
        _ => None,
    };
    if let Some(action) = action
        && let Err(error) = tell(request, whose, action, code).await
    {
        tracing::warn!("a refusal is not in the audit log: {error}");
    }
    Ok(response)
}

async fn tell(request: &HttpRequest, whose: Option<i64>, action: Action, code: &'static str) -> Result<()> {
    let Some(state) = request.app_data::<web::Data<State>>() else { return Ok(()) };
    let entry = Entry {
        object: whose.map(|user_id| Object::new("user", &user_id)),
        outcome: Outcome::Refused,
        reason: Some(code),
        // The route's pattern: what stands in the path itself may be a secret.
        detail: json!({ "method": request.method().as_str(), "route": request.match_pattern() }),
        origin: Some(Origin::of(request)),
        ..Entry::of(whose.map_or(Actor::Nobody, Actor::Person), action)
    };
    audit::record_capped(&mut *state.people.acquire().await?, &entry).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_told_once_a_minute_for_each_person_and_for_all_strangers_together() {
        let (excess, now) = (Excess::default(), Instant::now());
        assert!(excess.is_first(None, now) && excess.is_first(Some(1), now) && excess.is_first(Some(2), now));
        let soon = now + AGAIN_AFTER / 2;
        assert!(!excess.is_first(None, soon) && !excess.is_first(Some(1), soon));
        assert!(excess.is_first(None, now + AGAIN_AFTER));
        for person in 0..i64::try_from(REMEMBERED).unwrap() {
            excess.is_first(Some(person), now + AGAIN_AFTER);
        }
        assert!(!excess.is_first(Some(-1), now + AGAIN_AFTER), "the memory has no end");
    }
}
