//! Which files are looked at, and what is read of them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::cli::print;

/// How deep directories may lie in one another.
const DEPTH_MAX: usize = 128;
/// A file with a zero byte this early is taken for a binary one.
const BINARY_BYTES: usize = 8 * 1024;
/// Files between two lines of progress.
const PROGRESS_FILES: u64 = 64;

/// What was looked at, and what was not.
#[derive(Debug, Default)]
pub struct Seen {
    /// Files that were read.
    pub files: u64,
    /// Files that are no text.
    pub binary: u64,
    /// Files that are too large.
    pub too_large: u64,
    /// Links, sockets, pipes and devices.
    pub links: u64,
    /// What could not be read.
    pub unreadable: u64,
}

/// Goes through files and directories.
pub struct Walk {
    bytes_max: u64,
    seen: Seen,
    is_shown: bool,
}

impl Walk {
    /// Passing over files of more bytes.
    pub fn new(bytes_max: u64) -> Self {
        Self { bytes_max, seen: Seen::default(), is_shown: io::stderr().is_terminal() }
    }

    /// Gives every file below `root`, or `root` itself, in the order of their names.
    pub fn file_by_file(&mut self, root: &Path, look: &mut impl FnMut(&Path, &[u8])) {
        let mut waiting = vec![(root.to_owned(), 0)];
        while let Some((path, depth)) = waiting.pop() {
            let kind = match fs::symlink_metadata(&path) {
                Ok(metadata) => metadata.file_type(),
                Err(error) => {
                    self.failed(&path, &error);
                    continue;
                }
            };
            if kind.is_dir() && depth < DEPTH_MAX {
                match entries(&path) {
                    Ok(entries) => waiting.extend(entries.into_iter().rev().map(|entry| (entry, depth + 1))),
                    Err(error) => self.failed(&path, &error),
                }
            } else if kind.is_dir() {
                self.failed(&path, "it lies too deep");
            } else if kind.is_file() {
                self.file(&path, look);
            } else {
                self.seen.links += 1;
            }
        }
    }

    /// What came of it.
    pub fn finish(self) -> Seen {
        if self.is_shown {
            erase();
        }
        self.seen
    }

    fn file(&mut self, path: &Path, look: &mut impl FnMut(&Path, &[u8])) {
        match read(path, self.bytes_max) {
            Ok(Some(content)) if memchr::memchr(0, &content[..content.len().min(BINARY_BYTES)]).is_some() => {
                self.seen.binary += 1;
            }
            Ok(Some(content)) => {
                self.seen.files += 1;
                look(path, &content);
            }
            Ok(None) => self.seen.too_large += 1,
            Err(error) => self.failed(path, &error),
        }
        if self.is_shown && self.seen.files.is_multiple_of(PROGRESS_FILES) {
            // Nobody to show it to is no reason to fail.
            let _ = write!(io::stderr(), "\r\u{1b}[K{} files", self.seen.files);
        }
    }

    fn failed(&mut self, path: &Path, why: impl std::fmt::Display) {
        self.seen.unreadable += 1;
        if self.is_shown {
            erase();
        }
        print::note(format_args!("{}: {why}", print::visible(&path.to_string_lossy())));
    }
}

fn erase() {
    let _ = write!(io::stderr(), "\r\u{1b}[K");
}

fn entries(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut entries = fs::read_dir(directory)?.map(|entry| entry.map(|e| e.path())).collect::<io::Result<Vec<_>>>()?;
    entries.sort_unstable();
    Ok(entries)
}

/// A file's bytes; `None` for one that has more than it may. What became a link or a pipe meanwhile is not opened.
fn read(path: &Path, bytes_max: u64) -> io::Result<Option<Vec<u8>>> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let flags = i32::try_from(flags.bits()).unwrap_or(0);
    let file: File = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if file.metadata()?.len() > bytes_max {
        return Ok(None);
    }
    let mut content = Vec::new();
    // One byte more: it may have grown.
    file.take(bytes_max + 1).read_to_end(&mut content)?;
    Ok((content.len() as u64 <= bytes_max).then_some(content))
}
