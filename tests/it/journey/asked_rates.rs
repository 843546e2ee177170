//! The rate of a whole nonce: asked for at its minting or in a delegation, at most that of the nonce above, kept by all
//! that lie below it together.

use serde_json::{Value, json};

use crate::support::agent::with;
use crate::support::orchestrator::Minted;
use crate::support::{Stage, policies};

const LINE: &str = r#"
delegate = { depth = 3, to = ["researcher"] }

[agents.researcher]
identity = ["any"]
grants = { api = ["read", "write"] }
delegate = { depth = 3, to = ["researcher"] }
"#;

async fn stage() -> Stage {
    Stage::of_policy(&format!("{}{LINE}", policies::ONE_API)).await
}

async fn mint(stage: &Stage, extra: Value) -> Minted {
    let mut body = json!({"agent": "worker", "task": "t", "service": "api", "scope": ["read", "write"]});
    body.as_object_mut().expect("an object").extend(extra.as_object().expect("an object").clone());
    stage.sidecar.orchestrator().mint_with(body).await
}

/// By the minter, through the control API.
async fn by_minter(stage: &Stage, parent: &Minted, rate: Option<&str>) -> (u16, Value) {
    let path = format!("/v1/nonces/{}/delegate", parent.id);
    let (status, answer) = stage.sidecar.orchestrator().call("POST", &path, Some(body(rate))).await;
    (status.as_u16(), answer)
}

/// By the agent, at its own door.
async fn by_agent(stage: &Stage, parent: &Minted, rate: Option<&str>) -> (u16, Value) {
    let bearer = format!("Bearer {}", parent.nonce);
    let fields = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let request = with("POST", "valetkey.internal", "/v1/self/delegate", &fields, &body(rate).to_string());
    let reply = stage.sidecar.agent().send(request).await;
    (reply.status.as_u16(), reply.json().clone())
}

fn body(rate: Option<&str>) -> Value {
    rate.map_or_else(|| json!({"agent": "researcher"}), |rate| json!({"agent": "researcher", "rate": rate}))
}

fn minted((status, answer): (u16, Value)) -> Minted {
    assert_eq!(status, 201, "{answer:#}");
    let text = |name: &str| answer[name].as_str().expect("a text").to_owned();
    Minted { nonce: text("nonce"), id: text("id"), answer }
}

fn refused((status, answer): (u16, Value)) -> (u16, Value, Value) {
    (status, answer["code"].clone(), answer["errors"][0]["pointer"].clone())
}

/// Whether a request was let through, and what was said otherwise.
async fn asked(stage: &Stage, nonce: &Minted) -> Result<(), String> {
    let reply = stage.sidecar.agent().get("api.test", "/x", &nonce.nonce).await;
    reply.refusal().map_or(Ok(()), |code| Err(code.to_owned()))
}

fn too_fast() -> Result<(), String> {
    Err("rate_limited".to_owned())
}

#[tokio::test]
async fn a_nonce_keeps_the_rate_that_was_asked_for_at_its_minting() {
    let stage = stage().await;
    let own = mint(&stage, json!({"rate": "2/h"})).await;
    assert_eq!((&own.answer["rate"], &own.answer["rate_capped_by"]), (&"2/h".into(), &Value::Null));
    assert_eq!((asked(&stage, &own).await, asked(&stage, &own).await), (Ok(()), Ok(())));
    let post = with("POST", "api.test", "/x", &[("authorization", &format!("Bearer {}", own.nonce))], "");
    let reply = stage.sidecar.agent().send(post).await;
    assert_eq!((reply.status.as_u16(), reply.refusal()), (429, Some("rate_limited")), "of another scope, too");
    let (_, view) = stage.sidecar.orchestrator().call("GET", &format!("/v1/nonces/{}", own.id), None).await;
    assert_eq!(view["rate"], "2/h");
    let audit = stage.sidecar.audit();
    assert_eq!(audit.iter().find(|record| record["type"] == "mint").expect("a record")["rate"], "2/h");
}

#[tokio::test]
async fn at_both_doors_a_delegation_gets_at_most_the_rate_above() {
    let stage = stage().await;
    let own = mint(&stage, json!({"rate": "10/min"})).await;
    let wrong = (403, Value::from("delegation_exceeds_parent"), Value::from("/rate"));
    for fast in ["11/min", "1/s", "60/h"] {
        assert_eq!(refused(by_minter(&stage, &own, Some(fast)).await), wrong, "{fast}");
        assert_eq!(refused(by_agent(&stage, &own, Some(fast)).await), wrong, "{fast}");
    }
    let unreadable = (400, Value::from("invalid_request"), Value::from("/rate"));
    assert_eq!(refused(by_minter(&stage, &own, Some("often")).await), unreadable);
    assert_eq!(refused(by_agent(&stage, &own, Some("often")).await), unreadable);
    for child in [by_minter(&stage, &own, None).await, by_agent(&stage, &own, None).await] {
        let child = minted(child);
        assert_eq!((&child.answer["rate"], &child.answer["rate_capped_by"]), (&"10/min".into(), &"parent".into()));
        let below = minted(by_agent(&stage, &child, Some("3/h")).await);
        assert_eq!((&below.answer["rate"], &below.answer["rate_capped_by"]), (&"3/h".into(), &Value::Null));
        assert_eq!(refused(by_agent(&stage, &below, Some("10/min")).await), wrong, "the nearest above decides");
    }
}

#[tokio::test]
async fn a_rate_holds_for_a_nonce_and_all_below_it_together() {
    let stage = stage().await;
    let own = mint(&stage, json!({"rate": "4/h"})).await;
    let slow = minted(by_minter(&stage, &own, Some("1/h")).await);
    let other = minted(by_agent(&stage, &own, None).await);
    assert_eq!((asked(&stage, &slow).await, asked(&stage, &slow).await), (Ok(()), too_fast()), "its own");
    assert_eq!((asked(&stage, &other).await, asked(&stage, &own).await), (Ok(()), Ok(())));
    assert_eq!((asked(&stage, &other).await, asked(&stage, &other).await), (Ok(()), too_fast()), "four of them all");
    assert_eq!(asked(&stage, &own).await, too_fast());
    assert_eq!(asked(&stage, &mint(&stage, json!({})).await).await, Ok(()));
}

#[tokio::test]
async fn a_nonce_of_one_scope_is_not_said_to_be_faster_than_that() {
    let policy = policies::ONE_API.replace("risk = \"low\"\n", "risk = \"low\"\nrate = \"3/h\"\n");
    let stage = Stage::of_policy(&policy).await;
    let given = mint(&stage, json!({"scope": "read", "rate": "9/h"})).await.answer;
    assert_eq!((&given["rate"], &given["rate_capped_by"]), (&"3/h".into(), &"services.api.scopes.read.rate".into()));
    let given = mint(&stage, json!({"scope": "read", "rate": "2/h"})).await.answer;
    assert_eq!((&given["rate"], &given["rate_capped_by"]), (&"2/h".into(), &Value::Null));
}
