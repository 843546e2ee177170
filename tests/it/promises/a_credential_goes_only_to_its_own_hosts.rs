//! Host taken once, at CONNECT; SNI, `Host` and `:authority` must agree with it.

use crate::support::agent::{get, with};
use crate::support::{FakeUpstream, Stage, TestSidecar, canary, policies};

/// Two APIs, their credentials and a sidecar before both.
struct Two {
    api: FakeUpstream,
    other: FakeUpstream,
    sidecar: TestSidecar,
    secrets: [String; 2],
}

impl Two {
    async fn new() -> Self {
        Self::of(policies::TWO_APIS).await
    }

    async fn of(policy: &str) -> Self {
        let (api, other) = (FakeUpstream::start(&["api.test"]).await, FakeUpstream::start(&["other.test"]).await);
        let secrets = [canary(), canary()];
        let sidecar = TestSidecar::with_policy(policy)
            .upstream(&["api.test"], "api", &api)
            .upstream(&["other.test"], "other", &other)
            .environment("API_KEY", &secrets[0])
            .environment("OTHER_KEY", &secrets[1])
            .start()
            .await;
        Self { api, other, sidecar, secrets }
    }
}

#[tokio::test]
async fn each_host_gets_its_own() {
    let two = Two::new().await;
    let minted = two
        .sidecar
        .orchestrator()
        .mint_with(serde_json::json!({
            "agent": "worker", "task": "t",
            "grants": [{"service": "api", "scopes": ["read"]}, {"service": "other", "scopes": ["read"]}],
        }))
        .await;
    let agent = two.sidecar.agent();
    assert_eq!(agent.get("api.test", "/x", &minted.nonce).await.status, 200);
    assert_eq!(agent.get("other.test", "/x", &minted.nonce).await.status, 200);
    assert_eq!(two.api.only().header("authorization"), Some(format!("Bearer {}", two.secrets[0]).as_str()));
    assert_eq!(two.other.only().header("authorization"), Some(format!("Bearer {}", two.secrets[1]).as_str()));
}

#[tokio::test]
async fn a_nonce_on_another_services_host_is_refused_and_revoked() {
    let two = Two::new().await;
    let nonce = two.sidecar.orchestrator().mint("worker", "api", "read").await.nonce;
    let agent = two.sidecar.agent();
    let reply = agent.get("other.test", "/x", &nonce).await;
    assert_eq!((reply.status.as_u16(), reply.refusal()), (403, Some("nonce_misplaced")));
    let reply = agent.get("api.test", "/x", &nonce).await;
    assert_eq!((reply.status.as_u16(), reply.refusal()), (401, Some("nonce_revoked")), "it was revoked");
    assert!(two.other.seen().is_empty() && two.api.seen().is_empty());
    two.sidecar.audited(|record| record["type"] == "lease_end").await;
}

#[tokio::test]
async fn a_nonce_that_followed_an_upstreams_redirect_is_refused_and_lives() {
    for h2 in [false, true] {
        let two = Two::new().await;
        let minted = two.sidecar.orchestrator().mint("worker", "api", "read").await;
        let agent = two.sidecar.agent();
        let mut home = if h2 { agent.tunnel_h2("api.test").await } else { agent.tunnel("api.test").await };
        let redirect = home.send(get("api.test", "/redirect", &minted.nonce)).await;
        assert_eq!(redirect.headers["location"], "https://other.test/x");
        let reply = agent.get("other.test", "/x", &minted.nonce).await;
        assert_eq!((reply.status.as_u16(), reply.refusal()), (403, Some("nonce_misplaced")), "h2 {h2}");
        let alarm = two.sidecar.audited(|record| record["type"] == "alarm").await;
        assert_eq!((&alarm["kind"], &alarm["outcome"]), (&"nonce_misplaced".into(), &"refused".into()), "h2 {h2}");
        assert_eq!(agent.get("api.test", "/x", &minted.nonce).await.status, 200, "h2 {h2}: it lives");
        let other = two.sidecar.orchestrator().mint("worker", "api", "read").await.nonce;
        assert_eq!(agent.get("other.test", "/x", &other).await.refusal(), Some("nonce_misplaced"), "h2 {h2}");
        let reply = agent.get("api.test", "/x", &other).await;
        assert_eq!(reply.refusal(), Some("nonce_revoked"), "h2 {h2}: nobody had sent this one there");
        assert!(two.other.seen().is_empty(), "h2 {h2}");
    }
}

#[tokio::test]
async fn a_redirect_excuses_the_host_and_port_that_it_names_and_no_other() {
    let ports = "hosts = [\"other.test\", \"other.test:8443\"]";
    let two = Two::of(&policies::TWO_APIS.replace("hosts = [\"other.test\"]", ports)).await;
    let (agent, own) = (two.sidecar.agent(), "https://api.test/x");
    // Where the upstream redirects to, where the nonce turns up then, and whether it lives.
    for (redirects, arrives, lives) in [
        (&["https://other.test/x"][..], "other.test", true),
        (&["https://other.test/x"], "third.test", false),
        (&["https://other.test/x"], "other.test:8443", false),
        (&["https://other.test:8443/x"], "other.test:8443", true),
        (&["https://other.test:8443/x"], "other.test", false),
        (&["http://other.test/x"], "other.test", false),
        (&["//other.test/x"], "other.test", true),
        // Four are kept, and the one to itself is none of them.
        (&["https://other.test/x", "https://a.test/", "https://b.test/", "https://c.test/", own], "other.test", true),
    ] {
        let what = format!("{redirects:?}, then {arrives}");
        let nonce = two.sidecar.orchestrator().mint("worker", "api", "read").await.nonce;
        for location in redirects {
            let path = format!("/redirect?{location}");
            assert_eq!(agent.get("api.test", &path, &nonce).await.headers["location"], location, "{what}");
        }
        let there =
            format!("GET https://{arrives}/x HTTP/1.1\r\nHost: {arrives}\r\nAuthorization: Bearer {nonce}\r\n\r\n");
        let answer = agent.raw(there.as_bytes()).await;
        assert!(answer.contains("nonce_misplaced"), "{what}: {answer}");
        let refusal = (!lives).then_some("nonce_revoked");
        assert_eq!(agent.get("api.test", "/x", &nonce).await.refusal(), refusal, "{what}");
    }
    assert!(two.other.seen().is_empty());
}

