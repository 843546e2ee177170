//! Changing the CA: the next one is made beside the one that signs, both are published, and then it takes its place.
//!
//! Two steps, because only people know when every client has read both. Each survives being cut short: the key is put in
//! its place before its certificate, and whoever opens the directory next does the rest.

use std::path::Path;

use rustls::pki_types::CertificateDer;

use super::AuthorityError;
use super::files::Directory;
use super::home::{self, CURRENT, Names};

/// The files of the CA that will sign.
const NEXT: Names = Names { key: "ca-key.next.pem", certificate: "ca-cert.next.pem" };

/// Makes the next CA, or checks the one that stands ready. The one that signs may be over: its key is not needed.
pub(super) fn prepare(path: &Path, now: i64) -> Result<(), AuthorityError> {
    let directory = open(path)?;
    complete(&directory)?;
    let current = home::read_one(&directory, CURRENT)?;
    let (facts, _) = current.ok_or_else(|| AuthorityError::NoNext { path: directory.join(CURRENT.certificate) })?;
    home::open_pair(&directory, NEXT, now, facts.permitted.as_ref()).map(drop)
}

/// Lets the next CA take the place of the one that signs.
pub(super) fn finish(path: &Path, now: i64) -> Result<(), AuthorityError> {
    let directory = open(path)?;
    if complete(&directory)? {
        return Ok(());
    }
    let (Some(key), Some(certificate)) = (directory.read(NEXT.key)?, directory.read(NEXT.certificate)?) else {
        return Err(AuthorityError::NoNext { path: directory.join(NEXT.certificate) });
    };
    home::load(&directory, NEXT, &key, &certificate, now)?;
    directory.rename(NEXT.key, CURRENT.key)?;
    directory.rename(NEXT.certificate, CURRENT.certificate)
}

/// Does the rest of a [`finish`] that was cut short; true where there was something to do.
pub(super) fn complete(directory: &Directory) -> Result<bool, AuthorityError> {
    let is_half_done = !directory.holds(NEXT.key) && directory.holds(NEXT.certificate);
    let Some(key) = directory.read(CURRENT.key)?.filter(|_| is_half_done) else { return Ok(false) };
    let key = home::read_key(directory, CURRENT, &key)?;
    let belongs =
        |names| home::read_one(directory, names).map(|one| one.is_some_and(|(facts, _)| facts.belongs_to(&key)));
    if belongs(CURRENT)? || !belongs(NEXT)? {
        return Ok(false);
    }
    directory.rename(NEXT.certificate, CURRENT.certificate)?;
    Ok(true)
}

/// The certificate of the next CA, where one stands ready.
pub(super) fn read_next(directory: &Directory) -> Result<Option<CertificateDer<'static>>, AuthorityError> {
    Ok(home::read_one(directory, NEXT)?.map(|(_, der)| der))
}

