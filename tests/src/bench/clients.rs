//! Clients that cost as little as possible: kept-alive connections and bytes made beforehand.

use anyhow::{Context, Result, ensure};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// One kept-alive connection.
pub(super) struct Client {
    stream: TcpStream,
    request: Vec<u8>,
    answer: Vec<u8>,
}

impl Client {
    pub(super) async fn connect(address: &str) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, request: Vec::new(), answer: Vec::with_capacity(4096) })
    }

    /// Posts a scan and waits for its 201.
    pub(super) async fn tap(&mut self, tag: &str) -> Result<()> {
        let body = format!(r#"{{"nfc_tag_id":"{tag}","status_scan":"makanan_keluar"}}"#);
        self.request.clear();
        let head = format!(
            "POST /api/log_scan HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n",
            body.len()
        );
        self.request.extend_from_slice(head.as_bytes());
        self.request.extend_from_slice(body.as_bytes());
        let request = std::mem::take(&mut self.request);
        let answered = self.ask(&request, 201).await;
        self.request = request;
        answered
    }

    /// Sends bytes made beforehand and waits for an answer of that status.
    pub(super) async fn ask(&mut self, request: &[u8], status: u16) -> Result<()> {
        self.stream.write_all(request).await?;
        self.answer.clear();
        loop {
            ensure!(self.stream.read_buf(&mut self.answer).await? > 0, "the server closed");
            if let Some(whole) = whole_answer(&self.answer)? {
                ensure!(
                    self.answer.starts_with(format!("HTTP/1.1 {status} ").as_bytes()),
                    "{}",
                    String::from_utf8_lossy(&self.answer[..whole])
                );
                return Ok(());
            }
        }
    }
}

/// The length of the answer once all of it is there.
fn whole_answer(bytes: &[u8]) -> Result<Option<usize>> {
    let Some(head) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Ok(None);
    };
    let length: usize = std::str::from_utf8(&bytes[..head])?
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find_map(|(name, value)| name.eq_ignore_ascii_case("content-length").then_some(value))
        .context("an answer without a length")?
        .trim()
        .parse()?;
    let whole = head + 4 + length;
    Ok((bytes.len() >= whole).then_some(whole))
}

/// Answers a second from `clients` that post as fast as they are answered.
pub(super) async fn storm(address: &str, clients: usize, lasting: Duration) -> Result<f64> {
    let mut posting = tokio::task::JoinSet::new();
    let began = Instant::now();
    for n in 0..clients {
        let address = address.to_owned();
        posting.spawn(async move {
            let mut client = Client::connect(&address).await?;
            let mut count = 0u64;
            while began.elapsed() < lasting {
                client.tap(&format!("04{n:04X}{count:08X}")).await?;
                count += 1;
            }
            anyhow::Ok(count)
        });
    }
    let mut total = 0;
    for count in posting.join_all().await {
        total += count?;
    }
    Ok(total as f64 / began.elapsed().as_secs_f64())
}
