//! One record: what waits in the queue, and its text, which only the writer's thread makes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::exchange::Ending;
use super::facts::{DecisionFacts, Event, ExchangeFacts, ITSELF};
use super::fields::{Fields, key};
use super::flood::Summary;
use super::proof::{CALLER, MINTED_BY, PRESENTED_BY, RENEWED_BY, write_identity};
use crate::model::{AgentName, Lineage, MinterName, Now, TaskName};

/// Most bytes of the start record's facts; more are left out.
const START_FACTS_BYTES_MAX: usize = 256 * 1024;

/// Why a record that somebody waits for is not safely written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// It is not in the sink and never will be.
    Unwritten,
    /// It may be in the sink, now or later.
    Unsure,
}

/// Tells a waiter what became of its record.
pub(super) type Acknowledge = oneshot::Sender<Result<(), Failure>>;

/// A record on its way to the writer.
pub(super) struct Entry {
    /// When it happened.
    pub(super) time: Timestamp,
    /// What happened.
    pub(super) body: Body,
    /// Who waits for it; a record that nobody waits for is kept while the sink is down.
    pub(super) acknowledge: Option<Acknowledge>,
    /// Its place in the queue, given back when the entry is gone.
    pub(super) _place: Option<OwnedSemaphorePermit>,
}

/// What happened.
pub(super) enum Body {
    /// The process started.
    Start { facts: serde_json::Value },
    /// The process stops.
    Stop { reason: &'static str },
    /// First record of a new file.
    Rotated,
    /// A signature over all that went before.
    Checkpoint,
    /// From then until this record the sink could not be written.
    Outage,
    /// Records were lost before this one.
    Lost { records: u64 },
    /// Refusals that have no records of their own.
    Refused(Box<Summary>),
    /// Allowed or denied.
    Decision { request: Arc<Request>, decision: Decision },
    /// An exchange is over.
    End(Box<End>),
    /// Anything else.
    Event(Box<Event>),
}

/// An exchange as it was opened.
pub(super) struct Request {
    pub(super) id: String,
    pub(super) opened: Now,
    pub(super) facts: ExchangeFacts,
}

/// A decision as it is recorded.
#[derive(Clone)]
pub(super) struct Decision {
    pub(super) verdict: Verdict,
    pub(super) facts: Arc<DecisionFacts>,
}

/// What was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Allow,
    Deny { code: &'static str, status: u16 },
}

/// How an exchange went.
pub(super) struct End {
    pub(super) request: Arc<Request>,
    pub(super) decision: Option<Decision>,
    /// The decision has a record of its own; if not, this one tells everything.
    pub(super) is_decision_recorded: bool,
    pub(super) outcome: Outcome,
    pub(super) ending: Ending,
    pub(super) duration: Duration,
}

/// What is gathered while an exchange is under way.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Outcome {
    pub(super) address: Option<SocketAddr>,
    pub(super) credential_version: Option<u64>,
    pub(super) code: Option<&'static str>,
    pub(super) status: Option<u16>,
    pub(super) request_bytes: u64,
    pub(super) response_bytes: u64,
}

