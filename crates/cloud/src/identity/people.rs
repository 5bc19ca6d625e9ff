//! `POST /api/auth/register`, `/login` and `/logout`.

use super::bans;
use super::consent::{self, Consent};
use super::entries::did;
use super::letters::{self, Addressee, Purpose};
use super::owner::{self, Account};
use super::passwords::{Checked, Password, Passwords};
use super::profile::{self, Profile};
use super::refresh::Handed;
use super::second_factor::sign_in;
use super::sessions::{self, Enrolling, Sessions};
use super::tokens::Tokens;
use crate::audit::Action;
use crate::error::{Error, Result, language_of};
use crate::guards;
use crate::json::Json;
use crate::outside::Google;
use crate::sealed::{Kept, Vault};
use crate::state::State;
use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, post, web};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tokio::sync::Semaphore;
use utoipa::ToSchema;

pub(super) fn routes(routes: &mut web::ServiceConfig) {
    routes.service(register).service(login).service(logout);
}

#[derive(utoipa::OpenApi)]
#[openapi(paths(register, login, logout))]
pub(crate) struct Docs;

/// What signing in needs; shared by all workers of this replica.
pub struct People {
    pub(super) passwords: Passwords,
    pub(super) tokens: Tokens,
    pub(super) sessions: Sessions,
    /// For the secrets of second factors.
    pub(super) vault: Vault,
    /// None: nobody signs in with Google.
    pub(super) google: Option<Google>,
    /// Mails that are written after their answer, at once.
    pub(super) letters: Arc<Semaphore>,
}

impl People {
    /// # Errors
    /// The database's, or the system's for want of random bytes.
    pub async fn open(state: &State) -> anyhow::Result<Self> {
        let config = &state.config.people;
        Ok(Self {
            passwords: Passwords::new(),
            tokens: Tokens::open(&state.people, &config.token_secret).await?,
            sessions: Sessions::default(),
            vault: Vault::open(&config.totp_key, Kept::SecondFactors)?,
            google: Google::open(&state.config.google)?,
            letters: Arc::new(Semaphore::new(16)),
        })
    }

    /// What this replica believes of a person's sessions is asked anew at once.
    pub fn forget(&self, user_id: i64) {
        self.sessions.forget(|person| person.user_id == user_id);
    }
}

#[derive(Deserialize, ToSchema)]
struct Registration {
    /// At most 255 characters; one account per address, whatever its case.
    #[schema(example = "user@example.com")]
    email: String,
    /// 8 to 256 characters, not easy to guess.
    #[schema(example = "sepeda merah tua")]
    password: String,
    /// 3 to 100 letters, digits and `_ . -`, beginning with a letter or digit; unique whatever its case.
    #[schema(example = "userhandle")]
    username: String,
    #[schema(example = "Full Name", max_length = 255)]
    full_name: Option<String>,
    /// For apps that can: a 10-minute token and one to refresh it with, instead of one for 24 hours.
    #[serde(default)]
    refresh: bool,
    /// What the person agreed to, each by itself; the texts are at `GET /api/consents`.
    #[serde(default)]
    #[schema(max_items = 3)]
    consents: Vec<Consent>,
}

#[derive(Serialize, ToSchema)]
struct Registered {
    #[schema(example = true)]
    success: bool,
    #[schema(example = 123)]
    user_id: i64,
    #[serde(flatten)]
    handed: Handed,
    #[schema(example = "Pendaftaran berhasil")]
    message: &'static str,
}

/// Open an account and sign in. Anyone may call.
#[utoipa::path(tag = "people", path = "/api/auth/register", request_body = Registration,
    responses((status = 201, body = Registered), (status = 400, body = crate::error::ErrorBody),
        (status = 409, description = "`EMAIL_TAKEN` or `USERNAME_TAKEN`", body = crate::error::ErrorBody),
        (status = 429, body = crate::error::ErrorBody),
        (status = 503, description = "too many at once", body = crate::error::ErrorBody)))]
