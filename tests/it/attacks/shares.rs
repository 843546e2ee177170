//! What all agents share: one that takes all it can leaves room for the others.

use std::time::Duration;

use serde_json::json;
use tokio::io::AsyncWriteExt;

use crate::support::agent::{PATIENCE, Reply, get, with};
use crate::support::stranger::{STRANGER, acting, can_be_others};
use crate::support::wire::read_answers;
use crate::support::{FakeUpstream, Stage, TestSidecar, policies, websocket};

const REFUSED: (u16, Option<&str>) = (429, Some("too_many_at_once"));
/// How often it is tried whether what is over has made room, which nobody tells.
const PATIENT: usize = 100;
const A_MOMENT: Duration = Duration::from_millis(50);
const SOCKETS: &str = "[[services.api.scopes]]\nname = \"socket\"\nrisk = \"low\"\nallow = [\"WEBSOCKET /{*path}\"]\n";

/// Two agents, `worker` and `other`, who may read; `worker` may open sockets.
fn policy() -> String {
    let worker = format!("\n{SOCKETS}\n[agents.worker]");
    let policy = policies::two_agents().replace("\n[agents.worker]", &worker);
    policy.replace("\"once\"] }", "\"once\", \"socket\"] }")
}

async fn stage(policy: &str, flags: &[&str]) -> Stage {
    let upstream = FakeUpstream::start(&["api.test"]).await;
    Stage::of(policy, upstream, |builder| flags.iter().fold(builder, |builder, flag| builder.flag(flag))).await
}

async fn nonce(stage: &Stage, agent: &str) -> String {
    stage.sidecar.orchestrator().mint(agent, "api", "read").await.nonce
}

fn said(reply: &Reply) -> (u16, Option<&str>) {
    (reply.status.as_u16(), reply.refusal())
}

/// How often requests were refused for this, by the metrics.
async fn refused(sidecar: &TestSidecar, service: &str) -> u64 {
    let name =
        format!("valetkey_exchanges_total{{service=\"{service}\",decision=\"refused\",code=\"too_many_at_once\"}} ");
    let text = sidecar.admin_get("/metrics").await.text();
    text.lines().find_map(|line| line.strip_prefix(&name)).map_or(0, |number| number.parse().expect("a number"))
}

#[tokio::test]
async fn an_agent_has_so_many_requests_under_way_on_all_its_connections() {
    let stage = stage(&policy(), &["--agent-requests-max", "3"]).await;
    let (greedy, other) = (nonce(&stage, "worker").await, nonce(&stage, "other").await);
    let agent = stage.sidecar.agent();
    let mut h2 = agent.tunnel_h2("api.test").await;
    let mut h1 = agent.tunnel("api.test").await;
    let mut held = vec![h1.start(get("api.test", "/endless", &greedy)).await];
    for _ in 0..2 {
        held.push(h2.start(get("api.test", "/endless", &greedy)).await);
    }
    let single = json!({"agent": "worker", "task": "t", "service": "api", "scope": "read", "max_uses": 1});
    let single = stage.sidecar.orchestrator().mint_with(single).await.nonce;
    let reply = agent.get("api.test", "/over-h1", &single).await;
    assert_eq!(said(&reply), REFUSED, "{}", reply.text());
    assert_eq!(reply.headers["retry-after"], "1");
    assert_eq!(said(&h2.send(get("api.test", "/over-h2", &greedy)).await), REFUSED);
    assert_eq!(agent.get("api.test", "/x", &other).await.status, 200, "the other one is served");
    assert_eq!(refused(&stage.sidecar, "api").await, 2);
    assert!(!stage.upstream.seen().iter().any(|seen| seen.target.starts_with("/over")), "nothing was sent");
    // What is over makes room, and what was refused has taken no use.
    held.pop();
    for _ in 0..PATIENT {
        let reply = agent.get("api.test", "/after", &single).await;
        if reply.status == 200 {
            return;
        }
        assert_eq!(said(&reply), REFUSED);
        tokio::time::sleep(A_MOMENT).await;
    }
    panic!("there is no room");
}

#[tokio::test]
async fn an_agent_leaves_as_many_requests_free_as_it_has() {
    let stage = stage(&policy(), &["--requests-max", "8"]).await;
    let (greedy, other) = (nonce(&stage, "worker").await, nonce(&stage, "other").await);
    let mut tunnel = stage.sidecar.agent().tunnel_h2("api.test").await;
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(tunnel.start(get("api.test", "/endless", &greedy)).await);
    }
    assert_eq!(said(&tunnel.send(get("api.test", "/x", &greedy)).await), REFUSED, "half of it");
    for _ in 0..2 {
        held.push(tunnel.start(get("api.test", "/endless", &other)).await);
    }
    assert!(held.iter().all(|response| response.status() == 200));
    assert_eq!(said(&tunnel.send(get("api.test", "/x", &other)).await), REFUSED, "half of what was left");
}