impl Body {
    /// The `type` member.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Start { .. } => "start",
            Self::Stop { .. } => "stop",
            Self::Rotated => "rotated",
            Self::Checkpoint => "checkpoint",
            Self::Outage => "outage",
            Self::Lost { .. } => "lost",
            Self::Refused(_) => "refused_summary",
            Self::Decision { .. } => "decision",
            Self::End(_) => "end",
            Self::Event(event) => match **event {
                Event::Mint { .. } => "mint",
                Event::Renewed { .. } => "renew",
                Event::ControlRefused { .. } => "control_refused",
                Event::LeaseEnded { .. } => "lease_end",
                Event::PolicyRead { .. } => "policy",
                Event::WebhookLost { .. } => "webhook_lost",
                Event::WebhookGap { .. } => "webhook_gap",
                Event::Revocation { .. } => "revocation",
                Event::LeakReport { .. } => "leak_report",
                Event::Leaked { .. } => "leak",
                Event::Risk { .. } => "risk",
                Event::Alarm(_) => "alarm",
                Event::Connection { .. } => "connection",
            },
        }
    }

    /// The agent and the task that it belongs to, where it does.
    pub(super) fn whose(&self) -> (Option<&AgentName>, Option<&TaskName>) {
        match self {
            Self::Decision { decision, .. } => (decision.facts.agent.as_ref(), decision.facts.task.as_ref()),
            Self::End(end) => end
                .decision
                .as_ref()
                .map_or((None, None), |decision| (decision.facts.agent.as_ref(), decision.facts.task.as_ref())),
            Self::Event(event) => match &**event {
                Event::Mint { facts, .. } => (facts.agent.as_ref(), facts.task.as_ref()),
                Event::Renewed { agent, task, .. } | Event::LeaseEnded { agent, task, .. } => (Some(agent), Some(task)),
                Event::Alarm(alarm) => (alarm.agent.as_ref(), alarm.task.as_ref()),
                Event::Revocation { agent, task, .. } | Event::Risk { agent, task, .. } => {
                    (agent.as_ref(), task.as_ref())
                }
                Event::Leaked { agent, task, .. } => (Some(agent), task.as_ref()),
                Event::ControlRefused { .. }
                | Event::LeakReport { .. }
                | Event::PolicyRead { .. }
                | Event::WebhookLost { .. }
                | Event::WebhookGap { .. }
                | Event::Connection { .. } => (None, None),
            },
            Self::Refused(summary) => (summary.agent(), None),
            Self::Start { .. } | Self::Stop { .. } | Self::Rotated | Self::Checkpoint => (None, None),
            Self::Outage | Self::Lost { .. } => (None, None),
        }
    }

    /// Writes the members that belong to this kind.
    pub(super) fn write(&self, fields: &mut Fields<'_>) {
        match self {
            Self::Start { facts } => fields.json_bounded(key!("facts"), facts, START_FACTS_BYTES_MAX),
            Self::Stop { reason } => fields.text(key!("reason"), reason),
            Self::Rotated | Self::Checkpoint | Self::Outage => {}
            Self::Lost { records } => fields.number(key!("records"), *records),
            Self::Refused(summary) => summary.write(fields),
            Self::Decision { request, decision } => {
                fields.text(key!("exchange.id"), &request.id);
                request.facts.write(fields);
                decision.write(fields);
            }
            Self::End(end) => end.write(fields),
            Self::Event(event) => event.write(fields),
        }
    }
}

impl ExchangeFacts {
    fn write(&self, fields: &mut Fields<'_>) {
        fields.number(key!("connection.id"), self.connection_id);
        fields.address(key!("peer"), self.peer);
        fields.destination_some(key!("destination"), self.destination.as_ref());
        fields.text(key!("scheme"), self.scheme.as_str());
        fields.text(key!("method"), &self.method);
        fields.text(key!("path"), &self.path);
        fields.text(key!("http.version"), self.version);
    }
}

impl Decision {
    fn write(&self, fields: &mut Fields<'_>) {
        self.write_facts(fields);
        self.verdict.write(fields);
    }

    fn write_facts(&self, fields: &mut Fields<'_>) {
        self.facts.write(fields);
        if self.facts.nonce_id.is_some() {
            write_identity(fields, PRESENTED_BY, self.facts.presented_by.as_ref());
            fields.text_some(key!("presented_in"), self.facts.presented_in);
        }
    }
}

impl Verdict {
    fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny { .. } => "deny",
        }
    }

    fn write(self, fields: &mut Fields<'_>) {
        fields.text(key!("decision"), self.as_str());
        match self {
            Self::Allow => {}
            Self::Deny { code, status } => {
                fields.text(key!("code"), code);
                fields.number(key!("status"), status.into());
            }
        }
    }
}

impl DecisionFacts {
    fn write(&self, fields: &mut Fields<'_>) {
        self.write_whose(fields);
        fields.text_some(key!("minted_by"), self.minter.as_ref().map(|name| name.as_str()));
        fields.text_some(key!("on_behalf_of"), self.on_behalf_of.as_deref());
        fields.text_some(key!("scope"), self.scope.as_ref().map(|name| name.as_str()));
        fields.text_some(key!("risk"), self.risk.map(|risk| risk.as_str()));
        fields.text_some(key!("data"), self.data.as_deref());
        fields.text_some(key!("rule"), self.rule.as_deref());
        fields.text_some(key!("observed"), self.observed);
        let inputs: BTreeMap<&str, &str> = self.inputs.iter().map(|(name, value)| (&**name, &**value)).collect();
        fields.json_some(key!("inputs"), (!inputs.is_empty()).then_some(&inputs));
        fields.text_some(key!("credential"), self.credential.as_ref().map(|name| name.as_str()));
        fields.text_some(key!("client_certificate"), self.client_certificate.as_ref().map(|name| name.as_str()));
        fields.text_some(key!("policy.digest"), self.policy_digest.as_deref());
    }

