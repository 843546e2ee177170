//! Files in one directory, addressed by its descriptor: links are never followed, replacement is atomic.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, fchmod, flock, openat, renameat, statat, unlinkat};
use rustix::io::Errno;
use rustix::process::geteuid;

use super::AuthorityError;

/// No file of ours is larger, in bytes.
const BYTES_MAX: u64 = 64 * 1024;
/// How much of a file is compared at a time, in bytes.
const PIECE_BYTES: usize = 16 * 1024;
/// The mode of what everybody may read.
const PUBLIC: u32 = 0o644;
/// How often, and how long apart, a held lock is tried again: two seconds in all.
const LOCK_TRIES: u32 = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Whether a file is still there after the machine has crashed.
#[derive(Debug, Clone, Copy)]
pub(super) enum Lasting {
    Yes,
    No,
}

/// An open directory.
pub(super) struct Directory {
    fd: OwnedFd,
    path: PathBuf,
}

/// What was read, and whose it is.
pub(super) struct Found {
    pub(super) bytes: zeroize::Zeroizing<Vec<u8>>,
    pub(super) uid: u32,
    /// Permission bits.
    pub(super) mode: u32,
}

impl Directory {
    /// Opens a directory, made with `mode` (its missing parents too) if it is not there.
    pub(super) fn open_or_make(path: &Path, mode: u32) -> Result<Self, AuthorityError> {
        match Self::open(path, mode) {
            Ok(fd) => Ok(Self { fd, path: path.to_owned() }),
            Err(source) => Err(AuthorityError::File { path: path.to_owned(), source }),
        }
    }

    /// Opens a directory; `None` if it is not there.
    pub(super) fn open_if_there(path: &Path) -> Result<Option<Self>, AuthorityError> {
        match Self::open_present(path) {
            Ok(file) => Ok(Some(Self { fd: file.into(), path: path.to_owned() })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(AuthorityError::File { path: path.to_owned(), source }),
        }
    }

    fn open_present(path: &Path) -> io::Result<File> {
        let flags = OFlags::DIRECTORY.bits().cast_signed();
        OpenOptions::new().read(true).custom_flags(flags).open(path)
    }

    fn open(path: &Path, mode: u32) -> io::Result<OwnedFd> {
        let missing = !path.exists();
        DirBuilder::new().recursive(true).mode(mode).create(path)?;
        let file = Self::open_present(path)?;
        if missing {
            // The umask may have taken away what others need in a public directory.
            fchmod(&file, Mode::from_raw_mode(mode))?;
        }
        Ok(file.into())
    }

    /// Where it is, for messages.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Puts one file in the place of another, durably.
    pub(super) fn rename(&self, from: &str, to: &str) -> Result<(), AuthorityError> {
        let renamed = renameat(&self.fd, from, &self.fd, to).and_then(|()| rustix::fs::fsync(&self.fd));
        renamed.map_err(|errno| self.fault(to, errno.into()))
    }

    /// The path of a file in here, for messages.
    pub(super) fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Keeps other processes of ours out until this is dropped. The lock is on the directory itself, so that no file
    /// is left over.
    pub(super) fn lock(&self) -> Result<(), AuthorityError> {
        for _ in 0..LOCK_TRIES {
            match flock(&self.fd, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(()),
                Err(Errno::WOULDBLOCK | Errno::INTR) => sleep(LOCK_PAUSE),
                Err(errno) => return Err(AuthorityError::File { path: self.path.clone(), source: errno.into() }),
            }
        }
        Err(AuthorityError::Busy { path: self.path.clone() })
    }

    /// Whether there is anything of this name, a dangling link included.
    pub(super) fn holds(&self, name: &str) -> bool {
        !matches!(statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW), Err(Errno::NOENT))
    }

