//! `application/x-www-form-urlencoded`, in the one reading that all parsers share.

use std::collections::HashSet;

use super::{BodyFault, Field, FieldType, FieldValue, check_not_in_query, declared};
use crate::policy::target::Target;

/// The declared fields. `name=value`, between `&`; no `;`, which some parsers take for `&`, no empty piece, no byte that
/// should have been escaped.
pub(super) fn read(
    content: &str,
    fields: Option<&[(String, FieldType)]>,
    target: &Target,
) -> Result<Vec<Field>, BodyFault> {
    if content.is_empty() {
        return Ok(Vec::new());
    }
    if !content.bytes().all(|b| b.is_ascii_graphic() && b != b';') {
        return Err(BodyFault::Malformed);
    }
    let mut seen = HashSet::new();
    let mut found = Vec::new();
    for piece in content.split('&') {
        let (name, value) = piece.split_once('=').ok_or(BodyFault::Malformed)?;
        let (name, value) = (decode(name)?, decode(value)?);
        if !seen.insert(name.clone()) {
            return Err(BodyFault::Repeated);
        }
        if let Some(kind) = declared(fields, &name)? {
            found.push(Field { name, value: of_type(value, kind)? });
        }
    }
    check_not_in_query(seen.iter().map(String::as_str), target)?;
    Ok(found)
}

fn of_type(value: String, kind: FieldType) -> Result<FieldValue, BodyFault> {
    match kind {
        FieldType::Any => Some(FieldValue::Any),
        FieldType::Text => Some(FieldValue::Text(value)),
        FieldType::Int => is_plain_int(&value).then(|| value.parse().ok().map(FieldValue::Int)).flatten(),
        FieldType::Number => {
            let (whole, fraction) = value.split_once('.').unwrap_or((&value, "0"));
            let is_plain = is_plain_whole(whole) && is_digits(fraction);
            is_plain.then(|| value.parse().ok().map(FieldValue::Number)).flatten()
        }
        FieldType::Bool => match value.as_str() {
            "true" => Some(FieldValue::Bool(true)),
            "false" => Some(FieldValue::Bool(false)),
            _ => None,
        },
        // Lists have no spelling in a form on which parsers agree; the policy's file cannot declare them.
        FieldType::Texts | FieldType::Ints => None,
    }
    .ok_or(BodyFault::WrongType)
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// Digits without a leading zero, behind a `-` or not: neither `010`, which is 8 to some, nor `+1`, ` 1`, `1e3`, `-0`.
fn is_plain_int(text: &str) -> bool {
    is_plain_whole(text) && text != "-0"
}

fn is_plain_whole(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    is_digits(digits) && (digits == "0" || !digits.starts_with('0'))
}

/// Decoded once, `+` as a space; a bad escape, what is not UTF-8 and NUL are refused.
fn decode(raw: &str) -> Result<String, BodyFault> {
    let bytes = raw.as_bytes();
    let is_whole = |at: usize| bytes.get(at + 1..at + 3).is_some_and(|pair| pair.iter().all(u8::is_ascii_hexdigit));
    if memchr::memchr_iter(b'%', bytes).any(|at| !is_whole(at)) {
        return Err(BodyFault::Malformed);
    }
    let spaced = raw.replace('+', " ");
    let decoded = percent_encoding::percent_decode_str(&spaced).decode_utf8().map_err(|_| BodyFault::Malformed)?;
    if decoded.contains('\0') { Err(BodyFault::Malformed) } else { Ok(decoded.into_owned()) }
}
