//! Refusals as they happen, from the audit's records: what, where, why, and what would have been allowed.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use super::renewal::Held;
use super::voice::Voice;
use crate::cli::print;
use crate::control::client::Events;

/// How long the last records are waited for.
const LAST_MAX: Duration = Duration::from_secs(2);
/// Different refusals that are told; more are only counted.
const LINES_MAX: usize = 100;
/// Exchanges under way whose requests are remembered; the refusals of others are told without.
const UNDER_WAY_MAX: usize = 1024;
/// Rules that are named as allowed at most.
const ALLOWED_MAX: usize = 6;

/// What was seen so far.
pub(super) struct Told {
    held: Vec<Held>,
    /// Nonces whose end is not on record yet.
    live: HashSet<String>,
    /// What was asked for in exchanges that were allowed and have not ended, by their ids: only the first of their
    /// records says it.
    under_way: HashMap<String, String>,
    voice: Voice,
    lines: HashMap<String, u64>,
    allowed: u64,
    refused: u64,
    /// Records that came too fast to be read.
    missed: u64,
}

impl Told {
    pub(super) fn new(held: &[Held], voice: Voice) -> Self {
        let live = held.iter().map(|held| held.id.clone()).collect();
        let (under_way, lines) = (HashMap::new(), HashMap::new());
        Self { held: held.to_vec(), live, under_way, voice, lines, allowed: 0, refused: 0, missed: 0 }
    }

    /// Tells of each refusal, until the ends of all the run's nonces are on record or the sidecar is gone, and not much
    /// longer than until `over`.
    pub(super) async fn follow(mut self, mut events: Events, over: oneshot::Receiver<()>) -> Self {
        let mut over = std::pin::pin!(over);
        let mut deadline = None;
        // Nonces can end before the command does, and then there is all the more to tell.
        while deadline.is_none() || !self.live.is_empty() {
            tokio::select! {
                record = events.next() => match record {
                    Ok(Some(record)) => self.take(&record),
                    Ok(None) | Err(_) => break,
                },
                // That the sender is gone says the same.
                _ = over.as_mut(), if deadline.is_none() => deadline = Some(Instant::now() + LAST_MAX),
                () = until(deadline) => break,
            }
        }
        self
    }

    fn take(&mut self, record: &Value) {
        let text = |name: &str| record[name].as_str().unwrap_or_default();
        match (text("type"), text("decision"), text("ending")) {
            ("decision", "allow", _) => {
                self.allowed += 1;
                if self.under_way.len() < UNDER_WAY_MAX {
                    self.under_way.insert(text("exchange.id").to_owned(), target(record));
                }
            }
            ("decision", "deny", _) => self.refuse(record, &target(record)),
            ("end", "allow", ending) => {
                let target = self.under_way.remove(text("exchange.id")).unwrap_or_default();
                // Allowed, and refused later: by the dial, the credential's source, the audit.
                if ending == "refused" {
                    self.allowed = self.allowed.saturating_sub(1);
                    self.refuse(record, &target);
                }
            }
            // Clients connect in advance, and leave again.
            ("connection", ..) if text("code") == "client_gone" => {}
            ("connection", ..) if record["code"].is_string() => self.refuse(record, &target(record)),
            ("lease_end", ..) => {
                self.live.remove(text("nonce.id"));
            }
            ("refused_summary", ..) => self.refused += record["refused"].as_u64().unwrap_or(0),
            ("gap", ..) => self.missed += record["records"].as_u64().unwrap_or(0),
            // All else is no refusal.
            _ => {}
        }
    }

    fn refuse(&mut self, record: &Value, target: &str) {
        self.refused += 1;
        let line = self.line(record, target);
        let known = self.lines.len();
        match self.lines.get_mut(&line) {
            Some(count) => *count += 1,
            None if known == LINES_MAX => {
                self.voice.warn("more refusals, of other kinds, are only counted from here on")
            }
            None if known > LINES_MAX => return,
            None => self.voice.refused(&line),
        }
        self.lines.entry(line).or_insert(1);
    }

    fn line(&self, record: &Value, target: &str) -> String {
        let text = |name: &str| record[name].as_str().unwrap_or_default();
        let code = text("code");
        let why = match code {
            "out_of_scope" => self.allowed_rules(text("nonce.id"), text("service")),
            "nonce_missing" => "no nonce came with it".to_owned(),
            "nonce_unknown" => "what came with it is no nonce of this run".to_owned(),
            "nonce_misplaced" => "a nonce stood where it does not belong".to_owned(),
            "foreign_credential" => "another credential came with it".to_owned(),
            "host_not_listed" => "no service of the policy has this host".to_owned(),
            "agent_mismatch" => "the policy names another user for this agent".to_owned(),
            "tls_handshake_failed" => {
                "the client broke off; if it does not trust the CA, see `valetkey doctor`".to_owned()
            }
            _ => String::new(),
        };
        let colon = if why.is_empty() { "" } else { ": " };
        let target = if target.is_empty() { "a request" } else { target };
        print::visible(&format!("{target}: {code}{colon}{why}"))
    }

    /// What a nonce of ours allows of a service.
    fn allowed_rules(&self, id: &str, service: &str) -> String {
        let held = self.held.iter().filter(|held| held.id == id).flat_map(|held| &held.grants);
        let rules: Vec<&str> =
            held.filter(|grant| grant.service == service).flat_map(|grant| &grant.allow).map(String::as_str).collect();
        if rules.is_empty() {
            return String::new();
        }
        let more = rules.len().saturating_sub(ALLOWED_MAX);
        let shown = rules[..rules.len() - more].join(", ");
        if more == 0 { format!("allowed {shown}") } else { format!("allowed {shown} and {more} more") }
    }

