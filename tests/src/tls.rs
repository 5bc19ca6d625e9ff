//! A door with TLS in front of a cloud, as a proxy puts there, with certificates of the story's own making.

use crate::http;
use actix_web::http::{Method, StatusCode};
use actix_web::web::{self, Bytes, Data};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer};
use anyhow::{Context, Result};
use chrono::{DateTime, Utc};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// An authority that issues whatever a story asks for.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its own certificate, for `cloud.ca_file`.
    pub file: PathBuf,
}

/// What a program that ends TLS reads.
#[derive(Debug)]
pub struct CertificateFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Authority {
    pub fn new(dir: &Path) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate()?;
        let file = dir.join("authority.pem");
        std::fs::write(&file, params.self_signed(&key)?.pem())?;
        Ok(Self { issuer: Issuer::new(params, key), file })
    }

    /// A certificate for `localhost` and its key, as PEM.
    pub fn issue(&self) -> Result<(String, String)> {
        let key = KeyPair::generate()?;
        let certificate =
            CertificateParams::new(vec!["localhost".to_owned()])?.signed_by(&key, &self.issuer)?;
        Ok((certificate.pem(), key.serialize_pem()))
    }

    /// A certificate for `localhost` and its key as files in a folder, in the place of those that are there.
    pub fn issue_into(&self, dir: &Path) -> Result<CertificateFiles> {
        let files = CertificateFiles { certificate: dir.join("fullchain.pem"), key: dir.join("privkey.pem") };
        let (certificate, key) = self.issue()?;
        std::fs::write(&files.certificate, certificate)?;
        std::fs::write(&files.key, key)?;
        Ok(files)
    }

    /// A client that trusts this authority and nobody else.
    pub fn client(&self) -> Result<reqwest::Client> {
        self.client_with(|client| client)
    }

    /// [`Self::client`] with something changed.
    pub fn client_with(
        &self,
        change: impl FnOnce(reqwest::ClientBuilder) -> reqwest::ClientBuilder,
    ) -> Result<reqwest::Client> {
        let certificate = reqwest::Certificate::from_pem(&std::fs::read(&self.file)?)?;
        let client = reqwest::Client::builder().no_proxy().tls_certs_only([certificate]);
        Ok(change(client.timeout(Duration::from_secs(20))).build()?)
    }

    /// Opens a door for `localhost` before the cloud at `base`, with a certificate that is good between the
    /// two times; its address.
    pub fn door(&self, base: &str, from: DateTime<Utc>, until: DateTime<Utc>) -> Result<String> {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()])?;
        let at = |time: DateTime<Utc>| {
            rcgen::date_time_ymd(1970, 1, 1) + Duration::from_millis(time.timestamp_millis().unsigned_abs())
        };
        (params.not_before, params.not_after) = (at(from), at(until));
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let secret = key.serialize_der().try_into().map_err(|why: &str| anyhow::anyhow!(why))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], secret)?;
        let inside = Inside { base: base.to_owned(), client: http::client()? };
        let server = HttpServer::new(move || {
            App::new().app_data(Data::new(inside.clone())).default_service(web::to(hand_on))
        })
        .workers(1)
        .disable_signals()
        .bind_rustls_0_23("127.0.0.1:0", config)?;
        let address = server.addrs().first().copied().context("the door is not bound")?;
        tokio::spawn(server.run());
        Ok(format!("https://localhost:{}", address.port()))
    }
}

#[derive(Clone)]
struct Inside {
    base: String,
    client: reqwest::Client,
}

async fn hand_on(request: HttpRequest, method: Method, body: Bytes, inside: Data<Inside>) -> HttpResponse {
    // Over HTTP/2 the whole address is asked for, over HTTP/1.1 only this part of it.
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let url = format!("{}{path}", inside.base);
    let method = reqwest::Method::from_bytes(method.as_str().as_bytes()).unwrap_or_default();
    let mut asked = inside.client.request(method, url).body(body.to_vec());
    for (name, value) in request.headers() {
        if !["host", "connection", "content-length"].contains(&name.as_str()) {
            asked = asked.header(name.as_str(), value.as_bytes());
        }
    }
    let Ok(answer) = asked.send().await else { return HttpResponse::BadGateway().finish() };
    let status = StatusCode::from_u16(answer.status().as_u16()).unwrap_or(StatusCode::BAD_GATEWAY);
    let mut response = HttpResponse::build(status);
    if let Some(kind) = answer.headers().get("content-type") {
        response.insert_header(("content-type", kind.as_bytes()));
    }
    match answer.bytes().await {
        Ok(bytes) => response.body(bytes),
        Err(_) => HttpResponse::BadGateway().finish(),
    }
}
