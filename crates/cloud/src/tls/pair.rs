//! A certificate and its key, read from two files.

use crate::config;
use chrono::{DateTime, Utc};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, Error, InconsistentKeys, RootCertStore};
use sha2::{Digest, Sha256};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The year 10000, after every end that a certificate can name.
const FAR: u64 = 253_402_300_800;

pub(super) struct Pair {
    pub(super) key: Arc<CertifiedKey>,
    pub(super) not_after: Option<DateTime<Utc>>,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum PairError {
    #[error("{}: {error}; name readable files in http.tls.certificate and http.tls.key", path.display())]
    File { path: PathBuf, error: io::Error },
    #[error("{}: no certificate in it; http.tls.certificate wants the whole chain as PEM", .0.display())]
    NoCertificate(PathBuf),
    #[error("{}: no private key in it; http.tls.key wants one as PEM, without a password", .0.display())]
    NoKey(PathBuf),
    #[error("{} is not the key of {}; put both from one renewal there", key.display(), certificate.display())]
    Mismatch { certificate: PathBuf, key: PathBuf },
    #[error("{} cannot be used: {error}", certificate.display())]
    Unusable { certificate: PathBuf, error: Error },
}

/// What a look at the files came to.
pub(super) struct Read {
    /// The same for the same content.
    pub(super) tried: String,
    pub(super) pair: Result<Pair, PairError>,
}

/// Reads both files. Not for async threads.
pub(super) fn read(files: &config::Tls) -> Read {
    let bytes =
        |path: &Path| std::fs::read(path).map_err(|error| PairError::File { path: path.to_owned(), error });
    match bytes(&files.certificate).and_then(|certificate| Ok((certificate, bytes(&files.key)?))) {
        Ok((certificate, key)) => {
            let content = Sha256::new().chain_update(&certificate).chain_update(&key).finalize();
            Read { tried: format!("{content:?}"), pair: pair(files, &certificate, &key) }
        }
        Err(error) => Read { tried: error.to_string(), pair: Err(error) },
    }
}

fn pair(files: &config::Tls, certificate: &[u8], key: &[u8]) -> Result<Pair, PairError> {
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(certificate)
        .collect::<Result<_, _>>()
        .ok()
        .filter(|chain: &Vec<_>| !chain.is_empty())
        .ok_or_else(|| PairError::NoCertificate(files.certificate.clone()))?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| PairError::NoKey(files.key.clone()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let not_after = end(&chain[0], &provider);
    let key = CertifiedKey::from_der(chain, key, &provider).map_err(|error| match error {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            PairError::Mismatch { certificate: files.certificate.clone(), key: files.key.clone() }
        }
        error => PairError::Unusable { certificate: files.certificate.clone(), error },
    })?;
    Ok(Pair { key: Arc::new(key), not_after })
}

/// Until when a certificate is good, found by asking a judge about a far year: what it refuses first is the end,
/// whoever signed it and for whichever name. No certificate needs to be taken apart here.
fn end(certificate: &CertificateDer<'_>, provider: &Arc<CryptoProvider>) -> Option<DateTime<Utc>> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().cloned());
    let judge =
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider)).build().ok()?;
    let far = UnixTime::since_unix_epoch(Duration::from_secs(FAR));
    let name = ServerName::try_from("localhost").ok()?;
    match judge.verify_server_cert(certificate, &[], &name, &[], far) {
        Err(Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. })) => {
            DateTime::from_timestamp(i64::try_from(not_after.as_secs()).ok()?, 0)
        }
        _ => None,
    }
}
