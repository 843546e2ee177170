//! Bounding and cleaning of what others chose.

use crate::model::is_unseen;

/// At most `chars_max` characters, without control, bidirectional, invisible or non-characters: fit for JSON, XML and
/// plain text once that dialect's own marks are escaped. What was cut off leaves a `…`.
pub(super) fn clean(text: &str, chars_max: usize) -> String {
    let mut out = String::with_capacity(text.len().min(chars_max * 4));
    for (count, character) in text.chars().enumerate() {
        if count + 1 == chars_max && text.chars().nth(chars_max).is_some() {
            out.push('…');
            break;
        }
        if count == chars_max {
            break;
        }
        out.push(if is_plain(character) { character } else { '?' });
    }
    out
}

fn is_plain(character: char) -> bool {
    !is_unseen(character) && !matches!(character, '\u{fff0}'..='\u{ffff}')
}

/// Printable ASCII of at most `bytes_max` bytes, for a status line or a header field.
pub(super) fn ascii(text: &str, bytes_max: usize) -> String {
    let mut out = String::with_capacity(bytes_max.min(text.len()));
    for character in text.chars() {
        match character {
            '…' => out.push_str("..."),
            ' '..='~' => out.push(character),
            _ => out.push('?'),
        }
    }
    if out.len() > bytes_max {
        out.truncate(bytes_max.saturating_sub(3));
        out.push_str("...");
    }
    out
}

/// `grpc-message`: percent-encoded but for printable ASCII (gRPC over HTTP/2, "Status-Message").
pub(super) fn percent(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'%' => out.push_str("%25"),
            b' '..=b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// Text between XML tags.
pub(super) fn xml(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&apos;"),
            _ => out.push(character),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_can_break_a_line_turn_the_text_or_hide() {
        assert_eq!(clean("a\r\nb\0c\u{202e}d\u{200b}e\u{85}f\u{fffe}g\u{1b}h", 100), "a??b?c?d?e?f?g?h");
        assert_eq!(clean("größe 日本", 100), "größe 日本");
    }

    #[test]
    fn long_text_is_cut_with_a_mark() {
        assert_eq!(clean("abcdef", 6), "abcdef");
        assert_eq!(clean("abcdefg", 6), "abcde…");
        assert_eq!(clean("ääääääää", 3), "ää…");
        assert_eq!(ascii("abcdefgh", 6), "abc...");
        assert_eq!(ascii("a…\r\nü", 100), "a...???");
    }

    #[test]
    fn escapes_fit_their_dialect() {
        assert_eq!(xml("<a href='x'>&\"</a>"), "&lt;a href=&apos;x&apos;&gt;&amp;&quot;&lt;/a&gt;");
        assert_eq!(percent("50 % ü\n"), "50 %25 %C3%BC%0A");
    }
}
