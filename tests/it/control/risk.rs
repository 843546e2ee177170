//! Levels of risk: less is allowed from the next request on, and nothing ends.

use serde_json::{Value, json};

use super::callers::{GROUP, open_to_group};
use crate::support::agent::{Tunnel, get, with};
use crate::support::stranger::{acting, can_be_others};
use crate::support::{Orchestrator, Stage, policies};

const LEVELS: &str = "\n[risk.levels]\nelevated = { max_risk = \"low\" }\ncritical = { max_risk = \"none\" }\n";

async fn stage() -> Stage {
    Stage::of_policy(&format!("{}{LEVELS}", policies::ONE_API)).await
}

async fn put(orchestrator: &Orchestrator, body: Value) -> Value {
    let (status, answer) = orchestrator.call("POST", "/v1/risk", Some(body.clone())).await;
    assert_eq!(status, 200, "{body}: {answer:#}");
    answer
}

#[tokio::test]
async fn a_condition_can_look_at_the_level_also_at_that_of_the_nonce_above() {
    let levels = "\n[risk.levels]\nwatched = { max_risk = \"medium\" }\n";
    let policy = policies::ONE_API.replace("risk = \"low\"\n", "risk = \"low\"\nwhen = \"risk == 'normal'\"\n");
    let line =
        "delegate = { to = [\"helper\"] }\n[agents.helper]\nidentity = [\"any\"]\ngrants = { api = [\"read\"] }\n";
    let stage = Stage::of_policy(&format!("{policy}{line}{levels}")).await;
    let orchestrator = stage.sidecar.orchestrator();
    let own = orchestrator.mint("worker", "api", "read").await;
    let path = format!("/v1/nonces/{}/delegate", own.id);
    let (status, child) = orchestrator.call("POST", &path, Some(json!({"agent": "helper"}))).await;
    assert_eq!(status, 201, "{child:#}");
    let child = child["nonce"].as_str().expect("a nonce").to_owned();
    let agent = stage.sidecar.agent();
    for (whom, refused) in [(None, [false, false]), (Some("worker"), [true, true]), (Some("helper"), [false, true])] {
        if let Some(whom) = whom {
            put(&orchestrator, json!({"agent": whom, "level": "watched", "ttl": "10m"})).await;
        }
        for (nonce, is_refused) in [&own.nonce, &child].into_iter().zip(refused) {
            let reply = agent.get("api.test", "/x", nonce).await;
            assert_eq!(reply.refusal(), is_refused.then_some("condition_failed"), "{whom:?}");
        }
        if let Some(whom) = whom {
            put(&orchestrator, json!({"agent": whom, "level": "normal"})).await;
        }
    }
}

/// The refusals of a `GET` (low) and a `POST` (medium).
async fn refusals(tunnel: &mut Tunnel, nonce: &str) -> [Option<String>; 2] {
    let bearer = format!("Bearer {nonce}");
    let low = tunnel.send(get("api.test", "/x", nonce)).await.refusal().map(str::to_owned);
    let post = with("POST", "api.test", "/x", &[("authorization", &bearer)], "");
    [low, tunnel.send(post).await.refusal().map(str::to_owned)]
}

fn refused(which: [bool; 2]) -> [Option<String>; 2] {
    which.map(|is_refused| is_refused.then(|| "risk_restricted".to_owned()))
}