    fn write_whose(&self, fields: &mut Fields<'_>) {
        fields.show_some(key!("nonce.id"), self.nonce_id.as_ref());
        fields.text_some(key!("agent"), self.agent.as_ref().map(|name| name.as_str()));
        fields.text_some(key!("task"), self.task.as_ref().map(|name| name.as_str()));
        write_lineage(fields, self.lineage.as_deref());
        fields.text_some(key!("service"), self.service.as_ref().map(|name| name.as_str()));
    }
}

/// Where a nonce comes from, if it was delegated: as deep as the policy lets it be.
fn write_lineage(fields: &mut Fields<'_>, lineage: Option<&Lineage>) {
    if let Some(lineage) = lineage {
        fields.show(key!("parent.id"), &lineage.parent);
        fields.json(key!("chain"), &lineage.chain.iter().map(AgentName::as_str).collect::<Vec<_>>());
    }
}

impl End {
    fn write(&self, fields: &mut Fields<'_>) {
        fields.text(key!("exchange.id"), &self.request.id);
        match &self.decision {
            Some(decision) if self.is_decision_recorded => {
                fields.number(key!("connection.id"), self.request.facts.connection_id);
                decision.facts.write_whose(fields);
            }
            Some(decision) => {
                self.request.facts.write(fields);
                decision.write_facts(fields);
            }
            None => self.request.facts.write(fields),
        }
        // An allowance that did not get on record let nothing pass.
        let decision = self.decision.as_ref().map(|decision| decision.verdict);
        let decision = decision.filter(|verdict| self.is_decision_recorded || *verdict != Verdict::Allow);
        fields.text_some(key!("decision"), decision.map(Verdict::as_str));
        self.outcome.write(fields);
        fields.number(key!("duration_us"), u64::try_from(self.duration.as_micros()).unwrap_or(u64::MAX));
        fields.text(key!("ending"), self.ending.as_str());
    }
}

impl Outcome {
    fn write(&self, fields: &mut Fields<'_>) {
        fields.text_some(key!("code"), self.code);
        fields.number_some(key!("status"), self.status.map(u64::from));
        if let Some(address) = self.address {
            fields.address(key!("address"), address);
        }
        fields.number_some(key!("credential.version"), self.credential_version);
        fields.number(key!("request_bytes"), self.request_bytes);
        fields.number(key!("response_bytes"), self.response_bytes);
    }
}

