//! What the parts tell the audit: facts of exchanges and decisions, and the other events.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use super::alarm::Alarm;
use super::text::{METHOD_BYTES_MAX, TEXT_BYTES_MAX, bounded, is_bounded, path};
use crate::model::{
    AgentName, CredentialName, Destination, Identity, Lineage, MinterName, NonceId, Rate, Risk, Scheme, ScopeName,
    ServiceName, TaskName,
};

/// Most grants of one mint that a record lists.
const GRANTS_MAX: usize = 64;
/// Most inputs of one decision that a record holds.
const INPUTS_MAX: usize = 16;
/// Most labels of one mint that a record holds.
const LABELS_MAX: usize = 16;

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

impl ExchangeFacts {
    /// Bounded and masked, whatever the caller did.
    pub(super) fn bounded(mut self) -> Self {
        self.method = bounded(self.method, METHOD_BYTES_MAX);
        self.path = path(self.path);
        self
    }
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
    /// Where it comes from, if it was delegated.
    pub lineage: Option<Arc<Lineage>>,
    /// Who minted it.
    pub minter: Option<MinterName>,
    /// On whose behalf, as the minter said.
    pub on_behalf_of: Option<String>,
    /// Who presented it, as was proven.
    pub presented_by: Option<Identity>,
    /// `proxy` where the nonce came as the proxy's credentials; nothing where it filled a slot.
    pub presented_in: Option<&'static str>,
    /// The service.
    pub service: Option<ServiceName>,
    /// The scope that allowed it.
    pub scope: Option<ScopeName>,
    /// Its risk.
    pub risk: Option<Risk>,
    /// What kind of data the policy says it gives.
    pub data: Option<String>,
    /// The rule, as the policy spells it.
    pub rule: Option<String>,
    /// What would have been refused with this code, were the service's path rules enforced.
    pub observed: Option<&'static str>,
    /// Inputs that the rule wants on record, with their values.
    pub inputs: Vec<(String, String)>,
    /// The name of the credential.
    pub credential: Option<CredentialName>,
    /// The name of the client certificate, where one is shown upstream.
    pub client_certificate: Option<CredentialName>,
    /// Digest of the policy that decided.
    pub policy_digest: Option<Arc<str>>,
    /// What is to be raised beside a refusal, in a record of its own.
    pub alarm: Option<Box<Alarm>>,
}

impl DecisionFacts {
    /// Bounded and masked, whatever the caller did.
    pub(super) fn bounded(mut self) -> Self {
        self.on_behalf_of = self.on_behalf_of.map(|text| bounded(text, TEXT_BYTES_MAX));
        self.data = self.data.map(|text| bounded(text, TEXT_BYTES_MAX));
        self.rule = self.rule.map(|text| bounded(text, TEXT_BYTES_MAX));
        self.inputs.truncate(INPUTS_MAX);
        for (name, value) in &mut self.inputs {
            *name = bounded(std::mem::take(name), TEXT_BYTES_MAX);
            *value = bounded(std::mem::take(value), TEXT_BYTES_MAX);
        }
        self
    }

    /// The same of facts that are shared: copied only where something has to be changed, which is seldom.
    pub(super) fn shared_and_bounded(self: Arc<Self>) -> Arc<Self> {
        if self.is_bounded() { self } else { Arc::new(Self::clone(&self).bounded()) }
    }

    /// Whether [`DecisionFacts::bounded`] would change nothing.
    fn is_bounded(&self) -> bool {
        let mut texts = self.on_behalf_of.iter().chain(&self.data).chain(&self.rule);
        let mut inputs = self.inputs.iter().flat_map(|(name, value)| [name, value]);
        self.inputs.len() <= INPUTS_MAX
            && texts.all(|text| is_bounded(text, TEXT_BYTES_MAX))
            && inputs.all(|text| is_bounded(text, TEXT_BYTES_MAX))
    }
}

/// Who did it, where an agent did it to its own nonce. No minter's name has a space.
pub const ITSELF: &str = "the agent itself";

/// A decision that allows, which [`Exchange::record`](super::Exchange::record) can put on record.
pub trait Decided {
    /// What the record shall say.
    fn facts(&self) -> Arc<DecisionFacts>;
}

