//! `TCP_NODELAY` on redirected connections, as on all others.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio_rustls::TlsConnector;

use super::{AGENT, ELSEWHERE, PATIENCE, Scene};
use crate::support::sockets::assert_no_delay;
use crate::support::wire::read_answers;

/// Asks on an open connection; it stays open.
async fn ask(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), nonce: &str) {
    let head = format!("GET /echo HTTP/1.1\r\nHost: api.test\r\nAuthorization: Bearer {nonce}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("writable");
    let answer = read_answers(stream, 1, PATIENCE).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn nothing_waits_for_an_acknowledgement_in_tls() {
    let Some(scene) = Scene::new().await else { return };
    let nonce = scene.nonce().await;
    let connector = TlsConnector::from(Arc::new(scene.stage.sidecar.agent().tls(&[b"http/1.1"])));
    let mut open = Vec::new();
    for address in ELSEWHERE {
        let stream = scene.inner.connect(AGENT, &format!("{address}:443")).await.expect("redirected");
        let name = ServerName::try_from("api.test").expect("a name");
        let mut stream = connector.connect(name, stream).await.expect("TLS");
        ask(&mut stream, &nonce).await;
        open.push(stream);
    }
    let listeners = ["127.0.0.1:15001", "[::1]:15001"].map(|text| text.parse::<SocketAddr>().expect("an address"));
    let ends =
        [("IPv4", listeners[0], 1), ("IPv6", listeners[1], 1), ("the upstream", scene.stage.upstream.address, 1)];
    assert_no_delay(scene.stage.sidecar.pid(), &ends);
}

#[tokio::test]
async fn nothing_waits_for_an_acknowledgement_in_clear_text() {
    let Some(scene) = Scene::in_clear_text().await else { return };
    let nonce = scene.nonce().await;
    let mut stream = scene.inner.connect(AGENT, "198.51.100.7:80").await.expect("redirected");
    ask(&mut stream, &nonce).await;
    let listener = "127.0.0.1:15001".parse().expect("an address");
    let ends = [("a client", listener, 1), ("the upstream", scene.stage.upstream.address, 1)];
    assert_no_delay(scene.stage.sidecar.pid(), &ends);
}
