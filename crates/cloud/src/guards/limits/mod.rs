//! How much one caller may ask for: a rate for each kind of action, counted in this replica.
//!
//! What must stay true:
//! - Whoever shows a credential that was found good here lately is counted by themselves, whatever address they
//!   share; everyone else by address, an IPv6 customer by the whole /64.
//! - A wrong credential counts against its address. When those are used up, credentials nobody knows yet are not
//!   even looked at; known ones still are.
//! - The memory is bounded, whoever calls.
//! - Gateways are not counted, their wrong keys are. Looking up a key that was not found good here lately takes a
//!   turn ([`turn`]), so that no number of invented keys takes the connections that batches are stored with.

mod buckets;
mod fleeting;
mod turns;

use super::client_address;
use super::principal::{self, Principal};
use super::refuse;
use crate::config;
use crate::config::Rate;
use crate::error::Error;
use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::middleware::Next;
use actix_web::web;
use buckets::{Buckets, Left};
use fleeting::Fleeting;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use turns::Turns;
pub use turns::turn;

pub(crate) const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
pub(crate) const LEFT: HeaderName = HeaderName::from_static("ratelimit");

/// How long a credential counts as known after its last use.
const KNOWN: Duration = Duration::from_secs(60 * 60);
/// Credentials known at once.
const CREDENTIALS: usize = 50_000;

/// What an endpoint costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    SignIn,
    Register,
    Enrol,
    Read,
    Write,
    Upload,
    /// Pictures that pages show: browsers ask for them without a token, a whole class from one address.
    Picture,
    Expensive,
}

use Kind::{Enrol, Expensive, Picture, Read, Register, SignIn, Upload, Write};

/// With the names that the headers say.
const KINDS: [(Kind, &str); 8] = [
    (SignIn, "sign_in"),
    (Register, "register"),
    (Enrol, "enrol"),
    (Read, "read"),
    (Write, "write"),
    (Upload, "upload"),
    (Picture, "picture"),
    (Expensive, "expensive"),
];

/// What is no plain reading or writing; `None` is not counted: gateways are admitted by `ingest`, and whoever
/// watches the cloud's health must hear of it.
const TABLE: &[(&str, &str, Option<Kind>)] = &[
    ("POST", "/api/auth/login", Some(SignIn)),
    ("POST", "/api/auth/login/totp", Some(SignIn)),
    ("POST", "/api/auth/google", Some(SignIn)),
    ("POST", "/api/auth/totp/enrol", Some(SignIn)),
    ("POST", "/api/auth/totp/confirm", Some(SignIn)),
    ("POST", "/api/auth/totp/off", Some(SignIn)),
    ("POST", "/api/auth/change-password", Some(SignIn)),
    ("POST", "/api/auth/forgot-password", Some(SignIn)),
    ("POST", "/api/auth/reset-password", Some(SignIn)),
    ("POST", "/api/auth/verify-email", Some(SignIn)),
    ("POST", "/api/auth/verify-email/resend", Some(SignIn)),
    ("POST", "/api/users/me/email", Some(SignIn)),
    ("POST", "/api/auth/change-email", Some(SignIn)),
    ("POST", "/api/auth/register", Some(Register)),
    ("PUT", "/api/notifications/phone", Some(SignIn)),
    ("POST", "/api/notifications/phone/verify", Some(SignIn)),
    ("DELETE", "/api/users/me", Some(SignIn)),
    ("POST", "/api/users/me/export", Some(Expensive)),
    ("POST", "/api/gateways/enrol", Some(Enrol)),
    ("POST", "/api/users/me/picture", Some(Upload)),
    ("GET", "/files/{name}", Some(Picture)),
    ("POST", "/api/admin/jobs/{name}/run", Some(Expensive)),
    ("POST", "/api/sync_gateway_data", None),
    ("GET", "/livez", None),
    ("GET", "/readyz", None),
    ("GET", "/api/health", None),
];

/// The endpoints that the table names.
#[cfg(test)]
pub(crate) fn named() -> impl Iterator<Item = (&'static str, &'static str)> {
    TABLE.iter().map(|(method, path, _)| (*method, *path))
}

/// Where gateways bring their batches.
fn is_door(request: &ServiceRequest) -> bool {
    request.match_pattern().as_deref() == Some("/api/sync_gateway_data")
}

fn kind(method: &Method, pattern: Option<&str>) -> Option<Kind> {
    let method = if method == Method::HEAD { &Method::GET } else { method };
    let row = TABLE.iter().find(|row| row.0 == method.as_str() && Some(row.1) == pattern);
    match row {
        Some((_, _, kind)) => *kind,
        None if method == Method::OPTIONS => None,
        None if method == Method::GET => Some(Read),
        None => Some(Write),
    }
}

