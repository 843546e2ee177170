//! `unlisted = "tunnel"`: relayed unread, and never more than that.

use std::sync::Arc;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;

use crate::support::wire::read_answers;
use crate::support::{Agent, FakeUpstream, TestSidecar, canary, policies};

/// A sidecar that lets unlisted hosts through, before `api.test`; `other.test` is listed nowhere.
struct Open {
    api: FakeUpstream,
    other: FakeUpstream,
    sidecar: TestSidecar,
}

impl Open {
    async fn new() -> Self {
        let (api, other) = (FakeUpstream::start(&["api.test"]).await, FakeUpstream::start(&["other.test"]).await);
        let policy = format!("{}\n[egress]\nunlisted = \"tunnel\"\n", policies::ONE_API);
        let sidecar = TestSidecar::with_policy(&policy)
            .upstream(&["api.test"], "api", &api)
            .upstream(&["other.test"], "other", &other)
            .environment("API_KEY", &canary())
            .start()
            .await;
        Self { api, other, sidecar }
    }

    /// CONNECT and TLS with this SNI, trusting the upstream's own CA and not the sidecar's.
    async fn through(
        &self,
        host: &str,
        sni: &str,
    ) -> std::io::Result<tokio_rustls::client::TlsStream<tokio::net::TcpStream>> {
        let agent = Agent::new(self.sidecar.proxy, &self.other.authority.pem);
        let (answer, stream) = agent.connect(&format!("{host}:443")).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let name = ServerName::try_from(sni.to_owned()).expect("a name");
        TlsConnector::from(Arc::new(agent.tls(&[b"http/1.1"]))).connect(name, stream).await
    }
}

#[tokio::test]
async fn an_unlisted_host_is_relayed_unread() {
    let open = Open::new().await;
    let mut stream = open.through("other.test", "other.test").await.expect("the upstream's own certificate");
    let nonce = open.sidecar.orchestrator().mint("worker", "api", "read").await.nonce;
    let request = format!("GET /x HTTP/1.1\r\nHost: other.test\r\nAuthorization: Bearer {nonce}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("writable");
    let answer = read_answers(&mut stream, 1, std::time::Duration::from_secs(10)).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let seen = open.other.only();
    assert_eq!(seen.header("authorization"), Some(format!("Bearer {nonce}").as_str()), "never a credential");
    drop(stream);
    let end = open.sidecar.audited(|record| record["type"] == "end").await;
    assert_eq!((&end["status"], &end["ending"]), (&200.into(), &"complete".into()));
    assert!(end["response_bytes"].as_u64().expect("a number") > 0);
    assert!(open.sidecar.log().contains("egress.unlisted"), "it is warned of at start");
}

#[tokio::test]
async fn another_name_inside_than_outside_is_closed() {
    let open = Open::new().await;
    for sni in ["evil.test", "api.test"] {
        assert!(open.through("other.test", sni).await.is_err(), "{sni}");
    }
    let (_, mut stream) = open.sidecar.agent().connect("other.test:443").await;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: other.test\r\n\r\n").await.expect("writable");
    assert_eq!(stream.read(&mut [0; 16]).await.unwrap_or(0), 0, "what is no TLS is closed");
    assert_eq!(open.other.connections(), 0, "nothing was dialled");
    open.sidecar.audited(|record| record["code"] == "destination_mismatch").await;
}

#[tokio::test]
async fn listed_names_and_other_ports_are_no_tunnels() {
    let open = Open::new().await;
    for authority in ["api.test:8443", "other.test:80", "other.test:22"] {
        let (answer, _) = open.sidecar.agent().connect(authority).await;
        assert!(answer.starts_with("HTTP/1.1 403"), "{authority}: {answer}");
    }
    // A listed host is opened and judged, and so shows the sidecar's certificate.
    assert!(open.through("api.test", "api.test").await.is_err());
    assert_eq!((open.api.connections(), open.other.connections()), (0, 0));
    let absolute = "GET https://other.test/x HTTP/1.1\r\nHost: other.test\r\n\r\n";
    let answer = open.sidecar.agent().raw(absolute.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 403"), "only a tunnel is relayed unread: {answer}");
}

#[tokio::test]
async fn private_addresses_are_not_reached_through_it() {
    let open = Open::new().await;
    for host in ["localhost", "127.0.0.1", "169.254.169.254", "10.0.0.1", "[::1]"] {
        let (answer, mut stream) = open.sidecar.agent().connect(&format!("{host}:443")).await;
        if answer.starts_with("HTTP/1.1 200") {
            // Accepted is not dialled: that is decided when the name inside is known.
            let hello = TlsConnector::from(Arc::new(open.sidecar.agent().tls(&[])));
            let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned()).expect("a name");
            assert!(hello.connect(name, &mut stream).await.is_err(), "{host}");
        }
    }
    open.sidecar.audited(|record| record["code"] == "address_forbidden").await;
}

/// Two bare sockets with an unread tunnel between them, the TLS greeting already through.
async fn bare(flags: &[&str]) -> (TestSidecar, tokio::net::TcpStream, tokio::net::TcpStream) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let policy = format!("{}\n[egress]\nunlisted = \"tunnel\"\n", policies::ONE_API)
        .replace("upstream_ca = \"{dir}/api.pem\"\n", "");
    let to = format!("other.test:443:{}", listener.local_addr().expect("an address"));
    let builder = TestSidecar::with_policy(&policy).environment("API_KEY", &canary()).flag("--connect-to").flag(&to);
    let sidecar = flags.iter().fold(builder, |builder, flag| builder.flag(flag)).start().await;
    let (answer, mut client) = Agent::new(sidecar.proxy, "").connect("other.test:443").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let name = ServerName::try_from("other.test").expect("a name");
    let config = Arc::new(Agent::new(sidecar.proxy, "").tls(&[]));
    let mut hello = Vec::new();
    rustls::ClientConnection::new(config, name).expect("a client").write_tls(&mut hello).expect("memory");
    client.write_all(&hello).await.expect("writable");
    let (mut server, _) = listener.accept().await.expect("a connection");
    let mut greeting = vec![0; hello.len()];
    server.read_exact(&mut greeting).await.expect("the greeting");
    assert_eq!(greeting, hello, "as it was sent");
    (sidecar, client, server)
}

