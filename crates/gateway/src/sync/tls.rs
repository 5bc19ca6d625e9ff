//! Whom the gateway believes to be the cloud, on a machine that may not know what day it is.
//!
//! What must stay true:
//! - Authority, name and signature are verified always, and the certificate's dates whenever ntp or the cloud
//!   stands behind this gateway's time.
//! - While nothing does, the dates are held against the present as far as it is known: the chain must have been
//!   valid as a whole at one moment that is not before what is proven. A certificate that ended before that
//!   is refused, whatever the clock says. docs/decisions/20261121-certificates-without-a-clock.md weighs it.
//! - A time that the cloud tells is proven only inside the validity of the chain that it came by.

use super::client::ClientError;
use crate::clock::{Clock, TrustedTime};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// More certificates than any chain has, two dates each.
const MOST_TRIES: usize = 16;

/// A TLS client that trusts Mozilla's authorities and those of `ca_file` (PEM; empty: none), and the chain of
/// the cloud that it met last.
pub(super) fn client_config(
    ca_file: &str,
    clock: &Arc<Clock>,
) -> Result<(ClientConfig, Arc<Verifier>), ClientError> {
    let made = |error: &dyn std::error::Error| ClientError::Client(super::client::chain(error));
    let mut roots = RootCertStore::empty();
    for root in webpki_root_certs::TLS_SERVER_ROOT_CERTS {
        roots.add(root.clone()).map_err(|error| made(&error))?;
    }
    if !ca_file.is_empty() {
        add_own(&mut roots, Path::new(ca_file))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let strict = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .build()
        .map_err(|error| made(&error))?;
    let verifier = Arc::new(Verifier { strict, clock: Arc::clone(clock), met: Mutex::default() });
    let times = Arc::new(Times(Arc::clone(clock)));
    let mut config = ClientConfig::builder_with_details(provider, times)
        .with_safe_default_protocol_versions()
        .map_err(|error| made(&error))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&verifier) as Arc<dyn ServerCertVerifier>)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok((config, verifier))
}

fn add_own(roots: &mut RootCertStore, path: &Path) -> Result<(), ClientError> {
    let problem = |problem: String| ClientError::CaFile { path: path.display().to_string(), problem };
    let pem = std::fs::read(path).map_err(|error| problem(error.to_string()))?;
    let mut found = 0;
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| problem(error.to_string()))?;
        roots.add(certificate).map_err(|error| problem(error.to_string()))?;
        found += 1;
    }
    if found == 0 {
        return Err(problem("holds no certificate".to_owned()));
    }
    Ok(())
}

/// The gateway's own idea of now, instead of the system clock's.
#[derive(Debug)]
struct Times(Arc<Clock>);

impl TimeProvider for Times {
    fn current_time(&self) -> Option<UnixTime> {
        Some(unix(self.0.trusted_time().now_ms))
    }
}

/// Verifies as rustls does, but at a moment that this gateway can stand by.
#[derive(Debug)]
pub(super) struct Verifier {
    strict: Arc<WebPkiServerVerifier>,
    clock: Arc<Clock>,
    met: Mutex<Option<Met>>,
}

/// The chain that was accepted last, and by which name.
#[derive(Debug)]
struct Met {
    end_entity: CertificateDer<'static>,
    intermediates: Vec<CertificateDer<'static>>,
    name: ServerName<'static>,
}

impl Verifier {
    /// Whether the chain that was accepted last is valid at this time.
    pub(super) fn holds_at(&self, wall_ms: i64) -> bool {
        let met = self.met.lock().unwrap_or_else(PoisonError::into_inner);
        met.as_ref().is_some_and(|met| {
            self.strict
                .verify_server_cert(&met.end_entity, &met.intermediates, &met.name, &[], unix(wall_ms))
                .is_ok()
        })
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let time = self.clock.trusted_time();
        let verified = verified_at_some_time(time, |at_ms| {
            self.strict.verify_server_cert(end_entity, intermediates, name, ocsp, unix(at_ms))
        })?;
        let met = Met {
            end_entity: end_entity.clone().into_owned(),
            intermediates: intermediates.iter().map(|one| one.clone().into_owned()).collect(),
            name: name.to_owned(),
        };
        *self.met.lock().unwrap_or_else(PoisonError::into_inner) = Some(met);
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.strict.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.strict.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.strict.supported_verify_schemes()
    }
}