impl<T: Decided> Decided for Box<T> {
    fn facts(&self) -> Arc<DecisionFacts> {
        T::facts(self)
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
        /// Uses of the whole nonce, where there is a limit.
        max_uses: Option<u32>,
        /// How fast the whole nonce may be used.
        rate: Option<Rate>,
        /// Which run of the agent, as the minter said.
        instance: Option<String>,
        /// The stated reason.
        reason: Option<String>,
        /// Labels, as the minter said; 16 at most.
        labels: BTreeMap<String, String>,
        /// All that it may do, whatever the grants allow; empty where it has no such list.
        lines: Vec<String>,
    },
    /// A lease is given a later expiry.
    Renewed {
        /// Which.
        nonce_id: NonceId,
        /// Whose.
        agent: AgentName,
        /// For what.
        task: TaskName,
        /// As whom it was asked; `None` for the nonce's own agent.
        minter: Option<MinterName>,
        /// How that one was proven.
        renewed_by: Option<Identity>,
        /// When it expires then.
        expires_at: jiff::Timestamp,
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
        /// Where it comes from, if it was delegated.
        lineage: Option<Arc<Lineage>>,
        /// `expired`, `revoked`, `spent`, `misplaced`, `shutdown`.
        cause: &'static str,
        /// Who ended it, where somebody did.
        by: Option<String>,
    },
    /// A webhook was not told of an event.
    WebhookLost {
        /// The webhook's name in the policy.
        webhook: String,
        /// The message's id.
        message: String,
        /// The event's type, `nonce.revoked`.
        event: &'static str,
        /// How often it was tried; 0 where there was no room for it.
        attempts: u32,
    },
    /// What webhooks are told of is read from the audit, and could not be read as fast as it was written.
    WebhookGap {
        /// Records that nobody looked at.
        records: u64,
    },
    /// The policy file was read again.
    PolicyRead {
        /// Digest of the policy that is in force from here on.
        digest: Arc<str>,
        /// `adopted`, or `refused` for a file with mistakes.
        outcome: &'static str,
        /// Services of the policy in force whose answers are not searched.
        unscrubbed: Vec<String>,
    },
    /// Many leases were ended by one call; each has an end of its own.
    Revocation {
        /// Which call: `revocations`, `complete`.
        call: &'static str,
        /// Of this agent.
        agent: Option<AgentName>,
        /// For this task.
        task: Option<TaskName>,
        /// Of this service.
        service: Option<ServiceName>,
        /// The stated reason.
        reason: Option<String>,
        /// How the caller was proven.
        caller: Identity,
        /// How many were alive.
        revoked: u64,
    },
    /// A text was handed in as leaked.
    LeakReport {
        /// How the caller was proven.
        caller: Identity,
        /// Where it was found, as the caller said.
        source: Option<String>,
        /// Different texts in it with the shape of a nonce.
        found: u64,
        /// How many of them were alive.
        live: u64,
    },
    /// A nonce of ours was in it.
    Leaked {
        /// Which.
        nonce_id: NonceId,
        /// Whose.
        agent: AgentName,
        /// For what; not known of one that is over.
        task: Option<TaskName>,
        /// `high` where it was alive, and is revoked; `low` where it was over already.
        alarm: &'static str,
        /// How the caller was proven.
        caller: Identity,
        /// Where it was found, as the caller said.
        source: Option<String>,
    },
    /// A monitor puts an agent or a task at a level of risk.
    Risk {
        /// Which agent.
        agent: Option<AgentName>,
        /// Or which task.
        task: Option<TaskName>,
        /// The level; `normal` takes it back.
        level: String,
        /// The most that it allows; nothing where it is taken back.
        max_risk: Option<&'static str>,
        /// When it ends.
        until: Option<jiff::Timestamp>,
        /// The stated reason.
        reason: Option<String>,
        /// How the caller was proven.
        caller: Identity,
    },
    /// A secret was seen where none belongs.
    Alarm(Box<Alarm>),
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

impl Event {
    /// Bounded and masked, whatever the caller did.
    pub(super) fn bounded(self) -> Self {
        match self {
            Self::Mint { facts, minted_by, grants, expires_at, max_uses, rate, instance, reason, labels, lines } => {
                Self::Mint {
                    facts: Box::new(facts.bounded()),
                    minted_by,
                    grants: bounded_list(grants),
                    expires_at,
                    max_uses,
                    rate,
                    instance: instance.map(|text| bounded(text, TEXT_BYTES_MAX)),
                    reason: reason.map(|text| bounded(text, TEXT_BYTES_MAX)),
                    labels: bounded_labels(labels),
                    lines: bounded_list(lines),
                }
            }
            Self::LeaseEnded { nonce_id, agent, task, lineage, cause, by } => {
                let by = by.map(|text| bounded(text, TEXT_BYTES_MAX));
                Self::LeaseEnded { nonce_id, agent, task, lineage, cause, by }
            }
            Self::Renewed { .. }
            | Self::ControlRefused { .. }
            | Self::PolicyRead { .. }
            | Self::WebhookLost { .. }
            | Self::WebhookGap { .. }
            | Self::Alarm(_)
            | Self::Connection { .. } => self,
            Self::Revocation { call, agent, task, service, reason, caller, revoked } => {
                let reason = reason.map(|text| bounded(text, TEXT_BYTES_MAX));
                Self::Revocation { call, agent, task, service, reason, caller, revoked }
            }
            Self::LeakReport { caller, source, found, live } => {
                let source = source.map(|text| bounded(text, TEXT_BYTES_MAX));
                Self::LeakReport { caller, source, found, live }
            }
            Self::Leaked { nonce_id, agent, task, alarm, caller, source } => {
                let source = source.map(|text| bounded(text, TEXT_BYTES_MAX));
                Self::Leaked { nonce_id, agent, task, alarm, caller, source }
            }
            Self::Risk { agent, task, level, max_risk, until, reason, caller } => {
                let reason = reason.map(|text| bounded(text, TEXT_BYTES_MAX));
                Self::Risk { agent, task, level, max_risk, until, reason, caller }
            }
        }
    }
}

fn bounded_labels(labels: BTreeMap<String, String>) -> BTreeMap<String, String> {
    let label = |(name, value)| (bounded(name, TEXT_BYTES_MAX), bounded(value, TEXT_BYTES_MAX));
    labels.into_iter().take(LABELS_MAX).map(label).collect()
}

fn bounded_list(mut list: Vec<String>) -> Vec<String> {
    let omitted = list.len().saturating_sub(GRANTS_MAX);
    list.truncate(GRANTS_MAX);
    let mut list: Vec<_> = list.into_iter().map(|text| bounded(text, TEXT_BYTES_MAX)).collect();
    if omitted > 0 {
        list.push(format!("…+{omitted}"));
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_copied_only_where_something_is_changed() {
        let nonce = format!("an_{}", "0".repeat(33));
        let encoded = format!("%61n_{}", "0".repeat(33));
        let texts =
            ["", "GET /v1/{id}", &"x".repeat(TEXT_BYTES_MAX), &"x".repeat(TEXT_BYTES_MAX + 1), &nonce, &encoded];
        let input = |text: &str| (text.to_owned(), text.to_owned());
        let of = |text: &str| {
            let some = || Some(text.to_owned());
            [
                DecisionFacts { rule: some(), ..DecisionFacts::default() },
                DecisionFacts { on_behalf_of: some(), ..DecisionFacts::default() },
                DecisionFacts { inputs: vec![input("a"), input(text)], ..DecisionFacts::default() },
                DecisionFacts { rule: some(), inputs: vec![input("a"); INPUTS_MAX + 1], ..DecisionFacts::default() },
            ]
        };
        for facts in texts.into_iter().flat_map(of).map(Arc::new) {
            let bounded = DecisionFacts::clone(&facts).bounded();
            let shared = facts.clone().shared_and_bounded();
            assert_eq!(format!("{shared:?}"), format!("{bounded:?}"));
            let is_same = format!("{facts:?}") == format!("{bounded:?}");
            assert_eq!(Arc::ptr_eq(&facts, &shared), is_same, "{facts:?}");
        }
    }
}
