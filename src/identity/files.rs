//! Files that an identity rests on, read whole, bounded, and only where nobody else could have written or read them.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;
use zeroize::Zeroizing;

/// Writable by the group or by others.
const OTHERS_WRITE: u32 = 0o022;
/// Anything at all for others.
const OTHERS: u32 = 0o007;

/// Why a file is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FileProblem {
    /// The system refused.
    #[error("{0}")]
    Io(std::io::ErrorKind),
    /// A pipe, a directory, a device.
    #[error("it is not a regular file")]
    NotRegular,
    /// It belongs to neither root nor us.
    #[error("it belongs to another user")]
    Owner,
    /// Its mode lets others in.
    #[error("its mode lets others in: at most 0640 for a secret, 0644 for the rest")]
    Mode,
    /// Too long.
    #[error("it is too long")]
    Long,
    /// What is in it is of no use.
    #[error("what is in it is of no use: {0}")]
    Content(&'static str),
}

/// Reads a secret: for others it must not be there.
///
/// # Errors
/// [`FileProblem`].
pub fn read_secret(path: &Path, bytes_max: usize) -> Result<Zeroizing<Vec<u8>>, FileProblem> {
    read(path, bytes_max, OTHERS | OTHERS_WRITE)
}

/// Reads what others may read and not write.
///
/// # Errors
/// [`FileProblem`].
pub fn read_public(path: &Path, bytes_max: usize) -> Result<Zeroizing<Vec<u8>>, FileProblem> {
    read(path, bytes_max, OTHERS_WRITE)
}

fn read(path: &Path, bytes_max: usize, forbidden: u32) -> Result<Zeroizing<Vec<u8>>, FileProblem> {
    let io = |error: std::io::Error| FileProblem::Io(error.kind());
    // Without NONBLOCK, opening a pipe waits for a writer. Links are followed: Kubernetes swaps them.
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let mut file = File::options().read(true).custom_flags(flags.bits().cast_signed()).open(path).map_err(io)?;
    let found = file.metadata().map_err(io)?;
    let us = rustix::process::geteuid().as_raw();
    match () {
        () if !found.is_file() => return Err(FileProblem::NotRegular),
        () if found.uid() != 0 && found.uid() != us => return Err(FileProblem::Owner),
        () if found.mode() & forbidden != 0 => return Err(FileProblem::Mode),
        () => {}
    }
    // Allocated once: a buffer that grows leaves copies behind that nobody wipes.
    let mut bytes = Zeroizing::new(vec![0; bytes_max + 1]);
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read(&mut bytes[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(io(error)),
        }
    }
    if filled > bytes_max {
        return Err(FileProblem::Long);
    }
    bytes.truncate(filled);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_mode_that_lets_others_in_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        std::fs::write(&path, "x").unwrap();
        for (mode, secret, public) in [
            (0o600, true, true),
            (0o640, true, true),
            (0o644, false, true),
            (0o660, false, false),
            (0o602, false, false),
        ] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(read_secret(&path, 9).err(), (!secret).then_some(FileProblem::Mode), "{mode:o}");
            assert_eq!(read_public(&path, 9).err(), (!public).then_some(FileProblem::Mode), "{mode:o}");
        }
        assert_eq!(read_secret(directory.path(), 9).err(), Some(FileProblem::NotRegular));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(read_secret(&path, 0).err(), Some(FileProblem::Long));
    }

    #[test]
    fn another_users_file_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        std::fs::write(&path, "x").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        if std::os::unix::fs::chown(&path, Some(54_321), None).is_ok() {
            assert_eq!(read_secret(&path, 9).err(), Some(FileProblem::Owner));
        }
    }
}
