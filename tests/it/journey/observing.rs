//! `enforce = "observe"`: path rules are judged and recorded, and everything else is enforced.

use serde_json::Value;

use crate::support::agent::with;
use crate::support::policies::ONE_API;
use crate::support::{Stage, TestSidecar};

/// The one API's policy with more keys of its service.
fn policy(keys: &str) -> String {
    ONE_API.replace("[services.api]\n", &format!("[services.api]\n{keys}\n"))
}

fn observed() -> String {
    policy("enforce = \"observe\"\nuntil = 2999-01-01")
}

async fn send(stage: &Stage, method: &str, path: &str, nonce: &str) -> (u16, Option<String>) {
    let mut tunnel = stage.sidecar.agent().tunnel("api.test").await;
    let request = with(method, "api.test", path, &[("authorization", &format!("Bearer {nonce}"))], "");
    let reply = tunnel.send(request).await;
    (reply.status.as_u16(), reply.refusal().map(str::to_owned))
}

async fn decision(stage: &Stage, path: &str) -> Value {
    stage.sidecar.audited(|record| record["type"] == "decision" && record["path"] == path).await
}

#[tokio::test]
async fn what_no_rule_allows_goes_on_and_is_on_record() {
    let stage = Stage::of_policy(&observed()).await;
    let reader = stage.reader().await;
    assert_eq!(send(&stage, "POST", "/outside", &reader).await, (200, None));
    assert_eq!(stage.upstream.only().header("authorization"), Some(format!("Bearer {}", stage.secret).as_str()));
    let record = decision(&stage, "/outside").await;
    assert_eq!((&record["decision"], &record["observed"]), (&"allow".into(), &"out_of_scope".into()), "{record:#}");
    assert_eq!((&record["scope"], record.get("rule")), (&"read".into(), None), "whose credential it carries");
    assert_eq!(send(&stage, "GET", "/inside", &reader).await, (200, None));
    let record = decision(&stage, "/inside").await;
    assert_eq!((record.get("observed"), &record["rule"]), (None, &"GET /{*path}".into()), "{record:#}");
    assert!(stage.sidecar.log().contains("not enforced until 2999-01-02T00:00:00Z"), "it is said at the start");
}

#[tokio::test]
async fn everything_else_is_enforced() {
    let stage = Stage::of_policy(&observed()).await;
    let (reader, writer) = (stage.reader().await, stage.writer().await);
    let refused = |code: &str| Some(code.to_owned());
    assert_eq!(send(&stage, "GET", "/a/../b", &reader).await, (400, refused("request_ambiguous")));
    assert_eq!(send(&stage, "POST", "/forbidden", &writer).await, (403, refused("out_of_scope")), "a deny was meant");
    assert_eq!(send(&stage, "POST", "/x", &format!("an_{}", "0".repeat(33))).await, (401, refused("nonce_unknown")));
    let once = stage.sidecar.orchestrator().mint("worker", "api", "once").await;
    assert_eq!(send(&stage, "GET", "/spends", &once.nonce).await, (200, None));
    assert_eq!(send(&stage, "DELETE", "/spent", &once.nonce).await, (401, refused("nonce_spent")));
    stage.sidecar.orchestrator().revoke(&stage.sidecar.orchestrator().mint("worker", "api", "read").await.id).await;
    assert_eq!(stage.upstream.seen().len(), 1, "nothing of what was refused");
}

#[tokio::test]
async fn it_ends_by_itself() {
    for until in ["2020-01-01", "\"2020-01-01T00:00:00Z\""] {
        let stage = Stage::of_policy(&policy(&format!("enforce = \"observe\"\nuntil = {until}"))).await;
        let reader = stage.reader().await;
        assert_eq!(send(&stage, "POST", "/outside", &reader).await, (403, Some("out_of_scope".to_owned())));
        assert!(stage.sidecar.log().contains("the path rules are enforced"), "{}", stage.sidecar.log());
    }
}

#[test]
fn without_an_end_there_is_no_start() {
    for (keys, said) in [
        ("enforce = \"observe\"", "`until` is missing"),
        ("until = 2999-01-01", "means nothing without"),
        ("enforce = \"observe\"\nuntil = 2999-01-01T00:00:00", "neither a date nor a moment"),
        ("enforce = \"observe\"\nuntil = \"soon\"", "neither a date nor a moment"),
        ("enforce = \"off\"\nuntil = 2999-01-01", "not a word that this key takes"),
    ] {
        let (code, text) = TestSidecar::with_policy(&policy(keys)).environment("API_KEY", "x").fails();
        assert_eq!(code, Some(3), "{keys}: {text}");
        assert!(text.contains(said), "{keys}: {text}");
    }
}
