//! A policy never holds a secret: strings that look like a well-known API key are a mistake wherever they stand.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::mistake::{Code, Finding};
use super::section::Notes;

/// Beginnings of keys as their makers document them.
const PREFIXES: [&str; 22] = [
    "sk_live_",
    "sk_test_",
    "rk_live_",
    "rk_test_",
    "whsec_",
    "sk-",
    "ghp_",
    "gho_",
    "ghu_",
    "ghs_",
    "ghr_",
    "github_pat_",
    "glpat-",
    "xoxb-",
    "xoxp-",
    "xoxa-",
    "xapp-",
    "AKIA",
    "ASIA",
    "AIza",
    "SG.",
    "eyJ",
];
/// Shortest text that is taken for a key, in bytes.
const KEY_BYTES_MIN: usize = 20;
/// What our own nonces and private keys begin with.
const MARKERS: [&str; 2] = ["an_", "-----BEGIN"];

/// Looks at every string of the file.
pub(super) fn look(table: &DeTable<'_>, notes: &Notes) {
    look_below("", table, notes);
}

fn look_below(path: &str, table: &DeTable<'_>, notes: &Notes) {
    for (key, value) in table {
        let dot = if path.is_empty() { "" } else { "." };
        look_at(&format!("{path}{dot}{}", super::section::echo(key.get_ref())), value, notes);
    }
}

fn look_at(key: &str, value: &Spanned<DeValue<'_>>, notes: &Notes) {
    match value.get_ref() {
        DeValue::String(text) if looks_like_a_key(text) => notes.find(Finding {
            code: Code::SecretInPolicy,
            span: value.span(),
            key: key.to_owned(),
            message: "looks like a real credential, and a policy never holds one".to_owned(),
            hint: "name its source in [credentials.NAME], and replace the credential: it has been in a file".to_owned(),
            shows_value: false,
        }),
        DeValue::Array(values) => values.iter().for_each(|value| look_at(key, value, notes)),
        DeValue::Table(table) => look_below(key, table, notes),
        DeValue::String(_) | DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_) => {}
    }
}

fn looks_like_a_key(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.=+/".contains(&b);
    let key = text.len() >= KEY_BYTES_MIN && text.bytes().all(plain) && text.bytes().any(|b| b.is_ascii_digit());
    let nonce = text.starts_with(MARKERS[0]) && crate::model::nonce::has_shape(text.as_bytes());
    nonce || text.starts_with(MARKERS[1]) || (key && PREFIXES.iter().any(|prefix| text.starts_with(prefix)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_recognised_and_names_are_not() {
        for key in ["sk_live_51Habcdefghijklmnop", "ghp_16C7e42F292c6912E7710c838347Ae178B4a"] {
            assert!(looks_like_a_key(key), "{key}");
        }
        // Made here, so that a scanner for keys finds none in this file.
        assert!(looks_like_a_key(&format!("{}PRIVATE KEY-----", MARKERS[1])));
        for name in ["STRIPE_RESTRICTED_KEY", "sk_test_{nonce}", "sk-proj-{nonce}", "an_agent", "GET /v1/x", "ASIA"] {
            assert!(!looks_like_a_key(name), "{name}");
        }
    }
}
