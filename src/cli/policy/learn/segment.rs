//! What looks like an id in a path, and what is a word of the API.

/// Shortest token without a prefix that is taken for an id, in bytes.
const OPAQUE_BYTES_MIN: usize = 16;
/// Shortest part behind a prefix that is taken for an id, in bytes; digits alone may be shorter.
const TAIL_BYTES_MIN: usize = 6;
/// Digits that an opaque token has at least, unless it mixes capitals with small letters.
const OPAQUE_DIGITS_MIN: usize = 3;

/// The literal beginning of an id: `cus_` of `cus_NffrFeUfNV2Hib`, nothing of `4711` and of a UUID; `None` for a word.
pub(super) fn prefix_of_id(segment: &str) -> Option<&str> {
    if is_number(segment) || is_uuid(segment) || is_address(segment) {
        return Some("");
    }
    if let Some(at) = segment.rfind(['_', '-']) {
        let (prefix, tail) = segment.split_at(at + 1);
        if is_prefix(prefix) && is_tail(tail) {
            return Some(prefix);
        }
    }
    is_opaque(segment).then_some("")
}

/// `4711`, and what is made of numbers: `2024-11-22`.
fn is_number(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit()) && text.bytes().all(|b| b.is_ascii_digit() || b"-.:".contains(&b))
}

fn is_uuid(text: &str) -> bool {
    let lengths = [8, 4, 4, 4, 12];
    let mut groups = text.split('-');
    let fits = |length: usize| move |group: &str| group.len() == length && group.bytes().all(|b| b.is_ascii_hexdigit());
    lengths.into_iter().all(|length| groups.next().is_some_and(fits(length))) && groups.next().is_none()
}

/// `ana@example.com`.
fn is_address(text: &str) -> bool {
    text.split_once('@').is_some_and(|(user, domain)| !user.is_empty() && domain.contains('.'))
}

/// `cus_`, `sub_sched_`, `PROJ-`: letters first, and no digit that could be a part of the id.
fn is_prefix(prefix: &str) -> bool {
    prefix.starts_with(|c: char| c.is_ascii_alphabetic())
        && prefix.bytes().all(|b| b.is_ascii_alphabetic() || b == b'_' || b == b'-')
}

/// What is behind a prefix: digits, or a token with digits or mixed case that is no word of a language.
fn is_tail(tail: &str) -> bool {
    if !tail.is_empty() && tail.bytes().all(|b| b.is_ascii_digit()) {
        return true;
    }
    let is_token = tail.len() >= TAIL_BYTES_MIN && tail.bytes().all(|b| b.is_ascii_alphanumeric());
    is_token && (tail.bytes().any(|b| b.is_ascii_digit()) || is_mixed(tail))
}

/// A hash, a ULID, a token: long, of letters and digits.
fn is_opaque(text: &str) -> bool {
    let is_token = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-' || b == b'=';
    if text.len() < OPAQUE_BYTES_MIN || !text.bytes().all(is_token) {
        return false;
    }
    let digits = text.bytes().filter(u8::is_ascii_digit).count();
    digits >= OPAQUE_DIGITS_MIN || digits > 0 && is_mixed(text)
}

/// Capitals after small letters, more than the one of a name.
fn is_mixed(text: &str) -> bool {
    let capitals = text.bytes().skip(1).filter(u8::is_ascii_uppercase).count();
    capitals >= 2 && text.bytes().any(|b| b.is_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_told_from_words() {
        for (segment, prefix) in [
            ("4711", Some("")),
            ("0", Some("")),
            ("2024-11-22", Some("")),
            ("1.2.3", Some("")),
            ("01234567-89ab-cdef-0123-456789ABCDEF", Some("")),
            ("ana@example.com", Some("")),
            ("cus_NffrFeUfNV2Hib", Some("cus_")),
            ("cus_1", Some("cus_")),
            ("sub_sched_1Mr3Yc", Some("sub_sched_")),
            ("PROJ-12", Some("PROJ-")),
            ("i-0abc12def", Some("i-")),
            ("9f86d081884c7d659a2feaa0c55ad015a3bf4f1b", Some("")),
            ("01J8Z3K5Q9V0W1X2Y3Z4A5B6C7", Some("")),
            ("dGhpcyBpcyBhIHRlc3Q", Some("")),
            ("customers", None),
            ("v1", None),
            ("v1.0", None),
            ("payment_intents", None),
            ("customer_balance_transactions", None),
            ("users_v2", None),
            ("oauth2-token-exchange", None),
            ("search", None),
            ("getUserById", None),
            ("listAllCustomersOfTenant", None),
            ("_", None),
            ("cus_", None),
            ("", None),
            ("@me", None),
            ("models:generate", None),
            ("é", None),
        ] {
            assert_eq!(prefix_of_id(segment), prefix, "{segment}");
        }
    }
}
