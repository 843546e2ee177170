//! Clients on other machines, and hosts that nobody lists.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use tokio::io::AsyncWriteExt;
use tokio_rustls::TlsConnector;

use super::{ask, connect, policy, scene};
use crate::support::agent::PATIENCE;
use crate::support::wire::read_answers;
use crate::support::{Agent, FakeUpstream, skip};

#[tokio::test]
async fn beyond_loopback_nonces_are_taken_over_tls() {
    // The address that this machine would send from; nothing is sent.
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
    let address = socket.connect("192.0.2.1:9").and_then(|()| socket.local_addr()).map(|address| address.ip());
    let Ok(address) = address else { return skip("no address but loopback") };
    let listen = SocketAddr::new(address, 0).to_string();
    let policy = policy() + "\n[egress]\nproxy_auth = \"required\"\n";
    let scene = scene(&policy, |builder, _| builder.set_flag("--listen-tls", &listen).flag("--allow-remote")).await;
    let nonce = scene.stage.reader().await;
    let worker = scene.worker().await;
    assert_eq!(ask(&worker, &nonce).await, (200, None));
    assert_eq!(ask(&worker.vouched(&format!("{nonce}:")), &nonce).await, (200, None));
    // The challenge comes from there too, and what is sent then is looked at.
    let plain = scene.plain().await;
    let (status, code, head) = connect(&plain).await;
    assert_eq!((status, code.as_str()), (407, "agent_unidentified"));
    assert!(head.to_ascii_lowercase().contains("proxy-authenticate"), "{head}");
    assert_eq!(connect(&plain.vouched(&format!("{nonce}:"))).await.0, 407, "its agent is not proven");
    let door = format!(
        "GET http://valetkey.internal/v1/self HTTP/1.1\r\nHost: valetkey.internal\r\nAuthorization: Bearer {nonce}\r\n\r\n"
    );
    let answer = worker.raw(door.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn an_unlisted_host_is_relayed_unread() {
    let other = FakeUpstream::start(&["other.test"]).await;
    let policy = policy() + "\n[egress]\nunlisted = \"tunnel\"\n";
    let scene = scene(&policy, |builder, _| builder.upstream(&["other.test"], "other", &other)).await;
    let (head, stream) = scene.worker().await.connect("other.test:443").await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let inner = Agent::new(scene.stage.sidecar.proxy, &other.authority.pem).tls(&[b"http/1.1"]);
    let name = ServerName::try_from("other.test").expect("a name");
    let stream = TlsConnector::from(Arc::new(inner)).connect(name, stream).await;
    let mut stream = stream.expect("the upstream's own certificate");
    stream.write_all(b"GET /x HTTP/1.1\r\nHost: other.test\r\n\r\n").await.expect("writable");
    let answer = read_answers(&mut stream, 1, PATIENCE).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    drop(stream);
    let is_end = |record: &serde_json::Value| record["type"] == "end" && record["status"] == 200;
    scene.stage.sidecar.audited(is_end).await;
}
