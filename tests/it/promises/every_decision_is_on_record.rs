//! Before the credential moves; chained; never a nonce, a credential or a query value.

use std::process::Command;

use crate::support::agent::with;
use crate::support::{Stage, TestSidecar};

fn verify(sidecar: &TestSidecar) -> std::process::Output {
    Command::new(crate::support::binary())
        .args(["audit", "verify"])
        .arg(sidecar.path("audit.jsonl"))
        .output()
        .expect("the binary runs")
}

#[tokio::test]
async fn allow_and_deny_and_their_ends() {
    let mut stage = Stage::new().await;
    let minted = stage.sidecar.orchestrator().mint("worker", "api", "read").await;
    let agent = stage.sidecar.agent();
    let bearer = format!("Bearer {}", minted.nonce);
    agent.get("api.test", "/x?secret_value=42", &minted.nonce).await;
    agent.send(with("POST", "api.test", "/y", &[("authorization", &bearer)], "")).await;
    let allow = stage.sidecar.audited(|record| record["type"] == "decision" && record["decision"] == "allow").await;
    assert_eq!(allow["agent"], "worker");
    assert_eq!(allow["service"], "api");
    assert_eq!(allow["rule"], "GET /{*path}");
    assert_eq!(allow["path"], "/x");
    let deny = stage.sidecar.audited(|record| record["type"] == "decision" && record["decision"] == "deny").await;
    assert_eq!(deny["code"], "out_of_scope");
    stage.sidecar.audited(|record| record["type"] == "end" && record["status"] == 200).await;
    stage.sidecar.signal("TERM");
    assert_eq!(stage.sidecar.wait(), Some(0));
    let records = stage.sidecar.audit();
    let types: Vec<&str> = records.iter().map(|record| record["type"].as_str().expect("a type")).collect();
    assert_eq!(types.first(), Some(&"start"));
    assert_eq!(types.last(), Some(&"stop"));
    for wanted in ["mint", "decision", "end", "lease_end"] {
        assert!(types.contains(&wanted), "{wanted}: {types:?}");
    }
    let output = verify(&stage.sidecar);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!stage.sidecar.audit_text().contains("secret_value"), "no query");
    stage.assert_silent(&[&minted.nonce]);
}

#[tokio::test]
async fn an_edit_shows() {
    let mut stage = Stage::new().await;
    let nonce = stage.reader().await;
    stage.sidecar.agent().get("api.test", "/x", &nonce).await;
    stage.sidecar.signal("TERM");
    stage.sidecar.wait();
    let text = stage.sidecar.audit_text().replace("\"allow\"", "\"deny\"");
    std::fs::write(stage.sidecar.path("audit.jsonl"), text).expect("writable");
    let output = verify(&stage.sidecar);
    assert_eq!(output.status.code(), Some(6), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn a_full_disk_means_refusal() {
    use crate::support::{FakeUpstream, canary, policies};
    let upstream = FakeUpstream::start(&["api.test"]).await;
    let sidecar = TestSidecar::with_policy(policies::ONE_API)
        .upstream(&["api.test"], "api", &upstream)
        .environment("API_KEY", &canary())
        .audit("/dev/full")
        .start()
        .await;
    let body = serde_json::json!({"agent": "worker", "task": "t", "service": "api", "scope": "read"});
    let (status, answer) = sidecar.orchestrator().call("POST", "/v1/nonces", Some(body)).await;
    assert_eq!((status.as_u16(), answer["code"].as_str()), (503, Some("audit_unavailable")));
    assert!(upstream.seen().is_empty());
}

#[tokio::test]
async fn it_survives_being_killed() {
    let mut stage = Stage::new().await;
    let nonce = stage.reader().await;
    stage.sidecar.agent().get("api.test", "/x", &nonce).await;
    stage.sidecar.signal("KILL");
    stage.sidecar.wait();
    let records = stage.sidecar.audit();
    assert!(records.iter().any(|record| record["decision"] == "allow"), "it was with the kernel before it went out");
    assert!(verify(&stage.sidecar).status.success());
}

#[tokio::test]
async fn on_standard_output_and_with_fsync() {
    use crate::support::FakeUpstream;
    let upstream = FakeUpstream::start(&["api.test"]).await;
    let mut stage = Stage::with(upstream, |builder| builder.audit("-").flag("--audit-sync")).await;
    let nonce = stage.reader().await;
    assert_eq!(stage.sidecar.agent().get("api.test", "/x", &nonce).await.status, 200);
    stage.sidecar.signal("TERM");
    assert_eq!(stage.sidecar.wait(), Some(0));
    let records = crate::support::sidecar::records(&stage.sidecar.text("stdout.log"));
    let types: Vec<&str> = records.iter().map(|record| record["type"].as_str().expect("a type")).collect();
    assert_eq!(types, ["start", "mint", "decision", "end", "lease_end", "stop"]);
    let upstream = FakeUpstream::start(&["api.test"]).await;
    let stage = Stage::with(upstream, |builder| builder.flag("--audit-sync")).await;
    let nonce = stage.reader().await;
    assert_eq!(stage.sidecar.agent().get("api.test", "/x", &nonce).await.status, 200);
}

/// The upstream sees nothing before the record is with the kernel.
#[tokio::test]
async fn before_the_credential_moves() {
    let stage = Stage::new().await;
    let nonce = stage.reader().await;
    let agent = stage.sidecar.agent();
    for round in 0..20 {
        let path = format!("/stall?{round}");
        let (asking, nonce) = (agent.clone(), nonce.clone());
        let asked = tokio::spawn(async move { asking.get("api.test", &path, &nonce).await });
        let arrived = || (stage.upstream.seen().len() > round).then(|| stage.sidecar.audit());
        let audit = crate::support::sidecar::eventually("the request to arrive", arrived).await;
        let allowed =
            audit.iter().filter(|record| record["decision"] == "allow" && record["type"] == "decision").count();
        assert_eq!(allowed, round + 1, "the record was there when the request was");
        asked.abort();
    }
}
