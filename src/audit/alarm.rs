//! What somebody should look at: a secret where none belongs, or a nonce that was minted to be found.

use super::fields::{Fields, key};
use crate::model::{AgentName, Destination, NonceId, ServiceName, TaskName};

/// What an alarm is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AlarmKind {
    /// One of our nonces in the body of a request.
    NonceInBody,
    /// One of our nonces in a header, path or query outside its slot, or on a host that is not its service's.
    NonceMisplaced,
    /// A nonce that was minted to be found, anywhere.
    CanaryUsed,
    /// A real credential of ours in a request; the nonce is that of the request, where it is known.
    CredentialExposed,
}

impl AlarmKind {
    /// The word of the audit and the metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NonceInBody => "nonce_in_body",
            Self::NonceMisplaced => "nonce_misplaced",
            Self::CanaryUsed => "canary_used",
            Self::CredentialExposed => "credential_exposed",
        }
    }
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AlarmOutcome {
    /// Nothing: the request went on.
    Reported,
    /// The request was refused.
    Refused,
    /// The request was refused, and the nonce ended.
    Revoked,
    /// Nothing, and nothing need become of it: the nonce was dead.
    Noted,
}

impl AlarmOutcome {
    /// The word of the audit.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reported => "reported",
            Self::Refused => "refused",
            Self::Revoked => "revoked",
            Self::Noted => "noted",
        }
    }
}

/// One alarm, as far as things are known; never the secret that it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alarm {
    /// What about.
    pub kind: AlarmKind,
    /// What became of it.
    pub outcome: AlarmOutcome,
    /// Where it was: `slot`, `header`, `path`, `query`, `host`, `body`, `proxy`, `method`.
    pub place: &'static str,
    /// The exchange in which it was seen.
    pub exchange_id: Option<String>,
    /// Where that was going.
    pub destination: Option<Destination>,
    /// The service whose rules held there.
    pub service: Option<ServiceName>,
    /// The nonce.
    pub nonce_id: Option<NonceId>,
    /// Whose it is: not always the agent that sent it.
    pub agent: Option<AgentName>,
    /// For what it was minted.
    pub task: Option<TaskName>,
}

impl Alarm {
    /// An alarm of which nothing else is known yet.
    #[must_use]
    pub fn new(kind: AlarmKind, outcome: AlarmOutcome, place: &'static str) -> Self {
        Self {
            kind,
            outcome,
            place,
            exchange_id: None,
            destination: None,
            service: None,
            nonce_id: None,
            agent: None,
            task: None,
        }
    }

    pub(super) fn write(&self, fields: &mut Fields<'_>) {
        fields.text(key!("kind"), self.kind.as_str());
        fields.text(key!("outcome"), self.outcome.as_str());
        fields.text(key!("place"), self.place);
        fields.text_some(key!("exchange.id"), self.exchange_id.as_deref());
        fields.show_some(key!("destination"), self.destination.as_ref());
        fields.show_some(key!("nonce.id"), self.nonce_id.as_ref());
        fields.text_some(key!("agent"), self.agent.as_ref().map(|name| name.as_str()));
        fields.text_some(key!("task"), self.task.as_ref().map(|name| name.as_str()));
        fields.text_some(key!("service"), self.service.as_ref().map(|name| name.as_str()));
    }
}
