//! Who is signed in, and what they were granted. A token is good as long as its session is: not ended, not
//! expired, its account active.
//!
//! What must stay true:
//! - Every replica asks the database at least once a second for a session in use, so that signing out, a ban
//!   or a withdrawn grant is felt everywhere within a second.
//! - Whoever must have a second factor and has none does nothing but get one.
//! - What was learnt is dated by when it was asked, not by when the answer came.

use super::entries::did;
use super::grants::Granted;
use super::notices;
use super::people::People;
use super::refresh::{self, Handed, Session};
use super::roles::Role;
use super::secret;
use super::tokens::Named;
use crate::audit::{Action, Actor, By, Origin};
use crate::error::{Error, Result};
use crate::guards::{self, bearer};
use crate::state::State;
use actix_web::dev::Payload;
use actix_web::http::header;
use actix_web::{FromRequest, HttpRequest, web};
use chrono::Utc;
use sqlx::{PgConnection, PgPool};
use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a token is good that is not renewed: its clients ask for the password once a day.
const LASTS: chrono::Duration = chrono::Duration::hours(24);
/// How long an answer of the database is believed.
const BELIEVED: Duration = Duration::from_millis(800);
/// Sessions remembered at most.
const REMEMBERED: usize = 10_000;

/// A person with a good session. As a handler's argument it refuses everyone else with 401.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    pub user_id: i64,
    pub session_id: i64,
    pub role: Role,
    /// None for those who were granted nothing.
    pub(super) granted: Option<Arc<Granted>>,
    /// Asked to have a second factor, and without one.
    must_enrol: bool,
}

impl Person {
    pub fn is_admin(&self) -> bool {
        self.role == Role::Admin
    }

    fn enrolled(self) -> Result<Self> {
        if self.must_enrol { Err(Error::Forbidden("TOTP_ENROLMENT_REQUIRED")) } else { Ok(self) }
    }

    /// Whoever changes something by this request.
    pub fn by(&self, request: &HttpRequest) -> By {
        By::request(Actor::Person(self.user_id), request)
    }

    /// A `user_id` in a body may only be the caller's own.
    ///
    /// # Errors
    /// `OTHER_USER`.
    pub fn must_be(&self, user_id: Option<i64>) -> Result<()> {
        if user_id.is_some_and(|id| id != self.user_id) {
            Err(Error::Forbidden("OTHER_USER"))
        } else {
            Ok(())
        }
    }
}

impl FromRequest for Person {
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self>>>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let request = request.clone();
        Box::pin(async move { come(&request).await?.enrolled() })
    }
}

/// A person with a good session, also one who must get a second factor before anything else: for getting it, and
/// for leaving.
pub(super) struct Enrolling(pub Person);

impl FromRequest for Enrolling {
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self>>>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let request = request.clone();
        Box::pin(async move { come(&request).await.map(Self) })
    }
}

async fn come(request: &HttpRequest) -> Result<Person> {
    let state = request.app_data::<web::Data<State>>().ok_or(Error::Unauthenticated)?;
    let people = request.app_data::<web::Data<People>>().ok_or(Error::Unauthenticated)?;
    let token = bearer(request.headers()).ok_or(Error::Unauthenticated)?;
    let person = named_by(state, people, token).await?;
    guards::accept_person(request, person.user_id);
    Ok(person)
}

/// Whose token it is, of those who may do more than get a second factor.
pub(super) async fn authenticate(state: &State, people: &People, token: &str) -> Result<Person> {
    named_by(state, people, token).await?.enrolled()
}

async fn named_by(state: &State, people: &People, token: &str) -> Result<Person> {
    let named = people.tokens.read(token, Utc::now().timestamp()).ok_or(Error::Unauthenticated)?;
    people.sessions.find(&state.people, &named, &state.config.people.totp_required_for).await
}

/// What the database lately said of sessions in use.
#[derive(Default)]
pub(super) struct Sessions {
    known: Mutex<HashMap<Vec<u8>, (Instant, Person)>>,
}

