//! Service, method, path, agent, uses.

use crate::support::agent::with;
use crate::support::{FakeUpstream, Stage, TestSidecar, canary, policies};

#[tokio::test]
async fn methods_and_paths_outside_the_scope_are_refused_and_the_scope_to_ask_for_is_named() {
    let stage = Stage::new().await;
    let bearer = format!("Bearer {}", stage.reader().await);
    let post = with("POST", "api.test", "/x", &[("authorization", &bearer)], "body");
    let reply = stage.sidecar.agent().send(post).await;
    assert_eq!((reply.status.as_u16(), reply.refusal()), (403, Some("out_of_scope")));
    let body = reply.json();
    assert_eq!(body["required_scope"], "write");
    assert_eq!(body["allowed"], serde_json::json!(["GET /{*path}"]));
    assert!(reply.reason.expect("a reason").contains("out_of_scope"));
    assert!(stage.upstream.seen().is_empty());
}

#[tokio::test]
async fn a_deny_wins() {
    let stage = Stage::new().await;
    let bearer = format!("Bearer {}", stage.writer().await);
    let post = |path| with("POST", "api.test", path, &[("authorization", &bearer)], "body");
    let agent = stage.sidecar.agent();
    assert_eq!(agent.send(post("/allowed")).await.status, 200);
    assert_eq!(agent.send(post("/forbidden")).await.refusal(), Some("out_of_scope"));
}

#[tokio::test]
async fn a_path_that_two_parsers_could_read_differently_is_refused() {
    let stage = Stage::new().await;
    let nonce = stage.reader().await;
    for path in
        ["/a/../b", "/a/%2e%2e/b", "//x", "/a//b", "/a%2fb", "/a\\b", "/a/..;/b", "/a%00", "/%zz", "/a%252e", "/."]
    {
        let bytes = format!(
            "GET {path} HTTP/1.1\r\nHost: api.test\r\nAuthorization: Bearer {nonce}\r\nConnection: close\r\n\r\n"
        );
        let answer = stage.sidecar.agent().raw_inside("api.test", bytes.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{path}: {answer}");
    }
    assert!(stage.upstream.seen().is_empty());
}

#[tokio::test]
async fn what_is_judged_is_what_is_sent() {
    let stage = Stage::new().await;
    let nonce = stage.reader().await;
    for path in ["/a%20b", "/a?x=%2F..%2F&y", "/%41;v=1", "/a/", "/~a!$&'()*+,=:@"] {
        assert_eq!(stage.sidecar.agent().get("api.test", path, &nonce).await.status, 200, "{path}");
        assert_eq!(stage.upstream.seen().pop().expect("a request").target, path);
    }
}

#[tokio::test]
async fn another_users_process_cannot_present_it() {
    let own = rustix::process::getuid().as_raw();
    for (uid, expected) in [(own, None), (own + 1, Some("agent_mismatch"))] {
        let upstream = FakeUpstream::start(&["api.test"]).await;
        // Our own uid may mint only while it is no agent's, so another agent's grants are looked at, too.
        let policy = policies::ONE_API.replace("\"any\"", &format!("\"uid:{uid}\""));
        let sidecar = TestSidecar::with_policy(&policy)
            .upstream(&["api.test"], "api", &upstream)
            .environment("API_KEY", &canary())
            .start()
            .await;
        let orchestrator = sidecar.orchestrator();
        if uid == own {
            let body = serde_json::json!({"agent": "worker", "task": "t", "service": "api", "scope": "read"});
            let (status, answer) = orchestrator.call("POST", "/v1/nonces", Some(body)).await;
            assert_eq!(status, 403, "an agent's own uid never mints: {answer}");
            continue;
        }
        let nonce = orchestrator.mint("worker", "api", "read").await.nonce;
        let reply = sidecar.agent().get("api.test", "/x", &nonce).await;
        assert_eq!(reply.refusal(), expected);
    }
}

#[tokio::test]
async fn nothing_foreign_goes_out_beside_it() {
    let stage = Stage::new().await;
    let nonce = stage.reader().await;
    let bearer = format!("Bearer {nonce}");
    let beside = [
        ("cookie", "session=stolen"),
        ("x-api-key", "somebody-elses"),
        ("private-token", "somebody-elses"),
        ("x-amz-security-token", "somebody-elses"),
    ];
    for (name, value) in beside {
        let request = with("GET", "api.test", "/x", &[("authorization", &bearer), (name, value)], "");
        let reply = stage.sidecar.agent().send(request).await;
        assert_eq!((reply.status.as_u16(), reply.refusal()), (403, Some("foreign_credential")), "{name}");
    }
    let instead = with("GET", "api.test", "/x", &[("authorization", "Bearer sk_live_somebody_elses_key")], "");
    assert_eq!(stage.sidecar.agent().send(instead).await.refusal(), Some("foreign_credential"));
    let query = with("GET", "api.test", "/x?access_token=abc", &[("authorization", &bearer)], "");
    assert_eq!(stage.sidecar.agent().send(query).await.refusal(), Some("foreign_credential"));
    assert!(stage.upstream.seen().is_empty());
}

#[tokio::test]
async fn a_nonce_outside_its_slot_is_refused() {
    let stage = Stage::new().await;
    let nonce = stage.reader().await;
    let bearer = format!("Bearer {nonce}");
    for (name, value) in
        [("user-agent", nonce.clone()), ("x-request-id", format!("id-{nonce}")), ("referer", nonce.clone())]
    {
        let request = with("GET", "api.test", "/x", &[("authorization", &bearer), (name, &value)], "");
        let reply = stage.sidecar.agent().send(request).await;
        assert_eq!((reply.status.as_u16(), reply.refusal()), (403, Some("nonce_misplaced")), "{name}");
    }
    for path in [format!("/{nonce}"), format!("/x?q={nonce}"), format!("/x?q=%61{}", &nonce[1..])] {
        let reply = stage.sidecar.agent().get("api.test", &path, &nonce).await;
        assert_eq!(reply.refusal(), Some("nonce_misplaced"), "{path}");
    }
    assert!(stage.upstream.seen().is_empty());
}

#[tokio::test]
async fn no_nonce_and_unknown_nonces_are_refused_alike() {
    let stage = Stage::new().await;
    let agent = stage.sidecar.agent();
    let missing = agent.send(with("GET", "api.test", "/x", &[], "")).await;
    assert_eq!((missing.status.as_u16(), missing.refusal()), (401, Some("nonce_missing")));
    assert!(missing.headers.contains_key("www-authenticate"), "git asks only when challenged");
    let unknown = agent.get("api.test", "/x", "an_000000000000000000000000000000000").await;
    let malformed = agent.get("api.test", "/x", "an_").await;
    for reply in [&unknown, &malformed] {
        assert_eq!((reply.status.as_u16(), reply.refusal()), (401, Some("nonce_unknown")));
    }
    assert_eq!(unknown.json()["detail"], malformed.json()["detail"]);
    assert!(stage.upstream.seen().is_empty());
}

#[tokio::test]
async fn unlisted_hosts_are_refused_inside_the_tunnel() {
    let stage = Stage::new().await;
    let reply = stage.sidecar.agent().send(with("GET", "unlisted.test", "/x", &[], "")).await;
    assert_eq!((reply.status.as_u16(), reply.refusal()), (403, Some("host_not_listed")));
    let (answer, _) = stage.sidecar.agent().connect("api.test:22").await;
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
}
