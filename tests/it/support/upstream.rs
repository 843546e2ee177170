//! A TLS server that plays an API: it records what it received, and answers as the path asks.

mod answers;
mod seen;

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

pub use answers::{Body, PIECE, gzip};
pub use seen::{Recorder, Seen};

use super::authority::TestAuthority;
use super::watch::Overheard;
use super::websocket::Wire;

/// A fake upstream on loopback.
pub struct FakeUpstream {
    pub address: SocketAddr,
    pub authority: Arc<TestAuthority>,
    recorder: Recorder,
    connections: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for FakeUpstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl FakeUpstream {
    /// HTTP/2 and HTTP/1.1 for these names.
    pub async fn start(names: &[&str]) -> Self {
        Self::start_with(names, &[b"h2", b"http/1.1"]).await
    }

    /// With a choice of ALPN protocols.
    pub async fn start_with(names: &[&str], alpn: &[&[u8]]) -> Self {
        let authority = TestAuthority::new();
        let config = authority.server(names, alpn);
        Self::start_tls(authority, config).await
    }

    /// With a TLS configuration of its own.
    pub async fn start_tls(authority: Arc<TestAuthority>, config: rustls::ServerConfig) -> Self {
        Self::start_tls_on(TcpListener::bind("127.0.0.1:0").await.expect("a port"), authority, config)
    }

    /// Both protocols, on a listener that may be in another network namespace.
    pub fn start_on(listener: TcpListener, names: &[&str]) -> Self {
        let authority = TestAuthority::new();
        let config = authority.server(names, &[b"h2", b"http/1.1"]);
        Self::start_tls_on(listener, authority, config)
    }

    /// HTTP/1.1 in clear text, on a listener that may be in another network namespace.
    pub fn plain_on(listener: TcpListener) -> Self {
        Self::accept_on(listener, TestAuthority::new(), |stream, number, recorder| {
            serve(stream, false, number, recorder.seen)
        })
    }

    fn start_tls_on(listener: TcpListener, authority: Arc<TestAuthority>, config: rustls::ServerConfig) -> Self {
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Self::accept_on(listener, authority, move |stream, number, recorder| {
            let acceptor = acceptor.clone();
            async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                    serve(stream, is_h2, number, recorder.seen).await;
                }
            }
        })
    }

    /// HTTP/1.1 in clear text.
    pub async fn plain() -> Self {
        Self::accept(TestAuthority::new(), |stream, number, recorder| serve(stream, false, number, recorder.seen)).await
    }

    /// A server that accepts and says nothing.
    pub async fn deaf() -> Self {
        Self::accept(TestAuthority::new(), |stream, _, _| async move {
            std::future::pending::<()>().await;
            drop(stream);
        })
        .await
    }

    /// A server whose connections are `play`'s from their first byte on, before any TLS.
    pub async fn wired<F>(play: impl Fn(Overheard<TcpStream>) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::accept(TestAuthority::new(), move |stream, _, recorder| play(Overheard::new(stream, &recorder.heard)))
            .await
    }

    /// A server that speaks bytes: each connection's first request head is read, then `answer` is written and the
    /// connection closed.
    pub async fn raw(names: &[&str], answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::speaking(names, 1, answer).await
    }

    /// As [`FakeUpstream::raw`], but each connection goes on with the next head.
    pub async fn raw_kept(names: &[&str], answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::speaking(names, usize::MAX, answer).await
    }

    /// A server over HTTP/1.1 whose connections are `speak`'s, from the end of the first request head on.
    pub async fn speaking_freely<F>(
        names: &[&str],
        speak: impl Fn(String, Box<dyn Wire>) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let authority = TestAuthority::new();
        let acceptor = TlsAcceptor::from(Arc::new(authority.server(names, &[b"http/1.1"])));
        let speak = Arc::new(speak);
        Self::accept(authority, move |stream, number, recorder| {
            let (acceptor, speak) = (acceptor.clone(), speak.clone());
            async move {
                let mut first = [0];
                let is_tls = stream.peek(&mut first).await.is_ok() && first[0] == 0x16;
                let mut wire: Box<dyn Wire> = if is_tls {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    Box::new(Overheard::new(stream, &recorder.heard))
                } else {
                    Box::new(Overheard::new(stream, &recorder.heard))
                };
                let head = read_head(&mut wire).await;
                recorder.note(Seen::of_head(number, &head));
                speak(head, wire).await;
            }
        })
        .await
    }

    async fn speaking(names: &[&str], heads: usize, answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let authority = TestAuthority::new();
        let acceptor = TlsAcceptor::from(Arc::new(authority.server(names, &[b"http/1.1"])));
        let answer = Arc::new(answer);
        Self::accept(authority, move |stream, number, recorder| {
            let (acceptor, answer) = (acceptor.clone(), answer.clone());
            async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                for _ in 0..heads {
                    let head = read_head(&mut stream).await;
                    if head.is_empty() {
                        return;
                    }
                    recorder.note(Seen::of_head(number, &head));
                    if stream.write_all(&answer(&head)).await.is_err() {
                        return;
                    }
                    let _ = stream.flush().await;
                }
                let _ = stream.shutdown().await;
            }
        })
        .await
    }

    /// A server each of whose connections is played by hand.
    pub async fn played<F>(
        names: &[&str],
        alpn: &[u8],
        play: impl Fn(Overheard<TlsStream<TcpStream>>, u64) -> F + Send + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let authority = TestAuthority::new();
        let acceptor = TlsAcceptor::from(Arc::new(authority.server(names, &[alpn])));
        let play = Arc::new(std::sync::Mutex::new(play));
        Self::accept(authority, move |stream, number, recorder| {
            let (acceptor, play) = (acceptor.clone(), play.clone());
            async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let stream = Overheard::new(stream, &recorder.heard);
                let playing = play.lock().expect("not poisoned")(stream, number);
                playing.await;
            }
        })
        .await
    }

    async fn accept<F, S>(authority: Arc<TestAuthority>, serve: S) -> Self
    where
        S: Fn(TcpStream, u64, Recorder) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        Self::accept_on(TcpListener::bind("127.0.0.1:0").await.expect("a port"), authority, serve)
    }

    fn accept_on<F, S>(listener: TcpListener, authority: Arc<TestAuthority>, serve: S) -> Self
    where
        S: Fn(TcpStream, u64, Recorder) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let address = listener.local_addr().expect("an address");
        let recorder = Recorder::default();
        let connections = Arc::new(AtomicU64::new(0));
        let task = tokio::spawn({
            let (recorder, connections) = (recorder.clone(), connections.clone());
            async move {
                // Connections end with the upstream.
                let mut open = tokio::task::JoinSet::new();
                while let Ok((stream, _)) = listener.accept().await {
                    let _ = stream.set_nodelay(true);
                    let number = connections.fetch_add(1, Ordering::SeqCst) + 1;
                    open.spawn(serve(stream, number, recorder.clone()));
                }
            }
        });
        Self { address, authority, recorder, connections, task }
    }

    /// Where it notes what arrives.
    pub fn recorder(&self) -> Recorder {
        self.recorder.clone()
    }

    /// Everything that arrived so far; nothing with two hosts ever does.
    pub fn seen(&self) -> Vec<Seen> {
        let seen = self.recorder.seen.lock().expect("not poisoned").clone();
        for one in &seen {
            assert!(one.headers.get_all(http::header::HOST).iter().count() <= 1, "two hosts: {one:#?}");
        }
        seen
    }

    /// Forgets what arrived, in a test that goes on for long.
    #[allow(dead_code, reason = "for the faults, which share this support")]
    pub fn forget(&self) {
        self.recorder.seen.lock().expect("not poisoned").clear();
        self.recorder.heard.forget();
    }

    /// The one request that arrived.
    pub fn only(&self) -> Seen {
        let seen = self.seen();
        assert_eq!(seen.len(), 1, "exactly one request should have arrived: {seen:#?}");
        seen[0].clone()
    }

    /// TCP connections so far.
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::SeqCst)
    }
}

