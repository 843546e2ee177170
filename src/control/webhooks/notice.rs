//! Which records of the audit are events for others, and the text that these get.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use ulid::Ulid;

use super::Topic;
use crate::audit::Written;
use crate::model::AgentName;

/// Refusals of one agent within [`BURST_WITHIN`] that are a burst.
const BURST_REFUSALS: u32 = 20;
/// See [`BURST_REFUSALS`]; an agent's next burst is told no sooner.
const BURST_WITHIN: Duration = Duration::from_secs(60);
/// Agents whose refusals are counted at once.
const AGENTS_MAX: usize = 1024;

/// Codes of refusals that say that somebody does with a nonce what it is not for.
const MISUSES: [&str; 4] = ["nonce_misplaced", "agent_mismatch", "foreign_credential", "credential_exposed"];

/// One event, ready to be sent.
#[derive(Debug)]
pub(super) struct Notice {
    /// The same for every attempt, so that a receiver can tell a repetition.
    pub(super) id: String,
    pub(super) topic: Topic,
    pub(super) body: String,
}

impl Notice {
    /// `data` is a record as it is in the audit: no secret, no nonce.
    fn new(topic: Topic, data: &str) -> Self {
        let timestamp = jiff::Timestamp::now();
        let milliseconds = u64::try_from(timestamp.as_millisecond()).unwrap_or(0);
        let mut random = [0; 16];
        // Without randomness the number of milliseconds has to do.
        let _ = getrandom::fill(&mut random);
        let id = format!("msg_{}", Ulid::from_parts(milliseconds, u128::from_le_bytes(random)));
        let body = format!("{{\"type\":\"{}\",\"timestamp\":\"{timestamp}\",\"data\":{data}}}", kind(topic));
        Self { id, topic, body }
    }

    /// The event's `type`.
    pub(super) fn kind(&self) -> &'static str {
        kind(self.topic)
    }
}

fn kind(topic: Topic) -> &'static str {
    match topic {
        Topic::Revoked => "nonce.revoked",
        Topic::Leaked => "nonce.leaked",
        Topic::Misused => "nonce.misused",
        Topic::Denials => "agent.denials",
    }
}

/// Looks at records; remembers how often agents were refused lately.
#[derive(Default)]
pub(super) struct Watcher {
    refusals: HashMap<AgentName, Refusals>,
}

struct Refusals {
    since: Instant,
    count: u32,
}

impl Watcher {
    /// What a record is to be told as.
    pub(super) fn look(&mut self, record: &Arc<Written>) -> Vec<Notice> {
        let mut notices = Vec::new();
        match record.kind {
            "lease_end" if is_revoked(&record.line) => notices.push(Notice::new(Topic::Revoked, &record.line)),
            "alarm" | "leak" => notices.push(Notice::new(Topic::Leaked, &record.line)),
            "decision" => {
                let Some(code) = refused_with(&record.line) else { return notices };
                if is_misuse(&code) {
                    notices.push(Notice::new(Topic::Misused, &record.line));
                }
                if let Some(agent) = &record.agent
                    && self.is_burst(agent, Instant::now())
                {
                    notices.push(Notice::new(Topic::Denials, &burst(agent, &code)));
                }
            }
            // Of a flood: the first of it were told one by one.
            "refused_summary" if text_member(&record.line, "code").is_some_and(|code| is_misuse(&code)) => {
                notices.push(Notice::new(Topic::Misused, &record.line));
            }
            _ => {}
        }
        notices
    }

    /// Counts one more refusal; true for the one that makes a burst.
    fn is_burst(&mut self, agent: &AgentName, now: Instant) -> bool {
        self.refusals.retain(|_, refusals| now.duration_since(refusals.since) < BURST_WITHIN);
        if self.refusals.len() >= AGENTS_MAX && !self.refusals.contains_key(agent) {
            return false;
        }
        let refusals = self.refusals.entry(agent.clone()).or_insert(Refusals { since: now, count: 0 });
        refusals.count = refusals.count.saturating_add(1);
        refusals.count == BURST_REFUSALS
    }
}

