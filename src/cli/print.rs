//! What commands print: aligned text for people, JSON for programs.
//!
//! Standard output carries the answer and nothing else; notes go to standard error. Colours are written always and
//! taken out by `anstream` where no terminal listens or `NO_COLOR` is set.

use std::fmt::{Display, Write as _};
use std::io::{self, ErrorKind, Write};

use anstream::adapter::strip_str;
use anstream::{AutoStream, ColorChoice};
use owo_colors::{OwoColorize, Style};
use serde::Serialize;

use super::Failure;

/// Blanks between two columns.
const GAP: &str = "  ";

/// Writes text to standard output. A reader that has seen enough (`| head`) is no failure.
pub fn text(text: &str) -> Result<(), Failure> {
    finish(write(text))
}

/// Writes a value to standard output as JSON, with a newline.
pub fn json(value: &impl Serialize) -> Result<(), Failure> {
    // Our own types have text keys and serialise; if one should not, saying nothing would be worse than failing.
    let document = serde_json::to_string_pretty(value).map_err(Failure::other)?;
    text(&format!("{}\n", ascii(&document)))
}

/// A JSON document with everything beyond ASCII escaped, which JSON has in strings alone: the same document, and
/// nothing in it acts on a terminal.
pub fn ascii(document: &str) -> String {
    let mut out = String::with_capacity(document.len());
    for character in document.chars() {
        if matches!(character, '\n' | ' '..='~') {
            out.push(character);
            continue;
        }
        for unit in character.encode_utf16(&mut [0; 2]) {
            // Writing to a String cannot fail.
            let _ = write!(out, "\\u{unit:04x}");
        }
    }
    out
}

/// Says something beside the answer, on standard error: a line in one write, since others may write there meanwhile.
pub fn note(text: impl Display) {
    let line = format!("{text}\n");
    let mut error = io::stderr().lock();
    let shown = match AutoStream::choice(&error) {
        // Its own stream would write what is between the colours piece by piece.
        ColorChoice::Never => strip_str(&line).to_string(),
        ColorChoice::Auto | ColorChoice::Always | ColorChoice::AlwaysAnsi => line,
    };
    // Nobody to tell it to is no reason to fail.
    let _ = error.write_all(shown.as_bytes());
}

/// A warning on standard error.
pub fn warn(text: impl Display) {
    note(format_args!("{} {text}", "warning:".style(Style::new().yellow().bold())));
}

/// Writes to standard output; for those who must know whether it arrived.
pub fn write(text: &str) -> io::Result<()> {
    let mut output = anstream::stdout().lock();
    output.write_all(text.as_bytes())?;
    output.flush()
}

/// What became of a write: a closed pipe is how readers say that they have enough.
pub fn finish(written: io::Result<()>) -> Result<(), Failure> {
    match written {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(Failure::other(format!("cannot write to standard output: {error}"))),
    }
}

/// Text from elsewhere, with what could act on a terminal shown escaped.
pub fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '"' | '\'' | '\\' => shown.push(character),
            other => shown.extend(other.escape_debug()),
        }
    }
    shown
}

/// Rows under a headline, in columns as wide as they must be.
pub struct Table {
    headline: &'static [&'static str],
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table of these columns.
    pub fn new(headline: &'static [&'static str]) -> Self {
        Self { headline, rows: Vec::new() }
    }

    /// Adds a row; a cell for each column.
    pub fn row(&mut self, cells: &[String]) {
        self.rows.push(cells.iter().map(|cell| visible(cell)).collect());
    }

    /// The text, a line for each row.
    pub fn render(&self) -> String {
        let widths: Vec<usize> = self.headline.iter().enumerate().map(|(at, name)| self.width(at, name)).collect();
        let headline: Vec<String> = self.headline.iter().map(|name| (*name).to_owned()).collect();
        let mut out = line(&headline, &widths).style(Style::new().bold()).to_string();
        out.push('\n');
        for row in &self.rows {
            out.push_str(&line(row, &widths));
            out.push('\n');
        }
        out
    }

    fn width(&self, column: usize, name: &str) -> usize {
        let cells = self.rows.iter().filter_map(|row| row.get(column)).map(|cell| columns(cell));
        cells.chain([columns(name)]).max().unwrap_or(0)
    }
}

/// One row; the last cell is not padded.
fn line(cells: &[String], widths: &[usize]) -> String {
    let mut out = String::new();
    for (at, (cell, width)) in cells.iter().zip(widths).enumerate() {
        if at > 0 {
            out.push_str(GAP);
        }
        out.push_str(cell);
        if at + 1 < cells.len() {
            pad(&mut out, width - columns(cell));
        }
    }
    out
}

/// Facts by name, one below the other.
#[derive(Default)]
pub struct Block {
    facts: Vec<(String, String)>,
}