#[tokio::test]
async fn another_host_header_or_authority_is_refused() {
    let stage = Stage::new().await;
    let nonce = stage.reader().await;
    let bearer = format!("Bearer {nonce}");
    for host in ["evil.test", "api.test:444", "api.test@evil.test", "api.test, evil.test", "", "api.test\u{a0}"] {
        let bytes = format!("GET /x HTTP/1.1\r\nHost: {host}\r\nAuthorization: {bearer}\r\nConnection: close\r\n\r\n");
        let answer = stage.sidecar.agent().raw_inside("api.test", bytes.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 4"), "{host:?}: {answer}");
    }
    let twice = format!(
        "GET /x HTTP/1.1\r\nHost: api.test\r\nHost: evil.test\r\nAuthorization: {bearer}\r\nConnection: close\r\n\r\n"
    );
    let none = format!("GET /x HTTP/1.1\r\nAuthorization: {bearer}\r\nConnection: close\r\n\r\n");
    let absolute = format!(
        "GET https://evil.test/x HTTP/1.1\r\nHost: api.test\r\nAuthorization: {bearer}\r\nConnection: close\r\n\r\n"
    );
    for bytes in [twice, none, absolute] {
        let answer = stage.sidecar.agent().raw_inside("api.test", bytes.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 4"), "{bytes}: {answer}");
    }
    let mut tunnel = stage.sidecar.agent().tunnel_h2("api.test").await;
    let reply = tunnel.send(get("evil.test", "/x", &nonce)).await;
    assert_eq!((reply.status.as_u16(), reply.refusal()), (421, Some("destination_mismatch")));
    let reply =
        tunnel.send(with("GET", "api.test", "/x", &[("authorization", &bearer), ("host", "evil.test")], "")).await;
    assert_eq!(reply.status, 421);
    assert!(stage.upstream.seen().is_empty(), "nothing arrived");
}

#[tokio::test]
async fn another_sni_ends_the_handshake() {
    let stage = Stage::new().await;
    let outcome = stage.sidecar.agent().tls_tunnel("api.test", "evil.test", &[b"http/1.1"]).await;
    assert!(outcome.is_err(), "no leaf for another name");
    stage.sidecar.audited(|record| record["code"] == "destination_mismatch").await;
    assert_eq!(stage.upstream.connections(), 0);
}

#[tokio::test]
async fn a_wrong_certificate_gets_no_byte_of_http() {
    use crate::support::authority::{TestAuthority, server_config};
    let ours = TestAuthority::new();
    let theirs = TestAuthority::new();
    let wrong_name = ours.leaf(&["evil.test"], |_| {});
    let wrong_issuer = theirs.leaf(&["api.test"], |_| {});
    let expired = ours.leaf(&["api.test"], |params| params.not_after = rcgen::date_time_ymd(2020, 1, 1));
    for (what, (chain, key)) in [("name", wrong_name), ("issuer", wrong_issuer), ("time", expired)] {
        let upstream = FakeUpstream::start_tls(ours.clone(), server_config(chain, key, &[b"http/1.1"])).await;
        let stage = Stage::with(upstream, |builder| builder).await;
        let nonce = stage.reader().await;
        let reply = stage.sidecar.agent().get("api.test", "/x", &nonce).await;
        assert_eq!((reply.status.as_u16(), reply.refusal()), (502, Some("upstream_tls")), "{what}");
        assert!(stage.upstream.seen().is_empty(), "{what}");
    }
}

#[tokio::test]
async fn never_in_clear_text() {
    let stage = Stage::new().await;
    let nonce = stage.reader().await;
    let request = format!(
        "GET http://api.test/x HTTP/1.1\r\nHost: api.test\r\nAuthorization: Bearer {nonce}\r\nConnection: close\r\n\r\n"
    );
    let answer = stage.sidecar.agent().raw(request.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("cleartext_forbidden"), "{answer}");
    assert_eq!(stage.upstream.connections(), 0);
}

#[tokio::test]
async fn private_and_metadata_addresses_are_refused() {
    let policy = policies::ONE_API
        .replace("api.test", "127.0.0.1")
        .replace("hosts = [\"127.0.0.1\"]", "hosts = [\"localhost\"]");
    let stage_secret = canary();
    let upstream = FakeUpstream::start(&["localhost"]).await;
    let sidecar = TestSidecar::with_policy(&policy)
        .file("api.pem", &upstream.authority.pem)
        .environment("API_KEY", &stage_secret)
        .start()
        .await;
    let nonce = sidecar.orchestrator().mint("worker", "api", "read").await.nonce;
    let reply = sidecar.agent().get("localhost", "/x", &nonce).await;
    assert_eq!((reply.status.as_u16(), reply.refusal()), (403, Some("address_forbidden")));
}
