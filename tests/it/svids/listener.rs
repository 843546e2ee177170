//! The listener itself: who gets in, and what does not start.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{WORKER, ask, connect, policy, refused, scene};
use crate::support::agent::{PATIENCE, get};
use crate::support::outer::{Entry, address, dial, lay, svid};
use crate::support::remote::{Signer, jwks, seconds_from_now, write};
use crate::support::upstream::PIECE;
use crate::support::{Builder, TestSidecar, canary, policies};

/// What is done to the files of a listener before it starts.
type Edit<'a> = &'a dyn Fn(&std::path::Path);

/// Pieces of 64 KiB in a body.
const PIECES: usize = 128;

#[tokio::test]
async fn without_a_certificate_there_are_nonces_tokens_and_uids() {
    let uid = rustix::process::geteuid().as_raw();
    let key = Signer::es256();
    let issuer = "\n[issuers.ci]\nkind = \"oidc\"\nissuer = \"https://ci.test\"\naudience = \"valetkey\"\nalgorithms = [\"ES256\"]\njwks = \"{dir}/ci.json\"\n";
    let policy = policy().replace("\"mtls:worker.test\"", "\"oidc:ci:sub=worker\"") + issuer;
    let lay = |builder: Builder, directory: &std::path::Path| {
        write(&directory.join("ci.json"), &jwks(&[key.jwk("k", &[])]), 0o644);
        builder
    };
    let bound = scene(&policy, lay).await;
    let nonce = bound.stage.reader().await;
    let token = |sub: &str| {
        let exp = seconds_from_now(300);
        let claims = serde_json::json!({"iss": "https://ci.test", "aud": "valetkey", "sub": sub, "exp": exp});
        format!("Bearer {}", key.token("k", &claims))
    };
    let plain = bound.plain().await;
    assert_eq!(ask(&plain.saying(&token("worker")), &nonce).await, (200, None));
    assert_eq!(ask(&plain.saying(&token("other")), &nonce).await, refused(403, "agent_mismatch"));
    assert_eq!(ask(&plain, &nonce).await, refused(401, "agent_unidentified"));
    // Where there is a token, it is what counts.
    let worker = bound.worker().await;
    assert_eq!(ask(&worker.saying(&token("other")), &nonce).await, refused(403, "agent_mismatch"));
    assert_eq!(connect(&worker.saying("Bearer a.b.c")).await.1, "identity_refused");
    assert_eq!(ask(&worker.vouched(&format!("{nonce}:")), &nonce).await, (200, None));

    let of_uid = policies::ONE_API.replace("[\"any\"]", &format!("[\"uid:{uid}\"]"));
    let required = scene(&(of_uid + "\n[egress]\nproxy_auth = \"required\"\n"), |builder, _| builder).await;
    let nonce = required.stage.sidecar.orchestrator().call("POST", "/v1/nonces", None).await;
    assert_eq!(nonce.0, 403, "an agent's uid does not mint");
    let plain = required.plain().await;
    assert_eq!(connect(&plain).await.0, 407);
    // The policy has no use for certificates, and looks at none.
    let shown = required.agent(svid(&required.far, &[WORKER], |_| {})).await;
    assert_eq!(connect(&shown).await.1, "agent_unidentified");
}

#[tokio::test]
async fn a_certificate_is_enough_where_credentials_are_required() {
    let scene = scene(&(policy() + "\n[egress]\nproxy_auth = \"required\"\n"), |builder, _| builder).await;
    let nonce = scene.stage.reader().await;
    assert_eq!(ask(&scene.worker().await, &nonce).await, (200, None));
    let nobody = scene.agent(svid(&scene.mesh, &["spiffe://example.org/nobody"], |_| {})).await;
    for (agent, code) in [
        (nobody, "agent_unidentified"),
        (scene.plain().await, "agent_unidentified"),
        (scene.agent(svid(&scene.far, &[WORKER], |_| {})).await, "identity_refused"),
    ] {
        let (status, said, head) = connect(&agent).await;
        assert_eq!((status, said.as_str()), (407, code), "{head}");
    }
}

