//! The public files: our CA alone, and with the system's roots, as PEM and as a truststore.

use std::collections::BTreeSet;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::certificate::{Facts, SUBJECT_PREFIX};
use super::files::{Directory, Lasting};
use super::{
    AuthorityError, KEY_FILE, PUBLISHED_BUNDLE_FILE, PUBLISHED_FILE, PUBLISHED_TRUSTSTORE_FILE, TRUSTSTORE_PASSWORD,
    truststore,
};

/// Columns of base64 in PEM (RFC 7468, 2).
const COLUMNS: usize = 64;
/// The CA that signs, and the one that will.
const OWN_MAX: usize = 2;

/// A certificate as PEM.
pub(super) fn pem(der: &[u8]) -> String {
    let mut out = String::with_capacity(pem_bytes_max(der));
    add_pem(&mut out, der);
    out
}

/// Base64 takes four bytes for three, and a line has its end; then there are the first line and the last.
fn pem_bytes_max(der: &[u8]) -> usize {
    let text = der.len().div_ceil(3) * 4;
    text + text / COLUMNS + 64
}

fn add_pem(out: &mut String, der: &[u8]) {
    let text = STANDARD.encode(der);
    out.push_str("-----BEGIN CERTIFICATE-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        // Base64 is ASCII, so every index is a boundary.
        let (line, tail) = rest.split_at(rest.len().min(COLUMNS));
        out.push_str(line);
        out.push('\n');
        rest = tail;
    }
    out.push_str("-----END CERTIFICATE-----\n");
}

