//! Asking servers that other people named: never one of our own network.
//!
//! What must stay true:
//! - https only, and only addresses that the whole internet can reach. Names are judged by what they resolve to at
//!   the moment of connecting, so that a name cannot be bent afterwards; redirects are not followed.
//! - In development, and only then, this machine itself may be asked too, without TLS.

use super::Undelivered;
use lumbung_shared::language::Words;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Certificate, Client, Url, redirect};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

/// How long somebody's server may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// An address's characters at most.
const LONGEST: usize = 2048;

/// A client that keeps to the rules above.
pub(super) struct Web {
    client: Client,
    development: bool,
}

impl Web {
    pub(super) fn new(development: bool) -> anyhow::Result<Self> {
        let client = Client::builder()
            .dns_resolver(Public { development })
            .redirect(redirect::Policy::none())
            .no_proxy()
            .timeout(PATIENCE)
            .tls_certs_only(roots()?)
            .build()?;
        Ok(Self { client, development })
    }

    /// An address that may be asked; else what is wrong with it.
    pub(super) fn check(&self, address: &str) -> Result<Url, Words> {
        let wrong = || {
            Words::new(
                "harus alamat https yang dapat dijangkau dari internet",
                "must be an https address that the internet can reach",
            )
        };
        let url = Url::parse(address).map_err(|_| wrong())?;
        let host = url.host_str().unwrap_or_default();
        let literal = host.trim_matches(['[', ']']).parse::<IpAddr>().ok();
        let here = host == "localhost" || literal.is_some_and(|ip| ip.is_loopback());
        let good = address.len() <= LONGEST
            && !host.is_empty()
            && url.username().is_empty()
            && url.password().is_none()
            && match url.scheme() {
                "https" => literal.is_none_or(is_public) && !here || here && self.development,
                "http" => here && self.development,
                _ => false,
            };
        good.then_some(url).ok_or_else(wrong)
    }

    /// Sends one request that is never redirected; its status.
    pub(super) async fn send(&self, request: reqwest::Request) -> Result<u16, Undelivered> {
        self.check(request.url().as_str()).map_err(|wrong| Undelivered::Never(wrong.to_string()))?;
        let answer = self.client.execute(request).await;
        // Its own words would repeat the address.
        let answer = answer.map_err(|error| {
            let what = if error.is_timeout() { "no answer in time" } else { "cannot be reached" };
            Undelivered::Later(what.into())
        })?;
        Ok(answer.status().as_u16())
    }
}

/// The public authorities.
pub(super) fn roots() -> reqwest::Result<Vec<Certificate>> {
    webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().map(|der| Certificate::from_der(der)).collect()
}

/// Names resolve to public addresses or not at all.
struct Public {
    development: bool,
}

impl Resolve for Public {
    fn resolve(&self, name: Name) -> Resolving {
        let development = self.development;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let good: Vec<SocketAddr> =
                found.filter(|at| is_public(at.ip()) || development && at.ip().is_loopback()).collect();
            if good.is_empty() {
                return Err("the name leads nowhere that the internet can reach".into());
            }
            Ok(Box::new(good.into_iter()) as Addrs)
        })
    }
}

/// Whether the whole internet can reach it.
fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => is_public_v6(ip),
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    !(ip.is_private()
        || ip.is_loopback()
        || ip.is_link_local()
        || ip.is_documentation()
        || ip.is_multicast()
        || a == 0
        || a >= 240
        // Shared by providers, for protocols, for benchmarks.
        || (a == 100 && (64..128).contains(&b))
        || (a, b, c) == (192, 0, 0)
        || (a == 198 && (b == 18 || b == 19)))
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    let parts = ip.segments();
    let embedded = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match parts {
        // IPv4 in other clothes.
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => embedded(high, low),
        [0x2002, high, low, ..] => embedded(high, low),
        [0x2001, 0xdb8, ..] => false,
        // Everything that is given out lies in 2000::/3; Teredo hides an IPv4 address.
        [0x2001, 0, ..] => false,
        [first, ..] => (0x2000..0x4000).contains(&first),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_network_is_never_asked_whatever_it_is_called() {
        for ip in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "198.18.0.1",
            "::1",
            "::",
            "fe80::1",
            "fd00::1",
            "ff02::1",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "2002:a00:1::",
            "2001:db8::1",
            "2001::1",
        ] {
            assert!(!is_public(ip.parse().unwrap()), "{ip}");
        }
        for ip in ["8.8.8.8", "103.10.1.1", "2404:6800:4003::1", "::ffff:8.8.8.8"] {
            assert!(is_public(ip.parse().unwrap()), "{ip}");
        }
    }

    #[test]
    fn an_address_must_be_https_and_far_away() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (strict, here) = (Web::new(false).unwrap(), Web::new(true).unwrap());
        for good in ["https://push.example.com/x", "https://8.8.8.8/", "https://push.example.com:8443/"] {
            assert!(strict.check(good).is_ok() && here.check(good).is_ok(), "{good}");
        }
        for bad in [
            "http://push.example.com/",
            "https://10.0.0.1/",
            "https://[fd00::1]/",
            "https://a:b@push.example.com/",
            "file:///etc/passwd",
            "https://0x7f.1/",
            "https://2130706433/",
            "push.example.com",
            "",
        ] {
            assert!(strict.check(bad).is_err(), "{bad}");
        }
        for near in ["http://127.0.0.1:1234/", "http://localhost/", "https://localhost/", "http://[::1]/"] {
            assert!(strict.check(near).is_err() && here.check(near).is_ok(), "{near}");
        }
    }

    #[tokio::test]
    async fn a_redirect_is_an_answer_and_not_followed() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let _ = rustls::crypto::ring::default_provider().install_default();
        let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let here = format!("http://{}", server.local_addr().unwrap());
        let elsewhere = format!("{here}/inside");
        let serving = tokio::spawn(async move {
            let (mut stream, _) = server.accept().await.unwrap();
            let _ = stream.read(&mut [0; 4096]).await.unwrap();
            let answer = format!(
                "HTTP/1.1 307 Temporary Redirect\r\nlocation: {elsewhere}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
            );
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        let request = reqwest::Request::new(reqwest::Method::POST, here.parse().unwrap());
        assert_eq!(Web::new(true).unwrap().send(request).await, Ok(307));
        serving.await.unwrap();
    }

    #[tokio::test]
    async fn a_name_that_leads_home_leads_nowhere() {
        let name = || "localhost".parse::<Name>().unwrap();
        assert!(Public { development: false }.resolve(name()).await.is_err());
        assert!(Public { development: true }.resolve(name()).await.is_ok());
    }
}
