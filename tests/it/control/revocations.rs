//! Ending many nonces by one call, whatever is under way with them.

use serde_json::{Value, json};

use super::callers::{GROUP, open_to_group};
use crate::support::agent::{breaks, get};
use crate::support::orchestrator::Minted;
use crate::support::stranger::{acting, can_be_others};
use crate::support::{Orchestrator, Stage, policies};

async fn mint(orchestrator: &Orchestrator, agent: &str, task: &str) -> Minted {
    orchestrator.mint_with(json!({"agent": agent, "task": task, "service": "api", "scope": "read"})).await
}

/// How many were ended.
async fn revoke(orchestrator: &Orchestrator, body: Value) -> u64 {
    let (status, answer) = orchestrator.call("POST", "/v1/revocations", Some(body.clone())).await;
    assert_eq!(status, 200, "{body}: {answer:#}");
    answer["revoked"].as_u64().expect("a number")
}

const TWO_AGENTS: &str = "\n[agents.other]\nidentity = [\"any\"]\ngrants = { api = [\"read\"] }\n";

#[tokio::test]
async fn each_selector_ends_what_it_names_and_nothing_else() {
    let stage = Stage::of_policy(&format!("{}{TWO_AGENTS}", policies::ONE_API)).await;
    let orchestrator = stage.sidecar.orchestrator();
    let agent = stage.sidecar.agent();
    let mut nonces = Vec::new();
    for (name, task) in [("worker", "one"), ("worker", "two"), ("other", "one"), ("other", "three")] {
        nonces.push(mint(&orchestrator, name, task).await.nonce);
    }
    let refusals = async || {
        let mut refusals = Vec::new();
        for nonce in &nonces {
            refusals.push(agent.get("api.test", "/x", nonce).await.refusal().map(str::to_owned));
        }
        refusals.iter().map(|refusal| refusal.as_deref() == Some("nonce_revoked")).collect::<Vec<_>>()
    };
    assert_eq!(revoke(&orchestrator, json!({"task": "nothing"})).await, 0);
    assert_eq!(revoke(&orchestrator, json!({"service": "none"})).await, 0);
    assert_eq!(refusals().await, [false; 4]);
    assert_eq!(revoke(&orchestrator, json!({"task": "one", "reason": "enough"})).await, 2);
    assert_eq!(refusals().await, [true, false, true, false]);
    assert_eq!(revoke(&orchestrator, json!({"task": "one"})).await, 0, "it can be repeated");
    assert_eq!(revoke(&orchestrator, json!({"agent": "worker"})).await, 1);
    assert_eq!(refusals().await, [true, true, true, false]);
    let again = mint(&orchestrator, "worker", "one").await.nonce;
    assert_eq!(agent.get("api.test", "/x", &again).await.status, 200, "what is minted later lives");
    assert_eq!(revoke(&orchestrator, json!({"service": "api"})).await, 2);
    mint(&orchestrator, "worker", "one").await;
    assert_eq!(revoke(&orchestrator, json!({"all": true})).await, 1);
    let record = stage.sidecar.audited(|record| record["type"] == "revocation" && record["revoked"] == 2).await;
    assert_eq!((&record["task"], &record["reason"]), (&"one".into(), &"enough".into()));
    let ends = || stage.sidecar.audit().iter().filter(|record| record["type"] == "lease_end").count();
    crate::support::sidecar::eventually("an end of each", || (ends() == 6).then_some(())).await;
    let nonces: Vec<&str> = nonces.iter().map(String::as_str).collect();
    stage.assert_silent(&nonces);
}

#[tokio::test]
async fn streams_are_cut_also_where_nobody_reads() {
    for h2 in [false, true] {
        let stage = Stage::new().await;
        let orchestrator = stage.sidecar.orchestrator();
        let (minted, other) = (mint(&orchestrator, "worker", "t").await, mint(&orchestrator, "worker", "other").await);
        let agent = stage.sidecar.agent();
        let mut tunnel = if h2 { agent.tunnel_h2("api.test").await } else { agent.tunnel("api.test").await };
        let stream = tunnel.start(get("api.test", "/endless", &minted.nonce)).await;
        let mut going = agent.tunnel("api.test").await;
        let _other = going.start(get("api.test", "/endless", &other.nonce)).await;
        let begun = std::time::Instant::now();
        assert_eq!(revoke(&orchestrator, json!({"task": "t"})).await, 1);
        assert!(breaks(stream).await, "h2 {h2}: a cut stream is never a whole one");
        let end = stage.sidecar.audited(|record| record["type"] == "end").await;
        assert_eq!((&end["ending"], &end["task"]), (&"cut".into(), &"t".into()), "h2 {h2}, {:?}", begun.elapsed());
        let others = |record: &Value| record["type"] == "end" && record["task"] == "other";
        assert!(!stage.sidecar.audit().iter().any(others), "the other one goes on");
    }
}

