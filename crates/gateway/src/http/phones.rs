//! `POST /api/pair`, and who is paired: `/api/phones`.

use super::Api;
use super::guard::{COOKIE_NAME, Caller, Door};
use super::log_scan::json_body;
use super::problem::Problem;
use crate::phones::{Opened, Paired, Phone, Phones, PhonesError, Terms};
use crate::words::{Code, FieldProblem};
use actix_web::http::header::SET_COOKIE;
use actix_web::web::{self, Data, Path, Payload};
use actix_web::{HttpRequest, HttpResponse};
use lumbung_shared::{FieldError, OFFICER_MAX_CHARS, check_text};
use qrcode::{Color, QrCode};
use serde::Deserialize;
use serde_json::{Value, json};
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

const NAME_MAX_CHARS: usize = 64;
const CODE_MAX_CHARS: usize = 64;
/// A browser keeps its cookie as long as it may; revoking is how it ends.
const COOKIE_SECONDS: u64 = 400 * 86_400;

/// `{"code","name"}`; a browser adds `"keep":"cookie"` and then never sees its token.
#[derive(Debug, Deserialize)]
struct Wish {
    code: String,
    name: Option<String>,
    keep: Option<Keep>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Keep {
    Cookie,
}

/// `{"officer","name","may_pair"}`, all optional.
#[derive(Debug, Default, Deserialize)]
struct Invitation {
    officer: Option<String>,
    name: Option<String>,
    #[serde(default)]
    may_pair: bool,
}

/// `POST /api/pair`: whoever brings an open pairing's code becomes a phone.
pub(super) async fn pair(
    request: HttpRequest,
    payload: Payload,
    api: Data<Api>,
    door: Data<Door>,
) -> HttpResponse {
    match take(&request, payload, &api, **door).await {
        Ok(response) => response,
        Err(problem) => problem.answer(&request),
    }
}

async fn take(
    request: &HttpRequest,
    payload: Payload,
    api: &Api,
    door: Door,
) -> Result<HttpResponse, Problem> {
    if door == Door::Plain {
        return Err(Problem::of(Code::TlsNeeded));
    }
    let wish: Wish = body(request, payload).await?;
    let name = wish.name.as_deref().map(str::trim).filter(|name| !name.is_empty());
    checked("name", name, NAME_MAX_CHARS)?;
    checked("code", Some(&wish.code), CODE_MAX_CHARS)?;
    let (phones, code, name) =
        (Arc::clone(&api.phones), wish.code.trim().to_owned(), name.map(str::to_owned));
    let now_ms = api.clock.now().wall_ms;
    let paired = blocking(move || phones.pair(&code, name.as_deref(), now_ms)).await?;
    tracing::info!(phone = %paired.phone.id, name = %paired.phone.name, "a phone is paired");
    noted(api, "phone_paired", &paired.phone).await;
    if let Some(peer) = request.peer_addr() {
        api.gate.welcome(peer.ip());
    }
    Ok(welcome(api, &paired, wish.keep))
}

fn welcome(api: &Api, paired: &Paired, keep: Option<Keep>) -> HttpResponse {
    let (view, now) = (api.sync.view(), api.clock.now());
    let lan = api.lan.as_ref();
    let mut answer = json!({
        "success": true,
        "phone": paired.phone,
        "gateway_id": view.gateway_id,
        "site": view.site,
        "fingerprint": lan.map(|lan| &lan.fingerprint),
        "pin": lan.map(|lan| &lan.pin),
        "clock": { "state": now.state, "now": lumbung_shared::time::rfc3339(now.wall_ms) },
    });
    let mut response = HttpResponse::Created();
    if keep == Some(Keep::Cookie) {
        // No page can read it, no other page can send it, and it never leaves over plain HTTP.
        let cookie = format!(
            "{COOKIE_NAME}={}; Path=/; Max-Age={COOKIE_SECONDS}; Secure; HttpOnly; SameSite=Strict",
            paired.token
        );
        response.insert_header((SET_COOKIE, cookie));
    } else {
        answer["token"] = Value::from(paired.token.as_str());
    }
    response.json(answer)
}

/// `POST /api/phones/pairing`: opens a pairing and shows its code.
pub(super) async fn open(request: HttpRequest, payload: Payload, api: Data<Api>) -> HttpResponse {
    match invite(&request, payload, &api).await {
        Ok(response) => response,
        Err(problem) => problem.answer(&request),
    }
}

async fn invite(request: &HttpRequest, payload: Payload, api: &Api) -> Result<HttpResponse, Problem> {
    let lan = api.lan.as_ref().ok_or_else(|| Problem::of(Code::LanClosed))?;
    let Invitation { officer, name, may_pair } = body(request, payload).await?;
    let text = |text: Option<String>| text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
    let terms = Terms { officer: text(officer), name: text(name), may_pair };
    checked("officer", terms.officer.as_deref(), OFFICER_MAX_CHARS)?;
    checked("name", terms.name.as_deref(), NAME_MAX_CHARS)?;
    // The right to pair is given on the gateway, not passed on from phone to phone.
    if may_pair && Caller::of(request) != Caller::Loopback {
        return Err(Problem::of(Code::NotThisPhone));
    }
    let opened = api.phones.open_pairing(terms).map_err(|error| refusal(&error))?;
    let addresses = lan.addresses();
    let uri = link(&opened, &lan.fingerprint, &addresses, lan.listen.port(), api.sync.view().gateway_id);
    let browser = addresses.iter().map(|ip| format!("https://{}/", SocketAddr::new(*ip, lan.listen.port())));
    Ok(HttpResponse::Created().json(json!({
        "success": true,
        "code": opened.digits,
        "uri": uri,
        "qr_svg": svg(&uri),
        "expires_in_s": opened.life.as_secs(),
        "fingerprint": lan.spoken,
        "pin": lan.pin,
        "addresses": browser.collect::<Vec<_>>(),
    })))
}

/// The text of the QR code.
fn link(
    opened: &Opened,
    fingerprint: &str,
    addresses: &[IpAddr],
    port: u16,
    gateway: Option<String>,
) -> String {
    let mut uri = "lumbung://pair?".to_owned();
    for address in addresses {
        // Writing into a String cannot fail.
        let _ = write!(uri, "host={address}&");
    }
    let _ = write!(uri, "port={port}&fp={fingerprint}&secret={}", opened.secret);
    // Gateway ids are plain words; whatever else one may hold stays out of the link.
    let plain = |id: &String| id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    if let Some(id) = gateway.filter(plain) {
        let _ = write!(uri, "&gateway={id}");
    }
    uri
}

/// The QR code as a picture that a page can show without asking anybody.
fn svg(text: &str) -> Option<String> {
    let code = QrCode::new(text).ok()?;
    let (width, quiet) = (code.width(), 4);
    let side = width + 2 * quiet;
    let mut path = String::new();
    for (at, _) in code.to_colors().iter().enumerate().filter(|(_, color)| **color == Color::Dark) {
        let _ = write!(path, "M{} {}h1v1h-1z", at % width + quiet, at / width + quiet);
    }
    Some(format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {side} {side}" shape-rendering="crispEdges"><path fill="#fff" d="M0 0h{side}v{side}H0z"/><path d="{path}"/></svg>"##
    ))
}

