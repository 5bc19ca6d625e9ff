//! A row of the table: one endpoint, whom it serves, an example of it, and what it refuses. How to write one is
//! told in `mod.rs`.

use super::callers::{Account, Caller, Stage};
use anyhow::{Context, Result, ensure};
use futures_util::future::LocalBoxFuture;
use reqwest::Method;
use serde_json::{Map, Value, json};

/// Whom an endpoint serves. Everyone else gets 401, or 403 when they are known and may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum For {
    Anyone,
    /// Read keys, admins, and those who were granted a place, who see what is of their places only.
    Readers,
    /// Who may see how the program does: read and metrics keys, admins.
    Watchers,
    Gateways,
    /// Whoever is signed in.
    People,
    /// Admins.
    Admins,
    /// Admins; everyone else is told that there is nothing.
    AdminsUnseen,
    /// Who looks after places: keys for them, admins, operators of theirs.
    Placers,
    /// Who looks after gateways: keys for them, admins, operators of theirs.
    Enrollers,
}

impl For {
    /// One of those who may.
    pub(super) fn allowed(self) -> Caller {
        match self {
            Self::Anyone => Caller::Nobody,
            Self::Readers | Self::Watchers => Caller::ReadKey,
            Self::Gateways => Caller::Gateway,
            Self::People => Caller::User,
            Self::Admins | Self::AdminsUnseen => Caller::Admin,
            Self::Placers => Caller::PlacesKey,
            Self::Enrollers => Caller::EnrolKey,
        }
    }

    /// What the document must name as its security.
    pub(super) fn security(self) -> &'static [&'static str] {
        match self {
            Self::Anyone => &[],
            Self::Readers | Self::Watchers | Self::Placers | Self::Enrollers => &["access_key", "session"],
            Self::Gateways => &["gateway_key"],
            Self::People | Self::Admins | Self::AdminsUnseen => &["session"],
        }
    }

    /// How it refuses a caller; none when it serves them.
    fn refuses(self, caller: Caller) -> Option<u16> {
        use Caller::{
            Admin, EnrolKey, Gateway, MetricsKey, Officer, Operator, OtherOperator, PlacesKey, ReadKey,
            RevokedGateway,
        };
        match (self, caller) {
            (Self::Anyone, _) | (Self::Gateways, Gateway) => None,
            (Self::Readers, ReadKey | Admin | Operator | OtherOperator | Officer) => None,
            (Self::Watchers, ReadKey | MetricsKey | Admin) | (Self::Admins | Self::AdminsUnseen, Admin) => {
                None
            }
            (Self::Placers, PlacesKey | Admin | Operator) => None,
            (Self::Enrollers, EnrolKey | Admin | Operator) => None,
            (Self::People, person) if person.is_person() => None,
            (Self::AdminsUnseen, _) => Some(404),
            (Self::Admins, person) if person.is_person() => Some(403),
            (Self::Gateways, RevokedGateway) => Some(403),
            (Self::Readers | Self::Watchers | Self::Placers | Self::Enrollers, known)
                if known.is_person() || known.is_key() =>
            {
                Some(403)
            }
            _ => Some(401),
        }
    }
}

/// A request's body.
#[derive(Debug, Clone)]
pub(super) enum Body {
    Json(Value),
    /// Anything else, by its content type.
    Bytes(Option<&'static str>, Vec<u8>),
}

impl From<Value> for Body {
    fn from(body: Value) -> Self {
        Self::Json(body)
    }
}

/// Makes what a call needs; the members of the object that it answers fill places of the example.
type Given = Box<dyn for<'a> Fn(&'a Stage, &'a Account) -> LocalBoxFuture<'a, Result<Value>>>;

pub(super) struct Refusal {
    pub(super) by: Caller,
    pub(super) target: &'static str,
    pub(super) body: Option<Body>,
    pub(super) status: u16,
    pub(super) code: &'static str,
}

pub(super) struct Row {
    pub(super) method: Method,
    /// Its name in the document.
    pub(super) path: &'static str,
    pub(super) example: &'static str,
    pub(super) whose: For,
    pub(super) body: Option<Body>,
    answer: u16,
    otherwise: Vec<(Caller, u16)>,
    fresh: bool,
    given: Option<Given>,
    pub(super) refused: Vec<Refusal>,
    /// Documented refusals that a story elsewhere provokes, which it names.
    pub(super) elsewhere: Vec<(u16, &'static str)>,
}

pub(super) fn get(path: &'static str, whose: For) -> Row {
    Row {
        method: Method::GET,
        path,
        example: path,
        whose,
        body: None,
        answer: 200,
        otherwise: Vec::new(),
        fresh: false,
        given: None,
        refused: Vec::new(),
        elsewhere: Vec::new(),
    }
}

pub(super) fn post(path: &'static str, whose: For, body: impl Into<Option<Value>>) -> Row {
    Row { method: Method::POST, body: body.into().map(Body::Json), ..get(path, whose) }
}

pub(super) fn upload(path: &'static str, whose: For, body: Body) -> Row {
    Row { body: Some(body), ..post(path, whose, None) }
}

pub(super) fn put(path: &'static str, whose: For, body: Value) -> Row {
    Row { method: Method::PUT, ..post(path, whose, body) }
}

pub(super) fn delete(path: &'static str, whose: For) -> Row {
    Row { method: Method::DELETE, ..get(path, whose) }
}

impl Row {
    /// Path and query of a call, for a path that has places to fill or a query that is needed.
    pub(super) fn example(mut self, example: &'static str) -> Self {
        self.example = example;
        self
    }

