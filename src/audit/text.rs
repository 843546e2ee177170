//! Agent-chosen text on its way into a record: nonces masked, length bounded.

use std::fmt::Write as _;

use crate::model::nonce::{NONCE_BYTES, NONCE_PREFIX};

/// Longest method that is kept, in bytes.
pub(super) const METHOD_BYTES_MAX: usize = 32;
/// Longest path that is kept, in bytes.
pub(super) const PATH_BYTES_MAX: usize = 1024;
/// Longest other text that is kept, in bytes.
pub(super) const TEXT_BYTES_MAX: usize = 256;

/// Letters and digits after the prefix that make a whole nonce.
const WHOLE_RUN: usize = NONCE_BYTES - NONCE_PREFIX.len();
/// Letters and digits after the prefix that are masked at the end of a text that somebody has cut.
const CUT_RUN: usize = 12;

/// Masks whatever looks like a nonce and cuts the text to `bytes_max`, saying how many bytes were left out.
pub(super) fn bounded(text: String, bytes_max: usize) -> String {
    let mut text = masked(&text, bytes_max).unwrap_or(text);
    if text.len() > bytes_max {
        let end = text.floor_char_boundary(bytes_max);
        let omitted = text.len() - end;
        text.truncate(end);
        // Writing to a String cannot fail.
        let _ = write!(text, "…+{omitted}");
        text.shrink_to_fit();
    }
    text
}

/// Whether [`bounded`] would change nothing.
pub(super) fn is_bounded(text: &str, bytes_max: usize) -> bool {
    text.len() <= bytes_max && masked(text, bytes_max).is_none()
}

/// A path: bounded, and without a query or fragment, should one have been handed in.
pub(super) fn path(mut text: String) -> String {
    if let Some(end) = memchr::memchr2(b'?', b'#', text.as_bytes()) {
        text.truncate(end);
    }
    bounded(text, PATH_BYTES_MAX)
}

/// The text with its nonces masked, or `None` when it holds none, percent-encoded at any depth or plain. Somebody may
/// have cut what fills its room; nothing of it counts as whole then, however short it is without its escapes.
fn masked(text: &str, bytes_max: usize) -> Option<String> {
    let may_be_cut = text.len() >= bytes_max;
    if let Some(clean) = mask_plain(text, may_be_cut) {
        return Some(mask_encoded(&clean, may_be_cut).unwrap_or(clean));
    }
    mask_encoded(text, may_be_cut)
}

fn mask_encoded(text: &str, may_be_cut: bool) -> Option<String> {
    text.contains('%').then(|| percent_decoded(text.as_bytes())).and_then(|decoded| {
        let decoded = String::from_utf8_lossy(&decoded);
        mask_plain(&decoded, may_be_cut)
    })
}

fn mask_plain(text: &str, may_be_cut: bool) -> Option<String> {
    // Nearly every text is too short for a whole nonce, and too short to have been cut.
    if text.len() < NONCE_BYTES && !may_be_cut {
        return None;
    }
    let mut clean: Option<String> = None;
    let mut kept_to = 0;
    for at in memchr::memmem::find_iter(text.as_bytes(), NONCE_PREFIX) {
        let start = at + NONCE_PREFIX.len();
        let run = text.as_bytes()[start..].iter().take_while(|b| b.is_ascii_alphanumeric()).count();
        let end = start + run;
        let is_cut = may_be_cut && run >= CUT_RUN && is_nothing_whole(&text.as_bytes()[end..]);
        if run >= WHOLE_RUN || is_cut {
            let clean = clean.get_or_insert_default();
            clean.push_str(&text[kept_to..start]);
            clean.push('…');
            kept_to = end;
        }
    }
    clean.map(|clean| clean + &text[kept_to..])
}

/// Nothing at all, or the beginning of an escape: a text may have been cut in one.
fn is_nothing_whole(rest: &[u8]) -> bool {
    match rest {
        [] | [b'%'] => true,
        [b'%', digit] => digit.is_ascii_hexdigit(),
        _ => false,
    }
}

