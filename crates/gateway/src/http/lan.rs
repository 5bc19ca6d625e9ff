//! The server for phones: TLS with the gateway's own certificate, threads and places of its own, so that nothing
//! on the local network can keep the loopback server or the reader waiting.

use super::gate::MOST;
use super::guard::{self, Door};
use super::{Api, HEAD_TIMEOUT, KEEP_ALIVE, SHUTDOWN_SECONDS, not_found, routes};
use crate::phones::{Certificate, CertificateError};
use actix_http::{HttpService, KeepAlive, TlsAcceptorConfig};
use actix_server::Server;
use actix_service::{Service, apply_fn_factory, map_config};
use actix_web::App;
use actix_web::dev::AppConfig;
use actix_web::middleware::from_fn;
use actix_web::web::{self, Data};
use rustls::ServerConfig;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;
use tokio::net::TcpStream;

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(3);

/// The gateway on the local network, as a phone is told of it.
#[derive(Debug, Clone)]
pub struct Lan {
    pub listen: SocketAddr,
    /// SHA-256 of the certificate.
    pub fingerprint: String,
    /// The same for reading aloud.
    pub spoken: String,
    /// SHA-256 of the public key.
    pub pin: String,
}

impl Lan {
    /// Where phones may reach this gateway: private IPv4 addresses first, at most three.
    pub(super) fn addresses(&self) -> Vec<IpAddr> {
        if !self.listen.ip().is_unspecified() {
            return vec![self.listen.ip()];
        }
        let interfaces = nix::ifaddrs::getifaddrs().into_iter().flatten();
        let mut found: Vec<IpAddr> = interfaces
            .filter_map(|interface| {
                let address = interface.address?;
                let v4 = address.as_sockaddr_in().map(|v4| IpAddr::from(v4.ip()));
                v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::from(v6.ip())))
            })
            .filter(|ip| match ip {
                IpAddr::V4(ip) => !ip.is_loopback() && !ip.is_link_local(),
                // A link-local address needs the name of the phone's own interface.
                IpAddr::V6(ip) => self.listen.is_ipv6() && !ip.is_loopback() && !ip.is_unicast_link_local(),
            })
            .collect();
        found.sort_by_key(|ip| match ip {
            IpAddr::V4(ip) => u8::from(!ip.is_private()),
            IpAddr::V6(_) => 2,
        });
        found.dedup();
        found.truncate(3);
        found
    }
}

/// The address that is bound for phones, and the certificate they know this gateway by.
#[derive(Debug)]
pub struct PhoneDoor {
    listener: TcpListener,
    listen: SocketAddr,
    certificate: Certificate,
}

impl PhoneDoor {
    /// Takes the certificate from the data directory, or makes it. Writes a file: not for async threads.
    pub fn new(listener: TcpListener, dir: &Path) -> Result<Self, CertificateError> {
        let certificate = Certificate::in_dir(dir)?;
        // What a bound socket cannot say, the configured address would not say better.
        let listen = listener.local_addr().unwrap_or(SocketAddr::from(([0, 0, 0, 0], 0)));
        Ok(Self { listener, listen, certificate })
    }

    pub fn lan(&self) -> Lan {
        let certificate = &self.certificate;
        Lan {
            listen: self.listen,
            fingerprint: certificate.fingerprint.clone(),
            spoken: certificate.spoken(),
            pin: certificate.pin.clone(),
        }
    }

    /// The server. It stops when its handle says so.
    pub fn serve(self, api: Data<Api>) -> std::io::Result<Server> {
        serve(api, self.listener, &self.certificate.tls())
    }
}

fn serve(api: Data<Api>, listener: TcpListener, tls: &ServerConfig) -> std::io::Result<Server> {
    listener.set_nonblocking(true)?;
    let server = Server::build()
        .workers(1)
        .worker_max_blocking_threads(1)
        .max_concurrent_connections(MOST)
        .backlog(256)
        .shutdown_timeout(SHUTDOWN_SECONDS)
        .disable_signals()
        .listen("phones", listener, {
            let tls = tls.clone();
            move || {
                let api = Data::clone(&api);
                let gate = api.gate.clone();
                let app = App::new()
                    .app_data(api)
                    .app_data(Data::new(Door::Tls))
                    .wrap(from_fn(guard::guard))
                    .configure(routes)
                    .default_service(web::to(not_found));
                let http = HttpService::build()
                    .keep_alive(KeepAlive::Timeout(KEEP_ALIVE))
                    .client_request_timeout(HEAD_TIMEOUT)
                    .client_disconnect_timeout(Duration::from_secs(1))
                    .tcp_nodelay(true)
                    .finish(map_config(app, |_| AppConfig::default()))
                    .rustls_0_23_with_config(
                        tls.clone(),
                        TlsAcceptorConfig::default().handshake_timeout(HANDSHAKE_TIMEOUT),
                    );
                apply_fn_factory(http, move |stream: TcpStream, http| {
                    let place = stream.peer_addr().ok().and_then(|peer| gate.enter(peer.ip()));
                    let talk = place.map(|place| (http.call(stream), place));
                    async move {
                        let Some((talk, place)) = talk else { return Ok(()) };
                        tokio::select! {
                            done = talk => done,
                            () = place.ended() => Ok(()),
                        }
                    }
                })
            }
        })?;
    Ok(server.run())
}
