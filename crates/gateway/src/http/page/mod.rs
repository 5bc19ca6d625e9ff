//! `GET /`: the page for officers, whole in one file, with nothing from elsewhere. It holds no data: a stranger's
//! browser gets the same page and finds only the form for pairing.

use actix_web::HttpResponse;
use actix_web::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};
use std::sync::LazyLock;

const PAGE: &str = include_str!("index.html");

/// Only what is in the file runs, by its hash; it talks to this gateway alone and stands in no frame.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    let hash = |tag: &str| {
        let inside = PAGE.split_once(&format!("<{tag}>")).map_or("", |(_, rest)| rest);
        let inside = inside.split_once(&format!("</{tag}>")).map_or("", |(inside, _)| inside);
        STANDARD.encode(Sha256::digest(inside.as_bytes()))
    };
    format!(
        "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        hash("script"),
        hash("style"),
    )
});

pub(super) async fn page() -> HttpResponse {
    HttpResponse::Ok()
        .content_type("text/html; charset=utf-8")
        .insert_header((CONTENT_SECURITY_POLICY, POLICY.as_str()))
        .insert_header((REFERRER_POLICY, "no-referrer"))
        .insert_header((X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((CACHE_CONTROL, "no-cache"))
        .body(PAGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_asks_nobody_outside_and_writes_no_markup_from_data() {
        let outside = PAGE.matches("http://").count() + PAGE.matches("https://").count();
        assert_eq!(outside, 0, "the page names an address outside");
        assert!(!PAGE.contains("innerHTML") && !PAGE.contains("onclick=\"") && !PAGE.contains("style=\""));
        assert_eq!(PAGE.matches("<script>").count(), 1);
        assert_eq!(PAGE.matches("<style>").count(), 1);
    }

    #[test]
    fn every_word_of_the_page_exists_in_both_languages() {
        let (_, words) = PAGE.split_once("const WORDS = {").unwrap();
        let (indonesian, rest) = words.split_once("  en: {").unwrap();
        let (english, _) = rest.split_once("\n};").unwrap();
        for part in PAGE.split("data-t=\"").skip(1) {
            let key = part.split('"').next().unwrap();
            for words in [indonesian, english] {
                assert!(words.contains(&format!(" {key}: ")), "{key}");
            }
        }
    }
}
