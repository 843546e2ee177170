//! A nonce as the proxy's credentials: whom it vouches for, and where its credential goes.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use tokio::io::AsyncWriteExt;

use crate::support::agent::{PATIENCE, with};
use crate::support::orchestrator::Minted;
use crate::support::policies::one_api_with;
use crate::support::stranger::{STRANGER, acting, can_be_others};
use crate::support::wire::read_answers;
use crate::support::{Agent, FakeUpstream, Stage, TestSidecar, canary, policies};

/// A sidecar whose service attaches in this slot, a nonce for reading, and an agent with it in its proxy's URL.
async fn attaching(slot: &str) -> (Stage, String, Agent) {
    let stage = Stage::of_policy(&one_api_with(&format!("attach = \"{slot}\""))).await;
    let nonce = stage.reader().await;
    let agent = stage.sidecar.agent().vouched(&format!("{nonce}:"));
    (stage, nonce, agent)
}

async fn mint(stage: &Stage, extra: serde_json::Value) -> Minted {
    let mut body = json!({"agent": "worker", "task": "t", "service": "api", "scope": "read"});
    body.as_object_mut().expect("an object").extend(extra.as_object().expect("an object").clone());
    stage.sidecar.orchestrator().mint_with(body).await
}

fn plain(path: &str) -> http::Request<http_body_util::Full<bytes::Bytes>> {
    with("GET", "api.test", path, &[], "")
}

#[tokio::test]
async fn the_credential_goes_into_the_slot_that_the_service_attaches() {
    for slot in ["bearer", "token", "basic-user", "basic-password", "header:x-api-key", "query:key"] {
        let (stage, nonce, agent) = attaching(slot).await;
        let secret = &stage.secret;
        let basic = |pair: String| Some(format!("Basic {}", STANDARD.encode(pair)));
        let reply = agent.send(plain("/echo?a=1")).await;
        assert_eq!(reply.status, 200, "{slot}: {}", reply.text());
        stage.assert_clean(&reply.everything(), "the answer");
        assert_eq!(agent.send_h2(plain("/echo?a=1")).await.status, 200, "{slot}");
        for seen in stage.upstream.seen() {
            let authorization = match slot {
                "bearer" => Some(format!("Bearer {secret}")),
                "token" => Some(format!("token {secret}")),
                "basic-user" => basic(format!("{secret}:")),
                "basic-password" => basic(format!("x-access-token:{secret}")),
                _ => None,
            };
            assert_eq!(seen.header("authorization"), authorization.as_deref(), "{slot}");
            assert_eq!(seen.header("x-api-key"), (slot == "header:x-api-key").then_some(secret.as_str()));
            let target = if slot == "query:key" { format!("/echo?a=1&key={secret}") } else { "/echo?a=1".to_owned() };
            assert_eq!(seen.target, target, "{slot}");
            assert!(seen.headers.keys().all(|name| !name.as_str().starts_with("proxy-")), "{slot}: {seen:?}");
        }
        assert_eq!(stage.upstream.seen().len(), 2);
        let record = stage.sidecar.audited(|record| record["type"] == "decision").await;
        assert_eq!((&record["presented_in"], &record["agent"]), (&"proxy".into(), &"worker".into()), "{slot}");
        stage.assert_silent(&[&nonce]);
    }
}

