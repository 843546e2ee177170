//! A record as one line for people.

use std::fmt::Write as _;

use owo_colors::Style;
use serde_json::Value;

/// Whether to colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colour {
    /// No escape sequences.
    Plain,
    /// ANSI colours, for terminals.
    Ansi,
}

/// One line for people, without a newline: time, what happened, to whom, and the rest by its name. Control characters,
/// bidi controls and the like are shown escaped, so that a record cannot act on the terminal.
#[must_use]
pub fn render(record: &Value, colour: Colour) -> String {
    let mut line = Line { text: String::new(), colour };
    line.word(&text(record, "time"), Style::new().dimmed());
    let (headline, style) = headline(record);
    line.word(&format!("{headline:<10}"), style);
    for key in leading_keys(record) {
        if record.get(key).is_some() {
            line.word(&text(record, key), Style::new());
        }
    }
    line.rest(record);
    line.text
}

/// Members that are shown in the first words, or that only matter to `audit verify`.
const SHOWN_OR_LEFT_OUT: &[&str] =
    &["v", "boot_id", "seq", "time", "type", "prev", "hash", "decision", "connection.id", "http.version"];

fn leading_keys(record: &Value) -> &'static [&'static str] {
    match record.get("type").and_then(Value::as_str) {
        Some("decision") => &["agent", "task", "service", "scope", "method", "scheme", "destination", "path", "code"],
        Some("end") => &["agent", "task", "service", "ending", "status", "code"],
        Some("mint") => &["agent", "task", "grants"],
        Some("renew") => &["agent", "task", "expires_at"],
        Some("lease_end") => &["agent", "task", "cause"],
        Some("control_refused") => &["call", "code"],
        Some("refused_summary") => &["agent", "peer.address", "service", "code", "refused"],
        Some("connection") => &["peer", "destination", "code"],
        _ => &[],
    }
}

fn headline(record: &Value) -> (String, Style) {
    let kind = text(record, "type");
    match (kind.as_str(), record.get("decision").and_then(Value::as_str)) {
        ("decision", Some("allow")) => ("allow".into(), Style::new().green()),
        ("decision", Some("deny")) => ("deny".into(), Style::new().red()),
        ("lost" | "outage" | "connection" | "refused_summary" | "control_refused", _) => (kind, Style::new().yellow()),
        ("start" | "stop" | "rotated", _) => (kind, Style::new().bold()),
        _ => (kind, Style::new().cyan()),
    }
}

/// A member's value as printable text; empty when there is none.
fn text(record: &Value, key: &str) -> String {
    match record.get(key) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => printable(text),
        Some(Value::Array(items)) if items.iter().all(Value::is_string) => {
            let items: Vec<_> = items.iter().filter_map(Value::as_str).map(printable).collect();
            items.join(",")
        }
        Some(other) => printable(&other.to_string()),
    }
}

fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '"' | '\'' => shown.push(character),
            other => shown.extend(other.escape_debug()),
        }
    }
    shown
}

struct Line {
    text: String,
    colour: Colour,
}

impl Line {
    fn word(&mut self, word: &str, style: Style) {
        if !self.text.is_empty() {
            self.text.push(' ');
        }
        // Writing to a String cannot fail.
        let _ = match self.colour {
            Colour::Plain => write!(self.text, "{word}"),
            Colour::Ansi => write!(self.text, "{}", style.style(word)),
        };
    }

    fn rest(&mut self, record: &Value) {
        let leading = leading_keys(record);
        for key in record.as_object().into_iter().flat_map(|members| members.keys()) {
            if SHOWN_OR_LEFT_OUT.contains(&key.as_str()) || leading.contains(&key.as_str()) {
                continue;
            }
            self.word(&format!("{}={}", printable(key), text(record, key)), Style::new().dimmed());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_decision_reads_in_order() {
        let record = json!({"v": 1, "boot_id": "b", "seq": 2, "time": "T", "type": "decision", "exchange.id": "ex_1",
            "agent": "billing", "service": "stripe", "method": "GET", "path": "/v1/x", "decision": "deny",
            "code": "out_of_scope", "prev": "p", "hash": "h"});
        assert_eq!(
            render(&record, Colour::Plain),
            "T deny       billing stripe GET /v1/x out_of_scope exchange.id=ex_1"
        );
        assert!(render(&record, Colour::Ansi).contains("\u{1b}[31mdeny"));
    }

    #[test]
    fn a_record_cannot_act_on_the_terminal() {
        let record =
            json!({"type": "decision\u{1b}[2J", "path\n": "\u{202e}\r\u{9b}2J\u{2028}é", "facts": {"\u{1b}": 1}});
        let line = render(&record, Colour::Plain);
        assert!(!line.chars().any(|c| c.is_control() || "\u{202e}\u{2028}".contains(c)), "{line:?}");
        assert!(line.contains('é'));
    }

    #[test]
    fn anything_can_be_rendered() {
        for record in [json!(null), json!([1]), json!({}), json!({"type": 1, "time": {}})] {
            let _ = render(&record, Colour::Plain);
        }
    }
}
