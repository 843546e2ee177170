//! Sessions of TLS that are taken up again, and by whom they are not.

use std::sync::{Arc, Mutex};

use rustls::client::{ClientSessionMemoryCache, ClientSessionStore, Resumption};
use rustls::client::{Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, HandshakeKind, NamedGroup, ProtocolVersion, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::upstream::read_head;
use crate::support::{Agent, FakeUpstream, Stage, canary};

const VERSIONS: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS13, &rustls::version::TLS12];

/// A tunnel, one request in it, and its end; how the handshake went.
async fn handshake(agent: &Agent, host: &str, config: &Arc<ClientConfig>) -> (HandshakeKind, ProtocolVersion) {
    let mut tls = agent.tls_tunnel_with(host, host, config).await.expect("TLS");
    let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    tls.write_all(request.as_bytes()).await.expect("writable");
    let mut answer = Vec::new();
    tls.read_to_end(&mut answer).await.expect("an answer, and a proper end");
    assert!(answer.starts_with(b"HTTP/1.1 4"), "without a nonce there is nothing but a refusal");
    let connection = tls.get_ref().1;
    (connection.handshake_kind().expect("a handshake"), connection.protocol_version().expect("a version"))
}

#[tokio::test]
async fn an_agent_resumes_from_its_second_connection_on() {
    let stage = Stage::new().await;
    let agent = stage.sidecar.agent();
    for host in ["api.test", "127.0.0.1"] {
        for version in VERSIONS {
            let config = Arc::new(agent.tls_of(&[version], &[b"http/1.1"]));
            let mut kinds = Vec::new();
            for _ in 0..4 {
                let (kind, spoken) = handshake(&agent, host, &config).await;
                assert_eq!(spoken, version.version);
                kinds.push(kind);
            }
            assert_eq!(kinds[0], HandshakeKind::Full, "{host} {:?}", version.version);
            assert_eq!(kinds[1..], [HandshakeKind::Resumed; 3], "{host} {:?}", version.version);
        }
    }
}

/// A client that offers any host's ticket to every host.
#[derive(Debug)]
struct Careless(ClientSessionMemoryCache);

impl Careless {
    fn name() -> ServerName<'static> {
        ServerName::try_from("any.test").expect("a name")
    }
}

impl ClientSessionStore for Careless {
    fn set_kx_hint(&self, _: ServerName<'static>, group: NamedGroup) {
        self.0.set_kx_hint(Self::name(), group);
    }
    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        self.0.kx_hint(&Self::name())
    }
    fn set_tls12_session(&self, _: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.0.set_tls12_session(Self::name(), value);
    }
    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.0.tls12_session(&Self::name())
    }
    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        self.0.remove_tls12_session(&Self::name());
    }
    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.0.insert_tls13_ticket(Self::name(), value);
    }
    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.0.take_tls13_ticket(&Self::name())
    }
}

/// Addresses come without SNI: nothing but a key of its own for each host tells their tickets apart.
#[tokio::test]
async fn a_ticket_of_one_host_is_nothing_to_another() {
    let stage = Stage::new().await;
    let agent = stage.sidecar.agent();
    for (one, other) in [("api.test", "other.test"), ("192.0.2.1", "192.0.2.2")] {
        for version in VERSIONS {
            let mut config = agent.tls_of(&[version], &[b"http/1.1"]);
            config.resumption = Resumption::store(Arc::new(Careless(ClientSessionMemoryCache::new(8))));
            let config = Arc::new(config);
            let mut kinds = Vec::new();
            for host in [one, one, other, other] {
                kinds.push(handshake(&agent, host, &config).await.0);
            }
            let [full, resumed] = [HandshakeKind::Full, HandshakeKind::Resumed];
            assert_eq!(kinds, [full, resumed, full, resumed], "{one} and {other}, {:?}", version.version);
        }
    }
}

type Kinds = Arc<Mutex<Vec<HandshakeKind>>>;

/// An upstream that closes after each answer, and how its handshakes went.
async fn upstream() -> (FakeUpstream, Kinds) {
    let kinds = Kinds::default();
    let noted = kinds.clone();
    let upstream = FakeUpstream::played(&["api.test"], b"http/1.1", move |mut stream, _| {
        noted.lock().expect("not poisoned").push(stream.get_ref().1.handshake_kind().expect("a handshake"));
        async move {
            read_head(&mut stream).await;
            let answer = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok";
            stream.write_all(answer).await.expect("writable");
            let _ = stream.shutdown().await;
        }
    })
    .await;
    (upstream, kinds)
}

/// Trusted by each service's own `upstream_ca`, and by the system.
#[tokio::test]
async fn an_upstreams_session_is_resumed_by_the_service_that_had_it_alone() {
    let with_ca = super::shared::with_a_second();
    let without_ca = with_ca.replace("upstream_ca = \"{dir}/api.pem\"\n", "");
    for policy in [with_ca, without_ca] {
        let (upstream, kinds) = upstream().await;
        let second = canary();
        let stage = Stage::of(&policy, upstream, |builder| {
            builder.environment("SECOND_KEY", &second).environment("SSL_CERT_FILE", "{dir}/api.pem")
        })
        .await;
        let orchestrator = stage.sidecar.orchestrator();
        for service in ["api", "second"] {
            let nonce = orchestrator.mint("worker", service, "read").await.nonce;
            for _ in 0..3 {
                assert_eq!(stage.sidecar.agent().get("api.test", "/x", &nonce).await.status, 200);
            }
            let kinds = std::mem::take(&mut *kinds.lock().expect("not poisoned"));
            let [full, resumed] = [HandshakeKind::Full, HandshakeKind::Resumed];
            assert_eq!(kinds, [full, resumed, resumed], "{service}");
        }
    }
}
