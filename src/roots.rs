//! The roots that the system trusts: where they lie, and reading them.
//!
//! Read here, and not by `rustls-native-certs`, where they are files: most lie there three times (in one file with all
//! others, in a file of their own, and behind a link to that), and every start waits for this.

#[cfg(not(target_os = "macos"))]
mod files;

use std::collections::BTreeSet;
use std::path::PathBuf;

use rustls::pki_types::CertificateDer;

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

/// What the system trusts.
#[derive(Debug, Clone, Default)]
pub struct System {
    /// Each certificate once, and in one order; unreadable parts are left out. What is in a block of PEM need not be a
    /// certificate: who uses it parses it.
    pub certificates: Vec<CertificateDer<'static>>,
    /// Where the links lead that lie in the directories, out of them and to something: no link is in these paths.
    pub linked: Vec<PathBuf>,
}

/// Every certificate that the system trusts; see [`System::certificates`].
#[must_use]
pub fn read() -> Vec<CertificateDer<'static>> {
    read_and_follow().certificates
}

/// Every certificate that the system trusts, and where the links to them lead.
#[must_use]
#[cfg(not(target_os = "macos"))]
pub fn read_and_follow() -> System {
    files::read(&places())
}

/// Every certificate that the system trusts; they do not lie in files.
#[must_use]
#[cfg(target_os = "macos")]
pub fn read_and_follow() -> System {
    System { certificates: rustls_native_certs::load_native_certs().certs, linked: Vec::new() }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

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
            assert_eq!(files::certificates(text.as_bytes()).collect::<Vec<_>>(), theirs, "{text}");
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
        let elsewhere = tempfile::tempdir().unwrap();
        fs::write(elsewhere.path().join("d.crt"), pem("DDDD") + &pem("AA\nAA")).unwrap();
        symlink(elsewhere.path().join("d.crt"), at("d.pem")).unwrap();
        symlink(elsewhere.path().join("d.crt"), at("again.pem")).unwrap();
        let roots = files::read(&[at("all.pem"), store.path().to_owned(), at("none")]).certificates;
        let expected =
            ["AAAA", "BBBB", "CCCC", "DDDD"].map(|text| files::certificates(pem(text).as_bytes()).next().unwrap());
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
