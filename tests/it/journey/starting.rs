//! What may not start, and how it says so; what starts takes nothing that belongs to another.

use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::sync::Arc;

use crate::support::{Builder, FakeUpstream, Stage, TestSidecar, canary, policies};

fn one_api() -> Builder {
    TestSidecar::with_policy(policies::ONE_API)
        .environment("API_KEY", &canary())
        .file("api.pem", &crate::support::authority::TestAuthority::new().pem)
}

fn directory() -> Arc<tempfile::TempDir> {
    Arc::new(tempfile::tempdir().expect("a directory"))
}

/// A port that somebody else listens on.
fn taken() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    (listener, address)
}

#[test]
fn a_bad_policy_shows_every_mistake_by_line_and_column_before_a_port_is_bound() {
    let policy = format!("{}\n[egress]\nunlisted = \"maybe\"\nsurprise = 1\n", policies::ONE_API);
    let policy = policy.replace("credential = \"api\"", "credential = \"nobody\"");
    let line = |text: &str| policy.lines().position(|line| line.starts_with(text)).expect("a line") + 1;
    // With the port taken, binding first would end with another code.
    let (_taken, address) = taken();
    let (code, said) = TestSidecar::with_policy(&policy).set("--listen", &address).fails();
    assert_eq!(code, Some(3), "{said}");
    for (text, column) in [("credential =", 14), ("unlisted =", 12), ("surprise =", 1)] {
        assert!(said.contains(&format!("policy.toml:{}:{column}", line(text))), "{text}: {said}");
    }
    assert!(said.contains("3 mistakes"), "{said}");
}

#[test]
fn what_cannot_be_enforced_is_no_policy() {
    let another = |line: &str| format!("{}\n{line}\n", policies::ONE_API);
    for (policy, why) in [
        (another("[egress]\nupstream_proxy = \"https://corp-proxy:3128\""), "over http:// alone"),
        (policies::ONE_API.replace("\"any\"", "\"bearer:file:/run/token\""), "bearer: is for minters"),
        (policies::ONE_API.replace("\"any\"", "\"mtls:worker.test\""), "identity that the proxy can prove"),
        (another("[credentials.v]\nsource = \"vault\""), "not enforced by this build"),
    ] {
        let (code, said) = TestSidecar::with_policy(&policy).fails();
        assert_eq!(code, Some(3), "{why}: {said}");
        assert!(said.contains(why), "{why}: {said}");
    }
    let (code, said) = TestSidecar::with_policy("not toml at all [").fails();
    assert_eq!(code, Some(3), "{said}");
    let (code, said) = one_api().set("--policy", "{dir}/missing.toml").fails();
    assert_eq!(code, Some(3), "{said}");
}

#[test]
fn a_ca_that_cannot_be_trusted_ends_the_start() {
    let place = directory();
    let started = |place| one_api().within(place).ca_dir("{dir}/certs");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    drop(runtime.block_on(started(&place).start()));
    let key = place.path().join("certs/ca-key.pem");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).expect("our file");
    let (code, said) = started(&place).fails();
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains("chmod") && said.contains(key.to_str().expect("text")), "it says what to do: {said}");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).expect("our file");
    let edge = |word| format!("-----{word} {} KEY-----\n", "PRIVATE");
    std::fs::write(&key, edge("BEGIN") + "nonsense\n" + &edge("END")).expect("our file");
    let (code, said) = started(&place).fails();
    assert_eq!(code, Some(4), "{said}");
    assert!(!said.contains("nonsense"), "never quoted: {said}");
}

#[test]
fn an_upstream_ca_that_is_none_ends_the_start() {
    let (code, said) = one_api().file("api.pem", "no certificate").fails();
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains("service api") && said.contains("api.pem"), "{said}");
}

#[test]
fn an_address_that_is_taken_or_not_allowed_ends_the_start() {
    let (_taken, address) = taken();
    for flag in ["--listen", "--admin"] {
        let (code, said) = one_api().set(flag, &address).fails();
        assert_eq!(code, Some(5), "{said}");
        assert!(said.contains(flag) && said.contains(&address), "{said}");
    }
    let (code, said) = one_api().set("--listen", "0.0.0.0:0").fails();
    assert_eq!(code, Some(5), "{said}");
    assert!(said.contains("--allow-remote"), "{said}");
    let (code, said) = one_api().set("--listen", "0.0.0.0:0").flag("--allow-remote").fails();
    assert_eq!(code, Some(5), "anybody could present nonces: {said}");
    assert!(said.contains("any"), "{said}");
}

#[tokio::test]
async fn beyond_loopback_with_named_agents_it_starts() {
    let policy = policies::ONE_API.replace("\"any\"", "\"uid:4242\"");
    let upstream = FakeUpstream::start(&["api.test"]).await;
    let stage =
        Stage::of(&policy, upstream, |builder| builder.set("--listen", "0.0.0.0:0").flag("--allow-remote")).await;
    assert!(stage.sidecar.proxy.ip().is_unspecified());
}

#[tokio::test]
async fn a_live_control_socket_is_left_alone_and_a_stale_one_taken_over() {
    let place = directory();
    std::fs::create_dir(place.path().join("run")).expect("a directory");
    let socket = place.path().join("run/control.sock");
    let live = UnixListener::bind(&socket).expect("a socket");
    let (code, said) = one_api().within(&place).fails();
    assert_eq!(code, Some(5), "{said}");
    assert!(said.contains("is served by a running sidecar"), "{said}");
    drop(live);
    let sidecar = one_api().within(&place).start().await;
    sidecar.orchestrator().mint("worker", "api", "read").await;
    drop(sidecar);
    std::fs::remove_file(&socket).expect("a stale socket");
    std::fs::write(&socket, "precious").expect("a file");
    let (code, said) = one_api().within(&place).fails();
    assert_eq!(code, Some(5), "{said}");
    assert_eq!(std::fs::read_to_string(&socket).expect("still there"), "precious");
}

