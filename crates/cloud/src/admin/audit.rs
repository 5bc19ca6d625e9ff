//! `GET /api/admin/audit`: who did what, for admins. Reading it is itself in the log.

use super::MOST;
use crate::audit::{self, Listed};
use crate::error::{ErrorBody, Result};
use crate::identity::Admin;
use crate::page;
use crate::state::State;
use actix_web::{HttpRequest, HttpResponse, get, web};
use serde::{Deserialize, Serialize};
use utoipa::openapi::schema::{Object, ObjectBuilder, Type};
use utoipa::{IntoParams, ToSchema};

pub(super) fn routes(routes: &mut web::ServiceConfig) {
    routes.service(list);
}

#[derive(utoipa::OpenApi)]
#[openapi(paths(list))]
pub(crate) struct Docs;

/// Which entries.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Wanted {
    /// 1 to 50, default 50.
    #[param(minimum = 1, maximum = 50)]
    limit: Option<i64>,
    /// `next_cursor` of the page before.
    #[param(schema_with = page::cursor::<1>)]
    cursor: Option<String>,
    /// `person:12`, `gateway:GW-1`, `key:3`, `command`, `itself` or `nobody`; a kind alone for all of it.
    #[param(schema_with = actors)]
    actor: Option<String>,
    /// Such as `authn_login_fail`.
    #[param(schema_with = actions)]
    action: Option<String>,
    /// `user:12`, or a kind alone.
    #[param(example = "user:12", min_length = 1, max_length = 160)]
    object: Option<String>,
    /// `success`, `refused` or `failed`
    #[param(pattern = "^(success|refused|failed)$")]
    outcome: Option<String>,
    /// Logged at or after, RFC 3339 with offset.
    from: Option<String>,
    /// Logged before, RFC 3339 with offset.
    to: Option<String>,
}

fn actors() -> Object {
    let pattern = format!(r"^({})(:[^\x00-\x1f\x7f-\x9f]*)?$", audit::ACTORS.join("|"));
    let text = ObjectBuilder::new().schema_type(Type::String);
    text.pattern(Some(pattern)).max_length(Some(160)).examples(["person:12"]).build()
}

fn actions() -> Object {
    let words = audit::ACTIONS.iter().map(|(_, word)| *word);
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(words)).examples(["user_banned"]).build()
}

#[derive(Serialize, ToSchema)]
struct AuditPage {
    #[schema(example = true)]
    success: bool,
    entries: Vec<Listed>,
    /// For the next page; null on the last.
    next_cursor: Option<String>,
}

/// Search the audit log, newest first. There are too many entries for pages by number: further ones are reached by
/// `cursor`. Each search is an entry of its own (`sensitive_read`), further pages of it are not. For admins.
#[utoipa::path(tag = "admin", path = "/api/admin/audit", params(Wanted), security(("session" = [])),
    responses((status = 200, body = AuditPage), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, description = "`ADMIN_ONLY`", body = ErrorBody)))]
#[get("/api/admin/audit")]
async fn list(
    request: HttpRequest,
    admin: Admin,
    state: web::Data<State>,
    wanted: web::Query<Wanted>,
) -> Result<HttpResponse> {
    let Wanted { limit, cursor, actor, action, object, outcome, from, to } = wanted.into_inner();
    let limit = page::limit(limit, MOST)?;
    let before = cursor.as_deref().map(page::read_cursor::<1>).transpose()?.map(|[id]| id);
    let (from, to) = (page::time("from", from.as_deref())?, page::time("to", to.as_deref())?);
    let which = audit::Wanted { from, to, action, actor, object, outcome };
    let mut tx = state.people.begin().await?;
    let mut entries = audit::search(&mut tx, &which, before.unwrap_or(i64::MAX), limit + 1).await?;
    let by = admin.0.by(&request);
    audit::tell_search(&mut tx, &by, &which, before.is_some()).await?;
    tx.commit().await?;
    let more = page::cut(&mut entries, limit);
    let next_cursor = entries.last().filter(|_| more).map(|entry| page::write_cursor([entry.id]));
    Ok(HttpResponse::Ok().json(AuditPage { success: true, entries, next_cursor }))
}
