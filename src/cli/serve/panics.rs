//! A panic in a tunnel, as no request can bring it about: the data plane as it is, with a door of the tests behind it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Empty;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::assembly::tls_profiles;
use crate::audit::{self, Audit, Sink};
use crate::authority::{Authority, Home};
use crate::clock::{SharedClock, SystemClock};
use crate::config;
use crate::credential::Credentials;
use crate::door::{self, Answering, Call, Holder, SelfService};
use crate::identity::{Prover, Verifier};
use crate::lease::{self, NewLease};
use crate::metrics::Metrics;
use crate::model::{
    AgentName, IdentityRule, LeaseGrant, MinterName, Nonce, ScopeLimits, ScopeName, ServiceName, TaskName,
};
use crate::net::Dialer;
use crate::net::tls::ClientTls;
use crate::proxy::accept::Entrance;
use crate::proxy::{Limits, Parts, Proxy};
use crate::telemetry::tests::is_alone;
use crate::telemetry::{guard_panics, panics_count};

const POLICY: &str = r#"
version = 1
[credentials.api]
source = "env"
name = "API_KEY"
hosts = ["api.test"]
[services.api]
hosts = ["api.test"]
credential = "api"
slots = ["bearer"]
[[services.api.scopes]]
name = "read"
risk = "low"
allow = ["GET /{*path}"]
[agents.worker]
identity = ["any"]
grants = { api = ["read"] }
"#;

/// Behind the door there is a defect.
struct Broken;

impl SelfService for Broken {
    fn answer(&self, _: Holder, _: Call) -> Answering<'_> {
        panic!("a defect");
    }
}

struct Scene {
    address: std::net::SocketAddr,
    authority: Arc<Authority>,
    audit: Audit,
    audit_path: std::path::PathBuf,
    nonce: Nonce,
    shutdown: CancellationToken,
    running: tokio::task::JoinHandle<std::io::Result<()>>,
    _home: tempfile::TempDir,
    _leases: Arc<lease::Store>,
}

impl Scene {
    async fn start() -> Self {
        let home = tempfile::tempdir().unwrap();
        let audit_path = home.path().join("audit.jsonl");
        let clock: SharedClock = Arc::new(SystemClock);
        let config = audit::Config::new(Sink::File(audit_path.clone()));
        let audit = Audit::start(&config, clock.clone(), serde_json::json!({})).unwrap();
        let loaded = config::check_policy(&"policy.toml".into(), POLICY.into(), false).ok().unwrap();
        let authority = Arc::new(Authority::open(&Home::Memory, clock.clone()).unwrap());
        let roots = ClientTls::new(authority.public_key_sha256());
        let dialer = Arc::new(Dialer::new(Vec::new(), Vec::new(), Duration::from_secs(1)));
        let verifier = Verifier::new(loaded.identities, None, &dialer, &roots, clock.clone()).unwrap();
        let environment = HashMap::from([("API_KEY".to_owned(), Zeroizing::new("k".repeat(40)))]);
        let leases = lease::Store::new(lease::Config::default(), clock.clone());
        let nonce = Nonce::from_entropy(&[7; 32]);
        let minter = leases.minter();
        minter.mint(minter.next_id(), &nonce, terms()).unwrap();
        let proxy = Proxy::new(Parts {
            audit: audit.clone(),
            leases: leases.lookup(),
            own: Arc::new(Broken),
            tls: tls_profiles(&loaded.policy, &roots).ok().unwrap(),
            policy: Arc::new(loaded.policy),
            credentials: Arc::new(Credentials::new(loaded.credentials, environment, clock.clone())),
            prover: Prover::new(Arc::new(verifier), clock),
            authority: authority.clone(),
            dialer,
            metrics: Metrics::new(),
            // Fewer than connect below: a place that a panic kept would be missed.
            limits: Limits { connections_max: 4, ..Limits::default() },
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let listeners = vec![(listener.into_std().unwrap(), Entrance::Proxy)];
        let running = tokio::spawn(proxy.run(listeners, shutdown.clone()));
        Self { address, authority, audit, audit_path, nonce, shutdown, running, _home: home, _leases: leases }
    }

    /// A tunnel to the door.
    async fn tunnel(&self, alpn: &[u8]) -> TlsStream<TcpStream> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.authority.certificate_pem().as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![alpn.to_vec()];
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let head = format!("CONNECT {0}:443 HTTP/1.1\r\nHost: {0}:443\r\n\r\n", door::HOST);
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(stream.read_u8().await.unwrap());
        }
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
        TlsConnector::from(Arc::new(config)).connect(door::HOST.try_into().unwrap(), stream).await.unwrap()
    }