/// Reads up to the end of an HTTP/1.1 head.
pub async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && head.len() < 64 * 1024 {
        if stream.read_exact(&mut byte).await.is_err() {
            break;
        }
        head.push(byte[0]);
    }
    String::from_utf8_lossy(&head).into_owned()
}

async fn serve<S>(stream: S, is_h2: bool, number: u64, seen: Arc<Mutex<Vec<Seen>>>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let io = TokioIo::new(stream);
    let service = service_fn(move |request| {
        let seen = seen.clone();
        async move { Ok::<_, Infallible>(answer(request, number, &seen).await) }
    });
    if is_h2 {
        let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(io, service).await;
    } else {
        let _ =
            hyper::server::conn::http1::Builder::new().preserve_header_case(true).serve_connection(io, service).await;
    }
}

async fn answer(request: Request<Incoming>, connection: u64, seen: &Mutex<Vec<Seen>>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let target = head.uri.path_and_query().map_or_else(String::new, ToString::to_string);
    let path = head.uri.path().to_owned();
    let record = Seen {
        connection,
        version: head.version,
        method: head.method.to_string(),
        target: target.clone(),
        headers: head.headers.clone(),
        body: Bytes::new(),
        trailers: None,
    };
    let at = {
        let mut seen = seen.lock().expect("not poisoned");
        seen.push(record);
        seen.len() - 1
    };
    if path == "/early" {
        return answers::text(StatusCode::PAYLOAD_TOO_LARGE, "too much");
    }
    if path == "/sink" {
        return answers::text(StatusCode::OK, &count(body).await.to_string());
    }
    let (trailers, body) = match body.collect().await {
        Ok(whole) => (whole.trailers().cloned(), whole.to_bytes()),
        Err(_) => (None, Bytes::new()),
    };
    {
        let mut seen = seen.lock().expect("not poisoned");
        // Unless it was forgotten meanwhile.
        if let Some(record) = seen.get_mut(at) {
            (record.body, record.trailers) = (body.clone(), trailers);
        }
    }
    let auth = answers::credential(&head.headers, &target);
    let response = answers::respond(&path, &target, &head.headers, &auth, body).await;
    if head.method == http::Method::HEAD { answers::without_body(response) } else { response }
}

/// The bytes of a body, none of which is kept.
async fn count(mut body: Incoming) -> usize {
    let mut count = 0;
    while let Some(Ok(frame)) = body.frame().await {
        count += frame.data_ref().map_or(0, Bytes::len);
    }
    count
}
