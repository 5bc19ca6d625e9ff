//! `GET /verify-email`, `/reset-password` and `/change-email`: where the links in mails lead. One page for all.

use crate::guards::ContentPolicy;
use actix_web::http::header;
use actix_web::{HttpResponse, get, web};

const PAGE: &str = include_str!("mail_page.html");

pub(super) fn routes(routes: &mut web::ServiceConfig) {
    routes.service(verify_email).service(reset_password).service(change_email);
}

#[derive(utoipa::OpenApi)]
#[openapi(paths(verify_email, reset_password, change_email))]
pub(crate) struct Docs;

/// The page that confirms an e-mail address with what stands behind `#` in its own address. Anyone may ask.
#[utoipa::path(tag = "people", path = "/verify-email",
    responses((status = 200, content_type = "text/html", body = String)))]
#[get("/verify-email")]
async fn verify_email() -> HttpResponse {
    page()
}

/// The page to choose a new password with what stands behind `#` in its own address. Anyone may ask.
#[utoipa::path(tag = "people", path = "/reset-password",
    responses((status = 200, content_type = "text/html", body = String)))]
#[get("/reset-password")]
async fn reset_password() -> HttpResponse {
    page()
}

/// The page that gives an account a new e-mail address with what stands behind `#` in its own address. Anyone may ask.
#[utoipa::path(tag = "people", path = "/change-email",
    responses((status = 200, content_type = "text/html", body = String)))]
#[get("/change-email")]
async fn change_email() -> HttpResponse {
    page()
}

fn page() -> HttpResponse {
    HttpResponse::Ok()
        .content_type("text/html; charset=utf-8")
        .insert_header((header::CONTENT_SECURITY_POLICY, ContentPolicy::of(PAGE).header()))
        .body(PAGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_brings_everything_itself_and_speaks_both_languages() {
        assert_eq!((PAGE.matches("<script>").count(), PAGE.matches("<style>").count()), (1, 1));
        assert!(!PAGE.contains("://") && !PAGE.contains(" style=") && !PAGE.contains(" onclick"));
        assert_eq!(PAGE.matches("lang=\"id\"").count(), PAGE.matches("lang=\"en\"").count() + 1);
    }
}
