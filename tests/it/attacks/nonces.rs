//! Nonces as they should not come: twice, half, bent, guessed, or with somebody's word for who brings them.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE};

use super::{outcome, request, send};
use crate::support::agent::{get, with};
use crate::support::{FakeUpstream, Stage, policies};

/// A request with this and nothing else as its credential.
fn with_authorization(value: &str) -> Vec<u8> {
    let head = format!("GET /x HTTP/1.1\r\nHost: api.test\r\nAuthorization: {value}\r\nConnection: close\r\n\r\n");
    head.into_bytes()
}

#[tokio::test]
async fn one_request_presents_one_nonce() {
    let stage = Stage::new().await;
    let (first, second) = (stage.reader().await, stage.reader().await);
    let (one, two) = (format!("Bearer {first}"), format!("Bearer {second}"));
    for pair in
        [[&*one, &*one], [&*one, &*two], [&*one, "Bearer sk_live_other"], ["Bearer sk_live_other", &*one], [&*one, ""]]
    {
        let fields = pair.map(|value| ("authorization", value));
        let replies = [
            stage.sidecar.agent().send(with("GET", "api.test", "/x", &fields, "")).await,
            stage.sidecar.agent().send_h2(with("GET", "api.test", "/x", &fields, "")).await,
        ];
        for reply in replies {
            assert!(reply.refusal().is_some() && reply.status.is_client_error(), "{pair:?}: {}", reply.status);
        }
    }
    for fields in [
        [("authorization", one.as_str()), ("x-api-key", second.as_str())],
        [("authorization", &one), ("x-api-key", &first)],
    ] {
        let reply = stage.sidecar.agent().send(with("GET", "api.test", "/x", &fields, "")).await;
        assert_eq!(reply.refusal(), Some("foreign_credential"), "in two slots");
    }
    let beside = with("GET", "api.test", &format!("/x?key={second}"), &[("authorization", &one)], "");
    assert_eq!(stage.sidecar.agent().send(beside).await.refusal(), Some("foreign_credential"), "in two slots");
    assert!(stage.upstream.seen().is_empty(), "nothing arrived");
}

#[tokio::test]
async fn a_slot_holds_a_nonce_and_nothing_around_it() {
    let stage = Stage::new().await;
    let nonce = stage.reader().await;
    let shapes = "Bearer N, Bearer N|Bearer N,|Bearer N;|Bearer N N|Bearer N x|Bearer Nx|Bearer xN|Bearer \"N\"|Bearer  N|\
                  Bearer\tN|BearerN|Bearer:N|Bearer=N|Bearer Bearer N|Bearer|N|Digest N|Bearer %.3s|Bearer %.3s N|\
                  Bearer {N}|Bearer ${N}|Bearer N%00|Bearer %61n_|Bearer N\u{a0}|Bearer \u{feff}N|Token: N|Bearer token N|\
                  AWS4-HMAC-SHA256 Credential=N/20260101|Bearer N.N.N|Bearer N\0|Bearer <N>";
    for shape in shapes.split('|') {
        let answer = send(&stage, &with_authorization(&shape.replace('N', &nonce))).await;
        assert!((400..500).contains(&outcome(&answer).0), "{shape:?}: {answer}");
    }
    for part in [&nonce[..nonce.len() - 1], &nonce[..20], "an_", &nonce.to_ascii_uppercase(), &nonce[3..]] {
        let answer = send(&stage, &with_authorization(&format!("Bearer {part}"))).await;
        assert!(matches!(outcome(&answer).0, 401 | 403), "{part:?}: {answer}");
    }
    assert!(stage.upstream.seen().is_empty(), "nothing arrived");
    for shape in ["Bearer N", "bearer N", "BEARER N", "token N", "Bearer N  "] {
        let answer = send(&stage, &with_authorization(&shape.replace('N', &nonce))).await;
        assert_eq!(outcome(&answer).0, 200, "{shape:?}: {answer}");
        let seen = stage.upstream.seen().pop().expect("a request");
        assert!(seen.header("authorization").is_some_and(|value| value.ends_with(&stage.secret)), "whole, as it is");
    }
}