#[tokio::test]
async fn every_spelling_of_proxy_credentials_is_read() {
    let policy = one_api_with("attach = \"bearer\"\nplaceholder = \"sk_test_{nonce}\"");
    let stage = Stage::of_policy(&policy).await;
    let nonce = stage.reader().await;
    let agent = stage.sidecar.agent();
    let pairs = ["{}:", "{}:x", "user:{}", "{}:{}", "sk_test_{}:", "x:sk_test_{}"];
    for pair in pairs.map(|pair| pair.replace("{}", &nonce)) {
        assert_eq!(agent.vouched(&pair).send(plain("/x")).await.status, 200, "{pair}");
    }
    for head in [
        "CONNECT api.test:443 HTTP/1.0\r\nProxy-Authorization: Basic {basic}\r\n\r\n",
        "CONNECT api.test:443 HTTP/1.1\r\nHost: api.test:443\r\nProxy-Authorization: Bearer {nonce}\r\n\r\n",
        "CONNECT api.test:443 HTTP/1.1\r\nproxy-authorization:  bearer {nonce}\r\nConnection: close\r\n\r\n",
    ] {
        let head = head.replace("{nonce}", &nonce).replace("{basic}", &STANDARD.encode(format!("{nonce}:")));
        let answer = inside(&agent, &head, "GET /x HTTP/1.1\r\nHost: api.test\r\n\r\n", 1).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{head}: {answer}");
    }
    stage.assert_silent(&[&nonce]);
}

/// A `CONNECT` in these bytes, TLS, and these bytes in it.
async fn inside(agent: &Agent, head: &str, request: &str, wanted: usize) -> String {
    let (answer, stream) = agent.connect_with(head.as_bytes()).await;
    assert!(answer.contains(" 200 "), "{head}: {answer}");
    let name = rustls::pki_types::ServerName::try_from("api.test").expect("a name");
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(agent.tls(&[b"http/1.1"])));
    let mut tls = connector.connect(name, stream).await.expect("TLS inside");
    tls.write_all(request.as_bytes()).await.expect("writable");
    read_answers(&mut tls, wanted, PATIENCE).await
}

#[tokio::test]
async fn in_absolute_form_each_request_brings_its_own() {
    let (stage, nonce, agent) = attaching("bearer").await;
    let basic = STANDARD.encode(format!("{nonce}:"));
    let request = |field: &str| format!("GET https://api.test/x HTTP/1.1\r\nHost: api.test\r\n{field}\r\n");
    let with_it = request(&format!("Proxy-Authorization: Basic {basic}\r\n"));
    let mut stream = agent.tcp().await;
    stream.write_all([with_it.as_str(), &request(""), &with_it].concat().as_bytes()).await.expect("writable");
    let text = read_answers(&mut stream, 3, PATIENCE).await;
    let answers = crate::support::wire::answers(text.as_bytes(), false);
    let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses, [200, 401, 200], "what came before does not vouch: {text}");
    assert_eq!(answers[1].header("valetkey-error"), Some("nonce_missing"));
    for seen in stage.upstream.seen() {
        assert_eq!(seen.header("authorization"), Some(format!("Bearer {}", stage.secret).as_str()));
        assert!(seen.headers.keys().all(|name| !name.as_str().starts_with("proxy-")), "{seen:?}");
    }
    stage.assert_silent(&[&nonce, &basic]);
}

#[tokio::test]
async fn proxy_credentials_inside_a_tunnel_are_taken_out_and_vouch_for_nothing() {
    let (stage, nonce, _) = attaching("bearer").await;
    let agent = stage.sidecar.agent();
    for value in [format!("Bearer {nonce}"), format!("Basic {}", STANDARD.encode(format!("{nonce}:")))] {
        let inside = with("GET", "api.test", "/x", &[("proxy-authorization", &value)], "");
        assert_eq!(agent.send(inside.clone()).await.refusal(), Some("nonce_missing"));
        assert_eq!(agent.send_h2(inside.clone()).await.refusal(), Some("nonce_missing"));
        // Nor do they take the place of the tunnel's own.
        let unknown = agent.vouched("an_000000000000000000000000000000000:");
        assert_eq!(unknown.send(inside).await.refusal(), Some("nonce_unknown"));
    }
    assert_eq!(stage.upstream.seen().len(), 0);
}

