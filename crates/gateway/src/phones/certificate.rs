//! The gateway's own TLS certificate, made at the first start and pinned by phones from the QR code.
//!
//! What must stay true:
//! - Key and certificate are one file (`lan.pem`, mode 0600), replaced whole: never one without the other.
//! - Its validity holds at any time a Pi or a phone may believe it is, 1970 included.
//! - It stays the same for ever: a new one makes every phone pair again.

use super::hex;
use crate::durable;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, PublicKeyData,
    date_time_ymd,
};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const FILE: &str = "lan.pem";
/// The name by which a client that checks names may call any gateway.
const NAME: &str = "lumbung-gateway.local";

#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("{path}: {error}")]
    File { path: PathBuf, error: io::Error },
    #[error("the certificate for the local network cannot be made: {0}")]
    Made(String),
}

/// What the gateway shows phones, and what they pin.
#[derive(Debug)]
pub struct Certificate {
    tls: ServerConfig,
    /// SHA-256 of the certificate, 64 hexadecimal digits.
    pub fingerprint: String,
    /// SHA-256 of the public key as curl and OkHttp pin it: `sha256/…`.
    pub pin: String,
}

impl Certificate {
    /// The certificate of a data directory; makes it where there is none. Writes a file.
    pub fn in_dir(dir: &Path) -> Result<Self, CertificateError> {
        let path = dir.join(FILE);
        let file = |error| CertificateError::File { path: path.clone(), error };
        match std::fs::read(&path) {
            Ok(pem) => match Self::from_pem(&pem) {
                Ok(certificate) => return Ok(certificate),
                Err(error) => {
                    // Scans matter more than pins: go on with a new one and say so.
                    tracing::error!(%error, file = FILE, "the certificate is damaged: pair the phones again");
                    std::fs::rename(&path, dir.join(format!("{FILE}.damaged"))).map_err(file)?;
                }
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(file(error)),
        }
        let pem = made().map_err(|error| CertificateError::Made(error.to_string()))?;
        durable::replace(dir, FILE, pem.as_bytes()).map_err(file)?;
        Self::from_pem(pem.as_bytes())
    }

    fn from_pem(pem: &[u8]) -> Result<Self, CertificateError> {
        let wrong = |what: &str| CertificateError::Made(format!("{FILE}: {what}"));
        let key = PrivateKeyDer::from_pem_slice(pem).map_err(|_| wrong("no key"))?;
        let certificate = CertificateDer::from_pem_slice(pem).map_err(|_| wrong("no certificate"))?;
        let pair = KeyPair::try_from(&key).map_err(|_| wrong("another kind of key"))?;
        let public = pair.subject_public_key_info();
        let fingerprint = hex(&Sha256::digest(&certificate));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map(|config| config.with_no_client_auth())
            .and_then(|config| config.with_single_cert(vec![certificate], key))
            .map_err(|error| wrong(&error.to_string()))?;
        let pin = format!("sha256/{}", STANDARD.encode(Sha256::digest(public)));
        Ok(Self { tls, fingerprint, pin })
    }

    /// What a TLS server needs.
    pub fn tls(&self) -> ServerConfig {
        self.tls.clone()
    }

    /// The fingerprint as it is read aloud: `AB:CD:…`.
    pub fn spoken(&self) -> String {
        let pairs: Vec<String> = self
            .fingerprint
            .as_bytes()
            .chunks(2)
            .map(|pair| String::from_utf8_lossy(pair).to_uppercase())
            .collect();
        pairs.join(":")
    }
}

fn made() -> Result<String, rcgen::Error> {
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let names = [NAME, "localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let mut params = CertificateParams::new(names)?;
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, "Lumbung gateway");
    params.distinguished_name = subject;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.not_before = date_time_ymd(1970, 1, 1);
    // RFC 5280's "no well-defined end".
    params.not_after = date_time_ymd(9999, 12, 31);
    let certificate = params.self_signed(&key)?;
    Ok(format!("{}{}", key.serialize_pem(), certificate.pem()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_certificate_is_made_once_and_is_its_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let first = Certificate::in_dir(dir.path()).unwrap();
        let mode = std::fs::metadata(dir.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let again = Certificate::in_dir(dir.path()).unwrap();
        assert_eq!((&again.fingerprint, &again.pin), (&first.fingerprint, &first.pin));
        assert_eq!(first.fingerprint.len(), 64);
        assert_eq!(first.spoken().len(), 95);
    }

    #[test]
    fn a_damaged_certificate_is_put_aside_and_another_one_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let first = Certificate::in_dir(dir.path()).unwrap();
        let path = dir.path().join(FILE);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, &text[..text.len() / 3]).unwrap();
        let second = Certificate::in_dir(dir.path()).unwrap();
        assert_ne!(first.fingerprint, second.fingerprint);
        assert!(dir.path().join("lan.pem.damaged").exists());
    }
}
