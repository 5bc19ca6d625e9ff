//! The API on the gateway itself: plain HTTP on loopback, TLS for officers' phones on the local network, and one
//! door for the field manual's clients.
//!
//! What must stay true:
//! - Nothing is answered with success before the store has committed it.
//! - From other machines nothing is served but what [`access`] says: to a paired phone over TLS, to anybody
//!   liveness and pairing, and, only with `lan.field_manual`, a scan to the plain port.
//! - A page in somebody's browser cannot reach this API through a name it made up (Host is checked).
//! - Every limit is stated: body, header time, connections, workers.

mod access;
mod action;
mod gate;
mod guard;
mod lan;
mod log_scan;
mod openapi;
mod page;
mod phones;
mod problem;
mod readings;
mod receipt;
mod senml;
mod sensors;
#[cfg(test)]
mod tests;
mod time;
mod views;

/// What strangers on the local network post.
#[cfg(fuzzing)]
pub fn must_hold(body: &[u8]) {
    log_scan::must_hold(body);
    readings::must_hold(body);
}

pub use gate::Gate;
pub use lan::{Lan, PhoneDoor};

use crate::board::Board;
use crate::capture::mqtt::MqttHealth;
use crate::capture::sensors::SensorBoard;
use crate::capture::{Action, Capture};
use crate::clock::Clock;
use crate::hardware::ReaderHealth;
use crate::metrics::Metrics;
use crate::outbox::Outbox;
use crate::phones::Phones;
use crate::sync::{Receipts, SyncHandle};
use actix_web::dev::Server;
use actix_web::http::KeepAlive;
use actix_web::middleware::from_fn;
use actix_web::web::{self, Data, ServiceConfig};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer};
use guard::Door;
use problem::Problem;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

/// What the handlers work with.
pub struct Api {
    pub phones: Arc<Phones>,
    pub gate: Arc<Gate>,
    /// `None` where `lan.listen` is empty.
    pub lan: Option<Lan>,
    pub capture: Capture,
    pub outbox: Outbox,
    pub clock: Arc<Clock>,
    pub sync: Arc<SyncHandle>,
    pub receipts: Receipts,
    pub metrics: Arc<Metrics>,
    pub reader: Arc<ReaderHealth>,
    pub board: Arc<Board>,
    pub mqtt: Arc<MqttHealth>,
    /// What taps mean; `None` for a gateway without a reader.
    pub action: Option<Arc<Action>>,
    pub sensors: Arc<SensorBoard>,
    /// The address the server listens on.
    pub listen: SocketAddr,
    /// Stands before the name of every series that is posted.
    pub series_prefix: String,
    /// Whether other machines may post scans.
    pub field_manual: bool,
}

const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
const KEEP_ALIVE: Duration = Duration::from_secs(75);
/// What is not answered by then was not acknowledged, and is brought again.
const SHUTDOWN_SECONDS: u64 = 3;
const CONNECTIONS_PER_WORKER: usize = 256;

/// The server on an address that is bound already. It stops when its handle says so.
pub fn serve(api: Data<Api>, listener: TcpListener, workers: usize) -> std::io::Result<Server> {
    let server = HttpServer::new(move || {
        App::new()
            .app_data(Data::clone(&api))
            .app_data(Data::new(Door::Plain))
            .wrap(from_fn(guard::guard))
            .configure(routes)
            .default_service(web::to(not_found))
    })
    .workers(workers)
    .worker_max_blocking_threads(1)
    .max_connections(CONNECTIONS_PER_WORKER)
    .backlog(1_024)
    .keep_alive(KeepAlive::Timeout(KEEP_ALIVE))
    .client_request_timeout(HEAD_TIMEOUT)
    .client_disconnect_timeout(Duration::from_secs(1))
    .tcp_nodelay(true)
    .shutdown_timeout(SHUTDOWN_SECONDS)
    .disable_signals()
    .listen(listener)?;
    Ok(server.run())
}

fn routes(config: &mut ServiceConfig) {
    let mut rows = access::ROWS;
    // Rows of one path stand together.
    while let Some(first) = rows.first() {
        let many = rows.iter().take_while(|row| row.path == first.path).count();
        let (same, others) = rows.split_at(many);
        let mut resource = web::resource(first.path).default_service(web::to(method_not_allowed));
        for row in same {
            resource = resource.route((row.route)());
        }
        config.service(resource);
        rows = others;
    }
}

async fn not_found(request: HttpRequest) -> HttpResponse {
    Problem::of(crate::words::Code::NotFound).answer(&request)
}

async fn method_not_allowed(request: HttpRequest) -> HttpResponse {
    Problem::of(crate::words::Code::MethodNotAllowed).answer(&request)
}
