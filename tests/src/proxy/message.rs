//! HTTP/1.1 messages as bytes: enough framing to pass one on whole, cut it short or send it twice.

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Far above anything a story sends on purpose through the proxy.
const MOST_BYTES: usize = 64 << 20;

/// One request or answer, head and body, exactly as it came.
#[derive(Debug, Clone)]
pub struct Message {
    pub bytes: Vec<u8>,
    head: usize,
}

impl Message {
    /// `POST /path HTTP/1.1` or `HTTP/1.1 200 OK`.
    pub fn first_line(&self) -> String {
        let line = self.bytes.split(|&b| b == b'\r').next().unwrap_or_default();
        String::from_utf8_lossy(line).into_owned()
    }

    pub fn body(&self) -> &[u8] {
        self.bytes.get(self.head..).unwrap_or_default()
    }

    pub fn header(&self, name: &str) -> Option<String> {
        let head = String::from_utf8_lossy(self.bytes.get(..self.head)?).into_owned();
        head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        })
    }

    /// Where the head ends and the body begins.
    pub fn head_len(&self) -> usize {
        self.head
    }
}

/// Reads one message. `None` when the peer closed before a first byte; `answer` says that a message
/// without a stated length lasts until the connection closes.
pub(super) async fn read<R: AsyncRead + Unpin>(
    from: &mut R,
    kept: &mut Vec<u8>,
    answer: bool,
) -> Result<Option<Message>> {
    let head = loop {
        if let Some(at) = find(kept, b"\r\n\r\n") {
            break at + 4;
        }
        if !more(from, kept).await? {
            if kept.is_empty() {
                return Ok(None);
            }
            bail!("the connection ended inside a head");
        }
    };
    let mut message = Message { bytes: kept.clone(), head };
    let chunked = message
        .header("transfer-encoding")
        .is_some_and(|value| value.to_ascii_lowercase().contains("chunked"));
    let end = if chunked {
        read_chunks(from, kept, head).await?
    } else if let Some(length) = message.header("content-length") {
        let end = head + length.parse::<usize>().context("content-length")?;
        while kept.len() < end {
            if !more(from, kept).await? {
                bail!("the connection ended inside a body");
            }
        }
        end
    } else if answer && !message.first_line().contains(" 204") {
        while more(from, kept).await? {}
        kept.len()
    } else {
        head
    };
    let rest = kept.split_off(end);
    message.bytes = std::mem::replace(kept, rest);
    Ok(Some(message))
}

/// Reads chunks until the last one; where the message ends.
async fn read_chunks<R: AsyncRead + Unpin>(from: &mut R, kept: &mut Vec<u8>, head: usize) -> Result<usize> {
    let mut at = head;
    loop {
        let line_end = loop {
            if let Some(found) = find(kept.get(at..).unwrap_or_default(), b"\r\n") {
                break at + found;
            }
            if !more(from, kept).await? {
                bail!("the connection ended inside a chunk");
            }
        };
        let size = String::from_utf8_lossy(kept.get(at..line_end).unwrap_or_default()).into_owned();
        let size = size.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(size, 16).context("chunk size")?;
        let end = line_end + 2 + size + 2;
        while kept.len() < end {
            if !more(from, kept).await? {
                bail!("the connection ended inside a chunk");
            }
        }
        at = end;
        if size == 0 {
            return Ok(end);
        }
    }
}

async fn more<R: AsyncRead + Unpin>(from: &mut R, kept: &mut Vec<u8>) -> Result<bool> {
    if kept.len() > MOST_BYTES {
        bail!("a message larger than the proxy carries");
    }
    Ok(from.read_buf(kept).await? > 0)
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read_all(mut bytes: &[u8], answer: bool) -> Message {
        read(&mut bytes, &mut Vec::new(), answer).await.unwrap().unwrap()
    }

    #[tokio::test]
    async fn a_message_ends_where_its_length_says() {
        let two = b"POST /a HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcPOST /b HTTP/1.1\r\n\r\n";
        let mut from: &[u8] = two;
        let mut kept = Vec::new();
        let first = read(&mut from, &mut kept, false).await.unwrap().unwrap();
        assert_eq!(first.body(), b"abc");
        let second = read(&mut from, &mut kept, false).await.unwrap().unwrap();
        assert_eq!(second.first_line(), "POST /b HTTP/1.1");
        assert!(read(&mut from, &mut kept, false).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_chunked_message_is_kept_whole() {
        let bytes = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
        assert_eq!(read_all(bytes, true).await.bytes, bytes);
    }
}
