//! Webhooks as standardwebhooks.com has them: the receiver knows by the signature who asks, by the id a second copy,
//! by the time a request that somebody kept and sent again.

use super::Undelivered;
use super::web::Web;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::Utc;
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use reqwest::{Method, Request};
use ring::hmac;
use uuid::Uuid;

/// Where to, and what both sides sign with; the secret before it too, while the other side may still know no other.
pub struct Webhook {
    pub url: String,
    pub secret: Vec<u8>,
    pub old_secret: Option<Vec<u8>>,
}

pub(super) async fn send(web: &Web, to: &Webhook, body: &str, message_id: Uuid) -> Result<(), Undelivered> {
    let url = web.check(&to.url).map_err(|wrong| Undelivered::Never(wrong.to_string()))?;
    let (id, at) = (message_id.to_string(), Utc::now().timestamp());
    let secrets = std::iter::once(&to.secret).chain(&to.old_secret);
    let signatures: Vec<String> = secrets.map(|secret| signature(secret, &id, at, body)).collect();
    let mut request = Request::new(Method::POST, url);
    for (name, value) in [
        ("webhook-id", id),
        ("webhook-timestamp", at.to_string()),
        ("webhook-signature", signatures.join(" ")),
    ] {
        let value = HeaderValue::from_str(&value).map_err(|error| Undelivered::Never(error.to_string()))?;
        request.headers_mut().insert(name, value);
    }
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    *request.body_mut() = Some(body.to_owned().into());
    match web.send(request).await? {
        200..=299 => Ok(()),
        410 => Err(Undelivered::Gone),
        // Whatever else it says may be a mistake of its own that somebody mends.
        status => Err(Undelivered::Later(format!("answered {status}"))),
    }
}

fn signature(secret: &[u8], id: &str, at: i64, body: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    format!("v1,{}", STANDARD.encode(hmac::sign(&key, format!("{id}.{at}.{body}").as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn we_sign_as_the_standards_own_libraries_do() {
        let secret = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signed =
            signature(&secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, r#"{"test": 2432232314}"#);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }
}
