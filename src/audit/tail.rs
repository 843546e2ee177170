//! Reading an audit as it grows.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek};
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::chain::LINE_BYTES_MAX;

/// How often a file that does not grow is looked at.
const POLL_EVERY: Duration = Duration::from_millis(50);
/// Most records that [`Tail::last`] can ask for.
const LAST_RECORDS_MAX: usize = 10_000;

/// What to read.
#[derive(Debug, Clone, Default)]
pub struct Tail {
    /// Whether to wait for more.
    pub follow: Follow,
    /// Only the last so many records (of those that pass the filter) of what is there already, at most 10,000.
    pub last: Option<usize>,
    /// Which records.
    pub filter: Filter,
}

/// Whether to wait for more at the end of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Follow {
    /// Stop at the end.
    #[default]
    No,
    /// Wait for more, across rotations, until the callback breaks.
    Yes,
}

/// Which records to show: those that have every member that is given here.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// `decision`, `mint`, …
    pub kind: Option<String>,
    /// `allow` or `deny`.
    pub decision: Option<String>,
    /// Why it was refused: `out_of_scope`, …
    pub code: Option<String>,
    /// The agent's name.
    pub agent: Option<String>,
    /// The task's name.
    pub task: Option<String>,
    /// The service's name.
    pub service: Option<String>,
    /// `nc_…`.
    pub nonce_id: Option<String>,
    /// `ex_…`.
    pub exchange_id: Option<String>,
}

impl Filter {
    /// True for a record that has all that is asked for.
    #[must_use]
    pub fn admits(&self, record: &Value) -> bool {
        let wanted = [
            ("type", &self.kind),
            ("decision", &self.decision),
            ("code", &self.code),
            ("agent", &self.agent),
            ("task", &self.task),
            ("service", &self.service),
            ("nonce.id", &self.nonce_id),
            ("exchange.id", &self.exchange_id),
        ];
        wanted.iter().all(|(key, wanted)| {
            wanted.as_deref().is_none_or(|wanted| record.get(key).and_then(Value::as_str) == Some(wanted))
        })
    }
}

/// Hands the records of the file at `path` to `callback`, in order. Lines that are no JSON object are passed over:
/// whether the audit is whole is for [`verify`](super::verify()) to say. Blocks; for a thread of its own.
///
/// # Errors
/// When the file cannot be read or is no regular file.
pub fn tail(path: &Path, what: &Tail, mut callback: impl FnMut(&Value) -> ControlFlow<()>) -> io::Result<()> {
    let mut reader = Reader::open(path)?;
    if show_present(&mut reader, what, &mut callback)?.is_break() || what.follow == Follow::No {
        return Ok(());
    }
    loop {
        while let Some(record) = reader.next()? {
            if what.filter.admits(&record) && callback(&record).is_break() {
                return Ok(());
            }
        }
        match reader.successor(path)? {
            Some(next) => reader = next,
            None => thread::sleep(POLL_EVERY),
        }
    }
}

fn show_present(
    reader: &mut Reader,
    what: &Tail,
    callback: &mut impl FnMut(&Value) -> ControlFlow<()>,
) -> io::Result<ControlFlow<()>> {
    let last_max = what.last.map(|last| last.min(LAST_RECORDS_MAX));
    let mut held = VecDeque::new();
    while let Some(record) = reader.next()? {
        if !what.filter.admits(&record) {
            continue;
        }
        match last_max {
            None if callback(&record).is_break() => return Ok(ControlFlow::Break(())),
            None => {}
            Some(last_max) => {
                held.push_back(record);
                if held.len() > last_max {
                    held.pop_front();
                }
            }
        }
    }
    Ok(held.iter().try_for_each(callback))
}

struct Reader {
    file: BufReader<File>,
    identity: (u64, u64),
    /// The beginning of a line that is still being written.
    partial: Vec<u8>,
    /// The line is longer than a record can be: it is passed over.
    is_too_long: bool,
}

impl Reader {
    fn open(path: &Path) -> io::Result<Self> {
        // Asked before opening: opening a FIFO would wait for a writer.
        if !path.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        let identity = (metadata.dev(), metadata.ino());
        Ok(Self { file: BufReader::new(file), identity, partial: Vec::new(), is_too_long: false })
    }

