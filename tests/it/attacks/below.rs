//! What is delegated opens nothing that is closed above: not by a label of its own, not by a rule that has no rate, and
//! not under a scope that was taken away above.

use std::fs;

use serde_json::{Value, json};

use crate::support::agent::{Reply, with};
use crate::support::orchestrator::Minted;
use crate::support::{Stage, policies};

/// What follows the service.
const RULES: &str = r#"
[[services.api.scopes]]
name = "live"
risk = "low"
when = "has(nonce.labels.env) && nonce.labels.env == 'live'"
allow = ["POST /charges"]

[[services.api.scopes]]
name = "ana"
risk = "low"
when = "nonce.on_behalf_of == 'user:ana'"
allow = ["GET /mail"]

[[services.api.scopes]]
name = "paced"
risk = "low"
[[services.api.scopes.rules]]
allow = "GET /paced"
rate = "1/h"
when = "!has(nonce.labels.tier)"
[[services.api.scopes.rules]]
allow = "GET /paced"
when = "has(nonce.labels.tier)"

[[services.api.scopes]]
name = "test"
risk = "medium"
allow = ["POST /charges", "GET /mail"]

[agents.worker]
identity = ["any"]
grants = { api = ["live", "ana", "paced", "test"] }
delegate = { depth = 2, to = ["worker", "helper"], children_max = 8 }

[agents.helper]
identity = ["any"]
grants = { api = ["live", "ana", "paced", "test"] }
"#;

async fn mint(stage: &Stage) -> Minted {
    let scopes = json!(["live", "ana", "paced", "test"]);
    let body = json!({"agent": "worker", "task": "t", "service": "api", "scope": scopes, "ttl": "1m"});
    stage.sidecar.orchestrator().mint_with(body).await
}

/// As the holder of the nonce does it, at its own door.
async fn call_door(stage: &Stage, nonce: &str, body: Value) -> Reply {
    let bearer = format!("Bearer {nonce}");
    let fields = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let call = with("POST", "valetkey.internal", "/v1/self/delegate", &fields, &body.to_string());
    stage.sidecar.agent().send(call).await
}

async fn delegate(stage: &Stage, nonce: &str, body: Value) -> String {
    let reply = call_door(stage, nonce, body).await;
    assert_eq!(reply.status, 201, "{}", reply.text());
    reply.json()["nonce"].as_str().expect("a nonce").to_owned()
}

/// As the minter of the nonce does it.
async fn as_minter(stage: &Stage, parent: &str, body: Value) -> String {
    let path = format!("/v1/nonces/{parent}/delegate");
    let (status, answer) = stage.sidecar.orchestrator().call("POST", &path, Some(body)).await;
    assert_eq!(status, 201, "{answer:#}");
    answer["nonce"].as_str().expect("a nonce").to_owned()
}

/// What opens the scopes by itself.
fn said(mut body: Value) -> Value {
    body["labels"] = json!({"env": "live"});
    body["on_behalf_of"] = "user:ana".into();
    body
}

async fn send(stage: &Stage, method: &str, path: &str, nonce: &str) -> Reply {
    let bearer = format!("Bearer {nonce}");
    stage.sidecar.agent().send(with(method, "api.test", path, &[("authorization", &bearer)], "")).await
}

/// The scope of each request that was allowed so far, in turn.
fn scopes(stage: &Stage) -> Vec<String> {
    let is_it =
        |record: &&Value| record["type"] == "decision" && record["decision"] == "allow" && record["service"] == "api";
    let records = stage.sidecar.audit();
    records.iter().filter(is_it).map(|record| record["scope"].as_str().expect("a scope").to_owned()).collect()
}

