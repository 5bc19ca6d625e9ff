//! A file of records that people carry where no network goes, from a gateway to its cloud.
//!
//! ```text
//! "LUMBUNG1" | sealed batch … | manifest (JSON) | length of the manifest, u32 little-endian | signature, 64 bytes
//! ```
//! A batch is the very body that `POST /api/sync_gateway_data` takes (zstd of JSON).
//!
//! What must stay true:
//! - The gateway's signature is over the manifest, which has the length and SHA-256 of every sealed batch, and
//!   the lengths add up to the file's: no byte can be changed, added or left out.
//! - Every batch is sealed (ChaCha20-Poly1305) under a key of this bundle alone, which the gateway and its
//!   cloud derive from what only they hold: a stick that is lost tells the finder who sent, when and how much.
//! - A reader believes nothing before the signature, and reads no more than the limits allow.

use crate::signing::{PublicKey, Purpose, Signature, Signer};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::digest::{SHA256, digest};
use ring::hkdf::{HKDF_SHA256, Salt};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::ops::Range;

const MAGIC: &[u8; 8] = b"LUMBUNG1";
const SIGNATURE_BYTES: usize = 64;
/// The format this build writes and reads.
pub const FORMAT: u16 = 1;
/// Most bytes of a bundle; a gateway that has more to send writes another one after the receipt.
pub const MAX_BYTES: usize = 128 << 20;
pub const MAX_BATCHES: usize = 10_000;
const MAX_MANIFEST_BYTES: usize = 4 << 20;

/// What a bundle says of itself, in clear and signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub format: u16,
    pub gateway_id: String,
    /// RFC 3339, the gateway's clock: for people, nothing is decided by it.
    pub created: String,
    pub signed_by: PublicKey,
    /// 32 random bytes in base64url, with which the sealing key is derived.
    pub salt: String,
    /// Records by stream.
    pub counts: BTreeMap<String, u64>,
    pub batches: Vec<Listed>,
}

/// A sealed batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    pub bytes: usize,
    /// In base64url.
    pub sha256: String,
}

/// Why a file is no bundle that can be taken.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    #[error("this is not a bundle of a Lumbung gateway")]
    NotABundle,
    #[error("the bundle is cut short or damaged: {0}; copy it again, or export again")]
    Damaged(&'static str),
    #[error("the bundle has format {0}, which this program does not know; update it")]
    Format(u16),
    #[error("the bundle is larger than {MAX_BYTES} bytes or {MAX_BATCHES} batches")]
    TooLarge,
    #[error(
        "the signature does not fit: the bundle was changed after the gateway wrote it, or never came from it"
    )]
    Signature,
    #[error("the bundle cannot be opened with any key of this gateway that the cloud knows")]
    Sealed,
}

/// SHA-256 in base64url.
fn hashed(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(digest(&SHA256, bytes))
}

/// What gateway and cloud both have of a bearer key: its SHA-256.
#[derive(Clone)]
pub struct Seal(Vec<u8>);

impl Seal {
    /// On the gateway.
    pub fn of_key(bearer: &str) -> Self {
        Self(digest(&SHA256, bearer.as_bytes()).as_ref().to_vec())
    }

    /// In the cloud, which keeps nothing else of a key.
    pub fn of_hash(sha256: Vec<u8>) -> Self {
        Self(sha256)
    }

    fn key(&self, salt: &[u8]) -> Result<LessSafeKey, BundleError> {
        let secret = Salt::new(HKDF_SHA256, salt).extract(&self.0);
        let key =
            secret.expand(&[b"lumbung bundle 1"], &CHACHA20_POLY1305).map_err(|_| BundleError::Sealed)?;
        Ok(LessSafeKey::new(UnboundKey::from(key)))
    }
}

/// The key is this bundle's alone, so the place of a batch in it is a number used once.
fn nonce(place: usize) -> Nonce {
    let mut bytes = [0u8; 12];
    bytes[4..].copy_from_slice(&(place as u64).to_be_bytes());
    Nonce::assume_unique_for_key(bytes)
}

/// Writes a bundle, batch by batch.
pub struct Writer<W> {
    to: W,
    key: LessSafeKey,
    manifest: Manifest,
    bytes: usize,
}

impl<W: Write> Writer<W> {
    /// `salt` must be random and new.
    pub fn new(
        mut to: W,
        gateway_id: &str,
        created: String,
        signed_by: PublicKey,
        seal: &Seal,
        salt: [u8; 32],
    ) -> io::Result<Self> {
        let key = seal.key(&salt).map_err(io::Error::other)?;
        to.write_all(MAGIC)?;
        let manifest = Manifest {
            format: FORMAT,
            gateway_id: gateway_id.to_owned(),
            created,
            signed_by,
            salt: URL_SAFE_NO_PAD.encode(salt),
            counts: BTreeMap::new(),
            batches: Vec::new(),
        };
        Ok(Self { to, key, manifest, bytes: MAGIC.len() })
    }