/// Percent-decodes once, where `%2541` counts as `%41`: encoding something twice hides nothing.
fn percent_decoded(text: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        match escape(byte, after) {
            Some((value, after)) => {
                decoded.push(value);
                rest = after;
            }
            None => {
                decoded.push(byte);
                rest = after;
            }
        }
    }
    decoded
}

fn escape(byte: u8, mut after: &[u8]) -> Option<(u8, &[u8])> {
    if byte != b'%' {
        return None;
    }
    while let Some(inner) = after.strip_prefix(b"25") {
        if hex_pair(inner).is_none() {
            break;
        }
        after = inner;
    }
    Some((hex_pair(after)?, &after[2..]))
}

fn hex_pair(text: &[u8]) -> Option<u8> {
    let pair = text.get(..2)?;
    let mut value = [0];
    hex::decode_to_slice(pair, &mut value).ok()?;
    Some(value[0])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Nonce;

    fn nonce() -> String {
        Nonce::from_entropy(&[7; 32]).as_str().to_owned()
    }

    #[test]
    fn ordinary_text_stays_as_it_is() {
        for text in ["GET", "/v1/customers/cus_1%20a", "/v1/loan_applications/12", "an_short", "%zz%", ""] {
            assert_eq!(bounded(text.into(), 256), text);
        }
    }

    #[test]
    fn a_nonce_is_masked_wherever_and_however_it_stands() {
        let nonce = nonce();
        let encoded: String = nonce.bytes().map(|b| format!("%{b:02X}")).collect();
        let twice = encoded.replace('%', "%2525");
        for text in [
            nonce.clone(),
            format!("/bot{nonce}/getMe"),
            format!("/{encoded}/x"),
            format!("/{twice}"),
            format!("/{nonce}/{encoded}"),
        ] {
            let clean = path(text);
            assert!(clean.contains("an_…"), "{clean}");
            assert!(
                !clean.contains(&nonce[3..])
                    && !percent_decoded(clean.as_bytes()).windows(20).any(|w| nonce.as_bytes()[3..].starts_with(w)),
                "{clean}"
            );
        }
    }

    #[test]
    fn a_nonce_that_was_cut_off_is_masked_too() {
        let text = format!("{}{}", "a".repeat(PATH_BYTES_MAX - 25), &nonce()[..25]);
        assert!(path(text).ends_with("an_…"));
        // Cut to less than a whole nonce.
        assert_eq!(bounded(nonce()[..METHOD_BYTES_MAX].into(), METHOD_BYTES_MAX), "an_…");
    }

    #[test]
    fn no_escape_hides_that_a_nonce_was_cut_off() {
        let nonce = nonce();
        let escaped = |byte: u8, depth: usize| format!("%{}{byte:02x}", "25".repeat(depth));
        for depth in [0, 1, 20] {
            let encoded: String = nonce.bytes().map(|byte| escaped(byte, depth)).collect();
            // Wherever in its last characters, and in their escapes, the cut goes.
            for kept in encoded.len().min(PATH_BYTES_MAX) - 9 * (depth + 1)..encoded.len().min(PATH_BYTES_MAX) {
                let text = format!("{}{}", "a".repeat(PATH_BYTES_MAX - kept), &encoded[..kept]);
                let clean = path(text);
                assert!(clean.contains("an_…"), "{depth} deep, {kept} kept: {clean}");
            }
        }
        let one_escaped = format!("{}%{:02x}{}", &nonce[..10], nonce.as_bytes()[10], &nonce[11..]);
        let text = "a".repeat(PATH_BYTES_MAX + 1 - one_escaped.len()) + &one_escaped[..one_escaped.len() - 1];
        assert!(path(text).ends_with("an_…"));
    }

    #[test]
    fn long_text_is_cut_at_a_character_and_says_so() {
        assert_eq!(bounded("é".repeat(200), 255), format!("{}…+146", "é".repeat(127)));
        assert_eq!(bounded("a".repeat(33), METHOD_BYTES_MAX), format!("{}…+1", "a".repeat(32)));
    }

    #[test]
    fn a_query_is_never_kept() {
        assert_eq!(path("/a?key=1".into()), "/a");
        assert_eq!(path("/a#key".into()), "/a");
    }
}
