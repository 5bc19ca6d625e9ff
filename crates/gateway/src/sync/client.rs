//! The only HTTP client: how requests leave this program and how answers are read.

use super::rules::Reply;
use super::tls::{self, Verifier};
use crate::clock::{Clock, TrustedTime};
use crate::identity::Key;
use lumbung_shared::time::{parse_rfc3339, rfc3339};
use lumbung_shared::wire::Answer;
use reqwest::header::{self, HeaderMap};
use reqwest::{Client, Response, StatusCode, Url};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// Most bytes of an answer that are read.
const MOST_ANSWER_BYTES: usize = 4 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("cloud.ca_file: {path}: {problem}")]
    CaFile { path: String, problem: String },
    #[error("the HTTP client cannot be made: {0}")]
    Client(String),
}

/// The client, and the clock that judges certificates with it and learns from answers.
#[derive(Debug)]
pub struct CloudClient {
    pub(super) http: Client,
    verifier: Arc<Verifier>,
    clock: Arc<Clock>,
}

/// A client that trusts Mozilla's authorities and those of `ca_file` (PEM; empty: none). It follows no
/// redirects: a batch goes to the cloud that was agreed on.
pub fn http_client(ca_file: &str, timeout: Duration, clock: Arc<Clock>) -> Result<CloudClient, ClientError> {
    let (tls, verifier) = tls::client_config(ca_file, &clock)?;
    let http = Client::builder()
        .user_agent(concat!("lumbung-gateway/", env!("CARGO_PKG_VERSION")))
        .tls_backend_preconfigured(tls)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .connect_timeout(CONNECT_TIMEOUT.min(timeout))
        .timeout(timeout)
        .pool_max_idle_per_host(1)
        .tcp_nodelay(true)
        .tcp_keepalive(Duration::from_secs(60))
        .build()
        .map_err(|error| ClientError::Client(chain(&error)))?;
    Ok(CloudClient { http, verifier, clock })
}

impl CloudClient {
    /// An answer from `url` told the cloud's time. It counts where nobody on the way can have written it.
    pub(super) fn hear_time(&self, url: &str, asked_mono_ms: i64, heard_mono_ms: i64, server_time: &str) {
        let Some(wall_ms) = parse_rfc3339(server_time) else { return };
        let proven = match vouching(url) {
            Vouching::Certificate if !self.verifier.holds_at(wall_ms) => {
                tracing::warn!(server_time, "the cloud's time lies outside its own certificate's");
                return;
            }
            Vouching::Certificate => true,
            Vouching::Loopback => false,
            Vouching::Nobody => return,
        };
        if let Err(error) = self.clock.hear_cloud(asked_mono_ms, heard_mono_ms, wall_ms, proven) {
            tracing::warn!(server_time, %error, "the cloud's time is not believed");
        }
    }

    /// What the dates of the cloud's certificate have to do with this error, if anything.
    pub(super) fn doubt(&self, error: &str) -> Option<DateDoubt> {
        date_doubt(error, self.clock.trusted_time())
    }

    /// Why there was no answer, with the clock named where it may be the cause.
    pub(super) fn why_no_answer(&self, error: String) -> String {
        match self.doubt(&error) {
            Some(doubt) => format!("{error} ({doubt})"),
            None => error,
        }
    }
}

/// Who stands for what an address answers.
#[derive(Debug, PartialEq, Eq)]
enum Vouching {
    Certificate,
    Loopback,
    Nobody,
}

fn vouching(url: &str) -> Vouching {
    let Ok(url) = Url::parse(url) else { return Vouching::Nobody };
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let local = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback());
    match url.scheme() {
        "https" => Vouching::Certificate,
        _ if local => Vouching::Loopback,
        _ => Vouching::Nobody,
    }
}

/// A certificate was refused for its dates; this is what this gateway knows of the day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DateDoubt {
    /// A time source stands behind this gateway's time (RFC 3339): one of the two is wrong.
    Disagree { now: String },
    /// It ended before a time (RFC 3339) that has certainly been: this gateway's clock is not at fault.
    Ended { proven: String },
    /// It begins later than this gateway can believe (RFC 3339) without a time source.
    TooFarAhead { latest: String },
}

