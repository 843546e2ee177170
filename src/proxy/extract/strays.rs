//! Nonces in places that are no slots: leaks, or attempts to carry one away.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use percent_encoding::percent_decode_str;

use super::lift::Lifted;
use crate::model::denial::Misplaced;
use crate::model::{NonceHash, nonce};
use crate::policy::Target;

/// Strays that are looked at in one request; the first is enough to refuse it.
const STRAYS_MAX: usize = 8;

/// A text with the shape of a nonce outside every slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stray {
    /// Its hash.
    pub hash: NonceHash,
    /// Where it was.
    pub place: Misplaced,
}

/// Looks through headers, path and query, plain and percent-decoded, and inside Basic credentials.
pub fn find(headers: &HeaderMap, target: &Target, lifted: Option<&Lifted>) -> Vec<Stray> {
    let mut strays = Vec::new();
    let own = lifted.and_then(|lifted| lifted.field.as_ref());
    for (name, value) in headers {
        if own == Some(name) {
            continue;
        }
        look(&mut strays, value.as_bytes(), Misplaced::Header);
        if let Some(blob) = basic_blob(value.as_bytes()) {
            look(&mut strays, &blob, Misplaced::Header);
        }
    }
    look_decoded(&mut strays, target.path(), Misplaced::Path);
    if let Some(query) = target.query() {
        look_decoded(&mut strays, query, Misplaced::Query);
    }
    strays
}

fn look(strays: &mut Vec<Stray>, text: &[u8], place: Misplaced) {
    let room = STRAYS_MAX - strays.len();
    strays.extend(nonce::find_all(text).take(room).map(|found| Stray { hash: NonceHash::of(found), place }));
}

fn look_decoded(strays: &mut Vec<Stray>, text: &str, place: Misplaced) {
    if text.contains('%') {
        let decoded: Vec<u8> = percent_decode_str(text).collect();
        look(strays, &decoded, place);
    } else {
        look(strays, text.as_bytes(), place);
    }
}

fn basic_blob(value: &[u8]) -> Option<Vec<u8>> {
    let (scheme, rest) = value.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    STANDARD.decode(rest.trim_ascii()).ok()
}
