//! The local CA: one key, a leaf for each host, and the public files that clients trust.
//!
//! - `certificate`: what a certificate of ours says (CA and leaf), and what one that is read must say
//! - `home`: the pair of key and certificate in a directory
//! - `files`: reading and replacing files in a directory without following links
//! - `leaves`: the bounded cache of leaves and the budget of new ones
//! - `rotation`: the CA that comes after this one, and when it takes its place
//! - `permitted`: what a CA may sign that is limited to some hosts
//! - `bundle`: `ca.pem` and `ca-bundle.pem`
//! - `truststore`: `truststore.p12`

mod bundle;
mod certificate;
#[cfg(test)]
mod client_tests;
mod files;
mod home;
mod leaves;
mod permitted;
mod rotation;
mod truststore;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::Mutex;
use rcgen::{Issuer, KeyPair};
use rustls::pki_types::CertificateDer;

use crate::clock::SharedClock;
use crate::model::Host;
use crate::roots;

pub use bundle::{prepare, publish_certificate};
use certificate::Facts;
use files::Lasting;
use leaves::{Leaves, Mint};
pub use permitted::Permitted;

/// The key of the CA in its [`Home::Directory`], mode 0400.
pub const KEY_FILE: &str = "ca-key.pem";
/// The certificate of the CA in its [`Home::Directory`], mode 0644.
pub const CERTIFICATE_FILE: &str = "ca-cert.pem";
/// Our CA alone, as [`Authority::publish`] writes it: for clients that add it to their own roots.
pub const PUBLISHED_FILE: &str = "ca.pem";
/// The system's roots and our CA, as [`Authority::publish`] writes it: for clients that replace their roots by it.
pub const PUBLISHED_BUNDLE_FILE: &str = "ca-bundle.pem";
/// The same as PKCS#12, as [`Authority::publish`] writes it: for Java.
pub const PUBLISHED_TRUSTSTORE_FILE: &str = "truststore.p12";
/// The password of the truststore. It holds nothing secret: readers ask for one, and this is what they try first.
pub const TRUSTSTORE_PASSWORD: &str = "changeit";

/// Where the CA's key lives.
#[derive(Debug, Clone)]
pub enum Home {
    /// Key and certificate in a directory; made there when missing, reused at the next start.
    Directory(PathBuf),
    /// In memory only; gone with the process.
    Memory,
}

/// Bounds on the work and the memory that hosts named by an agent can cause.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Hosts whose leaf is kept; those unused for longest make room.
    pub hosts_max: usize,
    /// New leaves per second, once the burst is used up. One takes some 70 µs, a handshake with its client more.
    pub leaves_per_second: u32,
    /// New leaves at once.
    pub leaves_burst: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { hosts_max: 1024, leaves_per_second: 1_000, leaves_burst: 2_000 }
    }
}

