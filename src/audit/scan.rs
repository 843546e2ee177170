//! Reading an audit from anywhere, once, a record at a time.

use std::io::{self, BufRead, Read};
use std::ops::ControlFlow;

use serde_json::Value;

use super::chain::LINE_BYTES_MAX;

/// What was there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Scanned {
    /// Records that were handed out.
    pub records: u64,
    /// Lines that are no records, or longer than a record can be.
    pub passed_over: u64,
}

/// Hands the records of an audit to `callback`, in order, holding one line (at most 1 MiB) at a time. A last line
/// without its newline counts if it is a record. Whether the audit is whole is for [`verify`](super::verify()) to say.
///
/// # Errors
/// When it cannot be read.
pub fn scan(mut reader: impl BufRead, mut callback: impl FnMut(&Value) -> ControlFlow<()>) -> io::Result<Scanned> {
    let mut scanned = Scanned::default();
    let mut line = Vec::new();
    loop {
        line.clear();
        if (&mut reader).take(LINE_BYTES_MAX as u64 + 1).read_until(b'\n', &mut line)? == 0 {
            return Ok(scanned);
        }
        if line.len() > LINE_BYTES_MAX && line.last() != Some(&b'\n') {
            skip_line(&mut reader)?;
            line.clear();
        }
        match serde_json::from_slice::<Value>(&line).ok().filter(|record| record.get("type").is_some()) {
            None => scanned.passed_over += 1,
            Some(record) => {
                scanned.records += 1;
                if callback(&record).is_break() {
                    return Ok(scanned);
                }
            }
        }
    }
}

/// Reads past the end of a line, without holding it.
fn skip_line(reader: &mut impl BufRead) -> io::Result<()> {
    loop {
        let there = reader.fill_buf()?;
        let (used, is_over) = match memchr::memchr(b'\n', there) {
            Some(at) => (at + 1, true),
            None => (there.len(), there.is_empty()),
        };
        reader.consume(used);
        if is_over {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_handed_out_and_all_else_is_counted() {
        let long = "x".repeat(LINE_BYTES_MAX + 10);
        let text = format!("{{\"type\":\"a\"}}\nno record\n{long}\n{{\"v\":1}}\n[]\n{{\"type\":\"b\"}}");
        let mut kinds = Vec::new();
        let scanned = scan(text.as_bytes(), |record| {
            kinds.push(record["type"].as_str().unwrap().to_owned());
            ControlFlow::Continue(())
        });
        assert_eq!(kinds, ["a", "b"]);
        assert_eq!(scanned.unwrap(), Scanned { records: 2, passed_over: 4 });
    }
}
