//! The name of one request, in its answer, in the logs and wherever its traces are kept.

use actix_web::dev::ServiceRequest;
use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::{HttpMessage, HttpRequest};
use std::sync::Arc;

pub(super) const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// Lies in the request's extensions before anything else looks at it.
#[derive(Debug, Clone)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// Names a request that has just come: by its sender's own id where that is a modest one, else anew.
    pub(crate) fn give(request: &ServiceRequest) -> Self {
        let id = Self::from_header(request.headers().get(HEADER));
        request.extensions_mut().insert(id.clone());
        id
    }

    fn from_header(given: Option<&HeaderValue>) -> Self {
        let id = given
            .and_then(|id| id.to_str().ok())
            .filter(|id| {
                (1..=64).contains(&id.len())
                    && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            })
            .map_or_else(|| uuid::Uuid::new_v4().simple().to_string(), str::to_owned);
        Self(id.into())
    }

    /// `None` only for requests that a test made by hand.
    pub fn of(request: &HttpRequest) -> Option<Self> {
        request.extensions().get::<Self>().cloned()
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::test::TestRequest;

    #[test]
    fn a_modest_id_is_kept_and_any_other_is_replaced() {
        let id = |given: &str| {
            let request = TestRequest::default().insert_header((HEADER, given)).to_srv_request();
            RequestId::give(&request);
            RequestId::of(request.request()).unwrap().as_str().to_owned()
        };
        for good in ["Cerita-1", "req_123xyz"] {
            assert_eq!(id(good), good);
        }
        for bad in ["", "a b", "a\"b", &"x".repeat(65)] {
            assert_eq!(id(bad).len(), 32, "{bad}");
        }
    }
}
