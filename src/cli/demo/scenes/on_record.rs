//! The audit, after the sidecar has stopped.
//!
//! What was done after the play, by whoever keeps the demo running, is verified with the rest but not counted here.

use std::collections::HashSet;

use serde_json::Value;

use crate::audit::verify;
use crate::cli::demo::scene::{Check, Scene};
use crate::cli::demo::stage::Remains;

const PROMISE: &str = "Every decision is on record, in a chain that shows tampering";

/// What the play was refused for, in its order.
const REFUSALS: [&str; 5] = ["out_of_scope", "nonce_expired", "nonce_misplaced", "nonce_revoked", "nonce_revoked"];

pub(super) fn look(remains: &Remains) -> Scene {
    let mut scene = Scene::new(PROMISE);
    let records = Records::read(remains);
    for decision in records.of("decision") {
        scene.tell("audit", told(decision));
    }
    scene.checks = judge(remains, &records);
    scene
}

fn told(decision: &Value) -> String {
    let [verdict, code, method, destination, path, id] =
        ["decision", "code", "method", "destination", "path", "nonce.id"].map(|key| text(decision, key));
    format!("{verdict:<5} {method:<4} {destination}{path}  {id}  {code}").trim_end().to_owned()
}

fn text<'a>(record: &'a Value, key: &str) -> &'a str {
    record[key].as_str().unwrap_or_default()
}

/// The audit's records, and those among them that are about the nonces of the play.
struct Records {
    all: Vec<Value>,
    played: HashSet<String>,
}

impl Records {
    fn read(remains: &Remains) -> Self {
        let lines = remains.audit.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
        let played = remains.played_nonces().iter().map(|nonce| nonce.id.clone()).collect();
        Self { all: lines.map(|line| serde_json::from_slice(line).unwrap_or_default()).collect(), played }
    }

    /// Of this type, about the play, in order.
    fn of(&self, kind: &str) -> Vec<&Value> {
        let is_wanted = |record: &&Value| record["type"] == kind && self.played.contains(text(record, "nonce.id"));
        self.all.iter().filter(is_wanted).collect()
    }

    /// Exchanges whose decision stands in the audit before their end.
    fn settled_count(&self) -> usize {
        let mut decided = HashSet::new();
        let mut settled = 0;
        for record in self.all.iter().filter(|record| self.played.contains(text(record, "nonce.id"))) {
            match text(record, "type") {
                "decision" => {
                    decided.insert(text(record, "exchange.id"));
                }
                "end" => settled += usize::from(decided.remove(text(record, "exchange.id"))),
                _ => {}
            }
        }
        settled
    }
}

fn judge(remains: &Remains, records: &Records) -> Vec<Check> {
    let decisions = records.of("decision");
    let verdicts = |verdict: &str| decisions.iter().filter(|record| text(record, "decision") == verdict).count();
    let refusals: Vec<_> =
        decisions.iter().map(|record| text(record, "code")).filter(|code| !code.is_empty()).collect();
    let kinds =
        [records.all.first(), records.all.last()].map(|record| record.map_or("", |record| text(record, "type")));
    let nonces = remains.played_nonces().len();
    let exit = remains.exit.map_or_else(|| "none: it had to be killed".to_owned(), |code| code.to_string());
    vec![
        Check::same("the sidecar stops by itself when asked", "0", exit),
        Check::worked("the chain of the audit verifies", "one whole chain", chain(&remains.audit)),
        Check::worked("a copy with one decision edited does not", "a complaint", tampering(&remains.audit)),
        Check::same("it tells from the start to the stop", "start, stop", kinds.join(", ")),
        Check::same(
            "as many calls were allowed as reached the upstream",
            remains.played_requests().len(),
            verdicts("allow"),
        ),
        Check::same("each refusal is there, with its reason", REFUSALS.join(", "), refusals.join(", ")),
        Check::same("each decision comes before the end of its exchange", decisions.len(), records.settled_count()),
        Check::same("each nonce is there when it is minted", nonces, records.of("mint").len()),
        Check::same("and when it ends", nonces, records.of("lease_end").len()),
    ]
}

fn chain(audit: &[u8]) -> Result<String, String> {
    let verified = verify(audit, None).map_err(|broken| broken.to_string())?;
    let told = format!("{} records of {} boot, head {}", verified.records, verified.boots, verified.head);
    if verified.boots == 1 && verified.torn_tail_bytes == 0 { Ok(told) } else { Err(told) }
}