#[tokio::test]
async fn large_bodies_pass_through_both_layers_and_a_slow_reader_holds_them_up() {
    let scene = scene(&policy(), |builder, _| builder).await;
    let (reader, writer) = (scene.stage.reader().await, scene.stage.writer().await);
    let agent = scene.worker().await;
    for h2 in [false, true] {
        let mut tunnel = if h2 { agent.tunnel_h2("api.test").await } else { agent.tunnel("api.test").await };
        let mut response = tunnel.start(get("api.test", &format!("/large?pieces={PIECES}"), &reader)).await;
        let mut count = 0;
        while let Some(frame) = response.body_mut().frame().await {
            count += frame.expect("a frame").data_ref().expect("data").len();
        }
        assert_eq!(count, PIECES * PIECE.len(), "h2 {h2}");
        let pieces =
            (0..PIECES).map(|_| Ok::<_, std::convert::Infallible>(http_body::Frame::data(Bytes::from_static(&PIECE))));
        let body = StreamBody::new(futures_util::stream::iter(pieces));
        let request = http::Request::post("https://api.test/sink").header("authorization", format!("Bearer {writer}"));
        let alpn: &[u8] = if h2 { b"h2" } else { b"http/1.1" };
        let io = TokioIo::new(agent.tls_tunnel("api.test", "api.test", &[alpn]).await.expect("TLS"));
        let response = if h2 {
            let shaken = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await;
            let (mut sender, connection) = shaken.expect("HTTP/2");
            tokio::spawn(connection);
            sender.send_request(request.body(body).expect("a request")).await
        } else {
            let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.expect("HTTP/1.1");
            tokio::spawn(connection);
            let request = request.uri("/sink").header("host", "api.test");
            sender.send_request(request.body(body).expect("a request")).await
        };
        let counted = response.expect("an answer").into_body().collect().await.expect("a body").to_bytes();
        assert_eq!(counted, (PIECES * PIECE.len()).to_string(), "h2 {h2}");
    }
    // Who reads nothing is not read ahead for: the sidecar holds buffers, not bodies.
    let before = scene.stage.sidecar.status("VmRSS");
    let mut open = Vec::new();
    for _ in 0..4 {
        let mut tunnel = agent.tunnel("api.test").await;
        let response = tunnel.start(get("api.test", "/large?pieces=1024", &reader)).await;
        open.push((tunnel, response));
    }
    assert!(scene.stage.sidecar.status("VmRSS") < before + 32 * 1024);
    // The others are served meanwhile.
    assert_eq!(ask(&agent, &reader).await, (200, None));
}

#[tokio::test]
async fn what_is_no_handshake_is_closed_and_on_record() {
    let scene = scene(&policy(), |builder, _| builder.flag("--handshake-timeout").flag("1s")).await;
    let (sidecar, there) = (&scene.stage.sidecar, address(&scene.stage.sidecar));
    let recorded = async |code: &str| {
        sidecar.audited(|record| record["type"] == "connection" && record["code"] == code).await;
    };
    let mut clear = TcpStream::connect(there).await.expect("the listener");
    clear.write_all(b"CONNECT api.test:443 HTTP/1.1\r\nHost: api.test:443\r\n\r\n").await.expect("writable");
    let mut said = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, clear.read_to_end(&mut said)).await.expect("an end in time");
    assert!(!said.windows(4).any(|four| four == b"HTTP"), "{said:?}");
    recorded("not_tls").await;

    let mut silent = TcpStream::connect(there).await.expect("the listener");
    let _ = tokio::time::timeout(PATIENCE, silent.read(&mut [0])).await.expect("an end in time");
    recorded("tls_handshake_timeout").await;

    let mut config = scene.entry.config(None);
    config.alpn_protocols = vec![b"h2".to_vec()];
    assert!(dial(there, Arc::new(config)).await.is_err(), "HTTP/2 is not spoken to the proxy");
    recorded("tls_handshake_failed").await;
    let mut config = scene.entry.config(None);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let stream = dial(there, Arc::new(config)).await.expect("TLS");
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));

    // More than anybody needs to show.
    let (mut chain, key) = svid(&scene.mesh, &[WORKER], |_| {});
    chain.extend(std::iter::repeat_n(chain[0].clone(), 8));
    let agent = scene.agent((chain, key)).await;
    assert!(agent.connect("api.test:443").await.0.is_empty());
    // The places that they took are free again.
    let nonce = scene.stage.reader().await;
    assert_eq!(ask(&scene.worker().await, &nonce).await, (200, None));
}