/// `system`, or Mozilla's roots, if nothing usable is in it; each once.
///
/// Our own variables may point at a bundle of ours, so any CA of ours in `system`, of this run or an earlier one, is
/// left out.
pub(super) fn roots<'a>(system: &'a [CertificateDer<'_>]) -> Vec<CertificateDer<'a>> {
    let mut seen = BTreeSet::new();
    let system = system.iter().map(AsRef::as_ref).filter(|der| is_foreign(der) && seen.insert(*der));
    let roots: Vec<_> = system.map(CertificateDer::from).collect();
    if roots.is_empty() { webpki_root_certs::TLS_SERVER_ROOT_CERTS.to_vec() } else { roots }
}

/// Certificates of ours as PEM: the one that signs, and the one that will where it is being changed.
pub(super) fn pems(own: &[CertificateDer<'_>]) -> String {
    own.iter().map(|der| pem(der)).collect()
}

/// The roots and our own certificates as PEM.
pub(super) fn bundle(roots: &[CertificateDer<'_>], own: &[CertificateDer<'_>]) -> String {
    let all = || roots.iter().chain(own);
    let mut out = String::with_capacity(all().map(|der| pem_bytes_max(der)).sum());
    all().for_each(|der| add_pem(&mut out, der));
    out
}

/// The roots and our own certificates as PKCS#12, under [`TRUSTSTORE_PASSWORD`].
pub(super) fn truststore(roots: &[CertificateDer<'_>], own: &[CertificateDer<'_>]) -> Vec<u8> {
    truststore::pkcs12(roots, own, TRUSTSTORE_PASSWORD)
}

fn is_foreign(der: &[u8]) -> bool {
    // Where the name is nowhere in it, it is not the subject's: no need to read all of it.
    if memchr::memmem::find(der, SUBJECT_PREFIX.as_bytes()).is_none() {
        return RootCertStore::empty().add(CertificateDer::from(der)).is_ok();
    }
    Facts::read(der).is_some_and(|facts| !facts.subject.starts_with(&format!("CN={SUBJECT_PREFIX}")))
}

/// Publishes, as [`super::Authority::publish`] does, for the CA of a sidecar elsewhere, whose certificate this is as PEM, with the next
/// one where it is being changed.
///
/// # Errors
/// [`AuthorityError::Malformed`] and [`AuthorityError::NotAnAuthority`] for anything but one or two certificates of CAs; as
/// [`super::Authority::publish`] besides.
pub fn publish_certificate(directory: &Path, pem: &str) -> Result<(), AuthorityError> {
    let path = || directory.join(PUBLISHED_FILE);
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).take(OWN_MAX + 1).collect();
    let own = found.ok().filter(|own| (1..=OWN_MAX).contains(&own.len()));
    let own = own.ok_or_else(|| AuthorityError::Malformed { path: path() })?;
    for certificate in &own {
        match Facts::read(certificate) {
            None => return Err(AuthorityError::Malformed { path: path() }),
            Some(facts) if !facts.signs => return Err(AuthorityError::NotAnAuthority { path: path() }),
            Some(_) => {}
        }
    }
    publish(directory, &roots(&crate::roots::read()), &own, Lasting::Yes)
}

/// Makes the directory that is to be published into, and its missing parents.
///
/// # Errors
/// [`AuthorityError::File`].
pub fn prepare(directory: &Path) -> Result<(), AuthorityError> {
    Directory::open_or_make(directory, 0o755).map(drop)
}

/// Puts the public files into a directory that others may read.
pub(super) fn publish(
    path: &Path,
    roots: &[CertificateDer<'_>],
    own: &[CertificateDer<'_>],
    lasting: Lasting,
) -> Result<(), AuthorityError> {
    let directory = Directory::open_or_make(path, 0o755)?;
    if directory.holds(KEY_FILE) {
        return Err(AuthorityError::PublishedBesideKey { path: path.to_owned() });
    }
    directory.show(PUBLISHED_TRUSTSTORE_FILE, &truststore(roots, own), lasting)?;
    directory.show(PUBLISHED_BUNDLE_FILE, bundle(roots, own).as_bytes(), lasting)?;
    // The last: who waits for this one finds the others too.
    directory.show(PUBLISHED_FILE, pems(own).as_bytes(), lasting)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authority::{Authority, Home};
    use crate::clock::ManualClock;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn authority() -> Authority {
        Authority::open(&Home::Memory, ManualClock::new()).unwrap()
    }

    fn certificates(pem: &str) -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_slice_iter(pem.as_bytes()).map(Result::unwrap).collect()
    }

    #[test]
    fn pem_is_what_other_tools_write() {
        let key = rcgen::KeyPair::generate().unwrap();
        for name in ["a", "ab", "abc", "a-name-of-another-length"] {
            let made = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap().self_signed(&key).unwrap();
            assert_eq!(pem(made.der()), made.pem());
        }
    }

    #[test]
    fn the_bundle_holds_the_systems_roots_and_ours_once() {
        let (ours, earlier) = (authority(), authority());
        let system = webpki_root_certs::TLS_SERVER_ROOT_CERTS[..3].to_vec();
        let mut found = system.clone();
        found.extend(system.clone());
        found.extend(certificates(ours.certificate_pem()));
        found.extend(certificates(earlier.certificate_pem()));
        found.push(CertificateDer::from(b"not a certificate".to_vec()));
        let own = certificates(ours.certificate_pem());
        let all = certificates(&bundle(&roots(&found), &own));
        assert_eq!(all[..3], system);
        assert_eq!(all[3..], certificates(ours.certificate_pem()));
    }

    #[test]
    fn without_system_roots_mozillas_stand_in() {
        let ours = authority();
        let own = certificates(ours.certificate_pem());
        let all = certificates(&bundle(&roots(&own), &own));
        assert_eq!(all.len(), webpki_root_certs::TLS_SERVER_ROOT_CERTS.len() + 1);
        assert!(all.iter().all(|der| Facts::read(der).is_some()));
    }

    #[test]
    fn the_public_files_and_nothing_else_are_published_for_everybody() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("public");
        let (first, second) = (authority(), authority());
        first.publish(&path).unwrap();
        second.publish(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o755);
        let mut names: Vec<_> = fs::read_dir(&path).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, [PUBLISHED_BUNDLE_FILE, PUBLISHED_FILE, PUBLISHED_TRUSTSTORE_FILE]);
        for name in &names {
            assert_eq!(fs::metadata(path.join(name)).unwrap().permissions().mode() & 0o7777, 0o644);
        }
        let own = &certificates(second.certificate_pem())[0];
        let truststore = fs::read(path.join(PUBLISHED_TRUSTSTORE_FILE)).unwrap();
        assert!(memchr::memmem::find(&truststore, own).is_some(), "the CA of the last start");
        for name in &names[..2] {
            let text = fs::read_to_string(path.join(name)).unwrap();
            assert!(!text.contains("PRIVATE") && text.ends_with(second.certificate_pem()));
        }
        assert_eq!(fs::read_to_string(path.join(PUBLISHED_FILE)).unwrap(), second.certificate_pem());
        assert!(certificates(&fs::read_to_string(path.join(PUBLISHED_BUNDLE_FILE)).unwrap()).len() > 10);
    }

    #[test]
    fn nothing_is_published_beside_a_key() {
        let parent = tempfile::tempdir().unwrap();
        let home = Home::Directory(parent.path().join("ca"));
        let authority = Authority::open(&home, ManualClock::new()).unwrap();
        let error = authority.publish(&parent.path().join("ca")).unwrap_err();
        assert!(matches!(error, AuthorityError::PublishedBesideKey { .. }));
        assert!(!parent.path().join("ca").join(PUBLISHED_FILE).exists());
    }

    #[test]
    fn the_description_is_that_of_the_certificate() {
        let authority = authority();
        let description = authority.describe();
        let facts = Facts::read(&certificates(authority.certificate_pem())[0]).unwrap();
        assert_eq!(description.fingerprint_sha256, facts.fingerprint_sha256);
        assert_eq!(authority.public_key_sha256(), facts.public_key_sha256);
        assert!(description.subject.starts_with("CN=valetkey local CA "));
        assert!(matches!(description.home, Home::Memory));
    }
}