#[tokio::test]
async fn a_level_lowers_what_is_allowed_on_open_connections_and_is_taken_back() {
    let stage = stage().await;
    let orchestrator = stage.sidecar.orchestrator();
    let body = json!({"agent": "worker", "task": "t", "service": "api", "scope": ["read", "write"]});
    let minted = orchestrator.mint_with(body).await;
    for h2 in [false, true] {
        let agent = stage.sidecar.agent();
        let mut tunnel = if h2 { agent.tunnel_h2("api.test").await } else { agent.tunnel("api.test").await };
        for whom in [json!({"agent": "worker"}), json!({"task": "t"})] {
            let at = |level: &str, ttl: Option<&str>| {
                let mut body = whom.clone();
                body["level"] = level.into();
                if let Some(ttl) = ttl {
                    body["ttl"] = ttl.into();
                }
                put(&orchestrator, body)
            };
            assert_eq!(refusals(&mut tunnel, &minted.nonce).await, refused([false, false]));
            let given = at("elevated", Some("10m")).await;
            assert_eq!((&given["level"], &given["max_risk"]), (&"elevated".into(), &"low".into()));
            assert_eq!(refusals(&mut tunnel, &minted.nonce).await, refused([false, true]), "{whom} h2 {h2}");
            at("critical", Some("10m")).await;
            assert_eq!(refusals(&mut tunnel, &minted.nonce).await, refused([true, true]), "{whom} h2 {h2}");
            let (_, lease) = orchestrator.call("GET", &format!("/v1/nonces/{}", minted.id), None).await;
            assert_eq!(lease["risk"]["level"], "critical");
            assert_eq!(at("normal", None).await, json!({"level": "normal", "max_risk": null, "until": null}));
        }
        assert_eq!(refusals(&mut tunnel, &minted.nonce).await, refused([false, false]), "nothing has ended");
    }
    let record = stage.sidecar.audited(|record| record["type"] == "risk" && record["level"] == "elevated").await;
    assert_eq!((&record["agent"], &record["max_risk"]), (&"worker".into(), &"low".into()));
    stage.assert_silent(&[&minted.nonce]);
}

#[tokio::test]
async fn a_refusal_says_until_when_and_a_level_ends_by_itself() {
    let stage = stage().await;
    let orchestrator = stage.sidecar.orchestrator();
    let nonce = stage.writer().await;
    put(&orchestrator, json!({"agent": "worker", "level": "elevated", "ttl": 1, "reason": "odd hours"})).await;
    let mut tunnel = stage.sidecar.agent().tunnel("api.test").await;
    let bearer = format!("Bearer {nonce}");
    let post = || with("POST", "api.test", "/x", &[("authorization", &bearer)], "");
    let reply = tunnel.send(post()).await;
    assert_eq!((reply.status.as_u16(), reply.refusal()), (403, Some("risk_restricted")), "{}", reply.text());
    assert!(reply.text().contains("level of risk"), "{}", reply.text());
    let denied = stage.sidecar.audited(|record| record["type"] == "decision" && record["decision"] == "deny").await;
    assert_eq!((&denied["code"], &denied["scope"]), (&"risk_restricted".into(), &"write".into()));
    let mut restricted = true;
    for _ in 0..100 {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        restricted = tunnel.send(post()).await.refusal().is_some();
        if !restricted {
            break;
        }
    }
    assert!(!restricted, "it has ended");
}

#[tokio::test]
async fn an_answer_under_way_goes_on_and_explaining_knows_the_level() {
    let stage = stage().await;
    let orchestrator = stage.sidecar.orchestrator();
    let minted = orchestrator.mint("worker", "api", "read").await;
    let mut tunnel = stage.sidecar.agent().tunnel("api.test").await;
    let stream = tunnel.start(get("api.test", "/sse", &minted.nonce)).await;
    put(&orchestrator, json!({"task": "task-1", "level": "critical", "ttl": "10m"})).await;
    let reply = crate::support::agent::read(stream).await.expect("whole");
    assert_eq!(reply.text().matches("data:").count(), 5);
    let explain = async |whom: Value| {
        let mut body = json!({"method": "GET", "url": "https://api.test/x"});
        body.as_object_mut().expect("an object").extend(whom.as_object().expect("an object").clone());
        orchestrator.call("POST", "/v1/explain", Some(body)).await.1["code"].clone()
    };
    assert_eq!(explain(json!({"id": minted.id})).await, "risk_restricted");
    assert_eq!(explain(json!({"agent": "worker"})).await, Value::Null, "another task of it is not at that level");
    put(&orchestrator, json!({"agent": "worker", "level": "critical", "ttl": "10m"})).await;
    assert_eq!(explain(json!({"agent": "worker"})).await, "risk_restricted", "without a nonce it is the agent's own");
}