#[tokio::test]
async fn sockets_are_requests_for_as_long_as_they_are_open() {
    let (upstream, open) = websocket::upstream().await;
    let flags = |builder: crate::support::Builder| builder.flag("--agent-requests-max").flag("2");
    let stage = Stage::of(&policy(), upstream, flags).await;
    let nonce = stage.sidecar.orchestrator().mint("worker", "api", "socket").await.nonce;
    let agent = stage.sidecar.agent();
    let first = websocket::open(&agent, "/echo", &nonce).await;
    let second = websocket::open(&agent, "/echo", &nonce).await;
    let (answer, _) = websocket::ask(&agent, "/echo", &nonce, "").await;
    assert_eq!(super::outcome(&answer), REFUSED, "{answer}");
    assert_eq!(open.count(), 2);
    drop(first);
    for _ in 0..PATIENT {
        let (answer, third) = websocket::ask(&agent, "/echo", &nonce, "").await;
        if answer.starts_with("HTTP/1.1 101 ") {
            return drop((second, third));
        }
        tokio::time::sleep(A_MOMENT).await;
    }
    panic!("there is no room");
}

#[tokio::test]
async fn requests_without_a_nonce_have_one_share_among_them() {
    let open = policy().replace("credential = \"api\"\n", "credential = \"api\"\nanonymous = true\n");
    let stage = stage(&open, &["--agent-requests-max", "2"]).await;
    let nonce = nonce(&stage, "other").await;
    let mut tunnel = stage.sidecar.agent().tunnel_h2("api.test").await;
    let without = |path| with("GET", "api.test", path, &[], "");
    let mut held = Vec::new();
    for _ in 0..2 {
        held.push(tunnel.start(without("/endless")).await);
    }
    assert_eq!(said(&tunnel.send(without("/x")).await), REFUSED);
    assert_eq!(tunnel.send(get("api.test", "/x", &nonce)).await.status, 200);
    held.clear();
    for _ in 0..PATIENT {
        if tunnel.send(without("/x")).await.status == 200 {
            return;
        }
        tokio::time::sleep(A_MOMENT).await;
    }
    panic!("there is no room");
}

#[tokio::test]
async fn an_agent_has_so_many_connections() {
    let stage = stage(&policy(), &["--agent-connections-max", "2"]).await;
    let (greedy, other) = (nonce(&stage, "worker").await, nonce(&stage, "other").await);
    let agent = stage.sidecar.agent();
    let mut kept = Vec::new();
    for _ in 0..2 {
        let mut tunnel = agent.tunnel("api.test").await;
        assert_eq!(tunnel.send(get("api.test", "/x", &greedy)).await.status, 200);
        kept.push(tunnel);
    }
    let mut third = agent.tunnel("api.test").await;
    assert_eq!(said(&third.send(get("api.test", "/x", &greedy)).await), REFUSED);
    assert_eq!(third.send(get("api.test", "/x", &other)).await.status, 200, "it is the other one's now");
    assert_eq!(kept[0].send(get("api.test", "/x", &greedy)).await.status, 200);
    kept.pop();
    let mut fresh = agent.tunnel("api.test").await;
    let mut served = false;
    // Until the end of the other connection was seen.
    for _ in 0..PATIENT {
        served = fresh.send(get("api.test", "/x", &greedy)).await.status == 200;
        if served {
            break;
        }
        tokio::time::sleep(A_MOMENT).await;
    }
    assert!(served);
}

/// Connections that say nothing, as many as one user can get.
#[tokio::test]
async fn a_user_that_opens_all_connections_it_can_leaves_some_for_others() {
    if !can_be_others() {
        return;
    }
    let stage = stage(&policy(), &["--connections-max", "16"]).await;
    let nonce = nonce(&stage, "other").await;
    let agent = stage.sidecar.agent();
    let mut held = Vec::new();
    for _ in 0..12 {
        // Each is accepted before the next comes: half of them for whoever comes, then half of the rest.
        let (answer, tcp) = agent.connect("api.test:443").await;
        assert!(answer.contains(" 200 "), "{answer}");
        held.push(tcp);
    }
    for _ in 0..3 {
        let mut late = agent.tcp().await;
        let _ = late.write_all(b"CONNECT api.test:443 HTTP/1.1\r\nHost: api.test:443\r\n\r\n").await;
        let answer = read_answers(&mut late, 1, PATIENCE).await;
        assert!(answer.starts_with("HTTP/1.1 429 too_many_at_once: "), "{answer}");
        assert!(answer.contains("\r\nretry-after: 1\r\n") && answer.contains("\r\nconnection: close\r\n"), "{answer}");
    }
    let record = stage.sidecar.audited(|record| record["code"] == "too_many_at_once").await;
    assert_eq!(record["type"], "connection");
    let theirs = agent.clone();
    let status = acting(STRANGER, STRANGER, move || async move {
        let mut kept = Vec::new();
        for _ in 0..2 {
            let mut tunnel = theirs.tunnel("api.test").await;
            let reply = tunnel.send(get("api.test", "/x", &nonce)).await;
            kept.push((tunnel, reply.status.as_u16()));
        }
        kept.iter().map(|(_, status)| *status).collect::<Vec<_>>()
    })
    .await;
    assert_eq!(status, [200, 200], "another user finds room");
    drop(held);
}
