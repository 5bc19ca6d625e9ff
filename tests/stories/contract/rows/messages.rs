//! Messages to people.

use super::super::callers::{Account, Stage};
use super::super::row::{For, Row, delete, get, post, put};
use super::{INVALID, ONCE, UNREADABLE};
use anyhow::Result;
use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use serde_json::{Value, json};

pub(super) fn rows(_: &Stage) -> Result<Vec<Row>> {
    let preferences = "/api/notifications/preferences";
    let wish = |kind: &str| json!({ "preferences": [{ "type": kind, "channel": "email", "enabled": true }] });
    let subscriptions = "/api/notifications/push-subscriptions";
    // A browser's key as RFC 8291's example has it.
    let browser = |endpoint: &str| {
        json!({ "endpoint": endpoint, "keys": {
            "p256dh": "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4",
            "auth": "BTBZMqHH6r4Tts7J_aSIgg" } })
    };
    let phone = "/api/notifications/phone";
    let number = |typed: &str| json!({ "phone_number": typed });
    let webhook = |url: &str, kind: &str| json!({ "url": url, "kinds": [kind] });
    Ok(vec![
        get(subscriptions, For::People),
        post(subscriptions, For::People, browser("https://push.example.com/{n}"))
            .answered(201)
            .refuses_body(browser("http://push.example.com/"), 400, INVALID)
            .told_in(409, "once::twenty_at_once_are_done_once"),
        delete("/api/notifications/push-subscriptions/{id}", For::People)
            .example("/api/notifications/push-subscriptions/{subscription}")
            .given(a_browser)
            .refuses("/api/notifications/push-subscriptions/0", 404, "NOT_FOUND")
            .refuses("/api/notifications/push-subscriptions/x", 400, UNREADABLE),
        get("/dev/outbox", For::AdminsUnseen),
        get("/api/admin/deliveries", For::Admins)
            .refuses("/api/admin/deliveries?state=hilang", 400, INVALID)
            .refuses("/api/admin/deliveries?limit=51", 400, INVALID)
            .refuses("/api/admin/deliveries?cursor=x", 400, INVALID),
        post("/api/admin/deliveries/{id}/retry", For::Admins, None)
            .example("/api/admin/deliveries/{delivery}/retry")
            .given(a_dead_delivery)
            .refuses("/api/admin/deliveries/0/retry", 404, "NOT_FOUND")
            .refuses("/api/admin/deliveries/x/retry", 400, UNREADABLE)
            .told_in(409, "messages::what_was_given_up_is_seen_and_tried_again_by_admins_alone"),
        get("/api/webhooks", For::Admins),
        post("/api/webhooks", For::Admins, webhook("https://operator.example.com/{n}", "account.banned"))
            .answered(201)
            .refuses_body(webhook("https://10.0.0.1/", "account.banned"), 400, INVALID)
            .refuses_body(webhook("https://operator.example.com/", "hilang"), 400, UNREADABLE)
            .told_in(409, "webhooks::there_are_at_most_twenty_and_none_leads_into_our_own_network"),
        post("/api/webhooks/{id}/rotate", For::Admins, None)
            .example("/api/webhooks/{webhook}/rotate")
            .given(a_webhook)
            .refuses("/api/webhooks/0/rotate", 404, "NOT_FOUND")
            .refuses("/api/webhooks/x/rotate", 400, UNREADABLE)
            .told_in(409, ONCE),
        delete("/api/webhooks/{id}", For::Admins)
            .example("/api/webhooks/{webhook}")
            .given(a_webhook)
            .refuses("/api/webhooks/0", 404, "NOT_FOUND")
            .refuses("/api/webhooks/x", 400, UNREADABLE),
        get("/api/notifications", For::People).refuses("/api/notifications?limit=0", 400, INVALID).refuses(
            "/api/notifications?cursor=x",
            400,
            INVALID,
        ),
        post("/api/notifications/{id}/read", For::People, None)
            .example("/api/notifications/{notification}/read")
            .given(a_notification)
            .refuses("/api/notifications/0/read", 404, "NOT_FOUND")
            .refuses("/api/notifications/x/read", 400, UNREADABLE),
        post("/api/notifications/read-all", For::People, None),
        get(phone, For::People),
        put(phone, For::People, number("0812-3456-{n}"))
            .refuses_body(number("112"), 400, INVALID)
            .told_in(404, "texts::where_no_provider_is_named_nobody_is_asked_for_a_number")
            .told_in(
                429,
                "texts::nobody_makes_a_strangers_telephone_ring_nor_the_installation_pay_without_end",
            ),
        post("/api/notifications/phone/verify", For::People, json!({ "code": "000000" }))
            .answered(404)
            .refuses_body(json!({ "code": "" }), 400, INVALID),
        delete(phone, For::People).given(a_telephone).told_in(
            404,
            "texts::a_number_is_shown_to_be_theirs_by_a_code_and_then_gets_what_its_person_wished",
        ),
        get(preferences, For::People),
        put(preferences, For::People, wish("post_liked")).refuses_body(wish("tidak_ada"), 400, INVALID),
    ])
}

