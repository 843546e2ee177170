//! `TCP_NODELAY` on every socket of a sidecar. Without it a second small write waits for the acknowledgement of the
//! first, which the other side delays by 40 ms; on a kept connection, whose every exchange is one write, nobody sees it.
//!
//! Each way into a sidecar and out of it is kept open at the same time as it is looked at.

use std::net::SocketAddr;

use tokio::io::{AsyncWriteExt, copy_bidirectional};
use tokio::net::TcpStream;

use crate::support::agent::get;
use crate::support::sockets::{ask, assert_no_delay};
use crate::support::{Agent, FakeUpstream, Stage, TestSidecar, canary, policies, websocket};

#[tokio::test]
async fn tunnels_requests_without_one_and_probes() {
    for alpn in [&b"http/1.1"[..], b"h2"] {
        let stage = Stage::with(FakeUpstream::start_with(&["api.test"], &[alpn]).await, |builder| builder).await;
        let (nonce, agent) = (stage.reader().await, stage.sidecar.agent());
        let (mut h1, mut h2) = (agent.tunnel("api.test").await, agent.tunnel_h2("api.test").await);
        assert_eq!(h1.send(get("api.test", "/x", &nonce)).await.status, 200);
        assert_eq!(h2.send(get("api.test", "/x", &nonce)).await.status, 200);
        let mut bare = agent.tcp().await;
        ask(&mut bare, "https://api.test/x", &nonce).await;
        let mut admin = TcpStream::connect(stage.sidecar.admin).await.expect("the admin listener");
        ask(&mut admin, "/livez", "none").await;
        let (proxy, admin_listener) = (stage.sidecar.proxy, stage.sidecar.admin);
        assert_no_delay(
            stage.sidecar.pid(),
            &[("agents", proxy, 3), ("the upstream", stage.upstream.address, 1), ("a probe", admin_listener, 1)],
        );
    }
}

#[tokio::test]
async fn clear_text_upstream() {
    let upstream = FakeUpstream::plain().await;
    let policy = policies::one_api_with("cleartext = true")
        .replace("hosts = [\"api.test\"]", "hosts = [\"api.test\", \"api.test:80\"]");
    let connect_to = format!("api.test:80:{}", upstream.address);
    let stage = Stage::of(&policy, upstream, |builder| builder.flag("--connect-to").flag(&connect_to)).await;
    let (nonce, mut bare) = (stage.reader().await, stage.sidecar.agent().tcp().await);
    ask(&mut bare, "http://api.test/x", &nonce).await;
    let ends = [("an agent", stage.sidecar.proxy, 1), ("the upstream", stage.upstream.address, 1)];
    assert_no_delay(stage.sidecar.pid(), &ends);
}

#[tokio::test]
async fn a_websocket() {
    let (upstream, _) = websocket::upstream().await;
    let policy = policies::ONE_API.replace("allow = [\"GET /{*path}\"]", "allow = [\"WEBSOCKET /{*path}\"]");
    let stage = Stage::of(&policy, upstream, |builder| builder).await;
    let nonce = stage.reader().await;
    let _socket = websocket::open(&stage.sidecar.agent(), "/echo", &nonce).await;
    let ends = [("an agent", stage.sidecar.proxy, 1), ("the upstream", stage.upstream.address, 1)];
    assert_no_delay(stage.sidecar.pid(), &ends);
}

#[tokio::test]
async fn a_tunnel_that_is_relayed_unread() {
    let other = FakeUpstream::start(&["other.test"]).await;
    let policy = format!("{}\n[egress]\nunlisted = \"tunnel\"\n", policies::ONE_API);
    let stage = Stage::of(&policy, FakeUpstream::start(&["api.test"]).await, |builder| {
        builder.upstream(&["other.test"], "other", &other)
    })
    .await;
    let agent = Agent::new(stage.sidecar.proxy, &other.authority.pem);
    let mut unread =
        agent.tls_tunnel("other.test", "other.test", &[b"http/1.1"]).await.expect("the upstream's own TLS");
    ask(&mut unread, "/x", "none").await;
    assert_no_delay(stage.sidecar.pid(), &[("an agent", stage.sidecar.proxy, 1), ("the upstream", other.address, 1)]);
}

/// Whatever it is asked for, it makes a tunnel to `to`.
async fn parent(to: SocketAddr) -> FakeUpstream {
    FakeUpstream::speaking_freely(&["parent.test"], move |_, mut wire| async move {
        let mut upstream = TcpStream::connect(to).await.expect("the upstream");
        wire.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.expect("writable");
        let _ = copy_bidirectional(&mut wire, &mut upstream).await;
    })
    .await
}

#[tokio::test]
async fn the_way_through_a_parent_proxy() {
    for alpn in [&b"http/1.1"[..], b"h2"] {
        let upstream = FakeUpstream::start_with(&["api.test"], &[alpn]).await;
        let parent = parent(upstream.address).await;
        let policy = format!("{}\n[egress]\nupstream_proxy = \"http://{}\"\n", policies::ONE_API, parent.address);
        let sidecar = TestSidecar::with_policy(&policy)
            .file("api.pem", &upstream.authority.pem)
            .environment("API_KEY", &canary())
            .start()
            .await;
        let nonce = sidecar.orchestrator().mint("worker", "api", "read").await.nonce;
        let mut tunnel = sidecar.agent().tunnel("api.test").await;
        assert_eq!(tunnel.send(get("api.test", "/x", &nonce)).await.status, 200);
        assert_no_delay(sidecar.pid(), &[("an agent", sidecar.proxy, 1), ("the parent", parent.address, 1)]);
    }
}
