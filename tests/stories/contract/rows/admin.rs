//! What admins do: people, their roles and grants, access keys.

use super::super::callers::Stage;
use super::super::row::{For, Row, delete, get, post, put};
use super::{INVALID, ONCE, UNREADABLE};
use anyhow::Result;
use serde_json::json;

pub(super) fn rows(_: &Stage) -> Result<Vec<Row>> {
    let last = "admin::there_is_always_an_admin_who_can_sign_in";
    Ok(vec![
        get("/api/admin/users", For::Admins).refuses("/api/admin/users?limit=51", 400, INVALID).refuses(
            "/api/admin/users?page=0",
            400,
            INVALID,
        ),
        get("/api/admin/audit", For::Admins)
            .example("/api/admin/audit?actor=person&outcome=refused&limit=2")
            .refuses("/api/admin/audit?limit=51", 400, INVALID)
            .refuses("/api/admin/audit?action=hilang", 400, INVALID)
            .refuses("/api/admin/audit?actor=hantu:1", 400, INVALID)
            .refuses("/api/admin/audit?from=kemarin", 400, INVALID)
            .refuses("/api/admin/audit?cursor=x", 400, INVALID)
            .refuses("/api/admin/audit?page=1", 400, UNREADABLE),
        get("/api/admin/dashboard", For::Admins),
        post("/api/admin/ban-user", For::Admins, json!({ "user_id": 0, "reason": "Iklan" }))
            .answered(404)
            .refuses_body(json!({ "user_id": 0, "reason": "" }), 400, INVALID)
            .told_in(409, last)
            .told_in(422, ONCE),
        post("/api/admin/unban-user", For::Admins, json!({ "user_id": 0 }))
            .answered(404)
            .told_in(409, "admin::a_ban_ends_sessions_everywhere_says_why_and_runs_out_by_itself"),
        delete("/api/admin/users/{id}/totp", For::Admins)
            .example("/api/admin/users/0/totp")
            .answered(404)
            .refuses("/api/admin/users/x/totp", 400, UNREADABLE)
            .told_in(
                409,
                "second_factor::who_lost_the_app_is_helped_by_an_admin_or_a_command_and_that_is_written_down",
            ),
        put("/api/admin/users/{id}/role", For::Admins, json!({ "role": "volunteer" }))
            .example("/api/admin/users/0/role")
            .answered(404)
            .told_in(409, last),
        get("/api/admin/users/{id}/grants", For::Admins)
            .example("/api/admin/users/0/grants")
            .answered(404)
            .refuses("/api/admin/users/x/grants", 400, UNREADABLE),
        post("/api/admin/users/{id}/grants", For::Admins, json!({ "role": "officer", "site": "DAPUR-1" }))
            .example("/api/admin/users/0/grants")
            .answered(404)
            .refuses_body(json!({ "role": "officer" }), 400, INVALID)
            .told_in(409, "admin::only_admins_reach_what_is_for_admins")
            .told_in(422, "once::a_request_that_is_sent_again_gets_its_first_answer_from_any_replica"),
        delete("/api/admin/users/{id}/grants/{grant_id}", For::Admins)
            .example("/api/admin/users/0/grants/0")
            .answered(404)
            .refuses("/api/admin/users/0/grants/x", 400, UNREADABLE),
        get("/api/keys", For::Admins)
            .example("/api/keys?page=2")
            .refuses("/api/keys?limit=51", 400, INVALID)
            .refuses("/api/keys?page=0", 400, INVALID),
        post("/api/keys", For::Admins, json!({ "name": "kunci {n}", "scopes": ["read"] }))
            .answered(201)
            .refuses_body(json!({ "name": "x", "scopes": [] }), 400, INVALID)
            .told_in(409, ONCE),
        delete("/api/keys/{id}", For::Admins).example("/api/keys/0").answered(404).refuses(
            "/api/keys/x",
            400,
            UNREADABLE,
        ),
    ])
}
