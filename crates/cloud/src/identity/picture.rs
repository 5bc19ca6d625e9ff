//! `POST` and `DELETE /api/users/me/picture`, and `GET /api/users/me/files`: what a person uploaded.

use super::profile::{self, Me};
use super::sessions::Person;
use crate::error::{Error, Result};
use crate::files::{self, Files, Form, Owner, Purpose, Uploaded};
use crate::page::{self, Page};
use crate::state::State;
use actix_web::{HttpRequest, HttpResponse, delete, get, post, web};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use utoipa::ToSchema;

pub(super) fn routes(routes: &mut web::ServiceConfig) {
    routes.service(put_up).service(take_down).service(list);
}

#[derive(utoipa::OpenApi)]
#[openapi(paths(put_up, take_down, list))]
pub(crate) struct Docs;

/// The form of a picture.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "it describes the form; the fields are read one by one")]
struct PictureForm {
    /// A JPEG, PNG or WebP of at most 5 MiB.
    #[schema(value_type = String, format = Binary)]
    profile_picture: Vec<u8>,
    /// Only your own, if any.
    #[schema(nullable = false)]
    user_id: Option<i64>,
}

/// Show a picture of yourself, in place of the one before. Whoever is signed in may call.
///
/// It is kept upright, at most 2,560 pixels long, and without what the camera wrote about it.
#[utoipa::path(tag = "people", path = "/api/users/me/picture", security(("session" = [])),
    request_body(content = PictureForm, content_type = "multipart/form-data"),
    responses((status = 200, body = Me), (status = 400, body = crate::error::ErrorBody),
        (status = 401, body = crate::error::ErrorBody),
        (status = 403, description = "`OTHER_USER`", body = crate::error::ErrorBody),
        (status = 413, description = "`TOO_LARGE`, or `QUOTA_EXCEEDED` with how much is used",
            body = crate::error::ErrorBody)))]
#[post("/api/users/me/picture")]
async fn put_up(
    request: HttpRequest,
    person: Person,
    state: web::Data<State>,
    files: web::Data<Files>,
    body: web::Payload,
) -> Result<HttpResponse> {
    const IMAGE: &str = "profile_picture";
    let form = Form { purpose: Purpose::ProfilePicture, image: IMAGE, texts: &[("user_id", 20)] };
    let taken = files.take(&request, body, person.user_id, &form).await?;
    if let Some(text) = taken.texts.get("user_id") {
        person.must_be(Some(
            text.parse().map_err(|_| Error::field("user_id", "harus berupa angka", "must be a number"))?,
        ))?;
    }
    let image = taken.image.ok_or_else(|| Error::field(IMAGE, "wajib diisi", "must be given"))?;
    let image = files.put(form.purpose, image).await?;
    let mut tx = state.people.begin().await?;
    let owner = alone(&mut tx, person.user_id).await?;
    let by = person.by(&request);
    files::drop_of(&mut tx, owner, &by).await?;
    files.keep(&mut tx, &image, owner, person.user_id, &by).await?;
    show(&mut tx, person.user_id, Some(image.name())).await?;
    tx.commit().await?;
    let user_data = profile::of(&state, person.user_id).await?;
    Ok(HttpResponse::Ok().json(Me { success: true, user_data }))
}

/// Take your picture down. Whoever is signed in may call.
#[utoipa::path(tag = "people", path = "/api/users/me/picture", security(("session" = [])),
    responses((status = 200, body = Me), (status = 401, body = crate::error::ErrorBody)))]
#[delete("/api/users/me/picture")]
async fn take_down(request: HttpRequest, person: Person, state: web::Data<State>) -> Result<HttpResponse> {
    let mut tx = state.people.begin().await?;
    let owner = alone(&mut tx, person.user_id).await?;
    let by = person.by(&request);
    files::drop_of(&mut tx, owner, &by).await?;
    show(&mut tx, person.user_id, None).await?;
    tx.commit().await?;
    let user_data = profile::of(&state, person.user_id).await?;
    Ok(HttpResponse::Ok().json(Me { success: true, user_data }))
}

/// One change of a person's picture at a time, and none after the account ended.
async fn alone(conn: &mut PgConnection, user_id: i64) -> Result<Owner> {
    let id = sqlx::query_scalar!(
        "select user_id from app_user where user_id = $1 and is_active for update",
        user_id
    )
    .fetch_optional(conn)
    .await?
    .ok_or(Error::Unauthenticated)?;
    Ok(Owner { kind: "user", id })
}

async fn show(conn: &mut PgConnection, user_id: i64, name: Option<&str>) -> Result<()> {
    sqlx::query!(
        "update app_user set profile_picture = $2, updated_at = now() where user_id = $1",
        user_id,
        name
    )
    .execute(conn)
    .await?;
    Ok(())
}

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct Asked {
    /// From 1.
    #[param(minimum = 1, maximum = 100_000)]
    page: Option<i64>,
    /// 1 to 50.
    #[param(minimum = 1, maximum = 50, default = 50)]
    limit: Option<i64>,
    /// `next_cursor` of an earlier answer; `page` does not count then.
    #[param(schema_with = page::cursor::<1>)]
    cursor: Option<String>,
}

#[derive(Serialize, ToSchema)]
struct UploadedPage {
    #[schema(example = true)]
    success: bool,
    files: Vec<Uploaded>,
    #[schema(example = 1)]
    page: i64,
    /// For the next page; null at the end.
    next_cursor: Option<String>,
}

/// What you have uploaded, the latest first. Whoever is signed in may call.
#[utoipa::path(tag = "people", path = "/api/users/me/files", params(Asked), security(("session" = [])),
    responses((status = 200, body = UploadedPage), (status = 400, body = crate::error::ErrorBody),
        (status = 401, body = crate::error::ErrorBody)))]
#[get("/api/users/me/files")]
async fn list(person: Person, files: web::Data<Files>, asked: web::Query<Asked>) -> Result<HttpResponse> {
    let page = Page::read(asked.page, asked.limit, asked.cursor.as_deref(), 50)?;
    let mut found = files.of(person.user_id, page).await?;
    let next_cursor = page.cut(&mut found, |last| last.file_id);
    Ok(HttpResponse::Ok().json(UploadedPage { success: true, files: found, page: page.number, next_cursor }))
}
