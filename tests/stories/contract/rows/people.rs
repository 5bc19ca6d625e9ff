//! Accounts and sessions.

use super::super::callers::{Account, Caller, PASSWORD, Stage, with_json};
use super::super::row::{For, Row, delete, get, post, put};
use super::{INVALID, UNREADABLE};
use anyhow::{Context, Result};
use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use lumbung_tests::http;
use serde_json::{Value, json};

pub(super) fn rows(_: &Stage) -> Result<Vec<Row>> {
    let registration = |email: &str, username: &str, password: &str| json!({ "email": email, "username": username, "password": password });
    let credentials = |email: &str| json!({ "email": email, "password": PASSWORD });
    let change = |current: &str, new: &str| json!({ "current_password": current, "new_password": new });
    let address = |email: &str, password: &str| json!({ "email": email, "password": password });
    let new = "perahu biru muda";
    Ok(vec![
        post("/api/auth/register", For::Anyone, registration("baru{n}@example.com", "baru{n}", PASSWORD))
            .answered(201)
            .refuses_body(registration("baru{n}@example.com", "baru{n}", "pendek"), 400, INVALID)
            .refuses_body(registration("{email}", "baru{n}", PASSWORD), 409, "EMAIL_TAKEN")
            .refuses_body(registration("baru{n}@example.com", "{username}", PASSWORD), 409, "USERNAME_TAKEN"),
        post("/api/auth/login", For::Anyone, credentials("{email}"))
            .refuses_body(credentials("bukan alamat"), 400, INVALID)
            .refuses_body(credentials("tak{n}@example.com"), 401, "WRONG_CREDENTIALS")
            .but(Caller::Banned, 403),
        post("/api/auth/login/totp", For::Anyone, json!({ "challenge": "lbc_lama", "code": "123456" }))
            .answered(404)
            .refuses_body(json!({ "challenge": "lbc_lama", "code": "1" }), 400, INVALID)
            .told_in(401, "second_factor::once_an_app_has_shown_a_code_no_sign_in_goes_without_one")
            .told_in(403, "moments::who_is_shut_out_between_the_two_steps_does_not_come_in"),
        get("/api/auth/totp", For::People),
        post("/api/auth/totp/enrol", For::People, json!({ "password": PASSWORD }))
            .fresh()
            .refuses_body(json!({ "password": "salah sama sekali" }), 400, INVALID)
            .told_in(403, "google::googles_word_is_the_first_step_only_where_there_is_a_second")
            .told_in(
                404,
                "second_factor::a_recovery_code_signs_in_once_even_while_the_key_of_all_secrets_is_lost",
            )
            .told_in(409, "second_factor::once_an_app_has_shown_a_code_no_sign_in_goes_without_one"),
        post("/api/auth/totp/confirm", For::People, json!({ "code": "123456" })).answered(409).refuses_body(
            json!({ "code": "1" }),
            400,
            INVALID,
        ),
        post("/api/auth/totp/off", For::People, json!({ "password": PASSWORD, "code": "123456" }))
            .answered(409)
            .refuses_body(json!({ "password": PASSWORD, "code": "1" }), 400, INVALID)
            .told_in(403, "google::googles_word_is_the_first_step_only_where_there_is_a_second"),
        post("/api/auth/google", For::Anyone, json!({ "google_token": "x.y.z" }))
            .answered(404)
            .refuses_body(json!({}), 400, UNREADABLE)
            .told_in(
                401,
                "google::a_token_that_google_did_not_make_for_us_opens_nothing_and_asks_for_no_keys",
            )
            .told_in(403, "google::somebody_comes_with_googles_word_and_comes_again_under_another_address")
            .told_in(
                409,
                "google::an_account_with_a_password_is_joined_only_by_who_knows_it_and_has_the_address",
            ),
        post("/api/auth/refresh", For::Anyone, json!({ "refresh_token": "lbr_lama" })).answered(401),
        get("/verify-email", For::Anyone),
        get("/reset-password", For::Anyone),
        get("/change-email", For::Anyone),
        post("/api/auth/verify-email", For::Anyone, json!({ "token": "TIDAK-ADA" })).answered(404),
        post("/api/auth/verify-email/resend", For::People, None)
            .fresh()
            .told_in(409, "reset::an_address_is_confirmed_by_what_was_sent_there_and_only_once"),
        post("/api/auth/forgot-password", For::Anyone, json!({ "email": "nobody@example.com" }))
            .refuses_body(json!({ "email": "nobody" }), 400, INVALID),
        post("/api/auth/reset-password", For::Anyone, json!({ "token": "TIDAK-ADA", "new_password": new }))
            .answered(404),
        post("/api/auth/logout", For::People, None).fresh(),
        get("/api/auth/sessions", For::People),
        delete("/api/auth/sessions/{id}", For::People)
            .example("/api/auth/sessions/{other_session}")
            .given(another_session)
            .refuses("/api/auth/sessions/0", 404, "NOT_FOUND")
            .refuses("/api/auth/sessions/x", 400, UNREADABLE),
        post("/api/auth/change-password", For::People, change(PASSWORD, new))
            .fresh()
            .refuses_body(change("salah sama sekali", new), 400, INVALID)
            .refuses_body(change(PASSWORD, "password123"), 400, INVALID)
            .told_in(409, "moments::of_two_changes_of_a_password_at_the_same_moment_the_later_one_is_told"),
        post("/api/users/me/email", For::People, address("lain{n}@example.com", PASSWORD))
            .fresh()
            .refuses_body(address("bukan alamat", PASSWORD), 400, INVALID)
            .refuses_body(address("lain{n}@example.com", "salah sama sekali"), 400, INVALID)
            .told_in(403, "google::who_came_by_google_stays_connected_when_the_address_changes")
            .told_in(409, "address::what_was_asked_for_with_a_password_of_before_comes_to_nothing"),
        post("/api/auth/change-email", For::Anyone, json!({ "token": "TIDAK-ADA" })).answered(404).told_in(
            409,
            "address::of_two_people_who_confirm_one_address_one_gets_it_and_the_other_keeps_theirs",
        ),
        get("/api/users/me", For::People),
        put("/api/users/me", For::People, json!({ "user_id": "{me}", "bio": "Menanam bayam" }))
            .refuses_body(json!({ "phone_number": "x" }), 400, INVALID)
            .refuses_body(json!({ "username": "x" }), 400, INVALID)
            .refuses_body(json!({ "email": "lain{n}@example.com" }), 400, INVALID)
            .refuses_body(json!({ "user_id": 0 }), 403, "OTHER_USER")
            .told_in(409, "people::people_change_their_own_profile_and_nobody_elses"),
    ])
}

/// The same account, signed in on another device.
fn another_session<'a>(stage: &'a Stage, account: &'a Account) -> LocalBoxFuture<'a, Result<Value>> {
    async move {
        let login = stage.client.post(stage.cloud.url("/api/auth/login"));
        let body = json!({ "email": account.email, "password": PASSWORD });
        http::send(with_json(login, &body)).await?;
        let session: Option<i64> =
            sqlx::query_scalar("select max(session_id) from user_session where user_id = $1")
                .bind(account.user_id)
                .fetch_one(&stage.database)
                .await?;
        Ok(json!({ "other_session": session.context("no session")? }))
    }
    .boxed_local()
}
