//! Somebody's HTTP server: it keeps what it is sent and answers what it is told to.

use actix_web::http::StatusCode;
use actix_web::web::{self, Bytes, Data};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer};
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Asked {
    pub method: String,
    pub path: String,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

struct Inside {
    asked: Mutex<Vec<Asked>>,
    answer: AtomicU16,
    said: Mutex<String>,
}

/// The server; it ends with the story's runtime.
pub struct Peer {
    pub base: String,
    inside: Arc<Inside>,
}

impl Peer {
    /// Answers 201 until told otherwise.
    pub fn start() -> Result<Self> {
        let inside =
            Arc::new(Inside { asked: Mutex::default(), answer: AtomicU16::new(201), said: Mutex::default() });
        let data = Data::from(Arc::clone(&inside));
        let server =
            HttpServer::new(move || App::new().app_data(data.clone()).default_service(web::to(take)))
                .workers(1)
                .disable_signals()
                .bind("127.0.0.1:0")?;
        let address = server.addrs().first().copied().context("the peer is not bound")?;
        tokio::spawn(server.run());
        Ok(Self { base: format!("http://{address}"), inside })
    }

    pub fn answers(&self, status: u16) {
        self.inside.answer.store(status, Ordering::SeqCst);
    }

    /// What stands in its answers from now on.
    pub fn says(&self, text: &str) {
        text.clone_into(&mut self.inside.said.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.inside.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn take(request: HttpRequest, body: Bytes, inside: Data<Inside>) -> HttpResponse {
    let header =
        |(name, value): (&actix_web::http::header::HeaderName, &actix_web::http::header::HeaderValue)| {
            (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
    let asked = Asked {
        method: request.method().to_string(),
        path: request.uri().to_string(),
        headers: request.headers().iter().map(header).collect(),
        body: body.to_vec(),
    };
    // Before it shows that it was asked: whoever waits for that may have the next one answered otherwise.
    let status = StatusCode::from_u16(inside.answer.load(Ordering::SeqCst));
    let said = inside.said.lock().unwrap_or_else(PoisonError::into_inner).clone();
    inside.asked.lock().unwrap_or_else(PoisonError::into_inner).push(asked);
    HttpResponse::build(status.unwrap_or(StatusCode::OK)).body(said)
}