impl fmt::Display for DateDoubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disagree { now } => {
                write!(
                    f,
                    "this gateway was told that it is {now}; its time server or the certificate is wrong"
                )
            }
            Self::Ended { proven } => {
                write!(f, "it is certainly later than {proven}; the cloud needs a new certificate")
            }
            Self::TooFarAhead { latest } => {
                write!(f, "this gateway's clock is not confirmed, and it believes no date after {latest}")
            }
        }
    }
}

fn date_doubt(error: &str, time: TrustedTime) -> Option<DateDoubt> {
    let (ended, early) = (error.contains("certificate expired"), error.contains("certificate not valid yet"));
    match (ended, early) {
        (false, false) => None,
        _ if time.confirmed => Some(DateDoubt::Disagree { now: rfc3339(time.now_ms) }),
        (true, _) => Some(DateDoubt::Ended { proven: rfc3339(time.earliest_ms) }),
        _ => Some(DateDoubt::TooFarAhead { latest: rfc3339(time.latest_ms) }),
    }
}

/// An answer with a body that was small enough to read.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) status: StatusCode,
    pub(super) retry_after: Option<Duration>,
    pub(super) body: Vec<u8>,
}

/// No answer came.
#[derive(Debug)]
pub(super) struct NoAnswer {
    pub(super) timed_out: bool,
    pub(super) text: String,
}

impl From<reqwest::Error> for NoAnswer {
    fn from(error: reqwest::Error) -> Self {
        Self { timed_out: error.is_timeout(), text: chain(&error.without_url()) }
    }
}

/// Posts a body with the gateway's key.
pub(super) async fn post(
    client: &Client,
    url: &str,
    key: Option<&Key>,
    encoding: Option<&'static str>,
    body: Vec<u8>,
) -> Result<Answered, NoAnswer> {
    let mut request = client.post(url).header(header::CONTENT_TYPE, "application/json");
    if let Some(encoding) = encoding {
        request = request.header(header::CONTENT_ENCODING, encoding);
    }
    if let Some(key) = key {
        request = request.bearer_auth(key.reveal());
    }
    let response = request.body(body).send().await?;
    read(response).await
}

/// Reads an answer, but no more of it than an answer can need.
pub(super) async fn read(mut response: Response) -> Result<Answered, NoAnswer> {
    let status = response.status();
    let retry_after = retry_after(response.headers());
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > MOST_ANSWER_BYTES {
            return Err(NoAnswer { timed_out: false, text: "the answer is too long".to_owned() });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Answered { status, retry_after, body })
}

impl Answered {
    /// What the sync rules make of it; with the answer itself when it settles something.
    pub(super) fn judge(&self) -> Result<Answer, Reply> {
        match self.status.as_u16() {
            200..=299 => serde_json::from_slice(&self.body).map_err(|_| Reply::Failed { timed_out: false }),
            // Something on the way may say that too, and knows nothing of our records.
            400 | 422 if self.said().is_none() => Err(Reply::Failed { timed_out: false }),
            400 | 422 => Err(Reply::Refused),
            401 => Err(Reply::Unauthorised),
            403 => Err(Reply::Revoked),
            413 => Err(Reply::TooLarge),
            408 | 429 | 500..=599 => Err(Reply::Busy { retry_after: self.retry_after }),
            // Not the cloud we know (a portal, a wrong address): keep everything and ask again later.
            _ => Err(Reply::Failed { timed_out: false }),
        }
    }

    /// 409, from the cloud itself.
    pub(super) fn is_conflict(&self) -> bool {
        self.status == StatusCode::CONFLICT && self.said().is_some()
    }

