//! Where real secrets come from: environment, file, command; later sources come behind the same trait.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::SharedClock;
use crate::model::{Credential, CredentialName};

/// One `[credentials.NAME]` of the policy.
#[derive(Debug, Clone)]
pub struct Spec {
    /// Its name.
    pub name: CredentialName,
    /// Where it comes from.
    pub source: SourceSpec,
}

/// Where a credential comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceSpec {
    /// An environment variable, read once at start and taken out of the environment.
    Env {
        /// The variable.
        name: String,
    },
    /// A file, read again when it changes.
    File {
        /// The file; links are followed (Kubernetes swaps `..data`).
        path: std::path::PathBuf,
    },
    /// A command, run when a value is needed and the last one is over.
    Exec {
        /// Absolute path that others cannot write.
        command: std::path::PathBuf,
        /// Arguments.
        arguments: Vec<String>,
        /// Names of variables that it gets.
        environment: Vec<String>,
        /// How long a plain-text answer is good for.
        ttl: Duration,
        /// How long it may run.
        timeout: Duration,
    },
}

/// A credential with its version; a new value has a new version.
pub struct Versioned {
    /// Which one.
    pub name: CredentialName,
    /// Counts up in this process with every change of the value.
    pub version: u64,
    /// The secret.
    pub credential: Credential,
}

/// It cannot be had now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the credential cannot be had")]
pub struct Unavailable {
    /// When trying again makes sense, where that is known.
    pub retry_after: Option<Duration>,
}

/// How one credential is doing, without a word of its value.
#[derive(Debug, Clone)]
pub struct Health {
    /// Its name.
    pub name: CredentialName,
    /// `env`, `file`, `exec`.
    pub source: &'static str,
    /// What is wrong, in words that hold no value; `None` when it can be had.
    pub problem: Option<String>,
    /// Version in use, 0 before the first.
    pub version: u64,
}

/// All credentials of the policy.
pub struct Credentials {}

impl Credentials {
    /// Takes the environment's values over from `environment` (already taken out of the process environment).
    #[must_use]
    pub fn new(
        _specs: Vec<Spec>,
        _environment: std::collections::HashMap<String, zeroize::Zeroizing<String>>,
        _clock: SharedClock,
    ) -> Self {
        todo!()
    }

    /// The present value; single-flight where it has to be fetched.
    ///
    /// # Errors
    /// [`Unavailable`].
    pub async fn fetch(&self, _name: &CredentialName) -> Result<Arc<Versioned>, Unavailable> {
        todo!()
    }

    /// How all of them are doing.
    #[must_use]
    pub fn health(&self) -> Vec<Health> {
        todo!()
    }

    /// Tries all once, so that what is missing is said at start.
    pub async fn probe(&self) {
        todo!()
    }
}
