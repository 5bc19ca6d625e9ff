//! What a page of ours may do in a browser.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

/// The page may run its own script and style and talk to its own server, nothing else.
pub struct ContentPolicy(String);

impl ContentPolicy {
    /// For a page with one script and one style element.
    pub fn of(page: &str) -> Self {
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

    /// The header's value.
    pub fn header(&self) -> &str {
        &self.0
    }
}