#[post("/api/auth/register")]
async fn register(
    request: HttpRequest,
    state: web::Data<State>,
    people: web::Data<People>,
    body: Json<Registration>,
) -> Result<HttpResponse> {
    let Registration { email, password, username, full_name, refresh, consents } = body.into_inner();
    check_email(&email)?;
    check_username(&username)?;
    let full_name = full_name.filter(|name| !name.is_empty());
    if let Some(name) = &full_name {
        lumbung_shared::check_text("full_name", name, 255)?;
    }
    let password_hash = people.passwords.choose("password", password, &[&email, &username]).await?;
    let language = language_of(&request);
    let mut tx = state.people.begin().await?;
    let user_id = sqlx::query_scalar!(
        "insert into app_user (email, username, password_hash, full_name, language) values ($1, $2, $3, $4, $5)
         returning user_id",
        email,
        username,
        password_hash,
        full_name,
        language.code()
    )
    .fetch_one(&mut *tx)
    .await
    .map_err(taken)?;
    let to = Addressee { user_id, email, language };
    letters::write(&mut tx, &state, Purpose::VerifyEmail, to).await?;
    did(&mut tx, &request, user_id, Action::UserCreated).await?;
    consent::give(&mut tx, user_id, &consents, &request).await?;
    let handed = sessions::open(&mut tx, &people, user_id, &request, refresh).await?;
    let message = language.pick("Pendaftaran berhasil", "Registration successful");
    guards::answers_to(&request, user_id);
    let registered = Registered { success: true, user_id, handed, message };
    let answer = guards::commit(&request, tx, StatusCode::CREATED, &registered).await?;
    tracing::info!(user_id, "account opened");
    Ok(answer)
}

/// Which of the two names somebody else has.
pub(super) fn taken(error: sqlx::Error) -> Error {
    match error.as_database_error().and_then(|error| error.constraint()) {
        Some("app_user_email_key") => Error::Conflict("EMAIL_TAKEN"),
        Some("app_user_username_key") => Error::Conflict("USERNAME_TAKEN"),
        _ => error.into(),
    }
}

#[derive(Deserialize, ToSchema)]
struct Credentials {
    #[schema(example = "user@example.com")]
    email: String,
    #[schema(example = "sepeda merah tua", format = Password, min_length = 1, max_length = 256)]
    password: String,
    /// For apps that can: a 10-minute token and one to refresh it with, instead of one for 24 hours.
    #[serde(default)]
    refresh: bool,
}

#[derive(Serialize, ToSchema)]
pub(super) struct SignedIn {
    #[schema(example = true)]
    pub success: bool,
    #[schema(example = 123)]
    pub user_id: i64,
    #[serde(flatten)]
    pub handed: Handed,
    pub user_data: Profile,
}

/// Sign in with a password. Anyone may call.
///
/// A wrong password and an unknown address are answered alike. After five wrong tries each further one makes
/// the account wait longer, 1 s doubling to 15 minutes, whichever server is asked. Where the account has a second
/// factor, the right password is answered `TOTP_REQUIRED` with the details `challenge` and `expires_in` (seconds):
/// `/api/auth/login/totp` takes that challenge with a code.
#[utoipa::path(tag = "people", path = "/api/auth/login", request_body = Credentials,
    responses((status = 200, body = SignedIn), (status = 400, body = crate::error::ErrorBody),
        (status = 401, description = "`WRONG_CREDENTIALS`", body = crate::error::ErrorBody),
        (status = 403, description = "`TOTP_REQUIRED`; `ACCOUNT_INACTIVE` with details `reason` and `expires_at`, where there are such", body = crate::error::ErrorBody),
        (status = 429, body = crate::error::ErrorBody),
        (status = 503, description = "too many at once", body = crate::error::ErrorBody)))]
