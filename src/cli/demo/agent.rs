//! The agent: CONNECT, TLS and HTTP over real sockets, trusting the sidecar's CA and nothing else.
//!
//! `reply`: what it gets to see.

mod reply;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::trouble::{Context, Trouble};
use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

pub(super) use reply::Reply;

/// Longest that the agent waits for anything.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// The head of an answer to CONNECT in bytes at most.
const CONNECT_HEAD_BYTES_MAX: usize = 16 * 1024;

/// Waits for `step`, and not longer than [`PATIENCE`].
pub(super) async fn in_time<T>(what: &str, step: impl Future<Output = T>) -> Result<T, Trouble> {
    tokio::time::timeout(PATIENCE, step).await.context(&format!("{what} took longer than {PATIENCE:?}"))
}

/// What is spoken inside a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1,
    Http2,
}

impl Protocol {
    fn alpn(self) -> &'static [u8] {
        match self {
            Self::Http1 => b"http/1.1",
            Self::Http2 => b"h2",
        }
    }
}

/// A request before it is sent.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) method: &'static str,
    pub(super) host: &'static str,
    pub(super) path: &'static str,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: &'static str,
}

impl Call {
    /// A `GET` with one header.
    pub(super) fn get(host: &'static str, path: &'static str, header: (&'static str, String)) -> Self {
        Self { method: "GET", host, path, headers: vec![header], body: "" }
    }

    /// As one would say it.
    pub(super) fn line(&self) -> String {
        format!("{} https://{}{}", self.method, self.host, self.path)
    }

    fn into_request(self) -> Result<Request<Full<Bytes>>, Trouble> {
        let mut request = Request::builder().method(self.method).uri(format!("https://{}{}", self.host, self.path));
        for (name, value) in self.headers {
            request = request.header(name, value);
        }
        Ok(request.body(Full::new(Bytes::from_static(self.body.as_bytes())))?)
    }
}

/// An agent behind the sidecar.
pub(super) struct Agent {
    proxy: SocketAddr,
    roots: RootCertStore,
    answers: Answers,
}

/// Everything that the agent ever got to see.
pub(super) type Answers = Arc<Mutex<Vec<u8>>>;

/// An open tunnel to one host.
pub(super) struct Tunnel {
    sender: Sender,
    answers: Answers,
}

enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Agent {
    /// An agent that goes through `proxy` and trusts this CA alone.
    pub(super) fn new(proxy: SocketAddr, ca_pem: &str) -> Result<Self, Trouble> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
            roots.add(certificate?)?;
        }
        if roots.is_empty() {
            return Err("the sidecar published no CA".into());
        }
        Ok(Self { proxy, roots, answers: Answers::default() })
    }

    /// Everything that it got to see so far.
    pub(super) fn answers(&self) -> Vec<u8> {
        self.answers.lock().clone()
    }

    /// One request in a tunnel of its own.
    pub(super) async fn call(&self, call: Call, protocol: Protocol) -> Result<Reply, Trouble> {
        self.tunnel(call.host, protocol).await?.call(call).await
    }

    /// CONNECT, TLS, and the handshake of HTTP.
    pub(super) async fn tunnel(&self, host: &'static str, protocol: Protocol) -> Result<Tunnel, Trouble> {
        let sender = in_time("opening a tunnel", self.open(host, protocol)).await??;
        Ok(Tunnel { sender, answers: self.answers.clone() })
    }

    async fn open(&self, host: &'static str, protocol: Protocol) -> Result<Sender, Trouble> {
        let stream = self.connect(host).await?;
        let connector = TlsConnector::from(Arc::new(self.tls(protocol)?));
        let stream = connector.connect(ServerName::try_from(host)?, stream).await.context("TLS with the sidecar")?;
        let chosen = stream.get_ref().1.alpn_protocol().unwrap_or_default();
        if chosen != protocol.alpn() {
            return Err(format!("the sidecar chose {:?}", String::from_utf8_lossy(chosen)).into());
        }
        let io = TokioIo::new(stream);
        match protocol {
            Protocol::Http1 => {
                let (sender, connection) = http1::handshake(io).await?;
                tokio::spawn(connection);
                Ok(Sender::Http1(sender))
            }
            Protocol::Http2 => {
                let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
                tokio::spawn(connection);
                Ok(Sender::Http2(sender))
            }
        }
    }

    async fn connect(&self, host: &str) -> Result<TcpStream, Trouble> {
        let mut stream = TcpStream::connect(self.proxy).await.context("connecting to the sidecar")?;
        stream.set_nodelay(true)?;
        stream.write_all(format!("CONNECT {host}:443 HTTP/1.1\r\nHost: {host}:443\r\n\r\n").as_bytes()).await?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            if head.len() >= CONNECT_HEAD_BYTES_MAX {
                return Err("the answer to CONNECT has no end".into());
            }
            // What follows the head belongs to TLS, so that it is read byte by byte.
            head.push(stream.read_u8().await.context("the answer to CONNECT")?);
        }
        let line = String::from_utf8_lossy(head.split(|&byte| byte == b'\r').next().unwrap_or_default()).into_owned();
        if line.split(' ').nth(1) != Some("200") {
            return Err(format!("CONNECT was answered {line:?}").into());
        }
        Ok(stream)
    }

    fn tls(&self, protocol: Protocol) -> Result<ClientConfig, Trouble> {
        let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(self.roots.clone())
            .with_no_client_auth();
        config.alpn_protocols = vec![protocol.alpn().to_vec()];
        Ok(config)
    }
}

impl Tunnel {
    /// Sends a request and reads its whole answer.
    pub(super) async fn call(&mut self, call: Call) -> Result<Reply, Trouble> {
        let response = self.start(call).await?;
        let reply = in_time("reading an answer", Reply::read(response)).await??;
        self.answers.lock().extend_from_slice(&reply.everything());
        Ok(reply)
    }

    /// Sends a request and waits for the head of its answer; its body is not among the answers.
    pub(super) async fn start(&mut self, call: Call) -> Result<Response<Incoming>, Trouble> {
        let request = call.into_request()?;
        let sent = async {
            match &mut self.sender {
                Sender::Http1(sender) => {
                    sender.ready().await?;
                    sender.send_request(in_origin_form(request)?).await
                }
                Sender::Http2(sender) => {
                    sender.ready().await?;
                    sender.send_request(request).await
                }
            }
            .map_err(Trouble::from)
        };
        in_time("waiting for an answer", sent).await?.context("the tunnel broke")
    }
}

/// As HTTP/1.1 wants it: the path in the request line, the host in its header.
fn in_origin_form(mut request: Request<Full<Bytes>>) -> Result<Request<Full<Bytes>>, Trouble> {
    let host = request.uri().authority().context("a host")?.as_str().parse()?;
    let path = request.uri().path_and_query().context("a path")?.as_str().parse::<Uri>()?;
    request.headers_mut().insert(http::header::HOST, host);
    *request.uri_mut() = path;
    Ok(request)
}
