//! Where the system keeps the roots that it trusts.

use std::path::{Path, PathBuf};

/// Entries of one directory that are looked at.
const ENTRIES_MAX: usize = 10_000;

/// The file and the directories that [`super::tls::ClientTls::new`] reads where no variable of the environment names others,
/// by the names under which it looks for them.
#[must_use]
pub fn places() -> Vec<PathBuf> {
    // What reads them asks the same.
    let found = openssl_probe::probe();
    found.cert_file.into_iter().chain(found.cert_dir).collect()
}

/// Where the links lead that lie in such a directory; none of a file.
#[must_use]
pub fn linked_from(place: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(place) else { return Vec::new() };
    let links =
        entries.take(ENTRIES_MAX).filter_map(Result::ok).map(|entry| entry.path()).filter(|path| path.is_symlink());
    links.filter_map(|link| link.canonicalize().ok()).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_of_a_directory_lead_to_files_elsewhere() {
        let (store, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let root = elsewhere.path().canonicalize().unwrap().join("root.pem");
        std::fs::write(&root, "").unwrap();
        std::fs::write(store.path().join("plain.pem"), "").unwrap();
        symlink(&root, store.path().join("one.pem")).unwrap();
        symlink("one.pem", store.path().join("0123abcd.0")).unwrap();
        symlink("/nowhere", store.path().join("gone.pem")).unwrap();
        assert_eq!(linked_from(store.path()), [root.clone(), root]);
        assert!(
            linked_from(&store.path().join("plain.pem")).is_empty() && linked_from(Path::new("/nowhere")).is_empty()
        );
    }
}
