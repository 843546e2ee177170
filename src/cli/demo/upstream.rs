//! A TLS server on loopback that plays three APIs under their own names, with a CA of its own.
//!
//! - `apis`: what each of them answers
//! - `tls`: the throw-away CA and the certificate
//!
//! It wants the real credential, as the real ones do, and remembers everything that arrives.

mod apis;
mod tls;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::canary::Canaries;
use super::trouble::{Context, Trouble};
pub(super) use apis::{ECHO_HEADER, GITHUB, INTERNAL, STRIPE};

/// A request body in bytes at most.
const BODY_BYTES_MAX: usize = 1024 * 1024;
/// Requests that are remembered at most; the play itself makes fewer than thirty.
const RECEIVED_MAX: usize = 10_000;

/// A request as it arrived.
#[derive(Debug, Clone, Default)]
pub(super) struct Received {
    pub(super) host: String,
    pub(super) method: String,
    /// Path and query.
    pub(super) target: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// The body of the answer before any encoding of the transport, where it has an end.
    pub(super) answered: Bytes,
}

impl Received {
    /// A header's value, empty if it is not there.
    pub(super) fn header(&self, name: &str) -> String {
        let value = self.headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        value.unwrap_or_default()
    }

    /// All of it, for looking for what must not be there.
    pub(super) fn everything(&self) -> Vec<u8> {
        let mut all = format!("{} {} {}\n", self.method, self.host, self.target).into_bytes();
        for (name, value) in &self.headers {
            all.extend_from_slice(&[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\n"].concat());
        }
        all.extend_from_slice(&self.body);
        all
    }
}

/// The server; it ends when dropped.
pub(super) struct Upstream {
    pub(super) address: SocketAddr,
    /// The certificate of its CA, PEM.
    pub(super) ca_pem: String,
    received: Arc<Mutex<Vec<Received>>>,
    task: JoinHandle<()>,
}

impl Upstream {
    /// Listens on a free port of loopback.
    pub(super) async fn start(canaries: Canaries) -> Result<Self, Trouble> {
        let tls::Server { config, ca_pem } = tls::Server::new(&apis::HOSTS)?;
        let listener = TcpListener::bind("127.0.0.1:0").await.context("the upstream cannot listen on loopback")?;
        let address = listener.local_addr()?;
        let apis = Apis { received: Arc::default(), canaries: Arc::new(canaries) };
        let received = apis.received.clone();
        let task = tokio::spawn(accept(listener, TlsAcceptor::from(Arc::new(config)), apis));
        Ok(Self { address, ca_pem, received, task })
    }

    /// For each of its names the flag that sends it here.
    pub(super) fn connect_to(&self) -> Vec<String> {
        apis::HOSTS.iter().map(|host| format!("{host}:443:{}", self.address)).collect()
    }

    /// Everything that arrived so far.
    pub(super) fn received(&self) -> Vec<Received> {
        self.received.lock().clone()
    }

    /// What arrived after the first `count`.
    pub(super) fn received_after(&self, count: usize) -> Vec<Received> {
        self.received.lock().iter().skip(count).cloned().collect()
    }

    /// How many requests arrived so far.
    pub(super) fn received_count(&self) -> usize {
        self.received.lock().len()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What all connections share.
#[derive(Clone)]
struct Apis {
    received: Arc<Mutex<Vec<Received>>>,
    canaries: Arc<Canaries>,
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, apis: Apis) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        tokio::spawn(serve(stream, acceptor.clone(), apis.clone()));
    }
}

async fn serve(stream: TcpStream, acceptor: TlsAcceptor, apis: Apis) {
    let _ = stream.set_nodelay(true);
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let service = service_fn(move |request| {
        let apis = apis.clone();
        async move { Ok::<_, Infallible>(apis.answer(request).await) }
    });
    // How a connection ends is the sidecar's business.
    let io = TokioIo::new(stream);
    if is_h2 {
        let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(io, service).await;
    } else {
        let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
    }
}

impl Apis {
    async fn answer(&self, request: Request<Incoming>) -> Response<apis::Body> {
        let (head, body) = request.into_parts();
        let body = Limited::new(body, BODY_BYTES_MAX).collect().await.map(http_body_util::Collected::to_bytes);
        let host = head.uri.authority().map(ToString::to_string);
        let mut received = Received {
            method: head.method.to_string(),
            target: head.uri.path_and_query().map_or_else(String::new, ToString::to_string),
            headers: head.headers,
            body: body.unwrap_or_default(),
            ..Received::default()
        };
        received.host = host.unwrap_or_else(|| received.header("host"));
        let answer = apis::answer(&received, head.uri.path(), &self.canaries);
        received.answered = answer.plain.clone();
        let mut all = self.received.lock();
        if all.len() < RECEIVED_MAX {
            all.push(received);
        }
        answer.into_response()
    }
}
