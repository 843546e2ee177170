//! The place of the records: a file, a FIFO, a device or standard output. Only who holds the pen touches it.

use std::io;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fd::{AsFd, OwnedFd};
#[cfg(not(target_vendor = "apple"))]
use rustix::fs::fdatasync;
#[cfg(target_vendor = "apple")]
use rustix::fs::fsync as fdatasync;
use rustix::fs::{fstat, ftruncate};
use rustix::io::Errno;

use super::chain::Hash;
use super::{Sink, StartError};

mod open;

/// Pause before a full pipe is tried again.
const PIPE_RETRY: Duration = Duration::from_millis(2);

/// An open sink.
pub(super) struct Output {
    target: Target,
    /// Bytes of an unfinished line at the end, `Some(0)` when only its newline is missing.
    torn: Option<u64>,
    /// A pipe that is not read may hold a write back this long.
    write_max: Duration,
}

enum Target {
    Stdout,
    File(File),
}

struct File {
    path: PathBuf,
    fd: OwnedFd,
    is_regular: bool,
    /// Device and inode.
    identity: (u64, u64),
    has_records: bool,
}

/// What has become of the file behind our back.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Condition {
    /// As we left it.
    Sound,
    /// Its last name was removed: what is written now would be lost.
    Gone,
    /// It was emptied in place, as `copytruncate` does.
    Emptied,
}

/// What a reopened path turned out to be.
pub(super) enum Reopened {
    /// The file that is open already.
    Same,
    /// Another place, which goes on after this record; `None` when it is fresh.
    Other(Output, Option<Hash>),
}

impl Output {
    /// Opens the sink, and finds the last record in it.
    pub(super) fn open(sink: &Sink, write_max: Duration) -> Result<(Self, Option<Hash>), StartError> {
        let Sink::File(path) = sink else {
            return Ok((Self { target: Target::Stdout, torn: None, write_max }, None));
        };
        let file = open::open(path)?;
        Self::adopt(file, write_max)
    }

    /// Opens the path anew.
    pub(super) fn reopen(&self) -> Result<Reopened, StartError> {
        let Target::File(old) = &self.target else {
            return Ok(Reopened::Same);
        };
        let file = open::open(&old.path)?;
        if file.identity == old.identity {
            return Ok(Reopened::Same);
        }
        let (output, head) = Self::adopt(file, self.write_max)?;
        Ok(Reopened::Other(output, head))
    }

    fn adopt(mut file: File, write_max: Duration) -> Result<(Self, Option<Hash>), StartError> {
        if !file.is_regular {
            return Ok((Self { target: Target::File(file), torn: None, write_max }, None));
        }
        open::lock(&file)?;
        let tail = open::read_tail(&file)?;
        file.has_records = tail.head.is_some();
        Ok((Self { target: Target::File(file), torn: tail.torn, write_max }, tail.head))
    }

    /// Looks whether the file is still the one that we opened.
    pub(super) fn condition(&self) -> Condition {
        let Target::File(File { fd, is_regular: true, has_records, .. }) = &self.target else {
            return Condition::Sound;
        };
        match fstat(fd) {
            Ok(stat) if stat.st_nlink == 0 => Condition::Gone,
            Ok(stat) if stat.st_size == 0 && *has_records => Condition::Emptied,
            // An error here will come back, and count, when we write.
            Ok(_) | Err(_) => Condition::Sound,
        }
    }

    /// A file, whose writes only reach the page cache; not a pipe, a device or standard output.
    pub(super) fn is_regular(&self) -> bool {
        match &self.target {
            Target::Stdout => false,
            Target::File(file) => file.is_regular,
        }
    }

    /// Takes note that the file was emptied.
    pub(super) fn forget_records(&mut self) {
        self.torn = None;
        if let Target::File(file) = &mut self.target {
            file.has_records = false;
        }
    }

    /// Bytes of an unfinished line that has to be ended before the next record.
    pub(super) fn torn(&self) -> Option<u64> {
        self.torn
    }

    /// Hands `bytes` to the kernel; says how many it took, and what stopped it.
    pub(super) fn append(&self, bytes: &[u8]) -> (usize, Option<io::Error>) {
        match &self.target {
            Target::Stdout => write(rustix::stdio::stdout(), bytes, self.write_max),
            Target::File(file) => write(&file.fd, bytes, self.write_max),
        }
    }

    /// Takes note that whole records were written, the newline before them included.
    pub(super) fn note_written(&mut self) {
        self.torn = None;
        if let Target::File(file) = &mut self.target {
            file.has_records = true;
        }
    }

    /// Deals with the `rest` bytes of an unfinished record after a failed write: removes them, or remembers them.
    pub(super) fn heal(&mut self, rest: usize) {
        if rest == 0 || self.cut_off(rest as u64) {
            return;
        }
        // The first byte ended the unfinished line before, where there was one.
        let new = rest as u64 - u64::from(self.torn.is_some());
        self.torn = Some(self.torn.unwrap_or(0) + new);
    }

    fn cut_off(&self, rest: u64) -> bool {
        let Target::File(File { fd, is_regular: true, .. }) = &self.target else {
            return false;
        };
        // The lock keeps other sidecars out, so the end of the file is what we wrote last.
        let Some(whole) = fstat(fd).ok().and_then(|stat| u64::try_from(stat.st_size).ok()?.checked_sub(rest)) else {
            return false;
        };
        ftruncate(fd, whole).is_ok()
    }

    /// Waits until the disk has what was written; nothing to do where there is no disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        match &self.target {
            Target::Stdout => match fdatasync(rustix::stdio::stdout()) {
                // Pipes and terminals cannot be synced (fsync(2)).
                Err(Errno::INVAL | Errno::ROFS) => Ok(()),
                other => other.map_err(io::Error::from),
            },
            Target::File(File { is_regular: false, .. }) => Ok(()),
            Target::File(file) => fdatasync(&file.fd).map_err(io::Error::from),
        }
    }
}

fn write<Fd: AsFd>(fd: Fd, bytes: &[u8], write_max: Duration) -> (usize, Option<io::Error>) {
    let mut written = 0;
    let mut give_up: Option<Instant> = None;
    while written < bytes.len() {
        match rustix::io::write(&fd, &bytes[written..]) {
            Ok(0) => return (written, Some(io::ErrorKind::WriteZero.into())),
            Ok(count) => written += count,
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) if Instant::now() < *give_up.get_or_insert_with(|| Instant::now() + write_max) => {
                thread::sleep(PIPE_RETRY);
            }
            Err(error) => return (written, Some(error.into())),
        }
    }
    (written, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unfinished_record_is_cut_off_a_regular_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        let (mut output, _) = Output::open(&Sink::File(path.clone()), Duration::ZERO).unwrap();
        assert_eq!(output.append(b"whole\npart").0, 10);
        output.heal(4);
        assert_eq!(std::fs::read(&path).unwrap(), b"whole\n");
        assert_eq!(output.torn(), None);
    }

    #[test]
    fn an_unfinished_record_in_a_pipe_is_remembered() {
        let mut output = Output { target: Target::Stdout, torn: None, write_max: Duration::ZERO };
        output.heal(4);
        assert_eq!(output.torn(), Some(4));
        output.heal(1);
        assert_eq!(output.torn(), Some(4), "only the newline was taken");
        output.heal(3);
        assert_eq!(output.torn(), Some(6));
        output.note_written();
        assert_eq!(output.torn(), None);
    }
}