    /// The next whole record; `None` at the end of what is there.
    fn next(&mut self) -> io::Result<Option<Value>> {
        loop {
            let room = LINE_BYTES_MAX.saturating_sub(self.partial.len()) as u64 + 1;
            if (&mut self.file).take(room).read_until(b'\n', &mut self.partial)? == 0 {
                return Ok(None);
            }
            if self.partial.last() != Some(&b'\n') {
                if self.partial.len() > LINE_BYTES_MAX {
                    self.is_too_long = true;
                    self.partial.clear();
                }
                continue;
            }
            let record = serde_json::from_slice::<Value>(&self.partial).ok().filter(Value::is_object);
            self.partial.clear();
            if let (false, Some(record)) = (std::mem::take(&mut self.is_too_long), record) {
                return Ok(Some(record));
            }
        }
    }

    /// The file that took this one's name, or this one from its start after it was emptied.
    fn successor(&mut self, path: &Path) -> io::Result<Option<Self>> {
        let metadata = match path.metadata() {
            Ok(metadata) => metadata,
            // Between a rotation's two steps there may be no file.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let is_same = (metadata.dev(), metadata.ino()) == self.identity;
        if is_same && metadata.len() >= self.file.stream_position()? {
            return Ok(None);
        }
        if !is_same && !self.file.fill_buf()?.is_empty() {
            // Written between our last look and the rotation: read on first.
            return Ok(None);
        }
        Self::open(path).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn seqs(path: &Path, what: &Tail, stop_at: u64) -> Vec<u64> {
        let mut seqs = Vec::new();
        let outcome = tail(path, what, |record| {
            let seq = record["seq"].as_u64().unwrap();
            seqs.push(seq);
            if seq == stop_at { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        outcome.unwrap();
        seqs
    }

    #[test]
    fn it_shows_what_is_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let lines = "{\"seq\":1,\"type\":\"mint\"}\ngarbage\n{\"seq\":2,\"type\":\"end\"}\n{\"seq\":3,\"type\":\"mint\"}\n{\"se";
        std::fs::write(&path, lines).unwrap();
        assert_eq!(seqs(&path, &Tail::default(), 0), [1, 2, 3]);
        let filter = Filter { kind: Some("mint".into()), ..Filter::default() };
        assert_eq!(seqs(&path, &Tail { filter, ..Tail::default() }, 0), [1, 3]);
        assert_eq!(seqs(&path, &Tail { last: Some(2), ..Tail::default() }, 0), [2, 3]);
        assert_eq!(seqs(&path, &Tail { last: Some(0), ..Tail::default() }, 0), [0_u64; 0]);
    }

    #[test]
    fn it_follows_growth_and_rotation() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        std::fs::write(&path, "{\"seq\":1}\n{\"se").unwrap();
        let change = || {
            let mut file = File::options().append(true).open(&path).unwrap();
            file.write_all(b"q\":2}\n").unwrap();
            std::fs::rename(&path, path.with_extension("1")).unwrap();
            file.write_all(b"{\"seq\":3}\n").unwrap();
            std::fs::write(&path, "{\"seq\":4}\n").unwrap();
        };
        let mut seqs = Vec::new();
        let what = Tail { follow: Follow::Yes, ..Tail::default() };
        let outcome = tail(&path, &what, |record| {
            seqs.push(record["seq"].as_u64().unwrap());
            match seqs.len() {
                1 => change(),
                4 => return ControlFlow::Break(()),
                _ => {}
            }
            ControlFlow::Continue(())
        });
        outcome.unwrap();
        assert_eq!(seqs, [1, 2, 3, 4]);
    }

    #[test]
    fn a_line_beyond_all_bounds_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let long = format!("{{\"seq\":7,\"x\":\"{}\"}}\n{{\"seq\":8}}\n", "x".repeat(3 * LINE_BYTES_MAX));
        std::fs::write(&path, long).unwrap();
        assert_eq!(seqs(&path, &Tail::default(), 0), [8]);
    }
}
