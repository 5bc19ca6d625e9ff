//! `POST /api/auth/google`: signing in with Google's word.
//!
//! What must stay true:
//! - A person is known by Google's own id of them, never by an address: addresses change hands.
//! - An address counts for nothing that Google has not verified.
//! - An account that has the address already is joined only by whoever knows its password, and only when the address
//!   is that person's for certain: confirmed here, or of a mailbox that Google runs. Else whoever opens an account in
//!   another's name could leave a door of their own in it.

use super::bans;
use super::entries::did;
use super::letters::{self, Addressee, Purpose};
use super::owner::{self, Account};
use super::passwords::Password;
use super::people::{People, check_email};
use super::refresh::Handed;
use super::second_factor::sign_in as second_step;
use super::secret;
use super::sessions;
use crate::audit::Action;
use crate::error::{Error, Result, language_of};
use crate::json::Json;
use crate::outside::{NotVouched, Vouched};
use crate::state::State;
use actix_web::{HttpRequest, HttpResponse, post, web};
use chrono::Utc;
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use utoipa::ToSchema;

pub(super) fn routes(routes: &mut web::ServiceConfig) {
    routes.service(sign_in);
}

#[derive(utoipa::OpenApi)]
#[openapi(paths(sign_in))]
pub(crate) struct Docs;

#[derive(Deserialize, ToSchema)]
struct GoogleSignIn {
    /// The ID token (`credential`) that Google gave the app.
    #[schema(example = "eyJhbGciOiJSUzI1NiIs...")]
    google_token: String,
    /// Only after `PASSWORD_NEEDED_TO_LINK`: that of the account which has the address.
    password: Option<String>,
    /// For apps that can: a 10-minute token and one to refresh it with, instead of one for 24 hours.
    #[serde(default)]
    refresh: bool,
}

#[derive(Serialize, ToSchema)]
struct GoogleSignedIn {
    #[schema(example = true)]
    success: bool,
    #[schema(example = 123)]
    user_id: i64,
    #[serde(flatten)]
    handed: Handed,
    #[schema(example = false)]
    is_new_user: bool,
}

/// Sign in with Google. Anyone may call.
///
/// An account is opened at the first time, by an address that Google has verified. Where an account has the address
/// already, its password must come along once, and the address must be confirmed; from then on Google's word is enough.
/// A second factor is asked for as after a password.
#[utoipa::path(tag = "people", path = "/api/auth/google", request_body = GoogleSignIn,
    responses((status = 200, body = GoogleSignedIn), (status = 400, body = crate::error::ErrorBody),
        (status = 401, description = "the token is not good, or `WRONG_CREDENTIALS`", body = crate::error::ErrorBody),
        (status = 403, description = "`TOTP_REQUIRED`, `ACCOUNT_INACTIVE`", body = crate::error::ErrorBody),
        (status = 404, description = "`GOOGLE_NOT_CONFIGURED`", body = crate::error::ErrorBody),
        (status = 409, description = "`PASSWORD_NEEDED_TO_LINK`; `EMAIL_NOT_CONFIRMED`, with the right password", body = crate::error::ErrorBody),
        (status = 429, body = crate::error::ErrorBody),
        (status = 503, description = "Google cannot be reached, or too many at once", body = crate::error::ErrorBody)))]
#[post("/api/auth/google")]
async fn sign_in(
    request: HttpRequest,
    state: web::Data<State>,
    people: web::Data<People>,
    body: Json<GoogleSignIn>,
) -> Result<HttpResponse> {
    let GoogleSignIn { google_token, password, refresh } = body.into_inner();
    let google = people.google.as_ref().ok_or(Error::NotFound("GOOGLE_NOT_CONFIGURED"))?;
    let vouched = google.verify(&google_token, Utc::now().timestamp()).await.map_err(|why| match why {
        NotVouched::Wrong => Error::Unauthenticated,
        NotVouched::Unreachable => {
            Error::Busy { retry_after: 5, reason: "Google's keys cannot be had".into() }
        }
    })?;
    // Looked up before Google's id is: whoever opens the account in between is known by it then, and not taken for
    // somebody else who has the address.
    let account = match &vouched.email {
        Some(email) => owner::with_address(&state.people, email).await?,
        None => None,
    };
    // Everything that one person does with Google goes one after the other; what is asked of a password comes first,
    // so that nothing waits for its hash.
    let mut tx = state.people.begin().await?;
    let mut known = known(&mut tx, &vouched.sub).await?;
    let mut is_new_user = false;
    if known.is_none() {
        tx.rollback().await?;
        let email = vouched.email.clone().filter(|_| vouched.email_verified).ok_or_else(|| {
            Error::field(
                "google_token",
                "harus menyebut alamat email yang sudah dipastikan Google",
                "must tell an e-mail address that Google has verified",
            )
        })?;
        check_email(&email)?;
        let proven = prove(&request, &state, &people, &email, account, password).await?;
        tx = state.people.begin().await?;
        sqlx::query!("select pg_advisory_xact_lock(hashtextextended('user_google ' || $1, 0))", vouched.sub)
            .execute(&mut *tx)
            .await?;
        known = self::known(&mut tx, &vouched.sub).await?;
        if known.is_none() {
            is_new_user = proven.is_none();
            let user_id = match proven {
                Some(proven) => proven.join(&mut tx, &vouched, &email).await?,
                None => open(&mut tx, &request, &state, &vouched, email).await?,
            };
            sqlx::query!(
                "insert into user_google (google_sub, user_id) values ($1, $2)",
                vouched.sub,
                user_id
            )
            .execute(&mut *tx)
            .await?;
            known = Some(user_id);
        }
    }
    let user_id = known.ok_or(Error::Unauthenticated)?;
    bans::let_in(&mut tx, user_id).await?;
    // Asked again: a new password by mail, which cuts the link, holds the account's row and may have come first.
    if self::known(&mut tx, &vouched.sub).await? != Some(user_id) {
        return Err(Error::Unauthenticated);
    }
    if let Some(asked) = second_step::asked_of(&mut tx, user_id, refresh).await? {
        tx.commit().await?;
        return Err(asked);
    }
    did(&mut tx, &request, user_id, Action::LoginSuccess).await?;
    let handed = sessions::open(&mut tx, &people, user_id, &request, refresh).await?;
    tx.commit().await?;
    Ok(HttpResponse::Ok().json(GoogleSignedIn { success: true, user_id, handed, is_new_user }))
}

