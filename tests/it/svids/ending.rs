//! What a certificate has proven, and when that is over.

use std::time::Duration;

use super::{WORKER, ask, connect, policy, refused, scene};
use crate::support::agent::{Reply, Tunnel, get};
use crate::support::authority::TestAuthority;
use crate::support::outer::{end_in, svid};
use crate::support::remote::write;
use crate::support::wire::read_answers;

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
}

#[tokio::test]
async fn requests_on_an_open_connection_end_with_the_certificate() {
    let scene = scene(&policy(), |builder, _| builder).await;
    let nonce = scene.stage.reader().await;
    let agent = scene.agent(svid(&scene.mesh, &[WORKER], |it| end_in(it, 4))).await;
    let plain = format!("GET https://api.test/x HTTP/1.1\r\nHost: api.test\r\nAuthorization: Bearer {nonce}\r\n\r\n");
    let mut kept = agent.tcp().await;
    let mut tunnels = Vec::new();
    // A slow machine may be too late for the first of them; then it is refused as it should be.
    if connect(&agent).await.0 == 200 {
        tunnels = vec![agent.tunnel("api.test").await, agent.tunnel_h2("api.test").await];
    }
    for tunnel in &mut tunnels {
        assert_stale(&until_refused(tunnel, &nonce).await);
        let seen = scene.stage.upstream.seen().len();
        assert_stale(&tunnel.send(get("api.test", "/x", &nonce)).await);
        assert_eq!(scene.stage.upstream.seen().len(), seen, "nothing goes out");
    }
    for _ in 0..400 {
        use tokio::io::AsyncWriteExt;
        kept.write_all(plain.as_bytes()).await.expect("writable");
        let answer = read_answers(&mut kept, 1, crate::support::agent::PATIENCE).await;
        if !answer.starts_with("HTTP/1.1 200") {
            assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("identity_refused"), "{answer}");
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (status, code, head) = connect(&agent).await;
    assert_eq!((status, code.as_str()), (403, "identity_refused"), "{head}");
    assert_eq!(ask(&scene.worker().await, &nonce).await, (200, None), "another certificate");
}

#[tokio::test]
async fn the_bundle_counts_as_it_is_when_a_tunnel_is_opened() {
    let scene = scene(&policy(), |builder, _| builder).await;
    let nonce = scene.stage.reader().await;
    let new = TestAuthority::new();
    let (old, fresh) = (scene.worker().await, scene.agent(svid(&new, &[WORKER], |_| {})).await);
    let mut open = old.tunnel("api.test").await;
    assert_eq!(connect(&fresh).await.0, 403, "not there yet");
    let bundle = scene.stage.sidecar.path("mesh.pem");
    write(&bundle, &format!("{}{}", scene.mesh.pem, new.pem), 0o644);
    for agent in [&old, &fresh] {
        assert_eq!(ask(agent, &nonce).await, (200, None), "both");
    }
    write(&bundle, &new.pem, 0o644);
    let (status, code, _) = connect(&old).await;
    assert_eq!((status, code.as_str()), (403, "identity_refused"), "withdrawn");
    assert_eq!(ask(&fresh, &nonce).await, (200, None));
    assert_eq!(open.send(get("api.test", "/x", &nonce)).await.status, 200, "a tunnel is judged when it is opened");
    for (broken, mode) in [("no PEM", 0o644), (new.pem.as_str(), 0o666)] {
        write(&bundle, broken, mode);
        let (status, code, head) = connect(&fresh).await;
        assert_eq!((status, code.as_str()), (503, "identity_unavailable"), "{head}");
    }
    write(&bundle, &new.pem, 0o644);
    assert_eq!(ask(&fresh, &nonce).await, (200, None));
}

#[tokio::test]
async fn what_other_cas_have_proven_does_not_outlive_them() {
    let scene = scene(&policy(), |builder, _| builder).await;
    let nonce = scene.stage.reader().await;
    let agent = scene.worker().await;
    let mut tunnel = agent.tunnel("api.test").await;
    assert_eq!(tunnel.send(get("api.test", "/x", &nonce)).await.status, 200);
    let path = scene.stage.sidecar.path("policy.toml");
    let text = std::fs::read_to_string(&path).expect("a policy").replace("/mesh.pem", "/far.pem");
    write(&path, &text, 0o644);
    scene.stage.sidecar.signal("HUP");
    assert_stale(&until_refused(&mut tunnel, &nonce).await);
    assert_eq!(connect(&agent).await.1, "identity_refused");
}

#[tokio::test]
async fn a_connection_proves_once_and_another_one_again() {
    let policy = policy().replace("risk = \"low\"\n", "risk = \"low\"\nreattest = \"2s\"\n");
    let scene = scene(&policy, |builder, _| builder).await;
    let nonce = scene.stage.reader().await;
    let agent = scene.worker().await;
    let mut tunnel = agent.tunnel("api.test").await;
    assert_stale(&until_refused(&mut tunnel, &nonce).await);
    // The same certificate proves the same again; a slow machine may need more than one go.
    for attempt in 0..20 {
        let answer = ask(&agent, &nonce).await;
        if answer == (200, None) {
            break;
        }
        assert_eq!(answer, refused(401, "identity_stale"));
        assert!(attempt < 19, "a new connection is never enough");
    }
}

#[tokio::test]
async fn what_a_monitor_says_holds_on_an_open_tunnel() {
    let policy = policy() + "\n[risk.levels]\nelevated = { max_risk = \"low\" }\n";
    let scene = scene(&policy, |builder, _| builder).await;
    let nonce = scene.stage.writer().await;
    let mut tunnel = scene.worker().await.tunnel_h2("api.test").await;
    let bearer = format!("Bearer {nonce}");
    let post = || crate::support::agent::with("POST", "api.test", "/x", &[("authorization", &bearer)], "");
    assert_eq!(tunnel.send(post()).await.status, 200);
    let said = serde_json::json!({"agent": "worker", "level": "elevated", "reason": "odd", "ttl": "5m"});
    let (status, answer) = scene.stage.sidecar.orchestrator().call("POST", "/v1/risk", Some(said)).await;
    assert_eq!(status, 200, "{answer:#}");
    let reply = tunnel.send(post()).await;
    assert_eq!((reply.status.as_u16(), reply.refusal()), (403, Some("risk_restricted")), "{}", reply.text());
}
