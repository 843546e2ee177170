//! Upstream and back: streaming, what passes unchanged and what ends here.

use std::time::{Duration, Instant};

use http_body_util::BodyExt;

use crate::support::agent::{get, with};
use crate::support::{FakeUpstream, Stage};

#[tokio::test]
async fn bodies_trailers_and_streams_pass() {
    let stage = Stage::new().await;
    let bearer = format!("Bearer {}", stage.writer().await);
    let body = "x".repeat(300_000);
    let post = with("POST", "api.test", "/y", &[("authorization", &bearer), ("content-type", "text/plain")], &body);
    assert_eq!(stage.sidecar.agent().send(post).await.status, 200);
    let seen = stage.upstream.only();
    assert_eq!(seen.body.len(), body.len());
    assert_eq!(seen.header("content-length"), Some("300000"));
    let nonce = stage.reader().await;
    let reply = stage.sidecar.agent().send_h2(get("api.test", "/trailers", &nonce)).await;
    assert_eq!(reply.trailers.expect("trailers").get("x-plain").map(|value| value.as_bytes()), Some(&b"kept"[..]));
}

#[tokio::test]
async fn events_arrive_one_by_one() {
    let stage = Stage::new().await;
    let nonce = stage.reader().await;
    for h2 in [false, true] {
        let agent = stage.sidecar.agent();
        let mut tunnel = if h2 { agent.tunnel_h2("api.test").await } else { agent.tunnel("api.test").await };
        let mut response = tunnel.start(get("api.test", "/sse", &nonce)).await;
        let begun = Instant::now();
        let mut arrivals = Vec::new();
        while let Some(frame) = response.body_mut().frame().await {
            let frame = frame.expect("a frame");
            if frame.data_ref().is_some_and(|data| !data.is_empty()) {
                arrivals.push(begun.elapsed());
            }
        }
        assert!(arrivals.len() >= 5, "event by event: {arrivals:?}");
        assert!(*arrivals.last().expect("events") >= Duration::from_millis(250), "not all at the end: {arrivals:?}");
    }
}

#[tokio::test]
async fn fields_that_end_at_a_proxy_or_lie_about_it_do_not_pass() {
    let stage = Stage::new().await;
    let bearer = format!("Bearer {}", stage.reader().await);
    let headers = [
        ("authorization", bearer.as_str()),
        ("proxy-authorization", "Basic Zm9v"),
        ("x-forwarded-for", "10.0.0.1"),
        ("x-forwarded-host", "evil.test"),
        ("forwarded", "for=10.0.0.1"),
        ("x-original-url", "/admin"),
        ("via", "1.1 x"),
        ("x-kept", "yes"),
    ];
    stage.sidecar.agent().send(with("GET", "api.test", "/x", &headers, "")).await;
    let seen = stage.upstream.only();
    for (name, _) in &headers[1..7] {
        assert_eq!(seen.header(name), None, "{name}");
    }
    assert_eq!(seen.header("x-kept"), Some("yes"));
    let nonce = bearer.trim_start_matches("Bearer ");
    let reply = stage.sidecar.agent().get("api.test", "/alt-svc", nonce).await;
    assert!(!reply.headers.contains_key("alt-svc"), "it would lead around us");
}

#[tokio::test]
async fn an_upstreams_own_refusals_and_redirects_pass_as_they_came() {
    let stage = Stage::new().await;
    let nonce = stage.reader().await;
    let reply = stage.sidecar.agent().get("api.test", "/401", &nonce).await;
    assert_eq!((reply.status.as_u16(), reply.text().as_str()), (401, "the upstream's own 401"));
    assert_eq!(reply.refusal(), None);
    let reply = stage.sidecar.agent().get("api.test", "/redirect", &nonce).await;
    assert_eq!(reply.headers["location"], "https://other.test/x");
    assert_eq!(stage.sidecar.agent().get("api.test", "/204", &nonce).await.status, 204);
}

#[tokio::test]
async fn upstreams_that_are_slow_or_gone_get_their_code() {
    let upstream = FakeUpstream::start(&["api.test"]).await;
    let stage = Stage::with(upstream, |builder| builder.flag("--upstream-head-timeout").flag("1s")).await;
    let nonce = stage.reader().await;
    let reply = stage.sidecar.agent().get("api.test", "/stall", &nonce).await;
    assert_eq!((reply.status.as_u16(), reply.refusal()), (504, Some("upstream_timeout")));
}