/// Verifies now and, where nobody confirmed what now is, at the nearest moment that the dates allow: each
/// refusal for a date narrows what is left.
fn verified_at_some_time<T>(time: TrustedTime, verify: impl Fn(i64) -> Result<T, Error>) -> Result<T, Error> {
    let first = match verify(time.now_ms) {
        Err(error) if !time.confirmed => error,
        settled => return settled,
    };
    let (mut earliest, mut latest) = (time.earliest_ms, time.latest_ms);
    let mut refusal = first.clone();
    for _ in 0..MOST_TRIES {
        let at_ms = match &refusal {
            Error::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. }) => {
                earliest = earliest.max(ms(*not_before));
                earliest
            }
            Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. }) => {
                latest = latest.min(ms(*not_after));
                latest
            }
            // Nothing that another day would change.
            _ => return Err(refusal),
        };
        if earliest > latest {
            break;
        }
        match verify(at_ms) {
            Ok(verified) => return Ok(verified),
            Err(error) => refusal = error,
        }
    }
    Err(first)
}

fn unix(ms: i64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_millis(ms.max(0).unsigned_abs()))
}

fn ms(time: UnixTime) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX).saturating_mul(1_000)
}

#[cfg(test)]
#[path = "tls_tests.rs"]
mod met;

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400_000;

    fn time(now: i64, earliest: i64, confirmed: bool) -> TrustedTime {
        TrustedTime {
            now_ms: now * DAY,
            earliest_ms: earliest * DAY,
            latest_ms: (earliest + 3_650) * DAY,
            confirmed,
        }
    }

    /// Days of validity of the certificates of a chain, judged as webpki does: the first that is wrong speaks.
    fn judged(time: TrustedTime, chain: &[(i64, i64)]) -> Result<i64, String> {
        let verify = |at_ms: i64| {
            for (not_before, not_after) in chain {
                let (time, not_before, not_after) =
                    (unix(at_ms), unix(not_before * DAY), unix(not_after * DAY));
                if time < not_before {
                    return Err(CertificateError::NotValidYetContext { time, not_before }.into());
                }
                if time > not_after {
                    return Err(CertificateError::ExpiredContext { time, not_after }.into());
                }
            }
            Ok(at_ms / DAY)
        };
        verified_at_some_time(time, verify).map_err(|error| error.to_string())
    }

    #[test]
    fn a_confirmed_clock_judges_the_dates_by_itself() {
        assert_eq!(judged(time(100, 50, true), &[(90, 110)]), Ok(100));
        assert!(judged(time(100, 50, true), &[(101, 190)]).unwrap_err().contains("not valid yet"));
        assert!(judged(time(100, 50, true), &[(10, 99)]).unwrap_err().contains("expired"));
    }

    #[test]
    fn without_a_confirmed_clock_the_chain_must_have_been_valid_at_one_time_since_the_proven_one() {
        let unsure = |now| time(now, 50, false);
        assert_eq!(judged(unsure(50), &[(20, 110)]), Ok(50));
        assert_eq!(judged(unsure(50), &[(80, 170)]), Ok(80), "issued after the floor");
        assert_eq!(judged(unsure(50), &[(80, 170), (90, 900)]), Ok(90));
        assert_eq!(judged(unsure(9_000), &[(80, 170), (10, 120)]), Ok(120), "a clock that is far ahead");
        assert!(judged(unsure(9_000), &[(10, 49)]).unwrap_err().contains("expired"));
        assert!(judged(unsure(50), &[(10, 49)]).unwrap_err().contains("expired"));
        assert!(judged(unsure(50), &[(60, 70), (80, 90)]).is_err(), "never valid together");
        assert!(judged(unsure(50), &[(80, 90), (60, 70)]).is_err(), "in either order");
        assert!(judged(unsure(50), &[(4_000, 5_000)]).unwrap_err().contains("not valid yet"));
    }

    #[test]
    fn another_day_makes_no_stranger_welcome() {
        for error in [CertificateError::UnknownIssuer, CertificateError::NotValidForName] {
            let verify = |at_ms: i64| -> Result<(), Error> {
                let (time, not_before) = (unix(at_ms), unix(80 * DAY));
                Err(if at_ms < 80 * DAY {
                    CertificateError::NotValidYetContext { time, not_before }.into()
                } else {
                    error.clone().into()
                })
            };
            let refusal = verified_at_some_time(time(50, 50, false), verify).unwrap_err();
            assert_eq!(refusal, error.into(), "and the text says what is wrong, not the date");
        }
    }
}
