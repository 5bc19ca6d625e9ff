//! By which names this cloud is asked. A page elsewhere whose name was bent to this machine's address would
//! otherwise speak for whoever sits at it.

use super::refuse;
use crate::config::Config;
use crate::error::Error;
use crate::state::State;
use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header;
use actix_web::middleware::Next;
use actix_web::{HttpRequest, web};
use std::net::IpAddr;

/// Turns away requests that were meant for another name.
pub(crate) async fn host(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let state = request.app_data::<web::Data<State>>();
    let known = state.is_none_or(|state| asked(request.request()).all(|name| is_ours(name, &state.config)));
    if !known {
        return Ok(refuse(request, Error::BadHost));
    }
    Ok(next.call(request).await?.map_into_boxed_body())
}

/// The names by which a request asks: that of its header, and that of its line, where HTTP/2 has it.
fn asked(request: &HttpRequest) -> impl Iterator<Item = &str> {
    let header = request.headers().get(header::HOST).map(|host| host.to_str().unwrap_or("?"));
    header.into_iter().chain(request.uri().host()).map(name_of)
}

/// Whether a request asks for the machine that it runs on, by a name that cannot be bent to this address.
pub fn asks_for_loopback(request: &HttpRequest) -> bool {
    let mut names = asked(request).peekable();
    names.peek().is_some() && names.all(|name| ["localhost", "127.0.0.1", "[::1]"].contains(&name))
}

/// Addresses are always: nobody's name can be bent to look like one.
fn is_ours(name: &str, config: &Config) -> bool {
    let bare = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
    let public =
        config.http.public_url.split_once("://").map(|(_, rest)| rest.split('/').next().unwrap_or(rest));
    let ours =
        ["localhost"].into_iter().chain(public).chain(config.http.allowed_hosts.iter().map(String::as_str));
    bare.parse::<IpAddr>().is_ok() || ours.map(name_of).any(|known| known.eq_ignore_ascii_case(name))
}

/// Without a port and the root's dot.
fn name_of(host: &str) -> &str {
    let name = host
        .rsplit_once(':')
        .filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()))
        .map_or(host, |(name, _)| name);
    name.strip_suffix('.').unwrap_or(name)
}

/// No name under somebody else's domain is ours, whatever stands before it and whatever port is asked for.
#[cfg(any(test, fuzzing))]
pub fn must_hold(written: &str, config: &Config) {
    for end in [".evil.example", ".evil.example.", ".evil.example:8000", "@evil.example", "/evil.example"] {
        let host = format!("{written}{end}");
        assert!(!is_ours(name_of(&host), config), "{host}");
    }
    // With the dot of the root and a port it is the same name.
    if !written.contains(':') && !written.ends_with('.') {
        let more = format!("{written}.:80");
        assert_eq!(is_ours(name_of(written), config), is_ours(name_of(&more), config), "{written}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_its_own_names_and_addresses_are_answered() {
        let mut config = Config::load(None).unwrap();
        config.http.public_url = "https://mbg.example.id:8443/".into();
        config.http.allowed_hosts = vec!["lumbung.local".into()];
        for host in [
            "localhost",
            "LOCALHOST:8000",
            "127.0.0.1:8000",
            "[::1]:8000",
            "192.168.1.5",
            "mbg.example.id",
            "Mbg.Example.Id.:443",
            "lumbung.local:80",
        ] {
            assert!(is_ours(name_of(host), &config), "{host}");
        }
        for host in [
            "",
            "?",
            "evil.example",
            "mbg.example.id.evil.example",
            "127.0.0.1.evil.example",
            "a@localhost",
            "localhost:x",
        ] {
            assert!(!is_ours(name_of(host), &config), "{host}");
        }
    }

    proptest! {
        #[test]
        fn a_name_that_was_bent_is_not_answered(
            written in "\\PC{0,30}|(localhost|127\\.0\\.0\\.1|mbg\\.example\\.id|\\[::1\\])[.:@/a-z0-9]{0,6}",
        ) {
            let mut config = Config::load(None).unwrap();
            config.http.public_url = "https://mbg.example.id:8443/".into();
            must_hold(&written, &config);
        }
    }
}
