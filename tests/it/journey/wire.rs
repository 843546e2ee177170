//! HTTP/1.1 as bytes: order, framing, what is never answered twice and never passed on.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::agent::{get, with};
use crate::support::wire::answers;
use crate::support::{FakeUpstream, Stage};

fn request(method: &str, path: &str, nonce: &str, more: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: api.test\r\nAuthorization: Bearer {nonce}\r\n{more}\r\n")
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order_and_a_refused_one_is_never_forwarded() {
    let stage = Stage::new().await;
    let nonce = stage.reader().await;
    let bytes = [
        request("GET", "/slow", &nonce, ""),
        request("DELETE", "/refused", &nonce, ""),
        request("GET", "/third", &nonce, ""),
        request("GET", "/a/../fourth", &nonce, ""),
        request("GET", "/fifth", &nonce, "Connection: close\r\n"),
    ]
    .concat();
    let text = stage.sidecar.agent().pipelined("api.test", bytes.as_bytes(), 5).await;
    let statuses: Vec<u16> = answers(text.as_bytes(), true).iter().map(|answer| answer.status).collect();
    assert_eq!(statuses, [200, 403, 200, 400, 200], "{text}");
    let mut arrived: Vec<String> = stage.upstream.seen().into_iter().map(|seen| seen.target).collect();
    arrived.sort();
    assert_eq!(arrived, ["/fifth", "/slow", "/third"]);
}

#[tokio::test]
async fn a_body_behind_a_refusal_is_not_taken_for_a_request() {
    let stage = Stage::new().await;
    let nonce = stage.reader().await;
    let smuggled = request("GET", "/smuggled", &nonce, "");
    let length = format!("Content-Length: {}\r\n", smuggled.len());
    let bytes = format!("{}{smuggled}", request("POST", "/refused", &nonce, &length));
    let text = stage.sidecar.agent().raw_inside("api.test", bytes.as_bytes()).await;
    assert!(text.starts_with("HTTP/1.1 403"), "{text}");
    let both = format!("{bytes}{}", request("GET", "/next", &nonce, "Connection: close\r\n"));
    stage.sidecar.agent().pipelined("api.test", both.as_bytes(), 2).await;
    assert!(stage.upstream.seen().iter().all(|seen| seen.target == "/next"), "{:?}", stage.upstream.seen());
}

#[tokio::test]
async fn head_goes_where_get_goes_and_its_answers_have_no_body() {
    let stage = Stage::new().await;
    let (reader, writer) = (stage.reader().await, stage.writer().await);
    let agent = stage.sidecar.agent();
    for h2 in [false, true] {
        let head =
            |nonce: &str| with("HEAD", "api.test", "/echo", &[("authorization", &format!("Bearer {nonce}"))], "");
        let (allowed, refused) = if h2 {
            (agent.send_h2(head(&reader)).await, agent.send_h2(head(&writer)).await)
        } else {
            (agent.send(head(&reader)).await, agent.send(head(&writer)).await)
        };
        assert_eq!((allowed.status.as_u16(), allowed.body.len()), (200, 0));
        assert_eq!((refused.status.as_u16(), refused.refusal(), refused.body.len()), (403, Some("out_of_scope"), 0));
        assert!(refused.headers["content-length"] != "0", "as GET would have had it");
    }
    assert!(stage.upstream.seen().iter().all(|seen| seen.method == "HEAD"));
    let pipelined =
        [request("HEAD", "/x", &writer, ""), request("GET", "/next", &reader, "Connection: close\r\n")].concat();
    let text = agent.pipelined("api.test", pipelined.as_bytes(), 3).await;
    assert!(text.starts_with("HTTP/1.1 403") && text.contains("\r\n\r\nHTTP/1.1 200"), "no body between them: {text}");
    let complete = |record: &serde_json::Value| record["type"] == "end" && record["ending"] == "complete";
    stage.sidecar.audited(complete).await;
}

#[tokio::test]
async fn two_answers_to_one_request_never_reach_the_next() {
    let evil = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Answer: second\r\n\r\nevil!";
    let first = |framing: &str| format!("HTTP/1.1 200 OK\r\n{framing}\r\nfirst{evil}").into_bytes();
    for answer in [
        first("Content-Length: 5\r\n"),
        first("Content-Length: 5\r\nContent-Length: 5\r\n"),
        first("Content-Length: 5\r\nContent-Length: 50\r\n"),
        format!(
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n0\r\n\r\n{evil}"
        )
        .into_bytes(),
        format!("HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n{evil}").into_bytes(),
        format!("HTTP/1.1 304 Not Modified\r\n\r\n{evil}").into_bytes(),
    ] {
        let shown = String::from_utf8_lossy(&answer).into_owned();
        let count = AtomicUsize::new(0);
        let upstream = FakeUpstream::raw_kept(&["api.test"], move |_| {
            if count.fetch_add(1, Ordering::SeqCst) == 0 { answer.clone() } else { whole("the right one") }
        })
        .await;
        let stage = Stage::with(upstream, |builder| builder).await;
        let nonce = stage.reader().await;
        let mut tunnel = stage.sidecar.agent().tunnel("api.test").await;
        if let Ok(response) = tunnel.try_start(get("api.test", "/1", &nonce)).await {
            let reply = crate::support::agent::read(response).await;
            assert!(reply.is_err() || !reply.as_ref().expect("whole").text().contains("evil"), "{shown}: {reply:?}");
        }
        let second = stage.sidecar.agent().get("api.test", "/2", &nonce).await;
        assert_eq!(second.text(), "the right one", "{shown}");
    }
}

fn whole(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

#[tokio::test]
async fn interim_answers_are_swallowed_and_the_final_one_arrives() {
    let upstream = FakeUpstream::raw(&["api.test"], |_| {
        let interim = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n";
        [interim.as_bytes(), &whole("final")].concat()
    })
    .await;
    let stage = Stage::with(upstream, |builder| builder).await;
    let nonce = stage.reader().await;
    let reply = stage.sidecar.agent().get("api.test", "/x", &nonce).await;
    assert_eq!((reply.status.as_u16(), reply.text().as_str()), (200, "final"));
}

#[tokio::test]
async fn an_upload_that_waits_to_be_asked_for_is_asked_for() {
    let stage = Stage::new().await;
    let nonce = stage.writer().await;
    let mut stream = stage.sidecar.agent().tls_tunnel("api.test", "api.test", &[b"http/1.1"]).await.expect("TLS");
    let head = request("POST", "/x", &nonce, "Content-Length: 5\r\nExpect: 100-continue\r\n");
    tokio::io::AsyncWriteExt::write_all(&mut stream, head.as_bytes()).await.expect("writable");
    let mut interim = [0; 25];
    let asked = tokio::io::AsyncReadExt::read_exact(&mut stream, &mut interim);
    tokio::time::timeout(std::time::Duration::from_secs(5), asked).await.expect("in time").expect("an answer");
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    tokio::io::AsyncWriteExt::write_all(&mut stream, b"hello").await.expect("writable");
    let text = crate::support::wire::read_answers(&mut stream, 1, std::time::Duration::from_secs(5)).await;
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    assert_eq!(&stage.upstream.only().body[..], b"hello");
}

#[tokio::test]
async fn upgrades_are_refused_or_not_passed_on() {
    let stage = Stage::new().await;
    let nonce = stage.reader().await;
    let websocket = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let agent = stage.sidecar.agent();
    let text = agent.raw_inside("api.test", request("GET", "/x", &nonce, websocket).as_bytes()).await;
    assert!(text.starts_with("HTTP/1.1 403 out_of_scope"), "no rule of this policy opens one: {text}");
    assert!(stage.upstream.seen().is_empty());
    let h2c = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAA\r\n";
    let text = agent.raw_inside("api.test", request("GET", "/x", &nonce, h2c).as_bytes()).await;
    assert!(text.starts_with("HTTP/1.1 200"), "answered as if nothing had been asked for: {text}");
    let seen = stage.upstream.only();
    for name in ["upgrade", "http2-settings", "connection"] {
        assert_eq!(seen.header(name), None, "{name}");
    }
    let prior = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let text = agent.raw_inside("api.test", prior.as_bytes()).await;
    assert!(!text.starts_with("HTTP/1.1 2"), "{text}");
}

#[tokio::test]
async fn an_upstream_that_switches_protocols_unasked_gets_nothing() {
    let upstream = FakeUpstream::raw(&["api.test"], |_| {
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nraw bytes".to_vec()
    })
    .await;
    let stage = Stage::with(upstream, |builder| builder).await;
    let nonce = stage.reader().await;
    let text = stage.sidecar.agent().raw_inside("api.test", request("GET", "/x", &nonce, "").as_bytes()).await;
    assert!(text.starts_with("HTTP/1.1 502"), "{text}");
    assert!(!text.contains("raw bytes"), "{text}");
}

#[tokio::test]
async fn trailers_of_a_request_arrive_and_hold_no_surprise() {
    let stage = Stage::with(FakeUpstream::start_with(&["api.test"], &[b"http/1.1"]).await, |builder| builder).await;
    let nonce = stage.writer().await;
    let head = request("POST", "/x", &nonce, "Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\nConnection: close\r\n");
    let bytes = format!("{head}5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n");
    let text = stage.sidecar.agent().raw_inside("api.test", bytes.as_bytes()).await;
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    let seen = stage.upstream.only();
    assert_eq!(&seen.body[..], b"hello");
    let smuggled = format!("{head}5\r\nhello\r\n0\r\nAuthorization: Bearer {nonce}\r\nHost: evil.test\r\n\r\n");
    stage.sidecar.agent().raw_inside("api.test", smuggled.as_bytes()).await;
    for seen in stage.upstream.seen() {
        let trailers = seen.trailers.unwrap_or_default();
        assert!(!trailers.contains_key("host") && !trailers.contains_key("authorization"), "{trailers:?}");
        assert_eq!(seen.headers["host"], "api.test");
    }
}
