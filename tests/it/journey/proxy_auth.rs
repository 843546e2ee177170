//! `egress.proxy_auth = "required"`: nobody gets a tunnel without a nonce, and real clients find their way.

use std::net::{SocketAddr, UdpSocket};
use std::process::{Command, Output};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::agent::{PATIENCE, with};
use crate::support::policies::one_api_with;
use crate::support::wire::{WireAnswer, answers, read_answers};
use crate::support::{FakeUpstream, Stage, policies, skip};

fn required() -> String {
    one_api_with("attach = \"bearer\"") + "\n[egress]\nproxy_auth = \"required\"\n"
}

fn basic(pair: &str) -> String {
    format!("Proxy-Authorization: Basic {}\r\n", STANDARD.encode(pair))
}

fn connect(field: &str) -> String {
    format!("CONNECT api.test:443 HTTP/1.1\r\nHost: api.test:443\r\n{field}\r\n")
}

/// Sends a head on a connection that is there, and reads its one answer.
async fn ask(stream: &mut TcpStream, head: &str) -> WireAnswer {
    stream.write_all(head.as_bytes()).await.expect("an open connection");
    let text = read_answers(stream, 1, PATIENCE).await;
    answers(text.as_bytes(), true).pop().unwrap_or_else(|| panic!("no answer to {head}: {text}"))
}

#[tokio::test]
async fn a_second_try_on_the_same_connection_gets_through() {
    let stage = Stage::of_policy(&required()).await;
    let nonce = stage.reader().await;
    let agent = stage.sidecar.agent();
    let mut stream = agent.tcp().await;
    for (field, code) in [
        (String::new(), "agent_unidentified"),
        (basic("corp-user:password"), "agent_unidentified"),
        (basic("an_000000000000000000000000000000000:"), "nonce_unknown"),
    ] {
        let answer = ask(&mut stream, &connect(&field)).await;
        assert_eq!((answer.status, answer.header("valetkey-error")), (407, Some(code)), "{field}");
        assert_eq!(answer.header("proxy-authenticate"), Some("Basic realm=\"valetkey\""));
        assert_eq!((answer.header("content-length"), answer.header("connection")), (Some("0"), None));
        assert!(answer.head.starts_with(&format!("HTTP/1.1 407 {code}: ")), "{}", answer.head);
    }
    stream.write_all(connect(&basic(&format!("{nonce}:"))).as_bytes()).await.expect("still open");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("an answer"));
    }
    assert!(head.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&head));
    let name = rustls::pki_types::ServerName::try_from("api.test").expect("a name");
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(agent.tls(&[])));
    let mut tls = connector.connect(name, stream).await.expect("TLS inside");
    tls.write_all(b"GET /x HTTP/1.1\r\nHost: api.test\r\n\r\n").await.expect("writable");
    assert!(read_answers(&mut tls, 1, PATIENCE).await.starts_with("HTTP/1.1 200"));
    stage.sidecar.audited(|record| record["type"] == "connection" && record["code"] == "nonce_unknown").await;
    stage.assert_silent(&[&nonce, "corp-user"]);
}

#[tokio::test]
async fn dead_nonces_are_challenged_at_connect_and_never_inside() {
    let stage = Stage::of_policy(&required()).await;
    let agent = stage.sidecar.agent();
    let orchestrator = stage.sidecar.orchestrator();
    let lease = orchestrator.mint("worker", "api", "read").await;
    let mut tunnel = agent.vouched(&format!(":{}", lease.nonce)).tunnel("api.test").await;
    let plain = || with("GET", "api.test", "/x", &[], "");
    assert_eq!(tunnel.send(plain()).await.status, 200);
    orchestrator.revoke(&lease.id).await;
    let reply = tunnel.send(plain()).await;
    assert_eq!((reply.status.as_u16(), reply.refusal()), (401, Some("nonce_revoked")));
    assert!(reply.headers.get("proxy-authenticate").is_none());
    let answer = ask(&mut agent.tcp().await, &connect(&basic(&format!("{}:", lease.nonce)))).await;
    assert_eq!((answer.status, answer.header("valetkey-error")), (407, Some("nonce_revoked")));
    let spent = orchestrator
        .mint_with(json!({"agent": "worker", "task": "t", "service": "api", "scope": "read", "max_uses": 1}))
        .await;
    assert_eq!(agent.vouched(&format!("{}:", spent.nonce)).send(plain()).await.status, 200, "CONNECT takes no use");
    let answer = ask(&mut agent.tcp().await, &connect(&basic(&format!("{}:", spent.nonce)))).await;
    assert_eq!((answer.status, answer.header("valetkey-error")), (407, Some("nonce_spent")));
}

