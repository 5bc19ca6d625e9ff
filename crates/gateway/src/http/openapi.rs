//! `GET /api/openapi.json`: this API for those who write its clients. Written by hand, like the API itself.

use actix_web::HttpResponse;

const DOCUMENT: &str = include_str!("openapi.json");

pub(super) async fn document() -> HttpResponse {
    HttpResponse::Ok().content_type("application/json").body(DOCUMENT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::access::{Access, ROWS};
    use serde_json::Value;

    #[test]
    fn every_route_is_described_with_who_may_ask() {
        let document: Value = serde_json::from_str(DOCUMENT).unwrap();
        assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
        let mut described = 0;
        for (path, methods) in document["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                let row = ROWS
                    .iter()
                    .find(|row| row.path == path && row.method.as_str().eq_ignore_ascii_case(method));
                let row = row.unwrap_or_else(|| panic!("{method} {path} does not exist"));
                let with_token = !operation["security"].as_array().unwrap().is_empty();
                let for_phones = (Access::FieldManual..=Access::PairingPhone).contains(&row.access);
                assert_eq!(with_token, for_phones, "{method} {path}");
                assert!(operation["description"].is_string() && operation["responses"].is_object());
                described += 1;
            }
        }
        assert_eq!(described, ROWS.len(), "a route is not described");
    }

    #[test]
    fn every_reference_of_the_document_leads_somewhere() {
        let document: Value = serde_json::from_str(DOCUMENT).unwrap();
        for part in DOCUMENT.split("\"$ref\": \"#").skip(1) {
            let pointer = part.split('"').next().unwrap();
            assert!(document.pointer(pointer).is_some(), "{pointer}");
        }
    }
}
