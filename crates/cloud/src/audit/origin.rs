//! Where a request came from, as much of it as may be kept.

use super::redact;
use crate::guards::{RequestId, client_address};
use actix_web::HttpRequest;
use actix_web::http::header;
use std::net::IpAddr;

/// The request behind an entry; empty for what nobody asked over the network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    pub request_id: Option<String>,
    /// A /24 or a /48: enough to see a pattern, too little to find a person.
    pub address: Option<String>,
    pub user_agent: Option<String>,
}

impl Origin {
    pub fn of(request: &HttpRequest) -> Self {
        let agent = request.headers().get(header::USER_AGENT).and_then(|agent| agent.to_str().ok());
        Self {
            request_id: RequestId::of(request).map(|id| id.as_str().to_owned()),
            address: Some(cut(client_address(request))),
            user_agent: agent.map(|agent| redact::text(agent).chars().take(128).collect()),
        }
    }
}

fn cut(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(v4) => format!("{}/24", std::net::Ipv4Addr::from_bits(v4.to_bits() & !0xff)),
        IpAddr::V6(v6) => {
            format!("{}/48", std::net::Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 80)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::test::TestRequest;

    #[test]
    fn an_address_is_cut_before_it_is_kept() {
        for (whole, kept) in [
            ("203.0.113.77", "203.0.113.0/24"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1::/48"),
            ("::ffff:203.0.113.77", "203.0.113.0/24"),
        ] {
            assert_eq!(cut(whole.parse().unwrap()), kept);
        }
    }

    #[test]
    fn an_origin_is_the_requests_id_and_program() {
        let request = TestRequest::default()
            .insert_header((header::USER_AGENT, "x".repeat(500)))
            .insert_header(("x-request-id", "cerita-1"))
            .peer_addr("203.0.113.77:1".parse().unwrap())
            .to_srv_request();
        RequestId::give(&request);
        let origin = Origin::of(request.request());
        assert_eq!(origin.request_id.as_deref(), Some("cerita-1"));
        assert_eq!(origin.address.as_deref(), Some("203.0.113.0/24"));
        assert_eq!(origin.user_agent.map(|agent| agent.len()), Some(128));
    }
}