/// Why there is no CA, or why its public files cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file cannot be read or written.
    #[error("{path}: {source}", path = path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A symbolic link, directory, device or pipe where a file belongs.
    #[error("{path} is not a plain file", path = path.display())]
    NotAFile {
        /// Which.
        path: PathBuf,
    },
    /// The key can be read or written by its group or by others.
    #[error("{path} is open to others (mode {mode:04o})", path = path.display())]
    Exposed {
        /// Which.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The key belongs to another user.
    #[error("{path} belongs to uid {uid}, not to the user of this process", path = path.display())]
    ForeignOwner {
        /// Which.
        path: PathBuf,
        /// Whose it is.
        uid: u32,
    },
    /// There is a certificate without its key.
    #[error("{path} is missing, though its certificate is there", path = path.display())]
    KeyMissing {
        /// The key that should be there.
        path: PathBuf,
    },
    /// Not one PEM block of the right kind, or larger than any such file is.
    #[error("{path} does not hold exactly one P-256 key or one certificate as PEM", path = path.display())]
    Malformed {
        /// Which.
        path: PathBuf,
    },
    /// A certificate that may not sign others.
    #[error("{path} is not the certificate of a CA", path = path.display())]
    NotAnAuthority {
        /// Which.
        path: PathBuf,
    },
    /// The certificate is for another key.
    #[error("key and certificate in {directory} do not belong together", directory = directory.display())]
    Mismatch {
        /// Where both are.
        directory: PathBuf,
    },
    /// The certificate's time is over.
    #[error("{path} expired at {not_after}", path = path.display())]
    Expired {
        /// Which.
        path: PathBuf,
        /// Since when.
        not_after: Timestamp,
    },
    /// The certificate's time has not come: a clock is or was wrong.
    #[error("{path} is not valid before {not_before}", path = path.display())]
    NotYetValid {
        /// Which.
        path: PathBuf,
        /// From when.
        not_before: Timestamp,
    },
    /// Another process has held the directory's lock for too long.
    #[error("{path} is locked by another process", path = path.display())]
    Busy {
        /// The directory.
        path: PathBuf,
    },
    /// A CA is there, and it is not limited to the hosts that were asked for.
    #[error("the CA in {path} is not limited to these hosts", path = path.display())]
    OtherNames {
        /// The directory.
        path: PathBuf,
    },
    /// The public files would stand beside the private key.
    #[error("{path} holds the CA's key and cannot be where public files are shared", path = path.display())]
    PublishedBesideKey {
        /// The directory.
        path: PathBuf,
    },
    /// There is no CA to change, or none that could take its place.
    #[error("{path} is not there", path = path.display())]
    NoNext {
        /// The certificate that should be there.
        path: PathBuf,
    },
    /// The system's randomness or the cryptography failed.
    #[error("no key or certificate can be made")]
    Generation,
}

impl AuthorityError {
    /// What to do about it, in one sentence.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::File { .. } => "check that the path exists and that this user may read and write there",
            Self::NotAFile { .. } => {
                "put the file itself there; links are not followed, so that nobody can redirect the key"
            }
            Self::Exposed { .. } => {
                "chmod 0400 the key; if others may have read it, remove key and certificate and start again"
            }
            Self::ForeignOwner { .. } => "chown the key to the user that runs valetkey, or choose another directory",
            Self::KeyMissing { .. } => {
                "put the key back, or remove the certificate too to have a new CA made, which clients must then trust"
            }
            Self::Malformed { .. } => {
                "restore the file, or remove key and certificate to have a new CA made, which clients must then trust"
            }
            Self::NotAnAuthority { .. } | Self::Mismatch { .. } => {
                "restore the pair that belongs together, or remove both files to have a new CA made, which clients must then trust"
            }
            Self::Expired { .. } => {
                "remove key and certificate to have a new CA made, then hand the new ca.pem to every client"
            }
            Self::OtherNames { .. } => {
                "make another one with --ca-dir, hand its ca.pem to every client, and then let `valetkey serve` use it"
            }
            Self::NotYetValid { .. } => "check this machine's clock",
            Self::Busy { .. } => "end the other process, or use a directory of its own for each",
            Self::PublishedBesideKey { .. } => "publish into another directory than the CA's",
            Self::NoNext { .. } => {
                "`valetkey ca rotate` makes it beside the CA that is there; --finish comes once every client has read both"
            }
            Self::Generation => "check that the system's random generator works",
        }
    }
}

/// What there is to say about the CA in public.
#[derive(Debug, Clone)]
pub struct Description {
    /// The subject, for example `CN=valetkey local CA 1f2e3d4c`.
    pub subject: String,
    /// SHA-256 of the whole certificate, as browsers and `openssl x509 -fingerprint -sha256` show it.
    pub fingerprint_sha256: [u8; 32],
    /// When it begins; dated back a little for clocks that are behind.
    pub not_before: Timestamp,
    /// When it ends; from then on no leaf is made.
    pub not_after: Timestamp,
    /// Where the key is.
    pub home: Home,
    /// The hosts that it is limited to; `None` where it is not.
    pub permitted: Option<Permitted>,
}

/// The certificate of a CA in a directory, read without its key.
#[derive(Debug, Clone)]
pub struct PublicPart {
    description: Description,
    /// The one that signs, and the one that will where it is being changed.
    own: Vec<CertificateDer<'static>>,
}