#[tokio::test]
async fn basic_credentials_are_read_strictly() {
    let stage = Stage::new().await;
    let nonce = stage.reader().await;
    let pair = |text: &str| STANDARD.encode(text.replace('N', &nonce));
    let long = format!("{}:N", "u".repeat(60));
    let mut values: Vec<String> = [
        "N:N",
        "a:b:N",
        "N:a:b",
        "sk_live_0123456789abcdef:N:",
        "N:sk_live_0123456789abcdef",
        "N",
        "",
        ":",
        "a:xN",
        &long,
        "N:\n",
        "\u{fc}:N",
    ]
    .iter()
    .map(|text| pair(text))
    .collect();
    values.extend([
        format!("{nonce}:"),
        "!!!".to_owned(),
        format!("{} {}", pair("N:"), pair("N:")),
        STANDARD.encode([b"\xff\xfe:", nonce.as_bytes()].concat()),
        URL_SAFE.encode(format!("\u{3ff}\u{3ff}:{nonce}")),
        STANDARD_NO_PAD.encode(format!("{nonce}:x")),
    ]);
    for value in values {
        let answer = send(&stage, &with_authorization(&format!("Basic {value}"))).await;
        assert!((400..500).contains(&outcome(&answer).0), "{value:?}: {answer}");
    }
    assert!(stage.upstream.seen().is_empty(), "nothing arrived");
    for (text, expected) in [("N:", "S:"), ("N:x-oauth-basic", "S:x-oauth-basic"), ("git:N", "git:S"), (":N", ":S")] {
        let answer = send(&stage, &with_authorization(&format!("Basic {}", pair(text)))).await;
        assert_eq!(outcome(&answer).0, 200, "{text}: {answer}");
        let seen = stage.upstream.seen().pop().expect("a request");
        let expected = format!("Basic {}", STANDARD.encode(expected.replace('S', &stage.secret)));
        assert_eq!(seen.header("authorization"), Some(expected.as_str()), "one half alone");
    }
}

#[tokio::test]
async fn nothing_but_its_slot_is_ever_replaced() {
    let stage = Stage::new().await;
    let (nonce, other) = (stage.writer().await, stage.reader().await);
    let names = "User-Agent Referer Origin X-Request-Id X-Correlation-Id X-Forwarded-For X-Real-IP From Via Accept \
                 Accept-Language Accept-Encoding Content-Language Content-Type If-None-Match If-Match If-Modified-Since \
                 Range Cache-Control Pragma Sec-CH-UA Sec-CH-UA-Platform Sec-Fetch-Dest X-CSRF-Token Idempotency-Key \
                 Traceparent Tracestate Baggage Link X-Custom Cookie Date Warning Prefer Expect TE Trailer Upgrade Connection";
    for name in names.split_ascii_whitespace() {
        for value in [&nonce, &other] {
            let answer = send(&stage, &request("GET /x", &format!("{name}: {value}\r\n"), &other, "")).await;
            let status = outcome(&answer).0;
            assert!((400..500).contains(&status) || status == 200, "{name}: {answer}");
            let arrived = stage.upstream.seen().pop();
            let is_in = |seen: &crate::support::upstream::Seen, text: &str| {
                let mut values = seen.headers.iter().filter(|(key, _)| *key != "authorization");
                values.any(|(_, value)| String::from_utf8_lossy(value.as_bytes()).contains(text))
            };
            if let Some(seen) = arrived {
                assert!(!is_in(&seen, &stage.secret), "{name}: {seen:?}");
                assert!(!is_in(&seen, value), "{name}: a nonce went out: {seen:?}");
            }
        }
    }
    let body = format!("{{\"a\":\"{nonce}\",\"b\":\"{nonce}\",\"c\":\"{other}\"}}");
    let post = with("POST", "api.test", "/x", &[("authorization", &format!("Bearer {nonce}"))], &body);
    assert_eq!(stage.sidecar.agent().send(post).await.status, 200);
    assert_eq!(stage.upstream.seen().pop().expect("a request").body, body.as_bytes(), "bodies are as they came");
}