#[tokio::test]
async fn what_is_said_is_read_strictly() {
    let stage = stage().await;
    let orchestrator = stage.sidecar.orchestrator();
    for (body, status, code) in [
        (json!({"agent": "worker", "level": "elevated"}), 400, "invalid_request"),
        (json!({"agent": "worker", "level": "unheard-of", "ttl": 60}), 400, "invalid_request"),
        (json!({"agent": "worker", "level": "elevated", "ttl": "2d"}), 400, "invalid_request"),
        (json!({"agent": "worker", "level": "normal", "ttl": 60}), 400, "invalid_request"),
        (json!({"agent": "worker", "task": "t", "level": "elevated", "ttl": 60}), 400, "invalid_request"),
        (json!({"level": "elevated", "ttl": 60}), 400, "invalid_request"),
        (json!({"agent": "worker", "level": "elevated", "ttl": 60, "surprise": 1}), 400, "invalid_request"),
        (json!({"agent": "nobody", "level": "elevated", "ttl": 60}), 404, "unknown_agent"),
    ] {
        let (found, problem) = orchestrator.call("POST", "/v1/risk", Some(body.clone())).await;
        assert_eq!((found.as_u16(), &problem["code"]), (status, &code.into()), "{body}: {problem:#}");
    }
    let nonce = stage.reader().await;
    assert_eq!(stage.sidecar.agent().get("api.test", "/x", &nonce).await.status, 200);
}

const MONITOR: u32 = 54_361;
const MINTER: u32 = 54_362;

#[tokio::test]
async fn a_monitor_says_it_of_its_own_agents_alone() {
    if !can_be_others() {
        return;
    }
    let other = "\n[agents.other]\nidentity = [\"any\"]\ngrants = { api = [\"read\"] }\n";
    let minters = format!(
        "[minters.monitor]\nidentity = [\"uid:{MONITOR}\"]\nagents = [\"other\"]\nmay = [\"risk\"]\n\
         [minters.minter]\nidentity = [\"uid:{MINTER}\"]\nagents = [\"*\"]\nmay = [\"mint\", \"read\", \"revoke\"]\n"
    );
    let stage = open_to_group(&[policies::ONE_API, LEVELS, other, &minters].concat()).await;
    let orchestrator = stage.sidecar.orchestrator();
    let say = async |uid: u32, body: Value| {
        let control = stage.sidecar.control();
        acting(uid, GROUP, move || async move {
            Orchestrator::new(control).call("POST", "/v1/risk", Some(body)).await.0.as_u16()
        })
        .await
    };
    let (ours, theirs) = (stage.reader().await, orchestrator.mint("other", "api", "read").await.nonce);
    let critical = |whom: &str, name: &str| json!({whom: name, "level": "critical", "ttl": 60});
    assert_eq!(say(MONITOR, critical("agent", "worker")).await, 403);
    assert_eq!(say(MINTER, critical("agent", "worker")).await, 403);
    let agent = stage.sidecar.agent();
    // Both are for the same task, and the monitor watches one of the two agents.
    assert_eq!(say(MONITOR, critical("task", "task-1")).await, 200);
    assert_eq!(agent.get("api.test", "/x", &ours).await.status, 200);
    assert_eq!(agent.get("api.test", "/x", &theirs).await.refusal(), Some("risk_restricted"));
}

#[tokio::test]
async fn a_level_of_an_agent_holds_for_what_was_delegated_from_it() {
    let child = "\ndelegate = { to = [\"helper\"] }\n[agents.helper]\nidentity = [\"any\"]\ngrants = { api = [\"read\", \"write\"] }\n";
    let stage = Stage::of_policy(&format!("{}{child}{LEVELS}", policies::ONE_API)).await;
    let orchestrator = stage.sidecar.orchestrator();
    let body = json!({"agent": "worker", "task": "t", "service": "api", "scope": ["read", "write"]});
    let parent = orchestrator.mint_with(body).await;
    let path = format!("/v1/nonces/{}/delegate", parent.id);
    let (status, made) = orchestrator.call("POST", &path, Some(json!({"agent": "helper"}))).await;
    assert_eq!(status, 201, "{made:#}");
    let nonce = made["nonce"].as_str().expect("a nonce");
    let mut tunnel = stage.sidecar.agent().tunnel("api.test").await;
    assert_eq!(refusals(&mut tunnel, nonce).await, refused([false, false]));
    put(&orchestrator, json!({"agent": "worker", "level": "elevated", "ttl": "10m"})).await;
    assert_eq!(refusals(&mut tunnel, nonce).await, refused([false, true]), "the one above may no more than that");
}
