//! The only HTTP client: how requests leave this program and how answers are read.

use super::rules::Reply;
use crate::identity::Key;
use lumbung_shared::time::ClockState;
use lumbung_shared::wire::Answer;
use reqwest::header::{self, HeaderMap};
use reqwest::{Certificate, Client, Response, StatusCode};
use std::path::Path;
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

/// A client that trusts Mozilla's authorities and those of `ca_file` (PEM; empty: none). It follows no
/// redirects: a batch goes to the cloud that was agreed on.
pub fn http_client(ca_file: &str, timeout: Duration) -> Result<Client, ClientError> {
    let mut roots = Vec::new();
    for root in webpki_root_certs::TLS_SERVER_ROOT_CERTS {
        let root = Certificate::from_der(root).map_err(|error| ClientError::Client(chain(&error)))?;
        roots.push(root);
    }
    if !ca_file.is_empty() {
        roots.append(&mut own_authorities(Path::new(ca_file))?);
    }
    Client::builder()
        .user_agent(concat!("lumbung-gateway/", env!("CARGO_PKG_VERSION")))
        .tls_certs_only(roots)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .connect_timeout(CONNECT_TIMEOUT.min(timeout))
        .timeout(timeout)
        .pool_max_idle_per_host(1)
        .tcp_nodelay(true)
        .tcp_keepalive(Duration::from_secs(60))
        .build()
        .map_err(|error| ClientError::Client(chain(&error)))
}

fn own_authorities(path: &Path) -> Result<Vec<Certificate>, ClientError> {
    let problem = |problem: String| ClientError::CaFile { path: path.display().to_string(), problem };
    let pem = std::fs::read(path).map_err(|error| problem(error.to_string()))?;
    let certificates = Certificate::from_pem_bundle(&pem).map_err(|error| problem(chain(&error)))?;
    if certificates.is_empty() {
        return Err(problem("holds no certificate".to_owned()));
    }
    Ok(certificates)
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

/// Why there was no answer, with the clock named where it is the likely cause: certificates have dates, and
/// this machine may not know today's.
pub(super) fn why_no_answer(error: String, clock: ClockState) -> String {
    let dates = error.contains("certificate expired") || error.contains("certificate not valid yet");
    if dates && clock != ClockState::Synced {
        return format!("{error} (this gateway's clock is not confirmed; it may be wrong)");
    }
    error
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
    fn a_clock_that_nobody_confirmed_is_named_when_a_certificate_seems_out_of_date() {
        let error = || "invalid peer certificate: certificate not valid yet: verification time 0".to_owned();
        assert!(why_no_answer(error(), ClockState::Held).contains("clock"));
        assert_eq!(why_no_answer(error(), ClockState::Synced), error());
        assert_eq!(why_no_answer("refused".to_owned(), ClockState::Unset), "refused");
    }

    #[test]
    fn a_client_can_be_made_from_the_built_in_roots() {
        // Another test may have been first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        assert!(http_client("", Duration::from_secs(1)).is_ok());
        let problem = http_client("/nowhere.pem", Duration::from_secs(1)).unwrap_err();
        assert!(problem.to_string().contains("cloud.ca_file"));
    }
}
