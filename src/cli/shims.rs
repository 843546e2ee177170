//! Small files that make clients use the sidecar which read none of its variables.
//!
//! - `sitecustomize.py`: Python's stripe (its own CA file) and aiohttp (no proxy unless asked); by `PYTHONPATH`
//! - `preload.cjs`: Node's https agents, ws, and fetch before 22.21; by `NODE_OPTIONS`
//! - `wgetrc`: wget reads its CA from nowhere else; by `WGETRC`

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use super::Failure;

/// Preloaded by Node.
pub(super) const PRELOAD_FILE: &str = "preload.cjs";
/// Read by wget.
pub(super) const WGETRC_FILE: &str = "wgetrc";
/// Run by Python at its start; the name is Python's.
const SITE_FILE: &str = "sitecustomize.py";

/// Writes the shims into a directory, made if it is not there; `bundle` is the absolute path of the published
/// `ca-bundle.pem` as clients see it. Each file is replaced by a rename, mode 0644.
///
/// # Errors
/// [`Failure`]: the directory cannot be written.
pub(super) fn write(directory: &Path, bundle: &str) -> Result<(), Failure> {
    let wgetrc =
        format!("# Written by valetkey: the system's roots and the sidecar's CA.\nca_certificate = {bundle}\n");
    let files = [
        (SITE_FILE, include_str!("shims/sitecustomize.py")),
        (PRELOAD_FILE, include_str!("shims/preload.cjs")),
        (WGETRC_FILE, wgetrc.as_str()),
    ];
    let written = DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(directory)
        .and_then(|()| files.iter().try_for_each(|(name, content)| replace(directory, name, content)));
    written.map_err(|error| Failure::other(format!("cannot write shims into {}: {error}", directory.display())))
}

/// Whoever reads it finds the old file or the new one, whole.
fn replace(directory: &Path, name: &str, content: &str) -> io::Result<()> {
    let draft = directory.join(format!(".{name}.{}", std::process::id()));
    let done = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        file.write_all(content.as_bytes())?;
        file.set_permissions(Permissions::from_mode(0o644))?;
        fs::rename(&draft, directory.join(name))
    })();
    if done.is_err() {
        // Nothing of it may stay; if it was never made, there is nothing to remove.
        let _ = fs::remove_file(&draft);
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shims_are_replaced_and_nothing_is_left_over() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("a/shims");
        write(&directory, "/old/ca-bundle.pem").unwrap();
        write(&directory, "/new dir/ca-bundle.pem").unwrap();
        let mut names: Vec<_> = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, [PRELOAD_FILE, SITE_FILE, WGETRC_FILE]);
        for name in names {
            assert_eq!(fs::metadata(directory.join(name)).unwrap().permissions().mode() & 0o7777, 0o644);
        }
        let wgetrc = fs::read_to_string(directory.join(WGETRC_FILE)).unwrap();
        assert!(wgetrc.ends_with("\nca_certificate = /new dir/ca-bundle.pem\n"), "{wgetrc}");
        fs::write(parent.path().join("plain"), "").unwrap();
        assert!(write(&parent.path().join("plain"), "/x").is_err());
    }
}