    /// Whether another batch of this many bytes still fits.
    pub fn has_room_for(&self, bytes: usize) -> bool {
        let listing = 128 * (self.manifest.batches.len() + 1) + 4_096;
        self.manifest.batches.len() < MAX_BATCHES && self.bytes + bytes + listing <= MAX_BYTES
    }

    /// Adds a batch and what it holds.
    pub fn push(
        &mut self,
        mut batch: Vec<u8>,
        counts: impl IntoIterator<Item = (String, u64)>,
    ) -> io::Result<()> {
        let sealed =
            self.key.seal_in_place_append_tag(nonce(self.manifest.batches.len()), Aad::empty(), &mut batch);
        sealed.map_err(|_| io::Error::other("the batch could not be sealed"))?;
        self.to.write_all(&batch)?;
        self.bytes += batch.len();
        self.manifest.batches.push(Listed { bytes: batch.len(), sha256: hashed(&batch) });
        for (stream, count) in counts {
            *self.manifest.counts.entry(stream).or_default() += count;
        }
        Ok(())
    }

    /// Signs and ends it.
    pub fn finish(mut self, signer: &Signer) -> io::Result<(W, Manifest)> {
        let text = serde_json::to_vec(&self.manifest)?;
        let signature = signer.sign(Purpose::Bundle, &text);
        self.to.write_all(&text)?;
        self.to.write_all(&u32::try_from(text.len()).map_err(io::Error::other)?.to_le_bytes())?;
        self.to.write_all(&signature.0)?;
        self.to.flush()?;
        Ok((self.to, self.manifest))
    }
}

/// A bundle whose signature fits the key that it names. Whose key that is, the caller must know.
#[derive(Debug)]
pub struct Bundle {
    file: Vec<u8>,
    manifest: Manifest,
    sealed: Vec<Range<usize>>,
}

impl Bundle {
    /// # Errors
    /// [`BundleError`]; nothing of a file that fails here may be used.
    pub fn read(file: Vec<u8>) -> Result<Self, BundleError> {
        const CUT: BundleError = BundleError::Damaged("its end is missing");
        if file.len() > MAX_BYTES {
            return Err(BundleError::TooLarge);
        }
        let body = file.strip_prefix(MAGIC).ok_or(BundleError::NotABundle)?;
        let (body, signature) = body.split_last_chunk::<SIGNATURE_BYTES>().ok_or(CUT)?;
        let (body, length) = body.split_last_chunk::<4>().ok_or(CUT)?;
        let length = u32::from_le_bytes(*length) as usize;
        if length > MAX_MANIFEST_BYTES || length > body.len() {
            return Err(CUT);
        }
        let (batches, text) = body.split_at(body.len() - length);
        let manifest: Manifest =
            serde_json::from_slice(text).map_err(|_| BundleError::Damaged("its list cannot be read"))?;
        if !manifest.signed_by.verifies(Purpose::Bundle, text, &Signature(*signature)) {
            return Err(BundleError::Signature);
        }
        if manifest.format != FORMAT {
            return Err(BundleError::Format(manifest.format));
        }
        if manifest.batches.len() > MAX_BATCHES {
            return Err(BundleError::TooLarge);
        }
        let (mut rest, mut at) = (batches, MAGIC.len());
        let mut sealed = Vec::with_capacity(manifest.batches.len());
        for listed in &manifest.batches {
            let (batch, behind) =
                rest.split_at_checked(listed.bytes).ok_or(BundleError::Damaged("a batch is missing"))?;
            if hashed(batch) != listed.sha256 {
                return Err(BundleError::Damaged("a batch was changed"));
            }
            sealed.push(at..at + batch.len());
            (rest, at) = (behind, at + batch.len());
        }
        if !rest.is_empty() {
            return Err(BundleError::Damaged("it holds more than its list"));
        }
        Ok(Self { file, manifest, sealed })
    }

    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Batches in it.
    pub fn len(&self) -> usize {
        self.sealed.len()
    }

    pub fn is_empty(&self) -> bool {
        self.sealed.is_empty()
    }

    /// What opens it, if one of these seals does.
    ///
    /// # Errors
    /// [`BundleError::Sealed`].
    pub fn opener(&self, seals: &[Seal]) -> Result<Opener, BundleError> {
        let salt = URL_SAFE_NO_PAD.decode(&self.manifest.salt).map_err(|_| BundleError::Sealed)?;
        let mut openers = seals.iter().filter_map(|seal| seal.key(&salt).ok().map(Opener));
        openers.find(|opener| self.is_empty() || self.batch(opener, 0).is_ok()).ok_or(BundleError::Sealed)
    }