impl PublicPart {
    /// Reads the certificate in a [`Home::Directory`]; `None` where there is none. Makes nothing, needs no key, and
    /// reads one that is over or not yet valid too: its times are for the reader to judge.
    ///
    /// # Errors
    /// [`AuthorityError`]: unreadable, or not the certificate of a CA.
    pub fn read(directory: &Path) -> Result<Option<Self>, AuthorityError> {
        let Some((facts, own)) = home::read_public(directory)? else { return Ok(None) };
        let description = facts.describe(&Home::Directory(directory.to_owned()));
        Ok(Some(Self { description, own }))
    }

    /// Subject, fingerprint, times and home.
    #[must_use]
    pub fn describe(&self) -> &Description {
        &self.description
    }

    /// The certificate as PEM, with the next one behind it while the CA is being changed.
    #[must_use]
    pub fn certificate_pem(&self) -> String {
        bundle::pems(&self.own)
    }

    /// What there is to say about the CA that will sign after this one; `None` where none stands ready.
    #[must_use]
    pub fn describe_next(&self) -> Option<Description> {
        let facts = Facts::read(self.own.get(1)?)?;
        Some(facts.describe(&self.description.home))
    }

    /// As [`Authority::ca_bundle_pem`].
    #[must_use]
    pub fn ca_bundle_pem(&self) -> String {
        bundle::bundle(&bundle::roots(&roots::read()), &self.own)
    }

    /// What is in [`PublicPart::ca_bundle_pem`], as PKCS#12 under [`TRUSTSTORE_PASSWORD`].
    #[must_use]
    pub fn truststore(&self) -> Vec<u8> {
        bundle::truststore(&bundle::roots(&roots::read()), &self.own)
    }
}

/// The CA with its bounded cache of leaves.
pub struct Authority {
    home: Home,
    clock: SharedClock,
    /// The one that signs, and the one that will where it is being changed.
    own: Vec<CertificateDer<'static>>,
    certificate_pem: String,
    facts: Facts,
    mint: Mint,
    leaves: Mutex<Leaves>,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("home", &self.home)
            .field("subject", &self.facts.subject)
            .finish_non_exhaustive()
    }
}

impl Authority {
    /// Opens or makes the CA, with the default [`Limits`].
    ///
    /// A CA lives for a year, one in memory no longer than its process; an expired one is an error, never replaced silently.
    ///
    /// # Errors
    /// [`AuthorityError`]: unreadable, readable by others, expired, key and certificate that do not belong together.
    pub fn open(home: &Home, clock: SharedClock) -> Result<Self, AuthorityError> {
        Self::open_with(home, clock, Limits::default())
    }

    /// Opens or makes the CA, with limits of its own.
    ///
    /// # Errors
    /// As [`Authority::open`].
    pub fn open_with(home: &Home, clock: SharedClock, limits: Limits) -> Result<Self, AuthorityError> {
        let now = clock.now().wall.as_second();
        let opened = match home {
            Home::Directory(path) => home::open(path, now, None)?,
            Home::Memory => {
                let key = certificate::new_key()?;
                let der = certificate::new_authority(&key, now, certificate::AUTHORITY_SECONDS, None)?;
                home::Opened { pair: (key, der), next: None }
            }
        };
        Self::of(opened, home, clock, limits)
    }

    /// Opens the CA in a directory, or makes one that is limited to these hosts.
    ///
    /// # Errors
    /// As [`Authority::open`], and where the one that is there is not limited to the same.
    pub fn open_constrained(path: &Path, clock: SharedClock, permitted: &Permitted) -> Result<Self, AuthorityError> {
        let opened = home::open(path, clock.now().wall.as_second(), Some(permitted))?;
        Self::of(opened, &Home::Directory(path.to_owned()), clock, Limits::default())
    }

    /// Makes the CA that will sign after the one in this directory, limited to the same hosts, and leaves it at that; one
    /// that stands ready is checked. From the next [`Authority::publish`] on both are published.
    ///
    /// # Errors
    /// [`AuthorityError`]: there is no CA, or a file of either cannot be used.
    pub fn prepare_next(path: &Path, clock: &SharedClock) -> Result<(), AuthorityError> {
        rotation::prepare(path, clock.now().wall.as_second())
    }

