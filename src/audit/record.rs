//! One record: what waits in the queue, and its text, which only the writer's thread makes.

use std::fmt::Display;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::exchange::Ending;
use super::facts::{DecisionFacts, Event, ExchangeFacts};
use crate::model::{AgentName, Identity, Now, TaskName};

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
    /// From then until this record the sink could not be written.
    Outage,
    /// Records were lost before this one.
    Lost { records: u64 },
    /// Allowed or denied.
    Decision { request: Arc<Request>, decision: Arc<Decision> },
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
pub(super) struct Decision {
    pub(super) verdict: Verdict,
    pub(super) facts: DecisionFacts,
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
    pub(super) decision: Option<Arc<Decision>>,
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
            Self::Outage => "outage",
            Self::Lost { .. } => "lost",
            Self::Decision { .. } => "decision",
            Self::End(_) => "end",
            Self::Event(event) => match **event {
                Event::Mint { .. } => "mint",
                Event::Renewed { .. } => "renew",
                Event::ControlRefused { .. } => "control_refused",
                Event::LeaseEnded { .. } => "lease_end",
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
                Event::ControlRefused { .. } | Event::Connection { .. } => (None, None),
            },
            Self::Start { .. } | Self::Stop { .. } | Self::Rotated | Self::Outage | Self::Lost { .. } => (None, None),
        }
    }

    /// Writes the members that belong to this kind.
    pub(super) fn write(&self, fields: &mut Fields<'_>) {
        match self {
            Self::Start { facts } => fields.put_bounded("facts", facts, START_FACTS_BYTES_MAX),
            Self::Stop { reason } => fields.put("reason", reason),
            Self::Rotated | Self::Outage => {}
            Self::Lost { records } => fields.put("records", records),
            Self::Decision { request, decision } => {
                fields.put("exchange.id", &request.id);
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
        fields.put("connection.id", &self.connection_id);
        fields.show("peer", &self.peer);
        fields.show_some("destination", self.destination.as_ref());
        fields.put("scheme", self.scheme.as_str());
        fields.put("method", &self.method);
        fields.put("path", &self.path);
        fields.put("http.version", self.version);
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
            write_identity(fields, "presented_by", self.facts.presented_by.as_ref());
            fields.put_some("presented_in", self.facts.presented_in);
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
        fields.put("decision", self.as_str());
        match self {
            Self::Allow => {}
            Self::Deny { code, status } => {
                fields.put("code", code);
                fields.put("status", &status);
            }
        }
    }
}

impl DecisionFacts {
    fn write(&self, fields: &mut Fields<'_>) {
        self.write_whose(fields);
        fields.put_some("minted_by", self.minter.as_ref().map(|name| name.as_str()));
        fields.put_some("on_behalf_of", self.on_behalf_of.as_ref());
        fields.put_some("scope", self.scope.as_ref().map(|name| name.as_str()));
        fields.put_some("risk", self.risk.map(|risk| risk.as_str()));
        fields.put_some("rule", self.rule.as_ref());
        fields.put_some("credential", self.credential.as_ref().map(|name| name.as_str()));
        fields.put_some("policy.digest", self.policy_digest.as_deref());
    }

    fn write_whose(&self, fields: &mut Fields<'_>) {
        fields.show_some("nonce.id", self.nonce_id.as_ref());
        fields.put_some("agent", self.agent.as_ref().map(|name| name.as_str()));
        fields.put_some("task", self.task.as_ref().map(|name| name.as_str()));
        fields.put_some("service", self.service.as_ref().map(|name| name.as_str()));
    }
}

impl End {
    fn write(&self, fields: &mut Fields<'_>) {
        fields.put("exchange.id", &self.request.id);
        match &self.decision {
            Some(decision) if self.is_decision_recorded => {
                fields.put("connection.id", &self.request.facts.connection_id);
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
        fields.put_some("decision", decision.map(Verdict::as_str));
        self.outcome.write(fields);
        fields.put("duration_us", &u64::try_from(self.duration.as_micros()).unwrap_or(u64::MAX));
        fields.put("ending", self.ending.as_str());
    }
}

impl Outcome {
    fn write(&self, fields: &mut Fields<'_>) {
        fields.put_some("code", self.code);
        fields.put_some("status", self.status);
        fields.show_some("address", self.address.as_ref());
        fields.put_some("credential.version", self.credential_version);
        fields.put("request_bytes", &self.request_bytes);
        fields.put("response_bytes", &self.response_bytes);
    }
}

impl Event {
    fn write(&self, fields: &mut Fields<'_>) {
        match self {
            Self::Mint { facts, minted_by, grants, expires_at, max_uses, instance, reason, labels } => {
                facts.write(fields);
                write_identity(fields, "minted_by", minted_by.as_ref());
                fields.put("grants", grants);
                fields.show("expires_at", expires_at);
                fields.put_some("max_uses", *max_uses);
                fields.put_some("instance", instance.as_ref());
                fields.put_some("reason", reason.as_ref());
                fields.put_some("labels", (!labels.is_empty()).then_some(labels));
            }
            Self::Renewed { nonce_id, agent, task, minter, renewed_by, expires_at } => {
                fields.show("nonce.id", nonce_id);
                fields.put("agent", agent.as_str());
                fields.put("task", task.as_str());
                fields.put("renewed_by", minter.as_str());
                write_identity(fields, "renewed_by", Some(renewed_by));
                fields.show("expires_at", expires_at);
            }
            Self::ControlRefused { call, caller, code } => {
                fields.put("call", call);
                write_identity(fields, "caller", caller.as_ref());
                fields.put("code", code);
            }
            Self::LeaseEnded { nonce_id, agent, task, cause, by } => {
                fields.show("nonce.id", nonce_id);
                fields.put("agent", agent.as_str());
                fields.put("task", task.as_str());
                fields.put("cause", cause);
                fields.put_some("by", by.as_ref());
            }
            Self::Connection { connection_id, peer, destination, code } => {
                fields.put("connection.id", connection_id);
                fields.show("peer", peer);
                fields.show_some("destination", destination.as_ref());
                fields.put("code", code);
            }
        }
    }
}

/// Who it was, and how that was proven.
fn write_identity(fields: &mut Fields<'_>, whose: &str, identity: Option<&Identity>) {
    fields.show_some(&format!("{whose}.identity"), identity);
    let proof = match identity {
        // The kernel says who owns the other end of the socket.
        Some(Identity::Uid(_)) => "kernel",
        // It came over the one socket that was handed to us at the start.
        Some(Identity::Supervisor) => "channel",
        None => "none",
    };
    fields.put(&format!("{whose}.proof"), proof);
}

/// The members of a record under construction; everything comes out as printable ASCII.
pub(super) struct Fields<'a>(&'a mut Vec<u8>);

impl<'a> Fields<'a> {
    /// Goes on after a first member.
    pub(super) fn after_first(out: &'a mut Vec<u8>) -> Self {
        Self(out)
    }

    /// Adds a member. A value that has no JSON form becomes `null`.
    pub(super) fn put<T: Serialize + ?Sized>(&mut self, key: &str, value: &T) {
        self.0.push(b',');
        self.json(key);
        self.0.push(b':');
        self.json(value);
    }

    fn put_some<T: Serialize>(&mut self, key: &str, value: Option<T>) {
        if let Some(value) = value {
            self.put(key, &value);
        }
    }

    /// Adds a member by its [`Display`] text.
    pub(super) fn show<T: Display + ?Sized>(&mut self, key: &str, value: &T) {
        self.put(key, &Shown(value));
    }

    fn show_some<T: Display + ?Sized>(&mut self, key: &str, value: Option<&T>) {
        if let Some(value) = value {
            self.show(key, value);
        }
    }

    fn put_bounded<T: Serialize + ?Sized>(&mut self, key: &str, value: &T, bytes_max: usize) {
        let before = self.0.len();
        self.put(key, value);
        if self.0.len() - before > bytes_max {
            self.0.truncate(before);
            self.put(key, "…");
        }
    }

    fn json<T: Serialize + ?Sized>(&mut self, value: &T) {
        let before = self.0.len();
        if value.serialize(&mut serde_json::Serializer::with_formatter(&mut *self.0, Ascii)).is_err() {
            self.0.truncate(before);
            self.0.extend_from_slice(b"null");
        }
    }
}

struct Shown<'a, T: ?Sized>(&'a T);

impl<T: Display + ?Sized> Serialize for Shown<'_, T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self.0)
    }
}