/// The caller has an unread message.
fn a_notification<'a>(stage: &'a Stage, account: &'a Account) -> LocalBoxFuture<'a, Result<Value>> {
    async move {
        let id: i64 = sqlx::query_scalar(
            "insert into notification (user_id, kind, title, content) values ($1, 'post_liked', 'x', 'x')
             returning notification_id",
        )
        .bind(account.user_id)
        .fetch_one(&stage.database)
        .await?;
        Ok(json!({ "notification": id }))
    }
    .boxed_local()
}

/// The caller has a browser that may be woken.
fn a_browser<'a>(stage: &'a Stage, account: &'a Account) -> LocalBoxFuture<'a, Result<Value>> {
    async move {
        let id: i64 = sqlx::query_scalar(
            "insert into push_subscription (user_id, endpoint, p256dh, auth)
             values ($1, $2, decode(repeat('04', 65), 'hex'), decode(repeat('04', 16), 'hex'))
             returning push_subscription_id",
        )
        .bind(account.user_id)
        .bind(format!("https://push.example.com/{}", stage.draw()))
        .fetch_one(&stage.database)
        .await?;
        Ok(json!({ "subscription": id }))
    }
    .boxed_local()
}

/// The caller has a telephone.
fn a_telephone<'a>(stage: &'a Stage, account: &'a Account) -> LocalBoxFuture<'a, Result<Value>> {
    async move {
        sqlx::query(
            "insert into phone (user_id, number) values ($1, '+6281234567890') on conflict do nothing",
        )
        .bind(account.user_id)
        .execute(&stage.database)
        .await?;
        Ok(json!({}))
    }
    .boxed_local()
}

/// A message was given up.
fn a_dead_delivery<'a>(stage: &'a Stage, _: &'a Account) -> LocalBoxFuture<'a, Result<Value>> {
    async move {
        let id: i64 = sqlx::query_scalar(
            "insert into delivery (kind, channel, address, title, content, state, ended_at)
             values ('password_changed', 'email', 'a@example.com', 'x', 'x', 'dead', now()) returning delivery_id",
        )
        .fetch_one(&stage.database)
        .await?;
        Ok(json!({ "delivery": id }))
    }
    .boxed_local()
}

/// Somebody's program is told of bans.
fn a_webhook<'a>(stage: &'a Stage, _: &'a Account) -> LocalBoxFuture<'a, Result<Value>> {
    async move {
        let id: i64 = sqlx::query_scalar(
            "insert into webhook (url, secret, kinds)
             values ('https://operator.example.com/', decode(repeat('04', 32), 'hex'), '{account.banned}')
             returning webhook_id",
        )
        .fetch_one(&stage.database)
        .await?;
        Ok(json!({ "webhook": id }))
    }
    .boxed_local()
}
