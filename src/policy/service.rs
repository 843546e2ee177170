//! What a policy says of one API.

use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;

use super::host::HostPattern;
use super::rule::Rule;
use super::signing::Signing;
use super::slot::{Placeholder, Slot};
use crate::model::{CredentialName, Destination, Rate, Risk, ScopeName, ServiceName};

/// How refusals of this service are spelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Dialect {
    /// The JSON that many SDKs read.
    #[default]
    Json,
    /// `text/plain`, which git shows.
    Git,
    /// XML, which AWS SDKs read.
    Aws,
    /// A code in `error`.
    Slack,
    /// The sentence in `error`, all that npm shows of a body.
    Npm,
    /// `grpc-status` and `grpc-message`.
    Grpc,
    /// A Kubernetes `Status`.
    Kubernetes,
}

/// What happens to a nonce in the body of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum LeakScan {
    /// An alarm; the request goes on.
    #[default]
    Report,
    /// An alarm; the request is refused.
    Refuse,
    /// An alarm; the request is refused, and the nonce ends.
    Revoke,
    /// Nothing: bodies are not looked at.
    Off,
}

/// One API.
#[derive(Debug)]
pub struct Service {
    /// Its name.
    pub name: ServiceName,
    /// Its hosts with ports; wildcards cover one label.
    pub hosts: Vec<HostPattern>,
    /// The credential of scopes that name none; its client certificate where it has no other.
    pub credential: CredentialName,
    /// The credential that is shown upstream as a client certificate, in every connection for a nonce.
    pub client_certificate: Option<CredentialName>,
    /// Where a nonce may be.
    pub slots: Vec<Slot>,
    /// The slot that is filled where the nonce came as the proxy's credentials; without it, those only identify.
    pub attach: Option<Slot>,
    /// The shape that its SDKs insist on.
    pub placeholder: Option<Placeholder>,
    /// For what may be signed at its hosts, with the slot `aws-sigv4`; without it their names say so.
    pub signing: Option<Signing>,
    /// Private addresses are allowed.
    pub private: bool,
    /// `http://` is allowed.
    pub cleartext: bool,
    /// Requests without a nonce go on, without any credential.
    pub anonymous: bool,
    /// Answers are searched for the credential.
    pub scrub: bool,
    /// What happens to a nonce in the body of a request.
    pub leak_scan: LeakScan,
    /// Extra roots for this service alone, PEM file.
    pub upstream_ca: Option<PathBuf>,
    /// Until then its path rules are judged and recorded, and not enforced.
    pub observe_until: Option<Timestamp>,
    /// How refusals are spelled.
    pub dialect: Dialect,
    /// Denies of the whole service.
    pub deny: Vec<Rule>,
    /// Its scopes.
    pub scopes: Vec<Scope>,
}

impl super::Policy {
    /// Names of the services whose answers are not searched for the credential.
    #[must_use]
    pub fn unscrubbed(&self) -> Vec<String> {
        self.services().iter().filter(|service| !service.scrub).map(|service| service.name.to_string()).collect()
    }
}

/// A named set of rules.
#[derive(Debug)]
pub struct Scope {
    /// Its name.
    pub name: ScopeName,
    /// Its risk.
    pub risk: Risk,
    /// A label for the audit.
    pub data: Option<String>,
    /// The credential that its requests carry.
    pub credential: CredentialName,
    /// Uses per nonce.
    pub max_uses: Option<u32>,
    /// How fast one nonce may use it.
    pub rate: Option<Rate>,
    /// It is refused unless who presents was proven within this time.
    pub reattest: Option<Duration>,
    /// What it allows.
    pub allow: Vec<Rule>,
    /// What it forbids to a nonce that holds it, whatever else allows it.
    pub deny: Vec<Rule>,
}

impl Service {
    /// True when it lists this destination.
    #[must_use]
    pub fn lists(&self, destination: &Destination) -> bool {
        self.hosts.iter().any(|pattern| pattern.covers(destination))
    }

    /// True where its requests are signed, and its credential is a key pair.
    #[must_use]
    pub fn signs(&self) -> bool {
        self.slots.contains(&Slot::AwsSigV4)
    }

    /// True while its path rules are only watched.
    #[must_use]
    pub fn is_observed(&self, now: Timestamp) -> bool {
        self.observe_until.is_some_and(|until| now < until)
    }

    /// One of its scopes.
    #[must_use]
    pub fn scope(&self, name: &ScopeName) -> Option<&Scope> {
        self.scopes.iter().find(|scope| scope.name == *name)
    }
}