/// Whether an endpoint, by the path of the document, is counted.
pub(crate) fn counts(method: &str, path: &str) -> bool {
    Method::from_bytes(method.as_bytes()).is_ok_and(|method| kind(&method, Some(path)).is_some())
}

pub(super) fn is_counted(request: &ServiceRequest) -> bool {
    kind(request.method(), request.match_pattern().as_deref()).is_some()
}

/// Whether it has a small body and a soon answer.
pub(super) fn is_quick(request: &ServiceRequest) -> bool {
    let kind = kind(request.method(), request.match_pattern().as_deref());
    !matches!(kind, None | Some(Upload | Expensive))
}

/// Who is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Caller {
    Known(Principal),
    From(IpAddr),
}

/// One IPv6 customer owns a /64.
fn block(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & (u128::MAX << 64)).into()),
    }
}

/// The counts of this replica.
pub struct Limits {
    kinds: [Buckets<Caller>; 8],
    refused: Buckets<IpAddr>,
    turns: Turns,
    known: Mutex<Fleeting<[u8; 32], Principal>>,
}

impl Limits {
    /// `lookups`: how many connections of gateways may look up unknown keys at once.
    pub fn new(rates: &config::Limits, lookups: usize) -> Self {
        let rate = |(kind, _)| match kind {
            SignIn => rates.sign_in,
            Register => rates.register,
            Enrol => rates.enrol,
            Read => rates.read,
            Write => rates.write,
            Upload => rates.upload,
            Picture => rates.picture,
            Expensive => rates.expensive,
        };
        Self {
            kinds: KINDS.map(|kind| Buckets::new(rate(kind))),
            refused: Buckets::new(rates.refused),
            turns: Turns::new(lookups),
            known: Mutex::new(Fleeting::new(CREDENTIALS)),
        }
    }

    fn known(&self, hash: &[u8; 32], now: Instant) -> Option<Principal> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(hash, now).map(|(_, principal)| *principal)
    }

    /// Counts a request of a kind.
    ///
    /// # Errors
    /// It is one too many; the name and rate it broke, and what is left.
    fn count(
        &self,
        kind: Kind,
        bearer: Option<&[u8; 32]>,
        from: IpAddr,
        now: Instant,
    ) -> Result<Counted, Counted> {
        let known = bearer.and_then(|hash| self.known(hash, now));
        if bearer.is_some() && known.is_none() {
            let refused = |left| Counted { name: "refused", rate: self.refused.rate(), left };
            self.refused.look(&from, now).map_err(refused)?;
        }
        let caller = known.map_or(Caller::From(from), Caller::Known);
        let at = KINDS.iter().position(|(known, _)| *known == kind).unwrap_or_default();
        let counted = |left| Counted { name: KINDS[at].1, rate: self.kinds[at].rate(), left };
        self.kinds[at].take(caller, now).map(counted).map_err(counted)
    }

    /// What became of a credential.
    fn learn(&self, hash: [u8; 32], accepted: Option<Principal>, refused: bool, from: IpAddr, now: Instant) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if refused {
            known.remove(&hash);
            drop(known);
            // A guess beyond the last one that fits is refused before it is looked at.
            let _ = self.refused.take(from, now);
        } else if let Some(principal) = accepted {
            known.put(hash, now + KNOWN, principal, now);
        }
    }
}

#[derive(Debug)]
struct Counted {
    name: &'static str,
    rate: Rate,
    left: Left,
}

impl Counted {
    fn seconds(&self) -> u64 {
        self.left.wait.as_secs() + u64::from(self.left.wait.subsec_nanos() > 0)
    }

    /// As draft-ietf-httpapi-ratelimit-headers has them.
    fn tell(&self, headers: &mut HeaderMap) {
        let Self { name, rate, left } = self;
        let policy = format!("\"{name}\";q={};w={}", rate.quota, rate.window.as_secs());
        let left = format!("\"{name}\";r={};t={}", left.remaining, self.seconds());
        for (header, text) in [(POLICY, policy), (LEFT, left)] {
            if let Ok(value) = HeaderValue::from_str(&text) {
                headers.insert(header, value);
            }
        }
    }
}

