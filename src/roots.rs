//! The roots that the system trusts: where they lie, and reading them.
//!
//! Read here, and not by `rustls-native-certs`, where they are files: most lie there three times (in one file with all
//! others, in a file of their own, and behind a link to that), and every start waits for this.

#[cfg(not(target_os = "macos"))]
mod files;

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateDer;

/// Entries of one directory that are looked at.
const ENTRIES_MAX: usize = 10_000;

/// The file and the directories that [`read`] reads: those that `SSL_CERT_FILE` and `SSL_CERT_DIR` name, or, where
/// neither is set, the system's. Each is there once.
#[must_use]
pub fn places() -> Vec<PathBuf> {
    let directories = std::env::var_os("SSL_CERT_DIR").unwrap_or_default();
    let directories = std::env::split_paths(&directories).filter(|path| !path.as_os_str().is_empty());
    let mut named: Vec<_> =
        std::env::var_os("SSL_CERT_FILE").map(PathBuf::from).into_iter().chain(directories).collect();
    if named.is_empty() {
        let found = openssl_probe::probe();
        named = found.cert_file.into_iter().chain(found.cert_dir).collect();
    }
    let mut seen = BTreeSet::new();
    named.retain(|path| seen.insert(path.clone()));
    named
}

/// Every certificate that the system trusts, each once and in one order; unreadable parts of it are left out.
///
/// What is in a block of PEM need not be a certificate: who uses it parses it.
#[must_use]
#[cfg(not(target_os = "macos"))]
pub fn read() -> Vec<CertificateDer<'static>> {
    files::read(&places())
}

/// Every certificate that the system trusts, each once and in one order; unreadable parts of it are left out.
#[must_use]
#[cfg(target_os = "macos")]
pub fn read() -> Vec<CertificateDer<'static>> {
    rustls_native_certs::load_native_certs().certs
}

/// Where the links lead that lie in such a directory, out of it and to a file; nowhere for a file.
#[must_use]
pub fn linked_from(place: &Path) -> BTreeSet<PathBuf> {
    let Ok(entries) = std::fs::read_dir(place) else { return BTreeSet::new() };
    let entries = entries.take(ENTRIES_MAX).filter_map(Result::ok);
    let links = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_symlink()));
    let mut homes = HashMap::new();
    links.filter_map(|link| end_of(place, &link.path(), &mut homes)).collect()
}

/// Where a link ends. Hundreds lead into one directory, whose own links are followed once for all of them.
fn end_of(place: &Path, link: &Path, homes: &mut HashMap<PathBuf, Option<PathBuf>>) -> Option<PathBuf> {
    let target = std::fs::read_link(link).ok()?;
    let (home, name) = (target.parent()?, target.file_name()?);
    if home.as_os_str().is_empty() {
        // To its neighbour, which is looked at itself if it is a link.
        return None;
    }
    let home = homes.entry(home.to_owned()).or_insert_with(|| place.join(home).canonicalize().ok()).as_ref()?;
    let end = home.join(name);
    if std::fs::symlink_metadata(&end).ok()?.is_symlink() { end.canonicalize().ok() } else { Some(end) }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_of_a_directory_lead_to_files_elsewhere() {
        let (store, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let real = elsewhere.path().canonicalize().unwrap();
        for name in ["root.pem", "other.pem", "third.pem"] {
            fs::write(real.join(name), "").unwrap();
        }
        fs::write(store.path().join("plain.pem"), "").unwrap();
        symlink(real.join("root.pem"), store.path().join("one.pem")).unwrap();
        symlink(real.join("root.pem"), store.path().join("two.pem")).unwrap();
        symlink("one.pem", store.path().join("0123abcd.0")).unwrap();
        symlink("/nowhere", store.path().join("gone.pem")).unwrap();
        symlink(&real, store.path().join("by-a-link")).unwrap();
        symlink("by-a-link/other.pem", store.path().join("other.pem")).unwrap();
        symlink("third.pem", real.join("link.pem")).unwrap();
        symlink(real.join("link.pem"), store.path().join("third.pem")).unwrap();
        let mut ends: Vec<_> = ["root.pem", "other.pem", "third.pem"].map(|name| real.join(name)).into();
        ends.push(real.clone());
        assert_eq!(linked_from(store.path()), ends.into_iter().collect());
        assert!(
            linked_from(&store.path().join("plain.pem")).is_empty() && linked_from(Path::new("/nowhere")).is_empty()
        );
    }

    #[cfg(not(target_os = "macos"))]
    #[test]
    fn certificates_are_read_as_rustls_reads_them() {
        use rustls::pki_types::pem::PemObject as _;
        let pem = |content: &str| format!("-----BEGIN CERTIFICATE-----{content}-----END CERTIFICATE-----\n");
        let whole = [
            String::new(),
            pem("\nAAECAwQF\n"),
            pem("\r\nAAEC\r\nAwQF\r\n"),
            format!("# a root\n{}between\n{}", pem("\nAAEC\n"), pem("\nAwQ=\n")),
            format!(
                "-----BEGIN TRUSTED CERTIFICATE-----\nAAEC\n-----END TRUSTED CERTIFICATE-----\n{}",
                pem("\nAwQF\n")
            ),
            format!("-----BEGIN PRIVATE KEY-----\nAAEC\n-----END PRIVATE KEY-----\n{}", pem("\nAwQF\n")),
        ];
        for text in whole {
            let theirs: Vec<_> = CertificateDer::pem_slice_iter(text.as_bytes()).map(Result::unwrap).collect();
            assert_eq!(
                files::certificates(text.as_bytes()).map(CertificateDer::from).collect::<Vec<_>>(),
                theirs,
                "{text}"
            );
        }
        let damaged = [
            pem("\nA*EC\n"),
            pem("\nAAEC=\n"),
            "-----BEGIN CERTIFICATE-----\nAAEC\n".to_owned(),
            "-----BEGIN CERTIFICATE-----\nAAEC\n-----END X-----\n".to_owned(),
        ];
        for text in damaged {
            let all = text.clone() + &pem("\nAwQF\n");
            assert_eq!(files::certificates(all.as_bytes()).count(), 1, "{text}");
        }
    }

    #[cfg(not(target_os = "macos"))]
    #[test]
    fn each_root_is_read_once_by_whatever_name() {
        let store = tempfile::tempdir().unwrap();
        let at = |name: &str| store.path().join(name);
        let pem = |content: &str| format!("-----BEGIN CERTIFICATE-----\n{content}\n-----END CERTIFICATE-----\n");
        fs::write(at("all.pem"), pem("BBBB") + &pem("AAAA")).unwrap();
        fs::write(at("a.pem"), pem("AAAA")).unwrap();
        fs::write(at("c.pem"), pem("CCCC")).unwrap();
        symlink("a.pem", at("0123abcd.0")).unwrap();
        symlink("nowhere", at("gone.0")).unwrap();
        fs::create_dir(at("below")).unwrap();
        let roots = files::read(&[at("all.pem"), store.path().to_owned(), at("none")]);
        let expected = ["AAAA", "BBBB", "CCCC"]
            .map(|text| CertificateDer::from(files::certificates(pem(text).as_bytes()).next().unwrap()));
        assert_eq!(roots, expected);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_systems_roots_are_those_that_others_find() {
        let bundle = places().into_iter().find(|place| place.is_file());
        let Some(bundle) = bundle.and_then(|path| fs::read(path).ok()) else { return };
        let count = memchr::memmem::find_iter(&bundle, "-----BEGIN CERTIFICATE-----").count();
        assert!(read().len() >= count.min(1));
    }
}
