//! Bodies that a rule looks at: what is in force when they are whole decides, and no agent takes all the room for them.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::agent::PATIENCE;
use crate::support::sidecar::eventually;
use crate::support::wire::read_answers;
use crate::support::{Builder, FakeUpstream, Stage, policies};

const RULES: &str = r#"
[[services.api.scopes]]
name = "transfer"
risk = "low"
[[services.api.scopes.rules]]
allow = "POST /transfers"
body = { type = "json", max = "1MiB", fields = { amount = "int" } }
when = "body.amount < 10"
because = "small ones"

[agents.worker]
identity = ["any"]
grants = { api = ["transfer"] }

[agents.other]
identity = ["any"]
grants = { api = ["transfer"] }
"#;

const BODY: &str = r#"{"amount": 5}"#;

async fn stage() -> Stage {
    let patient = |builder: Builder| builder.flag("--head-timeout").flag("60s");
    Stage::of(&policies::bearer_api(RULES), FakeUpstream::start(&["api.test"]).await, patient).await
}

async fn nonce(stage: &Stage, agent: &str) -> String {
    stage.sidecar.orchestrator().mint(agent, "api", "transfer").await.nonce
}

/// A request whose body has not come yet, and how that was answered: with the wish to have it, or not.
async fn begun(stage: &Stage, nonce: &str) -> (impl AsyncReadExt + AsyncWriteExt + Unpin + use<>, String) {
    let mut stream = stage.sidecar.agent().tls_tunnel("api.test", "api.test", &[b"http/1.1"]).await.expect("TLS");
    let head = format!(
        "POST /transfers HTTP/1.1\r\nHost: api.test\r\nAuthorization: Bearer {nonce}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\nExpect: 100-continue\r\n\r\n",
        BODY.len()
    );
    stream.write_all(head.as_bytes()).await.expect("writable");
    let mut line = [0; 25];
    tokio::time::timeout(PATIENCE, stream.read_exact(&mut line)).await.expect("in time").expect("bytes");
    (stream, String::from_utf8_lossy(&line).into_owned())
}

fn is_asked(answer: &str) -> bool {
    answer.starts_with("HTTP/1.1 100 ")
}

/// Changes the policy while a body is awaited; the answer once it has come.
async fn changed_meanwhile(stage: &Stage, change: impl Fn(&str) -> String) -> String {
    let (mut stream, answer) = begun(stage, &nonce(stage, "worker").await).await;
    assert!(is_asked(&answer), "{answer}");
    let path = stage.sidecar.path("policy.toml");
    let text = std::fs::read_to_string(&path).expect("a policy");
    std::fs::write(&path, change(&text)).expect("a policy");
    stage.sidecar.signal("HUP");
    let is_adopted = || stage.sidecar.log().contains("has changed and is in force").then_some(());
    eventually("the new policy", is_adopted).await;
    stream.write_all(BODY.as_bytes()).await.expect("writable");
    read_answers(&mut stream, 1, PATIENCE).await
}

#[tokio::test]
async fn the_policy_that_is_in_force_when_a_body_is_whole_decides() {
    let stage = stage().await;
    let answer = changed_meanwhile(&stage, |text| text.replace("body.amount < 10", "body.amount < 5")).await;
    assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("condition_failed"), "{answer}");
    assert_eq!(stage.upstream.seen().len(), 0);
}

#[tokio::test]
async fn a_service_that_is_gone_when_a_body_is_whole_is_refused() {
    let stage = stage().await;
    let answer = changed_meanwhile(&stage, |text| text.replace("[\"api.test\"]", "[\"gone.test\"]")).await;
    assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("host_not_listed"), "{answer}");
    assert_eq!(stage.upstream.seen().len(), 0);
}

#[tokio::test]
async fn a_change_that_says_nothing_against_it_does_not_disturb_a_request_under_way() {
    let stage = stage().await;
    let answer = changed_meanwhile(&stage, |text| text.replace("body.amount < 10", "body.amount < 9")).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(stage.upstream.only().body, BODY);
    let decision = stage.sidecar.audited(|record| record["type"] == "decision" && record["service"] == "api").await;
    let start = stage.sidecar.audit().into_iter().find(|record| record["type"] == "start").expect("a start");
    assert_ne!(decision["policy.digest"], start["policy.digest"], "by the new policy");
    assert_ne!(decision["policy.digest"], Value::Null);
}

#[tokio::test]
async fn an_agent_that_takes_all_the_room_for_bodies_that_it_can_leaves_some_for_others() {
    let stage = stage().await;
    let (greedy, other) = (nonce(&stage, "worker").await, nonce(&stage, "other").await);
    let (mut waiting, mut refused) = (Vec::new(), None);
    // 64 MiB altogether, 1 MiB for each.
    while waiting.len() < 64 && refused.is_none() {
        let (stream, answer) = begun(&stage, &greedy).await;
        if is_asked(&answer) { waiting.push(stream) } else { refused = Some(answer) }
    }
    assert_eq!(waiting.len(), 32, "half of it");
    assert!(refused.expect("a refusal").starts_with("HTTP/1.1 503"));
    let (mut stream, answer) = begun(&stage, &other).await;
    assert!(is_asked(&answer), "{answer}");
    stream.write_all(BODY.as_bytes()).await.expect("writable");
    assert!(read_answers(&mut stream, 1, PATIENCE).await.starts_with("HTTP/1.1 200"));
    let refusals = stage.sidecar.audit().into_iter().filter(|record| record["code"] == json!("overloaded"));
    assert!(refusals.filter(|record| record["type"] == "decision").all(|record| record["agent"] == "worker"));
}
