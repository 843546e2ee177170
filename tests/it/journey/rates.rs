//! How often and how fast: uses, rates, what a task shares, and how long an agent may.

use std::collections::BTreeMap;
use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::agent::{Reply, Tunnel, get, with};
use crate::support::orchestrator::Minted;
use crate::support::{Stage, policies};

/// [`policies::ONE_API`] with a line in its scope `read`.
fn scope_with(line: &str) -> String {
    policies::ONE_API.replace("risk = \"low\"\n", &format!("risk = \"low\"\n{line}\n"))
}

/// [`policies::ONE_API`] with a line in its agent.
fn agent_with(line: &str) -> String {
    policies::ONE_API.replace("identity = [\"any\"]\n", &format!("identity = [\"any\"]\n{line}\n"))
}

fn asking(extra: &Value) -> Value {
    let mut body = json!({"agent": "worker", "task": "t", "service": "api", "scope": "read"});
    body.as_object_mut().expect("an object").extend(extra.as_object().expect("an object").clone());
    body
}

async fn mint(stage: &Stage, extra: Value) -> Minted {
    stage.sidecar.orchestrator().mint_with(asking(&extra)).await
}

/// Asks for a nonce that is not given; status and code.
async fn not_minted(stage: &Stage, extra: Value) -> (StatusCode, String) {
    let (status, problem) = stage.sidecar.orchestrator().call("POST", "/v1/nonces", Some(asking(&extra))).await;
    (status, problem["code"].as_str().expect("a code").to_owned())
}

async fn uses_left(stage: &Stage, minted: &Minted) -> Value {
    let (_, lease) = stage.sidecar.orchestrator().call("GET", &format!("/v1/nonces/{}", minted.id), None).await;
    lease["uses_left"].clone()
}

fn outcome(reply: &Reply) -> (u16, Option<&str>) {
    (reply.status.as_u16(), reply.refusal())
}

fn retry_after(reply: &Reply) -> u64 {
    reply.headers["retry-after"].to_str().expect("text").parse().expect("whole seconds")
}

/// Tunnels of clients of their own.
async fn tunnels(stage: &Stage, count: usize) -> Vec<Tunnel> {
    let mut tunnels = Vec::new();
    for _ in 0..count {
        tunnels.push(stage.sidecar.agent().tunnel("api.test").await);
    }
    tunnels
}

/// All of them ask at once, the first with the first nonce and so on in turn; the tunnels and how many got which answer.
async fn at_once(tunnels: Vec<Tunnel>, path: &str, nonces: &[&str]) -> (Vec<Tunnel>, BTreeMap<String, usize>) {
    let mut asking = JoinSet::new();
    for (mut tunnel, nonce) in tunnels.into_iter().zip(nonces.iter().cycle()) {
        let request = get("api.test", path, nonce);
        asking.spawn(async move {
            let reply = tunnel.send(request).await;
            (tunnel, reply.refusal().map_or_else(|| reply.status.to_string(), str::to_owned))
        });
    }
    let (mut tunnels, mut answers) = (Vec::new(), BTreeMap::new());
    while let Some(asked) = asking.join_next().await {
        let (tunnel, answer) = asked.expect("an answer");
        tunnels.push(tunnel);
        *answers.entry(answer).or_default() += 1;
    }
    (tunnels, answers)
}

fn counts<const N: usize>(counts: [(&str, usize); N]) -> BTreeMap<String, usize> {
    counts.into_iter().map(|(answer, count)| (answer.to_owned(), count)).collect()
}

#[tokio::test]
async fn a_rule_has_a_pace_of_its_own_for_each_nonce_and_all_above_it() {
    let rules =
        "rules = [{ allow = \"GET /slow/{*path}\", rate = \"2/h\" }, { allow = \"GET /slow/most\", rate = \"1/h\" }]";
    let delegating = "delegate = { to = [\"worker\"] }\ngrants";
    let policy = scope_with(rules).replace("grants = { api = [\"read\"", &format!("{delegating} = {{ api = [\"read\""));
    let stage = Stage::of_policy(&policy).await;
    let (own, other) = (mint(&stage, json!({})).await, mint(&stage, json!({})).await);
    let path = format!("/v1/nonces/{}/delegate", own.id);
    let (status, child) = stage.sidecar.orchestrator().call("POST", &path, Some(json!({"agent": "worker"}))).await;
    assert_eq!(status, 201, "{child:#}");
    let child = child["nonce"].as_str().expect("a nonce").to_owned();
    let agent = stage.sidecar.agent();
    // `GET /{*path}` of the same scope allows all of it, too, and is no way around.
    assert_eq!(outcome(&agent.get("api.test", "/slow/most", &child).await), (200, None));
    let fast = agent.get("api.test", "/slow/most", &own.nonce).await;
    assert_eq!(outcome(&fast), (429, Some("rate_limited")), "a use of the child is one of its parent");
    assert!((3500..=3600).contains(&retry_after(&fast)), "{}", retry_after(&fast));
    assert_eq!(outcome(&agent.get("api.test", "/slow/b", &own.nonce).await), (200, None), "refused ones cost nothing");
    for nonce in [&own.nonce, &child] {
        assert_eq!(outcome(&agent.get("api.test", "/slow/c", nonce).await), (429, Some("rate_limited")));
        assert_eq!(outcome(&agent.get("api.test", "/fast", nonce).await), (200, None));
    }
    assert_eq!(outcome(&agent.get("api.test", "/slow/most", &other.nonce).await), (200, None), "each has its own");
}