    /// What the cloud says in words, cut to what a log line or a page can show.
    pub(super) fn message(&self) -> String {
        let said = match self.said() {
            Some(Said { code, message }) => format!("{code}: {message}"),
            None => String::from_utf8_lossy(&self.body).into_owned(),
        };
        let said: String = said.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect();
        format!("{} {}", self.status.as_u16(), said.trim()).trim_end().to_owned()
    }

    /// The body as our cloud writes an error; `None` when it is somebody else's.
    fn said(&self) -> Option<Said> {
        serde_json::from_slice::<Failure>(&self.body).ok().map(|failure| failure.error)
    }
}

#[derive(serde::Deserialize)]
struct Failure {
    error: Said,
}

#[derive(serde::Deserialize)]
struct Said {
    code: String,
    message: String,
}

/// `Retry-After` in seconds, or as a date that is compared with the answer's own: this clock may be wrong.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let until = chrono::DateTime::parse_from_rfc2822(text).ok()?;
    let now = headers
        .get(header::DATE)
        .and_then(|date| chrono::DateTime::parse_from_rfc2822(date.to_str().ok()?).ok())
        .unwrap_or_else(|| chrono::Utc::now().fixed_offset());
    (until - now).to_std().ok()
}

/// An error with its causes: reqwest's own text leaves out what went wrong.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(retry_after: &'static str, date: &'static str) -> HeaderMap {
        HeaderMap::from_iter([
            (header::RETRY_AFTER, retry_after.parse().unwrap()),
            (header::DATE, date.parse().unwrap()),
        ])
    }

    #[test]
    fn retry_after_is_understood_in_both_its_forms() {
        let date = "Fri, 20 Nov 2026 10:00:00 GMT";
        assert_eq!(retry_after(&headers("7", date)), Some(Duration::from_secs(7)));
        let until = headers("Fri, 20 Nov 2026 10:02:00 GMT", date);
        assert_eq!(retry_after(&until), Some(Duration::from_secs(120)));
        assert_eq!(retry_after(&headers("Fri, 20 Nov 2026 09:00:00 GMT", date)), None);
        assert_eq!(retry_after(&headers("soon", date)), None);
    }

    #[test]
    fn what_the_dates_of_a_certificate_mean_depends_on_who_stands_behind_the_clock() {
        let early = "invalid peer certificate: certificate not valid yet: verification time 0";
        let ended = "invalid peer certificate: certificate expired: verification time 9";
        let time =
            |confirmed| TrustedTime { now_ms: 9_000, earliest_ms: 5_000, latest_ms: 99_000, confirmed };
        for error in [early, ended] {
            let disagree = DateDoubt::Disagree { now: rfc3339(9_000) };
            assert_eq!(date_doubt(error, time(true)), Some(disagree));
        }
        assert_eq!(date_doubt(ended, time(false)), Some(DateDoubt::Ended { proven: rfc3339(5_000) }));
        assert_eq!(date_doubt(early, time(false)), Some(DateDoubt::TooFarAhead { latest: rfc3339(99_000) }));
        assert_eq!(date_doubt("connection refused", time(false)), None);
    }

    #[test]
    fn only_a_certificate_or_this_machine_itself_stands_for_a_time() {
        for (url, expected) in [
            ("https://mbg.example.id/api", Vouching::Certificate),
            ("http://127.0.0.1:8000/api", Vouching::Loopback),
            ("http://[::1]:8000/api", Vouching::Loopback),
            ("http://localhost/api", Vouching::Loopback),
            ("http://192.168.1.9:8000/api", Vouching::Nobody),
            ("http://127.0.0.1.evil.example/api", Vouching::Nobody),
            ("", Vouching::Nobody),
        ] {
            assert_eq!(vouching(url), expected, "{url}");
        }
    }

    #[test]
    fn a_client_can_be_made_from_the_built_in_roots() {
        let made = |ca_file| http_client(ca_file, Duration::from_secs(1), Arc::default());
        assert!(made("").is_ok());
        let problem = made("/nowhere.pem").unwrap_err();
        assert!(problem.to_string().contains("cloud.ca_file"));
    }
}
