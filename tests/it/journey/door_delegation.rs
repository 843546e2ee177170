//! Delegation at the agent's own door: the same bounds as at the control API, and on record as the agent's doing.

use serde_json::{Value, json};

use crate::support::Stage;
use crate::support::agent::{Reply, with};
use crate::support::orchestrator::Minted;
use crate::support::policies;

const DOOR: &str = "valetkey.internal";

const LINE: &str = r#"
delegate = { depth = 2, to = ["researcher", "foreign"], children_max = 2 }

[agents.researcher]
identity = ["any"]
grants = { api = ["read", "write"] }
delegate = { to = ["researcher"] }

[agents.foreign]
identity = ["any"]
grants = { api = ["read"] }

[agents.quiet]
identity = ["any"]
grants = { api = ["read"] }

[minters.orchestrator]
identity = ["uid:{uid}"]
agents = ["worker", "researcher", "quiet"]
may = ["mint", "read", "revoke"]
"#;

async fn stage() -> Stage {
    let uid = rustix::process::geteuid().as_raw().to_string();
    Stage::of_policy(&format!("{}{}", policies::ONE_API, LINE.replace("{uid}", &uid))).await
}

async fn mint(stage: &Stage, agent: &str, extra: Value) -> Minted {
    let mut body = json!({"agent": agent, "task": "t", "service": "api", "scope": "read", "ttl": "1m"});
    body.as_object_mut().expect("an object").extend(extra.as_object().expect("an object").clone());
    stage.sidecar.orchestrator().mint_with(body).await
}

async fn ask_with(stage: &Stage, nonce: &str, body: &Value, extra: &[(&str, &str)]) -> Reply {
    let bearer = format!("Bearer {nonce}");
    let mut fields = vec![("authorization", bearer.as_str()), ("content-type", "application/json")];
    fields.extend(extra);
    stage.sidecar.agent().send(with("POST", DOOR, "/v1/self/delegate", &fields, &body.to_string())).await
}

async fn ask(stage: &Stage, nonce: &str, body: Value) -> Reply {
    ask_with(stage, nonce, &body, &[]).await
}

async fn delegate(stage: &Stage, nonce: &str, body: Value) -> Minted {
    let reply = ask(stage, nonce, body).await;
    assert_eq!(reply.status, 201, "{}", reply.text());
    let answer = reply.json();
    let text = |name: &str| answer[name].as_str().expect("a text").to_owned();
    Minted { nonce: text("nonce"), id: text("id"), answer: answer.clone() }
}

fn mints(stage: &Stage) -> usize {
    stage.sidecar.audit().iter().filter(|record| record["type"] == "mint").count()
}

#[tokio::test]
async fn an_agent_delegates_its_own_nonce_and_it_is_on_record_as_its_doing() {
    let stage = stage().await;
    let own = mint(&stage, "worker", json!({"max_uses": 3, "labels": {"team": "x"}})).await;
    let child = delegate(&stage, &own.nonce, json!({"agent": "researcher", "ttl": "1h", "reason": "look it up"})).await;
    assert_eq!((&child.answer["parent"], &child.answer["agent"]), (&own.id.as_str().into(), &"researcher".into()));
    assert_eq!((&child.answer["ttl_capped_by"], &child.answer["max_uses"]), (&"parent".into(), &3.into()));
    assert!(child.answer["proxy"].as_str().expect("a URL").starts_with("http://127.0.0.1:"), "{:#}", child.answer);
    let last = delegate(&stage, &child.nonce, json!({"agent": "researcher"})).await;
    let agent = stage.sidecar.agent();
    assert_eq!(agent.get("api.test", "/x", &last.nonce).await.status, 200);
    let (_, view) = stage.sidecar.orchestrator().call("GET", &format!("/v1/nonces/{}", own.id), None).await;
    assert_eq!((&view["children"], &view["uses_left"]), (&1.into(), &2.into()), "a use of each; none for the calls");

    let id = Value::from(last.id.as_str());
    let made = stage.sidecar.audited(|record| record["type"] == "mint" && record["nonce.id"] == id).await;
    assert_eq!(made["minted_by"], "the agent itself", "{made:#}");
    assert_eq!(made["chain"], json!(["worker", "researcher", "researcher"]), "{made:#}");
    assert_eq!(made["parent.id"], child.id.as_str());
    let used = stage.sidecar.audited(|record| record["type"] == "decision" && record["nonce.id"] == id).await;
    assert_eq!((&used["minted_by"], &used["chain"]), (&"orchestrator".into(), &made["chain"]), "{used:#}");

    let bearer = format!("Bearer {}", own.nonce);
    let gone = agent.send(with("DELETE", DOOR, "/v1/self", &[("authorization", &bearer)], "")).await;
    assert_eq!(gone.status, 204, "{}", gone.text());
    for dead in [&child, &last] {
        assert_eq!(agent.get("api.test", "/x", &dead.nonce).await.refusal(), Some("nonce_revoked"));
        assert_eq!(ask(&stage, &dead.nonce, json!({"agent": "researcher"})).await.refusal(), Some("nonce_revoked"));
    }
    stage.assert_silent(&[&own.nonce, &child.nonce, &last.nonce]);
}

