//! `POST /api/receipt`: the cloud's signed receipt for a bundle that people carried, brought back.

use super::Api;
use super::problem::Problem;
use crate::outbox::OutboxError;
use crate::sync::SettleError;
use crate::words::Code;
use actix_web::web::{Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use serde_json::json;
use std::time::Duration;

const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// The receipt's own signature is the authority; whoever brings it is nobody.
pub(super) async fn settle(request: HttpRequest, payload: Payload, api: Data<Api>) -> HttpResponse {
    let Some(_turn) = api.receipts.turn() else {
        return Problem::of(Code::ReceiptNotKept).answer(&request);
    };
    match read(payload).await {
        Ok(body) => match api.receipts.settle(&body).await {
            Ok(settled) => HttpResponse::Ok().json(json!({ "success": true, "settled": settled })),
            Err(error) => {
                tracing::warn!(%error, "a receipt settled nothing");
                Problem::of(code(&error)).answer(&request)
            }
        },
        Err(code) => Problem::of(code).answer(&request),
    }
}

async fn read(payload: Payload) -> Result<actix_web::web::Bytes, Code> {
    let body = payload.to_bytes_limited(lumbung_shared::receipt::MAX_BYTES);
    match tokio::time::timeout(BODY_TIMEOUT, body).await {
        Ok(Ok(Ok(body))) => Ok(body),
        Ok(Ok(Err(_))) => Err(Code::ReceiptUnreadable),
        Ok(Err(_)) => Err(Code::TooLarge),
        Err(_) => Err(Code::RequestTimeout),
    }
}

fn code(error: &SettleError) -> Code {
    match error {
        SettleError::Receipt(lumbung_shared::receipt::ReceiptError::Signature) => Code::ReceiptForged,
        SettleError::Receipt(_) => Code::ReceiptUnreadable,
        SettleError::Foreign(_) => Code::ReceiptForeign,
        SettleError::NoCloud => Code::ReceiptNoCloud,
        SettleError::Store(OutboxError::Full) => Code::ReceiptNotKept,
        SettleError::Identity(_) | SettleError::Signing(_) | SettleError::Store(_) => Code::ReceiptNotKept,
    }
}