#[tokio::test]
async fn what_is_over_and_still_under_way_is_cut_too() {
    let stage = Stage::new().await;
    let orchestrator = stage.sidecar.orchestrator();
    let body = json!({"agent": "worker", "task": "t", "service": "api", "scope": "read", "max_uses": 1});
    let minted = orchestrator.mint_with(body).await;
    let mut tunnel = stage.sidecar.agent().tunnel("api.test").await;
    let stream = tunnel.start(get("api.test", "/endless", &minted.nonce)).await;
    stage.sidecar.audited(|record| record["type"] == "lease_end" && record["cause"] == "spent").await;
    assert_eq!(revoke(&orchestrator, json!({"agent": "worker"})).await, 0, "it was spent before");
    assert!(breaks(stream).await);
    let end = stage.sidecar.audited(|record| record["type"] == "end").await;
    assert_eq!(end["ending"], "cut");
}

#[tokio::test]
async fn what_is_asked_is_read_strictly() {
    let stage = Stage::new().await;
    let orchestrator = stage.sidecar.orchestrator();
    let minted = mint(&orchestrator, "worker", "t").await;
    for body in [
        json!({}),
        json!({"agent": "worker", "task": "t"}),
        json!({"all": false}),
        json!({"all": true, "surprise": 1}),
        json!({"task": minted.nonce}),
        json!([]),
    ] {
        let (status, problem) = orchestrator.call("POST", "/v1/revocations", Some(body.clone())).await;
        assert_eq!((status.as_u16(), &problem["code"]), (400, &"invalid_request".into()), "{body}: {problem:#}");
    }
    let (status, _) = orchestrator.call("GET", "/v1/revocations", None).await;
    assert_eq!(status, 405);
    assert_eq!(stage.sidecar.agent().get("api.test", "/x", &minted.nonce).await.status, 200);
    stage.assert_silent(&[&minted.nonce]);
}

const MINTER: u32 = 54_331;
const OTHER: u32 = 54_332;
const READER: u32 = 54_333;

/// `ours` for `worker`, `theirs` for `other`, and one who only reads.
fn three_minters() -> String {
    let minter = |name: &str, uid: u32, agents: &str, may: &str| {
        format!("[minters.{name}]\nidentity = [\"uid:{uid}\"]\nagents = [\"{agents}\"]\nmay = [{may}]\n")
    };
    let all = "\"mint\", \"read\", \"revoke\"";
    [
        policies::ONE_API,
        TWO_AGENTS,
        &minter("ours", MINTER, "worker", all),
        &minter("theirs", OTHER, "other", all),
        &minter("reader", READER, "*", "\"read\""),
    ]
    .concat()
}

#[tokio::test]
async fn nobody_ends_what_is_anothers() {
    if !can_be_others() {
        return;
    }
    let stage = open_to_group(&three_minters()).await;
    let orchestrator = stage.sidecar.orchestrator();
    let (ours, theirs) = (mint(&orchestrator, "worker", "t").await, mint(&orchestrator, "other", "t").await);
    let call = async |uid: u32, path: &'static str, body: Value| {
        let control = stage.sidecar.control();
        acting(uid, GROUP, move || async move {
            let (status, answer) = Orchestrator::new(control).call("POST", path, Some(body)).await;
            (status.as_u16(), answer)
        })
        .await
    };
    for (uid, body) in
        [(OTHER, json!({"agent": "worker"})), (READER, json!({"all": true})), (READER, json!({"task": "t"}))]
    {
        let (status, problem) = call(uid, "/v1/revocations", body.clone()).await;
        assert_eq!((status, &problem["code"]), (403, &"forbidden".into()), "{uid}: {body}: {problem:#}");
        stage.sidecar.audited(|record| record["type"] == "control_refused" && record["call"] == "revocations").await;
    }
    // The task is the minter's own, and neither has minted these.
    for uid in [MINTER, OTHER] {
        assert_eq!(call(uid, "/v1/tasks/t/complete", json!({})).await, (200, json!({"revoked": 0})));
    }
    assert_eq!(call(READER, "/v1/tasks/t/complete", json!({})).await.0, 403);
    let agent = stage.sidecar.agent();
    for nonce in [&ours.nonce, &theirs.nonce] {
        assert_eq!(agent.get("api.test", "/x", nonce).await.status, 200);
    }
    for body in [json!({"all": true}), json!({"task": "t"}), json!({"service": "api"})] {
        let (status, answer) = call(OTHER, "/v1/revocations", body.clone()).await;
        assert_eq!(status, 200, "{body}: {answer:#}");
        assert_eq!(agent.get("api.test", "/x", &ours.nonce).await.status, 200, "{body} of the other minter");
    }
    assert_eq!(agent.get("api.test", "/x", &theirs.nonce).await.refusal(), Some("nonce_revoked"));
    assert_eq!(call(MINTER, "/v1/revocations", json!({"all": true})).await, (200, json!({"revoked": 1})));
}
