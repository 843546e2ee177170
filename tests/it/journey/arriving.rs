//! Sockets in, CONNECT, TLS: what real clients send, and what nobody should.

use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;

use crate::support::agent::{get, with};
use crate::support::{FakeUpstream, Stage, skip};

#[tokio::test]
async fn connect_as_http_1_0_without_host_and_with_connection_close() {
    let stage = Stage::new().await;
    let nonce = stage.reader().await;
    for head in [
        "CONNECT api.test:443 HTTP/1.0\r\n\r\n",
        "CONNECT api.test:443 HTTP/1.1\r\nHost: api.test:443\r\nConnection: close\r\n\r\n",
        "CONNECT api.test:443 HTTP/1.1\r\nHost: api.test:443\r\nProxy-Connection: Keep-Alive\r\nUser-Agent: x\r\n\r\n",
    ] {
        let agent = stage.sidecar.agent();
        let (answer, stream) = agent.connect_with(head.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.") && answer.contains(" 200 "), "{head}: {answer}");
        let name = rustls::pki_types::ServerName::try_from("api.test").expect("a name");
        let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(agent.tls(&[])));
        let mut tls = connector.connect(name, stream).await.expect("TLS inside");
        let request =
            format!("GET /x HTTP/1.1\r\nHost: api.test\r\nAuthorization: Bearer {nonce}\r\nConnection: close\r\n\r\n");
        tls.write_all(request.as_bytes()).await.expect("writable");
        let mut answer = String::new();
        let _ = tokio::io::AsyncReadExt::read_to_string(&mut tls, &mut answer).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

#[tokio::test]
async fn absolute_form_for_https_in_clear_on_loopback() {
    let stage = Stage::new().await;
    let nonce = stage.reader().await;
    let request = format!(
        "GET https://api.test/echo HTTP/1.1\r\nHost: api.test\r\nAuthorization: Bearer {nonce}\r\n\
         Proxy-Authorization: Basic Zm9v\r\nProxy-Connection: keep-alive\r\nConnection: close\r\n\r\n"
    );
    let answer = stage.sidecar.agent().raw(request.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let seen = stage.upstream.only();
    assert_eq!(seen.header("authorization"), Some(format!("Bearer {}", stage.secret).as_str()));
    assert!(seen.headers.keys().all(|name| !name.as_str().starts_with("proxy-")), "{:?}", seen.headers);
}

#[tokio::test]
async fn what_is_no_proxy_request_gets_a_clear_refusal() {
    let stage = Stage::new().await;
    let agent = stage.sidecar.agent();
    for bytes in [
        "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "CONNECT api.test HTTP/1.1\r\nHost: api.test\r\n\r\n",
        "CONNECT api.test:0 HTTP/1.1\r\nHost: api.test\r\n\r\n",
        "CONNECT api.test:65537 HTTP/1.1\r\nHost: api.test\r\n\r\n",
        "CONNECT user@api.test:443 HTTP/1.1\r\nHost: api.test\r\n\r\n",
        "GET ftp://api.test/ HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n\r\n",
        "nonsense\r\n\r\n",
    ] {
        let answer = agent.raw(bytes.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{bytes:?}: {answer}");
    }
}

#[tokio::test]
async fn alpn_is_chosen_on_each_leg_by_itself() {
    for alpn in [&[&b"h2"[..]][..], &[&b"http/1.1"[..]][..], &[][..]] {
        let upstream = FakeUpstream::start_with(&["api.test"], alpn).await;
        let stage = Stage::with(upstream, |builder| builder).await;
        let nonce = stage.reader().await;
        let agent = stage.sidecar.agent();
        let h2 = agent.send_h2(get("api.test", "/x", &nonce)).await;
        let h1 = agent.get("api.test", "/x", &nonce).await;
        assert_eq!((h2.status.as_u16(), h1.status.as_u16()), (200, 200), "{alpn:?}");
        let expected = if alpn.contains(&&b"h2"[..]) { http::Version::HTTP_2 } else { http::Version::HTTP_11 };
        assert!(stage.upstream.seen().iter().all(|seen| seen.version == expected));
    }
}

#[tokio::test]
async fn sessions_are_resumed_and_the_leaf_is_the_same() {
    let stage = Stage::new().await;
    let agent = stage.sidecar.agent();
    let config = std::sync::Arc::new(agent.tls(&[b"http/1.1"]));
    let mut leaves = Vec::new();
    let mut kinds = Vec::new();
    for _ in 0..3 {
        let (_, stream) = agent.connect("api.test:443").await;
        let name = rustls::pki_types::ServerName::try_from("api.test").expect("a name");
        let mut tls = tokio_rustls::TlsConnector::from(config.clone()).connect(name, stream).await.expect("TLS");
        tls.write_all(b"GET / HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n\r\n").await.expect("writable");
        let _ = tokio::io::AsyncReadExt::read_to_end(&mut tls, &mut Vec::new()).await;
        let connection = tls.get_ref().1;
        kinds.push(connection.handshake_kind());
        leaves.push(connection.peer_certificates().map(|chain| chain[0].clone()));
    }
    assert_eq!(kinds[2], Some(rustls::HandshakeKind::Resumed));
    assert_eq!(leaves[0], leaves[1]);
}

#[tokio::test]
async fn a_tunnel_with_something_else_than_tls_is_closed_and_on_record() {
    let stage = Stage::new().await;
    let (_, mut stream) = stage.sidecar.agent().connect("api.test:443").await;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: api.test\r\n\r\n").await.expect("writable");
    stage.sidecar.audited(|record| record["code"] == "not_tls").await;
    assert_eq!(stage.upstream.connections(), 0);
}

#[tokio::test]
async fn slow_heads_and_slow_handshakes_are_cut() {
    let upstream = FakeUpstream::start(&["api.test"]).await;
    let stage = Stage::with(upstream, |builder| {
        builder.flag("--head-timeout").flag("1s").flag("--handshake-timeout").flag("1s")
    })
    .await;
    let agent = stage.sidecar.agent();
    let begun = Instant::now();
    let head = agent.raw(b"GET https://api.test/ HT");
    let silent = async {
        let (_, mut stream) = agent.connect("api.test:443").await;
        let _ = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut Vec::new()).await;
    };
    let inside = agent.raw_inside("api.test", b"GET / HTTP/1.1\r\nHo");
    tokio::join!(head, silent, inside);
    assert!(begun.elapsed() < Duration::from_secs(10), "none of them hangs");
}

#[tokio::test]
async fn large_heads_get_their_status() {
    let stage = Stage::new().await;
    let nonce = stage.reader().await;
    let many: String = (0..150).map(|n| format!("X-{n}: y\r\n")).collect();
    let many = format!("GET /x HTTP/1.1\r\nHost: api.test\r\n{many}\r\n");
    let answer = stage.sidecar.agent().raw_inside("api.test", many.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    let long = stage.sidecar.agent().get("api.test", &format!("/{}", "a".repeat(20_000)), &nonce).await;
    assert_eq!((long.status.as_u16(), long.refusal()), (414, Some("request_too_large")));
    let big = format!("GET /x HTTP/1.1\r\nHost: api.test\r\nX: {}\r\n\r\n", "a".repeat(100_000));
    let answer = stage.sidecar.agent().raw_inside("api.test", big.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
}

#[tokio::test]
async fn framing_that_two_parsers_could_read_differently_is_refused() {
    let stage = Stage::new().await;
    let nonce = stage.writer().await;
    for framing in [
        "Content-Length: 05",
        "Content-Length: +5",
        "Content-Length: 5, 5",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: xchunked",
        "Connection: authorization\r\nContent-Length: 5",
        "X-HTTP-Method-Override: DELETE\r\nContent-Length: 5",
    ] {
        let bytes =
            format!("POST /x HTTP/1.1\r\nHost: api.test\r\nAuthorization: Bearer {nonce}\r\n{framing}\r\n\r\nhello");
        let answer = stage.sidecar.agent().raw_inside("api.test", bytes.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{framing}: {answer}");
    }
    assert!(stage.upstream.seen().is_empty());
}

#[tokio::test]
async fn the_sidecars_own_listeners_cannot_be_reached_through_it() {
    let stage = Stage::new().await;
    let admin = stage.sidecar.admin;
    let reply = stage
        .sidecar
        .agent()
        .raw(format!("GET http://{admin}/metrics HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n").as_bytes())
        .await;
    assert!(reply.starts_with("HTTP/1.1 403"), "{reply}");
    let (answer, _) = stage.sidecar.agent().connect(&stage.sidecar.proxy.to_string()).await;
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
}

#[tokio::test]
async fn trace_and_connect_inside_a_tunnel_are_refused() {
    let stage = Stage::new().await;
    let nonce = stage.reader().await;
    let bearer = format!("Bearer {nonce}");
    let reply = stage.sidecar.agent().send(with("TRACE", "api.test", "/x", &[("authorization", &bearer)], "")).await;
    assert_eq!(reply.status, 400);
    assert!(stage.upstream.seen().is_empty());
}

#[tokio::test]
async fn a_client_that_does_not_trust_the_ca_ends_the_handshake_on_record() {
    let stage = Stage::new().await;
    let stranger = crate::support::Agent::new(stage.sidecar.proxy, &stage.upstream.authority.pem);
    assert!(stranger.tls_tunnel("api.test", "api.test", &[]).await.is_err());
    stage.sidecar.audited(|record| record["code"] == "tls_handshake_failed").await;
    assert_eq!(stage.upstream.connections(), 0);
}

#[tokio::test]
async fn it_listens_on_ipv6_too() {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        return skip("no IPv6 here");
    }
    let upstream = FakeUpstream::start(&["api.test"]).await;
    let listen = |builder: crate::support::Builder| builder.set("--listen", "[::1]:0").set("--admin", "[::1]:0");
    let stage = Stage::with(upstream, listen).await;
    let nonce = stage.reader().await;
    assert_eq!(stage.sidecar.agent().get("api.test", "/x", &nonce).await.status, 200);
    assert_eq!(stage.sidecar.admin_get("/livez").await.status, 200);
}
