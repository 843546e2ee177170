//! The parent proxy of a corporate network, `egress.upstream_proxy`.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{Builder, FakeUpstream, TestSidecar, canary, policies};

const USER: &str = "corp-user";

/// What a parent answers to `CONNECT`.
#[derive(Clone)]
enum Answer {
    /// A tunnel to wherever it knows the name to be, if the password is right.
    Tunnel,
    /// These bytes, and then nothing.
    Bytes(&'static str),
}

/// A proxy that alone knows where names are.
struct Parent {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Parent {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Parent {
    async fn start(answer: Answer, password: &str, names: &[(&str, SocketAddr)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let heads: Arc<Mutex<Vec<String>>> = Arc::default();
        let names: HashMap<_, _> = names.iter().map(|(name, to)| (format!("{name}:443"), *to)).collect();
        let expected = format!("Basic {}", STANDARD.encode(format!("{USER}:{password}")));
        let seen = heads.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                let (seen, names, expected, answer) = (seen.clone(), names.clone(), expected.clone(), answer.clone());
                tokio::spawn(async move { serve(stream, &seen, &names, &expected, answer).await });
            }
        });
        Self { address, heads, task }
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().expect("not poisoned").clone()
    }
}

async fn serve(
    mut client: TcpStream,
    seen: &Mutex<Vec<String>>,
    names: &HashMap<String, SocketAddr>,
    expected: &str,
    answer: Answer,
) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && head.len() < 65_536 {
        match client.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    seen.lock().expect("not poisoned").push(head.clone());
    if let Answer::Bytes(bytes) = answer {
        let _ = client.write_all(bytes.as_bytes()).await;
        let _ = client.read(&mut [0; 64]).await;
        return;
    }
    let authority = head.split(' ').nth(1).unwrap_or_default();
    let is_known = head.lines().any(|line| {
        line.split_once(": ")
            .is_some_and(|(name, value)| name.eq_ignore_ascii_case("proxy-authorization") && value == expected)
    });
    let answer = match names.get(authority) {
        _ if !is_known => "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n",
        None => "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n",
        Some(_) => "HTTP/1.1 200 Connection established\r\nVia: 1.1 corp\r\n\r\n",
    };
    if client.write_all(answer.as_bytes()).await.is_err() || !answer.contains(" 200 ") {
        return;
    }
    let Ok(mut upstream) = TcpStream::connect(names[authority]).await else { return };
    let _ = upstream.set_nodelay(true);
    let _ = copy_bidirectional(&mut client, &mut upstream).await;
}

/// A policy whose `api.test` lies behind a parent.
fn policy(parent: &Parent) -> String {
    format!(
        "{}\n[credentials.corp]\nsource = \"env\"\nname = \"CORP\"\nhosts = [\"{1}\"]\n\
         [egress]\nupstream_proxy = \"http://{1}\"\nupstream_proxy_credential = \"corp\"\n",
        policies::ONE_API,
        parent.address
    )
}

/// A sidecar before it; no name is known here but `direct`.
fn sidecar(policy: &str, upstream: &FakeUpstream, key: &str, password: &str) -> Builder {
    TestSidecar::with_policy(policy)
        .file("api.pem", &upstream.authority.pem)
        .environment("API_KEY", key)
        .environment("CORP", &format!("{USER}:{password}"))
}

#[tokio::test]
async fn listed_names_go_through_it_and_tls_goes_on_to_the_upstream() {
    for alpn in [&[b"http/1.1".as_slice()][..], &[b"h2".as_slice()]] {
        let upstream = FakeUpstream::start_with(&["api.test"], alpn).await;
        let (key, password) = (canary(), canary());
        let parent = Parent::start(Answer::Tunnel, &password, &[("api.test", upstream.address)]).await;
        let sidecar = sidecar(&policy(&parent), &upstream, &key, &password).start().await;
        let nonce = sidecar.orchestrator().mint("worker", "api", "read").await.nonce;
        for _ in 0..3 {
            assert_eq!(sidecar.agent().get("api.test", "/x", &nonce).await.status, 200);
        }
        let seen = upstream.seen();
        assert_eq!(seen.len(), 3);
        assert_eq!(seen[0].header("authorization"), Some(format!("Bearer {key}").as_str()));
        assert!(seen.iter().all(|seen| seen.header("proxy-authorization").is_none()), "it ends at the parent");
        let heads = parent.heads();
        assert_eq!(heads.len(), 1, "one tunnel, used again: {heads:?}");
        assert!(heads[0].starts_with("CONNECT api.test:443 HTTP/1.1\r\n"), "{}", heads[0]);
        assert!(!heads[0].contains(&nonce) && !heads[0].contains(&key), "{}", heads[0]);
        let decided = sidecar.audited(|record| record["type"] == "end").await;
        assert!(decided.to_string().contains(&parent.address.to_string()), "whom we dialled is on record: {decided}");
        for text in [sidecar.log(), std::fs::read_to_string(sidecar.directory.path().join("audit.jsonl")).expect("it")]
        {
            assert!(!text.contains(&password) && !text.contains(&STANDARD.encode(format!("{USER}:{password}"))));
        }
    }
}

#[tokio::test]
async fn a_certificate_that_is_not_the_upstreams_is_refused_inside_its_tunnel_too() {
    let (upstream, evil) = (FakeUpstream::start(&["api.test"]).await, FakeUpstream::start(&["api.test"]).await);
    let password = canary();
    let parent = Parent::start(Answer::Tunnel, &password, &[("api.test", evil.address)]).await;
    let sidecar = sidecar(&policy(&parent), &upstream, &canary(), &password).start().await;
    let nonce = sidecar.orchestrator().mint("worker", "api", "read").await.nonce;
    let reply = sidecar.agent().get("api.test", "/x", &nonce).await;
    assert_eq!((reply.status.as_u16(), reply.refusal()), (502, Some("upstream_tls")));
    assert!(evil.seen().is_empty());
}

#[tokio::test]
async fn a_parent_that_makes_no_tunnel_is_an_upstream_that_is_not_there() {
    let upstream = FakeUpstream::start(&["api.test"]).await;
    let answers = [
        Answer::Tunnel, // with another password than ours: 407
        Answer::Bytes("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"),
        Answer::Bytes("SSH-2.0-OpenSSH_9.9\r\n"),
        Answer::Bytes(""),
        Answer::Bytes("HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"),
    ];
    for answer in answers {
        let parent = Parent::start(answer, &canary(), &[("api.test", upstream.address)]).await;
        let sidecar = sidecar(&policy(&parent), &upstream, &canary(), &canary()).flag("--connect-timeout").flag("2s");
        let sidecar = sidecar.start().await;
        let nonce = sidecar.orchestrator().mint("worker", "api", "read").await.nonce;
        let reply = sidecar.agent().get("api.test", "/x", &nonce).await;
        assert!(
            matches!(reply.refusal(), Some("upstream_unreachable" | "upstream_timeout")),
            "{:?}: {}",
            reply.refusal(),
            reply.text()
        );
        assert!(!parent.heads().is_empty(), "it was asked");
        assert!(upstream.seen().is_empty());
    }
}

#[tokio::test]
async fn what_is_private_or_sent_elsewhere_does_not_go_through_it() {
    let upstream = FakeUpstream::start(&["api.test", "localhost"]).await;
    let parent = Parent::start(Answer::Tunnel, &canary(), &[]).await;
    let sent =
        sidecar(&policy(&parent), &upstream, &canary(), "x").upstream(&["api.test"], "api", &upstream).start().await;
    let nonce = sent.orchestrator().mint("worker", "api", "read").await.nonce;
    assert_eq!(sent.agent().get("api.test", "/x", &nonce).await.status, 200);
    let here = format!("localhost:{}", upstream.address.port());
    let private = policy(&parent)
        .replace("[\"api.test\"]", &format!("[\"{here}\"]"))
        .replace("[services.api]", "[services.api]\nprivate = true");
    let private = sidecar(&private, &upstream, &canary(), "x").start().await;
    let nonce = private.orchestrator().mint("worker", "api", "read").await.nonce;
    let (answer, _) = private.agent().connect(&here).await;
    assert!(answer.contains(" 200 "), "{answer}");
    let head = format!("GET https://{here}/x HTTP/1.1\r\nHost: {here}\r\nAuthorization: Bearer {nonce}\r\n\r\n");
    let answer = private.agent().raw(head.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(parent.heads().is_empty(), "{:?}", parent.heads());
}

#[tokio::test]
async fn an_address_is_never_left_to_it_to_judge() {
    let upstream = FakeUpstream::start(&["api.test"]).await;
    let parent = Parent::start(Answer::Tunnel, &canary(), &[]).await;
    let policy = policy(&parent).replace("[\"api.test\"]", "[\"10.1.2.3\"]");
    let sidecar = sidecar(&policy, &upstream, &canary(), "x").start().await;
    let nonce = sidecar.orchestrator().mint("worker", "api", "read").await.nonce;
    let head = format!("GET https://10.1.2.3/x HTTP/1.1\r\nHost: 10.1.2.3\r\nAuthorization: Bearer {nonce}\r\n\r\n");
    let answer = sidecar.agent().raw(head.as_bytes()).await;
    assert!(answer.contains("address_forbidden"), "{answer}");
    assert!(parent.heads().is_empty(), "{:?}", parent.heads());
}

#[tokio::test]
async fn our_own_listener_is_no_parent() {
    let upstream = FakeUpstream::start(&["api.test"]).await;
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port");
    let policy = format!("{}\n[egress]\nupstream_proxy = \"http://{port}\"\n", policies::ONE_API);
    let sidecar = sidecar(&policy, &upstream, &canary(), "x").set("--listen", &port.to_string()).start().await;
    let nonce = sidecar.orchestrator().mint("worker", "api", "read").await.nonce;
    assert_eq!(sidecar.agent().get("api.test", "/x", &nonce).await.refusal(), Some("address_forbidden"));
}

#[tokio::test]
async fn the_proxies_of_our_own_environment_are_not_ours() {
    let upstream = FakeUpstream::start(&["api.test"]).await;
    let trap = Parent::start(Answer::Bytes(""), &canary(), &[]).await;
    let url = format!("http://{}", trap.address);
    let mut builder = sidecar(policies::ONE_API, &upstream, &canary(), "x").upstream(&["api.test"], "api", &upstream);
    for name in ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"] {
        builder = builder.environment(name, &url);
    }
    let sidecar = builder.start().await;
    let nonce = sidecar.orchestrator().mint("worker", "api", "read").await.nonce;
    assert_eq!(sidecar.agent().get("api.test", "/x", &nonce).await.status, 200);
    assert!(trap.heads().is_empty(), "{:?}", trap.heads());
}

#[test]
fn a_parent_that_cannot_be_meant_is_no_policy() {
    for (lines, said) in [
        ("upstream_proxy = \"https://corp:3128\"", "over http:// alone"),
        ("upstream_proxy = \"http://user:pass@corp:3128\"", "upstream_proxy_credential"),
        ("upstream_proxy = \"corp:3128\"", "http://HOST:PORT"),
        ("upstream_proxy = \"http://corp\"", "http://HOST:PORT"),
        ("upstream_proxy = \"http://corp:3128/path\"", "http://HOST:PORT"),
        ("upstream_proxy_credential = \"api\"", "none is named"),
        ("upstream_proxy = \"http://corp:3128\"\nupstream_proxy_credential = \"api\"", "may not go to corp:3128"),
        ("upstream_proxy = \"http://corp:3128\"\nupstream_proxy_credential = \"nobody\"", "nobody"),
    ] {
        let policy = format!("{}\n[egress]\n{lines}\n", policies::ONE_API);
        let (code, told) = TestSidecar::with_policy(&policy).fails();
        assert_eq!(code, Some(3), "{lines}: {told}");
        assert!(told.contains(said), "{lines}: {told}");
        assert!(!told.contains("user:pass"), "{told}");
    }
}