#[tokio::test]
async fn absolute_form_is_asked_too_and_unlisted_hosts_tell_nothing() {
    let stage = Stage::of_policy(&required()).await;
    let nonce = stage.reader().await;
    let mut stream = stage.sidecar.agent().tcp().await;
    let get = |host: &str, field: &str| format!("GET https://{host}/x HTTP/1.1\r\nHost: {host}\r\n{field}\r\n");
    assert_eq!(ask(&mut stream, &get("api.test", "")).await.status, 407);
    assert_eq!(ask(&mut stream, &get("unlisted.test", "")).await.status, 407);
    let unlisted = "CONNECT unlisted.test:8443 HTTP/1.1\r\nHost: unlisted.test\r\n\r\n";
    assert_eq!(ask(&mut stream, unlisted).await.status, 407, "before it is said what is listed");
    assert_eq!(ask(&mut stream, &get("api.test", &basic(&format!("{nonce}:")))).await.status, 200);
    assert_eq!(ask(&mut stream, &get("api.test", "")).await.status, 407, "each brings its own");
    assert_eq!(stage.upstream.seen().len(), 1);
}

#[tokio::test]
async fn tunnels_that_are_not_read_are_asked_too() {
    let policy = required().replace("proxy_auth", "unlisted = \"tunnel\"\nproxy_auth");
    let other = FakeUpstream::start(&["other.test"]).await;
    let stage = Stage::of(&policy, FakeUpstream::start(&["api.test"]).await, |builder| {
        builder.upstream(&["other.test"], "other", &other)
    })
    .await;
    let nonce = stage.reader().await;
    let agent = crate::support::Agent::new(stage.sidecar.proxy, &other.authority.pem);
    let (answer, _) = agent.connect("other.test:443").await;
    assert!(answer.starts_with("HTTP/1.1 407"), "{answer}");
    let reply = agent.vouched(&format!("{nonce}:")).send(with("GET", "other.test", "/x", &[], "")).await;
    assert_eq!(reply.status, 200);
    let seen = other.only();
    assert!(seen.header("authorization").is_none() && seen.header("proxy-authorization").is_none());
}

#[tokio::test]
async fn beyond_loopback_no_nonce_is_taken_and_none_is_asked_for() {
    // The address that this machine would send from; nothing is sent.
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
    let address = socket.connect("192.0.2.1:9").and_then(|()| socket.local_addr()).map(|address| address.ip());
    let Ok(address) = address else { return skip("no address but loopback") };
    for (policy, without) in [(one_api_with("attach = \"bearer\""), 200), (required(), 403)] {
        let policy = policy.replace("identity = [\"any\"]", "identity = [\"uid:0\"]");
        let listen = SocketAddr::new(address, 0).to_string();
        let upstream = FakeUpstream::start(&["api.test"]).await;
        let stage =
            Stage::of(&policy, upstream, |builder| builder.set("--listen", &listen).flag("--allow-remote")).await;
        let nonce = "an_000000000000000000000000000000000";
        let agent = stage.sidecar.agent();
        let answer = ask(&mut agent.tcp().await, &connect(&basic(&format!("{nonce}:")))).await;
        assert_eq!((answer.status, answer.header("valetkey-error")), (403, Some("nonce_misplaced")));
        assert!(answer.head.contains("over plain http from beyond loopback"), "{}", answer.head);
        let answer = ask(&mut agent.tcp().await, &connect("")).await;
        assert_eq!((answer.status, answer.header("proxy-authenticate")), (without, None), "no challenge");
        let absolute = format!(
            "GET https://api.test/x HTTP/1.1\r\nHost: api.test\r\n{}Connection: close\r\n\r\n",
            basic(&format!(":{nonce}"))
        );
        let answer = ask(&mut agent.tcp().await, &absolute).await;
        assert_eq!((answer.status, answer.header("valetkey-error")), (403, Some("nonce_misplaced")));
    }
}

