//! The token of a file: who knows it is who may read the file.

use std::path::PathBuf;
use std::sync::Arc;

use ring::digest::{SHA256, digest};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::files::{self, FileProblem};

/// Shortest token of a file, in bytes: what nobody guesses.
const BYTES_MIN: usize = 32;
/// Longest token of a file, in bytes, its line end included.
const BYTES_MAX: usize = 4096;

/// A file with a token. It is read at every use, so that a change holds at once.
pub(super) struct Bearer {
    path: Arc<str>,
}

impl Bearer {
    pub(super) fn new(path: Arc<str>) -> Self {
        Self { path }
    }

    pub(super) fn path(&self) -> &Arc<str> {
        &self.path
    }

    /// True when this is the file's token. Reads the file: not for async code.
    pub(super) fn is(&self, token: &str) -> Result<bool, FileProblem> {
        let known = read(&PathBuf::from(&*self.path))?;
        // Of digests, so that not even the length takes another time.
        let known = digest(&SHA256, &known);
        Ok(known.as_ref().ct_eq(digest(&SHA256, token.as_bytes()).as_ref()).into())
    }
}

fn read(path: &std::path::Path) -> Result<Zeroizing<Vec<u8>>, FileProblem> {
    let mut bytes = files::read_secret(path, BYTES_MAX)?;
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
    }
    if bytes.len() < BYTES_MIN {
        return Err(FileProblem::Content("a token has at least 32 bytes"));
    }
    if !bytes.iter().all(u8::is_ascii_graphic) {
        return Err(FileProblem::Content("a token is one word of printable ASCII"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_files_token_is_one_long_word() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        let bearer = Bearer::new(path.to_str().unwrap().into());
        let token = "t".repeat(32);
        let write = |content: &str| {
            std::fs::write(&path, content).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        };
        assert!(matches!(bearer.is(&token), Err(FileProblem::Io(_))));
        write(&format!("{token}\n"));
        assert_eq!(bearer.is(&token), Ok(true));
        for other in ["", "t", &"t".repeat(31), &"t".repeat(33), &format!("{token}\n"), &"T".repeat(32)] {
            assert_eq!(bearer.is(other), Ok(false), "{other}");
        }
        write(&"u".repeat(40));
        assert_eq!((bearer.is(&token), bearer.is(&"u".repeat(40))), (Ok(false), Ok(true)), "read anew");
        for bad in ["", "short", &format!("{token} {token}"), &format!("{token}\n\n"), &"ä".repeat(32)] {
            write(bad);
            assert!(matches!(bearer.is(bad), Err(FileProblem::Content(_))), "{bad}");
        }
    }
}
