//! What every request passes: it gets a name, its Host is ours, and its sender may be here.

use super::Api;
use super::access;
use super::problem::{Problem, RequestId};
use crate::phones::Phone;
use crate::words::Code;
use actix_web::body::{EitherBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::ConnectionType;
use actix_web::http::header::{AUTHORIZATION, COOKIE, HOST, HeaderName, HeaderValue, ORIGIN};
use actix_web::middleware::Next;
use actix_web::web::Data;
use actix_web::{Error, HttpMessage, HttpRequest};
use std::net::{IpAddr, SocketAddr};

/// `__Host-`: the browser takes it over TLS only and sends it to this host alone.
pub(super) const COOKIE_NAME: &str = "__Host-lumbung";
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

pub(super) async fn guard<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B>>, Error> {
    let id = name(request.request());
    request.extensions_mut().insert(RequestId(id.clone()));
    let admitted = match (request.app_data::<Data<Api>>(), request.app_data::<Data<Door>>()) {
        (Some(api), Some(door)) => admit(request.request(), api, ***door),
        _ => Err(Code::NotFound),
    };
    let (refusal, close) = match admitted {
        Ok((caller, door)) => {
            let close = door == Door::Tls && matches!(caller, Caller::Stranger);
            request.extensions_mut().insert(caller);
            (None, close)
        }
        Err(code) => (Some(code), false),
    };
    let mut response = match refusal {
        Some(code) => {
            let answer = Problem::of(code).answer(request.request());
            request.into_response(answer).map_into_right_body()
        }
        None => next.call(request).await?.map_into_left_body(),
    };
    if close || refusal.is_some() {
        // Nobody keeps a place that a phone may need.
        response.response_mut().head_mut().set_connection_type(ConnectionType::Close);
    }
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

/// How a request came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Door {
    /// HTTP, port 5000: where it comes from says who it is. No token is taken.
    Plain,
    /// HTTPS, port 5443: its token says who it is, wherever it comes from.
    Tls,
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Caller {
    Loopback,
    Phone(Phone),
    Stranger,
}

impl Caller {
    /// Who the guard found this request to come from.
    pub(super) fn of(request: &HttpRequest) -> Self {
        request.extensions().get::<Self>().cloned().unwrap_or(Self::Stranger)
    }
}

fn admit(request: &HttpRequest, api: &Api, door: Door) -> Result<(Caller, Door), Code> {
    let host = request.headers().get(HOST).map(|host| host.to_str().unwrap_or_default());
    if !host.is_none_or(|host| is_ours(host, api.listen, door)) {
        return Err(Code::BadHost);
    }
    let token = Token::of(request);
    if !request.method().is_safe() && is_foreign(request, host, door, &token) {
        return Err(Code::ForeignPage);
    }
    let peer = request.peer_addr().map(|peer| peer.ip());
    let caller = match door {
        // Without a peer there is no saying where it comes from.
        Door::Plain if peer.is_some_and(is_loopback) => Caller::Loopback,
        Door::Plain if token != Token::None => return Err(Code::TlsNeeded),
        Door::Plain => Caller::Stranger,
        Door::Tls => {
            let phone = token.text().and_then(|text| api.phones.of_token(text, api.clock.now().wall_ms));
            phone.map_or(Caller::Stranger, Caller::Phone)
        }
    };
    if let (Caller::Phone(_), Some(peer)) = (&caller, peer) {
        api.gate.welcome(peer);
    }
    let access = access::of(request.method(), request.match_pattern().as_deref());
    if access.admits(&caller, door, api.field_manual) {
        return Ok((caller, door));
    }
    Err(match caller {
        Caller::Phone(_) => Code::NotThisPhone,
        _ if door == Door::Plain => Code::LoopbackOnly,
        _ if token != Token::None => Code::TokenRefused,
        _ => Code::PairingNeeded,
    })
}

/// What a request brings to prove itself.
#[derive(Debug, PartialEq, Eq)]
enum Token {
    None,
    Header(String),
    Cookie(String),
}

impl Token {
    fn of(request: &HttpRequest) -> Self {
        let text = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
        if let Some(header) = text(AUTHORIZATION) {
            let bearer = header.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
            return Self::Header(bearer.map_or("", |(_, token)| token.trim()).to_owned());
        }
        let cookies =
            text(COOKIE).unwrap_or_default().split(';').filter_map(|pair| pair.trim().split_once('='));
        let ours = cookies.filter(|(name, _)| *name == COOKIE_NAME).map(|(_, value)| value.to_owned()).next();
        ours.map_or(Self::None, Self::Cookie)
    }

    fn text(&self) -> Option<&str> {
        match self {
            Self::None => None,
            Self::Header(token) | Self::Cookie(token) => Some(token),
        }
    }
}

/// Whether a change is asked for by a page that is not ours. A browser says where a page is from; programs say
/// nothing, and then only what a browser adds by itself, the cookie, is refused.
fn is_foreign(request: &HttpRequest, host: Option<&str>, door: Door, token: &Token) -> bool {
    let scheme = if door == Door::Tls { "https" } else { "http" };
    match request.headers().get(ORIGIN) {
        Some(origin) => {
            let ours = host.map(|host| format!("{scheme}://{host}"));
            !ours.is_some_and(|ours| origin.as_bytes().eq_ignore_ascii_case(ours.as_bytes()))
        }
        None => matches!(token, Token::Cookie(_)),
    }
}

/// A name that a stranger's page could point at us is none of ours: addresses and `localhost` are.
fn is_ours(host: &str, listen: SocketAddr, door: Door) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    match name.parse::<IpAddr>() {
        Ok(ip) => is_loopback(ip) || door == Door::Tls || !listen.ip().is_loopback(),
        // No name server outside can answer for .local.
        Err(_) if door == Door::Tls && name.to_ascii_lowercase().ends_with(".local") => true,
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
            assert!(is_ours(host, loopback, Door::Plain), "{host}");
        }
        for host in ["evil.example", "127.0.0.1.evil.example:5000", "192.168.1.7:5000", "", "localhost.evil"]
        {
            assert!(!is_ours(host, loopback, Door::Plain), "{host}");
        }
        let lan = "0.0.0.0:5000".parse().unwrap();
        assert!(is_ours("192.168.1.7:5000", lan, Door::Plain));
        assert!(!is_ours("evil.example:5000", lan, Door::Plain));
        for host in ["192.168.1.7:5443", "lumbung-gateway.local:5443", "localhost:5443"] {
            assert!(is_ours(host, loopback, Door::Tls), "{host}");
        }
        assert!(!is_ours("evil.example:5443", loopback, Door::Tls));
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