impl Event {
    fn write(&self, fields: &mut Fields<'_>) {
        match self {
            Self::Mint { facts, minted_by, grants, expires_at, max_uses, rate, instance, reason, labels, lines } => {
                facts.write(fields);
                if facts.minter.is_none() {
                    fields.text(key!("minted_by"), ITSELF);
                }
                write_identity(fields, MINTED_BY, minted_by.as_ref());
                fields.json(key!("grants"), grants);
                fields.show(key!("expires_at"), expires_at);
                fields.number_some(key!("max_uses"), max_uses.map(u64::from));
                fields.text_some(key!("rate"), rate.map(|rate| rate.to_string()).as_deref());
                fields.text_some(key!("instance"), instance.as_deref());
                fields.text_some(key!("reason"), reason.as_deref());
                if !labels.is_empty() {
                    fields.json(key!("labels"), labels);
                }
                if !lines.is_empty() {
                    fields.json(key!("rules"), lines);
                }
            }
            Self::Renewed { nonce_id, agent, task, minter, renewed_by, expires_at } => {
                fields.show(key!("nonce.id"), nonce_id);
                fields.text(key!("agent"), agent.as_str());
                fields.text(key!("task"), task.as_str());
                fields.text(key!("renewed_by"), minter.as_ref().map_or(ITSELF, MinterName::as_str));
                write_identity(fields, RENEWED_BY, renewed_by.as_ref());
                fields.show(key!("expires_at"), expires_at);
            }
            Self::ControlRefused { call, caller, code } => {
                fields.text(key!("call"), call);
                write_identity(fields, CALLER, caller.as_ref());
                fields.text(key!("code"), code);
            }
            Self::LeaseEnded { nonce_id, agent, task, lineage, cause, by } => {
                fields.show(key!("nonce.id"), nonce_id);
                fields.text(key!("agent"), agent.as_str());
                fields.text(key!("task"), task.as_str());
                write_lineage(fields, lineage.as_deref());
                fields.text(key!("cause"), cause);
                fields.text_some(key!("by"), by.as_deref());
            }
            Self::WebhookGap { records } => fields.number(key!("records"), *records),
            Self::WebhookLost { webhook, message, event, attempts } => {
                fields.text(key!("webhook"), webhook);
                fields.text(key!("message"), message);
                fields.text(key!("event"), event);
                fields.number(key!("attempts"), u64::from(*attempts));
            }
            Self::PolicyRead { digest, outcome, unscrubbed } => {
                fields.text(key!("policy.digest"), digest);
                fields.text(key!("outcome"), outcome);
                fields.json_some(key!("unscrubbed"), (!unscrubbed.is_empty()).then_some(unscrubbed));
            }
            Self::Revocation { .. } | Self::LeakReport { .. } | Self::Leaked { .. } | Self::Risk { .. } => {
                self.write_many(fields);
            }
            Self::Alarm(alarm) => alarm.write(fields),
            Self::Connection { connection_id, peer, destination, code } => {
                fields.number(key!("connection.id"), *connection_id);
                fields.address(key!("peer"), *peer);
                fields.show_some(key!("destination"), destination.as_ref());
                fields.text(key!("code"), code);
            }
        }
    }

    /// What is said of many nonces at once, or of their owners.
    fn write_many(&self, fields: &mut Fields<'_>) {
        match self {
            Self::Revocation { call, agent, task, service, reason, caller, revoked } => {
                fields.text(key!("call"), call);
                write_subject(fields, agent.as_ref(), task.as_ref());
                fields.text_some(key!("service"), service.as_ref().map(|name| name.as_str()));
                fields.text_some(key!("reason"), reason.as_deref());
                write_identity(fields, CALLER, Some(caller));
                fields.number(key!("revoked"), *revoked);
            }
            Self::LeakReport { caller, source, found, live } => {
                write_identity(fields, CALLER, Some(caller));
                fields.text_some(key!("source"), source.as_deref());
                fields.number(key!("found"), *found);
                fields.number(key!("live"), *live);
            }
            Self::Leaked { nonce_id, agent, task, alarm, caller, source } => {
                fields.show(key!("nonce.id"), nonce_id);
                write_subject(fields, Some(agent), task.as_ref());
                fields.text(key!("alarm"), alarm);
                write_identity(fields, CALLER, Some(caller));
                fields.text_some(key!("source"), source.as_deref());
            }
            Self::Risk { agent, task, level, max_risk, until, reason, caller } => {
                write_subject(fields, agent.as_ref(), task.as_ref());
                fields.text(key!("level"), level);
                fields.text_some(key!("max_risk"), *max_risk);
                fields.show_some(key!("until"), until.as_ref());
                fields.text_some(key!("reason"), reason.as_deref());
                write_identity(fields, CALLER, Some(caller));
            }
            Self::Mint { .. }
            | Self::Renewed { .. }
            | Self::ControlRefused { .. }
            | Self::LeaseEnded { .. }
            | Self::WebhookLost { .. }
            | Self::WebhookGap { .. }
            | Self::PolicyRead { .. }
            | Self::Alarm(_)
            | Self::Connection { .. } => {}
        }
    }
}

/// Of whom something is said: an agent, a task, or both.
fn write_subject(fields: &mut Fields<'_>, agent: Option<&AgentName>, task: Option<&TaskName>) {
    fields.text_some(key!("agent"), agent.map(|name| name.as_str()));
    fields.text_some(key!("task"), task.map(|name| name.as_str()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_of_the_start_are_bounded() {
        let body = Body::Start { facts: "x".repeat(START_FACTS_BYTES_MAX).into() };
        let mut out = Vec::new();
        body.write(&mut Fields::after_first(&mut out));
        assert_eq!(out, br#","facts":"\u2026""#);
    }
}