fn burst(agent: &AgentName, last_code: &str) -> String {
    serde_json::json!({
        "agent": agent.as_str(),
        "refusals": BURST_REFUSALS,
        "within_seconds": BURST_WITHIN.as_secs(),
        "last_code": last_code,
    })
    .to_string()
}

fn is_revoked(line: &str) -> bool {
    text_member(line, "cause").is_some_and(|cause| cause == "revoked" || cause == "misplaced")
}

fn is_misuse(code: &str) -> bool {
    MISUSES.contains(&code)
}

/// The code of a decision that refuses.
fn refused_with(line: &str) -> Option<String> {
    // Most decisions allow: they are not taken apart.
    if !line.contains("\"decision\":\"deny\"") {
        return None;
    }
    text_member(line, "code")
}

fn text_member(line: &str, name: &str) -> Option<String> {
    let record: Value = serde_json::from_str(line).ok()?;
    Some(record.get(name)?.as_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: &'static str, agent: Option<&str>, line: &str) -> Arc<Written> {
        let agent = agent.map(|name| AgentName::parse(name).unwrap());
        Arc::new(Written { seq: 1, kind, agent, task: None, line: line.to_owned() })
    }

    fn topics(notices: &[Notice]) -> Vec<Topic> {
        notices.iter().map(|notice| notice.topic).collect()
    }

    #[test]
    fn what_is_worth_telling_is_told() {
        let mut watcher = Watcher::default();
        let mut look = |kind, line: &str| topics(&watcher.look(&record(kind, None, line)));
        assert_eq!(look("lease_end", r#"{"cause":"revoked"}"#), [Topic::Revoked]);
        assert_eq!(look("lease_end", r#"{"cause":"misplaced"}"#), [Topic::Revoked]);
        for cause in ["expired", "spent", "shutdown", "not_made"] {
            assert_eq!(look("lease_end", &format!(r#"{{"cause":"{cause}"}}"#)), [], "{cause}");
        }
        assert_eq!(look("decision", r#"{"decision":"deny","code":"agent_mismatch"}"#), [Topic::Misused]);
        assert_eq!(look("decision", r#"{"decision":"deny","code":"out_of_scope"}"#), []);
        assert_eq!(look("decision", r#"{"path":"/agent_mismatch","decision":"allow"}"#), []);
        assert_eq!(look("end", r#"{"decision":"deny","code":"agent_mismatch"}"#), [], "its decision has told it");
    }

    #[test]
    fn a_burst_is_told_once_a_minute_and_agent() {
        let mut watcher = Watcher::default();
        let (one, two) = (AgentName::parse("one").unwrap(), AgentName::parse("two").unwrap());
        let begun = Instant::now();
        let told = (0..200).filter(|_| watcher.is_burst(&one, begun)).count();
        assert_eq!(told, 1);
        assert!((1..BURST_REFUSALS).all(|_| !watcher.is_burst(&two, begun)));
        assert!(watcher.is_burst(&two, begun));
        let later = begun + BURST_WITHIN;
        assert_eq!((0..200).filter(|_| watcher.is_burst(&one, later)).count(), 1);
        assert_eq!(watcher.refusals.len(), 1, "what is over is forgotten");
    }

    #[test]
    fn the_text_is_json_with_the_record_in_it() {
        let notice = Notice::new(Topic::Revoked, r#"{"cause":"revoked","seq":4}"#);
        let body: Value = serde_json::from_str(&notice.body).unwrap();
        assert_eq!((&body["type"], &body["data"]["seq"]), (&"nonce.revoked".into(), &4.into()));
        assert!(body["timestamp"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok());
        assert!(notice.id.starts_with("msg_") && notice.id.len() == 30, "{}", notice.id);
    }
}