    /// The JSON body of a method that seldom has one.
    pub(super) fn body(mut self, body: Value) -> Self {
        self.body = Some(Body::Json(body));
        self
    }

    /// The status for those who may call; 200 when nobody says.
    pub(super) fn answered(mut self, status: u16) -> Self {
        self.answer = status;
        self
    }

    /// The status for one kind of caller, who is not answered like the rest.
    pub(super) fn but(mut self, caller: Caller, status: u16) -> Self {
        self.otherwise.push((caller, status));
        self
    }

    /// Every call of a person is by an account of its own, because the call changes or ends something of it.
    pub(super) fn fresh(mut self) -> Self {
        self.fresh = true;
        self
    }

    /// What must be there before each call.
    pub(super) fn given(
        mut self,
        given: impl for<'a> Fn(&'a Stage, &'a Account) -> LocalBoxFuture<'a, Result<Value>> + 'static,
    ) -> Self {
        self.given = Some(Box::new(given));
        self
    }

    /// A call without a body, by somebody who may, that is refused.
    pub(super) fn refuses(self, target: &'static str, status: u16, code: &'static str) -> Self {
        let by = self.whose.allowed();
        self.refuses_of(by, target, None, status, code)
    }

    /// A body, sent by somebody who may, that is refused.
    pub(super) fn refuses_body(self, body: impl Into<Body>, status: u16, code: &'static str) -> Self {
        let (by, target) = (self.whose.allowed(), self.example);
        self.refuses_of(by, target, Some(body.into()), status, code)
    }

    /// A call that is refused to this caller.
    pub(super) fn refuses_of(
        mut self,
        by: Caller,
        target: &'static str,
        body: Option<Body>,
        status: u16,
        code: &'static str,
    ) -> Self {
        self.refused.push(Refusal { by, target, body, status, code });
        self
    }

    /// A documented refusal that only a story of its own can provoke: its status, and that story.
    pub(super) fn told_in(mut self, status: u16, story: &'static str) -> Self {
        self.elsewhere.push((status, story));
        self
    }

    pub(super) fn name(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    /// The status that a caller gets for the example.
    pub(super) fn expected(&self, caller: Caller) -> u16 {
        let otherwise = self.otherwise.iter().find(|(kind, _)| *kind == caller).map(|(_, status)| *status);
        otherwise.or_else(|| self.whose.refuses(caller)).unwrap_or(self.answer)
    }

    /// A call of this endpoint as `caller`, with every place filled.
    pub(super) async fn call(
        &self,
        stage: &Stage,
        caller: Caller,
        target: &str,
        body: Option<&Body>,
    ) -> Result<reqwest::RequestBuilder> {
        let account = if self.fresh && caller.is_person() {
            stage.account(caller).await?
        } else {
            stage.standing(caller)?.clone()
        };
        let mut places = Map::new();
        for (place, value) in [
            ("me", json!(account.user_id)),
            ("session", json!(account.session_id)),
            ("email", json!(account.email)),
            ("username", json!(account.username)),
            ("n", json!(stage.draw())),
        ] {
            places.insert(place.to_owned(), value);
        }
        if let Some(given) = &self.given {
            let Value::Object(more) = given(stage, &account).await? else {
                anyhow::bail!("{}: what is given must be an object", self.name())
            };
            places.extend(more);
        }
        let target = fill(target, &places);
        ensure!(!target.contains('{'), "{}: nothing fills {target}", self.name());
        let request = stage.request(&self.method, &target, caller, &account);
        Ok(match body {
            None => request,
            Some(Body::Json(body)) => {
                let body = fill_json(body, &places);
                request.header("content-type", "application/json").body(body.to_string())
            }
            Some(Body::Bytes(kind, bytes)) => match kind {
                Some(kind) => request.header("content-type", *kind).body(bytes.clone()),
                None => request.body(bytes.clone()),
            },
        })
    }

    /// [`Self::call`] of the example.
    pub(super) async fn usual(&self, stage: &Stage, caller: Caller) -> Result<reqwest::RequestBuilder> {
        let called = self.call(stage, caller, self.example, self.body.as_ref()).await;
        called.with_context(|| format!("{} by {caller:?}", self.name()))
    }
}

/// A text with its places filled.
fn fill(text: &str, places: &Map<String, Value>) -> String {
    places.iter().fold(text.to_owned(), |text, (place, value)| {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        text.replace(&format!("{{{place}}}"), &value)
    })
}

/// The same in a body, where a text that is nothing but a place becomes the value itself.
fn fill_json(body: &Value, places: &Map<String, Value>) -> Value {
    match body {
        Value::String(text) => {
            let whole = text.strip_prefix('{').and_then(|text| text.strip_suffix('}'));
            whole.and_then(|place| places.get(place)).cloned().unwrap_or_else(|| json!(fill(text, places)))
        }
        Value::Array(items) => items.iter().map(|item| fill_json(item, places)).collect(),
        Value::Object(members) => {
            Value::Object(members.iter().map(|(k, v)| (k.clone(), fill_json(v, places))).collect())
        }
        other => other.clone(),
    }
}
