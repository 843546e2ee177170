//! One segment of a path: decoded once, and refused when a second reader could see another path in it.

use std::borrow::Cow;

use crate::model::Ambiguity;

/// Decodes one segment and judges it. Borrows unless there is an escape in it.
///
/// A `/` in the result was `%2F`; the parts beside it are judged as segments of their own.
pub(in crate::policy) fn segment(raw: &str) -> Result<Cow<'_, str>, Ambiguity> {
    let text = if raw.contains('%') { Cow::Owned(unescape(raw)?) } else { Cow::Borrowed(raw) };
    if text.contains('\\') {
        return Err(Ambiguity::EncodedSlash);
    }
    if matches!(text, Cow::Owned(_)) {
        check_characters(&text)?;
        check_double(text.as_bytes())?;
    }
    text.split('/').try_for_each(check_part)?;
    Ok(text)
}

/// The same for a segment of a path without an escape and without a backslash.
pub(super) fn plain_segment(raw: &str) -> Result<Cow<'_, str>, Ambiguity> {
    check_part(raw).map(|()| Cow::Borrowed(raw))
}

fn unescape(raw: &str) -> Result<String, Ambiguity> {
    let mut bytes = Vec::with_capacity(raw.len());
    let mut rest = raw.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let (byte, length) = if first == b'%' { (hex_pair(tail).ok_or(Ambiguity::PathBytes)?, 3) } else { (first, 1) };
        bytes.push(byte);
        rest = &rest[length..];
    }
    String::from_utf8(bytes).map_err(|_| Ambiguity::PathBytes)
}

/// The byte that the first two hexadecimal digits of `text` spell.
pub(super) fn hex_pair(text: &[u8]) -> Option<u8> {
    let digit = |at: usize| text.get(at).and_then(|b| char::from(*b).to_digit(16));
    u8::try_from(digit(0)? * 16 + digit(1)?).ok()
}

/// Characters that a reader may drop, or fold (NFKC, best fit) into one that has a meaning in paths.
fn check_characters(text: &str) -> Result<(), Ambiguity> {
    text.chars().try_for_each(|c| match c {
        c if c.is_control() => Err(Ambiguity::PathBytes),
        '\u{ff0e}' | '\u{fe52}' | '\u{2024}' | '\u{2025}' => Err(Ambiguity::DotSegment),
        '\u{ff0f}' | '\u{2215}' | '\u{2044}' | '\u{29f8}' => Err(Ambiguity::EncodedSlash),
        '\u{ff3c}' | '\u{fe68}' | '\u{2216}' | '\u{29f5}' | '\u{29f9}' => Err(Ambiguity::EncodedSlash),
        '\u{ff05}' | '\u{fe6a}' => Err(Ambiguity::DoubleEncoding),
        '\u{ff1b}' | '\u{fe54}' | '\u{37e}' => Err(Ambiguity::PathParameter),
        '\u{ff1f}' | '\u{fe56}' | '\u{ff03}' | '\u{fe5f}' => Err(Ambiguity::PathBytes),
        _ => Ok(()),
    })
}

/// A decoded text that decodes again: `%2e`, or `%u002e` as IIS reads it.
fn check_double(text: &[u8]) -> Result<(), Ambiguity> {
    let hex = |bytes: Option<&[u8]>| bytes.is_some_and(|b| b.iter().all(u8::is_ascii_hexdigit));
    let double = memchr::memchr_iter(b'%', text).any(|at| {
        let wide = matches!(text.get(at + 1), Some(b'u' | b'U'));
        hex(text.get(at + 1..at + 3)) || (wide && hex(text.get(at + 2..at + 6)))
    });
    if double { Err(Ambiguity::DoubleEncoding) } else { Ok(()) }
}

/// What stands between two slashes, plain or encoded. Servers that strip `;…`, or that decode before they look for
/// `?` and `#`, read what is before it.
fn check_part(part: &str) -> Result<(), Ambiguity> {
    // The plain case in one glance: nearly every segment begins with something visible that is no dot.
    if part.as_bytes().first().is_some_and(|b| b.is_ascii_graphic() && !b".;?#".contains(b)) {
        return Ok(());
    }
    let name = before_delimiter(part);
    let mut seen = name.chars().filter(|c| !is_dropped(*c)).peekable();
    let empty = seen.peek().is_none();
    if !seen.all(|c| c == '.') {
        return Ok(());
    }
    match part[name.len()..].starts_with(';') {
        true => Err(Ambiguity::PathParameter),
        false if empty => Err(Ambiguity::EmptySegment),
        false => Err(Ambiguity::DotSegment),
    }
}

/// What is left of a decoded segment when a reader takes `;`, `?` and `#` for what they mean undecoded.
pub(in crate::policy) fn before_delimiter(segment: &str) -> &str {
    segment.split([';', '?', '#']).next().unwrap_or(segment)
}

/// What is left of a decoded segment when a reader takes blanks off its ends, and dots off its end, as Windows does.
pub(in crate::policy) fn without_ends(segment: &str) -> &str {
    let is_plain = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    if is_plain(segment.as_bytes().first()) && is_plain(segment.as_bytes().last()) {
        return segment;
    }
    segment.trim_matches(is_dropped).trim_end_matches(|c| c == '.' || is_dropped(c))
}

/// White space, which Windows trims, and what normalisers take out: joiners, marks of direction, soft hyphens.
fn is_dropped(c: char) -> bool {
    c.is_whitespace()
        || matches!(c, '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}')
        || matches!(c, '\u{2060}'..='\u{206f}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{e0000}'..='\u{e0fff}')
}
