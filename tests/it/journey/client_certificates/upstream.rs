//! An upstream that asks who is there, and answers each request with the name in the certificate.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::CertificateParams;
use rustls::server::WebPkiClientVerifier;
use rustls::{HandshakeKind, RootCertStore, ServerConfig, SupportedProtocolVersion};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::support::authority::TestAuthority;
use crate::support::upstream::read_head;
use crate::support::watch::Overheard;
use crate::support::websocket::{Socket, field, yes};
use crate::support::{FakeUpstream, watch};

/// What comes out of TLS is heard, too.
type Inside = Overheard<TlsStream<Overheard<TcpStream>>>;

pub const VERSIONS: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS13, &rustls::version::TLS12];
pub const ALPNS: [&[u8]; 2] = [b"http/1.1", b"h2"];

/// Who came.
#[derive(Clone)]
pub struct Visits {
    pub clients: Arc<TestAuthority>,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    /// Of each connection that asked for TLS.
    names: Vec<Option<String>>,
    kinds: Vec<HandshakeKind>,
    heads: Vec<String>,
}

/// Whether who shows nothing comes in.
#[derive(Clone, Copy, PartialEq)]
enum Door {
    Open,
    Strict,
}

/// Whether a connection takes another request.
#[derive(Clone, Copy, PartialEq)]
enum After {
    GoesOn,
    Closes,
}

impl Visits {
    pub fn new() -> Self {
        Self { clients: TestAuthority::new(), seen: Arc::default() }
    }

    /// Asks, and takes those without a certificate as well.
    pub async fn upstream(
        &self,
        names: &[&str],
        version: &'static SupportedProtocolVersion,
        alpn: &[u8],
    ) -> FakeUpstream {
        self.start(names, version, alpn, (Door::Open, After::GoesOn)).await
    }

    /// The same, with a connection for each request.
    pub async fn closing(&self, names: &[&str], version: &'static SupportedProtocolVersion) -> FakeUpstream {
        self.start(names, version, b"http/1.1", (Door::Open, After::Closes)).await
    }

    /// The name in each certificate that was shown, connection by connection.
    pub fn names(&self) -> Vec<Option<String>> {
        self.seen.lock().expect("not poisoned").names.clone()
    }

    /// Request lines and fields.
    pub fn heads(&self) -> Vec<String> {
        self.seen.lock().expect("not poisoned").heads.clone()
    }

    /// How many were resumed, or were not.
    pub fn handshakes(&self, is_resumed: bool) -> usize {
        let seen = self.seen.lock().expect("not poisoned");
        seen.kinds.iter().filter(|kind| (**kind == HandshakeKind::Resumed) == is_resumed).count()
    }

    async fn start(
        &self,
        names: &[&str],
        version: &'static SupportedProtocolVersion,
        alpn: &[u8],
        (door, after): (Door, After),
    ) -> FakeUpstream {
        let authority = TestAuthority::new();
        let acceptor = TlsAcceptor::from(Arc::new(self.config(&authority, names, (version, alpn), door)));
        let visits = self.clone();
        let mut upstream = FakeUpstream::wired(move |stream| {
            let (acceptor, visits) = (acceptor.clone(), visits.clone());
            async move {
                let heard = stream.heard();
                let Ok(stream) = acceptor.accept(stream).await else {
                    return visits.seen.lock().expect("not poisoned").names.push(None);
                };
                visits.serve(Overheard::new(stream, &heard), after).await;
            }
        })
        .await;
        upstream.authority = authority;
        upstream
    }

    fn config(
        &self,
        authority: &TestAuthority,
        names: &[&str],
        (version, alpn): (&'static SupportedProtocolVersion, &[u8]),
        door: Door,
    ) -> ServerConfig {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(self.clients.der()).expect("a root");
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
        let verifier = if door == Door::Open { verifier.allow_unauthenticated() } else { verifier };
        let (chain, key) = authority.leaf(names, |_| {});
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .expect("a version")
            .with_client_cert_verifier(verifier.build().expect("a verifier"))
            .with_single_cert(chain, key)
            .expect("a certificate");
        config.alpn_protocols = vec![alpn.to_vec()];
        config
    }

    async fn serve(&self, mut stream: Inside, after: After) {
        let connection = stream.get_ref().1;
        let leaf = connection.peer_certificates().and_then(<[_]>::first);
        let name = leaf.map(|leaf| common_name(leaf));
        let is_h2 = connection.alpn_protocol() == Some(b"h2");
        {
            let mut seen = self.seen.lock().expect("not poisoned");
            seen.kinds.push(connection.handshake_kind().expect("a handshake"));
            seen.names.push(name.clone());
        }
        let name = name.unwrap_or_else(|| "nobody".to_owned());
        if is_h2 {
            let service = service_fn(move |request| self.clone().answer_h2(request, name.clone()));
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            drop(server.serve_connection(TokioIo::new(stream), service).await);
            return;
        }
        loop {
            let head = read_head(&mut stream).await;
            if head.is_empty() {
                return;
            }
            self.seen.lock().expect("not poisoned").heads.push(head.clone());
            if field(&head, "upgrade").is_some() {
                return echo(stream, &head).await;
            }
            let connection = if after == After::Closes { "close" } else { "keep-alive" };
            let length = name.len();
            let answer =
                format!("HTTP/1.1 200 OK\r\nconnection: {connection}\r\ncontent-length: {length}\r\n\r\n{name}");
            if stream.write_all(answer.as_bytes()).await.is_err() || after == After::Closes {
                let _ = stream.shutdown().await;
                return;
            }
        }
    }

    async fn answer_h2(self, request: Request<Incoming>, name: String) -> Result<Response<Full<Bytes>>, hyper::Error> {
        let target = request.uri().path_and_query().map_or("", |target| target.as_str());
        let head = format!("{} {target} {:?}", request.method(), request.headers());
        self.seen.lock().expect("not poisoned").heads.push(head);
        Ok(Response::new(Full::from(name)))
    }
}

/// Nobody comes in without a certificate.
pub async fn strict(visits: &Visits, names: &[&str], version: &'static SupportedProtocolVersion) -> FakeUpstream {
    visits.start(names, version, b"http/1.1", (Door::Strict, After::GoesOn)).await
}

/// What is said comes back.
async fn echo(mut stream: Inside, head: &str) {
    stream.write_all(yes(head, "").as_bytes()).await.expect("writable");
    let mut socket = Socket::server(Box::new(stream));
    while let Some((opcode, text)) = socket.hear().await {
        socket.say(opcode, &text).await;
    }
}

fn common_name(der: &[u8]) -> String {
    let (_, certificate) = X509Certificate::from_der(der).expect("a certificate");
    let name = certificate.subject().iter_common_name().next().expect("a name");
    name.as_str().expect("text").to_owned()
}

/// A certificate of this name and its key, PEM; the key is looked for in all that anybody gets to see.
pub fn pair(authority: &TestAuthority, name: &str, edit: impl FnOnce(&mut CertificateParams)) -> (String, String) {
    let (chain, key) = authority.leaf(&[], |params| {
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        edit(params);
    });
    let key = pem("PRIVATE KEY", key.secret_der());
    // The second line: the first is the same for all keys of a kind.
    watch::guard(key.lines().nth(2).expect("a line"));
    (pem("CERTIFICATE", &chain[0]), key)
}

fn pem(label: &str, der: &[u8]) -> String {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).expect("text")).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}
