//! Whoever presents a nonce: CONNECT, TLS and HTTP as real clients speak them, and raw bytes as attackers do.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::watch::{Heard, Overheard};
use super::wire::read_answers;

/// Longest that a test waits for one answer.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// An agent behind a sidecar.
#[derive(Clone)]
pub struct Agent {
    proxy: SocketAddr,
    roots: RootCertStore,
    /// What it says in `Proxy-Authorization` with each `CONNECT`.
    proxy_authorization: Option<String>,
    heard: Heard,
}

/// An agent's end of a tunnel.
pub type Listening = Overheard<TlsStream<TcpStream>>;

/// A whole answer.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub reason: Option<String>,
    pub headers: HeaderMap,
    pub trailers: Option<HeaderMap>,
    pub body: Bytes,
}

impl Reply {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("JSON expected: {}", self.text()))
    }

    /// The refusal's code, if the sidecar refused.
    pub fn refusal(&self) -> Option<&str> {
        self.headers.get("valetkey-error").map(|value| value.to_str().expect("text"))
    }

    /// Everything that the agent got to see, for looking for what must not be there.
    pub fn everything(&self) -> Vec<u8> {
        let mut all = format!("{} {:?}\n", self.status, self.reason).into_bytes();
        for (name, value) in self.headers.iter().chain(self.trailers.iter().flatten()) {
            all.extend_from_slice(name.as_str().as_bytes());
            all.extend_from_slice(b": ");
            all.extend_from_slice(value.as_bytes());
            all.push(b'\n');
        }
        all.extend_from_slice(&self.body);
        all
    }
}

/// An open tunnel with HTTP/1.1 or HTTP/2 in it.
pub struct Tunnel {
    sender: Sender,
    heard: Heard,
}

enum Sender {
    H1(hyper::client::conn::http1::SendRequest<Full<Bytes>>),
    H2(hyper::client::conn::http2::SendRequest<Full<Bytes>>),
}

/// `GET` with a bearer.
pub fn get(host: &str, path: &str, nonce: &str) -> Request<Full<Bytes>> {
    with("GET", host, path, &[("authorization", &format!("Bearer {nonce}"))], "")
}

