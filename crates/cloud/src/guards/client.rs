//! Whose request it is, as far as the network can tell.
//!
//! What must stay true: an address is only taken from a header that a trusted proxy wrote, so nobody can pass
//! for another by a header of their own.

use crate::config::Network;
use crate::state::State;
use actix_web::http::header::HeaderName;
use actix_web::{HttpRequest, web};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The peer, or, where that is one of `http.trusted_proxies`, the last address of X-Forwarded-For that is none of them.
pub fn client_address(request: &HttpRequest) -> IpAddr {
    // Without a peer only in a test's own requests.
    let peer = request.peer_addr().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.ip());
    let trusted = request.app_data::<web::Data<State>>().map(|state| &state.config.http.trusted_proxies[..]);
    // Several headers of that name are one list.
    let forwarded = request.headers().get_all(FORWARDED_FOR).map(|value| value.to_str().unwrap_or("?"));
    behind(peer.to_canonical(), &forwarded.collect::<Vec<_>>().join(","), trusted.unwrap_or_default())
}

/// Each proxy appends whom it heard, so the list is read from its end as long as proxies of ours are named there.
fn behind(peer: IpAddr, forwarded: &str, trusted: &[Network]) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.holds(address));
    if !is_trusted(peer) {
        return peer;
    }
    let mut nearest = peer;
    for hop in forwarded.rsplit(',').map(str::trim).filter(|hop| !hop.is_empty()) {
        let Some(address) = address(hop) else {
            return peer;
        };
        nearest = address;
        if !is_trusted(address) {
            break;
        }
    }
    nearest
}

/// Some proxies name the port too.
fn address(hop: &str) -> Option<IpAddr> {
    let bare = hop.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(hop);
    bare.parse()
        .or_else(|_| hop.parse::<SocketAddr>().map(|with_port| with_port.ip()))
        .ok()
        .map(|a| a.to_canonical())
}

/// Whatever somebody writes into the header: who connects directly is taken for nobody else, and behind our proxies
/// counts whom the first of them heard.
#[cfg(any(test, fuzzing))]
pub fn must_hold(written: &str) {
    let known = |text: &str| text.parse().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let (stranger, proxy) = (known("192.0.2.7"), known("10.1.0.1"));
    let trusted: Vec<Network> = "10.1.0.0/16".parse().into_iter().collect();
    assert_eq!(behind(stranger, written, &trusted), stranger);
    for heard in ["192.0.2.7", "192.0.2.7:4711, 10.1.2.3", "::ffff:192.0.2.7,10.1.2.3:80"] {
        assert_eq!(behind(proxy, &format!("{written},{heard}"), &trusted), stranger, "{heard}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn seen(peer: &str, forwarded: &str) -> String {
        let trusted = ["127.0.0.0/8", "10.1.0.0/16", "2001:db8::/48"].map(|text| text.parse().unwrap());
        behind(peer.parse().unwrap(), forwarded, &trusted).to_string()
    }

    #[test]
    fn a_stranger_is_who_connects_whatever_it_says_of_itself() {
        for forwarded in ["", "192.0.2.7", "127.0.0.1", "192.0.2.7, 127.0.0.1"] {
            assert_eq!(seen("198.51.100.1", forwarded), "198.51.100.1", "{forwarded}");
        }
    }

    #[test]
    fn behind_our_proxies_it_is_the_last_one_that_is_none_of_them() {
        for (forwarded, client) in [
            ("192.0.2.7", "192.0.2.7"),
            // What the client wrote itself stands before what our proxies wrote.
            ("203.0.113.9, 192.0.2.7", "192.0.2.7"),
            ("203.0.113.9, 192.0.2.7, 10.1.2.3", "192.0.2.7"),
            ("not an address, 192.0.2.7,10.1.2.3 , 2001:db8::1", "192.0.2.7"),
            ("192.0.2.7:4711, [2001:db8::1]:443", "192.0.2.7"),
            ("[2001:db9::1]", "2001:db9::1"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            // The proxy's own machine asks.
            ("10.1.2.3", "10.1.2.3"),
            ("", "127.0.0.1"),
        ] {
            assert_eq!(seen("127.0.0.1", forwarded), client, "{forwarded}");
        }
    }

    #[test]
    fn a_list_that_cannot_be_read_names_nobody() {
        for forwarded in ["192.0.2.7, ?", "unknown", "192.0.2.7, 10.1.2.3, x", "10.1.2.300"] {
            assert_eq!(seen("10.1.0.1", forwarded), "10.1.0.1", "{forwarded}");
        }
    }

    #[test]
    fn a_proxy_is_known_in_either_form_of_its_address() {
        let peer: IpAddr = "::ffff:127.0.0.1".parse().unwrap();
        assert_eq!(
            behind(peer.to_canonical(), "192.0.2.7", &["127.0.0.1".parse().unwrap()]).to_string(),
            "192.0.2.7"
        );
    }

    proptest! {
        #[test]
        fn nobody_passes_for_another_by_a_header_of_their_own(
            written in "\\PC{0,60}|((10\\.1|192\\.0)\\.[0-9]{1,3}\\.[0-9]{1,3}(:[0-9]{1,5})?[, ]{0,2}|[0-9a-f:\\[\\], ]{0,20}){0,4}",
        ) {
            must_hold(&written);
        }
    }
}