#[tokio::test]
async fn the_listeners_own_certificate_is_read_again() {
    let scene = scene(&policy(), |builder, _| builder).await;
    let there = address(&scene.stage.sidecar);
    let config = Arc::new(scene.entry.config(None));
    let shown = async || {
        let stream = dial(there, config.clone()).await.expect("TLS");
        stream.get_ref().1.peer_certificates().expect("a certificate")[0].clone()
    };
    let first = shown().await;
    let leaf = scene.entry.server.leaf(&["proxy.test"], |_| {});
    lay(scene.directory.path(), "proxy", &leaf);
    let mut now = first.clone();
    for _ in 0..400 {
        now = shown().await;
        if now != first {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(25)).await;
    }
    assert_eq!(now, leaf.0[0]);
    // What is of no use changes nothing.
    write(&scene.stage.sidecar.path("proxy.key"), "no key", 0o600);
    let kept = |log: &str| log.contains("keeps its certificate");
    for _ in 0..400 {
        assert_eq!(shown().await, leaf.0[0]);
        if kept(&scene.stage.sidecar.log()) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(25)).await;
    }
    assert!(kept(&scene.stage.sidecar.log()));
}

#[tokio::test]
async fn no_name_leads_through_the_proxy_to_its_own_listener() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port();
    let hosts = format!("[\"localhost:{port}\", \"127.0.0.1:{port}\", \"api.test\"]");
    let policy = policies::one_api_with("private = true").replace("[\"api.test\"]", &hosts);
    let (entry, directory) = (Entry::new(), Arc::new(tempfile::tempdir().expect("a directory")));
    entry.lay(directory.path());
    let builder = TestSidecar::with_policy(&policy).within(&directory).environment("API_KEY", &canary());
    let builder = Entry::open(builder.file("api.pem", &entry.server.pem));
    let builder = builder.set_flag("--listen-tls", &format!("127.0.0.1:{port}"));
    let sidecar = builder.flag("--connect-to").flag(&format!("api.test:443:127.0.0.1:{port}")).start().await;
    let nonce = sidecar.orchestrator().mint("worker", "api", "read").await.nonce;
    let agent = entry.agent(&sidecar, None).await;
    for url in
        [format!("https://localhost:{port}/x"), format!("https://127.0.0.1:{port}/x"), "https://api.test/x".into()]
    {
        let host = url.trim_start_matches("https://").trim_end_matches("/x");
        let request = format!("GET {url} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {nonce}\r\n\r\n");
        let answer = agent.raw(request.as_bytes()).await.to_ascii_lowercase();
        assert!(answer.contains("valetkey-error: address_forbidden"), "{url}: {answer}");
    }
}

