//! A retried mint is the same mint.

use serde_json::{Value, json};

use crate::support::Stage;
use crate::support::orchestrator::{Orchestrator, post};

async fn mint(orchestrator: &Orchestrator, key: &str, task: &str) -> (u16, Value, bool) {
    let body = json!({"agent": "worker", "task": task, "service": "api", "scope": "read"}).to_string();
    let mut request = post("/v1/nonces", "application/json", &body);
    request.headers_mut().insert("idempotency-key", key.parse().expect("a value"));
    let (status, headers, body) = orchestrator.exchange(request).await;
    let answer = serde_json::from_slice(&body).expect("JSON");
    (status.as_u16(), answer, headers.contains_key("idempotency-replayed"))
}

#[tokio::test]
async fn the_same_key_and_body_give_the_same_lease_and_nonce() {
    let stage = Stage::new().await;
    let orchestrator = stage.sidecar.orchestrator();
    let (status, first, was_replayed) = mint(&orchestrator, "k1", "t").await;
    assert_eq!((status, was_replayed), (201, false));
    let (status, again, was_replayed) = mint(&orchestrator, "k1", "t").await;
    assert_eq!((status, was_replayed), (201, true));
    assert_eq!((&first["id"], &first["nonce"]), (&again["id"], &again["nonce"]));
    let nonce = again["nonce"].as_str().expect("a nonce");
    assert_eq!(stage.sidecar.agent().get("api.test", "/x", nonce).await.status, 200);
    let mints = stage.sidecar.audit().into_iter().filter(|record| record["type"] == "mint").count();
    assert_eq!(mints, 1, "one mint is on record");
    let (_, other, _) = mint(&orchestrator, "k2", "t").await;
    assert_ne!(first["nonce"], other["nonce"]);
}

#[tokio::test]
async fn many_at_once_make_one() {
    let stage = Stage::new().await;
    let control = stage.sidecar.control();
    let tries = (0..16).map(|_| {
        let orchestrator = Orchestrator::new(control.clone());
        tokio::spawn(async move { mint(&orchestrator, "same", "t").await.1["nonce"].clone() })
    });
    let mut nonces = Vec::new();
    for tried in tries.collect::<Vec<_>>() {
        nonces.push(tried.await.expect("an answer"));
    }
    assert!(nonces[0].is_string() && nonces.windows(2).all(|two| two[0] == two[1]), "{nonces:?}");
}

#[tokio::test]
async fn another_body_or_a_dead_lease_is_a_conflict() {
    let stage = Stage::new().await;
    let orchestrator = stage.sidecar.orchestrator();
    let (_, first, _) = mint(&orchestrator, "k", "t").await;
    let (status, problem, _) = mint(&orchestrator, "k", "another").await;
    assert_eq!((status, &problem["code"]), (409, &"idempotency_conflict".into()));
    orchestrator.revoke(first["id"].as_str().expect("an id")).await;
    let (status, problem, _) = mint(&orchestrator, "k", "t").await;
    assert_eq!((status, &problem["code"]), (409, &"idempotency_conflict".into()), "the dead do not come back");
    let (status, problem, _) = mint(&orchestrator, &"k".repeat(256), "t").await;
    assert_eq!((status, &problem["code"]), (400, &"invalid_request".into()));
}
