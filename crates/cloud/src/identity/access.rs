//! Who may do what: admins, people by their grants, access keys by their scopes, and in development whoever sits
//! at this machine. The table of it all is in `docs/decisions/`.
//!
//! A handler names its caller: a [`SiteReader`] sees only some sites' rows and the handler must filter by them, a
//! [`MetricsReader`] sees the program's own figures. What cannot tell sites apart is for those who see all of them.

use super::grants::{Granted, Sites};
use super::keys::{self, Key, Scope};
use super::people::People;
use super::secret;
use super::sessions::{Person, authenticate};
use crate::audit::{Actor, By};
use crate::error::{Error, Result};
use crate::guards::{self, bearer};
use crate::state::State;
use actix_web::dev::Payload;
use actix_web::http::header;
use actix_web::{FromRequest, HttpRequest, web};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

/// Whoever asks, by what came with the request. As a handler's argument it refuses strangers with 401.
#[derive(Debug, Clone)]
pub enum Caller {
    /// At this machine, in development, without a key. Reads, and changes nothing.
    Here,
    Key(Key),
    Person(Person),
}

impl Caller {
    /// Whose scans, readings and gateways they may read.
    ///
    /// # Errors
    /// `NOT_GRANTED`.
    pub fn reads(&self) -> Result<Sites> {
        match self {
            Self::Key(key) if !key.opens(Scope::Read) => Err(Error::Forbidden("NOT_GRANTED")),
            Self::Person(person) => person.reads(),
            Self::Here | Self::Key(_) => Ok(Sites::All),
        }
    }

    /// Programmes that are theirs as a whole, beside those of the sites they read.
    pub fn programmes(&self) -> &[i32] {
        match self {
            Self::Person(Person { granted: Some(granted), .. }) => &granted.programmes,
            _ => &[],
        }
    }

    /// What they may change, and who it is that changes it: a key with that scope, an admin, an operator.
    ///
    /// # Errors
    /// `NOT_GRANTED`; 401 for whoever came without a key.
    pub fn tends(&self, scope: Scope, request: &HttpRequest) -> Result<(Tended, By)> {
        match self {
            Self::Here => Err(Error::Unauthenticated),
            Self::Key(key) if key.opens(scope) => {
                Ok((Tended::Everything, By::request(Actor::Key(key.id), request)))
            }
            Self::Key(_) => Err(Error::Forbidden("NOT_GRANTED")),
            Self::Person(person) => {
                let by = person.by(request);
                match &person.granted {
                    _ if person.is_admin() => Ok((Tended::Everything, by)),
                    Some(granted) => Ok((Tended::Granted(Arc::clone(granted)), by)),
                    None => Err(Error::Forbidden("NOT_GRANTED")),
                }
            }
        }
    }
}

/// The places that somebody may change. What is not theirs and what is not there are refused alike, so that
/// nobody learns which codes other programmes have.
#[derive(Debug)]
pub enum Tended {
    Everything,
    Granted(Arc<Granted>),
}

impl Tended {
    /// # Errors
    /// `NOT_GRANTED`.
    pub fn everything(&self) -> Result<()> {
        allowed(matches!(self, Self::Everything))
    }

    /// A programme, its name and its sites.
    ///
    /// # Errors
    /// `NOT_GRANTED`.
    pub fn programme(&self, programme_id: Option<i32>) -> Result<()> {
        match self {
            Self::Everything => Ok(()),
            Self::Granted(granted) => {
                allowed(programme_id.is_some_and(|id| granted.programmes.contains(&id)))
            }
        }
    }

    /// The gateways of a site.
    ///
    /// # Errors
    /// `NOT_GRANTED`.
    pub fn gateways_at(&self, site_id: Option<i32>) -> Result<()> {
        match self {
            Self::Everything => Ok(()),
            Self::Granted(granted) => allowed(site_id.is_some_and(|id| granted.operates.contains(&id))),
        }
    }
}

fn allowed(is: bool) -> Result<()> {
    is.then_some(()).ok_or(Error::Forbidden("NOT_GRANTED"))
}

impl Person {
    fn reads(&self) -> Result<Sites> {
        match &self.granted {
            _ if self.is_admin() => Ok(Sites::All),
            Some(granted) => Ok(Sites::Only(granted.sees.clone())),
            None => Err(Error::Forbidden("NOT_GRANTED")),
        }
    }
}

