//! Signals: what is under way is finished, what stands still is ended, and the end is on record.

use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt;

use crate::support::agent::{breaks, get, read};
use crate::support::sidecar::{eventually, records};
use crate::support::{FakeUpstream, Stage};

#[tokio::test]
async fn an_answer_under_way_is_finished_and_everything_is_on_record() {
    for h2 in [false, true] {
        let mut stage = Stage::new().await;
        let minted = stage.sidecar.orchestrator().mint("worker", "api", "read").await;
        let agent = stage.sidecar.agent();
        let mut tunnel = if h2 { agent.tunnel_h2("api.test").await } else { agent.tunnel("api.test").await };
        let response = tunnel.start(get("api.test", "/sse", &minted.nonce)).await;
        stage.sidecar.signal("TERM");
        let reply = read(response).await.expect("a whole answer");
        assert_eq!(reply.text().matches("data: event").count(), 5, "{}", reply.text());
        assert_eq!(stage.sidecar.wait(), Some(0));
        let audit = stage.sidecar.audit();
        let end = audit.iter().find(|record| record["type"] == "end").expect("an end");
        assert_eq!(end["ending"], "complete", "{end:#}");
        let lease = audit.iter().find(|record| record["type"] == "lease_end").expect("an end of the lease");
        assert_eq!(lease["nonce.id"], minted.id.as_str());
        assert_eq!(audit.last().expect("records")["type"], "stop");
        assert!(!stage.sidecar.control().exists(), "its socket is gone");
    }
}

/// Ends it; how long that took.
fn end(stage: &mut Stage) -> Duration {
    let begun = Instant::now();
    stage.sidecar.signal("TERM");
    assert_eq!(stage.sidecar.wait(), Some(0));
    begun.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_still_does_not_hold_it_up() {
    let mut stage = Stage::new().await;
    let nonce = stage.reader().await;
    let agent = stage.sidecar.agent();
    let (mut h1, mut h2) = (agent.tunnel("api.test").await, agent.tunnel_h2("api.test").await);
    assert_eq!(h1.send(get("api.test", "/x", &nonce)).await.status, 200);
    assert_eq!(h2.send(get("api.test", "/x", &nonce)).await.status, 200);
    let took = end(&mut stage);
    assert!(took < Duration::from_secs(4), "idle tunnels are closed at once: {took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_not_begun_does_not_hold_it_up() {
    for begun in ["a socket", "a tunnel", "a handshake"] {
        let mut stage = Stage::new().await;
        let agent = stage.sidecar.agent();
        let open: Box<dyn std::any::Any> = match begun {
            "a socket" => Box::new(agent.tcp().await),
            "a tunnel" => Box::new(agent.connect("api.test:443").await),
            _ => Box::new(agent.tls_tunnel("api.test", "api.test", &[b"http/1.1"]).await.expect("TLS")),
        };
        // Accepted in order, so the one before has been.
        stage.sidecar.agent().raw(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
        let took = end(&mut stage);
        assert!(took < Duration::from_secs(4), "{begun}: {took:?}");
        drop(open);
    }
}

#[tokio::test]
async fn what_does_not_end_is_cut_at_the_limit() {
    let upstream = FakeUpstream::start(&["api.test"]).await;
    let mut stage = Stage::with(upstream, |builder| builder.flag("--drain-timeout").flag("1s")).await;
    let nonce = stage.reader().await;
    let mut tunnel = stage.sidecar.agent().tunnel("api.test").await;
    let response = tunnel.start(get("api.test", "/endless", &nonce)).await;
    let (_, mut silent) = stage.sidecar.agent().connect("api.test:443").await;
    let begun = Instant::now();
    stage.sidecar.signal("TERM");
    assert!(breaks(response).await, "a cut answer is never a whole one");
    let _ = silent.read(&mut [0; 1]).await;
    assert_eq!(stage.sidecar.wait(), Some(0));
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(900) && took < Duration::from_secs(6), "{took:?}");
    let audit = stage.sidecar.audit();
    assert!(audit.iter().any(|record| record["type"] == "end" && record["ending"] == "cut"), "{audit:#?}");
    assert_eq!(audit.last().expect("records")["type"], "stop");
}

#[tokio::test]
async fn while_it_drains_nothing_new_begins() {
    let mut stage = Stage::new().await;
    let nonce = stage.reader().await;
    let agent = stage.sidecar.agent();
    let mut tunnel = agent.tunnel("api.test").await;
    let response = tunnel.start(get("api.test", "/sse", &nonce)).await;
    assert_eq!(stage.sidecar.admin_get("/readyz").await.status, 200);
    stage.sidecar.signal("TERM");
    let proxy = stage.sidecar.proxy;
    eventually("the port to close", || std::net::TcpStream::connect(proxy).is_err().then_some(())).await;
    let ready = stage.sidecar.admin_get("/readyz").await;
    assert_eq!(ready.status, 503, "probes are still answered, and truly: {}", ready.text());
    assert!(ready.text().contains("draining"), "{}", ready.text());
    assert_eq!(stage.sidecar.admin_get("/livez").await.status, 200, "it is not to be killed for draining");
    read(response).await.expect("a whole answer");
    assert_eq!(stage.sidecar.wait(), Some(0));
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let upstream = FakeUpstream::start(&["api.test"]).await;
    let mut stage = Stage::with(upstream, |builder| builder.flag("--drain-timeout").flag("1h")).await;
    let nonce = stage.reader().await;
    let mut tunnel = stage.sidecar.agent().tunnel("api.test").await;
    let response = tunnel.start(get("api.test", "/endless", &nonce)).await;
    stage.sidecar.signal("TERM");
    let proxy = stage.sidecar.proxy;
    eventually("the drain to begin", || std::net::TcpStream::connect(proxy).is_err().then_some(())).await;
    let begun = Instant::now();
    stage.sidecar.signal("INT");
    assert_eq!(stage.sidecar.wait(), Some(1));
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    drop(response);
}

#[tokio::test]
async fn a_hangup_opens_the_audit_again_and_the_chain_goes_on() {
    let mut stage = Stage::new().await;
    let nonce = stage.reader().await;
    let agent = stage.sidecar.agent();
    assert_eq!(agent.get("api.test", "/before", &nonce).await.status, 200);
    stage.sidecar.audited(|record| record["type"] == "end").await;
    let old = stage.sidecar.path("audit.1.jsonl");
    std::fs::rename(stage.sidecar.path("audit.jsonl"), &old).expect("a rename");
    stage.sidecar.signal("HUP");
    let reopened = || stage.sidecar.path("audit.jsonl").exists().then_some(());
    eventually("a new file", reopened).await;
    assert_eq!(agent.get("api.test", "/after", &nonce).await.status, 200);
    stage.sidecar.audited(|record| record["path"] == "/after").await;
    stage.sidecar.signal("TERM");
    assert_eq!(stage.sidecar.wait(), Some(0));
    let (old, new) = (records(&std::fs::read_to_string(old).expect("the old file")), stage.sidecar.audit());
    assert_eq!(new[0]["type"], "rotated");
    assert_eq!(new[0]["prev"], old.last().expect("records")["hash"], "chained over the files");
    assert!(
        old.iter().any(|record| record["path"] == "/before") && !new.iter().any(|record| record["path"] == "/before")
    );
    assert_eq!(new.last().expect("records")["type"], "stop");
}
