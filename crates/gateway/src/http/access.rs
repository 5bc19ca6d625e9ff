//! Every address of this API, and who may ask for it. A route without a row does not exist.

use super::{action, log_scan, readings, sensors, views};
use actix_web::Route;
use actix_web::http::Method;
use actix_web::web;

/// The stranger that may still ask; everybody further up may too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Access {
    /// Anybody who can reach the gateway.
    Anyone,
    /// Other machines while `lan.field_manual` is on.
    FieldManual,
    /// The gateway itself.
    Loopback,
}

/// One thing that can be asked for.
pub(super) struct Row {
    pub(super) method: Method,
    pub(super) path: &'static str,
    pub(super) access: Access,
    pub(super) route: fn() -> Route,
}

const fn row(method: Method, path: &'static str, access: Access, route: fn() -> Route) -> Row {
    Row { method, path, access, route }
}

/// Rows of one path stand together.
pub(super) const ROWS: &[Row] = &[
    row(Method::GET, "/livez", Access::Anyone, || web::get().to(views::alive)),
    row(Method::GET, "/readyz", Access::Loopback, || web::get().to(views::ready)),
    row(Method::GET, "/metrics", Access::Loopback, || web::get().to(views::metrics)),
    row(Method::POST, "/api/log_scan", Access::FieldManual, || web::post().to(log_scan::log_scan)),
    row(Method::POST, "/api/readings", Access::Loopback, || web::post().to(readings::post)),
    row(Method::GET, "/api/scans", Access::Loopback, || web::get().to(views::scans)),
    row(Method::GET, "/api/status", Access::Loopback, || web::get().to(views::status)),
    row(Method::GET, "/api/health", Access::Loopback, || web::get().to(views::health)),
    row(Method::GET, "/api/action", Access::Loopback, || web::get().to(action::show)),
    row(Method::PUT, "/api/action", Access::Loopback, || web::put().to(action::choose)),
    row(Method::GET, "/api/quarantine", Access::Loopback, || web::get().to(views::quarantine)),
    row(Method::POST, "/api/quarantine/retry", Access::Loopback, || web::post().to(views::retry)),
    row(Method::POST, "/api/sensors/read", Access::Loopback, || web::post().to(sensors::read)),
    row(Method::POST, "/api/sync", Access::Loopback, || web::post().to(views::send_now)),
];

/// Who may ask for the resource behind a pattern. What is not in the table is the gateway's own.
pub(super) fn of(method: &Method, pattern: Option<&str>) -> Access {
    let row = ROWS.iter().find(|row| row.method == *method && Some(row.path) == pattern);
    row.map_or(Access::Loopback, |row| row.access)
}
