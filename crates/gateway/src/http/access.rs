//! Every address of this API, and who may ask for it. A route without a row does not exist.

use super::guard::{Caller, Door};
use super::{action, log_scan, openapi, page, phones, readings, receipt, sensors, time, views};
use actix_web::Route;
use actix_web::http::Method;
use actix_web::web;

/// Who must ask at least. Each one may do what those above it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Access {
    /// Anybody who can reach the gateway.
    Anyone,
    /// Anybody, over TLS: the way to become a phone.
    Pairing,
    /// Phones; and, while `lan.field_manual` is on, anybody on the plain port.
    FieldManual,
    /// Paired phones.
    Phone,
    /// Paired phones that may pair others.
    PairingPhone,
    /// Only the gateway itself.
    Loopback,
}

impl Access {
    pub(super) fn admits(self, caller: &Caller, door: Door, field_manual: bool) -> bool {
        match (caller, door) {
            (Caller::Loopback, _) => true,
            (Caller::Phone(phone), _) => {
                self <= Self::Phone || (self == Self::PairingPhone && phone.may_pair)
            }
            (Caller::Stranger, Door::Tls) => self <= Self::Pairing,
            (Caller::Stranger, Door::Plain) => {
                field_manual && matches!(self, Self::Anyone | Self::FieldManual)
            }
        }
    }
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
    row(Method::GET, "/", Access::Pairing, || web::get().to(page::page)),
    row(Method::GET, "/livez", Access::Anyone, || web::get().to(views::alive)),
    row(Method::GET, "/readyz", Access::Loopback, || web::get().to(views::ready)),
    row(Method::GET, "/metrics", Access::Loopback, || web::get().to(views::metrics)),
    row(Method::POST, "/api/log_scan", Access::FieldManual, || web::post().to(log_scan::log_scan)),
    row(Method::POST, "/api/readings", Access::Phone, || web::post().to(readings::post)),
    row(Method::GET, "/api/scans", Access::Phone, || web::get().to(views::scans)),
    row(Method::GET, "/api/status", Access::Phone, || web::get().to(views::status)),
    row(Method::GET, "/api/health", Access::Phone, || web::get().to(views::health)),
    row(Method::GET, "/api/action", Access::Phone, || web::get().to(action::show)),
    row(Method::PUT, "/api/action", Access::Phone, || web::put().to(action::choose)),
    row(Method::GET, "/api/quarantine", Access::Phone, || web::get().to(views::quarantine)),
    row(Method::POST, "/api/quarantine/retry", Access::Phone, || web::post().to(views::retry)),
    row(Method::GET, "/api/openapi.json", Access::Phone, || web::get().to(openapi::document)),
    row(Method::POST, "/api/pair", Access::Pairing, || web::post().to(phones::pair)),
    row(Method::POST, "/api/phones/pairing", Access::PairingPhone, || web::post().to(phones::open)),
    row(Method::GET, "/api/phones", Access::Phone, || web::get().to(phones::list)),
    row(Method::DELETE, "/api/phones/{id}", Access::Phone, || web::delete().to(phones::revoke)),
    row(Method::POST, "/api/resend", Access::Loopback, || web::post().to(views::resend)),
    row(Method::POST, "/api/receipt", Access::Phone, || web::post().to(receipt::settle)),
    row(Method::POST, "/api/sensors/read", Access::Phone, || web::post().to(sensors::read)),
    row(Method::POST, "/api/time", Access::Phone, || web::post().to(time::post)),
    row(Method::POST, "/api/sync", Access::Phone, || web::post().to(views::send_now)),
];

/// Who may ask for the resource behind a pattern. What is not in the table is the gateway's own.
pub(super) fn of(method: &Method, pattern: Option<&str>) -> Access {
    let row = ROWS.iter().find(|row| row.method == *method && Some(row.path) == pattern);
    row.map_or(Access::Loopback, |row| row.access)
}
