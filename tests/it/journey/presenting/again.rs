//! Proofs that are over, and those that have to be given again.

use std::time::Duration;

use serde_json::json;

use super::{claims, policy, scene, with};
use crate::support::agent::{Reply, Tunnel, get, with as request};
use crate::support::remote::{Signer, jwks, seconds_from_now as soon, write};
use crate::support::stranger::{STRANGER, can_be_others};
use crate::support::{FakeUpstream, Stage, policies};

/// A line in the scope `read`.
fn reading(policy: &str, line: &str) -> String {
    policy.replace("risk = \"low\"\n", &format!("risk = \"low\"\n{line}\n"))
}

/// Sends the same request in a tunnel until it is refused.
async fn until_refused(tunnel: &mut Tunnel, nonce: &str) -> Reply {
    for _ in 0..400 {
        let reply = tunnel.send(get("api.test", "/x", nonce)).await;
        if reply.status != 200 {
            return reply;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("it was never refused");
}

fn assert_stale(reply: &Reply) {
    assert_eq!((reply.status.as_u16(), reply.refusal()), (401, Some("identity_stale")), "{}", reply.text());
    assert!(reply.text().contains("open a new connection to the proxy"), "{}", reply.text());
}

#[tokio::test]
async fn an_open_tunnel_proves_nothing_once_its_token_has_expired() {
    let scene = scene(&policy(), |builder| builder).await;
    let nonce = scene.stage.reader().await;
    let token = scene.key.token("k", &with("exp", soon(2).into()));
    let (agent, mut tunnel) = (scene.agent(&token), None);
    // A slow machine may be too late for the first of them; then it is refused as it should be.
    if agent.connect("api.test:443").await.0.contains(" 200 ") {
        tunnel = Some(agent.tunnel("api.test").await);
    }
    if let Some(tunnel) = &mut tunnel {
        assert_stale(&until_refused(tunnel, &nonce).await);
        let plain = scene.stage.upstream.seen().len();
        assert_stale(&tunnel.send(get("api.test", "/x", &nonce)).await);
        assert_eq!(scene.stage.upstream.seen().len(), plain, "nothing goes out");
    }
    let (status, code, _) = scene.connect(&format!("Bearer {token}")).await;
    assert_eq!((status, code.as_str()), (403, "identity_refused"));
    let fresh = scene.key.token("k", &claims());
    assert_eq!(scene.agent(&fresh).get("api.test", "/x", &nonce).await.status, 200);
}

#[tokio::test]
async fn a_scope_wants_a_token_again_and_others_do_not() {
    let scene = scene(&reading(&policy(), "reattest = \"2s\""), |builder| builder).await;
    let orchestrator = scene.stage.sidecar.orchestrator();
    let body = json!({"agent": "worker", "task": "t", "grants": [{"service": "api", "scopes": ["read", "write"]}]});
    let nonce = orchestrator.mint_with(body).await.nonce;
    let token = scene.key.token("k", &claims());
    let mut tunnel = scene.agent(&token).tunnel("api.test").await;
    assert_stale(&until_refused(&mut tunnel, &nonce).await);
    let bearer = format!("Bearer {nonce}");
    let post = request("POST", "api.test", "/x", &[("authorization", &bearer)], "");
    assert_eq!(tunnel.send(post).await.status, 200, "another scope");
    // The same token proves the same again, verified anew; a slow machine may need more than one go.
    for attempt in 0..20 {
        let reply = scene.agent(&token).get("api.test", "/x", &nonce).await;
        if reply.status == 200 {
            break;
        }
        assert_stale(&reply);
        assert!(attempt < 19, "a new connection is never enough");
    }
    scene.stage.sidecar.audited(|record| record["code"] == "identity_stale" && record["scope"] == "read").await;
}

#[tokio::test]
async fn who_is_proven_by_uid_opens_a_new_connection() {
    if !can_be_others() {
        return;
    }
    let policy = policies::ONE_API.replace("[\"any\"]", "[\"uid:UID\"]\nreattest = \"2s\"\nself_renew = true");
    let policy = policy.replace("\"read\", \"write\", \"once\"] }", "\"read\", \"write\"] }");
    let policy = policy.replace("UID", &rustix::process::geteuid().as_raw().to_string());
    let upstream = FakeUpstream::start(&["api.test"]).await;
    let stage = Stage::of(&policy, upstream, |builder| builder.user(STRANGER)).await;
    let nonce = stage.reader_as(STRANGER).await;
    let agent = stage.sidecar.agent();
    let renew = || {
        let bearer = format!("Bearer {nonce}");
        request("POST", "valetkey.internal", "/v1/self/renew", &[("authorization", &bearer)], "")
    };
    let read = || get("valetkey.internal", "/v1/self", &nonce);
    let mut door = agent.tunnel("valetkey.internal").await;
    let mut tunnel = agent.tunnel("api.test").await;
    assert_stale(&until_refused(&mut tunnel, &nonce).await);
    assert_eq!(door.send(read()).await.status, 200);
    assert_stale(&door.send(renew()).await);
    for attempt in 0..20 {
        let replies = [agent.get("api.test", "/x", &nonce).await, agent.send(renew()).await];
        if replies.iter().all(|reply| reply.status == 200) {
            break;
        }
        assert!(attempt < 19, "a new connection is never enough: {replies:?}");
    }
}

#[tokio::test]
async fn what_was_proven_holds_where_another_issuer_changes() {
    let scene = scene(&policy(), |builder| builder).await;
    let nonce = scene.stage.reader().await;
    let mut tunnel = scene.agent(&scene.key.token("k", &claims())).tunnel("api.test").await;
    let path = scene.stage.sidecar.path("policy.toml");
    let text = std::fs::read_to_string(&path).expect("a policy").replace("https://cluster.test", "https://other.test");
    write(&path, &text, 0o644);
    scene.stage.sidecar.signal("HUP");
    scene.stage.sidecar.audited(|record| record["type"] == "policy" && record["outcome"] == "adopted").await;
    assert_eq!(tunnel.send(get("api.test", "/x", &nonce)).await.status, 200);
}

#[tokio::test]
async fn what_other_issuers_have_proven_does_not_outlive_them() {
    let scene = scene(&policy(), |builder| builder).await;
    let nonce = scene.stage.reader().await;
    let token = scene.key.token("k", &claims());
    let mut tunnel = scene.agent(&token).tunnel("api.test").await;
    assert_eq!(tunnel.send(get("api.test", "/x", &nonce)).await.status, 200);
    // Another issuer gets the name of the first.
    let other = Signer::es256();
    let path = scene.stage.sidecar.path("policy.toml");
    let text = std::fs::read_to_string(&path).expect("a policy").replace("https://ci.test", "https://other.test");
    write(&scene.stage.sidecar.path("ci.json"), &jwks(&[other.jwk("o", &[])]), 0o644);
    write(&path, &text, 0o644);
    scene.stage.sidecar.signal("HUP");
    assert_stale(&until_refused(&mut tunnel, &nonce).await);
    let (_, code, _) = scene.connect(&format!("Bearer {token}")).await;
    assert_eq!(code, "identity_refused");
    let fresh = other.token("o", &with("iss", "https://other.test".into()));
    assert_eq!(scene.agent(&fresh).get("api.test", "/x", &nonce).await.status, 200);
}
