//! What people ask of their own data.

use super::super::callers::{Account, PASSWORD, Stage};
use super::super::row::{For, Row, delete, get, post};
use super::{INVALID, UNREADABLE};
use anyhow::Result;
use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use serde_json::{Value, json};

pub(super) fn rows(_: &Stage) -> Result<Vec<Row>> {
    let consents = "/api/users/me/consents";
    let requests = "/api/users/me/privacy-requests";
    let agreed = |purpose: &str| json!({ "purpose": purpose, "version": 1 });
    let wish = |content: &str| json!({ "kind": "objection", "content": content });
    let answer = |text: &str| json!({ "granted": true, "answer": text });
    Ok(vec![
        get("/api/consents", For::Anyone),
        get(consents, For::People),
        post(consents, For::People, agreed("news")).refuses_body(agreed("tidak_ada"), 400, INVALID),
        delete("/api/users/me/consents/{purpose}", For::People)
            .example("/api/users/me/consents/news")
            .given(news_wanted)
            .refuses("/api/users/me/consents/tidak_ada", 404, "NOT_FOUND"),
        post("/api/users/me/export", For::People, None).answered(202),
        get("/api/users/me/export/{id}", For::People)
            .example("/api/users/me/export/0")
            .answered(404)
            .refuses("/api/users/me/export/x", 400, UNREADABLE)
            .told_in(409, "privacy::a_copy_of_everything_goes_to_its_owner_alone"),
        delete("/api/users/me", For::People)
            .body(json!({ "password": PASSWORD }))
            .fresh()
            .refuses_body(json!({ "password": "bukan yang ini" }), 400, INVALID)
            .told_in(403, "privacy::who_leaves_is_in_no_row_and_no_file_and_no_table_is_forgotten")
            .told_in(409, "privacy::the_last_admin_stays"),
        post(requests, For::People, wish("Foto saya dinilai mesin."))
            .answered(201)
            .fresh()
            .refuses_body(wish(""), 400, INVALID)
            .told_in(409, "privacy::a_request_has_three_days_and_is_answered_by_an_admin"),
        get(requests, For::People).refuses("/api/users/me/privacy-requests?limit=51", 400, INVALID).refuses(
            "/api/users/me/privacy-requests?cursor=x",
            400,
            INVALID,
        ),
        get("/api/admin/privacy-requests", For::Admins)
            .example("/api/admin/privacy-requests?page=2")
            .refuses("/api/admin/privacy-requests?limit=51", 400, INVALID)
            .refuses("/api/admin/privacy-requests?page=0", 400, INVALID),
        post("/api/admin/privacy-requests/{id}/answer", For::Admins, answer("Sudah."))
            .example("/api/admin/privacy-requests/0/answer")
            .answered(404)
            .refuses_body(answer(""), 400, INVALID),
    ])
}

/// The caller agreed to news.
fn news_wanted<'a>(stage: &'a Stage, account: &'a Account) -> LocalBoxFuture<'a, Result<Value>> {
    async move {
        sqlx::query(
            "insert into consent (user_id, purpose, version, language) values ($1, 'news', 1, 'id')
             on conflict do nothing",
        )
        .bind(account.user_id)
        .execute(&stage.database)
        .await?;
        Ok(json!({}))
    }
    .boxed_local()
}