/// 200 rounds, or as many as `VALETKEY_TEST_ROUNDS` says. The 64 keep their connections. Most of the time is debug builds':
/// for many rounds, name a release binary in `VALETKEY_TEST_BINARY`.
#[tokio::test]
async fn of_64_clients_with_one_use_exactly_one_is_served() {
    let rounds: usize = std::env::var("VALETKEY_TEST_ROUNDS").map_or(200, |rounds| rounds.parse().expect("a number"));
    let stage = Stage::new().await;
    let mut clients = tunnels(&stage, 64).await;
    for round in 0..rounds {
        let minted = mint(&stage, json!({"max_uses": 1})).await;
        let answers;
        (clients, answers) = at_once(clients, &format!("/round/{round}"), &[&minted.nonce]).await;
        assert_eq!(answers, counts([("200 OK", 1), ("nonce_spent", 63)]), "round {round}");
    }
    let mut hits: Vec<String> = stage.upstream.seen().into_iter().map(|seen| seen.target).collect();
    hits.sort_unstable();
    hits.dedup();
    assert_eq!((hits.len(), stage.upstream.seen().len()), (rounds, rounds), "one hit in every round");
}

#[tokio::test]
async fn a_rate_holds_for_each_nonce_and_says_when_to_come_again() {
    let stage = Stage::of_policy(&scope_with("rate = \"3/d\"")).await;
    let (first, second) = (mint(&stage, json!({"max_uses": 9})).await, mint(&stage, json!({})).await);
    let (clients, answers) = at_once(tunnels(&stage, 16).await, "/x", &[&first.nonce]).await;
    assert_eq!(answers, counts([("200 OK", 3), ("rate_limited", 13)]));
    assert_eq!((stage.upstream.seen().len(), uses_left(&stage, &first).await), (3, 6.into()), "none of them is a use");
    let reply = stage.sidecar.agent().get("api.test", "/x", &first.nonce).await;
    assert_eq!(outcome(&reply), (429, Some("rate_limited")));
    assert!((1..=8 * 60 * 60).contains(&retry_after(&reply)), "{:?}", reply.headers);
    assert!(!reply.headers.contains_key("x-should-retry"), "it clears by itself");
    let told =
        stage.sidecar.audited(|record| record["denial"] == "rate_limited" || record["code"] == "rate_limited").await;
    assert_eq!(told["nonce.id"], first.id.as_str());
    let (_, answers) = at_once(clients, "/x", &[&second.nonce]).await;
    assert_eq!(answers, counts([("200 OK", 3), ("rate_limited", 13)]), "another nonce, another rate");
}

#[tokio::test]
async fn who_waits_as_long_as_was_said_is_served() {
    let stage = Stage::of_policy(&scope_with("rate = \"1/s\"")).await;
    let minted = mint(&stage, json!({})).await;
    let (mut clients, answers) = at_once(tunnels(&stage, 16).await, "/x", &[&minted.nonce]).await;
    assert!(answers.contains_key("rate_limited"), "{answers:?}");
    let client = &mut clients[0];
    let mut reply = client.send(get("api.test", "/x", &minted.nonce)).await;
    // Once is enough; on a machine that stands still in between the first of them is not refused at all.
    if reply.status == 429 {
        tokio::time::sleep(Duration::from_secs(retry_after(&reply))).await;
        reply = client.send(get("api.test", "/x", &minted.nonce)).await;
    }
    assert_eq!(outcome(&reply), (200, None));
}

#[tokio::test]
async fn a_scope_that_comes_too_fast_leaves_the_request_to_the_next_that_allows_it() {
    let policy =
        scope_with("rate = \"1/d\"").replace("allow = [\"POST", "max_uses = 1\nallow = [\"GET /{*path}\", \"POST");
    let stage = Stage::of_policy(&policy).await;
    let grants = json!([{"service": "api", "scopes": ["read", "write"]}]);
    let body = json!({"agent": "worker", "task": "t", "grants": grants});
    let minted = stage.sidecar.orchestrator().mint_with(body).await;
    let agent = stage.sidecar.agent();
    for expected in [(200, None), (200, None), (429, Some("rate_limited"))] {
        let reply = agent.get("api.test", "/x", &minted.nonce).await;
        assert_eq!(outcome(&reply), expected, "the rate clears, the spent scope does not");
    }
    let scopes: Vec<Value> = stage.sidecar.audit().iter().filter_map(|record| record.get("scope").cloned()).collect();
    assert!(scopes.contains(&"read".into()) && scopes.contains(&"write".into()), "{scopes:?}");
}

