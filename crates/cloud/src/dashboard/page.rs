//! The live page at `/`: one file, nothing from outside.

use crate::guards::ContentPolicy;
use actix_web::http::header;
use actix_web::{HttpResponse, get, web};

const PAGE: &str = include_str!("../live.html");

pub(super) fn routes(routes: &mut web::ServiceConfig) {
    routes.app_data(web::Data::new(ContentPolicy::of(PAGE))).service(live_page);
}

#[derive(utoipa::OpenApi)]
#[openapi(paths(live_page))]
pub(crate) struct Docs;

/// The live page: what arrives, as it arrives. Anyone may ask; it reads with an access key of its own.
#[utoipa::path(tag = "dashboard", path = "/", responses((status = 200, content_type = "text/html", body = String)))]
#[get("/")]
async fn live_page(policy: web::Data<ContentPolicy>) -> HttpResponse {
    HttpResponse::Ok()
        .content_type("text/html; charset=utf-8")
        .insert_header((header::CONTENT_SECURITY_POLICY, policy.header()))
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .body(PAGE)
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