type Coming<T> = Pin<Box<dyn Future<Output = Result<T>>>>;

impl FromRequest for Caller {
    type Error = Error;
    type Future = Coming<Self>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let (pass, request) = (Pass::of(request), request.clone());
        Box::pin(async move { pass?.holder_for(&request).await })
    }
}

/// What a request came with, to be asked again while its answer goes on.
#[derive(Clone)]
struct Pass {
    state: web::Data<State>,
    people: web::Data<People>,
    bearer: Option<String>,
    /// In development, from this machine and without a key.
    here: bool,
}

impl Pass {
    fn of(request: &HttpRequest) -> Result<Self> {
        let state = request.app_data::<web::Data<State>>().cloned().ok_or(Error::Unauthenticated)?;
        let people = request.app_data::<web::Data<People>>().cloned().ok_or(Error::Unauthenticated)?;
        let bare = !request.headers().contains_key(header::AUTHORIZATION);
        let here = bare && develops_here(request, &state);
        Ok(Self { bearer: bearer(request.headers()).map(str::to_owned), state, people, here })
    }

    /// Whose it is, told to the limits on how often they may ask.
    async fn holder_for(&self, request: &HttpRequest) -> Result<Caller> {
        let caller = self.holder().await?;
        match &caller {
            Caller::Here => {}
            Caller::Key(_) => guards::accept_key(request),
            Caller::Person(person) => guards::accept_person(request, person.user_id),
        }
        Ok(caller)
    }

    async fn holder(&self) -> Result<Caller> {
        if self.here {
            return Ok(Caller::Here);
        }
        let bearer = self.bearer.as_deref().ok_or(Error::Unauthenticated)?;
        if bearer.starts_with(keys::PREFIX) {
            return keys::find(&self.state.people, &secret::hash(bearer)).await.map(Caller::Key);
        }
        authenticate(&self.state, &self.people, bearer).await.map(Caller::Person)
    }
}

/// Someone who may read everything of `sites`; the handler shows no other site's rows. Refuses strangers with
/// 401, and with 403 `NOT_GRANTED` people who were granted nothing: whoever wants an account may open one.
#[derive(Clone)]
pub struct SiteReader {
    pub sites: Sites,
    pass: Pass,
}

impl SiteReader {
    /// What the same key or sign-in may read now: for answers that go on for long.
    ///
    /// # Errors
    /// When it is nothing any more, or the database's.
    pub async fn again(&self) -> Result<Sites> {
        self.pass.holder().await?.reads()
    }
}

impl FromRequest for SiteReader {
    type Error = Error;
    type Future = Coming<Self>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let (pass, request) = (Pass::of(request), request.clone());
        Box::pin(async move {
            let pass = pass?;
            let sites = pass.holder_for(&request).await?.reads()?;
            Ok(Self { sites, pass })
        })
    }
}

/// Someone who may see how the program itself is doing: whoever reads everything, and keys for just that.
#[derive(Debug)]
pub struct MetricsReader;

impl FromRequest for MetricsReader {
    type Error = Error;
    type Future = Coming<Self>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let caller = Caller::from_request(request, payload);
        Box::pin(async move {
            match caller.await? {
                Caller::Key(key) if key.opens(Scope::Metrics) => Ok(Self),
                caller if matches!(caller.reads()?, Sites::All) => Ok(Self),
                _ => Err(Error::Forbidden("NOT_GRANTED")),
            }
        })
    }
}

/// Whether development is on and the client sits at this machine.
pub fn develops_here(request: &HttpRequest, state: &State) -> bool {
    state.config.development.open_loopback && sits_here(request)
}

/// A client on this machine that was not sent on by a proxy, nor by a page whose name was bent to this
/// address: it must have asked for this machine by a name of its own.
fn sits_here(request: &HttpRequest) -> bool {
    let forwarded = ["forwarded", "x-forwarded-for", "x-real-ip"];
    guards::asks_for_loopback(request)
        && request.peer_addr().is_some_and(|peer| peer.ip().is_loopback())
        && !forwarded.iter().any(|name| request.headers().contains_key(*name))
}