#[tokio::test]
async fn what_does_not_fit_together_does_not_start() {
    let start = |policy: &str, flags: &[&str], edit: &dyn Fn(&std::path::Path)| {
        let directory = Arc::new(tempfile::tempdir().expect("a directory"));
        let entry = Entry::new();
        entry.lay(directory.path());
        edit(directory.path());
        let builder = Builder::new(policy)
            .file("api.pem", &entry.server.pem)
            .environment("API_KEY", &canary())
            .within(&directory);
        flags.iter().fold(builder, |builder, flag| builder.flag(flag)).fails()
    };
    let files = ["--listen-tls-cert", "{dir}/proxy.pem", "--listen-tls-key", "{dir}/proxy.key"];
    let with = |address: &'static str| [&["--listen-tls", address], &files[..]].concat();
    let one = policies::ONE_API;
    let nothing = |_: &std::path::Path| {};
    for (flags, code, why) in [
        (vec!["--listen-tls", "127.0.0.1:0"], 2, "--listen-tls-cert"),
        (vec!["--listen-tls", "127.0.0.1:0", "--listen-tls-cert", "{dir}/proxy.pem"], 2, "--listen-tls-key"),
        (files.to_vec(), 2, "--listen-tls, which is not there"),
        (with("0.0.0.0:0"), 5, "--allow-remote"),
        ([&with("0.0.0.0:0")[..], &["--allow-remote"]].concat(), 5, "any"),
    ] {
        let (status, said) = start(one, &flags, &nothing);
        assert_eq!(status, Some(code), "{flags:?}: {said}");
        assert!(said.contains(why), "{flags:?}: {said}");
    }
    let flags = with("127.0.0.1:0");
    let open = |directory: &std::path::Path| {
        let key = std::fs::read_to_string(directory.join("proxy.key")).expect("a key");
        write(&directory.join("proxy.key"), &key, 0o644);
    };
    let empty = |directory: &std::path::Path| write(&directory.join("proxy.pem"), "", 0o644);
    let foreign = |directory: &std::path::Path| {
        lay(directory, "other", &Entry::new().server.leaf(&["proxy.test"], |_| {}));
        std::fs::copy(directory.join("other.key"), directory.join("proxy.key")).expect("a file");
    };
    let cases: [(Edit<'_>, &str); 3] = [(&open, "mode"), (&empty, "no certificate"), (&foreign, "cannot be used")];
    for (edit, why) in cases {
        let (status, said) = start(one, &flags, edit);
        assert_eq!(status, Some(4), "{said}");
        assert!(said.contains(why), "{said}");
    }
    let agent = |identity: &str| one.replace("[\"any\"]", &format!("[\"{identity}\"]"));
    let ca = "\n[client_cas.a]\nca = \"/a.pem\"\n";
    let mesh = "\n[client_cas.b]\ntrust_domain = \"example.org\"\nca = \"/b.pem\"\n";
    for (policy, why) in [
        (agent(WORKER), "identity that the proxy can prove"),
        (agent("mtls:worker.test"), "identity that the proxy can prove"),
        (agent(WORKER) + ca, "identity that the proxy can prove"),
        (agent("mtls:worker.test") + mesh, "identity that the proxy can prove"),
        (agent("spiffe://far.org/worker") + mesh, "identity that the proxy can prove"),
        (agent("mtls:x") + ca + &ca.replace(".a]", ".c]"), "vouches for the same"),
        (agent(WORKER) + mesh + &mesh.replace(".b]", ".c]"), "vouches for the same"),
        (agent("mtls:x") + &ca.replace("/a.pem", "a.pem"), "absolute"),
        (agent("mtls:x") + "\n[client_cas.a]\n", "`ca`"),
        (agent(WORKER) + &mesh.replace("example.org", "spiffe://example.org"), "trust domain"),
        (agent("mtls:x") + ca + "jwks = \"/x\"\n", "unknown"),
        (
            agent(WORKER)
                + mesh
                + &format!("[minters.m]\nidentity = [\"{WORKER}\"]\nagents = [\"*\"]\nmay = [\"mint\"]\n"),
            "an agent never mints",
        ),
    ] {
        let (status, said) = start(&policy, &flags, &nothing);
        assert_eq!(status, Some(3), "{policy}: {said}");
        assert!(said.contains(why), "{why}: {said}");
    }
}
