//! A client certificate and its key in files, which are read again while they are in use.

use std::path::{Path, PathBuf};

use super::{CertificateProblem, ClientCertificate};
use crate::clock::SharedClock;
use crate::credential::Value;
use crate::credential::file::{FILE_PACE, read_bytes};
use crate::credential::source::{Loaded, Loading, Pace, Problem, Source};
use crate::model::{Deadline, Now};

/// The key's file, and its certificate's.
pub(in crate::credential) struct CertificateFiles {
    key: PathBuf,
    certificate: PathBuf,
    clock: SharedClock,
}

impl CertificateFiles {
    pub(in crate::credential) fn new(key: PathBuf, certificate: PathBuf, clock: SharedClock) -> Self {
        Self { key, certificate, clock }
    }
}

impl Source for CertificateFiles {
    fn load(&self) -> Loading<'_> {
        let (key, certificate, now) = (self.key.clone(), self.certificate.clone(), self.clock.now());
        Box::pin(async move {
            let reading = tokio::task::spawn_blocking(move || read(&key, &certificate, &now));
            reading.await.map_err(|_| Problem::Interrupted)?
        })
    }

    fn pace(&self) -> Pace {
        FILE_PACE
    }
}

/// Between the two readings one may have been replaced: then both are read once more.
fn read(key: &Path, certificate: &Path, now: &Now) -> Result<Loaded, Problem> {
    match read_once(key, certificate, now) {
        Err(Problem::Certificate(CertificateProblem::Mismatch)) => read_once(key, certificate, now),
        outcome => outcome,
    }
}

fn read_once(key: &Path, certificate: &Path, now: &Now) -> Result<Loaded, Problem> {
    let secret = read_bytes(key)?;
    let chain = read_bytes(certificate).map_err(|problem| match problem {
        Problem::Io(kind) => CertificateProblem::Unread(kind),
        _ => CertificateProblem::Unusable,
    })?;
    let (certificate, end) = ClientCertificate::parse(&chain, &secret, now.wall)?;
    Ok(Loaded { value: Value::Certificate(certificate), expires_at: Some(until(end, now)) })
}

/// By whichever clock gets there first.
fn until(end: jiff::Timestamp, now: &Now) -> Deadline {
    let left = std::time::Duration::try_from(end.duration_since(now.wall)).unwrap_or_default();
    Deadline { boot: now.boot.saturating_add(left), wall: end }
}
