//! `TCP_NODELAY` on redirected connections, as on all others.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use tokio_rustls::TlsConnector;

use super::{AGENT, ELSEWHERE, Scene};
use crate::support::sockets::{ask, assert_no_delay};

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
        ask(&mut stream, "/echo", &nonce).await;
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
    ask(&mut stream, "/echo", &nonce).await;
    let listener = "127.0.0.1:15001".parse().expect("an address");
    let ends = [("a client", listener, 1), ("the upstream", scene.stage.upstream.address, 1)];
    assert_no_delay(scene.stage.sidecar.pid(), &ends);
}