#[tokio::test]
async fn nobodys_word_says_who_an_agent_is() {
    let stranger = rustix::process::getuid().as_raw() + 1;
    let policy = policies::ONE_API.replace("\"any\"", &format!("\"uid:{stranger}\""));
    let stage = Stage::of(&policy, FakeUpstream::start(&["api.test"]).await, |builder| builder).await;
    let nonce = stage.reader().await;
    let uid = stranger.to_string();
    let names = "X-Agent-Id X-Agent X-User X-Remote-User Remote-User X-Forwarded-User X-Forwarded-For X-Real-IP \
                 X-Spiffe-Id X-Forwarded-Client-Cert X-Uid X-Authenticated-User Forwarded";
    for name in names.split_ascii_whitespace() {
        for value in ["worker", &uid, "127.0.0.1"] {
            let answer = send(&stage, &request("GET /x", &format!("{name}: {value}\r\n"), &nonce, "")).await;
            assert_eq!(outcome(&answer).1, Some("agent_mismatch"), "{name}: {value}: {answer}");
        }
    }
    assert!(stage.upstream.seen().is_empty(), "nothing arrived");
}

#[tokio::test]
async fn guesses_open_nothing_and_lock_nobody_out() {
    let stage = Stage::new().await;
    let nonce = stage.reader().await;
    let mut tunnel = stage.sidecar.agent().tunnel("api.test").await;
    let mut told = std::collections::BTreeSet::new();
    for number in 0..600_usize {
        // Half of them walk along the real one.
        let known = if number % 2 == 0 { 3 } else { 3 + number / 2 % (nonce.len() - 4) };
        let mut random = [0; 20];
        getrandom::fill(&mut random).expect("randomness");
        let guess = format!("{}{}", &nonce[..known], &hex::encode(random)[..nonce.len() - known]);
        let reply = tunnel.send(get("api.test", "/x", &guess)).await;
        let exchange = reply.json()["exchange_id"].as_str().expect("an id").to_owned();
        let names: Vec<&str> = reply.headers.keys().map(http::HeaderName::as_str).collect();
        told.insert((reply.status.as_u16(), names.join(" "), reply.text().replace(&exchange, "-")));
    }
    assert_eq!(told.len(), 1, "one answer to all of them: {told:#?}");
    assert_eq!(told.first().expect("one").0, 401);
    assert!(stage.upstream.seen().is_empty(), "nothing arrived");
    assert_eq!(
        stage.sidecar.agent().get("api.test", "/x", &nonce).await.status,
        200,
        "whoever has one is not kept out"
    );
}

#[tokio::test]
async fn what_is_no_nonce_breaks_nothing() {
    let stage = Stage::new().await;
    let good = stage.reader().await;
    let long = format!("an_{}", "0".repeat(15_000));
    let longer = format!("an_{}", "0".repeat(1 << 20));
    for value in [
        "",
        "an_",
        "an_\u{0}",
        "an_\u{fc}\u{fc}",
        "an_a\tb",
        "an_%0d%0a",
        "an_\u{7f}",
        "an__________",
        "an_an_an_",
        &long,
        &longer,
    ] {
        for value in [format!("Bearer {value}"), value.to_owned(), format!("Basic {}", STANDARD.encode(value))] {
            let mut tunnel =
                stage.sidecar.agent().tls_tunnel("api.test", "api.test", &[b"http/1.1"]).await.expect("a tunnel");
            // It may be cut before all of it is said.
            let _ = tokio::io::AsyncWriteExt::write_all(&mut tunnel, &with_authorization(&value)).await;
            let answer = crate::support::wire::read_answers(&mut tunnel, 1, crate::support::agent::PATIENCE).await;
            let shown = &value[..value.len().min(40)];
            assert!(answer.is_empty() || (400..500).contains(&outcome(&answer).0), "{shown:?}: {answer}");
        }
    }
    assert!(stage.upstream.seen().is_empty(), "nothing arrived");
    assert_eq!(stage.sidecar.agent().get("api.test", "/x", &good).await.status, 200);
    assert!(!stage.sidecar.log().contains("panicked"), "{}", stage.sidecar.log());
}

#[tokio::test]
async fn no_two_nonces_are_alike() {
    let stage = Stage::new().await;
    let orchestrator = stage.sidecar.orchestrator();
    let mut seen = std::collections::HashSet::new();
    for _ in 0..500 {
        let minted = orchestrator.mint("worker", "api", "read").await;
        assert!(minted.nonce.len() >= 3 + 32, "room for no guess: {}", minted.nonce.len());
        assert!(seen.insert(minted.nonce.clone()) && seen.insert(minted.nonce[..13].to_owned()), "{}", minted.id);
        assert!(seen.insert(minted.id));
    }
}