    fn call(&self, nonce: &str) -> Request<Empty<Bytes>> {
        let request = Request::get(format!("https://{}{}", door::HOST, door::OWN_PATH)).header("host", door::HOST);
        request.header("authorization", format!("Bearer {nonce}")).body(Empty::new()).unwrap()
    }

    /// A call over HTTP/1.1 in a tunnel of its own; `None` where the connection ends without an answer.
    async fn over_http_1(&self, nonce: &str) -> Option<StatusCode> {
        let (mut sender, connection) = http1::handshake(TokioIo::new(self.tunnel(b"http/1.1").await)).await.unwrap();
        tokio::spawn(connection);
        let mut request = self.call(nonce);
        *request.uri_mut() = door::OWN_PATH.parse().unwrap();
        sender.send_request(request).await.ok().map(|answer| answer.status())
    }

    /// What became of exchanges, as it is on record.
    async fn endings(self) -> Vec<serde_json::Value> {
        self.shutdown.cancel();
        self.running.await.unwrap().unwrap();
        self.audit.stop("test", Duration::from_secs(5)).await;
        let text = std::fs::read_to_string(&self.audit_path).unwrap();
        let records = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        records.filter(|record| record["type"] == "end").collect()
    }
}

fn terms() -> NewLease {
    let scopes = [(ScopeName::parse("read").unwrap(), ScopeLimits { uses: None, rate: None })].into();
    NewLease {
        agent: AgentName::parse("worker").unwrap(),
        identities: Arc::new([IdentityRule::Any]),
        task: TaskName::parse("t").unwrap(),
        minter: MinterName::parse("tests").unwrap(),
        grants: vec![LeaseGrant { service: ServiceName::parse("api").unwrap(), scopes }],
        ttl: Duration::from_secs(600),
        lifetime: Duration::from_secs(600),
        max_uses: None,
        rate: None,
        minter_live_max: usize::MAX,
        budget: None,
        instance: None,
        on_behalf_of: None,
        reason: None,
        labels: BTreeMap::new(),
        lines: Vec::new(),
    }
}

#[test]
fn a_panic_in_a_tunnel_ends_it_is_counted_and_on_record_and_the_rest_is_served() {
    if !is_alone() {
        return;
    }
    guard_panics();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let told = async {
        let scene = Scene::start().await;
        let nonce = scene.nonce.as_str().to_owned();
        let other = Nonce::from_entropy(&[8; 32]).as_str().to_owned();
        let idle = scene.tunnel(b"http/1.1").await;
        for count in 1..=3 {
            assert_eq!(scene.over_http_1(&nonce).await, None, "it broke off");
            assert_eq!(panics_count(), count);
            assert_eq!(scene.over_http_1(&other).await, Some(StatusCode::UNAUTHORIZED), "others are served");
        }
        // Over HTTP/2 each exchange is a task: what else is in the tunnel goes on.
        let stream = TokioIo::new(scene.tunnel(b"h2").await);
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), stream).await.unwrap();
        tokio::spawn(connection);
        for count in 4..=6 {
            assert!(sender.send_request(scene.call(&nonce)).await.is_err(), "it broke off");
            assert_eq!(panics_count(), count);
            assert_eq!(sender.send_request(scene.call(&other)).await.unwrap().status(), StatusCode::UNAUTHORIZED);
        }
        let (mut sender, connection) = http1::handshake(TokioIo::new(idle)).await.unwrap();
        tokio::spawn(connection);
        let mut request = scene.call(&other);
        *request.uri_mut() = door::OWN_PATH.parse().unwrap();
        assert_eq!(sender.send_request(request).await.unwrap().status(), StatusCode::UNAUTHORIZED, "as an older one");
        let endings = scene.endings().await;
        let of = |ending: &str| endings.iter().filter(|record| record["ending"] == ending).count();
        assert_eq!((of("cut"), of("client_gone")), (6, 0), "{endings:#?}");
    };
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), told).await.unwrap() });
}
