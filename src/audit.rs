//! The audit: what happened, in order, chained by hash, handed to the kernel before a credential moves.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::clock::SharedClock;
use crate::model::{
    AgentName, CredentialName, Denial, Destination, Identity, MinterName, NonceId, Risk, Scheme, ScopeName,
    ServiceName, TaskName,
};

/// Where records go and how they are kept.
#[derive(Debug, Clone)]
pub struct Config {
    /// The sink.
    pub sink: Sink,
    /// fsync (group commit) before a record counts as written.
    pub sync: bool,
    /// Records that may wait for the writer; more means refusal.
    pub queue_records_max: usize,
    /// How long a full queue or a stuck sink may hold a decision back before it is refused.
    pub wait_max: Duration,
}

/// The place of the records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sink {
    /// JSON lines appended to a file, mode 0600, no link followed.
    File(PathBuf),
    /// JSON lines on standard output.
    Stdout,
}

/// Why the audit could not be started (bad path, link, permissions).
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The file cannot be opened for appending.
    #[error("cannot open {path}: {source}")]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// A record could not be written in time: whatever waits for it must be refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the audit cannot be written")]
pub struct Unavailable;

/// The audit of one process; clones share it.
#[derive(Clone)]
pub struct Audit {}

/// What is known when an exchange begins. Never a query value, a nonce or a credential.
#[derive(Debug, Clone)]
pub struct ExchangeFacts {
    /// Number of the client connection in this process.
    pub connection_id: u64,
    /// The client's address.
    pub peer: SocketAddr,
    /// Where the request goes, once that is known.
    pub destination: Option<Destination>,
    /// Over TLS or in clear text.
    pub scheme: Scheme,
    /// The method as it came, at most 32 bytes of it.
    pub method: String,
    /// The path without its query, at most 1 KiB of it.
    pub path: String,
    /// `HTTP/1.1`, `HTTP/2`.
    pub version: &'static str,
}

/// What a decision says about a request: filled as far as it was known when the decision fell.
#[derive(Debug, Clone, Default)]
pub struct DecisionFacts {
    /// The lease.
    pub nonce_id: Option<NonceId>,
    /// Whose nonce it is.
    pub agent: Option<AgentName>,
    /// For what.
    pub task: Option<TaskName>,
    /// Who minted it.
    pub minter: Option<MinterName>,
    /// On whose behalf, as the minter said.
    pub on_behalf_of: Option<String>,
    /// Who presented it, as was proven.
    pub presented_by: Option<Identity>,
    /// The service.
    pub service: Option<ServiceName>,
    /// The scope that allowed it.
    pub scope: Option<ScopeName>,
    /// Its risk.
    pub risk: Option<Risk>,
    /// The rule, as the policy spells it.
    pub rule: Option<String>,
    /// The name of the credential.
    pub credential: Option<CredentialName>,
    /// Digest of the policy that decided.
    pub policy_digest: Option<std::sync::Arc<str>>,
}

/// A decision that allows, which [`Exchange::record`] can put on record.
pub trait Decided {
    /// What the record shall say.
    fn facts(&self) -> DecisionFacts;
}

/// Proof that a decision is on record. Made only by [`Exchange::record`].
pub struct Recorded<T>(T);

impl<T> Recorded<T> {
    /// The decision itself.
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T> std::ops::Deref for Recorded<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

/// How an exchange ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The whole answer was delivered.
    Complete,
    /// The client went away first.
    ClientGone,
    /// The upstream broke off.
    UpstreamBroke,
    /// We cut it: the lease was revoked, a limit was reached, or we shut down.
    Cut,
    /// It was refused.
    Refused,
}

/// One request and its answer. Dropping it writes its closing record, whatever happened.
pub struct Exchange {}

impl Exchange {
    /// `ex_…`: unique in this process's life and beyond; stands in refusals and in the audit.
    #[must_use]
    pub fn id(&self) -> &str {
        todo!()
    }

    /// Puts an allowing decision on record and waits until the kernel has it; also reserves the closing record's place.
    ///
    /// # Errors
    /// [`Unavailable`]: nothing may be sent.
    pub async fn record<T: Decided>(&mut self, _decision: T) -> Result<Recorded<T>, Unavailable> {
        todo!()
    }