/// Any request.
pub fn with(method: &str, host: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Request<Full<Bytes>> {
    let mut request = Request::builder().method(method).uri(format!("https://{host}{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Full::new(Bytes::copy_from_slice(body.as_bytes()))).expect("a request")
}

impl Agent {
    pub fn new(proxy: SocketAddr, ca_pem: &str) -> Self {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
            roots.add(certificate.expect("a certificate")).expect("a root");
        }
        Self { proxy, roots, proxy_authorization: None, heard: Heard::default() }
    }

    /// The same agent, all that it receives being heard.
    pub fn heard_by(self, heard: &Heard) -> Self {
        Self { heard: heard.clone(), ..self }
    }

    /// The same agent at another proxy.
    pub fn at(&self, proxy: SocketAddr) -> Self {
        Self { proxy, ..self.clone() }
    }

    /// The same agent with `http://USER:PASSWORD@…` as its proxy; given are both, with the colon.
    pub fn vouched(&self, pair: &str) -> Self {
        Self { proxy_authorization: Some(format!("Basic {}", STANDARD.encode(pair))), ..self.clone() }
    }

    /// The same agent with this in `Proxy-Authorization`.
    pub fn saying(&self, field: &str) -> Self {
        Self { proxy_authorization: Some(field.to_owned()), ..self.clone() }
    }

    /// A TCP connection to the proxy.
    pub async fn tcp(&self) -> TcpStream {
        let stream = TcpStream::connect(self.proxy).await.expect("the proxy");
        stream.set_nodelay(true).expect("an option");
        stream
    }

    /// Sends bytes to the proxy's port and reads one whole answer, or until it closes.
    pub async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = self.tcp().await;
        stream.write_all(bytes).await.expect("writable");
        let answer = read_answers(&mut stream, 1, PATIENCE).await;
        self.heard.hear(answer.as_bytes());
        answer
    }

    /// CONNECT; the head of the answer and the socket.
    pub async fn connect(&self, authority: &str) -> (String, TcpStream) {
        let field = self.proxy_authorization.as_ref();
        let field = field.map_or_else(String::new, |value| format!("Proxy-Authorization: {value}\r\n"));
        let head = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n{field}\r\n");
        self.connect_with(head.as_bytes()).await
    }

    /// CONNECT in these bytes.
    pub async fn connect_with(&self, head: &[u8]) -> (String, TcpStream) {
        let mut stream = self.tcp().await;
        stream.write_all(head).await.expect("writable");
        let mut answer = Vec::new();
        let mut byte = [0];
        while !answer.ends_with(b"\r\n\r\n") {
            match tokio::time::timeout(PATIENCE, stream.read(&mut byte)).await.expect("an answer in time") {
                Ok(1) => answer.push(byte[0]),
                _ => break,
            }
        }
        self.heard.hear(&answer);
        (String::from_utf8_lossy(&answer).into_owned(), stream)
    }

    /// A client configuration that trusts the sidecar's CA.
    pub fn tls(&self, alpn: &[&[u8]]) -> ClientConfig {
        self.tls_of(rustls::DEFAULT_VERSIONS, alpn)
    }

    /// The same, in these versions of TLS.
    pub fn tls_of(&self, versions: &[&'static SupportedProtocolVersion], alpn: &[&[u8]]) -> ClientConfig {
        let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(versions)
            .expect("versions")
            .with_root_certificates(self.roots.clone())
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        config
    }

    /// CONNECT and TLS to `host:443`, with an SNI of its own.
    pub async fn tls_tunnel(&self, host: &str, sni: &str, alpn: &[&[u8]]) -> io::Result<Listening> {
        self.tls_tunnel_with(host, sni, &Arc::new(self.tls(alpn))).await
    }

    /// The same with a configuration, which remembers its sessions.
    pub async fn tls_tunnel_with(&self, host: &str, sni: &str, config: &Arc<ClientConfig>) -> io::Result<Listening> {
        let (answer, stream) = self.connect(&format!("{host}:443")).await;
        assert!(answer.contains(" 200 "), "CONNECT was refused: {answer}");
        let name = ServerName::try_from(sni.to_owned()).expect("a name");
        let stream = TlsConnector::from(config.clone()).connect(name, stream).await?;
        Ok(Overheard::new(stream, &self.heard))
    }

    /// A tunnel with HTTP/1.1 in it.
    pub async fn tunnel(&self, host: &str) -> Tunnel {
        let stream = self.tls_tunnel(host, host, &[b"http/1.1"]).await.expect("TLS");
        let (sender, connection) = hyper::client::conn::http1::Builder::new()
            .preserve_header_case(true)
            .handshake(TokioIo::new(stream))
            .await
            .expect("HTTP/1.1");
        tokio::spawn(connection.with_upgrades());
        Tunnel { sender: Sender::H1(sender), heard: self.heard.clone() }
    }

    /// A tunnel with HTTP/2 in it.
    pub async fn tunnel_h2(&self, host: &str) -> Tunnel {
        let stream = self.tls_tunnel(host, host, &[b"h2"]).await.expect("TLS");
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
            .handshake(TokioIo::new(stream))
            .await
            .expect("HTTP/2");
        tokio::spawn(connection);
        Tunnel { sender: Sender::H2(sender), heard: self.heard.clone() }
    }

    /// HTTP/2 in a tunnel, frame by frame.
    pub async fn frames(&self, host: &str) -> h2::client::SendRequest<Bytes> {
        let stream = self.tls_tunnel(host, host, &[b"h2"]).await.expect("TLS");
        let (sender, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
        tokio::spawn(connection);
        sender.ready().await.expect("an open connection")
    }

    /// One request in a tunnel of its own, HTTP/1.1.
    pub async fn send(&self, request: Request<Full<Bytes>>) -> Reply {
        let host = request.uri().host().expect("a host").to_owned();
        self.tunnel(&host).await.send(request).await
    }

    /// One request in a tunnel of its own, HTTP/2.
    pub async fn send_h2(&self, request: Request<Full<Bytes>>) -> Reply {
        let host = request.uri().host().expect("a host").to_owned();
        self.tunnel_h2(&host).await.send(request).await
    }

    /// `GET` with a bearer, HTTP/1.1.
    pub async fn get(&self, host: &str, path: &str, nonce: &str) -> Reply {
        self.send(get(host, path, nonce)).await
    }

    /// Raw bytes inside a tunnel; one whole answer, or everything until it closes.
    pub async fn raw_inside(&self, host: &str, bytes: &[u8]) -> String {
        self.pipelined(host, bytes, 1).await
    }

    /// Raw bytes inside a tunnel; so many whole answers, or everything until it closes.
    pub async fn pipelined(&self, host: &str, bytes: &[u8], wanted: usize) -> String {
        let mut stream = self.tls_tunnel(host, host, &[b"http/1.1"]).await.expect("TLS");
        stream.write_all(bytes).await.expect("writable");
        read_answers(&mut stream, wanted, PATIENCE).await
    }
}

impl Tunnel {
    /// Sends a request and waits for the head of its answer.
    pub async fn start(&mut self, request: Request<Full<Bytes>>) -> Response<Incoming> {
        self.try_start(request).await.expect("an answer")
    }

    /// Sends a request; the head of its answer, if there is one.
    pub async fn try_start(&mut self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, hyper::Error> {
        let sending = async {
            match &mut self.sender {
                Sender::H1(sender) => {
                    sender.ready().await.expect("an open tunnel");
                    let (mut head, body) = request.into_parts();
                    let host = head.uri.authority().expect("a host").to_string();
                    if !head.headers.contains_key("host") {
                        head.headers.insert("host", host.parse().expect("a value"));
                    }
                    head.uri = head.uri.path_and_query().expect("a path").as_str().parse().expect("a path");
                    sender.send_request(Request::from_parts(head, body)).await
                }
                Sender::H2(sender) => {
                    sender.ready().await.expect("an open tunnel");
                    sender.send_request(request).await
                }
            }
        };
        let mut response = tokio::time::timeout(PATIENCE, sending).await.expect("an answer in time")?;
        self.heard.hear(format!("{:?}", response.headers()).as_bytes());
        response.extensions_mut().insert(self.heard.clone());
        Ok(response)
    }

    /// Sends a request and reads its whole answer.
    pub async fn send(&mut self, request: Request<Full<Bytes>>) -> Reply {
        let response = self.start(request).await;
        tokio::time::timeout(PATIENCE, read(response)).await.expect("a whole answer in time").expect("a whole answer")
    }
}

/// Reads an answer until it ends or breaks; true if it broke.
pub async fn breaks(mut response: Response<Incoming>) -> bool {
    let reading = async {
        while let Some(frame) = response.body_mut().frame().await {
            // After an error there may be no end.
            if frame.is_err() {
                return true;
            }
        }
        false
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("an end in time")
}

/// Reads an answer to its end.
pub async fn read(response: Response<Incoming>) -> Result<Reply, hyper::Error> {
    let (head, body) = response.into_parts();
    let reason = head.extensions.get::<hyper::ext::ReasonPhrase>();
    let reason = reason.map(|reason| String::from_utf8_lossy(reason.as_bytes()).into_owned());
    let collected = body.collect().await?;
    let trailers = collected.trailers().cloned();
    let body = collected.to_bytes();
    let reply = Reply { status: head.status, reason, headers: head.headers, trailers, body };
    if let Some(heard) = head.extensions.get::<Heard>() {
        heard.hear(&reply.everything());
    }
    Ok(reply)
}
