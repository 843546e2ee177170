//! The worst input for what counts and what searches.

use serde_json::json;

use crate::support::{FakeUpstream, Stage};

#[tokio::test]
async fn numbers_beyond_all_bounds_are_refused_or_capped() {
    let stage = Stage::new().await;
    let orchestrator = stage.sidecar.orchestrator();
    let numbers = [
        "18446744073709551615",
        "18446744073709551616",
        "9223372036854775808",
        "-1",
        "-9223372036854775809",
        "1e400",
        "1e18",
        "0.5",
        "\"18446744073709551615s\"",
        "\"5124095576030431h\"",
        "\"99999999999999999999d\"",
        "\"-1s\"",
        "\"1e9s\"",
        "\"\"",
        "[]",
        "{}",
        "true",
    ];
    for number in numbers {
        for field in ["ttl", "max_uses"] {
            let body = format!(
                "{{\"agent\": \"worker\", \"task\": \"t\", \"service\": \"api\", \"scope\": \"read\", \"{field}\": {number}}}"
            );
            let request = crate::support::orchestrator::post("/v1/nonces", "application/json", &body);
            let (status, answer) = orchestrator.send(request).await;
            let answer: serde_json::Value = serde_json::from_slice(&answer).expect("JSON");
            if status.as_u16() == 400 {
                continue;
            }
            assert_eq!(status.as_u16(), 201, "{field} {number}: {answer:#}");
            let lives = answer["expires_in"].as_u64().expect("a number");
            assert!((1..=24 * 60 * 60).contains(&lives), "{field} {number}: {answer:#}");
        }
    }
    let (status, _) = orchestrator.call("POST", "/v1/revocations", Some(json!({"task": "t", "reason": "over"}))).await;
    assert!(status.is_success() || status.is_client_error(), "{status}");
    let nonce = stage.reader().await;
    assert_eq!(stage.sidecar.agent().get("api.test", "/after", &nonce).await.status, 200);
}

/// An answer that is nothing but the credential's beginning, again and again: each byte could be the start of it.
#[tokio::test]
async fn an_answer_of_beginnings_of_the_credential_passes_whole() {
    const TIMES: usize = 40_000;
    let almost = |head: &str| {
        let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with("authorization:")).expect("one");
        let secret = line.rsplit(' ').next().expect("a credential").to_owned();
        secret[..secret.len() - 1].repeat(TIMES)
    };
    let upstream = FakeUpstream::raw(&["api.test"], move |head| {
        let body = almost(head);
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
    })
    .await;
    let stage = Stage::with(upstream, |builder| builder).await;
    let nonce = stage.reader().await;
    for h2 in [false, true] {
        let request = crate::support::agent::get("api.test", "/x", &nonce);
        let agent = stage.sidecar.agent();
        let reply = if h2 { agent.send_h2(request).await } else { agent.send(request).await };
        assert_eq!(reply.body.len(), (stage.secret.len() - 1) * TIMES);
        assert!(reply.body == stage.secret[..stage.secret.len() - 1].repeat(TIMES), "unchanged");
    }
}

/// Targets and fields of one letter, over rules with holes in them.
#[tokio::test]
async fn rules_with_many_holes_are_judged_at_once() {
    let policy = crate::support::policies::ONE_API.replace(
        "allow = [\"GET /{*path}\"]",
        "allow = [\"GET /{a}/{b}/{c}/{d}/{e}/{f}/{g}/{h}/{*path}\", \"GET /x\"]",
    );
    let stage = Stage::of_policy(&policy).await;
    let nonce = stage.reader().await;
    let mut tunnel = stage.sidecar.agent().tunnel("api.test").await;
    for target in
        ["/a".repeat(1000), format!("/{}", "a".repeat(2000)), format!("/a?{}", "a=a&".repeat(500)), "/%61".repeat(400)]
    {
        let reply = tunnel.send(crate::support::agent::get("api.test", &target, &nonce)).await;
        assert!(reply.status.as_u16() < 500, "{target}: {}", reply.text());
    }
    assert_eq!(tunnel.send(crate::support::agent::get("api.test", "/x", &nonce)).await.status, 200);
}