/// Compact JSON in printable ASCII: DEL and everything beyond ASCII (bidi controls, line separators, look-alikes)
/// is escaped as `\u`, on top of what `serde_json` escapes.
struct Ascii;

impl serde_json::ser::Formatter for Ascii {
    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.find(|c: char| !(' '..='~').contains(&c)) {
            let (plain, from) = rest.split_at(at);
            writer.write_all(plain.as_bytes())?;
            let mut characters = from.chars();
            if let Some(character) = characters.next() {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    write!(writer, "\\u{unit:04x}")?;
                }
            }
            rest = characters.as_str();
        }
        writer.write_all(rest.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_of(value: &str) -> String {
        let mut out = Vec::new();
        Fields::after_first(&mut out).put("k", value);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_value_is_one_line_of_printable_ascii() {
        let nasty = "a\"\\\n\r\0\u{1b}[2J\u{7f}\u{85}\u{202e}\u{2028}é\u{1f600}\",\"decision\":\"allow";
        let text = text_of(nasty);
        assert!(text.bytes().all(|b| (0x20..=0x7e).contains(&b)), "{text}");
        assert!(text.contains("\\u202e") && text.contains("\\u2028") && text.contains("\\ud83d\\ude00"), "{text}");
        let back: serde_json::Value = serde_json::from_str(&format!("{{\"a\":0{text}}}")).unwrap();
        assert_eq!(back["k"], nasty);
        assert!(back.get("decision").is_none());
    }

    #[test]
    fn facts_of_the_start_are_bounded() {
        let body = Body::Start { facts: "x".repeat(START_FACTS_BYTES_MAX).into() };
        let mut out = Vec::new();
        body.write(&mut Fields::after_first(&mut out));
        assert_eq!(out, br#","facts":"\u2026""#);
    }
}
