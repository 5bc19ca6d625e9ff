//! `GET /files/{name}`: what people uploaded, to whoever knows its name.

use super::{Files, Purpose, objects, picture, store};
use crate::error::{Error, Result};
use crate::guards;
use actix_web::http::header::{self, EntityTag, IfNoneMatch};
use actix_web::{HttpRequest, HttpResponse, get, web};
use futures_util::{TryStreamExt, stream};
use object_store::ObjectStoreExt;

pub fn routes(routes: &mut web::ServiceConfig) {
    routes.service(file);
}

#[derive(utoipa::OpenApi)]
#[openapi(paths(file))]
pub(crate) struct Docs;

/// Which object a path names.
struct Named<'a> {
    name: &'a str,
    thumbnail: bool,
}

impl<'a> Named<'a> {
    fn read(path: &'a str) -> Option<Self> {
        let stem = path.strip_suffix(".jpg")?;
        let (name, rest) = stem.split_at_checked(32)?;
        let form = name.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        let thumbnail = match rest.strip_prefix('-') {
            Some(size) => size == picture::THUMBNAIL.to_string(),
            None => false,
        };
        (form && (rest.is_empty() || thumbnail)).then_some(Self { name, thumbnail })
    }
}

/// An uploaded image, or with `-320` before `.jpg` its thumbnail. Anyone who knows the name may call.
#[utoipa::path(tag = "files", path = "/files/{name}",
    params(("name" = String, Path, description = "from the `…_url` of what it belongs to",
        example = "0f3a5c7e9b1d2f4a6c8e0a1b3c5d7e9f.jpg")),
    responses((status = 200, content_type = "image/jpeg", body = Vec<u8>),
        (status = 304, description = "the copy of `If-None-Match` is still good"),
        (status = 404, body = crate::error::ErrorBody)))]
#[get("/files/{name}")]
async fn file(
    request: HttpRequest,
    files: web::Data<Files>,
    path: web::Path<String>,
    known: web::Header<IfNoneMatch>,
) -> Result<HttpResponse> {
    let not_found = || Error::NotFound("NOT_FOUND");
    let Named { name, thumbnail } = Named::read(&path).ok_or_else(not_found)?;
    let row = sqlx::query!(
        r#"select file_id, purpose as "purpose: Purpose", sha256 from file where name = $1 and deleted_at is null"#,
        name
    )
    .fetch_optional(&files.state.people)
    .await?
    .ok_or_else(not_found)?;
    let digest: String = row.sha256.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    let tag = EntityTag::new_strong(if thumbnail { format!("{digest}-t") } else { digest });
    let mut answer = HttpResponse::Ok();
    answer
        .insert_header((header::CACHE_CONTROL, row.purpose.cached()))
        .insert_header((header::ETAG, tag.to_string()))
        .insert_header((header::CONTENT_SECURITY_POLICY, "default-src 'none'; sandbox"))
        .insert_header((header::CONTENT_DISPOSITION, format!("inline; filename=\"{path}\"")));
    let has_it = match known.into_inner() {
        IfNoneMatch::Any => true,
        IfNoneMatch::Items(tags) => tags.iter().any(|known| known.weak_eq(&tag)),
    };
    if has_it {
        return Ok(answer.status(actix_web::http::StatusCode::NOT_MODIFIED).finish());
    }
    let [whole, small] = objects(name);
    let wanted = if thumbnail { &small } else { &whole };
    let refused = |error: object_store::Error| {
        if matches!(error, object_store::Error::NotFound { .. }) {
            tracing::error!(file_id = row.file_id, "a file has a row and no object");
            return not_found();
        }
        store::unreachable(&error)
    };
    answer.content_type("image/jpeg");
    if guards::is_head(&request) {
        let size = files.store.head(wanted).await.map_err(refused)?.size;
        return Ok(answer.no_chunking(size).streaming(stream::empty::<std::io::Result<web::Bytes>>()));
    }
    let object = files.store.get(wanted).await.map_err(refused)?;
    answer.no_chunking(object.meta.size);
    Ok(answer.streaming(object.into_stream().map_err(std::io::Error::other)))
}

/// One object has one path: what is looked up is what we would have written.
#[cfg(any(test, fuzzing))]
pub fn must_hold(path: &str) {
    if let Some(Named { name, thumbnail }) = Named::read(path) {
        let size = if thumbnail { format!("-{}", picture::THUMBNAIL) } else { String::new() };
        assert_eq!(format!("{name}{size}.jpg"), path);
        assert!(name.len() == 32 && name.bytes().all(|b| b.is_ascii_hexdigit()), "{name}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_names_that_we_draw_are_looked_up() {
        let name = "0123456789abcdef0123456789abcdef";
        let read = |path: &str| Named::read(path).map(|named| (named.name.to_owned(), named.thumbnail));
        assert_eq!(read(&format!("{name}.jpg")), Some((name.to_owned(), false)));
        assert_eq!(read(&format!("{name}-320.jpg")), Some((name.to_owned(), true)));
        for other in ["", ".jpg", "x.jpg", &format!("{name}.png"), &format!("{name}-640.jpg")] {
            assert_eq!(read(other), None, "{other}");
        }
        assert_eq!(read(&format!("../{}.jpg", &name[3..])), None);
        assert_eq!(read(&format!("{}.jpg", name.to_uppercase())), None);
        assert_eq!(read(&format!("{}é.jpg", &name[1..])), None);
    }

    proptest! {
        #[test]
        fn an_object_has_one_path(path in "[0-9a-f]{31,33}(-[-+0]{0,2}320)?\\.jpg|\\PC{0,60}") {
            must_hold(&path);
        }
    }
}