/// Edits a copy as somebody would who has something to hide.
fn tampering(audit: &[u8]) -> Result<String, String> {
    let (before, after) = ("\"decision\":\"deny\"", "\"decision\":\"allow\"");
    let edited = String::from_utf8_lossy(audit).replacen(before, after, 1);
    if edited.as_bytes() == audit {
        return Err("there is nothing to edit".to_owned());
    }
    match verify(edited.as_bytes(), None) {
        Ok(_) => Err("it verifies".to_owned()),
        Err(broken) => Ok(broken.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use ring::digest::{SHA256, digest};

    use super::*;
    use crate::cli::demo::scenes::samples::{assert_broken, received, remains};

    /// Records as the sidecar would have sealed them.
    fn sealed(lines: &[String]) -> Vec<u8> {
        let (mut all, mut head) = (String::new(), [0; 32].to_vec());
        for (line, seq) in lines.iter().zip(1..) {
            let open = format!(
                r#"{{"v":1,"boot_id":"b","seq":{seq},"time":"2026-01-01T00:00:00Z",{line},"prev":"{}""#,
                hex::encode(&head)
            );
            head = digest(&SHA256, &[&head[..], open.as_bytes(), b"}"].concat()).as_ref().to_vec();
            let _ = writeln!(all, r#"{open},"hash":"{}"}}"#, hex::encode(&head));
        }
        all.into_bytes()
    }

    /// What the play leaves, with one call that was allowed: two records each from the third on.
    fn lines() -> Vec<String> {
        let of = |kind: &str, more: &str| format!(r#""type":"{kind}","nonce.id":"nc_1"{more}"#);
        let mut lines = vec![r#""type":"start""#.to_owned(), of("mint", "")];
        for (number, code) in [""].iter().chain(&REFUSALS).enumerate() {
            let verdict = if code.is_empty() { "allow" } else { "deny" };
            let exchange = format!(r#","exchange.id":"ex_{number}","decision":"{verdict}","code":"{code}""#);
            lines.extend([of("decision", &exchange), of("end", &exchange)]);
        }
        lines.extend([of("lease_end", ""), r#""type":"stop""#.to_owned()]);
        lines
    }

    fn broken(lines: &[String], edit: impl FnOnce(&mut Remains), claims: &[&str]) {
        let mut remains = remains(sealed(lines));
        edit(&mut remains);
        assert_broken(&judge(&remains, &Records::read(&remains)), claims);
    }

    fn without(at: usize) -> Vec<String> {
        let mut lines = lines();
        lines.remove(at);
        lines
    }

    #[test]
    fn what_is_not_as_promised_is_seen() {
        broken(&lines(), |_| {}, &[]);
        broken(&lines(), |remains| remains.exit = Some(1), &["stops by itself"]);
        broken(&lines(), |remains| remains.exit = None, &["stops by itself"]);
        broken(&without(lines().len() - 1), |_| {}, &["start to the stop"]);
        broken(&without(1), |_| {}, &["minted"]);
        broken(&without(lines().len() - 2), |_| {}, &["when it ends"]);
        broken(&without(2), |_| {}, &["as many calls"]);
        broken(&without(4), |_| {}, &["each refusal"]);
        broken(&without(5), |_| {}, &["before the end"]);
        let mut late = lines();
        late.swap(2, 3);
        broken(&late, |_| {}, &["before the end"]);
        let unrecorded = |remains: &mut Remains| {
            remains.received.push(received("GET", "/user"));
            remains.played.requests += 1;
        };
        broken(&lines(), unrecorded, &["as many calls"]);
    }

    #[test]
    fn an_audit_that_was_changed_is_seen() {
        let cut = |remains: &mut Remains| {
            let half = remains.audit.len() / 2;
            remains.audit.truncate(half);
        };
        broken(&lines(), cut, &["verifies", "start to the stop", "each refusal", "when it ends"]);
        let quiet = |remains: &mut Remains| {
            remains.audit =
                String::from_utf8_lossy(&remains.audit).replace("GET", "PUT").replace("nc_1", "nc_2").into();
        };
        let all = ["verifies", "as many calls", "each refusal", "when it is minted", "when it ends"];
        broken(&lines(), quiet, &all);
        broken(&[], |_| {}, &["verifies", "edited", "start to the stop", all[1], all[2], all[3], all[4]]);
    }

    #[test]
    fn later_calls_are_not_counted() {
        let mut more = lines();
        more.insert(2, r#""type":"decision","nonce.id":"nc_kept","decision":"allow""#.to_owned());
        broken(&more, |remains| remains.received.push(received("GET", "/v1/customers")), &[]);
    }
}