impl Sessions {
    async fn find(&self, pool: &PgPool, named: &Named, second_factor_for: &[String]) -> Result<Person> {
        let (hash, asked) = (secret::hash(&named.token_id), Instant::now());
        if let Some(person) = self.remembered(&hash, asked) {
            return if person.user_id == named.user_id { Ok(person) } else { Err(Error::Unauthenticated) };
        }
        let row = sqlx::query!(
            r#"select s.session_id, u.role as "role: Role", s.last_seen_at < now() - interval '1 minute' as "unseen!",
                   array(select r.programme_id from role_grant r
                       where r.user_id = u.user_id and r.role = 'operator' and r.programme_id is not null)
                       as "programmes!: Vec<i32>",
                   array(select distinct coalesce(r.site_id, t.site_id) from role_grant r
                       left join site t on t.programme_id = r.programme_id
                       where r.user_id = u.user_id and r.role = 'operator'
                           and coalesce(r.site_id, t.site_id) is not null) as "operates!: Vec<i32>",
                   array(select distinct coalesce(r.site_id, t.site_id) from role_grant r
                       left join site t on t.programme_id = r.programme_id
                       where r.user_id = u.user_id and coalesce(r.site_id, t.site_id) is not null)
                       as "sees!: Vec<i32>",
                   exists (select from role_grant r where r.user_id = u.user_id) as "granted!",
                   (u.role = any($3)
                       or exists (select from role_grant r where r.user_id = u.user_id and r.role = any($3)))
                   and not exists (select from user_totp f where f.user_id = u.user_id and f.confirmed_at is not null)
                       as "must_enrol!"
               from user_session s join app_user u using (user_id)
               where s.token_id_hash = $1 and s.user_id = $2 and s.revoked_at is null and s.expires_at > now()
                   and u.is_active"#,
            hash,
            named.user_id,
            second_factor_for
        )
        .fetch_optional(pool)
        .await?
        .ok_or(Error::Unauthenticated)?;
        if row.unseen {
            sqlx::query!(
                "update user_session set last_seen_at = now() where session_id = $1",
                row.session_id
            )
            .execute(pool)
            .await?;
        }
        let granted = row.granted.then(|| {
            let (programmes, operates, sees) = (row.programmes, row.operates, row.sees.into());
            Arc::new(Granted { programmes, operates, sees })
        });
        let (user_id, session_id) = (named.user_id, row.session_id);
        let person = Person { user_id, session_id, role: row.role, granted, must_enrol: row.must_enrol };
        self.remember(hash, asked, person.clone());
        Ok(person)
    }

    fn remembered(&self, hash: &[u8], now: Instant) -> Option<Person> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known
            .get(hash)
            .filter(|(asked, _)| now.saturating_duration_since(*asked) < BELIEVED)
            .map(|(_, person)| person.clone())
    }

    fn remember(&self, hash: Vec<u8>, asked: Instant, person: Person) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED {
            known.retain(|_, (at, _)| asked.saturating_duration_since(*at) < BELIEVED);
            if known.len() >= REMEMBERED {
                known.clear();
            }
        }
        known.insert(hash, (asked, person));
    }

    /// What was known of these sessions is asked anew.
    pub(super) fn forget(&self, which: impl Fn(&Person) -> bool) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, (_, person)| !which(person));
    }
}

