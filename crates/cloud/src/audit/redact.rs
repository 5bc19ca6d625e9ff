//! What never gets into an entry, whatever its writer meant to tell.

use serde_json::{Map, Value};

/// Names of fields whose values are secrets or say who somebody is.
const HIDDEN: &[&str] = &[
    "password",
    "token",
    "secret",
    "key",
    "code",
    "claim",
    "cookie",
    "authorization",
    "signature",
    "email",
    "phone",
    "address",
    "full_name",
    "body",
];
/// How our own secrets begin: gateway keys, access keys, JWTs, password hashes.
const SECRETS: &[&str] = &["lbg_", "lbk_", "lbr_", "eyJ", "$argon2"];
const REDACTED: &str = "(redacted)";
/// Characters of a text, members of a list or an object, depth: an entry is small.
const LONGEST: usize = 200;
const MEMBERS: usize = 32;
const DEEPEST: usize = 4;

/// A detail as it may be kept.
pub(super) fn detail(value: &Value) -> Value {
    match value {
        Value::Object(_) => cleaned(value, 0),
        Value::Null => Value::Object(Map::new()),
        other => serde_json::json!({ "value": cleaned(other, 0) }),
    }
}

fn cleaned(value: &Value, depth: usize) -> Value {
    match value {
        Value::String(words) => Value::String(text(words)),
        Value::Array(_) | Value::Object(_) if depth == DEEPEST => Value::String("(too deep)".into()),
        Value::Array(list) => list.iter().take(MEMBERS).map(|value| cleaned(value, depth + 1)).collect(),
        Value::Object(fields) => fields
            .iter()
            .take(MEMBERS)
            .map(|(name, value)| {
                let lower = name.to_ascii_lowercase();
                let hidden = HIDDEN.iter().any(|word| names(&lower, word));
                let value = match value {
                    // That something was there, or was not, is no secret.
                    Value::Null | Value::Bool(_) => value.clone(),
                    _ if hidden => Value::String(REDACTED.into()),
                    value => cleaned(value, depth + 1),
                };
                (text(name), value)
            })
            .collect(),
        other => other.clone(),
    }
}

/// Whether a field's name is the word or has it as one of its parts: `new_password`, not `keyboard`.
fn names(field: &str, word: &str) -> bool {
    field.match_indices(word).any(|(at, _)| {
        let before = field[..at].bytes().next_back();
        let after = field[at + word.len()..].bytes().next();
        [before, after].iter().all(|next| next.is_none_or(|b| !b.is_ascii_alphanumeric()))
    })
}

/// A text as it may be kept: cut, without what looks like a secret or an e-mail address.
pub(super) fn text(words: &str) -> String {
    let cut: String = words.chars().filter(|c| !c.is_control()).take(LONGEST).collect();
    if !cut.contains('@') && !SECRETS.iter().any(|start| cut.contains(start)) {
        return cut;
    }
    let kept = cut.split(' ').map(|word| {
        let secret = word.contains('@') || SECRETS.iter().any(|start| word.contains(start));
        if secret { REDACTED } else { word }
    });
    kept.collect::<Vec<_>>().join(" ").chars().take(LONGEST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn secrets_and_addresses_of_people_are_taken_out_wherever_they_stand() {
        let told = json!({
            "new_password": "sepeda", "Refresh-Token": "x", "apiKey": "lbk_abc", "key": "k", "email": "a@b.c",
            "keyboard": "qwerty", "token": null, "verified_email": true, "status": 3,
            "changes": [{"phone_number": "0812", "role": {"from": "user", "to": "admin"}}],
            "note": "budi@example.com lost lbg_secret twice",
        });
        assert_eq!(
            detail(&told),
            json!({
                "new_password": REDACTED, "Refresh-Token": REDACTED, "apiKey": REDACTED, "key": REDACTED,
                "email": REDACTED, "keyboard": "qwerty", "token": null, "verified_email": true, "status": 3,
                "changes": [{"phone_number": REDACTED, "role": {"from": "user", "to": "admin"}}],
                "note": "(redacted) lost (redacted) twice",
            })
        );
    }

    #[test]
    fn an_entry_stays_small() {
        let deep = (0..20).fold(json!("x"), |inner, _| json!({ "in": inner }));
        let long = "é".repeat(5_000);
        let wide: Vec<_> = (0..1_000).collect();
        let kept = detail(&json!({ "deep": deep, "long": long, "wide": wide })).to_string();
        assert!(kept.len() < 2_000, "{}", kept.len());
        assert_eq!(detail(&json!(7)), json!({ "value": 7 }));
        assert_eq!(detail(&Value::Null), json!({}));
    }

    #[test]
    fn nul_and_other_controls_do_not_reach_the_database() {
        assert_eq!(text("a\0b\nc"), "abc");
    }
}
