//! The demo's own directory: nobody else's to read, and gone at the end.

use super::trouble::{Context, Trouble};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The control socket's path in bytes at most (`sun_path` is 104 bytes on some systems); longer ones go below `/tmp`.
const SOCKET_PATH_BYTES_MAX: usize = 100;
/// Below the directory.
const SOCKET: &str = "run/control.sock";

/// A directory with mode 0700, removed when dropped.
pub(super) struct Workplace {
    path: PathBuf,
}

impl Workplace {
    /// Makes it, below `TMPDIR` where that is set.
    pub(super) fn new() -> Result<Self, Trouble> {
        let name = super::canary::random("valetkey-demo-")?;
        let name = &name[..name.len().min(30)];
        let temporary = std::env::temp_dir().canonicalize().unwrap_or_else(|_| PathBuf::from("/tmp"));
        let mut path = temporary.join(name);
        if path.join(SOCKET).as_os_str().len() > SOCKET_PATH_BYTES_MAX || path.to_str().is_none() {
            path = Path::new("/tmp").join(name);
        }
        // Fails if it is there already: a directory that somebody else prepared is not taken.
        DirBuilder::new().mode(0o700).create(&path).context(&format!("cannot make {}", path.display()))?;
        Ok(Self { path })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// A file in it.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The control socket, in a directory of its own that the sidecar makes.
    pub(super) fn socket(&self) -> PathBuf {
        self.path.join(SOCKET)
    }

    /// A new file with mode 0600.
    pub(super) fn create(&self, name: &str) -> Result<File, Trouble> {
        let path = self.file(name);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        file.context(&format!("cannot make {}", path.display()))
    }

    /// A new file with mode 0600 and this in it.
    pub(super) fn write(&self, name: &str, content: &str) -> Result<(), Trouble> {
        self.create(name)?.write_all(content.as_bytes()).context(&format!("cannot write {name}"))
    }

    /// What is in a file; nothing if it is not there.
    pub(super) fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.file(name)).unwrap_or_default()
    }

    /// The text as it stands between the quotes of a TOML string.
    pub(super) fn quoted(&self) -> String {
        let mut text = String::new();
        for character in self.path.to_string_lossy().chars() {
            match character {
                '"' | '\\' => text.extend(['\\', character]),
                plain => text.push(plain),
            }
        }
        text
    }
}

impl Drop for Workplace {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn it_is_ours_alone_and_gone_at_the_end() {
        let place = Workplace::new().unwrap();
        let path = place.path().to_owned();
        place.write("key", "secret").unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(path.join("key").metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert!(place.socket().as_os_str().len() <= SOCKET_PATH_BYTES_MAX);
        drop(place);
        assert!(!path.exists());
    }
}
