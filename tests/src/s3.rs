//! Storage that speaks as much S3 as the cloud asks for, in memory. It looks at whose key signed, not at the signature.

use actix_web::http::StatusCode;
use actix_web::web::{self, Bytes, Data, Query};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer};
use anyhow::{Context, Result};
use chrono::{DateTime, TimeDelta, Utc};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub const BUCKET: &str = "lumbung";
pub const KEY: &str = "kunci";
/// So few that a handful of objects takes several answers.
const LISTED_AT_ONCE: usize = 2;

struct Object {
    bytes: Vec<u8>,
    modified: DateTime<Utc>,
}

#[derive(Default)]
struct Inside {
    objects: Mutex<BTreeMap<String, Object>>,
    /// By upload and number.
    parts: Mutex<BTreeMap<(String, u32), Bytes>>,
    uploads: AtomicU64,
    gets: AtomicU64,
    broken: AtomicBool,
}

impl Inside {
    fn objects(&self) -> MutexGuard<'_, BTreeMap<String, Object>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, key: &str, bytes: Vec<u8>) {
        self.objects().insert(key.to_owned(), Object { bytes, modified: Utc::now() });
    }
}

/// The storage, with one bucket; it ends with the story's runtime.
pub struct Storage {
    pub base: String,
    inside: Arc<Inside>,
}

impl Storage {
    pub fn start() -> Result<Self> {
        let inside = Arc::<Inside>::default();
        let data = Data::from(Arc::clone(&inside));
        let server = HttpServer::new(move || {
            let large = web::PayloadConfig::new(64 << 20);
            App::new().app_data(data.clone()).app_data(large).default_service(web::to(take))
        })
        .workers(1)
        .disable_signals()
        .bind("127.0.0.1:0")?;
        let address = server.addrs().first().copied().context("the storage is not bound")?;
        tokio::spawn(server.run());
        Ok(Self { base: format!("http://{address}"), inside })
    }

    /// Keys in their order.
    pub fn keys(&self) -> Vec<String> {
        self.inside.objects().keys().cloned().collect()
    }

    pub fn put(&self, key: &str, bytes: Vec<u8>) {
        self.inside.put(key, bytes);
    }

    /// As if everything in it had been put there earlier.
    pub fn age(&self, by: TimeDelta) {
        self.inside.objects().values_mut().for_each(|object| object.modified -= by);
    }

    /// What is kept by a key.
    pub fn get(&self, key: &str) -> Option<Vec<u8>> {
        self.inside.objects().get(key).map(|object| object.bytes.clone())
    }

    /// How many objects it has sent.
    pub fn sent(&self) -> u64 {
        self.inside.gets.load(Ordering::SeqCst)
    }

    /// Whether it answers nothing but errors.
    pub fn is_broken(&self, broken: bool) {
        self.inside.broken.store(broken, Ordering::SeqCst);
    }

    /// How many objects came in parts.
    pub fn in_parts(&self) -> u64 {
        self.inside.uploads.load(Ordering::SeqCst)
    }
}

fn refused(status: u16, code: &str) -> HttpResponse {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    HttpResponse::build(status).body(format!("<Error><Code>{code}</Code></Error>"))
}

async fn take(request: HttpRequest, body: Bytes, inside: Data<Inside>) -> HttpResponse {
    let signed = request.headers().get("authorization").and_then(|header| header.to_str().ok());
    let path = request.path().trim_start_matches('/');
    let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
    let query = Query::<BTreeMap<String, String>>::from_query(request.query_string());
    let query = query.map(Query::into_inner).unwrap_or_default();
    if inside.broken.load(Ordering::SeqCst) {
        return refused(500, "InternalError");
    }
    if !signed.is_some_and(|signed| signed.starts_with(&format!("AWS4-HMAC-SHA256 Credential={KEY}/"))) {
        return refused(403, "InvalidAccessKeyId");
    }
    if bucket != BUCKET {
        return refused(404, "NoSuchBucket");
    }
    let upload = query.get("uploadId");
    let etag = ("etag", "\"x\"");
    match (request.method().as_str(), key) {
        ("GET", "") => list(&inside, &query),
        // Of a HEAD's answer the server sends no body.
        (method @ ("GET" | "HEAD"), _) => match inside.objects().get(key) {
            Some(object) => {
                inside.gets.fetch_add(u64::from(method == "GET"), Ordering::SeqCst);
                HttpResponse::Ok()
                    .insert_header(etag)
                    .insert_header((
                        "last-modified",
                        object.modified.format("%a, %d %b %Y %H:%M:%S GMT").to_string(),
                    ))
                    .body(object.bytes.clone())
            }
            None => refused(404, "NoSuchKey"),
        },
        ("PUT", _) => {
            let number = query.get("partNumber").and_then(|number| number.parse().ok());
            match (upload, number) {
                (Some(upload), Some(number)) => {
                    let mut parts = inside.parts.lock().unwrap_or_else(PoisonError::into_inner);
                    parts.insert((upload.clone(), number), body);
                }
                _ => inside.put(key, body.to_vec()),
            }
            HttpResponse::Ok().insert_header(etag).finish()
        }
        ("POST", _) if query.contains_key("uploads") => {
            let id = inside.uploads.fetch_add(1, Ordering::SeqCst);
            HttpResponse::Ok().body(format!(
                "<InitiateMultipartUploadResult><UploadId>{id}</UploadId></InitiateMultipartUploadResult>"
            ))
        }
        ("POST", _) if upload.is_some() => {
            let mut parts = inside.parts.lock().unwrap_or_else(PoisonError::into_inner);
            let (mine, others) =
                std::mem::take(&mut *parts).into_iter().partition(|((of, _), _)| Some(of) == upload);
            *parts = others;
            let mine: BTreeMap<(String, u32), Bytes> = mine;
            inside.put(key, mine.into_values().flatten().collect());
            HttpResponse::Ok()
                .body("<CompleteMultipartUploadResult><ETag>\"x\"</ETag></CompleteMultipartUploadResult>")
        }
        ("DELETE", _) => {
            inside.objects().remove(key);
            HttpResponse::NoContent().finish()
        }
        _ => refused(501, "NotImplemented"),
    }
}

fn list(inside: &Inside, query: &BTreeMap<String, String>) -> HttpResponse {
    let prefix = query.get("prefix").map_or("", String::as_str);
    let after = query.get("continuation-token").map_or("", String::as_str);
    let objects = inside.objects();
    let mut rest = objects.iter().filter(|(key, _)| key.starts_with(prefix) && key.as_str() > after);
    let mut answer = "<ListBucketResult>".to_owned();
    let mut last = None;
    for (key, object) in rest.by_ref().take(LISTED_AT_ONCE) {
        // Writing into a String cannot fail.
        let _ = write!(
            answer,
            "<Contents><Key>{key}</Key><LastModified>{}</LastModified><ETag>\"x\"</ETag><Size>{}</Size></Contents>",
            object.modified.to_rfc3339(),
            object.bytes.len()
        );
        last = Some(key);
    }
    if let (Some(last), true) = (last, rest.next().is_some()) {
        let _ = write!(answer, "<NextContinuationToken>{last}</NextContinuationToken>");
    }
    HttpResponse::Ok().body(answer + "</ListBucketResult>")
}
