//! The control socket as a file: who may reach it, whose it is, and when it goes away.

use std::fs::{self, DirBuilder, Metadata, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FlockOperation, Gid, Mode, OFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::net::UnixListener;

use super::SocketError;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 128;
/// Write permission of somebody other than the owner.
const OTHERS_WRITE: u32 = 0o022;
/// The sticky bit: in such a directory only the owner of a file may replace it.
const STICKY: u32 = 0o1000;

/// Binds the socket at `path`; see [`super::bind`].
pub(super) fn bind(path: &Path, group: Option<u32>) -> Result<UnixListener, SocketError> {
    let at = |source| SocketError::System { path: path.to_owned(), source };
    let directory = parent(path);
    prepare_directory(directory, group)?;
    // Two that start at once: the second finds the lock taken and leaves the socket alone.
    let _starting = lock(path)?;
    clear_stale(path)?;
    let socket = bind_private(path).map_err(at)?;
    if let Some(group) = group {
        open_to_group(path, group).map_err(at)?;
    }
    // Only now can anybody connect: the permissions are final.
    rustix::net::listen(&socket, BACKLOG).map_err(|errno| at(errno.into()))?;
    UnixListener::from_std(socket.into()).map_err(at)
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes the directory 0700 (0750 for a group) if it is missing; an existing one must not let others replace files.
fn prepare_directory(directory: &Path, group: Option<u32>) -> Result<(), SocketError> {
    let at = |source| SocketError::System { path: directory.to_owned(), source };
    if !directory.exists() {
        make_directory(directory, group).map_err(at)?;
    }
    let found = fs::metadata(directory).map_err(at)?;
    let own = rustix::process::geteuid().as_raw();
    let is_owner_trusted = found.uid() == own || found.uid() == 0;
    let is_replaceable = found.mode() & OTHERS_WRITE != 0 && found.mode() & STICKY == 0;
    if !is_owner_trusted || is_replaceable {
        return Err(SocketError::UnsafeDirectory(directory.to_owned()));
    }
    Ok(())
}

fn make_directory(directory: &Path, group: Option<u32>) -> io::Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
    if let Some(group) = group
        && made.is_ok()
    {
        rustix::fs::chownat(CWD, directory, None, Some(Gid::from_raw(group)), AtFlags::SYMLINK_NOFOLLOW)?;
        fs::set_permissions(directory, fs::Permissions::from_mode(0o750))?;
    }
    made
}

/// Holds `PATH.lock` while the socket is judged and bound; the file stays, since removing a lock is a race of its own.
fn lock(path: &Path) -> Result<fs::File, SocketError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let name = PathBuf::from(name);
    let at = |source| SocketError::System { path: name.clone(), source };
    let nofollow = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or(0);
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(nofollow)
        .open(&name)
        .map_err(at)?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(SocketError::Live(path.to_owned())),
        Err(errno) => Err(at(errno.into())),
    }
}

/// Removes a socket that nobody listens on; anything else at that place is left alone.
fn clear_stale(path: &Path) -> Result<(), SocketError> {
    let at = |source| SocketError::System { path: path.to_owned(), source };
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(at(error)),
    };
    if !found.file_type().is_socket() {
        return Err(SocketError::Occupied(path.to_owned()));
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(SocketError::Live(path.to_owned())),
        // A full backlog is somebody alive who is busy.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(SocketError::Live(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Mark::of(&found).remove(path).map_err(at),
        Err(error) => Err(at(error)),
    }
}

/// Binds without listening; on Linux the mode given to the unbound socket becomes the file's, so that there is no
/// moment in which the file is open to more people.
fn bind_private(path: &Path) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    if cfg!(target_os = "linux") {
        rustix::fs::fchmod(&socket, Mode::from_raw_mode(0o600))?;
    }
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(socket)
}

fn open_to_group(path: &Path, group: u32) -> io::Result<()> {
    rustix::fs::chownat(CWD, path, None, Some(Gid::from_raw(group)), AtFlags::SYMLINK_NOFOLLOW)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o660))
}

/// Which file a path was. Inode numbers are used again at once, so that the time of its making belongs to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    device: u64,
    inode: u64,
    made: (i64, i64),
}

impl Mark {
    fn of(found: &Metadata) -> Self {
        Self { device: found.dev(), inode: found.ino(), made: (found.mtime(), found.mtime_nsec()) }
    }

