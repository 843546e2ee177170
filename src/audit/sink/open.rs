//! Opening a file so that nobody else can have prepared it, and finding where its chain ends.

use std::io;
use std::path::Path;

use rustix::fd::OwnedFd;
use rustix::fs::{FileType, FlockOperation, Mode, OFlags, Stat, flock, fstat, fsync, open as open_path};
use rustix::io::{Errno, pread};
use rustix::process::geteuid;

use super::File;
use crate::audit::StartError;
use crate::audit::chain::{Hash, LINE_BYTES_MAX, Sealed};

/// How much of the end is read: a whole record and an unfinished one.
const TAIL_BYTES_MAX: usize = 2 * LINE_BYTES_MAX + 2;
/// What every record begins with.
const RECORD_START: &[u8] = b"{\"v\":1,\"boot_id\":\"";

/// The end of a file.
pub(super) struct Tail {
    /// Hash of the last whole record.
    pub(super) head: Option<Hash>,
    /// Bytes after it that are no record; `Some(0)` when the last record only lacks its newline.
    pub(super) torn: Option<u64>,
}

/// Opens for appending, without following a link or waiting for a reader, and refuses what others may write.
pub(super) fn open(path: &Path) -> Result<File, StartError> {
    let is_new = !path.exists();
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::CLOEXEC;
    let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let fd = open_path(path, flags, Mode::RUSR | Mode::WUSR).map_err(|errno| match errno {
        Errno::LOOP => StartError::Link { path: path.into() },
        Errno::NXIO => StartError::NoReader { path: path.into() },
        Errno::ISDIR => StartError::NotAFile { path: path.into() },
        errno => cannot_open(path, errno),
    })?;
    let stat = fstat(&fd).map_err(|errno| cannot_open(path, errno))?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    match kind {
        FileType::RegularFile => check_private(path, &stat)?,
        FileType::Fifo | FileType::CharacterDevice => {}
        _ => return Err(StartError::NotAFile { path: path.into() }),
    }
    if is_new {
        sync_directory(path);
    }
    let is_regular = kind == FileType::RegularFile;
    Ok(File { path: path.into(), fd, is_regular, identity: identity(&stat), has_records: false })
}

fn cannot_open(path: &Path, errno: Errno) -> StartError {
    StartError::Open { path: path.into(), source: errno.into() }
}

#[allow(clippy::unnecessary_cast, reason = "the widths of these fields differ between systems")]
fn identity(stat: &Stat) -> (u64, u64) {
    (stat.st_dev as u64, stat.st_ino as u64)
}

fn check_private(path: &Path, stat: &Stat) -> Result<(), StartError> {
    let mode = Mode::from_raw_mode(stat.st_mode);
    if stat.st_uid != geteuid().as_raw() {
        return Err(StartError::Owner { path: path.into() });
    }
    if mode.intersects(Mode::WGRP | Mode::WOTH) {
        return Err(StartError::WritableByOthers { path: path.into() });
    }
    if mode.intersects(Mode::XUSR | Mode::XGRP | Mode::XOTH) {
        return Err(StartError::Executable { path: path.into() });
    }
    Ok(())
}

/// Makes the new name itself survive a loss of power, where the file system can.
fn sync_directory(path: &Path) {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if let Ok(directory) = open_path(parent, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
        // Best effort: a directory that cannot be synced still takes the records.
        let _ = fsync(&directory);
    }
}

/// Keeps other sidecars out of this file for as long as it is open.
pub(super) fn lock(file: &File) -> Result<(), StartError> {
    flock(&file.fd, FlockOperation::NonBlockingLockExclusive).map_err(|errno| match errno {
        Errno::WOULDBLOCK => StartError::Locked { path: file.path.clone() },
        errno => cannot_open(&file.path, errno),
    })
}

/// Finds the last record, reading no more than [`TAIL_BYTES_MAX`] from the end.
pub(super) fn read_tail(file: &File) -> Result<Tail, StartError> {
    let unreadable = |source| StartError::Open { path: file.path.clone(), source };
    let foreign = || StartError::NotAnAudit { path: file.path.clone() };
    let (bytes, is_everything) = last_bytes(file).map_err(unreadable)?;
    let (whole, torn) = match memchr::memrchr(b'\n', &bytes) {
        Some(end) => (Some(&bytes[..end]), &bytes[end + 1..]),
        None => (None, bytes.as_slice()),
    };
    let head = whole.map(|lines| last_record(lines, is_everything).ok_or_else(foreign)).transpose()?;
    if torn.is_empty() {
        return Ok(Tail { head, torn: None });
    }
    if let Some(sealed) = Sealed::parse(torn).filter(|sealed| sealed.is_intact) {
        // Everything but the newline got there: it is a record like the others.
        return Ok(Tail { head: Some(sealed.hash), torn: Some(0) });
    }
    let begins_a_record = torn.iter().zip(RECORD_START).all(|(a, b)| a == b);
    let is_ours = head.is_some() || (is_everything && begins_a_record);
    if is_ours { Ok(Tail { head, torn: Some(torn.len() as u64) }) } else { Err(foreign()) }
}

fn last_record(lines: &[u8], is_everything: bool) -> Option<Hash> {
    let line = match memchr::memrchr(b'\n', lines) {
        Some(before) => &lines[before + 1..],
        None if is_everything => lines,
        None => return None,
    };
    Sealed::parse(line).filter(|sealed| sealed.is_intact).map(|sealed| sealed.hash)
}

/// The last bytes of the file, and whether they are all of it. The file was opened for writing only, so that a
/// FIFO without a reader is noticed; reading needs a second look at the same inode.
fn last_bytes(file: &File) -> io::Result<(Vec<u8>, bool)> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let fd: OwnedFd = open_path(&file.path, flags, Mode::empty())?;
    let stat = fstat(&fd)?;
    if identity(&stat) != file.identity {
        return Err(io::Error::other("the file was exchanged while it was opened"));
    }
    let size = usize::try_from(stat.st_size).unwrap_or(0);
    let mut bytes = vec![0; size.min(TAIL_BYTES_MAX)];
    let start = size - bytes.len();
    let mut filled = 0;
    while filled < bytes.len() {
        match pread(&fd, &mut bytes[filled..], (start + filled) as u64)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => filled += count,
        }
    }
    Ok((bytes, start == 0))
}
