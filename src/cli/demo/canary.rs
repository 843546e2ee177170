//! Throw-away secrets: made at start, worth nothing anywhere, and looked for wherever they must not be.

use std::fmt::Write as _;

use super::trouble::Trouble;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// Random bytes in each canary.
const RANDOM_BYTES: usize = 16;
/// How much of a secret is shown.
const SHOWN_CHARACTERS: usize = 14;

/// The demo's real credentials.
#[derive(Debug, Clone)]
pub(super) struct Canaries {
    pub(super) stripe: String,
    pub(super) github: String,
    pub(super) internal: String,
}

impl Canaries {
    /// New ones.
    pub(super) fn new() -> Result<Self, Trouble> {
        Ok(Self { stripe: random("rk_demo_")?, github: random("gho_demo_")?, internal: random("int_demo_")? })
    }

    /// All of them.
    pub(super) fn all(&self) -> [&str; 3] {
        [&self.stripe, &self.github, &self.internal]
    }

    /// Where the first one of them is in `bytes`, as it would be told; `None` is what was promised.
    pub(super) fn find_in(&self, bytes: &[u8]) -> Option<String> {
        let bytes = bytes.to_ascii_lowercase();
        let found = |secret: &str| {
            let (form, _) = forms(secret)
                .into_iter()
                .find(|(_, needle)| memchr::memmem::find(&bytes, needle.to_ascii_lowercase().as_bytes()).is_some())?;
            Some(format!("{} as {form}", short(secret)))
        };
        self.all().into_iter().find_map(found)
    }
}

/// A prefix and random hexadecimal digits.
pub(super) fn random(prefix: &str) -> Result<String, Trouble> {
    let mut bytes = [0; RANDOM_BYTES];
    getrandom::fill(&mut bytes)?;
    Ok(format!("{prefix}{}", hex::encode(bytes)))
}

/// The beginning of a secret, for showing.
pub(super) fn short(secret: &str) -> String {
    let shown: String = secret.chars().take(SHOWN_CHARACTERS).collect();
    format!("{shown}…")
}

/// `text` with each of `secrets` shortened.
pub(super) fn shorten(text: &str, secrets: &[&str]) -> String {
    secrets.iter().fold(text.to_owned(), |text, secret| text.replace(secret, &short(secret)))
}

/// A secret in the forms that an answer is searched for.
fn forms(secret: &str) -> Vec<(&'static str, String)> {
    let bytes = secret.as_bytes();
    let mut forms = vec![
        ("plain text", secret.to_owned()),
        ("hex", hex::encode(bytes)),
        ("percent escapes", escaped(bytes, "%")),
        ("JSON escapes", escaped(bytes, "\\u00")),
    ];
    for offset in 0..3 {
        let padded = [&b"\0\0"[..offset], bytes].concat();
        // Characters that the neighbours have a say in are left out at both ends.
        let (start, end) = ([0, 2, 3][offset], usize::from(!padded.len().is_multiple_of(3)));
        for (form, text) in
            [("base64", STANDARD_NO_PAD.encode(&padded)), ("base64url", URL_SAFE_NO_PAD.encode(&padded))]
        {
            forms.push((form, text[start..text.len() - end].to_owned()));
        }
    }
    forms
}

fn escaped(bytes: &[u8], before: &str) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{before}{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    #[test]
    fn canaries_differ_and_are_found_in_every_form() {
        let canaries = Canaries::new().unwrap();
        assert_ne!(canaries.stripe, Canaries::new().unwrap().stripe);
        for secret in canaries.all() {
            for hidden in [
                format!("key={secret}&"),
                hex::encode_upper(secret),
                STANDARD.encode(secret),
                STANDARD.encode(format!("user:{secret}")),
                STANDARD.encode(format!("u:{secret}@")),
                URL_SAFE_NO_PAD.encode(format!("x{secret}")),
                escaped(secret.as_bytes(), "\\u00"),
            ] {
                assert!(canaries.find_in(hidden.as_bytes()).is_some(), "{hidden}");
            }
        }
        assert_eq!(canaries.find_in(b"rk_demo_ and gho_demo_ and ***"), None);
    }

    #[test]
    fn what_is_shown_is_short() {
        let canary = random("rk_demo_").unwrap();
        let shown = shorten(&format!("Bearer {canary}"), &[&canary]);
        assert!(shown.starts_with("Bearer rk_demo_") && shown.ends_with('…') && shown.len() < 32, "{shown}");
    }
}
