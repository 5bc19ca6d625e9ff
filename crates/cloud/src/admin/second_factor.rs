//! `DELETE /api/admin/users/{id}/totp`: for somebody who lost their authenticator app.

use crate::error::{ErrorBody, Result};
use crate::identity::{Admin, People, second_factor};
use crate::json::Done;
use crate::state::State;
use actix_web::{HttpRequest, HttpResponse, delete, web};

pub(super) fn routes(routes: &mut web::ServiceConfig) {
    routes.service(reset);
}

#[derive(utoipa::OpenApi)]
#[openapi(paths(reset))]
pub(crate) struct Docs;

/// Take the second factor from an account whose person lost it; make sure first that it is they who ask. Signed out
/// everywhere within a second, and told by e-mail. For admins, not for their own account.
#[utoipa::path(tag = "admin", path = "/api/admin/users/{id}/totp", security(("session" = [])),
    params(("id" = i64, Path, description = "a user_id", example = 123)),
    responses((status = 200, body = Done), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, description = "`ADMIN_ONLY`", body = ErrorBody), (status = 404, body = ErrorBody),
        (status = 409, description = "`OWN_ACCOUNT` or `TOTP_OFF`", body = ErrorBody)))]
#[delete("/api/admin/users/{id}/totp")]
async fn reset(
    request: HttpRequest,
    admin: Admin,
    state: web::Data<State>,
    people: web::Data<People>,
    id: web::Path<i64>,
) -> Result<HttpResponse> {
    let by = admin.0.by(&request);
    let mut tx = state.people.begin().await?;
    second_factor::reset(&mut tx, *id, &by).await?;
    tx.commit().await?;
    people.forget(*id);
    Ok(HttpResponse::Ok().json(Done::YES))
}
