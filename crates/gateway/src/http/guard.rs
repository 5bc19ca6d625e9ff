//! What every request passes: it gets a name, its Host is ours, and its sender may be here.

use super::Api;
use super::access::{self, Access};
use super::problem::{Problem, RequestId};
use crate::words::Code;
use actix_web::body::{EitherBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{HOST, HeaderName, HeaderValue};
use actix_web::middleware::Next;
use actix_web::web::Data;
use actix_web::{Error, HttpMessage, HttpRequest};
use std::net::{IpAddr, SocketAddr};

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

pub(super) async fn guard<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B>>, Error> {
    let id = name(request.request());
    request.extensions_mut().insert(RequestId(id.clone()));
    let refusal = request.app_data::<Data<Api>>().and_then(|api| refuse(request.request(), api));
    let mut response = match refusal {
        Some(code) => {
            let answer = Problem::of(code).answer(request.request());
            request.into_response(answer).map_into_right_body()
        }
        None => next.call(request).await?.map_into_left_body(),
    };
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(X_REQUEST_ID, value);
    }
    Ok(response)
}

/// The caller's name for the request if it is a sane one, else one of our own.
fn name(request: &HttpRequest) -> String {
    let given = request.headers().get(&X_REQUEST_ID).and_then(|id| id.to_str().ok());
    match given {
        Some(id) if is_sane(id) => id.to_owned(),
        _ => format!("{:016x}", fastrand::u64(..)),
    }
}

fn is_sane(id: &str) -> bool {
    (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

fn refuse(request: &HttpRequest, api: &Api) -> Option<Code> {
    let host = request.headers().get(HOST);
    if !host.is_none_or(|host| host.to_str().is_ok_and(|host| is_ours(host, api.listen))) {
        return Some(Code::BadHost);
    }
    // Without a peer there is no saying where it comes from.
    let local = request.peer_addr().is_some_and(|peer| is_loopback(peer.ip()));
    let allowed = match access::of(request.method(), request.match_pattern().as_deref()) {
        Access::Anyone | Access::FieldManual => local || api.field_manual,
        Access::Loopback => local,
    };
    (!allowed).then_some(Code::LoopbackOnly)
}

/// A name that a stranger's page could point at us is none of ours: addresses and `localhost` are.
fn is_ours(host: &str, listen: SocketAddr) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    match name.parse::<IpAddr>() {
        Ok(ip) => is_loopback(ip) || !listen.ip().is_loopback(),
        Err(_) => name.eq_ignore_ascii_case("localhost"),
    }
}

pub(super) fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_and_localhost_are_our_names() {
        let loopback = "127.0.0.1:5000".parse().unwrap();
        for host in ["127.0.0.1:5000", "localhost:5000", "LOCALHOST", "[::1]:5000", "127.0.0.2"] {
            assert!(is_ours(host, loopback), "{host}");
        }
        for host in ["evil.example", "127.0.0.1.evil.example:5000", "192.168.1.7:5000", "", "localhost.evil"]
        {
            assert!(!is_ours(host, loopback), "{host}");
        }
        let lan = "0.0.0.0:5000".parse().unwrap();
        assert!(is_ours("192.168.1.7:5000", lan));
        assert!(!is_ours("evil.example:5000", lan));
    }

    #[test]
    fn a_mapped_loopback_address_is_loopback() {
        assert!(is_loopback("::ffff:127.0.0.1".parse().unwrap()));
        assert!(!is_loopback("::ffff:10.0.0.1".parse().unwrap()));
    }

    #[test]
    fn a_request_keeps_only_a_sane_name() {
        assert!(is_sane("abc-123_x.y"));
        assert!(!is_sane("") && !is_sane("a b") && !is_sane(&"x".repeat(65)));
    }
}
