//! Not in an answer's headers, body, trailers, compressed or split over chunks, not in an error, not in a log.

use crate::support::agent::with;
use crate::support::codings::open;
use crate::support::{FakeUpstream, Stage};

/// Every way in which the fake upstream echoes what it got.
const ECHOES: [&str; 10] =
    ["/echo", "/header", "/reason", "/gzip", "/deflate", "/br", "/zstd", "/split", "/trailers", "/nothing"];

#[tokio::test]
async fn whatever_the_upstream_echoes_over_h1_and_h2() {
    let stage = Stage::new().await;
    let nonce = stage.reader().await;
    let agent = stage.sidecar.agent();
    for path in ECHOES {
        let accept =
            [("authorization", format!("Bearer {nonce}")), ("accept-encoding", "gzip, deflate, br, zstd".to_owned())];
        let accept: Vec<(&str, &str)> = accept.iter().map(|(name, value)| (*name, value.as_str())).collect();
        for reply in [
            agent.send(with("GET", "api.test", path, &accept, "")).await,
            agent.send_h2(with("GET", "api.test", path, &accept, "")).await,
        ] {
            let mut everything = reply.everything();
            if let Some(coding) = reply.headers.get("content-encoding") {
                let (text, is_whole) = open(coding.to_str().expect("a name"), &reply.body);
                assert!(is_whole && text.starts_with(b"before "), "{path}");
                everything.extend(text);
            }
            stage.assert_clean(&everything, path);
            assert!(!everything.windows(nonce.len()).any(|window| window == nonce.as_bytes()), "{path}");
        }
    }
    let delivered = stage.upstream.seen();
    assert_eq!(delivered.len(), 2 * ECHOES.len(), "every request arrived");
    let expected = format!("Bearer {}", stage.secret);
    assert!(delivered.iter().all(|seen| seen.header("authorization") == Some(&expected)), "with the real credential");
    stage.assert_silent(&[&nonce]);
}

#[tokio::test]
async fn in_every_slot() {
    let stage = Stage::new().await;
    let nonce = stage.reader().await;
    let basic_user = format!("Basic {}", base64(&format!("{nonce}:")));
    let basic_password = format!("Basic {}", base64(&format!("x-access-token:{nonce}")));
    let bearer = format!("bearer {nonce}");
    let token = format!("token {nonce}");
    let slots: [(&str, &str, &str, String); 6] = [
        ("/echo", "authorization", &bearer, format!("Bearer {}", stage.secret)),
        ("/echo", "authorization", &token, format!("token {}", stage.secret)),
        ("/echo", "authorization", &basic_user, format!("Basic {}", base64(&format!("{}:", stage.secret)))),
        (
            "/echo",
            "authorization",
            &basic_password,
            format!("Basic {}", base64(&format!("x-access-token:{}", stage.secret))),
        ),
        ("/echo", "x-api-key", &nonce, stage.secret.clone()),
        ("/echo?a=1&key=NONCE&b=2", "accept", "*/*", format!("/echo?a=1&key={}&b=2", stage.secret)),
    ];
    for (path, name, value, expected) in &slots {
        let path = path.replace("NONCE", &nonce);
        let reply = stage.sidecar.agent().send(with("GET", "api.test", &path, &[(name, value)], "")).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        stage.assert_clean(&reply.everything(), &path);
        let seen = stage.upstream.seen().pop().expect("a request");
        let arrived = if path.contains('?') { Some(seen.target.as_str()) } else { seen.header(name) };
        assert_eq!(arrived, Some(expected.as_str()));
    }
}

#[tokio::test]
async fn what_cannot_be_searched_is_withheld() {
    let stage = Stage::new().await;
    let nonce = stage.reader().await;
    for path in ["/stacked", "/unknown-encoding", "/partial"] {
        let reply = stage.sidecar.agent().get("api.test", path, &nonce).await;
        assert_eq!(reply.refusal(), Some("answer_unscrubbable"), "{path}: {}", reply.text());
        assert_eq!(reply.status, 502);
        stage.assert_clean(&reply.everything(), path);
    }
}

#[tokio::test]
async fn ranges_and_odd_encodings_are_not_asked_for() {
    let stage = Stage::new().await;
    let bearer = format!("Bearer {}", stage.reader().await);
    let headers = [
        ("authorization", bearer.as_str()),
        ("range", "bytes=0-3"),
        ("if-range", "\"x\""),
        ("a-im", "gzip, vcdiff"),
        ("accept-encoding", "compress, br;q=1, gzip;q=0.5, *;q=0.1"),
    ];
    stage.sidecar.agent().send(with("GET", "api.test", "/x", &headers, "")).await;
    let seen = stage.upstream.only();
    assert_eq!(seen.header("range"), None);
    assert_eq!(seen.header("if-range"), None);
    assert_eq!(seen.header("a-im"), None);
    assert_eq!(seen.header("accept-encoding"), Some("br;q=1, gzip;q=0.5"));
}

#[tokio::test]
async fn not_when_the_upstream_breaks_off_or_speaks_nonsense() {
    for answer in [
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nshort".to_vec(),
        b"nonsense\r\n\r\n".to_vec(),
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nZZ\r\n".to_vec(),
        Vec::new(),
    ] {
        let upstream = FakeUpstream::raw(&["api.test"], move |_| answer.clone()).await;
        let stage = Stage::with(upstream, |builder| builder).await;
        let nonce = stage.reader().await;
        let mut tunnel = stage.sidecar.agent().tunnel("api.test").await;
        // What breaks off may take its own head with it; what is whole is a refusal.
        if let Ok(response) = tunnel.try_start(crate::support::agent::get("api.test", "/x", &nonce)).await
            && let Ok(reply) = crate::support::agent::read(response).await
        {
            assert_eq!(reply.status, 502, "{}", reply.text());
            stage.assert_clean(&reply.everything(), "the refusal");
        }
        stage.assert_silent(&[&nonce]);
    }
}

fn base64(text: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(text)
}
