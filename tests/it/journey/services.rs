//! What a policy says of a service, each key with its effect.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::support::agent::{get, with};
use crate::support::policies::one_api_with;
use crate::support::{FakeUpstream, Stage, TestSidecar, canary, policies};

#[tokio::test]
async fn cleartext_lets_a_credential_go_over_plain_http_where_the_policy_says_so() {
    let upstream = FakeUpstream::plain().await;
    let policy = one_api_with("cleartext = true")
        .replace("hosts = [\"api.test\"]", "hosts = [\"api.test\", \"api.test:80\"]")
        .replace("upstream_ca = \"{dir}/api.pem\"\n", "");
    let secret = canary();
    let sidecar = TestSidecar::with_policy(&policy)
        .upstream(&["api.test:80"], "api", &upstream)
        .environment("API_KEY", &secret)
        .start()
        .await;
    let nonce = sidecar.orchestrator().mint("worker", "api", "read").await.nonce;
    let absolute =
        format!("GET http://api.test/echo HTTP/1.1\r\nHost: api.test\r\nAuthorization: Bearer {nonce}\r\n\r\n");
    let answer = sidecar.agent().raw(absolute.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(!answer.contains(&secret), "and is masked all the same: {answer}");
    let seen = upstream.only();
    assert_eq!(seen.header("authorization"), Some(format!("Bearer {secret}").as_str()));
    assert_eq!((seen.target.as_str(), seen.header("host")), ("/echo", Some("api.test")));
    let record = sidecar.audited(|record| record["type"] == "decision").await;
    assert_eq!((&record["scheme"], &record["destination"]), (&"http".into(), &"api.test:80".into()));
    assert!(sidecar.log().contains("services.api.cleartext"), "it is warned of: {}", sidecar.log());
}

#[tokio::test]
async fn anonymous_lets_requests_without_a_nonce_go_on_without_a_credential() {
    let stage = Stage::of_policy(&one_api_with("anonymous = true")).await;
    let agent = stage.sidecar.agent();
    let reply = agent.send(with("GET", "api.test", "/anything", &[("range", "bytes=0-3")], "")).await;
    assert_eq!(reply.status, 200);
    let seen = stage.upstream.only();
    assert_eq!((seen.header("authorization"), seen.header("range")), (None, Some("bytes=0-3")), "as it came");
    let foreign = with("GET", "api.test", "/x", &[("authorization", "Bearer somebody-elses-key")], "");
    assert_eq!(agent.send(foreign).await.refusal(), Some("foreign_credential"));
    assert_eq!(
        agent.get("api.test", "/x", "an_000000000000000000000000000000000").await.refusal(),
        Some("nonce_unknown")
    );
    let nonce = stage.reader().await;
    assert_eq!(agent.get("api.test", "/x", &nonce).await.status, 200);
    let seen = stage.upstream.seen().pop().expect("a request");
    assert_eq!(seen.header("authorization"), Some(format!("Bearer {}", stage.secret).as_str()));
}

#[tokio::test]
async fn private_reaches_loopback_by_name_and_never_ourselves() {
    let upstream = FakeUpstream::start(&["localhost"]).await;
    let host = format!("localhost:{}", upstream.address.port());
    let policy = one_api_with("private = true").replace("api.test", &host);
    let secret = canary();
    let sidecar = TestSidecar::with_policy(&policy)
        .file("api.pem", &upstream.authority.pem)
        .environment("API_KEY", &secret)
        .start()
        .await;
    let nonce = sidecar.orchestrator().mint("worker", "api", "read").await.nonce;
    let absolute = format!("GET https://{host}/x HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {nonce}\r\n\r\n");
    let answer = sidecar.agent().raw(absolute.as_bytes()).await;
    // "localhost" is both ::1 and 127.0.0.1 here; whichever answers is the upstream.
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(upstream.only().header("authorization"), Some(format!("Bearer {secret}").as_str()));
    for own in [sidecar.admin, sidecar.proxy] {
        let (answer, _) = sidecar.agent().connect(&format!("localhost:{}", own.port())).await;
        assert!(answer.starts_with("HTTP/1.1 403"), "{own}: {answer}");
    }
}

#[tokio::test]
async fn what_data_a_scope_gives_is_on_record() {
    let policy = policies::ONE_API.replace("risk = \"low\"\n", "risk = \"low\"\ndata = \"personal\"\n");
    let stage = Stage::of_policy(&policy).await;
    stage.sidecar.agent().get("api.test", "/x", &stage.reader().await).await;
    let decision = stage.sidecar.audited(|record| record["type"] == "decision").await;
    assert_eq!((&decision["scope"], &decision["data"]), (&"read".into(), &"personal".into()), "{decision:#}");
}

#[tokio::test]
async fn scrub_false_passes_answers_as_they_are_and_short_credentials_need_it() {
    let stage = Stage::of_policy(&one_api_with("scrub = false")).await;
    let nonce = stage.reader().await;
    let reply = stage.sidecar.agent().get("api.test", "/stacked", &nonce).await;
    assert_eq!(reply.status, 200, "nothing is searched, so nothing is withheld");
    let bearer = format!("Bearer {nonce}");
    let ranged = [("authorization", bearer.as_str()), ("range", "bytes=0-3"), ("accept-encoding", "br")];
    stage.sidecar.agent().send(with("GET", "api.test", "/x", &ranged, "")).await;
    let seen = stage.upstream.seen().pop().expect("a request");
    assert_eq!((seen.header("range"), seen.header("accept-encoding")), (Some("bytes=0-3"), Some("br")));
    assert!(stage.sidecar.log().contains("services.api.scrub"), "it is warned of");
    let start = stage.sidecar.audited(|record| record["type"] == "start").await;
    assert_eq!(start["facts"]["unscrubbed"], serde_json::json!(["api"]), "{start:#}");
    for (policy, expected) in
        [(policies::ONE_API.to_owned(), Some("credential_unavailable")), (one_api_with("scrub = false"), None)]
    {
        let upstream = FakeUpstream::start(&["api.test"]).await;
        let short = Stage::of(&policy, upstream, |builder| builder.environment("API_KEY", "short-key")).await;
        let nonce = short.reader().await;
        assert_eq!(short.sidecar.agent().get("api.test", "/x", &nonce).await.refusal(), expected);
    }
}

#[tokio::test]
async fn a_nonce_comes_plain_or_in_the_shape_that_the_sdk_insists_on() {
    let stage = Stage::of_policy(&one_api_with("placeholder = \"sk_test_{nonce}_x\"")).await;
    let minted = stage.sidecar.orchestrator().mint("worker", "api", "read").await;
    let shaped = minted.answer["placeholders"]["api"].as_str().expect("a placeholder").to_owned();
    assert_eq!(shaped, format!("sk_test_{}_x", minted.nonce));
    let basic = |text: &str| format!("Basic {}", STANDARD.encode(text));
    let secret = stage.secret.clone();
    for (value, expected) in [
        (format!("Bearer {}", minted.nonce), format!("Bearer {secret}")),
        (format!("Bearer {shaped}"), format!("Bearer {secret}")),
        (basic(&format!("{shaped}:")), basic(&format!("{secret}:"))),
        (basic(&format!("git:{shaped}")), basic(&format!("git:{secret}"))),
    ] {
        let reply = stage.sidecar.agent().send(with("GET", "api.test", "/x", &[("authorization", &value)], "")).await;
        assert_eq!(reply.status, 200, "{value}: {}", reply.text());
        assert_eq!(stage.upstream.seen().pop().expect("a request").header("authorization"), Some(expected.as_str()));
    }
    for wrong in [format!("sk_test_{}", minted.nonce), format!("sk_live_{}_x", minted.nonce), format!("{shaped}y")] {
        let value = format!("Bearer {wrong}");
        let reply = stage.sidecar.agent().send(with("GET", "api.test", "/x", &[("authorization", &value)], "")).await;
        assert!([400, 401, 403].contains(&reply.status.as_u16()), "{wrong}: {}", reply.status);
    }
    assert_eq!(stage.upstream.seen().len(), 4);
}

#[tokio::test]
async fn only_the_slots_of_the_service_are_read() {
    let policy = policies::ONE_API.replace(
        "slots = [\"bearer\", \"token\", \"basic-user\", \"basic-password\", \"header:x-api-key\", \"query:key\"]",
        "slots = [\"raw\", \"query:key\"]",
    );
    let stage = Stage::of_policy(&policy).await;
    let nonce = stage.reader().await;
    let agent = stage.sidecar.agent();
    assert_eq!(agent.send(with("GET", "api.test", "/x", &[("authorization", &nonce)], "")).await.status, 200);
    assert_eq!(stage.upstream.only().header("authorization"), Some(stage.secret.as_str()));
    assert_eq!(agent.send(with("GET", "api.test", &format!("/x?a=%20b&key={nonce}&c"), &[], "")).await.status, 200);
    assert_eq!(stage.upstream.seen()[1].target, format!("/x?a=%20b&key={}&c", stage.secret));
    for (name, value, path) in [
        ("authorization", format!("Bearer {nonce}"), "/x".to_owned()),
        ("x-api-key", nonce.clone(), "/x".to_owned()),
        ("accept", "*/*".to_owned(), format!("/x?token={nonce}")),
        ("accept", "*/*".to_owned(), format!("/x?key={nonce}&key={nonce}")),
        ("authorization", nonce.clone(), format!("/x?key={nonce}")),
    ] {
        let reply = agent.send(with("GET", "api.test", &path, &[(name, &value)], "")).await;
        assert!([400, 403].contains(&reply.status.as_u16()), "{name}: {value} {path}: {}", reply.status);
    }
    assert_eq!(stage.upstream.seen().len(), 2);
}

/// A policy whose services are presets, with agents that may have all of some scopes.
fn presets() -> String {
    let credential = |name: &str, hosts: &str| {
        format!("[credentials.{name}]\nsource = \"env\"\nname = \"{}_KEY\"\nhosts = [{hosts}]\n", name.to_uppercase())
    };
    let service = |name: &str| {
        format!(
            "[services.{name}]\npreset = \"{name}@1\"\ncredential = \"{name}\"\nupstream_ca = \"{{dir}}/all.pem\"\n"
        )
    };
    [
        "version = 1\n".to_owned(),
        credential("stripe", "\"api.stripe.com\""),
        credential("slack", "\"slack.com\""),
        credential("github", "\"api.github.com\", \"github.com\""),
        service("stripe"),
        service("slack"),
        service("github"),
        "[agents.worker]\nidentity = [\"any\"]\ngrants = { stripe = [\"read:customers\", \"write:customers\"], \
         slack = [\"read:channels\"], github = [\"read:metadata\", \"git:fetch\"] }\n"
            .to_owned(),
    ]
    .concat()
}

#[tokio::test]
async fn presets_work_end_to_end() {
    let hosts = ["api.stripe.com", "slack.com", "api.github.com", "github.com"];
    let upstream = FakeUpstream::start(&hosts).await;
    let (stripe, slack, github) = (canary(), canary(), canary());
    let sidecar = TestSidecar::with_policy(&presets())
        .upstream(&hosts, "all", &upstream)
        .environment("STRIPE_KEY", &stripe)
        .environment("SLACK_KEY", &slack)
        .environment("GITHUB_KEY", &github)
        .start()
        .await;
    let minted = sidecar
        .orchestrator()
        .mint_with(json!({"agent": "worker", "task": "t", "grants": [
            {"service": "stripe", "scopes": ["read:customers", "write:customers"]},
            {"service": "slack", "scopes": ["read:channels"]},
            {"service": "github", "scopes": ["read:metadata", "git:fetch"]},
        ]}))
        .await;
    let agent = sidecar.agent();
    let shaped = minted.answer["placeholders"]["stripe"].as_str().expect("a placeholder");
    assert!(shaped.starts_with("sk_test_an_"), "{shaped}");
    let basic = format!("Basic {}", STANDARD.encode(format!("{shaped}:")));
    let customers = with("GET", "api.stripe.com", "/v1/customers?limit=3", &[("authorization", &basic)], "");
    assert_eq!(agent.send(customers).await.status, 200);
    assert_eq!(agent.get("slack.com", "/api/conversations.list", &minted.nonce).await.status, 200);
    let git = format!("Basic {}", STANDARD.encode(format!("x-access-token:{}", minted.nonce)));
    let refs = "/acme/app.git/info/refs?service=git-upload-pack";
    assert_eq!(agent.send(with("GET", "github.com", refs, &[("authorization", &git)], "")).await.status, 200);
    let seen: Vec<String> =
        upstream.seen().iter().map(|seen| seen.header("authorization").expect("a credential").to_owned()).collect();
    let git = format!("Basic {}", STANDARD.encode(format!("x-access-token:{github}")));
    assert_eq!(seen, [format!("Basic {}", STANDARD.encode(format!("{stripe}:"))), format!("Bearer {slack}"), git]);
    // What hands out credentials is denied, whatever a scope allows.
    for path in ["/v1/ephemeral_keys", "/v1/webhook_endpoints", "/v1/account_links"] {
        let request = with("POST", "api.stripe.com", path, &[("authorization", &format!("Bearer {shaped}"))], "");
        assert_eq!(agent.send(request).await.refusal(), Some("out_of_scope"), "{path}");
    }
    assert_eq!(upstream.seen().len(), 3);
}

#[tokio::test]
async fn of_two_services_on_one_host_the_nonce_selects() {
    let second = "\n[credentials.second]\nsource = \"env\"\nname = \"SECOND_KEY\"\nhosts = [\"api.test\"]\n\
                  [services.second]\nhosts = [\"api.test\"]\ncredential = \"second\"\nslots = [\"bearer\"]\n\
                  upstream_ca = \"{dir}/api.pem\"\n[[services.second.scopes]]\nname = \"read\"\nrisk = \"low\"\n\
                  allow = [\"GET /second\"]\n";
    let policy = policies::ONE_API.replace("\"once\"] }", "\"once\"], second = [\"read\"] }") + second;
    let other = canary();
    let upstream = FakeUpstream::start_with(&["api.test"], &[b"http/1.1"]).await;
    let stage = Stage::of(&policy, upstream, |builder| builder.environment("SECOND_KEY", &other)).await;
    let orchestrator = stage.sidecar.orchestrator();
    let (first, second) = (
        orchestrator.mint("worker", "api", "read").await.nonce,
        orchestrator.mint("worker", "second", "read").await.nonce,
    );
    let agent = stage.sidecar.agent();
    assert_eq!(agent.get("api.test", "/second", &first).await.status, 200);
    assert_eq!(agent.get("api.test", "/second", &second).await.status, 200);
    assert_eq!(agent.get("api.test", "/elsewhere", &second).await.refusal(), Some("out_of_scope"));
    let seen = stage.upstream.seen();
    assert_eq!(seen[0].header("authorization"), Some(format!("Bearer {}", stage.secret).as_str()));
    assert_eq!(seen[1].header("authorization"), Some(format!("Bearer {other}").as_str()));
    assert_ne!(seen[0].connection, seen[1].connection, "no connection is shared by two credentials");
}

#[tokio::test]
async fn queries_are_held_to_their_rule() {
    let rules = "rules = [{ allow = \"GET /none\", query = [] }, { allow = \"GET /some\", query = [\"limit\"] }, \
                 { allow = \"GET /exact\", query = { service = \"x\" } }]";
    let policy = policies::ONE_API.replacen("allow = [\"GET /{*path}\"]", rules, 1);
    let stage = Stage::of_policy(&policy).await;
    let nonce = stage.reader().await;
    let mut tunnel = stage.sidecar.agent().tunnel_h2("api.test").await;
    for (path, is_allowed) in [
        ("/none", true),
        ("/none?a=1", false),
        ("/some", true),
        ("/some?limit=1", true),
        ("/some?limit=1&more=2", false),
        ("/some?Limit=1", false),
        ("/exact?service=x", true),
        ("/exact?service=y", false),
        ("/exact?service=x&service=y", false),
        ("/exact?service=x&service=x", false),
        ("/exact", false),
    ] {
        let reply = tunnel.send(get("api.test", path, &nonce)).await;
        assert_eq!(reply.status == 200, is_allowed, "{path}: {}", reply.status);
    }
}
