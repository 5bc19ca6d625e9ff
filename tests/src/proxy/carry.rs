//! Carries connections: one request at a time, each to its fate.

use super::message::{Message, read};
use super::{Fate, Line, Shared, lock};
use anyhow::{Context, Result};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Listens while the line is not refused; nobody listens while it is. The first listener is handed in:
/// whoever started the proxy may send to it at once.
pub(super) async fn listen(shared: Arc<Shared>, first: TcpListener) {
    let mut line = shared.line.subscribe();
    let mut first = Some(first);
    loop {
        if line.wait_for(|line| *line != Line::Refused).await.is_err() {
            return;
        }
        let listener = match first.take() {
            Some(listener) => Ok(listener),
            None => TcpListener::bind((Ipv4Addr::LOCALHOST, shared.port)).await,
        };
        let Ok(listener) = listener else {
            // The port is freed by the kernel a moment after the last listener went.
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        };
        loop {
            let stream = tokio::select! {
                accepted = listener.accept() => accepted,
                changed = line.wait_for(|line| *line == Line::Refused) => {
                    if changed.is_err() {
                        return;
                    }
                    break;
                }
            };
            if let Ok((stream, _)) = stream {
                tokio::spawn(serve(stream, Arc::clone(&shared)));
            }
        }
    }
}

/// One connection until either side closes it or the line breaks.
async fn serve(mut stream: TcpStream, shared: Arc<Shared>) {
    let _ = stream.set_nodelay(true);
    let mut line = shared.line.subscribe();
    let outcome = tokio::select! {
        outcome = carry(&mut stream, &shared) => outcome,
        () = broken(&mut line) => Ok(End::Reset),
    };
    if matches!(outcome, Ok(End::Reset) | Err(_)) {
        // A reset, not a polite end.
        let _ = stream.set_zero_linger();
    }
}

/// Returns when open connections must die.
async fn broken(line: &mut watch::Receiver<Line>) {
    if line.wait_for(|line| *line != Line::Up).await.is_err() {
        return;
    }
    // A silent line keeps connections open and says nothing until it is something else.
    let _ = line.wait_for(|line| *line != Line::Silent).await;
}

/// How a connection ends.
enum End {
    Closed,
    Reset,
}

async fn carry(client: &mut TcpStream, shared: &Shared) -> Result<End> {
    let mut kept = Vec::new();
    let mut upstream: Option<Upstream> = None;
    let mut line = shared.line.subscribe();
    while let Some(request) = read(client, &mut kept, false).await? {
        line.wait_for(|line| *line != Line::Silent).await?;
        let fate = shared.fate(&request);
        if let Fate::Answer { status, headers, body } = &fate {
            let answer = own_answer(*status, headers, body);
            shared.answered(&answer);
            client.write_all(&answer).await?;
            continue;
        }
        if matches!(fate, Fate::LoseRequest) {
            return Ok(End::Reset);
        }
        let cloud = match upstream.take() {
            Some(open) => open,
            None => Upstream::open(shared).await?,
        };
        let Some((answer, cloud)) = ask(cloud, &request, &fate).await? else {
            return Ok(End::Reset);
        };
        upstream = Some(cloud);
        if matches!(fate, Fate::LoseAnswer) {
            return Ok(End::Reset);
        }
        give_back(client, &answer, &fate).await?;
        shared.answered(&answer.bytes);
    }
    Ok(End::Closed)
}

struct Upstream {
    stream: TcpStream,
    kept: Vec<u8>,
}

impl Upstream {
    async fn open(shared: &Shared) -> Result<Self> {
        let address = lock(&shared.upstream).clone();
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, kept: Vec::new() })
    }

    async fn answer(&mut self) -> Result<Message> {
        read(&mut self.stream, &mut self.kept, true).await?.context("the cloud closed without an answer")
    }
}

/// Brings a request to the cloud as its fate says; the answer, or `None` for a reset on both sides.
async fn ask(mut cloud: Upstream, request: &Message, fate: &Fate) -> Result<Option<(Message, Upstream)>> {
    let bytes = &request.bytes;
    let half = (request.head_len() + request.body().len() / 2).min(bytes.len());
    let (first, second) = bytes.split_at(half);
    match fate {
        Fate::ResetMidBody => {
            cloud.stream.write_all(first).await?;
            cloud.stream.flush().await?;
            cloud.stream.set_zero_linger()?;
            return Ok(None);
        }
        Fate::HalfThenWait(gate) => {
            cloud.stream.write_all(first).await?;
            cloud.stream.flush().await?;
            gate.pass().await;
            cloud.stream.write_all(second).await?;
        }
        Fate::Slow(pause) => {
            tokio::time::sleep(*pause).await;
            cloud.stream.write_all(bytes).await?;
        }
        Fate::Sliced(size) => slice(&mut cloud.stream, bytes, *size).await?,
        Fate::Twice => {
            cloud.stream.write_all(bytes).await?;
            cloud.answer().await?;
            cloud.stream.write_all(bytes).await?;
        }
        _ => cloud.stream.write_all(bytes).await?,
    }
    let answer = cloud.answer().await?;
    Ok(Some((answer, cloud)))
}

async fn give_back(client: &mut TcpStream, answer: &Message, fate: &Fate) -> Result<()> {
    match fate {
        Fate::AnswerWaits(gate) => gate.pass().await,
        Fate::Slow(pause) => tokio::time::sleep(*pause).await,
        Fate::Sliced(size) => return slice(client, &answer.bytes, *size).await,
        _ => {}
    }
    client.write_all(&answer.bytes).await?;
    Ok(())
}

async fn slice(stream: &mut TcpStream, bytes: &[u8], size: usize) -> Result<()> {
    for piece in bytes.chunks(size.max(1)) {
        stream.write_all(piece).await?;
        stream.flush().await?;
        tokio::task::yield_now().await;
    }
    Ok(())
}

fn own_answer(status: u16, headers: &[(String, String)], body: &str) -> Vec<u8> {
    use std::fmt::Write as _;
    let mut head = format!("HTTP/1.1 {status} Proxy\r\nContent-Type: application/json\r\n");
    for (name, value) in headers {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    let _ = write!(head, "Content-Length: {}\r\n\r\n{body}", body.len());
    head.into_bytes()
}
