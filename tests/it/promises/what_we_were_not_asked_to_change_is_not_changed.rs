//! Bodies, trailers, streaming and header case pass as they came.

use crate::support::agent::{get, with};
use crate::support::{FakeUpstream, Stage};

/// Every byte there is, many times over.
fn every_byte() -> String {
    (0..40_000u32).map(|n| char::from_u32(n % 0x2ff + 1).expect("a character")).collect()
}

#[tokio::test]
async fn request_bodies_arrive_byte_for_byte() {
    for alpn in [&[&b"h2"[..]][..], &[&b"http/1.1"[..]][..]] {
        let stage = Stage::with(FakeUpstream::start_with(&["api.test"], alpn).await, |builder| builder).await;
        let bearer = format!("Bearer {}", stage.writer().await);
        let body = every_byte();
        let request =
            || with("POST", "api.test", "/x", &[("authorization", &bearer), ("content-type", "text/x")], &body);
        assert_eq!(stage.sidecar.agent().send(request()).await.status, 200);
        assert_eq!(stage.sidecar.agent().send_h2(request()).await.status, 200);
        for seen in stage.upstream.seen() {
            assert_eq!(seen.body, body.as_bytes());
            assert_eq!(seen.header("content-type"), Some("text/x"));
        }
    }
}

#[tokio::test]
async fn answers_arrive_byte_for_byte_with_their_length() {
    let body = every_byte().into_bytes();
    let answer = {
        let head =
            format!("HTTP/1.1 200 Fine By Me\r\nX-Order: 1\r\nX-Other: 2\r\nContent-Length: {}\r\n\r\n", body.len());
        [head.into_bytes(), body.clone()].concat()
    };
    let upstream = FakeUpstream::raw(&["api.test"], move |_| answer.clone()).await;
    let stage = Stage::with(upstream, |builder| builder).await;
    let nonce = stage.reader().await;
    let reply = stage.sidecar.agent().get("api.test", "/x", &nonce).await;
    assert_eq!(reply.body, body);
    assert_eq!(reply.headers["content-length"], body.len().to_string().as_str());
    assert_eq!(reply.reason.as_deref(), Some("Fine By Me"));
    let names: Vec<&str> = reply.headers.keys().map(http::HeaderName::as_str).collect();
    assert!(names.starts_with(&["x-order", "x-other", "content-length"]), "in their order: {names:?}");
}

#[tokio::test]
async fn fields_keep_their_values_and_order() {
    for (alpn, host) in [(&b"http/1.1"[..], Some("api.test")), (&b"h2"[..], None)] {
        let stage = Stage::with(FakeUpstream::start_with(&["api.test"], &[alpn]).await, |builder| builder).await;
        let nonce = stage.reader().await;
        let bytes = format!(
            "GET /x HTTP/1.1\r\nX-First: 1\r\nHost: API.test:443\r\nAuthorization: Bearer {nonce}\r\nX-Second: a, b\r\n\
             Accept: */*\r\nX-Third:   padded  \r\nUser-Agent: someone/1.0 (x; y)\r\nConnection: close\r\n\r\n"
        );
        stage.sidecar.agent().raw_inside("api.test", bytes.as_bytes()).await;
        let seen = stage.upstream.only();
        // The host is the one that was judged, in its place; HTTP/2 has another place for it.
        assert_eq!(seen.header("host"), host);
        let sent = ["x-first", "host", "authorization", "x-second", "accept", "x-third", "user-agent"];
        let names: Vec<&str> =
            seen.headers.keys().map(http::HeaderName::as_str).filter(|name| sent.contains(name)).collect();
        let expected: Vec<&str> = sent.into_iter().filter(|name| host.is_some() || *name != "host").collect();
        assert_eq!(names, expected);
        assert_eq!(seen.header("x-second"), Some("a, b"));
        assert_eq!(seen.header("x-third"), Some("padded"));
        assert_eq!(seen.header("user-agent"), Some("someone/1.0 (x; y)"));
    }
}

#[tokio::test]
async fn an_upstreams_own_errors_are_not_ours() {
    let stage = Stage::new().await;
    let nonce = stage.reader().await;
    let reply = stage.sidecar.agent().send(get("api.test", "/401", &nonce)).await;
    assert_eq!((reply.status.as_u16(), reply.text().as_str()), (401, "the upstream's own 401"));
    assert_eq!(reply.refusal(), None);
    assert!(!reply.headers.contains_key("proxy-status"));
}