#[tokio::test]
async fn an_agent_that_delegates_all_it_can_leaves_room_for_its_minter() {
    let uid = rustix::process::geteuid().as_raw().to_string();
    let line = LINE.replace("{uid}", &uid).replace("children_max = 2", "children_max = 9");
    let line = line.replace("may = [\"mint\"", "nonces_max = 6\nmay = [\"mint\"");
    let stage = Stage::of_policy(&format!("{}{line}", policies::ONE_API)).await;
    let own = mint(&stage, "worker", json!({})).await;
    let child = delegate(&stage, &own.nonce, json!({"agent": "researcher"})).await;
    // By whichever of its nonces: they have one share.
    delegate(&stage, &child.nonce, json!({"agent": "researcher"})).await;
    let before = mints(&stage);
    for nonce in [&own.nonce, &child.nonce] {
        let refused = ask(&stage, nonce, json!({"agent": "researcher"})).await;
        assert_eq!((refused.status.as_u16(), refused.json()["code"].clone()), (429, "mint_rate_limited".into()));
    }
    assert_eq!(mints(&stage), before, "nothing is on record of what nobody got");
    for _ in 0..2 {
        mint(&stage, "quiet", json!({})).await;
    }
    // The minter itself may fill what is its own.
    let orchestrator = stage.sidecar.orchestrator();
    let by_minter = async || {
        let path = format!("/v1/nonces/{}/delegate", own.id);
        orchestrator.call("POST", &path, Some(json!({"agent": "researcher"}))).await.0.as_u16()
    };
    assert_eq!((by_minter().await, by_minter().await), (201, 429));
}