/// `GET /api/phones`: all of them; a phone that may not pair sees itself.
pub(super) async fn list(request: HttpRequest, api: Data<Api>) -> HttpResponse {
    let mut phones = api.phones.list();
    let mut this = None;
    if let Caller::Phone(phone) = Caller::of(&request) {
        phones.retain(|other| phone.may_pair || other.id == phone.id);
        this = Some(phone.id);
    }
    HttpResponse::Ok().json(json!({ "phones": phones, "this": this }))
}

/// `DELETE /api/phones/{id}`: a phone's right ends now. Any phone may give up its own.
pub(super) async fn revoke(request: HttpRequest, id: Path<String>, api: Data<Api>) -> HttpResponse {
    let id = id.into_inner();
    if let Caller::Phone(phone) = Caller::of(&request)
        && phone.id != id
        && !phone.may_pair
    {
        return Problem::of(Code::NotThisPhone).answer(&request);
    }
    let phones = Arc::clone(&api.phones);
    match blocking(move || Phones::revoke(&phones, &id)).await {
        Ok(phone) => {
            tracing::info!(phone = %phone.id, name = %phone.name, "a phone is revoked");
            noted(&api, "phone_revoked", &phone).await;
            HttpResponse::Ok().json(json!({ "success": true, "phone": phone }))
        }
        Err(problem) => problem.answer(&request),
    }
}

/// The cloud hears of it; a phone is paired or revoked also when that word cannot be kept.
async fn noted(api: &Api, kind: &'static str, phone: &Phone) {
    let body = json!({ "phone": phone.id, "name": phone.name, "officer": phone.officer });
    if let Err(error) = api.capture.note(kind, body).await {
        tracing::warn!(%error, kind, "the event could not be kept");
    }
}

async fn body<T: serde::de::DeserializeOwned>(request: &HttpRequest, payload: Payload) -> Result<T, Problem> {
    let body = json_body(request, payload).await?;
    serde_json::from_slice(&body).map_err(|_| Problem::of(Code::BadJson))
}

fn checked(field: &'static str, text: Option<&str>, most: usize) -> Result<(), Problem> {
    let limit = |error: FieldError| Problem::fields(vec![(field, FieldProblem::Limit(error))]);
    text.map_or(Ok(()), |text| check_text(field, text, most)).map_err(limit)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, PhonesError> + Send + 'static,
) -> Result<T, Problem> {
    match web::block(work).await {
        Ok(done) => done.map_err(|error| refusal(&error)),
        Err(_) => Err(Problem::of(Code::PhonesFailed)),
    }
}

fn refusal(error: &PhonesError) -> Problem {
    match error {
        PhonesError::WrongCode => Problem::of(Code::PairCodeWrong),
        PhonesError::TooManyTries(wait) => {
            Problem::of(Code::PairTooManyTries).again_after(wait.as_secs() + 1)
        }
        PhonesError::NoName => Problem::fields(vec![("name", FieldProblem::Missing)]),
        PhonesError::TooMany => Problem::of(Code::TooManyPhones),
        PhonesError::Unknown => Problem::of(Code::NoSuchPhone),
        PhonesError::File { .. } | PhonesError::Random(_) => {
            tracing::error!(%error, "the list of phones could not be changed");
            Problem::of(Code::PhonesFailed)
        }
    }
}
