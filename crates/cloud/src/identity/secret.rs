//! Random secrets and their hashes. A secret leaves this program once and is then known only by hash.

use crate::random::draw;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

/// 256 random bits behind a prefix that says what they open.
pub(super) fn draw_key(prefix: &str) -> anyhow::Result<String> {
    Ok(format!("{prefix}{}", URL_SAFE_NO_PAD.encode(draw::<32>()?)))
}

/// 128 random bits as 26 characters that can be read aloud: Crockford's base 32, in dashed groups.
pub(super) fn draw_claim() -> anyhow::Result<String> {
    const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    let mut bits = u128::from_be_bytes(draw()?);
    let mut text = String::with_capacity(31);
    for i in 0..26 {
        if i > 0 && i % 5 == 0 {
            text.push('-');
        }
        text.push(char::from(DIGITS[(bits & 31) as usize]));
        bits >>= 5;
    }
    Ok(text)
}

/// A claim as it was drawn, however it was typed: case and dashes do not count, O is 0, I and L are 1.
pub(super) fn normalise_claim(typed: &str) -> String {
    typed
        .chars()
        .filter(|c| !matches!(c, '-' | ' '))
        .map(|c| match c.to_ascii_uppercase() {
            'O' => '0',
            'I' | 'L' => '1',
            other => other,
        })
        .collect()
}

/// What is kept of a secret.
pub(super) fn hash(secret: &str) -> Vec<u8> {
    Sha256::digest(secret.as_bytes()).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_recognised_however_it_was_typed() {
        let claim = draw_claim().unwrap();
        assert_eq!(claim.len(), 31);
        assert_eq!(normalise_claim(&claim.to_lowercase().replace('-', " ")), normalise_claim(&claim));
        assert_eq!(normalise_claim("oil-0"), "0110");
        assert_ne!(draw_claim().unwrap(), claim);
    }

    #[test]
    fn a_key_has_the_form_that_both_programs_expect() {
        assert!(lumbung_shared::enrol::is_key(&draw_key(lumbung_shared::enrol::KEY_PREFIX).unwrap()));
    }
}