#[tokio::test]
async fn nothing_beyond_the_bounds_of_the_control_api_is_made() {
    let stage = stage().await;
    let own = mint(&stage, "worker", json!({"max_uses": 3, "labels": {"team": "x"}})).await;
    let quiet = mint(&stage, "quiet", json!({})).await;
    for (nonce, body, code) in [
        (&quiet, json!({"agent": "researcher"}), "delegation_exceeds_parent"),
        (&own, json!({"agent": "worker"}), "delegation_exceeds_parent"),
        (&own, json!({"agent": "researcher", "service": "api", "scope": "write"}), "delegation_exceeds_parent"),
        (&own, json!({"agent": "researcher", "max_uses": 4}), "delegation_exceeds_parent"),
        (&own, json!({"agent": "researcher", "labels": {"team": "y"}}), "delegation_exceeds_parent"),
        // The policy lets it go there, and the minter of the nonce has no say over that agent.
        (&own, json!({"agent": "foreign"}), "forbidden"),
        (&own, json!({"agent": "nobody"}), "forbidden"),
        (&own, json!({"agent": "researcher", "task": "another"}), "invalid_request"),
        (&own, json!({}), "invalid_request"),
    ] {
        let at_the_door = ask(&stage, &nonce.nonce, body.clone()).await;
        assert_eq!(at_the_door.json()["code"], code, "{body}");
        let path = format!("/v1/nonces/{}/delegate", nonce.id);
        let (status, problem) = stage.sidecar.orchestrator().call("POST", &path, Some(body.clone())).await;
        assert_eq!((status.as_u16(), &problem), (at_the_door.status.as_u16(), &at_the_door.json()), "{body}");
    }
    let keyed = ask_with(&stage, &own.nonce, &json!({"agent": "researcher"}), &[("idempotency-key", "k")]).await;
    assert_eq!((keyed.status.as_u16(), &keyed.json()["errors"][0]["header"]), (400, &"Idempotency-Key".into()));
    assert_eq!(mints(&stage), 2, "those of the minter");
    let own = mint(&stage, "worker", json!({})).await;
    for _ in 0..2 {
        delegate(&stage, &own.nonce, json!({"agent": "researcher"})).await;
    }
    let third = ask(&stage, &own.nonce, json!({"agent": "researcher"})).await;
    assert_eq!(third.json()["code"], "delegation_exceeds_parent", "children_max");
}

#[tokio::test]
async fn what_is_too_risky_for_its_minter_by_now_is_neither_delegated_nor_renewed_at_the_door() {
    let lines = LINE.replace("\ndelegate = { depth = 2", "self_renew = true\ndelegate = { depth = 2");
    let lines = lines.replace(
        "may = [\"mint\", \"read\", \"revoke\"]",
        "may = [\"mint\", \"read\", \"revoke\"]\nmax_risk = \"medium\"",
    );
    let one_api = policies::ONE_API.replace("\"read\", \"write\", \"once\"] }", "\"read\", \"write\"] }");
    let uid = rustix::process::geteuid().as_raw().to_string();
    let stage = Stage::of_policy(&format!("{one_api}{}", lines.replace("{uid}", &uid))).await;
    let reader = mint(&stage, "worker", json!({})).await;
    let writer = mint(&stage, "worker", json!({"scope": ["read", "write"]})).await;
    let only_reading = json!({"agent": "researcher", "service": "api", "scope": "read"});
    let renew = async |nonce: &str| {
        let bearer = format!("Bearer {nonce}");
        stage.sidecar.agent().send(with("POST", DOOR, "/v1/self/renew", &[("authorization", &bearer)], "")).await
    };
    delegate(&stage, &writer.nonce, json!({"agent": "researcher"})).await;
    assert_eq!(renew(&writer.nonce).await.status, 200);

    let path = stage.sidecar.path("policy.toml");
    let text = std::fs::read_to_string(&path).expect("a policy");
    std::fs::write(&path, text.replace("max_risk = \"medium\"", "max_risk = \"low\"")).expect("a policy");
    stage.sidecar.signal("HUP");
    stage.sidecar.audited(|record| record["type"] == "policy" && record["outcome"] == "adopted").await;
    let (mints, renewals) = (mints(&stage), renewals(&stage));
    for reply in [ask(&stage, &writer.nonce, json!({"agent": "researcher"})).await, renew(&writer.nonce).await] {
        assert_eq!((reply.status.as_u16(), &reply.json()["code"]), (403, &"forbidden".into()), "{}", reply.text());
        assert!(reply.text().contains("max_risk"), "{}", reply.text());
    }
    assert_eq!((self::mints(&stage), self::renewals(&stage)), (mints, renewals), "nothing came of it");
    // What is harmless goes on: a part of it, and another nonce.
    delegate(&stage, &writer.nonce, only_reading).await;
    delegate(&stage, &reader.nonce, json!({"agent": "researcher"})).await;
    assert_eq!(renew(&reader.nonce).await.status, 200);
}

fn renewals(stage: &Stage) -> usize {
    stage.sidecar.audit().iter().filter(|record| record["type"] == "renew").count()
}
