//! How many requests of people may wait for the database. Beyond that an early "come back" costs less than a
//! late one, for both sides. Gateways have their own connections and their own door (`ingest`).

use super::{limits, refuse};
use crate::error::Error;
use crate::state::State;
use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::middleware::Next;
use actix_web::web;
use sqlx::PgPool;
use std::sync::atomic::{AtomicU32, Ordering};

/// Requests per connection; at some ten milliseconds each, the last one waits a good second.
const PER_CONNECTION: u32 = 64;

/// The people's requests that this replica is busy with.
#[derive(Default)]
pub struct Crowd {
    inside: AtomicU32,
}

struct Place<'a>(&'a Crowd);

impl Crowd {
    fn enter(&self) -> (Place<'_>, u32) {
        (Place(self), self.inside.fetch_add(1, Ordering::Relaxed))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.inside.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Bodies that arrive slowly hold places but no connections, so both must be used up.
fn is_full(before: u32, pool: &PgPool) -> bool {
    let most = pool.options().get_max_connections();
    before >= most.saturating_mul(PER_CONNECTION) && pool.num_idle() == 0 && pool.size() >= most
}

/// Turns requests away while the database has no connection free and a crowd waits for one.
pub(crate) async fn crowd(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let of_app = |request: &ServiceRequest| {
        let crowd = request.app_data::<web::Data<Crowd>>()?.clone();
        Some((crowd, request.app_data::<web::Data<State>>()?.people.clone()))
    };
    let counted = limits::is_counted(&request);
    let Some((crowd, pool)) = of_app(&request).filter(|_| counted) else {
        return Ok(next.call(request).await?.map_into_boxed_body());
    };
    let (_place, before) = crowd.enter();
    if is_full(before, &pool) {
        let reason = format!("{before} requests wait for the database");
        return Ok(refuse(request, Error::Busy { retry_after: 1, reason }));
    }
    Ok(next.call(request).await?.map_into_boxed_body())
}