/// Counts every request and turns away those beyond their caller's rate.
pub(crate) async fn limit(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let limits = request.app_data::<web::Data<Limits>>().cloned();
    let kind = kind(request.method(), request.match_pattern().as_deref());
    let door = is_door(&request);
    let Some(limits) = limits.filter(|_| door || kind.is_some()) else {
        return Ok(next.call(request).await?.map_into_boxed_body());
    };
    let from = block(client_address(request.request()));
    let bearer = principal::bearer_hash(request.headers());
    let count = |kind| limits.count(kind, bearer.as_ref(), from, Instant::now());
    let counted = match kind.map(count).transpose() {
        Ok(counted) => counted,
        Err(counted) => {
            let known = bearer.and_then(|hash| limits.known(&hash, Instant::now()));
            if let Some(Principal::Person(user_id)) = known {
                principal::accept_person(request.request(), user_id);
            }
            let mut response = refuse(request, Error::TooMany { retry_after: counted.seconds() });
            counted.tell(response.headers_mut());
            return Ok(response);
        }
    };
    let mut response = next.call(request).await?.map_into_boxed_body();
    if let Some(hash) = bearer {
        let refused = response.status() == StatusCode::UNAUTHORIZED;
        limits.learn(hash, principal::accepted(response.request()), refused, from, Instant::now());
    }
    if let Some(counted) = counted {
        counted.tell(response.headers_mut());
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn limits() -> Limits {
        let mut config = Config::load(None).unwrap().limits;
        config.read = "2/1m".parse().unwrap();
        config.refused = "3/1m".parse().unwrap();
        Limits::new(&config, 2)
    }

    fn from(text: &str) -> IpAddr {
        block(text.parse().unwrap())
    }

    #[test]
    fn an_ipv6_customer_shares_one_rate() {
        let (limits, now) = (limits(), Instant::now());
        let count = |address: &str| limits.count(Read, None, from(address), now).is_ok();
        assert!(count("2001:db8::1") && count("2001:db8::2"));
        assert!(!count("2001:db8::3"), "a neighbour in the same /64");
        assert!(count("2001:db8:0:1::1") && count("192.0.2.1"));
        assert!(limits.count(Write, None, from("2001:db8::1"), now).is_ok(), "another kind");
    }

    #[test]
    fn people_behind_one_address_are_counted_by_themselves_once_their_token_was_good() {
        let (limits, now, school) = (limits(), Instant::now(), from("192.0.2.1"));
        let tokens: Vec<[u8; 32]> = (0..20).map(|n| [n; 32]).collect();
        for (token, user) in tokens.iter().zip([1, 1, 2]) {
            limits.learn(*token, Some(Principal::Person(user)), false, school, now);
        }
        let read = |n: usize| limits.count(Read, Some(&tokens[n]), school, now).is_ok();
        assert!(read(0) && read(1));
        assert!(!read(0) && !read(1), "two sign-ins of one person have one rate");
        assert!(read(2), "another person");
        assert!(read(3) && read(4), "strangers");
        assert!(!read(5), "strangers have the address's rate, however many tokens they think of");
        assert!(limits.count(Read, None, school, now).is_err());
    }

    #[test]
    fn guessing_keys_is_slow_and_harms_nobody_whose_key_is_good() {
        let (limits, now, school) = (limits(), Instant::now(), from("192.0.2.1"));
        let (good, guess) = ([1; 32], [2; 32]);
        limits.learn(good, Some(Principal::Key(good)), false, school, now);
        for _ in 0..3 {
            assert!(limits.count(Write, Some(&guess), school, now).is_ok());
            limits.learn(guess, None, true, school, now);
        }
        let refused = limits.count(Write, Some(&guess), school, now).unwrap_err();
        assert_eq!((refused.name, refused.seconds()), ("refused", 20));
        assert!(limits.count(Write, Some(&guess), from("192.0.2.2"), now).is_ok());
        assert!(limits.count(Write, Some(&good), school, now).is_ok());
        // One that was revoked is a stranger's from then on.
        limits.learn(good, None, true, school, now);
        assert!(limits.count(Write, Some(&good), school, now).is_err());
    }

    #[test]
    fn every_endpoint_has_a_kind() {
        for (method, pattern, expected) in [
            (Method::GET, Some("/api/scans"), Some(Read)),
            (Method::HEAD, Some("/api/scans"), Some(Read)),
            (Method::HEAD, Some("/livez"), None),
            (Method::HEAD, Some("/files/{name}"), Some(Picture)),
            (Method::POST, Some("/api/auth/login"), Some(SignIn)),
            (Method::DELETE, Some("/api/auth/login"), Some(Write)),
            (Method::OPTIONS, Some("/api/auth/login"), None),
            (Method::POST, Some("/api/sync_gateway_data"), None),
            (Method::GET, None, Some(Read)),
        ] {
            assert_eq!(kind(&method, pattern), expected, "{method} {pattern:?}");
        }
    }

    #[test]
    fn the_headers_are_as_the_draft_has_them() {
        let (limits, now) = (limits(), Instant::now());
        let counted = limits.count(Read, None, from("192.0.2.1"), now).unwrap_or_else(|counted| counted);
        let mut headers = HeaderMap::new();
        counted.tell(&mut headers);
        assert_eq!(headers.get(POLICY).unwrap(), "\"read\";q=2;w=60");
        assert_eq!(headers.get(LEFT).unwrap(), "\"read\";r=1;t=30");
    }
}
