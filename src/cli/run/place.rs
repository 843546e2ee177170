//! The run's own directory: CA files and shims for its command, and nothing secret. Gone at the end.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::cli::Failure;

/// A directory with mode 0700, removed when dropped.
pub(super) struct Place {
    path: PathBuf,
}

impl Place {
    /// Makes it below `XDG_RUNTIME_DIR`, which is this user's alone and gone when they log out, else where temporary
    /// files go.
    pub(super) fn new() -> Result<Self, Failure> {
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_dir());
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(|error| Failure::other(format!("no randomness: {error}")))?;
        let name = format!("valetkey-run-{}", hex::encode(random));
        // After `su` and `sudo` the variable may name a directory of the user before.
        let made = runtime.and_then(|runtime| Self::below(&runtime, &name).ok());
        let path = made.map_or_else(|| Self::below(&std::env::temp_dir(), &name), Ok)?;
        Ok(Self { path })
    }

    fn below(parent: &Path, name: &str) -> Result<PathBuf, Failure> {
        let path = std::path::absolute(parent).unwrap_or_else(|_| parent.to_owned()).join(name);
        // Fails if it is there already: a directory that somebody else prepared is not taken.
        make(&path).map_err(|error| {
            let path = path.display();
            Failure::other(format!("cannot make {path}: {error}\n  TMPDIR names a directory that can be written to"))
        })?;
        Ok(path)
    }

    /// Where the CA files are.
    pub(super) fn public(&self) -> PathBuf {
        self.path.join("public")
    }

    /// Where the shims are.
    pub(super) fn shims(&self) -> PathBuf {
        self.path.join("shims")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // What is left holds nothing secret, and there is nobody to do something about it.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

fn make(path: &Path) -> std::io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)
}

/// Where the audit of a run is kept when nobody says: below `XDG_STATE_HOME`, else `~/.local/state`; the directory is
/// made.
pub(super) fn default_audit(run: &str) -> Result<PathBuf, Failure> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = absolute("XDG_STATE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/state")));
    let Some(state) = state else {
        return Err(Failure::usage("--audit FILE: say where the audit goes, since HOME is not set"));
    };
    let directory = state.join("valetkey").join("run");
    DirBuilder::new().mode(0o700).recursive(true).create(&directory).map_err(|error| {
        Failure::audit(format!("cannot make {}: {error}\n  --audit FILE goes elsewhere", directory.display()))
    })?;
    Ok(directory.join(format!("{run}.jsonl")))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn it_is_ours_alone_and_gone_at_the_end() {
        let place = Place::new().unwrap();
        let path = place.path.clone();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        std::fs::create_dir(place.shims()).unwrap();
        assert!(make(&path).is_err(), "one that is there is not taken");
        drop(place);
        assert!(!path.exists());
    }
}