    /// Puts a refusal on record (best effort: a refusal is given even if the audit is down). `facts` is what was known.
    pub async fn deny(&mut self, _denial: &Denial, _facts: DecisionFacts) {
        todo!()
    }

    /// Notes what was sent upstream: which version of which credential to which address.
    pub fn dialled(&mut self, _address: Option<SocketAddr>) {
        todo!()
    }
    pub fn carries(&mut self, _version: Option<u64>) {
        todo!()
    }

    /// Notes the status that the agent gets.
    pub fn answered(&mut self, _status: u16) {
        todo!()
    }

    /// Counts body bytes from the agent.
    pub fn count_request(&mut self, _bytes: u64) {
        todo!()
    }

    /// Counts body bytes to the agent.
    pub fn count_response(&mut self, _bytes: u64) {
        todo!()
    }

    /// Says how it ended; the last word counts; without it a drop is [`Ending::ClientGone`].
    pub fn end(&mut self, _ending: Ending) {
        todo!()
    }
}

/// Events other than exchanges.
#[derive(Debug, Clone)]
pub enum Event {
    /// A nonce was minted.
    Mint {
        /// All that a decision would say (nonce id, agent, task, minter, on_behalf_of, policy digest).
        facts: Box<DecisionFacts>,
        /// How the minter was proven.
        minted_by: Option<Identity>,
        /// Services and scopes, `stripe:read:customers`.
        grants: Vec<String>,
        /// When it expires.
        expires_at: jiff::Timestamp,
        /// The stated reason.
        reason: Option<String>,
    },
    /// A mint (or another control call) was refused.
    ControlRefused {
        /// Which call, `mint`.
        call: &'static str,
        /// How the caller was proven.
        caller: Option<Identity>,
        /// The error's code.
        code: &'static str,
    },
    /// A lease ended.
    LeaseEnded {
        /// Which.
        nonce_id: NonceId,
        /// Whose.
        agent: AgentName,
        /// For what.
        task: TaskName,
        /// `expired`, `revoked`, `spent`, `misplaced`, `shutdown`.
        cause: &'static str,
        /// Who ended it, where somebody did.
        by: Option<String>,
    },
    /// A connection was closed without an exchange: no TLS, failed handshake, malformed head, refused CONNECT.
    Connection {
        /// Number of the client connection.
        connection_id: u64,
        /// The client.
        peer: SocketAddr,
        /// Where it wanted to go.
        destination: Option<Destination>,
        /// `request_malformed`, `tls_handshake_failed`, `not_tls`, …
        code: &'static str,
    },
}

/// What the readiness probe and the metrics want to know.
#[derive(Debug, Clone)]
pub struct State {
    /// The last write succeeded.
    pub is_healthy: bool,
    /// Records written since the start.
    pub records: u64,
    /// Records that were lost (closing records while the sink failed).
    pub lost: u64,
}

impl Audit {
    /// Opens the sink, starts the writer thread and writes the start record with `facts` (version, policy digest, listeners, connect-to overrides).
    ///
    /// # Errors
    /// [`StartError`] when the sink cannot be opened safely.
    pub fn start(_config: &Config, _clock: SharedClock, _facts: serde_json::Value) -> Result<Self, StartError> {
        todo!()
    }

    /// Opens an exchange.
    #[must_use]
    pub fn open(&self, _facts: ExchangeFacts) -> Exchange {
        todo!()
    }

    /// Writes an event and waits until the kernel has it.
    ///
    /// # Errors
    /// [`Unavailable`]: what the event tells of must not happen.
    pub async fn record(&self, _event: Event) -> Result<(), Unavailable> {
        todo!()
    }

    /// Hands an event to the writer without waiting; never blocks. A record that cannot be taken is counted as lost.
    pub fn note(&self, _event: Event) {
        todo!()
    }

    /// Opens the sink anew (after a rotation); bad news shows in [`Audit::state`].
    pub fn reopen(&self) {
        todo!()
    }

    /// Health and counts.
    #[must_use]
    pub fn state(&self) -> State {
        todo!()
    }

    /// Writes the stop record, flushes, and ends the writer. Waits at most `within`.
    pub async fn stop(&self, _reason: &'static str, _within: Duration) {
        todo!()
    }
}