#[tokio::test]
async fn without_attach_the_nonce_of_the_proxy_only_says_who_asks() {
    let stage = Stage::new().await;
    let nonce = stage.reader().await;
    let agent = stage.sidecar.agent().vouched(&format!("{nonce}:"));
    let reply = agent.send(plain("/x")).await;
    assert_eq!((reply.status.as_u16(), reply.refusal()), (401, Some("nonce_missing")));
    assert!(reply.text().contains("only says who asks"), "{}", reply.text());
    let record = stage.sidecar.audited(|record| record["decision"] == "deny").await;
    assert_eq!((&record["agent"], &record["presented_in"]), (&"worker".into(), &"proxy".into()));
    assert_eq!(agent.get("api.test", "/x", &nonce).await.status, 200, "its own nonce beside it works");
    assert_eq!(stage.upstream.seen().len(), 1);
}

#[tokio::test]
async fn what_a_web_page_may_have_sent_gets_no_credential() {
    let (stage, nonce, agent) = attaching("bearer").await;
    let own = format!("Bearer {nonce}");
    for (name, value) in [
        ("origin", "https://evil.test"),
        ("origin", "https://api.test"),
        ("origin", "null"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
    ] {
        let reply = agent.send(with("GET", "api.test", "/x", &[(name, value)], "")).await;
        assert_eq!(reply.refusal(), Some("nonce_missing"), "{name}: {value}");
        assert!(reply.text().contains("web page"), "{}", reply.text());
        let with_own = with("GET", "api.test", "/x", &[(name, value), ("authorization", &own)], "");
        assert_eq!(agent.send(with_own).await.status, 200, "a nonce of its own says that it is meant");
    }
    for site in ["none", "same-origin"] {
        let reply = agent.send(with("GET", "api.test", "/x", &[("sec-fetch-site", site)], "")).await;
        assert_eq!(reply.status, 200, "{site}");
    }
    assert_eq!(stage.upstream.seen().len(), 7);
}

#[tokio::test]
async fn nothing_is_attached_beside_a_credential_of_the_clients_own() {
    let (stage, _, agent) = attaching("header:x-api-key").await;
    for (path, name, value) in [
        ("/x", "authorization", "Bearer somebody-elses-key"),
        ("/x", "authorization", ""),
        ("/x", "cookie", "session=1"),
        ("/x", "x-api-key", "somebody-elses-key"),
        ("/x", "x-api-key", ""),
        ("/x", "x_api_key", "somebody-elses-key"),
        ("/x", "x-auth-token", "somebody-elses-key"),
        ("/x?key=somebody-elses-key", "x-plain", "1"),
        ("/x?access_token=somebody-elses-key", "x-plain", "1"),
    ] {
        let reply = agent.send(with("GET", "api.test", path, &[(name, value)], "")).await;
        assert_eq!(reply.refusal(), Some("foreign_credential"), "{path} {name}: {value}");
    }
    assert_eq!(stage.upstream.seen().len(), 0);
}

#[tokio::test]
async fn a_nonce_of_its_own_counts_if_it_is_of_the_same_agent_and_task() {
    let policy =
        one_api_with("attach = \"bearer\"") + "\n[agents.other]\nidentity = [\"any\"]\ngrants = { api = [\"read\"] }\n";
    let stage = Stage::of_policy(&policy).await;
    let tunnel = mint(&stage, json!({})).await;
    let sibling = mint(&stage, json!({"max_uses": 1})).await;
    let strangers = [mint(&stage, json!({"task": "another"})).await, mint(&stage, json!({"agent": "other"})).await];
    let agent = stage.sidecar.agent().vouched(&format!("{}:", tunnel.nonce));
    assert_eq!(agent.get("api.test", "/x", &tunnel.nonce).await.status, 200, "the same one");
    assert_eq!(agent.get("api.test", "/x", &sibling.nonce).await.status, 200, "another of the same task");
    assert_eq!(agent.get("api.test", "/x", &sibling.nonce).await.refusal(), Some("nonce_spent"), "and it was used");
    for other in &strangers {
        let reply = agent.get("api.test", "/x", &other.nonce).await;
        assert_eq!((reply.status.as_u16(), reply.refusal()), (403, Some("agent_mismatch")));
    }
    let alone = stage.sidecar.agent();
    assert_eq!(alone.get("api.test", "/x", &strangers[0].nonce).await.status, 200, "in its own tunnel");
    stage.sidecar.orchestrator().revoke(&tunnel.id).await;
    let live = mint(&stage, json!({})).await;
    let reply = agent.get("api.test", "/x", &live.nonce).await;
    assert_eq!(reply.refusal(), Some("nonce_revoked"), "what vouches for the tunnel has to live");
    assert_eq!(stage.upstream.seen().len(), 3);
}

#[tokio::test]
async fn each_request_of_a_tunnel_is_decided_anew() {
    let (stage, _, _) = attaching("bearer").await;
    for h2 in [false, true] {
        let lease = mint(&stage, json!({"max_uses": 3})).await;
        let agent = stage.sidecar.agent().vouched(&format!("{}:", lease.nonce));
        let mut tunnel = if h2 { agent.tunnel_h2("api.test").await } else { agent.tunnel("api.test").await };
        assert_eq!(tunnel.send(plain("/x")).await.status, 200);
        let denied = tunnel.send(with("POST", "api.test", "/x", &[], "")).await;
        assert_eq!(denied.refusal(), Some("out_of_scope"), "h2 {h2}");
        assert_eq!(tunnel.send(plain("/x")).await.status, 200);
        assert_eq!(tunnel.send(plain("/x")).await.status, 200);
        assert_eq!(tunnel.send(plain("/x")).await.refusal(), Some("nonce_spent"), "h2 {h2}");
        let lease = mint(&stage, json!({})).await;
        let agent = stage.sidecar.agent().vouched(&format!("{}:", lease.nonce));
        let mut tunnel = if h2 { agent.tunnel_h2("api.test").await } else { agent.tunnel("api.test").await };
        assert_eq!(tunnel.send(plain("/x")).await.status, 200);
        stage.sidecar.orchestrator().revoke(&lease.id).await;
        let reply = tunnel.send(plain("/x")).await;
        assert_eq!((reply.status.as_u16(), reply.refusal()), (401, Some("nonce_revoked")), "h2 {h2}");
    }
    assert_eq!(stage.upstream.seen().len(), 8);
}

#[tokio::test]
async fn a_revoke_cuts_what_was_attached() {
    let (stage, _, _) = attaching("bearer").await;
    let lease = mint(&stage, json!({})).await;
    let mut tunnel = stage.sidecar.agent().vouched(&format!("{}:", lease.nonce)).tunnel("api.test").await;
    let response = tunnel.start(plain("/endless")).await;
    assert_eq!(response.status(), 200);
    stage.sidecar.orchestrator().revoke(&lease.id).await;
    assert!(crate::support::agent::breaks(response).await);
}

#[tokio::test]
async fn a_dead_or_unknown_nonce_is_refused_inside_where_it_can_be_read() {
    let (stage, _, _) = attaching("bearer").await;
    let expired = mint(&stage, json!({"ttl": "1s"})).await;
    stage.sidecar.audited(|record| record["type"] == "lease_end").await;
    for (nonce, code) in [
        ("an_000000000000000000000000000000000", "nonce_unknown"),
        ("an_short", "nonce_unknown"),
        (expired.nonce.as_str(), "nonce_expired"),
    ] {
        let agent = stage.sidecar.agent().vouched(&format!("{nonce}:"));
        let reply = agent.send(plain("/x")).await;
        assert_eq!((reply.status.as_u16(), reply.refusal()), (401, Some(code)));
        assert!(reply.headers.get("proxy-authenticate").is_none() && reply.text().contains(code));
    }
    assert_eq!(stage.upstream.seen().len(), 0);
    stage.assert_silent(&[&expired.nonce]);
}

#[tokio::test]
async fn credentials_that_are_no_nonce_are_passed_over_and_never_told() {
    let stage = Stage::new().await;
    let nonce = stage.reader().await;
    let agent = stage.sidecar.agent().vouched("corp-user:hunter2-hunter2");
    assert_eq!(agent.get("api.test", "/x", &nonce).await.status, 200);
    assert_eq!(agent.send(plain("/x")).await.refusal(), Some("nonce_missing"));
    stage.sidecar.audited(|record| record["decision"] == "deny").await;
    let blob = STANDARD.encode("corp-user:hunter2-hunter2");
    for text in [stage.sidecar.audit_text(), stage.sidecar.log()] {
        assert!(!text.contains("hunter2") && !text.contains("corp-user") && !text.contains(&blob));
    }
    let twice = format!(
        "CONNECT api.test:443 HTTP/1.1\r\nHost: api.test\r\nProxy-Authorization: Basic {blob}\r\n\
         Proxy-Authorization: Bearer {nonce}\r\n\r\n"
    );
    let (answer, _) = stage.sidecar.agent().connect_with(twice.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
}

#[tokio::test]
async fn on_other_hosts_it_is_nothing_and_does_no_harm() {
    let (api, other) = (FakeUpstream::start(&["api.test"]).await, FakeUpstream::start(&["other.test"]).await);
    let policy = policies::TWO_APIS.replace("slots = [\"bearer\"]", "slots = [\"bearer\"]\nattach = \"bearer\"");
    let sidecar = TestSidecar::with_policy(&policy)
        .upstream(&["api.test"], "api", &api)
        .upstream(&["other.test"], "other", &other)
        .environment("API_KEY", &canary())
        .environment("OTHER_KEY", &canary())
        .start()
        .await;
    let nonce = sidecar.orchestrator().mint("worker", "api", "read").await.nonce;
    let agent = sidecar.agent().vouched(&format!("{nonce}:"));
    let reply = agent.send(with("GET", "other.test", "/x", &[], "")).await;
    assert_eq!((reply.refusal(), other.seen().len()), (Some("nonce_missing"), 0));
    let unlisted = agent.send(with("GET", "unlisted.test", "/x", &[], "")).await;
    assert_eq!(unlisted.refusal(), Some("host_not_listed"));
    let record = sidecar.audited(|record| record["code"] == "host_not_listed").await;
    assert_eq!(record["agent"], "worker");
    assert_eq!(agent.send(plain("/x")).await.status, 200, "and it still lives");
}

#[tokio::test]
async fn it_is_bound_to_its_agent_as_in_a_slot() {
    if !can_be_others() {
        return;
    }
    let policy = one_api_with("attach = \"bearer\"").replace("identity = [\"any\"]", "identity = [\"uid:65534\"]");
    let stage = Stage::of_policy(&policy).await;
    let nonce = stage.reader().await;
    let agent = stage.sidecar.agent().vouched(&format!("{nonce}:"));
    let reply = agent.send(plain("/x")).await;
    assert_eq!((reply.status.as_u16(), reply.refusal()), (403, Some("agent_mismatch")));
    assert_eq!(stage.upstream.seen().len(), 0);
    let status = acting(STRANGER, STRANGER, move || async move { agent.send(plain("/x")).await.status }).await;
    assert_eq!(status, 200);
}

#[tokio::test]
async fn anonymous_requests_stay_anonymous_where_nothing_is_attached() {
    let stage = Stage::of_policy(&one_api_with("anonymous = true\nattach = \"bearer\"")).await;
    let nonce = stage.reader().await;
    let agent = stage.sidecar.agent().vouched(&format!("{nonce}:"));
    let page = with("GET", "api.test", "/x", &[("origin", "https://evil.test")], "");
    assert_eq!(agent.send(page).await.status, 200);
    assert_eq!(stage.upstream.only().header("authorization"), None);
    assert_eq!(agent.send(plain("/x")).await.status, 200);
    assert!(stage.upstream.seen()[1].header("authorization").is_some());
    let dead = stage.sidecar.agent().vouched("an_000000000000000000000000000000000:");
    assert_eq!(dead.send(plain("/x")).await.refusal(), Some("nonce_unknown"));
}
