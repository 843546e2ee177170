//! `source = "file"`: a file that is read again while it is in use.
//!
//! The content is read anew and compared, instead of watching times and inode numbers: that sees
//! Kubernetes' swap of the `..data` link, a rename, and a rewrite in place within one tick of the
//! file system's clock alike. Whatever is wrong with the new content, the old one is not used again.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::OFlags;
use zeroize::Zeroizing;

use super::Form;
use super::source::{Loading, Pace, Problem, SOURCE_BYTES_MAX, Source, parse};
use crate::clock::SharedClock;

/// How old a value may be before the file is looked at again: a change holds within a second.
pub const FILE_CHECK_EVERY: Duration = Duration::from_millis(250);
/// Longest that a caller waits for the file system.
pub const FILE_WAIT_MAX: Duration = Duration::from_secs(5);
/// How often files are asked.
pub(super) const FILE_PACE: Pace =
    Pace { check_every: Some(FILE_CHECK_EVERY), pause_max: FILE_CHECK_EVERY, wait_max: FILE_WAIT_MAX };
/// How often a read is begun again because somebody wrote meanwhile.
const FILE_READS_MAX: usize = 3;

/// A credential in a file.
pub(super) struct FileSource {
    path: PathBuf,
    form: Form,
    clock: SharedClock,
}

impl FileSource {
    pub(super) fn new(path: PathBuf, form: Form, clock: SharedClock) -> Self {
        Self { path, form, clock }
    }
}

impl Source for FileSource {
    fn load(&self) -> Loading<'_> {
        let (path, form, now) = (self.path.clone(), self.form, self.clock.now());
        Box::pin(async move {
            let reading = tokio::task::spawn_blocking(move || parse(form, read_bytes(&path)?, &now));
            reading.await.map_err(|_| Problem::Interrupted)?
        })
    }

    fn pace(&self) -> Pace {
        FILE_PACE
    }
}

/// All of a file, of at most [`SOURCE_BYTES_MAX`], as it is when nobody writes.
pub(super) fn read_bytes(path: &Path) -> Result<Zeroizing<Vec<u8>>, Problem> {
    for _ in 0..FILE_READS_MAX {
        let mut file = open(path).map_err(|e| Problem::Io(e.kind()))?;
        let before = stamp(&file)?;
        let bytes = read_bounded(&mut file)?;
        if stamp(&file)? == before {
            return Ok(bytes);
        }
    }
    Err(Problem::Changing)
}

fn open(path: &Path) -> io::Result<File> {
    // Without NONBLOCK, opening a pipe waits for a writer; a terminal must not become ours.
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    File::options().read(true).custom_flags(flags.bits().cast_signed()).open(path)
}

/// What differs once somebody has written: size, time of writing, time of any change.
fn stamp(file: &File) -> Result<(u64, [i64; 4]), Problem> {
    let metadata: Metadata = file.metadata().map_err(|e| Problem::Io(e.kind()))?;
    if !metadata.is_file() {
        return Err(Problem::NotRegular);
    }
    Ok((metadata.size(), [metadata.mtime(), metadata.mtime_nsec(), metadata.ctime(), metadata.ctime_nsec()]))
}

fn read_bounded(file: &mut File) -> Result<Zeroizing<Vec<u8>>, Problem> {
    // Allocated once: a buffer that grows leaves copies behind that nobody wipes.
    let mut bytes = Zeroizing::new(vec![0; SOURCE_BYTES_MAX + 1]);
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read(&mut bytes[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(Problem::Io(e.kind())),
        }
    }
    if filled > SOURCE_BYTES_MAX {
        return Err(Problem::Long);
    }
    bytes.truncate(filled);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::credential::source::parse_line;
    use crate::model::Credential;
    use crate::model::secret::CredentialError;

    fn read(path: &Path) -> Result<Credential, Problem> {
        parse_line(super::read_bytes(path)?)
    }

    fn directory() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[test]
    fn a_file_is_read_without_its_line_end() {
        let directory = directory();
        let path = directory.path().join("key");
        std::fs::write(&path, "sk_live_1234567890\n").unwrap();
        assert_eq!(read(&path).unwrap().bytes_count(), 18);
    }

    #[test]
    fn what_is_no_credential_is_refused() {
        let directory = directory();
        let path = directory.path().join("key");
        let cases: [(&[u8], Problem); 5] = [
            (b"", Problem::Content(CredentialError::Empty)),
            (b"a\nb\n", Problem::Content(CredentialError::Character)),
            ("schl\u{fc}ssel".as_bytes(), Problem::Content(CredentialError::Character)),
            (&[b'a'; SOURCE_BYTES_MAX], Problem::Content(CredentialError::TooLong)),
            (&[b'a'; SOURCE_BYTES_MAX + 1], Problem::Long),
        ];
        for (content, problem) in cases {
            std::fs::write(&path, content).unwrap();
            assert_eq!(read(&path).err(), Some(problem));
        }
    }

    #[test]
    fn what_is_no_file_is_refused_and_nothing_waits() {
        let directory = directory();
        let pipe = directory.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        assert_eq!(read(&pipe).err(), Some(Problem::NotRegular));
        assert_eq!(read(directory.path()).err(), Some(Problem::NotRegular));
        assert_eq!(read(Path::new("/dev/null")).err(), Some(Problem::NotRegular));
        assert_eq!(read(&directory.path().join("none")).err(), Some(Problem::Io(io::ErrorKind::NotFound)));
    }

    #[test]
    fn links_are_followed() {
        let directory = directory();
        let data = directory.path().join("..2026_01_01");
        std::fs::create_dir(&data).unwrap();
        std::fs::write(data.join("key"), "sk_live_1234567890").unwrap();
        symlink("..2026_01_01", directory.path().join("..data")).unwrap();
        symlink("..data/key", directory.path().join("key")).unwrap();
        assert!(read(&directory.path().join("key")).is_ok());
    }
}