    /// What it came to; `audit` says where the whole record is.
    pub(super) fn sum_up(&self, audit: Option<&std::path::Path>) {
        let mut repeated: Vec<_> = self.lines.iter().filter(|(_, count)| **count > 1).collect();
        repeated.sort();
        for (line, count) in repeated {
            self.voice.note(format_args!("{count} times: {line}"));
        }
        let missed = if self.missed == 0 { String::new() } else { format!(" ({} records were missed)", self.missed) };
        let place = audit.filter(|_| self.refused > 0).map(|path| format!("; the audit is {}", path.display()));
        self.voice.note(format_args!(
            "{} allowed, {} refused{missed}{}",
            self.allowed,
            self.refused,
            place.unwrap_or_default()
        ));
    }
}

/// What a record says was asked for; empty where it does not.
fn target(record: &Value) -> String {
    let text = |name: &str| record[name].as_str().unwrap_or_default();
    let destination = text("destination");
    if destination.is_empty() {
        return String::new();
    }
    let destination = destination.strip_suffix(":443").unwrap_or(destination);
    let method = if text("method").is_empty() { "CONNECT" } else { text("method") };
    format!("{method} {destination}{}", text("path"))
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::control::types::Minted;

    fn told() -> Told {
        let minted: Minted = serde_json::from_value(json!({
            "id": "nc_1", "nonce": "an_x", "placeholders": {}, "agent": "a", "task": "t",
            "issued_at": "2026-01-01T00:00:00Z", "expires_at": "2026-01-01T00:05:00Z", "expires_in": 300,
            "ends_at": "2026-01-01T00:30:00Z", "ttl_capped_by": null, "max_uses": null, "uses_left": null,
            "proxy": "http://127.0.0.1:1", "grants": [
                {"service": "s", "scopes": ["r"], "hosts": ["s.test"], "allow": ["GET /a", "GET /b"]},
                {"service": "o", "scopes": ["r"], "hosts": ["o.test"], "allow": ["GET /other"]},
            ],
        }))
        .unwrap();
        Told::new(&[Held::new(&minted, "KEY".to_owned())], Voice::Quiet)
    }

    fn refusal(code: &str, path: &str) -> Value {
        json!({"type": "decision", "decision": "deny", "code": code, "method": "POST", "destination": "s.test:443",
            "path": path, "nonce.id": "nc_1", "service": "s"})
    }

    #[test]
    fn a_refusal_says_what_where_why_and_what_instead() {
        let told = told();
        let line = |record: Value| told.line(&record, &target(&record));
        assert_eq!(line(refusal("out_of_scope", "/x")), "POST s.test/x: out_of_scope: allowed GET /a, GET /b");
        assert_eq!(line(refusal("rate_limited", "/x")), "POST s.test/x: rate_limited");
        let odd = line(refusal("x", "/\u{1b}[2J"));
        assert!(!odd.contains('\u{1b}'), "{odd}");
        let tunnel = json!({"type": "connection", "destination": "h:25", "code": "host_not_listed"});
        assert_eq!(line(tunnel), "CONNECT h:25: host_not_listed: no service of the policy has this host");
        let garbage = json!({"type": "connection", "code": "request_malformed"});
        assert_eq!(line(garbage), "a request: request_malformed");
    }

    #[test]
    fn what_was_refused_later_was_not_allowed() {
        let mut told = told();
        for record in [
            json!({"type": "decision", "decision": "allow"}),
            json!({"type": "end", "decision": "allow", "ending": "complete"}),
            json!({"type": "decision", "decision": "allow", "exchange.id": "ex_1", "method": "GET",
                "destination": "s.test:443", "path": "/late"}),
            json!({"type": "end", "decision": "allow", "ending": "refused", "code": "upstream_unreachable",
                "exchange.id": "ex_1"}),
            json!({"type": "connection", "destination": "s.test:443", "code": "client_gone"}),
            refusal("out_of_scope", "/x"),
            json!({"type": "end", "decision": "deny", "ending": "refused", "code": "out_of_scope"}),
        ] {
            told.take(&record);
        }
        assert_eq!((told.allowed, told.refused), (1, 2));
        assert!(told.lines.contains_key("GET s.test/late: upstream_unreachable"), "{:?}", told.lines);
        assert!(told.under_way.is_empty());
        assert!(!told.live.is_empty());
        told.take(&json!({"type": "gap", "records": 3}));
        assert_eq!(told.missed, 3);
        told.take(&json!({"type": "lease_end", "nonce.id": "nc_1"}));
        assert!(told.live.is_empty());
    }

    #[test]
    fn exchanges_under_way_are_remembered_within_bounds() {
        let mut told = told();
        for number in 0..2 * UNDER_WAY_MAX {
            told.take(&json!({"type": "decision", "decision": "allow", "exchange.id": number.to_string()}));
        }
        assert_eq!(told.under_way.len(), UNDER_WAY_MAX);
    }

    #[test]
    fn many_kinds_of_refusals_are_kept_within_bounds() {
        let mut told = told();
        for number in 0..1000 {
            told.take(&refusal("out_of_scope", &format!("/{number}")));
            told.take(&refusal("out_of_scope", "/0"));
        }
        assert_eq!(told.refused, 2000);
        assert!(told.lines.len() <= LINES_MAX + 1);
        assert_eq!(told.lines.values().max(), Some(&1001));
    }
}
