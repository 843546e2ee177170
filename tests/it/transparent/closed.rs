//! What is closed before there is a request to answer, and is on record.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{AGENT, ELSEWHERE, PATIENCE, SIDECAR, Scene, for_the_agent, ruleset};
use crate::support::sidecar::eventually;
use crate::support::{Stage, policies};

/// Sends and reads until the other end is over; what it said.
async fn told(stream: &mut TcpStream, bytes: &[u8]) -> String {
    // What was closed in the meantime cannot be written to.
    let _ = stream.write_all(bytes).await;
    let mut said = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut said)).await;
    let _ = read.expect("it is closed");
    String::from_utf8_lossy(&said).into_owned()
}

#[tokio::test]
async fn a_connection_straight_to_the_port_is_refused_as_a_loop() {
    let upstream = crate::support::FakeUpstream::start(&["api.test"]).await;
    let stage =
        Stage::of(policies::ONE_API, upstream, |builder| builder.flag("--transparent").flag("127.0.0.1:0")).await;
    let ready: serde_json::Value = serde_json::from_str(&stage.sidecar.text("ready.json")).expect("JSON");
    let address = ready["transparent"][0].as_str().expect("an address").to_owned();
    let start = stage.sidecar.audited(|record| record["type"] == "start").await;
    assert!(start.to_string().contains(&format!("[\"{address}\"]")), "{start:#}");
    let requests =
        ["", "GET / HTTP/1.1\r\nHost: api.test\r\n\r\n", "CONNECT api.test:443 HTTP/1.1\r\nHost: api.test:443\r\n\r\n"];
    for request in requests {
        let mut stream = TcpStream::connect(&address).await.expect("a listener");
        assert_eq!(told(&mut stream, request.as_bytes()).await, "", "{request:?}");
    }
    let record = stage.sidecar.audited(|record| record["code"] == "transparent_loop").await;
    assert_eq!(record["type"], "connection");
    let metrics = stage.sidecar.admin_get("/metrics").await.text();
    assert!(metrics.contains("transparent_loop"), "{metrics}");
    let (answer, _) = stage.sidecar.agent().connect(&address).await;
    assert!(!answer.starts_with("HTTP/1.1 200"), "nor is it reached through the proxy: {answer}");
}

#[tokio::test]
async fn a_loop_is_seen_from_every_side() {
    let Some(scene) = Scene::new().await else { return };
    for (uid, address) in [(AGENT, "127.0.0.1:15001"), (AGENT, "[::1]:15001"), (0, "127.0.0.1:15001")] {
        let mut stream = scene.inner.connect(uid, address).await.expect("a listener");
        assert_eq!(told(&mut stream, b"GET / HTTP/1.1\r\nHost: api.test\r\n\r\n").await, "", "{address}");
    }
    // A ruleset that forgets to leave the sidecar out.
    scene.inner.rules(&ruleset(&[AGENT, SIDECAR])).expect("rules");
    let mut stream = scene.inner.connect(SIDECAR, "198.51.100.7:80").await.expect("redirected");
    assert_eq!(told(&mut stream, b"GET / HTTP/1.1\r\nHost: api.test\r\n\r\n").await, "");
    let is_loop = |record: &&serde_json::Value| record["code"] == "transparent_loop";
    let loops = || scene.stage.sidecar.audit().iter().filter(is_loop).count();
    eventually("four records of a loop", || (loops() >= 4).then_some(())).await;
    assert_eq!(loops(), 4);
    assert_eq!(scene.stage.upstream.connections(), 0);
}

#[tokio::test]
async fn what_is_neither_tls_nor_http_is_closed() {
    let Some(scene) = Scene::new().await else { return };
    // A handshake record without end: 16 KiB of a ClientHello of 60,000 bytes, and more.
    let mut endless = Vec::new();
    for number in 0..3 {
        endless.extend_from_slice(&[22, 3, 1, 0x40, 0]);
        endless.extend_from_slice(if number == 0 { &[1, 0, 0xea, 0x60] } else { &[0; 4] });
        endless.extend_from_slice(&[0; 0x4000 - 4]);
    }
    let cases: [(&[u8], &str); 4] = [
        (b"\x00\x01\x02\x03", "protocol_unknown"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "request_malformed"),
        (b"\x16\x03\x01\x00\x05garbage", "not_tls"),
        (&endless, "not_tls"),
    ];
    for (bytes, code) in cases {
        let mut stream = scene.inner.connect(AGENT, "198.51.100.7:443").await.expect("redirected");
        let said = told(&mut stream, bytes).await;
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 400"), "{code}: {said}");
        scene.closed_as(code).await;
    }
    let is_closed = |record: &&serde_json::Value| record["code"] == "not_tls";
    let closed = || scene.stage.sidecar.audit().iter().filter(is_closed).count();
    eventually("both records", || (closed() >= 2).then_some(())).await;
    assert_eq!(closed(), 2);
}

