//! Certificates that services show upstream: by whom, to whom, and for how long.

mod changing;
mod kept;
mod upstream;

use serde_json::json;

use crate::support::agent::with;
use crate::support::{Builder, FakeUpstream, Stage, TestSidecar, canary, websocket};

use upstream::{ALPNS, VERSIONS, Visits, pair, strict};

/// `shown` shows a certificate and nothing else, `both` a key beside it, `plain` a key alone, all at one host.
const POLICY: &str = r#"
version = 1

[credentials.tls]
source = "file"
path = "{dir}/key/tls.key"
certificate = "{dir}/key/tls.crt"
hosts = ["api.test", "elsewhere.test"]

[credentials.api]
source = "env"
name = "API_KEY"
hosts = ["api.test", "other.test"]

[services.shown]
hosts = ["api.test"]
client_certificate = "tls"
slots = ["bearer", "basic-user", "header:x-nonce", "query:nonce"]
upstream_ca = "{dir}/api.pem"
attach = "header:x-nonce"
[[services.shown.scopes]]
name = "read"
risk = "low"
allow = ["GET /{*path}"]
[[services.shown.scopes]]
name = "socket"
risk = "low"
allow = ["WEBSOCKET /{*path}"]

[services.both]
hosts = ["api.test"]
client_certificate = "tls"
credential = "api"
slots = ["header:x-both"]
anonymous = true
upstream_ca = "{dir}/api.pem"
[[services.both.scopes]]
name = "read"
risk = "low"
allow = ["GET /{*path}"]

[services.plain]
hosts = ["api.test", "other.test"]
credential = "api"
slots = ["header:x-plain"]
upstream_ca = "{dir}/api.pem"
[[services.plain.scopes]]
name = "read"
risk = "low"
allow = ["GET /{*path}"]

[services.elsewhere]
hosts = ["elsewhere.test"]
client_certificate = "tls"
slots = ["bearer"]
[[services.elsewhere.scopes]]
name = "read"
risk = "low"
allow = ["GET /{*path}"]

[agents.worker]
identity = ["any"]
grants = { shown = ["read", "socket"], both = ["read"], plain = ["read"], elsewhere = ["read"] }
"#;

/// A sidecar with the pair of `client one`, before an upstream that asks who is there at each of the hosts.
async fn stage(visits: &Visits, upstream: FakeUpstream, edit: impl FnOnce(Builder) -> Builder) -> Stage {
    let (certificate, key) = pair(&visits.clients, "client one", |_| {});
    let secret = canary();
    let builder = TestSidecar::with_policy(POLICY)
        .upstream(&["api.test", "other.test", "elsewhere.test"], "api", &upstream)
        .environment("API_KEY", &secret)
        .file("key/tls.crt", &certificate)
        .file("key/tls.key", &key);
    let sidecar = edit(builder).start().await;
    Stage { secret, upstream, sidecar }
}

async fn nonce(stage: &Stage, service: &str) -> String {
    stage.sidecar.orchestrator().mint("worker", service, "read").await.nonce
}

#[tokio::test]
async fn a_certificate_is_shown_and_nothing_takes_the_nonces_place() {
    for version in VERSIONS {
        for alpn in ALPNS {
            let visits = Visits::new();
            let stage = stage(&visits, visits.upstream(&["api.test"], version, alpn).await, |builder| builder).await;
            let nonce = nonce(&stage, "shown").await;
            let agent = stage.sidecar.agent();
            let basic = format!("Basic {}", {
                use base64::Engine;
                base64::engine::general_purpose::STANDARD.encode(format!("{nonce}:x"))
            });
            let bearer = format!("Bearer {nonce}");
            let ways: [(&str, &[(&str, &str)]); 3] = [
                ("/x?a=1", &[("authorization", &bearer)]),
                ("/x?a=1", &[("x-nonce", &nonce)]),
                ("/x?a=1", &[("authorization", &basic)]),
            ];
            for (target, fields) in ways {
                let reply = agent.send(with("GET", "api.test", target, fields, "")).await;
                assert_eq!((reply.status.as_u16(), reply.text()), (200, "client one".to_owned()), "{alpn:?}");
            }
            let inside = with("GET", "api.test", &format!("/x?nonce={nonce}&a=1"), &[], "");
            assert_eq!(agent.send_h2(inside).await.text(), "client one");
            let vouched = agent.vouched(&format!("{nonce}:")).send(with("GET", "api.test", "/x?a=1", &[], "")).await;
            assert_eq!(vouched.text(), "client one", "{vouched:?}");
            let heads = visits.heads();
            assert_eq!(heads.len(), 5);
            for head in heads {
                assert!(head.starts_with("GET /x?a=1"), "{head}");
                for gone in ["authorization", "x-nonce", "an_", &stage.secret] {
                    assert!(!head.to_ascii_lowercase().contains(gone), "{gone} in {head}");
                }
            }
            assert!(visits.names().iter().all(|name| name.as_deref() == Some("client one")));
            let record = stage.sidecar.audited(|record| record["type"] == "decision").await;
            assert_eq!((&record["credential"], &record["client_certificate"]), (&json!("tls"), &json!("tls")));
            let record = stage.sidecar.audited(|record| record["type"] == "end").await;
            assert_eq!(record["credential.version"], json!(1), "{record:#}");
        }
    }
}

