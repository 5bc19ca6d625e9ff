//! What gateways call, and what happened to them.

use super::super::callers::{Caller, Stage};
use super::super::row::{For, Row, get, post};
use super::{INVALID, UNREADABLE};
use anyhow::Result;
use lumbung_shared::enrol::SigningKey;
use lumbung_shared::signing::Signer;
use lumbung_tests::wire::new_key;
use serde_json::json;

pub(super) fn rows(stage: &Stage) -> Result<Vec<Row>> {
    let signing = SigningKey::new(&Signer::from_seed(&[7; 32])?, &stage.gateway.key);
    let of_nobody = SigningKey::new(&Signer::from_seed(&[8; 32])?, "lain");
    let of_the_neighbour = SigningKey::new(&stage.neighbour_signs, &stage.gateway.key);
    Ok(vec![
        get("/api/gateways/{gateway_id}/events", For::Readers)
            .example("/api/gateways/GW-1/events")
            .but(Caller::OtherOperator, 404)
            .refuses("/api/gateways/GW-TIDAK-ADA/events", 404, "NOT_FOUND")
            .refuses("/api/gateways/GW-1/events?limit=0", 400, INVALID),
        post("/api/gateways/enrol", For::Anyone, json!({ "claim": "TIDAK-ADA", "key": new_key() }))
            .answered(404)
            .refuses_body(json!({ "claim": "TIDAK-ADA", "key": "pendek" }), 400, INVALID)
            .refuses_body(json!({ "claim": stage.used_claim, "key": new_key() }), 409, "CLAIM_USED"),
        post("/api/gateways/rotate", For::Gateways, json!({ "new_key": new_key() }))
            .refuses_body(json!({ "new_key": "pendek" }), 400, INVALID)
            .refuses_body(json!({ "new_key": stage.neighbour.key }), 409, "KEY_IN_USE"),
        post("/api/gateways/signing_key", For::Gateways, json!(signing))
            .refuses_body(json!(of_nobody), 400, INVALID)
            .refuses_body(json!(of_the_neighbour), 409, "KEY_IN_USE"),
        post("/api/sync_gateway_data", For::Gateways, json!([])).refuses_body(
            json!("bukan kiriman"),
            400,
            UNREADABLE,
        ),
    ])
}