    /// Reads a plain file; `None` if there is none.
    pub(super) fn read(&self, name: &str) -> Result<Option<Found>, AuthorityError> {
        // Not blocking, so that a pipe put there cannot hold up the start.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match openat(&self.fd, name, flags, Mode::empty()) {
            Ok(fd) => File::from(fd),
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP) => return Err(AuthorityError::NotAFile { path: self.join(name) }),
            Err(errno) => return Err(self.fault(name, errno.into())),
        };
        let metadata = file.metadata().map_err(|source| self.fault(name, source))?;
        if !metadata.is_file() {
            return Err(AuthorityError::NotAFile { path: self.join(name) });
        }
        if metadata.len() > BYTES_MAX {
            return Err(AuthorityError::Malformed { path: self.join(name) });
        }
        // Room for all of it at once: a growing buffer would leave pieces of a key behind.
        let mut bytes = zeroize::Zeroizing::new(Vec::with_capacity(64 + usize::try_from(metadata.len()).unwrap_or(0)));
        file.take(BYTES_MAX).read_to_end(&mut bytes).map_err(|source| self.fault(name, source))?;
        Ok(Some(Found { bytes, uid: metadata.uid(), mode: metadata.mode() & 0o7777 }))
    }

    /// Puts a file of exactly this mode in place, whole or not at all, and durably.
    pub(super) fn replace(&self, name: &str, mode: u32, bytes: &[u8]) -> Result<(), AuthorityError> {
        self.put(name, mode, bytes, Lasting::Yes)
    }

    fn put(&self, name: &str, mode: u32, bytes: &[u8], lasting: Lasting) -> Result<(), AuthorityError> {
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(|_| AuthorityError::Generation)?;
        let draft = format!(".{name}.{}", hex::encode(random));
        let done = self.write(&draft, Mode::from_raw_mode(mode), bytes, lasting).and_then(|()| {
            renameat(&self.fd, draft.as_str(), &self.fd, name)?;
            match lasting {
                Lasting::Yes => Ok(rustix::fs::fsync(&self.fd)?),
                Lasting::No => Ok(()),
            }
        });
        done.map_err(|source| {
            // Nothing of it may stay; if it was never made, there is nothing to remove.
            let _ = unlinkat(&self.fd, draft.as_str(), AtFlags::empty());
            self.fault(name, source)
        })
    }

    /// Puts a file that everybody may read in place, whole or not at all. One that is already as it is to be stays.
    pub(super) fn show(&self, name: &str, bytes: &[u8], lasting: Lasting) -> Result<(), AuthorityError> {
        if self.shows(name, bytes) { Ok(()) } else { self.put(name, PUBLIC, bytes, lasting) }
    }

    /// Only what nobody else can change is as it is to be.
    fn shows(&self, name: &str, bytes: &[u8]) -> bool {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let Ok(file) = openat(&self.fd, name, flags, Mode::empty()).map(File::from) else { return false };
        let is_ours = |metadata: std::fs::Metadata| {
            let is_plain = metadata.is_file() && metadata.nlink() == 1 && metadata.len() == bytes.len() as u64;
            is_plain && metadata.uid() == geteuid().as_raw() && metadata.mode() & 0o7777 == PUBLIC
        };
        file.metadata().is_ok_and(is_ours) && holds_just(file, bytes).unwrap_or(false)
    }

    fn write(&self, name: &str, mode: Mode, bytes: &[u8], lasting: Lasting) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(openat(&self.fd, name, flags, Mode::RUSR)?);
        file.write_all(bytes)?;
        // The umask may have taken bits away, and nobody else reads before all is written.
        fchmod(file.as_fd(), mode)?;
        match lasting {
            Lasting::Yes => file.sync_all(),
            Lasting::No => Ok(()),
        }
    }

    fn fault(&self, name: &str, source: io::Error) -> AuthorityError {
        AuthorityError::File { path: self.join(name), source }
    }
}