/// Opens a session and clears away the person's old ones; what is handed out for it. The person is told when nobody
/// signed in by that program from that network before. With `refresh` the app
/// renews short tokens, else it has one for a day.
pub(super) async fn open(
    conn: &mut PgConnection,
    people: &People,
    user_id: i64,
    request: &HttpRequest,
    refresh: bool,
) -> Result<Handed> {
    let token_id = secret::draw_key("")?;
    let now = Utc::now();
    let expires = now + if refresh { refresh::IDLE } else { LASTS };
    let (agent, network) = (user_agent(request), Origin::of(request).address);
    let is_new = sqlx::query_scalar!(
        r#"select created_at < now() and not exists (select from user_session s where s.user_id = u.user_id
               and s.user_agent is not distinct from $2 and (s.network is null or s.network = $3)) as "new!"
           from app_user u where user_id = $1"#,
        user_id,
        agent,
        network
    )
    .fetch_one(&mut *conn)
    .await?;
    if is_new {
        notices::new_sign_in(conn, user_id, agent.as_deref(), network.as_deref()).await?;
    }
    let session_id = sqlx::query_scalar!(
        "insert into user_session (user_id, token_id_hash, user_agent, network, expires_at, token_key_mark)
         values ($1, $2, $3, $4, $5, $6) returning session_id",
        user_id,
        secret::hash(&token_id),
        agent,
        network,
        expires,
        people.tokens.mark()
    )
    .fetch_one(&mut *conn)
    .await?;
    sqlx::query!(
        "delete from user_session where user_id = $1 and expires_at < now() - interval '30 days'",
        user_id
    )
    .execute(&mut *conn)
    .await?;
    let named = Named { user_id, token_id };
    if refresh {
        return refresh::pair(conn, people, Session { session_id, named, expires }).await;
    }
    let token = people.tokens.issue(&named, now.timestamp(), expires.timestamp())?;
    Ok(Handed { token, refresh_token: None, expires_in: None })
}

/// Ends every session of an account but one, and the sign-ins that are half done.
pub(super) async fn end_all(conn: &mut PgConnection, user_id: i64, but: Option<i64>) -> sqlx::Result<()> {
    sqlx::query!(
        "update user_session set revoked_at = now()
         where user_id = $1 and session_id is distinct from $2 and revoked_at is null",
        user_id,
        but
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!("delete from sign_in_challenge where user_id = $1", user_id).execute(conn).await?;
    Ok(())
}

/// Ends one session of a person.
///
/// # Errors
/// `NOT_FOUND` when it is not one of theirs, or the database's.
pub(super) async fn end(
    state: &State,
    people: &People,
    person: &Person,
    session_id: i64,
    request: &HttpRequest,
    action: Action,
) -> Result<()> {
    let mut tx = state.people.begin().await?;
    sqlx::query_scalar!(
        "update user_session set revoked_at = coalesce(revoked_at, now()) where session_id = $1 and user_id = $2
         returning session_id",
        session_id,
        person.user_id
    )
    .fetch_optional(&mut *tx)
    .await?
    .ok_or(Error::NotFound("NOT_FOUND"))?;
    did(&mut tx, request, person.user_id, action).await?;
    tx.commit().await?;
    people.sessions.forget(|other| other.session_id == session_id);
    Ok(())
}

/// What the client calls itself, cut short: enough for people to know their own devices.
fn user_agent(request: &HttpRequest) -> Option<String> {
    let agent = request.headers().get(header::USER_AGENT)?.to_str().ok()?;
    Some(agent.chars().take(128).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_learnt_of_a_session_is_believed_for_less_than_a_second() {
        let (sessions, asked) = (Sessions::default(), Instant::now());
        let person = Person { user_id: 1, session_id: 2, role: Role::User, granted: None, must_enrol: false };
        sessions.remember(vec![1], asked, person.clone());
        assert_eq!(sessions.remembered(&[1], asked), Some(person.clone()));
        assert_eq!(sessions.remembered(&[1], asked + Duration::from_millis(799)), Some(person));
        assert_eq!(sessions.remembered(&[1], asked + Duration::from_millis(800)), None);
    }

    #[test]
    fn a_session_that_ended_here_is_forgotten_at_once() {
        let (sessions, asked) = (Sessions::default(), Instant::now());
        for id in [1, 2] {
            sessions.remember(
                vec![id],
                asked,
                Person {
                    user_id: 1,
                    session_id: id.into(),
                    role: Role::User,
                    granted: None,
                    must_enrol: false,
                },
            );
        }
        sessions.forget(|person| person.session_id == 1);
        assert_eq!(sessions.remembered(&[1], asked), None);
        assert!(sessions.remembered(&[2], asked).is_some());
    }
}