    /// Puts the CA that stands ready in the place of the one in this directory, whose key is then gone. Who has opened that
    /// one before signs with it until it ends.
    ///
    /// # Errors
    /// [`AuthorityError`]: none stands ready, or it cannot be used. The one that is there then stays.
    pub fn adopt_next(path: &Path, clock: &SharedClock) -> Result<(), AuthorityError> {
        rotation::finish(path, clock.now().wall.as_second())
    }

    fn of(opened: home::Opened, home: &Home, clock: SharedClock, limits: Limits) -> Result<Self, AuthorityError> {
        let home::Opened { pair: (key, der), next } = opened;
        let facts = Facts::read(&der).ok_or(AuthorityError::Generation)?;
        let issuer: Issuer<'static, KeyPair> =
            Issuer::from_ca_cert_der(&der, key).map_err(|_| AuthorityError::Generation)?;
        let own: Vec<_> = [der].into_iter().chain(next).collect();
        Ok(Self {
            home: home.clone(),
            certificate_pem: bundle::pems(&own),
            own,
            mint: Mint::new(issuer, facts.validity)?,
            leaves: Mutex::new(Leaves::new(limits, clock.now().boot)),
            facts,
            clock,
        })
    }

    /// The TLS server configuration for a host: leaf, session tickets, ALPN `h2` and `http/1.1` (and clients without
    /// ALPN). Cached; made once per host under concurrency; the work is done on the calling task (well under a
    /// millisecond). Tickets are good for this host alone.
    ///
    /// # Errors
    /// [`LeafRefused`] when the budget of new leaves is spent, the name cannot be signed or the CA is over.
    pub fn server_config(&self, host: &Host) -> Result<Arc<rustls::ServerConfig>, LeafRefused> {
        let now = self.clock.now();
        let wall = now.wall.as_second();
        if !self.facts.validity.holds(wall) {
            return Err(LeafRefused);
        }
        let slot = self.leaves.lock().slot(host, now, self.facts.validity).ok_or(LeafRefused)?;
        // Outside the lock: whoever comes first signs, others for the same host wait for it, other hosts do not.
        let Some(leaf) = slot.get_or_init(|| self.mint.leaf(host, wall)) else {
            self.leaves.lock().forget(host, &slot);
            return Err(LeafRefused);
        };
        Ok(leaf.config())
    }

    /// The CA certificate as PEM, with the next one behind it while the CA is being changed.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// SHA-256 of the CA's SubjectPublicKeyInfo, to take it out of upstream roots.
    #[must_use]
    pub fn public_key_sha256(&self) -> [u8; 32] {
        self.facts.public_key_sha256
    }

    /// Subject, fingerprint, end and home.
    #[must_use]
    pub fn describe(&self) -> Description {
        self.facts.describe(&self.home)
    }

    /// The system's roots and our CA as PEM, each certificate once. Where the system has no roots, Mozilla's stand in.
    ///
    /// `SSL_CERT_FILE` and `SSL_CERT_DIR` of this process are honoured; a valetkey CA found there is left out.
    #[must_use]
    pub fn ca_bundle_pem(&self) -> String {
        bundle::bundle(&bundle::roots(&roots::read()), &self.own)
    }

    /// Writes `ca.pem`, and `ca-bundle.pem` and `truststore.p12` (system roots plus ours), into a directory, each by
    /// atomic rename with mode 0644; `ca.pem` last.
    ///
    /// # Errors
    /// [`AuthorityError::File`], and [`AuthorityError::PublishedBesideKey`] for a directory that holds the CA's key.
    pub fn publish(&self, directory: &Path) -> Result<(), AuthorityError> {
        bundle::publish(directory, &bundle::roots(&roots::read()), &self.own, Lasting::Yes)
    }

    /// The same with these roots of the system, and without waiting for the disk: after a crash, the next start publishes
    /// again what is missing. Errors as there.
    pub fn publish_with(&self, system: &[CertificateDer<'static>], directory: &Path) -> Result<(), AuthorityError> {
        bundle::publish(directory, &bundle::roots(system), &self.own, Lasting::No)
    }
}

/// No leaf for this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no certificate can be made for this host")]
pub struct LeafRefused;