#[tokio::test]
async fn a_label_of_its_own_opens_no_scope_that_is_closed_above() {
    let stage = Stage::of_policy(&policies::bearer_api(RULES)).await;
    let minted = mint(&stage).await;
    let own = minted.nonce;
    assert_eq!(send(&stage, "POST", "/charges", &own).await.status, 200);
    assert_eq!(send(&stage, "GET", "/mail", &own).await.status, 200);
    let child = as_minter(&stage, &minted.id, said(json!({"agent": "worker"}))).await;
    let grandchild = delegate(&stage, &child, json!({"agent": "helper"})).await;
    for below in [&child, &grandchild] {
        assert_eq!(send(&stage, "POST", "/charges", below).await.status, 200);
        assert_eq!(send(&stage, "GET", "/mail", below).await.status, 200);
    }
    assert_eq!(scopes(&stage), ["test"; 6], "with no other credential than above");
    let narrow = json!({"agent": "worker", "service": "api", "scope": ["live", "ana"]});
    let narrow = as_minter(&stage, &minted.id, said(narrow)).await;
    for (method, path) in [("POST", "/charges"), ("GET", "/mail")] {
        let reply = send(&stage, method, path, &narrow).await;
        assert_eq!((reply.status.as_u16(), reply.refusal()), (403, Some("condition_failed")), "{}", reply.text());
    }
    assert_eq!(stage.upstream.seen().len(), 6);
}

#[tokio::test]
async fn its_holder_does_not_say_on_whose_behalf_it_acts() {
    let stage = Stage::of_policy(&policies::bearer_api(RULES)).await;
    let own = mint(&stage).await.nonce;
    let reply = call_door(&stage, &own, json!({"agent": "helper", "on_behalf_of": "user:ceo"})).await;
    assert_eq!((reply.status.as_u16(), &reply.json()["code"]), (403, &"delegation_exceeds_parent".into()));
    assert_eq!(reply.json()["errors"][0]["pointer"], "/on_behalf_of", "{}", reply.text());
    let body = json!({"agent": "worker", "task": "t", "service": "api", "scope": "test", "on_behalf_of": "user:ana"});
    let own = stage.sidecar.orchestrator().mint_with(body).await.nonce;
    delegate(&stage, &own, json!({"agent": "helper", "on_behalf_of": "user:ana"})).await;
    assert!(!stage.sidecar.audit_text().contains("user:ceo"), "nothing of it is on record");
}

#[tokio::test]
async fn a_label_of_its_own_is_no_way_around_a_rate() {
    let stage = Stage::of_policy(&policies::bearer_api(RULES)).await;
    let own = mint(&stage).await.nonce;
    assert_eq!(send(&stage, "GET", "/paced", &own).await.status, 200);
    assert_eq!(send(&stage, "GET", "/paced", &own).await.refusal(), Some("rate_limited"));
    let child = delegate(&stage, &own, json!({"agent": "worker", "labels": {"tier": "free"}})).await;
    for _ in 0..3 {
        assert_eq!(send(&stage, "GET", "/paced", &child).await.refusal(), Some("rate_limited"));
    }
    assert_eq!(stage.upstream.seen().len(), 1);
}

/// Takes a scope away from the agent above alone, and waits until that is in force.
async fn take_from_worker(stage: &Stage, kept: &str) {
    let path = stage.sidecar.path("policy.toml");
    let text = fs::read_to_string(&path).expect("the policy");
    let all = r#"grants = { api = ["live", "ana", "paced", "test"] }"#;
    assert!(text.contains(all));
    fs::write(path, text.replacen(all, &format!("grants = {{ api = [{kept}] }}"), 1)).expect("our directory");
    let is_it = |record: &Value| record["type"] == "policy" && record["outcome"] == "adopted";
    stage.sidecar.audited(is_it).await;
}

#[tokio::test]
async fn what_was_taken_from_the_agent_above_is_taken_from_below() {
    let enforced = policies::bearer_api(RULES);
    let observed = enforced.replace("[services.api]\n", "[services.api]\nenforce = \"observe\"\nuntil = 2999-01-01\n");
    for policy in [&enforced, &observed] {
        let stage = Stage::of_policy(policy).await;
        let own = mint(&stage).await.nonce;
        let child = delegate(&stage, &own, json!({"agent": "helper", "service": "api", "scope": "test"})).await;
        assert_eq!(send(&stage, "POST", "/charges", &child).await.status, 200);
        take_from_worker(&stage, r#""paced""#).await;
        let reply = send(&stage, "POST", "/charges", &child).await;
        assert_eq!((reply.status.as_u16(), reply.refusal()), (403, Some("out_of_scope")), "{}", reply.text());
        assert_eq!(stage.upstream.seen().len(), 1);
    }
}