/// A megabyte that says where it is.
fn large() -> Vec<u8> {
    (0..256 * 1024u32).flat_map(u32::to_be_bytes).collect()
}

#[tokio::test]
async fn either_side_may_end_first_and_the_other_is_heard_out() {
    for client_first in [true, false] {
        let (sidecar, client, server) = bare(&[]).await;
        let (mut first, mut second) = if client_first { (client, server) } else { (server, client) };
        first.write_all(b"the question").await.expect("writable");
        first.shutdown().await.expect("its end");
        let mut question = Vec::new();
        second.read_to_end(&mut question).await.expect("the question and its end");
        assert_eq!(question, b"the question");
        let answering = tokio::spawn(async move {
            second.write_all(&large()).await.expect("still open");
            second.shutdown().await.expect("its end");
        });
        let mut answer = Vec::new();
        first.read_to_end(&mut answer).await.expect("the answer and its end");
        assert_eq!(answer, large(), "whole");
        answering.await.expect("no panic");
        let end = sidecar.audited(|record| record["type"] == "end").await;
        assert_eq!(end["ending"], "complete");
    }
}

#[tokio::test]
async fn a_tunnel_that_rests_is_cut_even_with_one_side_ended() {
    for ended in [false, true] {
        let (sidecar, mut client, mut server) = bare(&["--idle-timeout", "1s"]).await;
        client.write_all(b"last words").await.expect("writable");
        server.read_exact(&mut [0; 10]).await.expect("the words");
        if ended {
            client.shutdown().await.expect("its end");
            assert_eq!(server.read(&mut [0; 1]).await.expect("an end"), 0);
        }
        let end = sidecar.audited(|record| record["type"] == "end").await;
        assert_eq!(end["ending"], "cut", "ended {ended}");
        assert!(end["request_bytes"].as_u64().expect("a number") >= 10, "counted although it was cut: {end:#}");
        assert_eq!(client.read(&mut [0; 1]).await.unwrap_or(0), 0);
    }
}

#[tokio::test]
async fn a_tunnel_is_cut_when_the_drain_is_over() {
    let (mut sidecar, mut client, _server) = bare(&["--drain-timeout", "1s"]).await;
    sidecar.signal("TERM");
    assert_eq!(client.read(&mut [0; 1]).await.unwrap_or(0), 0);
    assert_eq!(sidecar.wait(), Some(0));
    assert!(sidecar.audit().iter().any(|record| record["ending"] == "cut"), "{:#?}", sidecar.audit());
}
