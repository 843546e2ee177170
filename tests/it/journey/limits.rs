//! Every limit is a setting that holds.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::agent::{breaks, get, with};
use crate::support::sidecar::eventually;
use crate::support::wire::read_answers;
use crate::support::{FakeUpstream, Stage};

async fn limited(flags: &[&str]) -> Stage {
    let upstream = FakeUpstream::start(&["api.test"]).await;
    Stage::with(upstream, |builder| flags.iter().fold(builder, |builder, flag| builder.flag(flag))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_bounded_tunnels_included_and_a_full_house_can_still_be_closed() {
    let mut stage = limited(&["--connections-max", "2"]).await;
    let agent = stage.sidecar.agent();
    let tunnel = || agent.tls_tunnel("api.test", "api.test", &[b"http/1.1"]);
    let (first, second) = (tunnel().await.expect("TLS"), tunnel().await.expect("TLS"));
    let mut third = agent.tcp().await;
    third.write_all(b"CONNECT api.test:443 HTTP/1.1\r\nHost: api.test:443\r\n\r\n").await.expect("writable");
    let early = tokio::time::timeout(Duration::from_millis(300), third.read(&mut [0; 1])).await;
    assert!(early.is_err(), "it waits its turn: {early:?}");
    drop(first);
    let answer = read_answers(&mut third, 1, Duration::from_secs(10)).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let begun = Instant::now();
    stage.sidecar.signal("TERM");
    assert_eq!(stage.sidecar.wait(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    drop((second, third));
}

#[tokio::test]
async fn an_upstream_that_does_not_shake_hands_is_given_up() {
    let stage = Stage::with(FakeUpstream::deaf().await, |builder| builder.flag("--connect-timeout").flag("1s")).await;
    let minted = stage
        .sidecar
        .orchestrator()
        .mint_with(
            serde_json::json!({"agent": "worker", "task": "t", "service": "api", "scope": "read", "max_uses": 1}),
        )
        .await;
    let reply = stage.sidecar.agent().get("api.test", "/x", &minted.nonce).await;
    assert_eq!((reply.status.as_u16(), reply.refusal()), (504, Some("upstream_timeout")));
    assert_eq!(stage.upstream.connections(), 1);
    let again = stage.sidecar.agent().get("api.test", "/x", &minted.nonce).await;
    assert_eq!(again.refusal(), Some("upstream_timeout"), "no byte of HTTP was sent, so no use is spent");
}

#[tokio::test]
async fn a_body_that_stands_still_is_cut_in_both_directions() {
    let stage = limited(&["--idle-timeout", "1s"]).await;
    let nonce = stage.writer().await;
    let mut stalled = stage.sidecar.agent().tls_tunnel("api.test", "api.test", &[b"http/1.1"]).await.expect("TLS");
    let head = format!(
        "POST /x HTTP/1.1\r\nHost: api.test\r\nAuthorization: Bearer {nonce}\r\nContent-Length: 10\r\n\r\nhalf"
    );
    stalled.write_all(head.as_bytes()).await.expect("writable");
    let answer = read_answers(&mut stalled, 1, Duration::from_secs(10)).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
    let nonce = stage.reader().await;
    let mut tunnel = stage.sidecar.agent().tunnel("api.test").await;
    let response = tunnel.start(get("api.test", "/hang", &nonce)).await;
    assert!(breaks(response).await, "a cut answer is never a whole one");
    stage.sidecar.audited(|record| record["type"] == "end" && record["ending"] == "cut").await;
}

#[tokio::test]
async fn an_agent_that_reads_nothing_is_given_up() {
    for h2 in [false, true] {
        let stage = limited(&["--idle-timeout", "1s"]).await;
        let nonce = stage.reader().await;
        let agent = stage.sidecar.agent();
        let mut tunnel = if h2 { agent.tunnel_h2("api.test").await } else { agent.tunnel("api.test").await };
        let response = tunnel.start(get("api.test", "/large?pieces=800", &nonce)).await;
        let end = stage.sidecar.audited(|record| record["type"] == "end").await;
        assert_eq!(end["ending"], "cut", "h2 {h2}: {end:#}");
        assert!(end["response_bytes"].as_u64().expect("a number") < 50 * 1024 * 1024, "{end:#}");
        assert!(breaks(response).await, "h2 {h2}: a cut answer is never a whole one");
    }
}

#[tokio::test]
async fn a_kept_connection_on_which_nothing_moves_is_closed() {
    let stage = limited(&["--idle-timeout", "1s"]).await;
    let nonce = stage.reader().await;
    let mut stream = stage.sidecar.agent().tls_tunnel("api.test", "api.test", &[b"http/1.1"]).await.expect("TLS");
    let request = format!("GET /x HTTP/1.1\r\nHost: api.test\r\nAuthorization: Bearer {nonce}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("writable");
    let answer = read_answers(&mut stream, 1, Duration::from_secs(10)).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let closed = tokio::time::timeout(Duration::from_secs(8), stream.read(&mut [0; 1])).await;
    assert!(matches!(closed, Ok(Ok(0) | Err(_))), "{closed:?}");
}

#[tokio::test]
async fn heads_and_targets_have_the_size_that_was_set() {
    let flags = ["--headers-max", "10", "--head-bytes-max", "8192", "--target-bytes-max", "100"];
    let stage = limited(&flags).await;
    let nonce = stage.reader().await;
    let agent = stage.sidecar.agent();
    let fits = agent.get("api.test", &format!("/{}", "a".repeat(99)), &nonce).await;
    assert_eq!(fits.status, 200);
    let long = agent.get("api.test", &format!("/{}", "a".repeat(100)), &nonce).await;
    assert_eq!((long.status.as_u16(), long.refusal()), (414, Some("request_too_large")));
    let many: String = (0..10).map(|n| format!("X-{n}: y\r\n")).collect();
    for fields in [many, format!("X: {}\r\n", "y".repeat(9000))] {
        let bytes = format!("GET /x HTTP/1.1\r\nHost: api.test\r\n{fields}\r\n");
        let answer = agent.raw_inside("api.test", bytes.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    }
    stage.sidecar.audited(|record| record["code"] == "request_too_large").await;
}

#[tokio::test]
async fn fields_are_counted_over_http_2_too() {
    let stage = limited(&["--headers-max", "10"]).await;
    let nonce = stage.reader().await;
    let (agent, bearer) = (stage.sidecar.agent(), format!("Bearer {nonce}"));
    for (count, expected) in [(5, (200, None)), (10, (431, Some("request_too_large")))] {
        let names: Vec<String> = (0..count).map(|number| format!("x-{number}")).collect();
        let mut fields: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "y")).collect();
        fields.push(("authorization", &bearer));
        let reply = agent.send_h2(crate::support::agent::with("GET", "api.test", "/x", &fields, "")).await;
        assert_eq!((reply.status.as_u16(), reply.refusal()), expected, "{count}: {}", reply.text());
    }
    assert_eq!(stage.upstream.seen().len(), 1);
}

#[tokio::test]
async fn streams_of_one_connection_are_bounded_and_the_rest_waits() {
    let stage = limited(&["--streams-max", "2"]).await;
    let nonce = stage.reader().await;
    let mut tunnel = stage.sidecar.agent().tunnel_h2("api.test").await;
    assert_eq!(tunnel.send(get("api.test", "/x", &nonce)).await.status, 200, "its settings have arrived");
    let mut open = Vec::new();
    for _ in 0..2 {
        open.push(tunnel.start(get("api.test", "/endless", &nonce)).await);
    }
    let sent =
        tokio::time::timeout(Duration::from_millis(500), tunnel.try_start(get("api.test", "/third", &nonce))).await;
    assert!(sent.is_err(), "the third waits");
    let arrived = || stage.upstream.seen().iter().any(|seen| seen.target == "/third");
    assert!(!arrived());
    open.clear();
    let reply = tunnel.send(get("api.test", "/after", &nonce)).await;
    assert_eq!(reply.status, 200);
}

#[tokio::test]
async fn an_answer_with_too_many_or_too_large_fields_is_the_upstreams_fault() {
    let many: String = (0..200).map(|n| format!("X-{n}: y\r\n")).collect();
    for fields in [many, format!("X: {}\r\n", "y".repeat(200_000))] {
        let answer = format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 0\r\n\r\n").into_bytes();
        let upstream = FakeUpstream::raw(&["api.test"], move |_| answer.clone()).await;
        let stage = Stage::with(upstream, |builder| builder).await;
        let nonce = stage.reader().await;
        let reply = stage.sidecar.agent().get("api.test", "/x", &nonce).await;
        assert_eq!((reply.status.as_u16(), reply.refusal()), (502, Some("upstream_unreachable")));
    }
}

#[tokio::test]
async fn a_flood_of_resets_ends_one_connection_and_nothing_else() {
    let stage = Stage::new().await;
    let nonce = stage.reader().await;
    let mut tunnel = stage.sidecar.agent().tunnel_h2("api.test").await;
    for _ in 0..300 {
        // Dropped at once: each becomes a reset.
        let sending =
            tunnel.try_start(with("GET", "api.test", "/stall", &[("authorization", &format!("Bearer {nonce}"))], ""));
        if tokio::time::timeout(Duration::from_millis(1), sending).await.is_ok() {
            break;
        }
    }
    let reply = stage.sidecar.agent().get("api.test", "/x", &nonce).await;
    assert_eq!(reply.status, 200, "others are served");
    drop(tunnel);
    eventually("its exchanges to end", || {
        let audit = stage.sidecar.audit();
        let count = |kind: &str| audit.iter().filter(|record| record["type"] == kind).count();
        (count("decision") == count("end")).then_some(())
    })
    .await;
}