#[tokio::test]
async fn a_broken_answer_is_never_a_whole_one() {
    let stage = Stage::new().await;
    let nonce = stage.reader().await;
    for h2 in [false, true] {
        let agent = stage.sidecar.agent();
        let mut tunnel = if h2 { agent.tunnel_h2("api.test").await } else { agent.tunnel("api.test").await };
        let response = tunnel.start(get("api.test", "/break", &nonce)).await;
        assert_eq!(response.status(), 200, "h2 {h2}");
        let read = crate::support::agent::read(response).await;
        assert!(read.is_err(), "h2 {h2}: {read:?}");
    }
    stage.sidecar.audited(|record| record["ending"] == "upstream_broke").await;
}

#[tokio::test]
async fn a_client_that_hangs_up_is_on_record_and_cancels_upstream() {
    let stage = Stage::new().await;
    let nonce = stage.reader().await;
    let mut tunnel = stage.sidecar.agent().tunnel("api.test").await;
    let mut response = tunnel.start(get("api.test", "/endless", &nonce)).await;
    response.body_mut().frame().await.expect("a frame").expect("data");
    drop(response);
    drop(tunnel);
    stage.sidecar.audited(|record| record["ending"] == "client_gone").await;
}

#[tokio::test]
async fn header_case_is_kept_from_h1_to_h1() {
    let upstream = FakeUpstream::raw(&["api.test"], |head| {
        let body = head.to_owned();
        format!("HTTP/1.1 200 OK\r\nX-CamelCase: Kept\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
    })
    .await;
    let stage = Stage::with(upstream, |builder| builder).await;
    let nonce = stage.reader().await;
    let bytes = format!(
        "GET /x HTTP/1.1\r\nHost: api.test\r\nX-MiXed: a\r\nAuthorization: Bearer {nonce}\r\nConnection: close\r\n\r\n"
    );
    let answer = stage.sidecar.agent().raw_inside("api.test", bytes.as_bytes()).await;
    assert!(answer.contains("X-CamelCase: Kept"), "{answer}");
    assert!(answer.contains("X-MiXed: a\r\n") && answer.contains("Authorization: Bearer"), "{answer}");
    stage.assert_clean(answer.as_bytes(), "the echoed head");
}

#[tokio::test]
async fn a_connection_that_the_upstream_closed_meanwhile_is_replaced_and_nothing_is_sent_twice() {
    // Each connection takes one request and then closes, without having said so.
    let upstream =
        FakeUpstream::raw(&["api.test"], |_| b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".to_vec()).await;
    let stage = Stage::with(upstream, |builder| builder).await;
    let nonce = stage.reader().await;
    let mut tunnel = stage.sidecar.agent().tunnel("api.test").await;
    for number in 0..20 {
        let reply = tunnel.send(get("api.test", &format!("/{number}"), &nonce)).await;
        assert_eq!(reply.status, 200, "{number}: {}", reply.text());
    }
    let targets: Vec<String> = stage.upstream.seen().into_iter().map(|seen| seen.target).collect();
    assert_eq!(targets, (0..20).map(|number| format!("/{number}")).collect::<Vec<_>>());
}

#[tokio::test]
async fn each_service_trusts_its_own_roots_alone() {
    use crate::support::{TestSidecar, canary, policies};
    let (api, other) = (FakeUpstream::start(&["api.test"]).await, FakeUpstream::start(&["other.test"]).await);
    let crossed = TestSidecar::with_policy(policies::TWO_APIS)
        .upstream(&["api.test"], "other", &api)
        .upstream(&["other.test"], "api", &other)
        .environment("API_KEY", &canary())
        .environment("OTHER_KEY", &canary())
        .start()
        .await;
    for (service, host) in [("api", "api.test"), ("other", "other.test")] {
        let nonce = crossed.orchestrator().mint("worker", service, "read").await.nonce;
        let reply = crossed.agent().get(host, "/x", &nonce).await;
        assert_eq!((reply.status.as_u16(), reply.refusal()), (502, Some("upstream_tls")), "{host}");
    }
    let own = policies::ONE_API.replace("upstream_ca = \"{dir}/api.pem\"\n", "");
    let stage = Stage::of_policy(&own).await;
    let nonce = stage.reader().await;
    let reply = stage.sidecar.agent().get("api.test", "/x", &nonce).await;
    assert_eq!(reply.refusal(), Some("upstream_tls"), "nobody trusts a test CA by itself");
    assert!(api.seen().is_empty() && other.seen().is_empty() && stage.upstream.seen().is_empty());
}
