//! The leak oracle: looks for a credential in every form that is promised to be masked.

mod huffman;

use std::cell::OnceCell;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use memchr::memmem::Finder;

/// Fails if `secret` is anywhere in `bytes`, plainly or encoded.
pub fn assert_clean(secret: &str, bytes: &[u8], what: &str) {
    Needles::of(&[secret]).assert_clean(bytes, what);
}

/// Searches for credentials in all their forms, in lower case. Made once for many: to make one costs more than to search
/// a short answer.
pub struct Needles {
    forms: Vec<(&'static str, String)>,
    finders: Vec<Finder<'static>>,
    /// Of the forms as HPACK packs them; made where there is a header block.
    packed: OnceCell<Vec<(&'static str, Finder<'static>)>>,
}

impl Needles {
    pub fn of(secrets: &[impl AsRef<str>]) -> Self {
        let forms: Vec<_> = secrets.iter().flat_map(|secret| forms(secret.as_ref())).collect();
        let finders = forms.iter().map(|(_, text)| Finder::new(&text.to_ascii_lowercase()).into_owned()).collect();
        Self { forms, finders, packed: OnceCell::new() }
    }

    /// Fails if one of them is anywhere in `bytes`, whatever its case.
    pub fn assert_clean(&self, bytes: &[u8], what: &str) {
        let lower = bytes.to_ascii_lowercase();
        for ((form, _), needle) in self.forms.iter().zip(&self.finders) {
            assert!(
                needle.find(&lower).is_none(),
                "the credential is in {what}, as {form}: {}",
                String::from_utf8_lossy(bytes)
            );
        }
    }

    /// Fails if one of them, spelled as it is, is packed in a header block of HTTP/2.
    pub fn assert_not_packed(&self, block: &[u8], what: &str) {
        let packed = self.packed.get_or_init(|| {
            let patterns =
                self.forms.iter().flat_map(|(form, text)| huffman::patterns(text).map(move |it| (*form, it)));
            patterns.map(|(form, pattern)| (form, Finder::new(&pattern).into_owned())).collect()
        });
        for (form, needle) in packed {
            assert!(needle.find(block).is_none(), "the credential is in {what}, as {form}, packed");
        }
    }
}

/// The secret in its forms.
pub fn forms(secret: &str) -> Vec<(&'static str, String)> {
    let bytes = secret.as_bytes();
    let mut forms = vec![
        ("plain text", secret.to_owned()),
        ("the reverse", secret.chars().rev().collect()),
        ("hex", hex::encode(bytes)),
        ("percent", bytes.iter().map(|byte| format!("%{byte:02X}")).collect()),
        ("JSON escapes", bytes.iter().map(|byte| format!("\\u{byte:04x}")).collect()),
    ];
    for offset in 0..3 {
        let padded: Vec<u8> = [&b"\0\0"[..offset], bytes].concat();
        // Characters that the neighbours have a say in are left out at both ends.
        let (start, end) = ([0, 2, 3][offset], if padded.len().is_multiple_of(3) { 0 } else { 1 });
        for (form, text) in
            [("base64", STANDARD_NO_PAD.encode(&padded)), ("base64url", URL_SAFE_NO_PAD.encode(&padded))]
        {
            forms.push((form, text[start..text.len() - end].to_owned()));
        }
    }
    forms
}