/// curl, with nothing from its surroundings.
fn curl(stage: &Stage, arguments: &[&str]) -> Output {
    let mut command = Command::new("curl");
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.args(["-q", "-sS", "-v", "--max-time", "20", "--cacert"]).arg(stage.sidecar.path("public/ca.pem"));
    command.args(arguments).arg("https://api.test/x").output().expect("curl")
}

fn works(output: &Output) -> bool {
    let log = String::from_utf8_lossy(&output.stderr);
    let worked = output.status.success() && log.contains("HTTP/2 200") | log.contains("HTTP/1.1 200 OK");
    if !worked {
        eprintln!("{log}");
    }
    worked
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_presents_its_nonce_in_each_of_its_ways() {
    let stage = Stage::of_policy(&required()).await;
    let nonce = stage.reader().await;
    let (proxy, user) = (format!("http://{}", stage.sidecar.proxy), format!("{nonce}:"));
    let in_url = format!("http://{nonce}@{}", stage.sidecar.proxy);
    assert!(works(&curl(&stage, &["-x", &in_url])));
    assert!(works(&curl(&stage, &["-x", &proxy, "--proxy-user", &user])));
    assert!(works(&curl(&stage, &["-x", &proxy, "--proxy-user", &format!("agent:{nonce}")])));
    let asking = curl(&stage, &["-x", &in_url, "--proxy-anyauth"]);
    assert!(works(&asking), "407 first, then the nonce");
    assert!(String::from_utf8_lossy(&asking.stderr).contains("407 agent_unidentified"));
    assert!(works(&curl(&stage, &["-x", &in_url, "--proxy1.0", &in_url.replace("http://", "")])), "HTTP/1.0");
    assert!(!curl(&stage, &["-x", &proxy]).status.success());
    assert!(!curl(&stage, &["-x", &in_url.replace("an_", "an_X")]).status.success());
    for seen in stage.upstream.seen() {
        assert_eq!(seen.header("authorization"), Some(format!("Bearer {}", stage.secret).as_str()));
        assert!(seen.headers.keys().all(|name| !name.as_str().starts_with("proxy-")), "{seen:?}");
    }
    assert_eq!(stage.upstream.seen().len(), 5);
    stage.assert_silent(&[&nonce]);
}

#[tokio::test(flavor = "multi_thread")]
async fn git_asks_first_and_fetches_through_the_same_connection() {
    let stage = Stage::of_policy(&required()).await;
    let nonce = stage.reader().await;
    let output = Command::new("git")
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", stage.sidecar.directory.path())
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_SSL_CAINFO", stage.sidecar.path("public/ca.pem"))
        .env("HTTPS_PROXY", format!("http://{nonce}:x@{}", stage.sidecar.proxy))
        .args(["ls-remote", "https://api.test/acme/app.git"])
        .output()
        .expect("git");
    // The upstream is no git server; what counts is that git got to it.
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    let seen = stage.upstream.seen();
    assert!(!seen.is_empty() && seen[0].target == "/acme/app.git/info/refs?service=git-upload-pack", "{log}");
    assert_eq!(seen[0].header("authorization"), Some(format!("Bearer {}", stage.secret).as_str()));
    stage.sidecar.audited(|record| record["type"] == "connection" && record["code"] == "agent_unidentified").await;
}

#[test]
fn a_slot_that_is_none_of_the_services_is_no_place_to_attach() {
    for (line, complaint) in [
        ("attach = \"raw\"", "services.api.attach: `raw` is not one of the service's slots"),
        ("attach = \"header:cookie\"", "services.api.attach"),
        ("attach = true", "services.api.attach"),
    ] {
        let builder = crate::support::TestSidecar::with_policy(&one_api_with(line));
        let (code, log) = builder.environment("API_KEY", &crate::support::canary()).fails();
        assert!(code != Some(0) && log.contains(complaint), "{line}: {log}");
    }
    let policy = format!("{}\n[egress]\nproxy_auth = \"maybe\"\n", policies::ONE_API);
    let (code, log) = crate::support::TestSidecar::with_policy(&policy).fails();
    assert!(code != Some(0) && log.contains("egress.proxy_auth"), "{log}");
}
