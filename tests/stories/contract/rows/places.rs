//! Programmes, sites and the gateways at them.

use super::super::callers::{Caller, Stage};
use super::super::row::{For, Row, delete, get, post, put};
use super::{INVALID, ONCE};
use anyhow::Result;
use futures_util::FutureExt;
use serde_json::{Value, json};

pub(super) fn rows(_: &Stage) -> Result<Vec<Row>> {
    let site = |code: &str, programme: &str| {
        json!({ "code": code, "programme": programme, "name": "Dapur", "kind": "kitchen",
            "time_zone": "Asia/Jakarta" })
    };
    let fields =
        json!({ "programme": "MBG", "name": "Dapur Satu", "kind": "kitchen", "time_zone": "Asia/Jakarta" });
    Ok(vec![
        get("/api/programmes", For::Readers)
            .example("/api/programmes?page=2")
            .refuses("/api/programmes?limit=51", 400, INVALID)
            .refuses("/api/programmes?page=0", 400, INVALID),
        post("/api/programmes", For::Placers, json!({ "code": "P-{n}", "name": "Program {n}" }))
            .answered(201)
            .but(Caller::Operator, 403)
            .refuses_body(json!({ "code": "-", "name": "" }), 400, INVALID)
            .refuses_body(json!({ "code": "MBG", "name": "Lagi" }), 409, "PROGRAMME_TAKEN"),
        put("/api/programmes/{id}", For::Placers, json!({ "name": "Makan Bergizi {n}" }))
            .example("/api/programmes/{programme}")
            .given(|stage, _| keys(stage).boxed_local())
            .refuses_body(json!({ "name": "" }), 400, INVALID)
            .refuses_of(
                Caller::Admin,
                "/api/programmes/0",
                Some(json!({ "name": "Tidak ada" }).into()),
                404,
                "NOT_FOUND",
            ),
        get("/api/sites", For::Readers).refuses("/api/sites?cursor=x", 400, INVALID).refuses(
            "/api/sites?page=1&cursor=MQ",
            400,
            INVALID,
        ),
        post("/api/sites", For::Placers, site("S-{n}", "MBG"))
            .answered(201)
            .refuses_body(site("S-{n}", "TIDAK-ADA"), 400, INVALID)
            .refuses_of(
                Caller::Operator,
                "/api/sites",
                Some(site("S-{n}", "LAIN").into()),
                403,
                "NOT_GRANTED",
            )
            .refuses_body(site("DAPUR-1", "MBG"), 409, "SITE_TAKEN"),
        put("/api/sites/{id}", For::Placers, fields.clone())
            .example("/api/sites/{site}")
            .given(|stage, _| keys(stage).boxed_local())
            .refuses_body(
                json!({ "programme": "MBG", "name": "x", "kind": "castle", "time_zone": "Asia/Jakarta" }),
                400,
                INVALID,
            )
            .refuses_of(Caller::Admin, "/api/sites/0", Some(fields.into()), 404, "NOT_FOUND"),
        get("/api/gateways", For::Readers).refuses("/api/gateways?limit=0", 400, INVALID),
        post("/api/gateways", For::Enrollers, json!({ "gateway_id": "GW-BARU-{n}", "site": "DAPUR-1" }))
            .answered(201)
            .refuses_body(json!({ "gateway_id": "GW-BARU-{n}", "site": "TIDAK-ADA" }), 400, INVALID)
            .refuses_body(json!({ "gateway_id": "GW-1", "site": "DAPUR-1" }), 409, "GATEWAY_TAKEN"),
        post("/api/gateways/{gateway_id}/claim", For::Enrollers, json!({}))
            .example("/api/gateways/GW-2/claim")
            .answered(201)
            .refuses_body(json!({ "site": "TIDAK-ADA" }), 400, INVALID)
            .refuses_of(
                Caller::Admin,
                "/api/gateways/GW-TIDAK-ADA/claim",
                Some(json!({}).into()),
                404,
                "NOT_FOUND",
            )
            .told_in(409, ONCE),
        delete("/api/gateways/{gateway_id}/claim", For::Enrollers)
            .example("/api/gateways/GW-2/claim")
            .given(|stage, _| open_claim(stage).boxed_local())
            .refuses("/api/gateways/GW-TIDAK-ADA/claim", 404, "NOT_FOUND")
            .refuses("/api/gateways/GW-1/claim", 404, "NO_OPEN_CLAIM")
            .refuses("/api/gateways/-/claim", 400, INVALID),
        delete("/api/gateways/{gateway_id}", For::Enrollers)
            .example("/api/gateways/GW-3?reason=Kotak+hilang")
            .refuses("/api/gateways/GW-3?reason=", 400, INVALID)
            .refuses("/api/gateways/GW-TIDAK-ADA?reason=x", 404, "NOT_FOUND"),
    ])
}

/// A claim to GW-2 that nobody has used.
async fn open_claim(stage: &Stage) -> Result<Value> {
    sqlx::query(
        "insert into gateway_claim (claim_hash, gateway_id, expires_at)
         select sha256(random()::text::bytea), gateway_id, now() + interval '1 hour' from gateway where code = 'GW-2'",
    )
    .execute(&stage.database)
    .await?;
    Ok(json!({}))
}

/// The numbers of the programme and the site that everything here is of.
async fn keys(stage: &Stage) -> Result<Value> {
    let (programme, site): (i32, i32) =
        sqlx::query_as("select programme_id, site_id from site where code = 'DAPUR-1'")
            .fetch_one(&stage.database)
            .await?;
    Ok(json!({ "programme": programme, "site": site }))
}