    /// A batch by its place.
    ///
    /// # Errors
    /// [`BundleError::Sealed`] for another bundle's opener, or a place that is none.
    pub fn batch(&self, opener: &Opener, place: usize) -> Result<Vec<u8>, BundleError> {
        let sealed = self.sealed.get(place).and_then(|range| self.file.get(range.clone()));
        let mut batch = sealed.ok_or(BundleError::Sealed)?.to_vec();
        let opened = opener.0.open_in_place(nonce(place), Aad::empty(), &mut batch);
        let length = opened.map_err(|_| BundleError::Sealed)?.len();
        batch.truncate(length);
        Ok(batch)
    }

    /// What it is called in its receipt: SHA-256 of its end, in base64url.
    pub fn name(&self) -> String {
        hashed(self.file.last_chunk::<SIGNATURE_BYTES>().map_or(&[][..], |signature| &signature[..]))
    }
}

/// Opens the batches of one bundle.
pub struct Opener(LessSafeKey);

#[cfg(test)]
mod tests {
    use super::*;

    fn signer() -> Signer {
        Signer::from_seed(&[3; 32]).unwrap()
    }

    fn written(batches: &[&[u8]]) -> Vec<u8> {
        let seal = Seal::of_key("lbg_kunci");
        let created = "2026-11-21T00:00:00.000Z".to_owned();
        let mut writer =
            Writer::new(Vec::new(), "GW-1", created, signer().public_key(), &seal, [9; 32]).unwrap();
        for batch in batches {
            writer.push(batch.to_vec(), [("scan".to_owned(), 2)]).unwrap();
        }
        writer.finish(&signer()).unwrap().0
    }

    fn opened(file: &[u8], bearer: &str) -> Result<Vec<Vec<u8>>, BundleError> {
        let hash = digest(&SHA256, bearer.as_bytes()).as_ref().to_vec();
        let bundle = Bundle::read(file.to_vec())?;
        let opener = bundle.opener(&[Seal::of_key("another"), Seal::of_hash(hash)])?;
        (0..bundle.len()).map(|place| bundle.batch(&opener, place)).collect()
    }

    fn refused(file: &[u8]) -> BundleError {
        Bundle::read(file.to_vec()).unwrap_err()
    }

    #[test]
    fn what_was_put_in_comes_out_for_whoever_holds_the_hash_of_the_key() {
        let file = written(&[b"satu", b"dua"]);
        assert_eq!(opened(&file, "lbg_kunci").unwrap(), [b"satu".to_vec(), b"dua".to_vec()]);
        let bundle = Bundle::read(file).unwrap();
        let manifest = bundle.manifest();
        assert_eq!((manifest.gateway_id.as_str(), manifest.counts["scan"]), ("GW-1", 4));
        assert_eq!(opened(&written(&[]), "lbg_kunci").unwrap(), Vec::<Vec<u8>>::new());
    }

    #[test]
    fn nobody_else_can_read_it() {
        let file = written(&[b"NFC_TAG_ALPHA"]);
        assert!(!file.windows(4).any(|part| part == b"NFC_"));
        assert_eq!(opened(&file, "lbg_lain").unwrap_err(), BundleError::Sealed);
    }

    #[test]
    fn one_changed_byte_anywhere_is_refused() {
        let file = written(&[b"satu", b"dua"]);
        for at in 0..file.len() {
            for flip in [1u8, 0x80] {
                let mut changed = file.clone();
                changed[at] ^= flip;
                assert!(Bundle::read(changed).is_err(), "byte {at}");
            }
        }
    }

    #[test]
    fn a_bundle_that_is_cut_or_has_something_added_is_refused() {
        let file = written(&[b"satu", b"dua"]);
        for end in 0..file.len() {
            refused(&file[..end]);
        }
        let longer = [&file[..8], b"x", &file[8..]].concat();
        assert_eq!(refused(&longer), BundleError::Damaged("a batch was changed"));
        refused(&[&file[..], b"\n"].concat());
    }

    #[test]
    fn a_list_that_claims_absurd_sizes_is_refused() {
        let file = written(&[b"satu"]);
        let mut manifest = Bundle::read(file).unwrap().manifest;
        for bytes in [usize::MAX, 1 << 40] {
            manifest.batches[0].bytes = bytes;
            let text = serde_json::to_vec(&manifest).unwrap();
            let signature = signer().sign(Purpose::Bundle, &text);
            let length = u32::try_from(text.len()).unwrap().to_le_bytes();
            let file = [&MAGIC[..], b"satu", &text, &length, &signature.0].concat();
            assert_eq!(refused(&file), BundleError::Damaged("a batch is missing"));
        }
    }
}
