//! The local CA: one key, a leaf for each host, and the public files that clients trust.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::clock::SharedClock;
use crate::model::Host;

/// Where the CA's key lives.
#[derive(Debug, Clone)]
pub enum Home {
    /// Key and certificate in a directory; made there when missing, reused at the next start.
    Directory(PathBuf),
    /// In memory only; gone with the process.
    Memory,
}

/// Why there is no CA.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// The CA with its bounded cache of leaves.
pub struct Authority {}

impl Authority {
    /// Opens or makes the CA.
    ///
    /// # Errors
    /// [`AuthorityError`]: unreadable, readable by others, expired, key and certificate that do not belong together.
    pub fn open(_home: &Home, _clock: SharedClock) -> Result<Self, AuthorityError> {
        todo!()
    }

    /// The TLS server configuration for a host: leaf, session tickets, ALPN `h2` and `http/1.1`. Cached; made once per
    /// host under concurrency; the work is done on the calling task (about 20 µs).
    ///
    /// # Errors
    /// [`LeafRefused`] when the budget of new leaves is spent or the name cannot be signed.
    pub fn server_config(&self, _host: &Host) -> Result<Arc<rustls::ServerConfig>, LeafRefused> {
        todo!()
    }

    /// The CA certificate as PEM.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        todo!()
    }

    /// SHA-256 of the CA's SubjectPublicKeyInfo, to take it out of upstream roots.
    #[must_use]
    pub fn public_key_sha256(&self) -> [u8; 32] {
        todo!()
    }

    /// Writes `ca.pem` and `ca-bundle.pem` (system roots plus ours) into a directory by atomic rename, mode 0644.
    ///
    /// # Errors
    /// [`AuthorityError::File`].
    pub fn publish(&self, _directory: &Path) -> Result<(), AuthorityError> {
        todo!()
    }
}

/// No leaf for this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no certificate can be made for this host")]
pub struct LeafRefused;
