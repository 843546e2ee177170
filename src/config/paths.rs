//! The files that a policy names, and whether it names commands: what a confined process has to know beforehand.

use std::path::{Path, PathBuf};

use super::Loaded;
use crate::credential::SourceSpec;
use crate::identity::{CaSource, IssuerSpec, Proof};

/// Files that are read at the start, with another policy, or while it is in force; some more than once.
#[must_use]
pub fn read_files(loaded: &Loaded) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for spec in &loaded.credentials {
        match &spec.source {
            SourceSpec::File { path } => files.push(path.clone()),
            SourceSpec::Certificate { key, certificate } => files.extend([key.clone(), certificate.clone()]),
            SourceSpec::Env { .. } | SourceSpec::Exec { .. } => {}
        }
    }
    files.extend(loaded.policy.services().iter().filter_map(|service| service.upstream_ca.clone()));
    files.extend(loaded.identities.bearers.iter().map(|path| PathBuf::from(&**path)));
    files.extend(loaded.identities.issuers.iter().flat_map(of_issuer).map(Path::to_owned));
    files.extend(loaded.identities.client_cas.iter().filter_map(|ca| match &ca.source {
        CaSource::File(path) => Some(path.clone()),
        CaSource::Workload(_) => None,
    }));
    for webhook in &loaded.webhooks {
        files.push(webhook.secret.clone());
        files.extend(webhook.ca.clone());
    }
    files
}

fn of_issuer(issuer: &IssuerSpec) -> impl Iterator<Item = &Path> {
    let proof = match &issuer.proof {
        Proof::File(path) | Proof::Review { token: path, .. } => Some(path),
        // A socket is no file to Landlock: connecting to one is not restricted.
        Proof::Server(_) | Proof::Workload(_) => None,
    };
    [proof, issuer.ca.as_ref()].into_iter().flatten().map(PathBuf::as_path)
}

/// True if a credential comes from a command.
#[must_use]
pub fn runs_commands(loaded: &Loaded) -> bool {
    loaded.credentials.iter().any(|spec| matches!(spec.source, SourceSpec::Exec { .. }))
}