#[post("/api/auth/login")]
async fn login(
    request: HttpRequest,
    state: web::Data<State>,
    people: web::Data<People>,
    body: Json<Credentials>,
) -> Result<HttpResponse> {
    let Credentials { email, password, refresh } = body.into_inner();
    check_email(&email)?;
    let password = Password::typed("password", password)?;
    let account = owner::with_address(&state.people, &email).await?;
    let checked = owner::try_password(&request, &state, &people, &email, account.as_ref(), password).await?;
    let (Some(Account { user_id, password_hash }), Some(checked)) = (account, checked) else {
        return Err(Error::WrongCredentials);
    };
    let mut tx = state.people.begin().await?;
    // A ban or a new password that comes now waits, and ends this session with the others; one that came meanwhile
    // is obeyed.
    bans::let_in(&mut tx, user_id).await?;
    sqlx::query_scalar!(
        "select user_id from app_user where user_id = $1 and password_hash = $2",
        user_id,
        password_hash
    )
    .fetch_optional(&mut *tx)
    .await?
    .ok_or(Error::WrongCredentials)?;
    if let Checked::Rehashed(stronger) = checked {
        sqlx::query!("update app_user set password_hash = $2 where user_id = $1", user_id, stronger)
            .execute(&mut *tx)
            .await?;
    }
    if let Some(asked) = sign_in::asked_of(&mut tx, user_id, refresh).await? {
        tx.commit().await?;
        return Err(asked);
    }
    did(&mut tx, &request, user_id, Action::LoginSuccess).await?;
    let handed = sessions::open(&mut tx, &people, user_id, &request, refresh).await?;
    tx.commit().await?;
    let user_data = profile::of(&state, user_id).await?;
    Ok(HttpResponse::Ok().json(SignedIn { success: true, user_id, handed, user_data }))
}

#[derive(Serialize, ToSchema)]
pub(super) struct Done {
    #[schema(example = true)]
    pub success: bool,
    #[schema(example = "Anda sudah keluar")]
    pub message: &'static str,
}

/// Sign out: the token that comes with the request ends, on every server within a second.
///
/// A token in the body is not looked at.
#[utoipa::path(tag = "people", path = "/api/auth/logout", security(("session" = [])),
    responses((status = 200, body = Done), (status = 401, body = crate::error::ErrorBody)))]
#[post("/api/auth/logout")]
async fn logout(
    request: HttpRequest,
    Enrolling(person): Enrolling,
    state: web::Data<State>,
    people: web::Data<People>,
) -> Result<HttpResponse> {
    sessions::end(&state, &people, &person, person.session_id, &request, Action::Logout).await?;
    let message = language_of(&request).pick("Anda sudah keluar", "You are signed out");
    Ok(HttpResponse::Ok().json(Done { success: true, message }))
}

/// One `@` between a name and a host name, all in printable ASCII. Whether it is theirs, a mail tells.
pub(super) fn check_email(email: &str) -> Result<()> {
    let good = (3..=255).contains(&email.len())
        && email.bytes().all(|b| b.is_ascii_graphic() && !b"\"(),:;<>[\\]".contains(&b))
        && email.split_once('@').is_some_and(|(name, host)| {
            (1..=64).contains(&name.len())
                && host.contains('.')
                && host.split('.').all(|label| {
                    !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
                })
        });
    good.then_some(())
        .ok_or_else(|| Error::field("email", "harus berupa alamat email", "must be an e-mail address"))
}

pub(super) fn check_username(username: &str) -> Result<()> {
    let good = (3..=100).contains(&username.len())
        && username.starts_with(|c: char| c.is_ascii_alphanumeric())
        && username.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
    let wrong = || {
        Error::field(
            "username",
            "harus 3 sampai 100 huruf, angka dan _ . - dan diawali huruf atau angka",
            "must be 3 to 100 letters, digits and _ . - and begin with a letter or digit",
        )
    };
    good.then_some(()).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_needs_a_name_and_a_host() {
        for good in ["user@example.com", "Budi.Santoso+kebun@mail.go.id", "a@b.c"] {
            assert!(check_email(good).is_ok(), "{good}");
        }
        for bad in ["", "user", "user@", "@example.com", "a b@example.com", "a@b@example.com", "a@b..c"] {
            assert!(check_email(bad).is_err(), "{bad}");
        }
        for bad in ["a@example", "a@exa_mple.com", "a\u{0}@example.com", "é@example.com", "<a>@example.com"]
        {
            assert!(check_email(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_user_name_can_stand_in_an_address() {
        for good in ["userhandle", "budi_99", "3-a.b"] {
            assert!(check_username(good).is_ok(), "{good}");
        }
        for bad in ["", "ab", "_budi", "budi santoso", "budi/x", "é-budi"] {
            assert!(check_username(bad).is_err(), "{bad}");
        }
    }
}