/// What an upstream knows a connection or a session for, it knows everything for that comes over it.
#[tokio::test]
async fn connections_and_sessions_of_one_certificate_are_nobody_elses() {
    for version in VERSIONS {
        for is_kept in [true, false] {
            let visits = Visits::new();
            let upstream = if is_kept {
                visits.upstream(&["api.test"], version, b"http/1.1").await
            } else {
                visits.closing(&["api.test"], version).await
            };
            let stage = stage(&visits, upstream, |builder| builder).await;
            let (agent, mut services) = (stage.sidecar.agent(), Vec::new());
            for (service, slot, name) in [
                ("shown", "x-nonce", "client one"),
                ("both", "x-both", "client one"),
                ("plain", "x-plain", "nobody"),
                ("anonymous", "", "nobody"),
            ] {
                let nonce = if slot.is_empty() { String::new() } else { nonce(&stage, service).await };
                services.push((slot, nonce, name));
            }
            for round in 0..2 {
                for (slot, nonce, name) in &services {
                    let field = [(*slot, nonce.as_str())];
                    let fields = if slot.is_empty() { &[][..] } else { &field[..] };
                    let reply = agent.send(with("GET", "api.test", "/x", fields, "")).await;
                    assert_eq!(reply.text(), *name, "{slot}, round {round}");
                    let head = visits.heads().pop().expect("a head").to_ascii_lowercase();
                    let is_with_key = ["x-both", "x-plain"].contains(slot);
                    assert_eq!(head.contains(&stage.secret.to_ascii_lowercase()), is_with_key, "{slot}: {head}");
                }
            }
            let (full, resumed) = (visits.handshakes(false), visits.handshakes(true));
            // One for each of the four, whatever came between its two requests.
            assert_eq!((full, resumed), if is_kept { (4, 0) } else { (4, 4) }, "{:?}", version.version);
        }
    }
}

#[tokio::test]
async fn nobody_sees_it_but_the_verified_upstream_of_a_request_that_was_allowed() {
    let visits = Visits::new();
    // Asks at all hosts, and is trusted as api.test and other.test alone; nobody trusts what it is at elsewhere.test.
    let upstream = visits.upstream(&["api.test", "other.test", "elsewhere.test"], VERSIONS[0], b"http/1.1").await;
    let stage = stage(&visits, upstream, |builder| builder).await;
    let agent = stage.sidecar.agent();
    let shown = stage.sidecar.orchestrator().mint("worker", "shown", "read").await;
    for (request, code) in [
        (with("GET", "api.test", "/x", &[("x-nonce", "an_000000000000000000000000000000000")], ""), "nonce_unknown"),
        (with("POST", "api.test", "/x", &[("x-nonce", &shown.nonce)], ""), "out_of_scope"),
        (with("GET", "other.test", "/x", &[], ""), "nonce_missing"),
    ] {
        assert_eq!(agent.send(request).await.refusal(), Some(code));
    }
    let elsewhere = nonce(&stage, "elsewhere").await;
    assert_eq!(agent.get("elsewhere.test", "/x", &elsewhere).await.refusal(), Some("upstream_tls"));
    assert!(visits.names().iter().flatten().next().is_none(), "it was shown to nobody: {:?}", visits.names());

    let plain = nonce(&stage, "plain").await;
    let reply = agent.send(with("GET", "other.test", "/x", &[("x-plain", &plain)], "")).await;
    assert_eq!(reply.text(), "nobody", "another service's host asks and is not told");

    let get = || with("GET", "api.test", "/x", &[("x-nonce", &shown.nonce)], "");
    assert_eq!(agent.send(get()).await.text(), "client one");
    let before = (visits.names().len(), visits.heads().len());
    stage.sidecar.orchestrator().revoke(&shown.id).await;
    assert_eq!(agent.send(get()).await.refusal(), Some("nonce_revoked"));
    assert_eq!((visits.names().len(), visits.heads().len()), before, "neither a connection nor a request");
    assert_eq!(agent.get("other.test", "/x", &nonce(&stage, "shown").await).await.refusal(), Some("nonce_misplaced"));
    assert_eq!((visits.names().len(), visits.heads().len()), before);
}

#[tokio::test]
async fn an_upstream_that_insists_is_reached_with_it_and_by_websocket_too() {
    for version in VERSIONS {
        let visits = Visits::new();
        let upstream = strict(&visits, &["api.test"], version).await;
        let stage = stage(&visits, upstream, |builder| builder).await;
        let agent = stage.sidecar.agent();
        let read = nonce(&stage, "shown").await;
        assert_eq!(agent.get("api.test", "/x", &read).await.text(), "client one");
        let socket = stage.sidecar.orchestrator().mint("worker", "shown", "socket").await;
        let mut open = websocket::open(&agent, "/socket", &socket.nonce).await;
        open.say(websocket::TEXT, b"hello").await;
        assert_eq!(open.hear().await, Some((websocket::TEXT, b"hello".to_vec())));
        assert_eq!(visits.names(), vec![Some("client one".to_owned()); 2]);
        stage.sidecar.orchestrator().revoke(&socket.id).await;
        assert!(open.hear().await.is_none_or(|(opcode, _)| opcode == websocket::CLOSE), "over with its nonce");

        let plain = nonce(&stage, "plain").await;
        let reply = agent.send(with("GET", "api.test", "/x", &[("x-plain", &plain)], "")).await;
        let refused = reply.refusal().expect("a refusal").to_owned();
        // Over TLS 1.3 the upstream says so only when the request is on its way.
        assert!(["upstream_tls", "upstream_unreachable"].contains(&refused.as_str()), "{refused}");
    }
}