fn open(path: &Path) -> Result<Directory, AuthorityError> {
    let directory = Directory::open_if_there(path)?;
    let directory = directory.ok_or_else(|| AuthorityError::NoNext { path: path.join(CURRENT.certificate) })?;
    directory.lock()?;
    Ok(directory)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authority::{Authority, CERTIFICATE_FILE, Home, KEY_FILE, PUBLISHED_FILE, Permitted, PublicPart};
    use crate::clock::{ManualClock, SharedClock};
    use crate::model::Host;
    use rustls::pki_types::{ServerName, UnixTime, pem::PemObject};
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;
    use std::sync::Arc;
    use std::time::Duration;

    struct Place {
        _parent: tempfile::TempDir,
        path: PathBuf,
        clock: SharedClock,
    }

    impl Place {
        fn made() -> Self {
            let parent = tempfile::tempdir().unwrap();
            let place = Self { path: parent.path().join("ca"), _parent: parent, clock: ManualClock::new() };
            place.open();
            place
        }

        fn open(&self) -> Authority {
            Authority::open(&Home::Directory(self.path.clone()), self.clock.clone()).unwrap()
        }

        fn names(&self) -> Vec<String> {
            let entries = fs::read_dir(&self.path).unwrap();
            let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        }

        fn published(&self) -> String {
            let public = self.path.with_file_name("public");
            self.open().publish(&public).unwrap();
            fs::read_to_string(public.join(PUBLISHED_FILE)).unwrap()
        }
    }

    /// Whether a client that trusts these takes what the CA signs.
    fn verifies(trusted: &str, authority: &Authority, now: &SharedClock) -> bool {
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(trusted.as_bytes()) {
            roots.add(certificate.unwrap()).unwrap();
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier =
            rustls::client::WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build();
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_webpki_verifier(verifier.unwrap())
            .with_no_client_auth();
        config.time_provider = Arc::new(At(now.now().wall.as_second()));
        let name = ServerName::try_from("api.test").unwrap();
        let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
        let leaf = authority.server_config(&Host::parse("api.test").unwrap()).unwrap();
        let mut server = rustls::ServerConnection::new(leaf).unwrap();
        let (mut up, mut down) = (Vec::new(), Vec::new());
        client.write_tls(&mut up).unwrap();
        server.read_tls(&mut up.as_slice()).unwrap();
        server.process_new_packets().unwrap();
        while server.wants_write() {
            server.write_tls(&mut down).unwrap();
        }
        client.read_tls(&mut down.as_slice()).unwrap();
        client.process_new_packets().is_ok()
    }

    #[derive(Debug)]
    struct At(i64);

    impl rustls::time_provider::TimeProvider for At {
        fn current_time(&self) -> Option<UnixTime> {
            Some(UnixTime::since_unix_epoch(Duration::from_secs(self.0.try_into().unwrap())))
        }
    }

    #[test]
    fn who_has_read_both_is_never_without_a_ca_that_signs() {
        let place = Place::made();
        let old = place.published();
        Authority::prepare_next(&place.path, &place.clock).unwrap();
        let (running, both) = (place.open(), place.published());
        assert!(both.starts_with(&old) && both.len() > old.len(), "the one that signs comes first");
        for trusted in [&old, &both] {
            assert!(verifies(trusted, &running, &place.clock), "nothing has changed for anybody");
        }
        assert_eq!(PublicPart::read(&place.path).unwrap().unwrap().certificate_pem(), both);
        Authority::adopt_next(&place.path, &place.clock).unwrap();
        let restarted = place.open();
        assert!(!verifies(&old, &restarted, &place.clock), "another key signs");
        assert!(verifies(&both, &restarted, &place.clock) && verifies(&both, &running, &place.clock));
        let new = place.published();
        assert_eq!(format!("{old}{new}"), both);
        assert!(verifies(&new, &restarted, &place.clock));
        assert_eq!(place.names(), [CERTIFICATE_FILE, KEY_FILE], "the old key is gone");
    }

    #[test]
    fn the_next_ones_key_is_for_its_owner_alone_and_is_made_once() {
        let place = Place::made();
        for _ in 0..2 {
            Authority::prepare_next(&place.path, &place.clock).unwrap();
        }
        let mode = |name: &str| fs::metadata(place.path.join(name)).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode(NEXT.key), mode(NEXT.certificate)), (0o400, 0o644));
        let first = place.published();
        Authority::prepare_next(&place.path, &place.clock).unwrap();
        assert_eq!(place.published(), first);
        fs::set_permissions(place.path.join(NEXT.key), fs::Permissions::from_mode(0o444)).unwrap();
        let exposed = |result| matches!(result, Err(AuthorityError::Exposed { .. }));
        assert!(exposed(Authority::prepare_next(&place.path, &place.clock)));
        assert!(exposed(Authority::adopt_next(&place.path, &place.clock)));
        assert_eq!(place.published(), first, "the one that signs stays");
    }

    #[test]
    fn each_step_that_was_cut_short_is_done_by_the_next() {
        let place = Place::made();
        Authority::prepare_next(&place.path, &place.clock).unwrap();
        // Died between key and certificate of the next one.
        fs::remove_file(place.path.join(NEXT.certificate)).unwrap();
        place.open();
        assert!(matches!(Authority::adopt_next(&place.path, &place.clock), Err(AuthorityError::NoNext { .. })));
        Authority::prepare_next(&place.path, &place.clock).unwrap();
        let both = place.published();
        // Died between the two renames.
        fs::rename(place.path.join(NEXT.key), place.path.join(KEY_FILE)).unwrap();
        let restarted = place.open();
        assert!(verifies(&both, &restarted, &place.clock));
        assert!(both.ends_with(restarted.certificate_pem()));
        assert_eq!(place.names(), [CERTIFICATE_FILE, KEY_FILE]);
        Authority::prepare_next(&place.path, &place.clock).unwrap();
        fs::rename(place.path.join(NEXT.key), place.path.join(KEY_FILE)).unwrap();
        Authority::adopt_next(&place.path, &place.clock).unwrap();
        assert_eq!(place.names(), [CERTIFICATE_FILE, KEY_FILE]);
        place.open();
    }

    #[test]
    fn without_a_ca_there_is_nothing_to_change_and_nothing_is_made() {
        let parent = tempfile::tempdir().unwrap();
        let clock: SharedClock = ManualClock::new();
        for path in [parent.path().join("none"), parent.path().to_owned()] {
            for change in [Authority::prepare_next, Authority::adopt_next] {
                assert!(matches!(change(&path, &clock), Err(AuthorityError::NoNext { .. })));
            }
        }
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
    }

    #[test]
    fn the_next_one_is_limited_to_the_same_hosts() {
        let parent = tempfile::tempdir().unwrap();
        let (path, clock): (_, SharedClock) = (parent.path().join("ca"), ManualClock::new());
        let permitted = Permitted::new([&Host::parse("api.test").unwrap()]).unwrap();
        Authority::open_constrained(&path, clock.clone(), &permitted).unwrap();
        Authority::prepare_next(&path, &clock).unwrap();
        let next = PublicPart::read(&path).unwrap().unwrap().describe_next().unwrap();
        assert_eq!(next.permitted, Some(permitted));
    }
}
