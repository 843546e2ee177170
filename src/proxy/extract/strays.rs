//! Nonces in places that are no slots: leaks, or attempts to carry one away.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName};
use percent_encoding::percent_decode;

use super::lift::Lifted;
use crate::model::denial::Misplaced;
use crate::model::nonce::NONCE_BYTES;
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

/// How often a text is percent-decoded at most: a URL in a URL in a URL.
const DECODINGS_MAX: usize = 3;

/// Looks through headers, path and query, plain and percent-decoded, and inside Basic credentials.
pub fn find(headers: &HeaderMap, target: &Target, lifted: Option<&Lifted>) -> Vec<Stray> {
    let mut strays = find_in_fields(headers, lifted.and_then(|lifted| lifted.field.as_ref()));
    look_decoded(&mut strays, target.path().as_bytes(), Misplaced::Path);
    if let Some(query) = target.query() {
        look_decoded(&mut strays, query.as_bytes(), Misplaced::Query);
    }
    strays
}

/// Looks through the names and values of fields but for the slot's own.
pub fn find_in_fields(fields: &HeaderMap, own: Option<&HeaderName>) -> Vec<Stray> {
    let mut strays = Vec::new();
    for (name, value) in fields.iter().filter(|(name, _)| own != Some(*name)) {
        look(&mut strays, name.as_str().as_bytes(), Misplaced::Header);
        if value.len() < NONCE_BYTES {
            continue; // No decoding makes a text longer.
        }
        look_decoded(&mut strays, value.as_bytes(), Misplaced::Header);
        if let Some(blob) = basic_blob(value.as_bytes()) {
            look(&mut strays, &blob, Misplaced::Header);
        }
    }
    strays
}

fn look(strays: &mut Vec<Stray>, text: &[u8], place: Misplaced) {
    if text.len() < NONCE_BYTES {
        return;
    }
    let room = STRAYS_MAX - strays.len();
    strays.extend(nonce::find_all(text).take(room).map(|found| Stray { hash: NonceHash::of(found), place }));
}

fn look_decoded(strays: &mut Vec<Stray>, text: &[u8], place: Misplaced) {
    if text.len() < NONCE_BYTES {
        return; // No decoding makes a text longer.
    }
    let mut text = Cow::Borrowed(text);
    for _ in 0..DECODINGS_MAX {
        if memchr::memchr(b'%', &text).is_none() {
            break;
        }
        text = Cow::Owned(percent_decode(&text).collect());
    }
    look(strays, &text, place);
}

fn basic_blob(value: &[u8]) -> Option<Vec<u8>> {
    let (scheme, rest) = value.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    STANDARD.decode(rest.trim_ascii()).ok()
}
