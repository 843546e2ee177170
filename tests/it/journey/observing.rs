//! `enforce = "observe"`: path rules are judged and recorded, and everything else is enforced.

use serde_json::Value;

use crate::support::agent::with;
use crate::support::policies::ONE_API;
use crate::support::{FakeUpstream, Stage, TestSidecar, canary, policies};

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
    let revoked = stage.sidecar.orchestrator().mint("worker", "api", "read").await;
    stage.sidecar.orchestrator().revoke(&revoked.id).await;
    assert_eq!(send(&stage, "POST", "/ended", &revoked.nonce).await, (401, refused("nonce_revoked")));
    assert_eq!(stage.upstream.seen().len(), 1, "nothing of what was refused");
}

#[tokio::test]
async fn what_does_not_belong_in_a_request_is_refused_there_too() {
    let stage = Stage::of_policy(&observed()).await;
    let (reader, secret) = (stage.reader().await, stage.secret.clone());
    let foreign = canary();
    let path = |path: &str| (path.to_owned(), ("accept", "*/*".to_owned()));
    let field = |name: &'static str, value: &str| ("/x".to_owned(), (name, value.to_owned()));
    for ((path, (name, value)), code) in [
        (field("x-note", &reader), "nonce_misplaced"),
        (path(&format!("/path/{reader}")), "nonce_misplaced"),
        (path(&format!("/query?q={reader}")), "nonce_misplaced"),
        (field("x-api-key", &foreign), "foreign_credential"),
        (field("cookie", "session=stolen"), "foreign_credential"),
        (field("x-note", &secret), "credential_exposed"),
        (path(&format!("/path/{secret}")), "credential_exposed"),
    ] {
        // No rule allows it, and observing lets that by; the other is refused whatever the rules say.
        let fields = [("authorization", format!("Bearer {reader}")), (name, value)];
        let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let reply = stage.sidecar.agent().send(with("POST", "api.test", &path, &fields, "")).await;
        assert_eq!((reply.status.as_u16(), reply.refusal()), (403, Some(code)), "{name} {code}");
    }
    for (value, code) in [(foreign, "foreign_credential"), (secret, "credential_exposed")] {
        assert_eq!(send(&stage, "POST", "/instead", &value).await, (403, Some(code.to_owned())));
    }
    assert_eq!(stage.upstream.seen().len(), 0, "upstream has heard nothing");
    assert_eq!(send(&stage, "POST", "/x", &reader).await, (200, None), "with nothing of that it goes on");
}

#[tokio::test]
async fn a_nonce_on_the_host_of_another_service_is_refused_there_too() {
    const OBSERVED: &str = "slots = [\"bearer\"]\nenforce = \"observe\"\nuntil = 2999-01-01\n";
    let other = FakeUpstream::start(&["other.test"]).await;
    let policy = policies::TWO_APIS.replace("slots = [\"bearer\"]\n", OBSERVED);
    let stage = Stage::of(&policy, FakeUpstream::start(&["api.test"]).await, |builder| {
        builder.upstream(&["other.test"], "other", &other).environment("OTHER_KEY", &canary())
    })
    .await;
    let reader = stage.reader().await;
    let astray = with("POST", "other.test", "/x", &[("authorization", &format!("Bearer {reader}"))], "");
    let reply = stage.sidecar.agent().send(astray).await;
    assert_eq!((reply.status.as_u16(), reply.refusal()), (403, Some("nonce_misplaced")));
    assert_eq!(send(&stage, "POST", "/x", &reader).await, (401, Some("nonce_revoked".to_owned())), "and it has ended");
    assert_eq!((other.connections(), stage.upstream.connections()), (0, 0), "no upstream has heard anything");
}

#[tokio::test]
async fn whoever_is_not_the_agent_is_refused_there_too() {
    let somebody_else = format!("uid:{}", rustix::process::getuid().as_raw() + 1);
    let names = "\n[client_cas.names]\nca = \"{dir}/api.pem\"\n";
    for (identity, more, (status, code)) in [
        (somebody_else.as_str(), "", (403, "agent_mismatch")),
        ("mtls:worker.test", names, (401, "agent_unidentified")),
    ] {
        let stage = Stage::of_policy(&(observed().replace("\"any\"", &format!("\"{identity}\"")) + more)).await;
        let reader = stage.reader().await;
        for (method, path) in [("POST", "/outside"), ("GET", "/inside")] {
            let refused = (status, Some(code.to_owned()));
            assert_eq!(send(&stage, method, path, &reader).await, refused, "{identity} {method}");
        }
        assert_eq!(stage.upstream.connections(), 0, "{identity}: upstream has heard nothing");
    }
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