#[tokio::test]
async fn a_running_sidecar_keeps_its_socket_and_its_audit() {
    let stage = Stage::new().await;
    let (code, said) = one_api().within(&stage.sidecar.directory).fails();
    assert_eq!(code, Some(5), "{said}");
    let other = directory();
    let audit = stage.sidecar.path("audit.jsonl");
    let (code, said) = one_api().within(&other).audit(audit.to_str().expect("text")).fails();
    assert_eq!(code, Some(6), "{said}");
    assert!(said.contains("another process"), "{said}");
    stage.reader().await;
}

#[test]
fn an_audit_that_could_lead_elsewhere_ends_the_start() {
    let place = directory();
    let target = place.path().join("target");
    std::fs::write(&target, "").expect("a file");
    symlink(&target, place.path().join("audit.jsonl")).expect("a link");
    let (code, said) = one_api().within(&place).fails();
    assert_eq!(code, Some(6), "{said}");
    assert!(said.contains("symbolic link"), "{said}");
    assert_eq!(std::fs::read(&target).expect("a file"), b"", "nothing went through it");
    let (code, said) = one_api().audit("{dir}/missing/audit.jsonl").fails();
    assert_eq!(code, Some(6), "{said}");
}

#[test]
fn flags_that_make_no_sense_are_usage_errors() {
    for flags in [&["--head-bytes-max", "10"][..], &["--idle-timeout", "0s"], &["--connect-to", "x"], &["--surprise"]] {
        let builder = flags.iter().fold(one_api(), |builder, flag| builder.flag(flag));
        let (code, said) = builder.fails();
        assert_eq!(code, Some(2), "{flags:?}: {said}");
    }
}

#[tokio::test]
async fn a_missing_variable_is_a_warning_and_refuses_that_service_alone() {
    let (api, other) = (FakeUpstream::start(&["api.test"]).await, FakeUpstream::start(&["other.test"]).await);
    let sidecar = TestSidecar::with_policy(policies::TWO_APIS)
        .upstream(&["api.test"], "api", &api)
        .upstream(&["other.test"], "other", &other)
        .environment("OTHER_KEY", &canary())
        .start()
        .await;
    assert!(sidecar.log().contains("API_KEY"), "it is said at start: {}", sidecar.log());
    let (ours, theirs) = (
        sidecar.orchestrator().mint("worker", "api", "read").await.nonce,
        sidecar.orchestrator().mint("worker", "other", "read").await.nonce,
    );
    let reply = sidecar.agent().get("api.test", "/x", &ours).await;
    assert_eq!((reply.status.as_u16(), reply.refusal()), (503, Some("credential_unavailable")));
    assert_eq!(sidecar.agent().get("other.test", "/x", &theirs).await.status, 200);
    assert!(api.seen().is_empty());
    assert_eq!(sidecar.admin_get("/readyz").await.status, 200, "the rest works");
    let metrics = sidecar.admin_get("/metrics").await.text();
    assert!(metrics.contains("valetkey_credential_healthy{credential=\"api\"} 0"), "{metrics}");
    let (_, services) = sidecar.orchestrator().call("GET", "/v1/services", None).await;
    assert!(services["services"][0]["scopes"][0]["problem"].is_string(), "{services:#}");
}

#[tokio::test]
async fn every_flag_but_connect_to_has_a_variable() {
    let upstream = FakeUpstream::start(&["api.test"]).await;
    let secret = canary();
    let sidecar = TestSidecar::with_policy(policies::ONE_API)
        .upstream(&["api.test"], "api", &upstream)
        .without("--listen")
        .without("--admin")
        .without("--policy")
        .without("--control")
        .without("--audit")
        .without("--ca-in-memory")
        .without("--ca-publish")
        .without("--ready-file")
        .environment("API_KEY", &secret)
        .environment("VALETKEY_LISTEN", "127.0.0.1:0")
        .environment("VALETKEY_ADMIN", "127.0.0.1:0")
        .environment("VALETKEY_POLICY", "{dir}/policy.toml")
        .environment("VALETKEY_CONTROL", "{dir}/run/control.sock")
        .environment("VALETKEY_AUDIT", "{dir}/audit.jsonl")
        .environment("VALETKEY_CA_IN_MEMORY", "true")
        .environment("VALETKEY_CA_PUBLISH", "{dir}/public")
        .environment("VALETKEY_READY_FILE", "{dir}/ready.json")
        .environment("VALETKEY_CONNECT_TO", "api.test:443:127.0.0.1:1")
        .start()
        .await;
    let nonce = sidecar.orchestrator().mint("worker", "api", "read").await.nonce;
    assert_eq!(sidecar.agent().get("api.test", "/x", &nonce).await.status, 200, "--connect-to has none");
    let start = sidecar.audited(|record| record["type"] == "start").await;
    let overrides = start["facts"]["connect_to"].as_array().expect("a list");
    assert_eq!(overrides.len(), 1, "what is sent elsewhere is on record: {start:#}");
    assert!(overrides[0].as_str().expect("a text").contains("api.test:443"), "{start:#}");
    let ready: serde_json::Value = serde_json::from_str(&sidecar.text("ready.json")).expect("JSON");
    assert_eq!(ready["proxy"], sidecar.proxy.to_string());
    assert!(sidecar.log().contains(&sidecar.proxy.to_string()), "bound addresses are printed");
}
