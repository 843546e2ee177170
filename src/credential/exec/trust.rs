//! Whether a command may be run: could somebody else have put it there?
//!
//! The path is walked as the kernel would, link by link. Each directory that is passed through, each
//! link and the file itself must belong to root or to us, and none may be writable by group or others
//! (a directory with the sticky bit may: nobody can replace our entries there).

use std::ffi::OsString;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

/// Most links on the way to a command, as in the kernel.
const LINKS_MAX: usize = 40;
/// Most steps on the way to a command, links' targets included.
const STEPS_MAX: usize = 4096;

/// Why a command is not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Distrust {
    /// The path does not start at the root.
    #[error("the path is not absolute")]
    Relative,
    /// Something on the way cannot be looked at.
    #[error("{0}")]
    Io(io::ErrorKind),
    /// The links on the way lead in a circle.
    #[error("there are too many links on the way to it")]
    Links,
    /// It, a link or a directory on the way belongs to neither root nor us.
    #[error("it or something on the way to it belongs to another user")]
    Owner,
    /// It or a directory on the way can be written by others.
    #[error("it or a directory on the way to it can be written by group or others")]
    Writable,
    /// It is not a regular file.
    #[error("it is not a regular file")]
    NotRegular,
    /// Nobody may execute it.
    #[error("it is not executable")]
    NotExecutable,
}

/// Resolves `path` to the file that is to be run; `us` is our effective user id.
///
/// # Errors
/// [`Distrust`].
pub(super) fn resolve(path: &Path, us: u32) -> Result<PathBuf, Distrust> {
    if !path.is_absolute() {
        return Err(Distrust::Relative);
    }
    let mut resolved = PathBuf::from("/");
    let mut ahead = steps(path);
    let (mut links, mut count) = (0, 0);
    while let Some(step) = ahead.pop() {
        count += 1;
        if count > STEPS_MAX {
            return Err(Distrust::Links);
        }
        judge_directory(&look(&resolved)?, us)?;
        if step == ".." {
            resolved.pop();
            continue;
        }
        let next = resolved.join(step);
        let metadata = look(&next)?;
        if !metadata.is_symlink() {
            resolved = next;
            continue;
        }
        links += 1;
        if links > LINKS_MAX {
            return Err(Distrust::Links);
        }
        judge_owner(&metadata, us)?;
        let target = std::fs::read_link(&next).map_err(|e| Distrust::Io(e.kind()))?;
        if target.is_absolute() {
            resolved = PathBuf::from("/");
        }
        ahead.extend(steps(&target));
    }
    judge_file(&look(&resolved)?, us)?;
    Ok(resolved)
}

/// The steps of a path, the last one first.
fn steps(path: &Path) -> Vec<OsString> {
    let step = |component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    };
    path.components().rev().filter_map(step).collect()
}

fn look(path: &Path) -> Result<Metadata, Distrust> {
    std::fs::symlink_metadata(path).map_err(|e| Distrust::Io(e.kind()))
}

fn judge_owner(metadata: &Metadata, us: u32) -> Result<(), Distrust> {
    if metadata.uid() == 0 || metadata.uid() == us { Ok(()) } else { Err(Distrust::Owner) }
}

fn judge_directory(metadata: &Metadata, us: u32) -> Result<(), Distrust> {
    let mode = metadata.permissions().mode();
    let sticky = mode & 0o1000 != 0;
    match judge_owner(metadata, us) {
        Ok(()) if mode & 0o022 == 0 || sticky => Ok(()),
        Ok(()) => Err(Distrust::Writable),
        Err(distrust) => Err(distrust),
    }
}

fn judge_file(metadata: &Metadata, us: u32) -> Result<(), Distrust> {
    let mode = metadata.permissions().mode();
    judge_owner(metadata, us)?;
    match () {
        () if !metadata.is_file() => Err(Distrust::NotRegular),
        () if mode & 0o022 != 0 => Err(Distrust::Writable),
        () if mode & 0o111 == 0 => Err(Distrust::NotExecutable),
        () => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::symlink;

    use super::*;

    struct Place(tempfile::TempDir);

    impl Place {
        fn new() -> Self {
            let place = Self(tempfile::tempdir().unwrap());
            std::fs::create_dir(place.path("bin")).unwrap();
            std::fs::write(place.path("bin/helper"), "").unwrap();
            place.mode("", 0o700);
            place.mode("bin", 0o755);
            place.mode("bin/helper", 0o755);
            place
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn mode(&self, name: &str, mode: u32) {
            std::fs::set_permissions(self.path(name), Permissions::from_mode(mode)).unwrap();
        }

        fn resolve(&self, name: &str) -> Result<PathBuf, Distrust> {
            resolve(&self.path(name), us())
        }
    }

    fn us() -> u32 {
        rustix::process::geteuid().as_raw()
    }

    #[test]
    fn our_own_file_is_trusted_and_links_are_resolved() {
        let place = Place::new();
        let helper = place.0.path().canonicalize().unwrap().join("bin/helper");
        assert_eq!(place.resolve("bin/helper"), Ok(helper.clone()));
        assert_eq!(place.resolve("bin/../bin/./helper"), Ok(helper.clone()));
        symlink("bin/helper", place.path("relative")).unwrap();
        symlink(place.path("relative"), place.path("bin/absolute")).unwrap();
        assert_eq!(place.resolve("bin/absolute"), Ok(helper));
        assert!(resolve(Path::new("/bin/sh"), us()).is_ok());
    }

    #[test]
    fn what_others_can_write_is_not_run() {
        let place = Place::new();
        for (name, mode) in [("bin/helper", 0o775), ("bin/helper", 0o757), ("bin", 0o775), ("bin", 0o757)] {
            place.mode(name, mode);
            assert_eq!(place.resolve("bin/helper"), Err(Distrust::Writable), "{name} {mode:o}");
            place.mode(name, 0o755);
        }
        place.mode("bin", 0o1777);
        assert!(place.resolve("bin/helper").is_ok(), "sticky, like /tmp");
    }

    #[test]
    fn a_link_through_an_open_directory_is_not_followed() {
        let place = Place::new();
        std::fs::create_dir(place.path("open")).unwrap();
        symlink("../bin/helper", place.path("open/helper")).unwrap();
        place.mode("open", 0o777);
        assert_eq!(place.resolve("open/helper"), Err(Distrust::Writable));
    }

    #[test]
    fn what_another_user_owns_is_not_run() {
        let place = Place::new();
        let other = 54_321;
        std::os::unix::fs::lchown(place.path("bin/helper"), Some(other), None)
            .map_or_else(|_| assert_ne!(us(), 0), |()| assert_eq!(place.resolve("bin/helper"), Err(Distrust::Owner)));
    }

    #[test]
    fn what_is_no_program_is_not_run() {
        let place = Place::new();
        assert_eq!(place.resolve("bin"), Err(Distrust::NotRegular));
        assert_eq!(place.resolve("none"), Err(Distrust::Io(io::ErrorKind::NotFound)));
        assert_eq!(place.resolve("bin/helper/x"), Err(Distrust::Io(io::ErrorKind::NotADirectory)));
        assert_eq!(resolve(Path::new("bin/helper"), us()), Err(Distrust::Relative));
        place.mode("bin/helper", 0o644);
        assert_eq!(place.resolve("bin/helper"), Err(Distrust::NotExecutable));
        symlink("circle", place.path("circle")).unwrap();
        assert_eq!(place.resolve("circle"), Err(Distrust::Links));
    }
}
