//! Key and certificate in a directory: made once, together, and read with suspicion.

use std::path::Path;

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, pem::PemObject};
use zeroize::{Zeroize, Zeroizing};

use super::certificate::{self, Facts, WARN_SECONDS};
use super::files::{Directory, Found};
use super::permitted::Permitted;
use super::rotation;
use super::{AuthorityError, CERTIFICATE_FILE, KEY_FILE};

/// A key that its group or others have any right to is not ours alone.
const OTHERS: u32 = 0o077;

pub(super) type Pair = (KeyPair, CertificateDer<'static>);

/// The two files of a pair.
#[derive(Debug, Clone, Copy)]
pub(super) struct Names {
    pub(super) key: &'static str,
    pub(super) certificate: &'static str,
}

/// Those of the CA that signs.
pub(super) const CURRENT: Names = Names { key: KEY_FILE, certificate: CERTIFICATE_FILE };

/// A CA that can be used.
pub(super) struct Opened {
    pub(super) pair: Pair,
    /// The certificate of the one that will sign after it, while it is being changed.
    pub(super) next: Option<CertificateDer<'static>>,
}

/// Reads the pair, or makes it where there is none. `now` in seconds since 1970. Where it shall be limited, one that is
/// there must be limited to the same.
pub(super) fn open(path: &Path, now: i64, permitted: Option<&Permitted>) -> Result<Opened, AuthorityError> {
    let directory = Directory::open_or_make(path, 0o700)?;
    // Until the directory is dropped: two processes that start at once end up with one pair.
    directory.lock()?;
    rotation::complete(&directory)?;
    let pair = open_pair(&directory, CURRENT, now, permitted)?;
    let next = rotation::read_next(&directory)?;
    if next.is_some() {
        tracing::info!(ca.path = %path.display(), "another CA stands ready; `valetkey ca rotate --finish` lets it sign");
    }
    Ok(Opened { pair, next })
}

/// Reads a pair, or makes it where there is none; the directory is locked.
pub(super) fn open_pair(
    directory: &Directory,
    names: Names,
    now: i64,
    permitted: Option<&Permitted>,
) -> Result<Pair, AuthorityError> {
    match (directory.read(names.key)?, directory.read(names.certificate)?) {
        (Some(key), Some(certificate)) => {
            let (key, der) = load(directory, names, &key, &certificate, now)?;
            let is_other = permitted.is_some() && read_facts(directory, names, &der)?.permitted.as_ref() != permitted;
            if is_other {
                Err(AuthorityError::OtherNames { path: directory.path().to_owned() })
            } else {
                Ok((key, der))
            }
        }
        (None, Some(_)) => Err(AuthorityError::KeyMissing { path: directory.join(names.key) }),
        (None, None) => {
            let key = certificate::new_key()?;
            directory.replace(names.key, 0o400, Zeroizing::new(key.serialize_pem()).as_bytes())?;
            certify(directory, names, key, now, permitted)
        }
        // The key is written first: a process that died in between leaves a key that no certificate was shown for.
        (Some(key), None) => {
            let key = read_key(directory, names, &key)?;
            certify(directory, names, key, now, permitted)
        }
    }
}

/// Reads the certificate alone, whatever its times, with the next one behind it; `None` where there is no directory or no certificate in it.
pub(super) fn read_public(path: &Path) -> Result<Option<(Facts, Vec<CertificateDer<'static>>)>, AuthorityError> {
    let Some(directory) = Directory::open_if_there(path)? else { return Ok(None) };
    let Some((facts, der)) = read_one(&directory, CURRENT)? else { return Ok(None) };
    let own = [der].into_iter().chain(rotation::read_next(&directory)?).collect();
    Ok(Some((facts, own)))
}

/// The certificate of a pair, and what it says.
pub(super) fn read_one(
    directory: &Directory,
    names: Names,
) -> Result<Option<(Facts, CertificateDer<'static>)>, AuthorityError> {
    let Some(found) = directory.read(names.certificate)? else { return Ok(None) };
    let der = read_certificate(directory, names, &found)?;
    let facts = read_facts(directory, names, &der)?;
    Ok(Some((facts, der)))
}

fn certify(
    directory: &Directory,
    names: Names,
    key: KeyPair,
    now: i64,
    permitted: Option<&Permitted>,
) -> Result<Pair, AuthorityError> {
    let der = certificate::new_authority(&key, now, certificate::AUTHORITY_SECONDS, permitted)?;
    directory.replace(names.certificate, 0o644, super::bundle::pem(&der).as_bytes())?;
    Ok((key, der))
}

pub(super) fn load(
    directory: &Directory,
    names: Names,
    key: &Found,
    certificate: &Found,
    now: i64,
) -> Result<Pair, AuthorityError> {
    let key = read_key(directory, names, key)?;
    let der = read_certificate(directory, names, certificate)?;
    let at = directory.join(names.certificate);
    let facts = read_facts(directory, names, &der)?;
    if !facts.belongs_to(&key) {
        return Err(AuthorityError::Mismatch { directory: directory.path().to_owned() });
    }
    if now >= facts.validity.until {
        return Err(AuthorityError::Expired { path: at, not_after: certificate::timestamp(facts.validity.until) });
    }
    if now < facts.validity.from {
        return Err(AuthorityError::NotYetValid { path: at, not_before: certificate::timestamp(facts.validity.from) });
    }
    if facts.validity.until - now < WARN_SECONDS {
        let not_after = certificate::timestamp(facts.validity.until);
        tracing::warn!(ca.path = %at.display(), ca.not_after = %not_after, "the local CA ends soon; clients must be given a new one");
    }
    Ok((key, der))
}

/// What a certificate says, if it is a CA's.
fn read_facts(directory: &Directory, names: Names, der: &[u8]) -> Result<Facts, AuthorityError> {
    let path = directory.join(names.certificate);
    match Facts::read(der) {
        None => Err(AuthorityError::Malformed { path }),
        Some(facts) if !facts.signs => Err(AuthorityError::NotAnAuthority { path }),
        Some(facts) => Ok(facts),
    }
}

pub(super) fn read_key(directory: &Directory, names: Names, found: &Found) -> Result<KeyPair, AuthorityError> {
    let path = directory.join(names.key);
    if found.uid != rustix::process::geteuid().as_raw() {
        return Err(AuthorityError::ForeignOwner { path, uid: found.uid });
    }
    if found.mode & OTHERS != 0 {
        return Err(AuthorityError::Exposed { path, mode: found.mode });
    }
    // What the parsers say about a key is not passed on: it could quote it.
    let mut keys = PrivatePkcs8KeyDer::pem_slice_iter(&found.bytes);
    match (keys.next(), keys.next()) {
        (Some(Ok(mut der)), None) => {
            let key = KeyPair::from_pkcs8_der_and_sign_algo(&der, &PKCS_ECDSA_P256_SHA256);
            der.zeroize();
            key.map_err(|_| AuthorityError::Malformed { path })
        }
        _ => Err(AuthorityError::Malformed { path }),
    }
}

fn read_certificate(
    directory: &Directory,
    names: Names,
    found: &Found,
) -> Result<CertificateDer<'static>, AuthorityError> {
    let mut certificates = CertificateDer::pem_slice_iter(&found.bytes);
    match (certificates.next(), certificates.next()) {
        (Some(Ok(der)), None) => Ok(der),
        _ => Err(AuthorityError::Malformed { path: directory.join(names.certificate) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authority::{Authority, Home, PublicPart};
    use crate::clock::{Clock, ManualClock};
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::PathBuf;
    use std::time::Duration;

    const DAY: Duration = Duration::from_secs(86_400);

    struct Place(tempfile::TempDir);

    impl Place {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn path(&self) -> PathBuf {
            self.0.path().join("ca")
        }

        fn file(&self, name: &str) -> PathBuf {
            self.path().join(name)
        }

        fn open(&self) -> Result<Authority, AuthorityError> {
            Authority::open(&Home::Directory(self.path()), ManualClock::new())
        }

        fn made() -> Self {
            let place = Self::new();
            place.open().unwrap();
            place
        }

        fn mode(&self, name: &str) -> u32 {
            fs::metadata(self.file(name)).unwrap().permissions().mode() & 0o7777
        }
    }

    #[test]
    fn a_pair_is_made_with_narrow_modes_and_reused() {
        let place = Place::new();
        let first = place.open().unwrap();
        assert_eq!([place.mode(""), place.mode(KEY_FILE), place.mode(CERTIFICATE_FILE)], [0o700, 0o400, 0o644]);
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 2);
        let second = place.open().unwrap();
        assert_eq!(first.certificate_pem(), second.certificate_pem());
        assert_eq!(first.describe().fingerprint_sha256, second.describe().fingerprint_sha256);
        assert!(!first.certificate_pem().contains("PRIVATE"));
    }

    #[test]
    fn a_key_that_others_may_touch_is_refused() {
        let place = Place::made();
        for mode in [0o440, 0o404, 0o410, 0o401, 0o420, 0o402, 0o644] {
            fs::set_permissions(place.file(KEY_FILE), Permissions::from_mode(mode)).unwrap();
            let error = place.open().unwrap_err();
            assert!(matches!(error, AuthorityError::Exposed { mode: found, .. } if found == mode), "{error}");
        }
        fs::set_permissions(place.file(KEY_FILE), Permissions::from_mode(0o600)).unwrap();
        place.open().unwrap();
    }

    #[test]
    fn a_key_of_somebody_else_is_refused() {
        let place = Place::made();
        if std::os::unix::fs::chown(place.file(KEY_FILE), Some(65_534), None).is_err() {
            return crate::skips::skip("only root can give a file away");
        }
        let error = place.open().unwrap_err();
        assert!(matches!(error, AuthorityError::ForeignOwner { uid: 65_534, .. }), "{error}");
    }

    #[test]
    fn linked_files_are_refused() {
        for name in [KEY_FILE, CERTIFICATE_FILE] {
            let place = Place::made();
            fs::rename(place.file(name), place.0.path().join("moved")).unwrap();
            symlink(place.0.path().join("moved"), place.file(name)).unwrap();
            assert!(matches!(place.open().unwrap_err(), AuthorityError::NotAFile { .. }));
        }
    }

    #[test]
    fn halves_of_two_pairs_are_refused() {
        let (one, two) = (Place::made(), Place::made());
        fs::copy(two.file(CERTIFICATE_FILE), one.file(CERTIFICATE_FILE)).unwrap();
        assert!(matches!(one.open().unwrap_err(), AuthorityError::Mismatch { .. }));
    }

    #[test]
    fn a_certificate_without_its_key_is_an_error_and_a_key_alone_is_certified() {
        let place = Place::made();
        fs::remove_file(place.file(CERTIFICATE_FILE)).unwrap();
        let key = fs::read(place.file(KEY_FILE)).unwrap();
        place.open().unwrap();
        assert_eq!(fs::read(place.file(KEY_FILE)).unwrap(), key);
        fs::remove_file(place.file(KEY_FILE)).unwrap();
        assert!(matches!(place.open().unwrap_err(), AuthorityError::KeyMissing { .. }));
        assert!(!place.file(KEY_FILE).exists());
    }

    #[test]
    fn garbage_truncation_and_extra_blocks_are_refused_without_being_quoted() {
        for name in [KEY_FILE, CERTIFICATE_FILE] {
            let place = Place::made();
            let good = fs::read(place.file(name)).unwrap();
            let twice = [good.clone(), good.clone()].concat();
            for bad in [b"".as_slice(), b"sesame", &good[..good.len() / 2], &twice, &[0xff; 99]] {
                fs::set_permissions(place.file(name), Permissions::from_mode(0o600)).unwrap();
                fs::write(place.file(name), bad).unwrap();
                let error = place.open().unwrap_err();
                assert!(matches!(error, AuthorityError::Malformed { .. }), "{error}");
                assert!(!format!("{error:?} {error}").contains("sesame"));
            }
        }
    }

    #[test]
    fn a_leaf_is_not_taken_for_a_ca() {
        let place = Place::made();
        let key = KeyPair::from_pem(&fs::read_to_string(place.file(KEY_FILE)).unwrap()).unwrap();
        let leaf = rcgen::CertificateParams::new(vec!["api.test".to_owned()]).unwrap().self_signed(&key).unwrap();
        fs::write(place.file(CERTIFICATE_FILE), leaf.pem()).unwrap();
        assert!(matches!(place.open().unwrap_err(), AuthorityError::NotAnAuthority { .. }));
    }

    #[test]
    fn a_ca_out_of_its_time_is_an_error_and_never_replaced() {
        let place = Place::made();
        let before = fs::read(place.file(CERTIFICATE_FILE)).unwrap();
        let clock = ManualClock::new();
        let home = Home::Directory(place.path());
        clock.advance(DAY * 364);
        Authority::open(&home, clock.clone()).unwrap();
        clock.advance(DAY + DAY / 24);
        let error = Authority::open(&home, clock.clone()).unwrap_err();
        assert!(matches!(error, AuthorityError::Expired { .. }), "{error}");
        assert!(error.hint().contains("ca.pem"));
        let early = certificate::timestamp(clock.now().wall.as_second() - 366 * 86_400);
        clock.set(crate::model::Now { boot: clock.now().boot, wall: early });
        assert!(matches!(Authority::open(&home, clock).unwrap_err(), AuthorityError::NotYetValid { .. }));
        assert_eq!(fs::read(place.file(CERTIFICATE_FILE)).unwrap(), before);
    }

    #[test]
    fn many_that_start_at_once_share_one_pair() {
        let place = Place::new();
        let pems: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| place.open().unwrap())).collect();
            threads.into_iter().map(|t| t.join().unwrap().certificate_pem().to_owned()).collect()
        });
        assert!(pems.iter().all(|pem| pem == &pems[0]));
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_place_that_cannot_be_made_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let home = Home::Directory(file.path().join("ca"));
        let error = Authority::open(&home, ManualClock::new()).unwrap_err();
        assert!(matches!(error, AuthorityError::File { .. }));
        assert!(error.to_string().contains("ca"), "{error}");
    }

    #[test]
    fn the_public_part_is_read_without_the_key_and_whatever_its_times() {
        let place = Place::new();
        assert!(PublicPart::read(&place.path()).unwrap().is_none());
        assert!(!place.path().exists(), "reading makes nothing");
        let clock = ManualClock::new();
        let authority = Authority::open(&Home::Directory(place.path()), clock.clone()).unwrap();
        fs::remove_file(place.file(KEY_FILE)).unwrap();
        clock.advance(DAY * 400);
        let public = PublicPart::read(&place.path()).unwrap().unwrap();
        assert_eq!(public.certificate_pem(), authority.certificate_pem());
        assert_eq!(public.describe().fingerprint_sha256, authority.describe().fingerprint_sha256);
        assert!(public.describe().not_before < public.describe().not_after);
        fs::write(place.file(CERTIFICATE_FILE), "no certificate").unwrap();
        assert!(matches!(PublicPart::read(&place.path()), Err(AuthorityError::Malformed { .. })));
        fs::remove_file(place.file(CERTIFICATE_FILE)).unwrap();
        symlink("elsewhere", place.file(CERTIFICATE_FILE)).unwrap();
        assert!(matches!(PublicPart::read(&place.path()), Err(AuthorityError::NotAFile { .. })));
    }
}