impl Block {
    /// Adds a fact; an empty name continues the one above.
    pub fn fact(&mut self, name: &str, value: impl Display) -> &mut Self {
        self.facts.push((visible(name), visible(&value.to_string())));
        self
    }

    /// Adds a fact if there is one.
    pub fn maybe(&mut self, name: &str, value: Option<impl Display>) -> &mut Self {
        if let Some(value) = value {
            self.fact(name, value);
        }
        self
    }

    /// Adds several values under one name.
    pub fn list(&mut self, name: &str, values: impl IntoIterator<Item = impl Display>) -> &mut Self {
        for (at, value) in values.into_iter().enumerate() {
            self.fact(if at == 0 { name } else { "" }, value);
        }
        self
    }

    /// The text, a line for each fact.
    pub fn render(&self) -> String {
        let width = self.facts.iter().map(|(name, _)| columns(name)).max().unwrap_or(0);
        let mut out = String::new();
        for (name, value) in &self.facts {
            // Writing to a String cannot fail.
            let _ = write!(out, "{}", name.style(Style::new().dimmed()));
            pad(&mut out, width - columns(name));
            let _ = writeln!(out, "{GAP}{value}");
        }
        out
    }
}

fn columns(text: &str) -> usize {
    text.chars().count()
}

fn pad(out: &mut String, columns: usize) {
    out.extend(std::iter::repeat_n(' ', columns));
}

/// A span of time in its two largest units: `4m 12s`, `2h 5m`, `1d 3h`.
pub fn span(seconds: u64) -> String {
    let parts = [(seconds / 86_400, 'd'), (seconds / 3600 % 24, 'h'), (seconds / 60 % 60, 'm'), (seconds % 60, 's')];
    let first = parts.iter().position(|(count, _)| *count > 0).unwrap_or(parts.len() - 1);
    let shown: Vec<String> = parts[first..]
        .iter()
        .take(2)
        .enumerate()
        .filter(|(at, (count, _))| *at == 0 || *count > 0)
        .map(|(_, (count, unit))| format!("{count}{unit}"))
        .collect();
    shown.join(" ")
}

/// `1 mistake`, `2 mistakes`.
pub fn count(number: usize, one: &str, many: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{number} {many}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn tables_are_aligned_and_end_without_blanks() {
        let mut table = Table::new(&["ID", "AGENT", "TASK"]);
        table.row(&["1".into(), "billing".into(), "a".into()]);
        table.row(&["22".into(), "é".into(), "b c".into()]);
        assert_eq!(plain(&table.render()), "ID  AGENT    TASK\n1   billing  a\n22  é        b c\n");
        assert!(table.render().contains('\u{1b}'), "the headline has a style");
    }

    #[test]
    fn blocks_are_aligned() {
        let mut block = Block::default();
        block.fact("id", "nc_1").maybe("reason", None::<&str>).list("allow", ["GET /a", "GET /b"]);
        assert_eq!(plain(&block.render()), "id     nc_1\nallow  GET /a\n       GET /b\n");
    }

    #[test]
    fn nothing_from_elsewhere_acts_on_the_terminal() {
        let mut table = Table::new(&["TASK"]);
        table.row(&["a\u{1b}[2J\nb\u{202e}".into()]);
        let mut block = Block::default();
        block.fact("la\rbel", "x\u{9b}31m\u{7}");
        for text in [plain(&table.render()), plain(&block.render())] {
            assert!(!text.replace('\n', "").chars().any(|c| c.is_control() || c == '\u{202e}'), "{text:?}");
        }
        assert_eq!(plain(&table.render()).lines().count(), 2);
        assert_eq!(visible("it's \"é\" \\"), "it's \"é\" \\");
    }

    #[test]
    fn json_is_the_same_document_in_ascii() {
        let value = serde_json::json!({"a\u{7f}\u{9b}é": "😀\u{202e}\n\"\\"});
        let document = ascii(&serde_json::to_string_pretty(&value).unwrap());
        assert!(document.chars().all(|c| c == '\n' || c.is_ascii_graphic() || c == ' '), "{document:?}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&document).unwrap(), value);
    }

    #[test]
    fn spans_show_two_units() {
        for (seconds, shown) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (252, "4m 12s"),
            (3600, "1h"),
            (3605, "1h"),
            (7500, "2h 5m"),
            (97_200, "1d 3h"),
        ] {
            assert_eq!(span(seconds), shown);
        }
    }

    #[test]
    fn a_reader_that_left_is_no_failure_and_a_full_disk_is_one() {
        assert!(finish(Err(ErrorKind::BrokenPipe.into())).is_ok());
        assert!(finish(Err(ErrorKind::StorageFull.into())).is_err());
    }
}
