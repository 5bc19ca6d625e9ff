//! The live page at `/`: one file, nothing from outside.

use actix_web::http::header;
use actix_web::{HttpResponse, get, web};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

const PAGE: &str = include_str!("../live.html");

/// The page may run its own script and style and talk to its own server, nothing else.
struct Policy(String);

pub(super) fn routes(routes: &mut web::ServiceConfig) {
    routes.app_data(web::Data::new(Policy::of(PAGE))).service(live_page);
}

#[derive(utoipa::OpenApi)]
#[openapi(paths(live_page))]
pub(crate) struct Docs;

/// The live page: what arrives, as it arrives. Anyone may ask; it reads with an access key of its own.
#[utoipa::path(tag = "dashboard", path = "/", responses((status = 200, content_type = "text/html", body = String)))]
#[get("/")]
async fn live_page(policy: web::Data<Policy>) -> HttpResponse {
    HttpResponse::Ok()
        .content_type("text/html; charset=utf-8")
        .insert_header((header::CONTENT_SECURITY_POLICY, policy.0.as_str()))
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .body(PAGE)
}

impl Policy {
    fn of(page: &str) -> Self {
        let hash = |tag: &str| {
            let text = page
                .split_once(&format!("<{tag}>"))
                .and_then(|(_, rest)| rest.split_once(&format!("</{tag}>")))
                .map_or("", |(text, _)| text);
            STANDARD.encode(Sha256::digest(text.as_bytes()))
        };
        Self(format!(
            "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; connect-src 'self'; img-src data:; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            hash("script"),
            hash("style")
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_brings_everything_itself() {
        assert_eq!((PAGE.matches("<script>").count(), PAGE.matches("<style>").count()), (1, 1));
        assert_eq!(PAGE.matches("<script ").count(), 0);
        // Its icon is in the page too.
        assert_eq!(PAGE.matches("<link ").count(), PAGE.matches(" href=\"data:").count());
        assert!(!PAGE.contains("https://") || !PAGE.contains("src=\"https://"));
    }
}