    /// Removes the file if it is still this one.
    fn remove(self, path: &Path) -> io::Result<()> {
        match fs::symlink_metadata(path) {
            Ok(found) if Self::of(&found) == self => fs::remove_file(path),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Removes the socket's file when dropped, if it is still ours and not a successor's.
pub(super) struct Cleanup {
    ours: Option<(PathBuf, Mark)>,
}

impl Cleanup {
    /// Remembers the file of a listener that was bound a moment ago.
    pub(super) fn of(listener: &UnixListener) -> Self {
        let path = listener.local_addr().ok().and_then(|address| address.as_pathname().map(Path::to_owned));
        let ours = path.and_then(|path| {
            let mark = Mark::of(&fs::symlink_metadata(&path).ok()?);
            Some((path, mark))
        });
        Self { ours }
    }
}

impl Drop for Cleanup {
    fn drop(&mut self) {
        if let Some((path, mark)) = &self.ours
            && let Err(error) = mark.remove(path)
        {
            tracing::warn!(path = %path.display(), %error, "the control socket could not be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().mode() & 0o7777
    }

    #[tokio::test]
    async fn it_is_private_in_a_private_directory() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("run/valetkey/control.sock");
        let _listener = bind(&path, None).unwrap();
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        assert_eq!(mode(&home.path().join("run")), 0o700);
        UnixStream::connect(&path).unwrap();
    }

    #[tokio::test]
    async fn a_group_gets_in_and_nobody_else() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("run/control.sock");
        let group = rustix::process::getegid().as_raw();
        let _listener = bind(&path, Some(group)).unwrap();
        assert_eq!(mode(&path), 0o660);
        assert_eq!(mode(path.parent().unwrap()), 0o750);
        assert_eq!(fs::metadata(&path).unwrap().gid(), group);
    }

    #[tokio::test]
    async fn a_directory_that_was_there_keeps_its_mode() {
        let home = tempfile::tempdir().unwrap();
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o711)).unwrap();
        let _listener = bind(&home.path().join("c.sock"), Some(rustix::process::getegid().as_raw())).unwrap();
        assert_eq!(mode(home.path()), 0o711);
    }

    #[tokio::test]
    async fn a_live_socket_is_not_taken_over_and_a_stale_one_is() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("c.sock");
        let first = bind(&path, None).unwrap();
        assert!(matches!(bind(&path, None), Err(SocketError::Live(_))));
        UnixStream::connect(&path).unwrap();
        drop(first);
        assert!(path.exists(), "a process that died leaves its socket");
        let _second = bind(&path, None).unwrap();
        UnixStream::connect(&path).unwrap();
    }

    #[tokio::test]
    async fn one_who_is_starting_keeps_others_off() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("c.sock");
        let starting = lock(&path).unwrap();
        assert!(matches!(bind(&path, None), Err(SocketError::Live(_))));
        drop(starting);
        bind(&path, None).unwrap();
    }

    #[tokio::test]
    async fn links_and_files_are_left_alone() {
        let home = tempfile::tempdir().unwrap();
        let (file, link) = (home.path().join("file"), home.path().join("link"));
        fs::write(&file, "precious").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        for path in [&file, &link] {
            assert!(matches!(bind(path, None), Err(SocketError::Occupied(_))), "{path:?}");
        }
        assert_eq!(fs::read(&file).unwrap(), b"precious");
        let dangling = home.path().join("dangling");
        std::os::unix::fs::symlink(home.path().join("nowhere"), &dangling).unwrap();
        assert!(matches!(bind(&dangling, None), Err(SocketError::Occupied(_))));
        let locked = home.path().join("s.sock");
        std::os::unix::fs::symlink(&file, home.path().join("s.sock.lock")).unwrap();
        assert!(matches!(bind(&locked, None), Err(SocketError::System { .. })), "the lock follows no link either");
    }

    #[tokio::test]
    async fn a_directory_in_which_others_can_replace_it_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let shared = home.path().join("shared");
        fs::create_dir(&shared).unwrap();
        fs::set_permissions(&shared, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(bind(&shared.join("c.sock"), None), Err(SocketError::UnsafeDirectory(_))));
        fs::set_permissions(&shared, fs::Permissions::from_mode(0o1777)).unwrap();
        bind(&shared.join("c.sock"), None).unwrap();
    }

    #[tokio::test]
    async fn it_is_removed_only_while_it_is_ours() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("c.sock");
        let listener = bind(&path, None).unwrap();
        let cleanup = Cleanup::of(&listener);
        drop(listener);
        let successor = bind(&path, None).unwrap();
        drop(cleanup);
        assert!(path.exists(), "the successor's socket stays");
        drop(Cleanup::of(&successor));
        assert!(!path.exists());
    }
}
