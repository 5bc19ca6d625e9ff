//! Reading a batch from the network: capped in size, in expansion and in time.

use crate::config::Config;
use crate::error::{Error, Result};
use actix_web::HttpRequest;
use actix_web::http::header;
use actix_web::web::{self, Bytes, BytesMut};
use futures_util::StreamExt;
use lumbung_shared::language::Words;
use std::io::Read;

/// How a body was compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Identity,
    Gzip,
    Zstd,
}

impl Encoding {
    /// # Errors
    /// [`Error::Unsupported`] for a content type other than JSON or an encoding other than the three.
    pub(super) fn of(request: &HttpRequest) -> Result<Self> {
        let text = |name| request.headers().get(name).map(|value| value.to_str().unwrap_or("?"));
        if let Some(kind) = text(header::CONTENT_TYPE)
            && !kind.trim().to_ascii_lowercase().starts_with("application/json")
        {
            return Err(Error::wanted_type("application/json"));
        }
        match text(header::CONTENT_ENCODING).map(|e| e.trim().to_ascii_lowercase()).as_deref() {
            None | Some("" | "identity") => Ok(Self::Identity),
            Some("gzip") => Ok(Self::Gzip),
            Some("zstd") => Ok(Self::Zstd),
            Some(_) => Err(Error::Unsupported(Words::new(
                "Content-Encoding boleh zstd, gzip atau identity",
                "Content-Encoding may be zstd, gzip or identity",
            ))),
        }
    }

    /// The decompressed body.
    ///
    /// # Errors
    /// [`Error::TooLarge`] as soon as more than `limit` bytes come out, whatever went in;
    /// [`Error::Unreadable`] for a broken stream.
    pub(super) fn decode(self, sent: &[u8], limit: usize) -> Result<Vec<u8>> {
        match self {
            Self::Identity if sent.len() > limit => Err(expanded(limit)),
            Self::Identity => Ok(sent.to_vec()),
            Self::Gzip => inflate(flate2::read::MultiGzDecoder::new(sent), limit),
            Self::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(sent)
                    .map_err(|error| Error::Unexpected(error.into()))?;
                // A window larger than this would let a small body claim the memory of a large one.
                decoder.window_log_max(23).map_err(|error| Error::Unexpected(error.into()))?;
                inflate(decoder, limit)
            }
        }
    }
}

fn inflate(decoder: impl Read, limit: usize) -> Result<Vec<u8>> {
    let mut decoded = Vec::new();
    decoder
        .take(limit as u64 + 1)
        .read_to_end(&mut decoded)
        .map_err(|_| Error::unreadable("isi yang dimampatkan rusak", "the compressed body is broken"))?;
    if decoded.len() > limit {
        return Err(expanded(limit));
    }
    Ok(decoded)
}

fn expanded(limit: usize) -> Error {
    Error::TooLarge(Words::new(
        format!("paling banyak {limit} byte setelah dibuka; kirim lebih sedikit catatan sekaligus"),
        format!("at most {limit} bytes after decompression; send fewer records at once"),
    ))
}

/// The body as it was sent. One that is too large is still read to a point and thrown away, so that the
/// client hears the answer instead of a broken connection.
///
/// # Errors
/// [`Error::TooLarge`], [`Error::Timeout`], or [`Error::Unreadable`] when the client left.
pub(super) async fn read(request: &HttpRequest, payload: web::Payload, config: &Config) -> Result<Bytes> {
    let limit = config.ingest.max_body_bytes;
    let too_large = || Error::too_large(limit);
    let announced = request
        .headers()
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<u64>().ok())
        .unwrap_or(0);
    if announced > 8 * limit as u64 {
        return Err(too_large());
    }
    tokio::time::timeout(config.http.body_timeout, collect(payload, limit))
        .await
        .map_err(|_| Error::Timeout)??
        .ok_or_else(too_large)
}

/// `None` when the body is larger than `limit`.
async fn collect(mut payload: web::Payload, limit: usize) -> Result<Option<Bytes>> {
    let (mut body, mut total) = (BytesMut::new(), 0usize);
    while let Some(chunk) = payload.next().await {
        let chunk = chunk
            .map_err(|_| Error::unreadable("isinya tidak sampai utuh", "the body did not arrive whole"))?;
        total = total.saturating_add(chunk.len());
        if total > limit.saturating_mul(8) {
            break;
        }
        if total <= limit {
            body.extend_from_slice(&chunk);
        } else {
            body.clear();
        }
    }
    Ok((total <= limit).then(|| body.freeze()))
}

/// Whatever is sent comes out within the limit, or not at all.
#[cfg(any(test, fuzzing))]
pub fn must_hold(sent: &[u8], limit: usize) {
    for encoding in [Encoding::Identity, Encoding::Gzip, Encoding::Zstd] {
        match encoding.decode(sent, limit) {
            Ok(decoded) => assert!(decoded.len() <= limit),
            Err(error) => assert!(matches!(error, Error::TooLarge(_) | Error::Unreadable { .. }), "{error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn what_was_compressed_comes_out() {
        assert_eq!(Encoding::Gzip.decode(&gzip(b"[]"), 10).unwrap(), b"[]");
        assert_eq!(Encoding::Zstd.decode(&zstd::encode_all(&b"[]"[..], 3).unwrap(), 10).unwrap(), b"[]");
        assert!(matches!(Encoding::Zstd.decode(b"nonsense", 10), Err(Error::Unreadable { .. })));
    }

    #[test]
    fn a_bomb_is_put_out_at_the_limit() {
        let zeros = vec![0u8; 50_000_000];
        let bombs =
            [(Encoding::Gzip, gzip(&zeros)), (Encoding::Zstd, zstd::encode_all(&zeros[..], 19).unwrap())];
        for (encoding, bomb) in bombs {
            assert!(bomb.len() < 100_000);
            assert!(matches!(encoding.decode(&bomb, 1_000_000), Err(Error::TooLarge(_))), "{encoding:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_is_decoded_within_the_limit_or_refused(
            bytes in prop::collection::vec(any::<u8>(), 0..300),
            cut: prop::sample::Index,
            limit in 0..400_usize,
        ) {
            let zstd = zstd::encode_all(&bytes[..], 1).unwrap();
            for (encoding, whole) in [(Encoding::Gzip, gzip(&bytes)), (Encoding::Zstd, zstd)] {
                match encoding.decode(&whole, limit) {
                    Ok(decoded) => prop_assert!(decoded == bytes && decoded.len() <= limit),
                    Err(error) => prop_assert!(matches!(error, Error::TooLarge(_)) && bytes.len() > limit),
                }
                for broken in [&whole[..cut.index(whole.len())], &bytes] {
                    must_hold(broken, limit);
                }
            }
        }
    }
}
