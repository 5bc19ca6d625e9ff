//! The certificate that gateways and people are shown at the public address, judged as a gateway judges it.
//!
//! Its end is found by asking the same judge about a far year: no certificate needs to be taken apart here.

use super::settings::is_local;
use crate::finding::Finding;
use anyhow::Context;
use chrono::DateTime;
use reqwest::Url;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, Error, RootCertStore,
    SignatureScheme,
};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(5);
const DAY: u64 = 86_400;
/// Who renews by itself does so a month before; after that something is wrong.
const SOON_DAYS: u64 = 21;
/// 2200: no certificate is good for so long.
const FAR: u64 = 7_258_118_400;

/// Nothing for an address without TLS, which the settings' check speaks about.
pub(super) async fn check(public_url: &str) -> Option<Finding> {
    let url = Url::parse(public_url).ok().filter(|url| url.scheme() == "https" && !is_local(url))?;
    let judged = tokio::task::spawn_blocking(move || judge(&url));
    Some(match judged.await.map_err(anyhow::Error::from).and_then(|judged| judged) {
        Ok(finding) => finding,
        Err(error) => Finding::warn(
            "certificate",
            format!("could not be looked at: {error:#}"),
            "see that this machine resolves and reaches its own public address",
        ),
    })
}

/// What the judge said of now and of the far year.
type Said = (Result<(), Error>, Result<(), Error>);

fn judge(url: &Url) -> anyhow::Result<Finding> {
    let host = url.host_str().context("no host")?.to_owned();
    let address = (host.as_str(), url.port_or_known_default().unwrap_or(443))
        .to_socket_addrs()?
        .next()
        .with_context(|| format!("{host} has no address"))?;
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().cloned());
    let judge = WebPkiServerVerifier::builder(Arc::new(roots)).build()?;
    let witness = Arc::new(Witness { judge, said: Mutex::new(None) });
    let config = ClientConfig::builder()
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&witness) as Arc<dyn ServerCertVerifier>)
        .with_no_client_auth();
    let mut socket = TcpStream::connect_timeout(&address, PATIENCE)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    let mut connection = ClientConnection::new(Arc::new(config), ServerName::try_from(host)?)?;
    while connection.is_handshaking() {
        connection.complete_io(&mut socket)?;
    }
    let said = witness.said.lock().unwrap_or_else(PoisonError::into_inner).take();
    Ok(finding(&said.context("the server showed no certificate")?, UnixTime::now().as_secs()))
}

fn finding((now, far): &Said, seconds: u64) -> Finding {
    if let Err(error) = now {
        let advice = match error {
            Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
                "serve the whole chain of a public authority, or give gateways your own with cloud.ca_file"
            }
            _ => {
                "renew it (certbot renew), reload the proxy, and see that its name is that of http.public_url"
            }
        };
        return Finding::fail("certificate", error.to_string(), advice);
    }
    let Err(Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. })) = far else {
        return Finding::warn("certificate", "good, and its end is not told", "look at it with openssl");
    };
    let left = not_after.as_secs().saturating_sub(seconds) / DAY;
    let until = i64::try_from(not_after.as_secs()).ok().and_then(|end| DateTime::from_timestamp(end, 0));
    let found = format!("good for {left} days, until {}", until.unwrap_or_default().format("%Y-%m-%d"));
    if left < SOON_DAYS {
        let advice = "it should have been renewed by now: see certbot's timer and log";
        return Finding::warn("certificate", found, advice);
    }
    Finding::ok("certificate", found)
}

/// Lets every connection through (nothing is sent over it) and remembers the judgement.
#[derive(Debug)]
struct Witness {
    judge: Arc<WebPkiServerVerifier>,
    said: Mutex<Option<Said>>,
}

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let at = |time| {
            self.judge.verify_server_cert(end_entity, intermediates, server_name, ocsp, time).map(drop)
        };
        let said = (at(now), at(UnixTime::since_unix_epoch(Duration::from_secs(FAR))));
        *self.said.lock().unwrap_or_else(PoisonError::into_inner) = Some(said);
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.judge.verify_tls12_signature(message, cert, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.judge.verify_tls13_signature(message, cert, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.judge.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::State;

    const NOW: u64 = 1_795_000_000;

    fn until(not_after: u64) -> Said {
        let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let ended = CertificateError::ExpiredContext { time: at(FAR), not_after: at(not_after) };
        (Ok(()), Err(Error::InvalidCertificate(ended)))
    }

    #[test]
    fn a_certificate_is_a_warning_before_gateways_refuse_it() {
        let found = finding(&until(NOW + 60 * DAY), NOW);
        assert!(found.state == State::Ok && found.found.contains("60 days"), "{found:?}");
        assert_eq!(finding(&until(NOW + 20 * DAY), NOW).state, State::Warn);
        let refused = |error| (Err(Error::InvalidCertificate(error)), Ok(()));
        assert_eq!(finding(&refused(CertificateError::Expired), NOW).state, State::Fail);
        let own = finding(&refused(CertificateError::UnknownIssuer), NOW);
        assert!(own.advice.is_some_and(|advice| advice.contains("ca_file")));
    }
}