/// The account that Google's id has signed in to.
async fn known(conn: &mut PgConnection, sub: &str) -> Result<Option<i64>> {
    Ok(sqlx::query_scalar!("select user_id from user_google where google_sub = $1", sub)
        .fetch_optional(conn)
        .await?)
}

/// An account whose password was right a moment ago.
struct Proven {
    user_id: i64,
    password_hash: String,
}

impl Proven {
    /// Unless it was banned or got another password or address meanwhile, or nobody knows whose its address is.
    async fn join(self, conn: &mut PgConnection, vouched: &Vouched, email: &str) -> Result<i64> {
        bans::let_in(conn, self.user_id).await?;
        let is_verified = sqlx::query_scalar!(
            "update app_user set is_verified = is_verified or $3
             where user_id = $1 and password_hash = $2 and lower(email) = lower($4)
             returning is_verified",
            self.user_id,
            self.password_hash,
            vouched.owns_address,
            email
        )
        .fetch_optional(conn)
        .await?
        .ok_or(Error::WrongCredentials)?;
        is_verified.then_some(self.user_id).ok_or(Error::Conflict("EMAIL_NOT_CONFIRMED"))
    }
}

/// Whoever has the address already, shown by the password; none when nobody has it.
async fn prove(
    request: &HttpRequest,
    state: &State,
    people: &People,
    email: &str,
    account: Option<Account>,
    password: Option<String>,
) -> Result<Option<Proven>> {
    let Some(account) = account else { return Ok(None) };
    let needed = || Error::Conflict("PASSWORD_NEEDED_TO_LINK");
    let password = Password::typed("password", password.ok_or_else(needed)?)?;
    // Without a password there is nothing to show yet; one can be had by mail.
    let password_hash = account.password_hash.clone().ok_or_else(needed)?;
    owner::try_password(request, state, people, email, Some(&account), password)
        .await?
        .ok_or(Error::WrongCredentials)?;
    Ok(Some(Proven { user_id: account.user_id, password_hash }))
}

/// A new account without a password.
async fn open(
    conn: &mut PgConnection,
    request: &HttpRequest,
    state: &State,
    vouched: &Vouched,
    email: String,
) -> Result<i64> {
    let full_name =
        vouched.name.as_deref().filter(|name| lumbung_shared::check_text("full_name", name, 255).is_ok());
    let language = language_of(request);
    let user_id = sqlx::query_scalar!(
        "insert into app_user (email, username, full_name, is_verified, language) values ($1, $2, $3, $4, $5)
         on conflict do nothing returning user_id",
        email,
        username()?,
        full_name,
        vouched.owns_address,
        language.code()
    )
    .fetch_optional(&mut *conn)
    .await?
    // Somebody else took the address this very moment.
    .ok_or(Error::Conflict("PASSWORD_NEEDED_TO_LINK"))?;
    if !vouched.owns_address {
        let to = Addressee { user_id, email, language };
        letters::write(conn, state, Purpose::VerifyEmail, to).await?;
    }
    did(conn, request, user_id, Action::UserCreated).await?;
    tracing::info!(user_id, "account opened");
    Ok(user_id)
}

/// A name until they choose one. It says nothing of the address: others see it.
fn username() -> anyhow::Result<String> {
    let drawn = secret::draw_claim()?.replace('-', "").to_lowercase();
    Ok(format!("user-{}", &drawn[..10]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_name_that_was_drawn_is_one_and_never_the_same() {
        let drawn = username().unwrap();
        assert!(super::super::people::check_username(&drawn).is_ok(), "{drawn}");
        assert_ne!(drawn, username().unwrap());
    }
}