/// Whether the rest of a file is this; read in small pieces, for memory of its whole size would cost more than reading.
fn holds_just(mut file: File, mut bytes: &[u8]) -> io::Result<bool> {
    let mut piece = [0; PIECE_BYTES];
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(bytes.is_empty()),
            count => match bytes.strip_prefix(&piece[..count]) {
                Some(rest) => bytes = rest,
                None => return Ok(false),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn directory() -> (tempfile::TempDir, Directory) {
        let parent = tempfile::tempdir().unwrap();
        let directory = Directory::open_or_make(&parent.path().join("a/b"), 0o700).unwrap();
        (parent, directory)
    }

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn a_file_is_replaced_with_its_mode_and_nothing_is_left_over() {
        let (_parent, directory) = directory();
        directory.replace("x", 0o400, b"one").unwrap();
        directory.replace("x", 0o644, b"two").unwrap();
        assert_eq!(fs::read(directory.join("x")).unwrap(), b"two");
        assert_eq!(mode(&directory.join("x")), 0o644);
        assert_eq!(fs::read_dir(&directory.path).unwrap().count(), 1);
        assert_eq!(mode(&directory.path), 0o700);
    }

    #[test]
    fn a_public_file_stays_if_it_is_as_it_is_to_be_and_nobody_else_can_change_it() {
        let (_parent, directory) = directory();
        let number = || fs::metadata(directory.join("x")).unwrap().ino();
        let show = |text: &[u8]| {
            // Held open, so that its number is not given to the next one.
            let held = File::open(directory.join("x"));
            let before = held.as_ref().map(|held| held.metadata().unwrap().ino()).ok();
            directory.show("x", text, Lasting::No).unwrap();
            assert_eq!(fs::read(directory.join("x")).unwrap(), text);
            assert_eq!(mode(&directory.join("x")), 0o644);
            Some(number()) == before
        };
        assert!(!show(b"one") && show(b"one") && !show(b"two") && !show(b"longer") && show(b"longer"));
        fs::set_permissions(directory.join("x"), fs::Permissions::from_mode(0o666)).unwrap();
        assert!(!show(b"longer"), "others could write to it");
        fs::hard_link(directory.join("x"), directory.join("y")).unwrap();
        assert!(!show(b"longer"), "it has another name");
        fs::rename(directory.join("x"), directory.join("z")).unwrap();
        std::os::unix::fs::symlink("z", directory.join("x")).unwrap();
        assert!(!show(b"longer") && !directory.join("x").is_symlink(), "it was a link");
    }

    #[test]
    fn a_file_is_told_from_any_other_wherever_they_differ() {
        let (_parent, directory) = directory();
        let text = vec![b'x'; 2 * PIECE_BYTES];
        fs::write(directory.join("x"), &text).unwrap();
        let holds = |text: &[u8]| holds_just(File::open(directory.join("x")).unwrap(), text).unwrap();
        let (mut first, mut last) = (text.clone(), text.clone());
        (first[0], last[2 * PIECE_BYTES - 1]) = (b'y', b'y');
        assert!(holds(&text) && !holds(&first) && !holds(&last));
        assert!(!holds(&text[1..]) && !holds(&[&text[..], b"x"].concat()) && !holds(b""));
    }

    #[test]
    fn a_failed_replacement_leaves_nothing_and_breaks_nothing() {
        let (_parent, directory) = directory();
        fs::create_dir(directory.join("x")).unwrap();
        assert!(matches!(directory.replace("x", 0o644, b"two"), Err(AuthorityError::File { .. })));
        assert_eq!(fs::read_dir(&directory.path).unwrap().count(), 1);
    }

    #[test]
    fn a_link_is_replaced_and_never_followed() {
        let (parent, directory) = directory();
        let outside = parent.path().join("outside");
        fs::write(&outside, "theirs").unwrap();
        std::os::unix::fs::symlink(&outside, directory.join("x")).unwrap();
        assert!(matches!(directory.read("x"), Err(AuthorityError::NotAFile { .. })));
        assert!(directory.holds("x"));
        directory.replace("x", 0o644, b"ours").unwrap();
        assert_eq!(fs::read(&outside).unwrap(), b"theirs");
        assert_eq!(directory.read("x").unwrap().unwrap().bytes.as_slice(), b"ours");
    }

    #[test]
    fn only_plain_files_of_a_sensible_size_are_read() {
        let (_parent, directory) = directory();
        assert!(directory.read("x").unwrap().is_none());
        fs::create_dir(directory.join("d")).unwrap();
        assert!(matches!(directory.read("d"), Err(AuthorityError::NotAFile { .. })));
        rustix::fs::mkfifoat(&directory.fd, "p", Mode::RUSR).unwrap();
        assert!(matches!(directory.read("p"), Err(AuthorityError::NotAFile { .. })));
        fs::write(directory.join("big"), vec![b'x'; 64 * 1024 + 1]).unwrap();
        assert!(matches!(directory.read("big"), Err(AuthorityError::Malformed { .. })));
    }

    #[test]
    fn a_lock_is_waited_for_and_ends_with_its_holder() {
        let (_parent, directory) = directory();
        directory.lock().unwrap();
        let path = directory.path.clone();
        let other = std::thread::spawn(move || {
            let other = Directory::open_or_make(&path, 0o700).unwrap();
            other.lock()
        });
        drop(directory);
        other.join().unwrap().unwrap();
    }
}