#[tokio::test]
async fn without_a_name_there_is_no_host() {
    let Some(scene) = Scene::new().await else { return };
    for address in ELSEWHERE {
        let reply = scene.curl(AGENT, &["--insecure", &format!("https://{address}/")]).await;
        assert!(reply.answer.is_none() && reply.exit != Some(0), "{reply:?}");
        let destination = format!("{address}:443");
        let named =
            |record: &serde_json::Value| record["code"] == "sni_missing" && record["destination"] == destination;
        scene.stage.sidecar.audited(named).await;
    }
}

#[tokio::test]
async fn a_service_that_lists_the_address_itself_needs_no_name() {
    let policy = for_the_agent(policies::ONE_API).replace("[\"api.test\"]", "[\"198.51.100.7\"]");
    let there = |builder: crate::support::Builder, _: &_| builder.flag("--connect-to=198.51.100.7:443:127.0.0.1:9");
    let Some(scene) = Scene::of(&policy, there).await else { return };
    let bearer = format!("Authorization: Bearer {}", scene.nonce().await);
    let reply = scene.curl(AGENT, &["-H", &bearer, "https://198.51.100.7/echo"]).await;
    assert_eq!((reply.status(), reply.refusal()), (502, Some("upstream_unreachable")), "it was tried: {reply:?}");
}

#[tokio::test]
async fn the_name_is_the_same_everywhere() {
    let Some(scene) = Scene::new().await else { return };
    let bearer = format!("Authorization: Bearer {}", scene.nonce().await);
    let arguments = ["-H", &bearer, "-H", "Host: other.test", "--resolve", "api.test:443:198.51.100.7"];
    let reply = scene.curl(AGENT, &[&arguments[..], &["https://api.test/echo"]].concat()).await;
    assert_eq!((reply.status(), reply.refusal()), (421, Some("destination_mismatch")), "{reply:?}");
    assert_eq!(scene.stage.upstream.connections(), 0);
}

#[tokio::test]
async fn requests_that_name_no_host_or_two_or_want_a_proxy_are_refused() {
    let Some(scene) = Scene::new().await else { return };
    for (head, status) in [
        ("GET / HTTP/1.1\r\n", 400),
        ("GET / HTTP/1.0\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: api.test\r\nHost: api.test\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: api.test:8080\r\n", 421),
        ("GET http://other.test/ HTTP/1.1\r\nHost: api.test\r\n", 421),
        ("GET https://api.test/ HTTP/1.1\r\nHost: api.test\r\n", 421),
        ("CONNECT api.test:443 HTTP/1.1\r\nHost: api.test:443\r\n", 400),
        ("CONNECT api.test:80 HTTP/1.1\r\nHost: api.test\r\n", 400),
        ("OPTIONS * HTTP/1.1\r\nHost: api.test\r\n", 400),
    ] {
        let mut stream = scene.inner.connect(AGENT, "198.51.100.7:80").await.expect("redirected");
        let said = told(&mut stream, format!("{head}Connection: close\r\n\r\n").as_bytes()).await;
        assert!(
            said.starts_with(&format!("HTTP/1.1 {status} ")) || said.starts_with(&format!("HTTP/1.0 {status} ")),
            "{head:?}: {said}"
        );
    }
    assert_eq!(scene.stage.upstream.connections(), 0);
}

#[tokio::test]
async fn a_client_that_says_nothing_is_closed() {
    let quick =
        |builder: crate::support::Builder, _: &_| builder.flag("--head-timeout=1s").flag("--handshake-timeout=1s");
    let Some(scene) = Scene::of(&for_the_agent(policies::ONE_API), quick).await else { return };
    for (bytes, code) in [(&b""[..], "request_timeout"), (b"\x16\x03\x01", "tls_handshake_timeout")] {
        let mut stream = scene.inner.connect(AGENT, "198.51.100.7:443").await.expect("redirected");
        assert_eq!(told(&mut stream, bytes).await, "", "{code}");
        scene.closed_as(code).await;
    }
}
