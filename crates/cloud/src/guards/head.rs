//! HEAD for everything that can be got: the same head, without its body.

use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::Method;
use actix_web::middleware::Next;
use actix_web::web::Bytes;
use actix_web::{HttpMessage, HttpRequest};
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Asks the handlers with GET and leaves the body where it is: one that never ends is not begun.
pub(crate) async fn head(
    mut request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    if request.method() != Method::HEAD {
        return Ok(next.call(request).await?.map_into_boxed_body());
    }
    request.head_mut().method = Method::GET;
    request.extensions_mut().insert(Asked);
    let response = next.call(request).await?;
    Ok(response.map_body(|_, body| Unsent(body.size())).map_into_boxed_body())
}

/// That a request was a HEAD.
struct Asked;

/// Whether only the head is asked for: for handlers whose body costs something to begin.
pub(crate) fn is_head(request: &HttpRequest) -> bool {
    request.extensions().get::<Asked>().is_some()
}

/// As long as the body it stands for, and empty.
struct Unsent(BodySize);

impl MessageBody for Unsent {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        self.0
    }

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Infallible>>> {
        Poll::Ready(None)
    }
}