#[tokio::test]
async fn the_nonces_of_a_task_share_one_allowance() {
    let stage = Stage::of_policy(&agent_with("budget = { uses = 10 }")).await;
    let mut minted = Vec::new();
    for _ in 0..4 {
        minted.push(mint(&stage, json!({})).await);
    }
    let nonces: Vec<&str> = minted.iter().map(|minted| minted.nonce.as_str()).collect();
    let (_, answers) = at_once(tunnels(&stage, 32).await, "/x", &nonces).await;
    assert_eq!(answers, counts([("200 OK", 10), ("budget_spent", 22)]));
    assert_eq!(stage.upstream.seen().len(), 10);
    let reply = stage.sidecar.agent().get("api.test", "/x", nonces[0]).await;
    assert_eq!((outcome(&reply), reply.headers.get("retry-after")), ((403, Some("budget_spent")), None));
    assert_eq!(reply.headers["x-should-retry"], "false", "it does not clear");
    // Neither another scope nor another nonce gets around it, and nothing else suffers.
    let other = mint(&stage, json!({"task": "u", "scope": "write"})).await;
    assert_eq!(not_minted(&stage, json!({"scope": "write"})).await, (StatusCode::FORBIDDEN, "budget_spent".to_owned()));
    let bearer = format!("Bearer {}", other.nonce);
    let post = with("POST", "api.test", "/x", &[("authorization", &bearer)], "");
    assert_eq!(outcome(&stage.sidecar.agent().send(post).await), (200, None));
    // Nor does ending all of them.
    for minted in &minted {
        stage.sidecar.orchestrator().revoke(&minted.id).await;
    }
    assert_eq!(not_minted(&stage, json!({})).await, (StatusCode::FORBIDDEN, "budget_spent".to_owned()));
}

#[tokio::test]
async fn a_refused_or_unsent_request_takes_nothing_from_the_task() {
    let stage = Stage::of_policy(&agent_with("budget = { uses = 1 }")).await;
    let minted = mint(&stage, json!({})).await;
    let agent = stage.sidecar.agent();
    let bearer = format!("Bearer {}", minted.nonce);
    let refused = agent.send(with("POST", "api.test", "/x", &[("authorization", &bearer)], "")).await;
    assert_eq!(refused.refusal(), Some("out_of_scope"));
    for expected in [(200, None), (403, Some("budget_spent"))] {
        assert_eq!(outcome(&agent.get("api.test", "/x", &minted.nonce).await), expected);
    }
}

#[tokio::test]
async fn a_task_has_a_rate_over_all_its_nonces() {
    let stage = Stage::of_policy(&agent_with("budget = { uses = 100, rate = \"5/d\" }")).await;
    let minted = [mint(&stage, json!({})).await, mint(&stage, json!({})).await];
    let nonces = minted.each_ref().map(|minted| minted.nonce.as_str());
    let (_, answers) = at_once(tunnels(&stage, 16).await, "/x", &nonces).await;
    assert_eq!(answers, counts([("200 OK", 5), ("rate_limited", 11)]));
    let other = mint(&stage, json!({"task": "u"})).await;
    assert_eq!(outcome(&stage.sidecar.agent().get("api.test", "/x", &other.nonce).await), (200, None));
}

#[tokio::test]
async fn what_capped_the_time_is_named() {
    let stage = Stage::of_policy(&agent_with("ttl = \"2m\"")).await;
    let orchestrator = stage.sidecar.orchestrator();
    for (ttl, seconds, by) in [
        (json!("1m"), 60, Value::Null),
        (json!("2m"), 120, Value::Null),
        (json!("3m"), 120, "agents.worker.ttl".into()),
    ] {
        let answer = mint(&stage, json!({"ttl": ttl})).await.answer;
        assert_eq!((&answer["expires_in"], &answer["ttl_capped_by"]), (&seconds.into(), &by), "{ttl}");
    }
    let minted = mint(&stage, json!({"ttl": "1m"})).await;
    let renew = format!("/v1/nonces/{}/renew", minted.id);
    let (status, renewed) = orchestrator.call("POST", &renew, Some(json!({"ttl": "20m"}))).await;
    assert_eq!((status, &renewed["ttl_capped_by"]), (StatusCode::OK, &"agents.worker.ttl".into()), "{renewed:#}");
    let policy = agent_with("ttl = \"20m\"");
    let stage = Stage::of_policy(&policy).await;
    let answer = mint(&stage, json!({"scope": "once", "ttl": "20m"})).await.answer;
    assert_eq!(
        (&answer["expires_in"], &answer["ttl_capped_by"]),
        (&300.into(), &"ceilings.high".into()),
        "the shortest"
    );
}
