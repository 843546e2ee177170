//! The text of a policy file without its values, so that a report can show a line and never a secret.

use std::ops::Range;

use crate::model::is_unseen;

/// What the scan is in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Keys, numbers, brackets.
    Plain,
    /// A comment, to the end of the line.
    Comment,
    /// A string: its quote, and whether it is one of three quotes, which may go over lines.
    Text { quote: u8, long: bool },
}

/// Masks the inside of every string and every comment of a TOML text, but what `visible` covers. Bytes keep their
/// places, line ends stay. The text must be valid TOML: elsewhere a quote can be anywhere.
pub(super) fn masked(text: &str, visible: Range<usize>) -> String {
    let mut state = State::Plain;
    let mut masked = String::with_capacity(text.len());
    let mut at = 0;
    while let Some(character) = text.get(at..).and_then(|rest| rest.chars().next()) {
        let (next, length) = step(state, &text.as_bytes()[at..], character);
        let inside = state != State::Plain && next != State::Plain;
        let end = at + length.max(character.len_utf8());
        for c in text.get(at..end).unwrap_or_default().chars() {
            masked.push(if is_treacherous(c) || inside && !visible.contains(&at) { cover(c) } else { c });
        }
        state = next;
        at = end;
    }
    masked
}

/// The state behind the character at the front of `rest`, and how many bytes belong together with it.
fn step(state: State, rest: &[u8], character: char) -> (State, usize) {
    match state {
        State::Comment if character == '\n' => (State::Plain, 1),
        State::Comment => (state, 1),
        State::Plain if character == '#' => (State::Comment, 1),
        State::Plain if character == '"' || character == '\'' => open(rest),
        State::Plain => (state, 1),
        State::Text { quote: b'"', .. } if character == '\\' => (state, escape_bytes(rest)),
        State::Text { quote, long } if rest[0] == quote => close(quote, long, rest),
        State::Text { .. } => (state, 1),
    }
}

fn open(rest: &[u8]) -> (State, usize) {
    let quote = rest[0];
    let long = rest.starts_with(&[quote; 3]);
    (State::Text { quote, long }, if long { 3 } else { 1 })
}

fn close(quote: u8, long: bool, rest: &[u8]) -> (State, usize) {
    let quotes = rest.iter().take_while(|byte| **byte == quote).count();
    match (long, quotes) {
        (false, _) => (State::Plain, 1),
        // Up to two quotes may stand directly before the three that end it (TOML 1.0, String).
        (true, 3..) => (State::Plain, quotes.min(5)),
        (true, _) => (State::Text { quote, long }, 1),
    }
}

/// A backslash and the whole character behind it.
fn escape_bytes(rest: &[u8]) -> usize {
    let continues = |byte: &&u8| **byte & 0b1100_0000 == 0b1000_0000;
    2 + rest.iter().skip(2).take_while(continues).count()
}

/// What acts on a terminal instead of showing on it: controls, and marks that turn the direction of text or hide in it.
fn is_treacherous(c: char) -> bool {
    is_unseen(c) && !matches!(c, '\n' | '\r' | '\t')
}

/// A character of the same length in bytes.
fn cover(character: char) -> char {
    match (character, character.len_utf8()) {
        ('\n' | '\r', _) => character,
        (_, 1) => '*',
        (_, 2) => '\u{b7}',
        (_, 3) => '\u{2022}',
        _ => '\u{1f512}',
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_and_comments_are_masked_and_keys_are_not() {
        let text = "name = \"sk_live_1\" # was sk_live_2\nn = 'a\"b'\nx = 5\n";
        let expected = "name = \"*********\" #**************\nn = '***'\nx = 5\n";
        assert_eq!(masked(text, 0..0), expected);
    }

    #[test]
    fn escapes_and_long_strings_do_not_end_early() {
        for text in [
            r#"a = "x\"secret" "#,
            "a = \"\"\"x\n\"\"secret\"\"\" ",
            "a = \"\"\"x\\\"\"\"secret\"\"\"\"\" ",
            "a = '''x''secret''' ",
            "a = \"\\\\\" # secret",
            "a = \"\\\u{e9}\u{1f512}secret\" ",
        ] {
            let masked = masked(text, 0..0);
            assert!(!masked.contains("secret"), "{text}: {masked}");
            assert_eq!(masked.len(), text.len(), "{text}");
        }
    }

    #[test]
    fn what_acts_on_a_terminal_is_masked_even_where_it_is_visible() {
        let text = "allow = [\"GET \u{202e}/a\u{9b}31m\u{200b}\tb\"]";
        let shown = masked(text, 0..text.len());
        assert_eq!(shown, "allow = [\"GET \u{2022}/a\u{b7}31m\u{2022}\tb\"]");
        assert_eq!(shown.len(), text.len());
    }

    #[test]
    fn what_is_visible_stays() {
        let text = "allow = [\"GET /a\", \"GET /b\"]";
        assert_eq!(masked(text, 9..17), "allow = [\"GET /a\", \"******\"]");
    }
}
