//! A TLS server that plays an API: it records what it received, and answers as the path asks.

use std::convert::Infallible;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::authority::TestAuthority;

/// One request as it arrived.
#[derive(Debug, Clone)]
pub struct Seen {
    pub connection: u64,
    pub version: Version,
    pub method: String,
    /// Path and query.
    pub target: String,
    pub authority: Option<String>,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Seen {
    /// A header's value as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("text"))
    }
}

/// A fake upstream on loopback.
pub struct FakeUpstream {
    pub address: SocketAddr,
    pub authority: Arc<TestAuthority>,
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for FakeUpstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type Body = UnsyncBoxBody<Bytes, std::io::Error>;

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
        let (listener, address) = listen().await;
        let seen = Arc::new(Mutex::new(Vec::new()));
        let connections = Arc::new(AtomicU64::new(0));
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let task = tokio::spawn({
            let (seen, connections) = (seen.clone(), connections.clone());
            async move {
                loop {
                    let Ok((stream, _)) = listener.accept().await else { return };
                    let _ = stream.set_nodelay(true);
                    let number = connections.fetch_add(1, Ordering::SeqCst) + 1;
                    let (acceptor, seen) = (acceptor.clone(), seen.clone());
                    tokio::spawn(async move {
                        if let Ok(stream) = acceptor.accept(stream).await {
                            serve(stream, number, seen).await;
                        }
                    });
                }
            }
        });
        Self { address, authority, seen, connections, task }
    }

    /// A server that speaks bytes: each connection's first request head is read, then `answer` is written and the
    /// connection closed.
    pub async fn raw(names: &[&str], answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let authority = TestAuthority::new();
        let acceptor = TlsAcceptor::from(Arc::new(authority.server(names, &[b"http/1.1"])));
        let (listener, address) = listen().await;
        let connections = Arc::new(AtomicU64::new(0));
        let answer = Arc::new(answer);
        let task = tokio::spawn({
            let connections = connections.clone();
            async move {
                loop {
                    let Ok((stream, _)) = listener.accept().await else { return };
                    connections.fetch_add(1, Ordering::SeqCst);
                    let (acceptor, answer) = (acceptor.clone(), answer.clone());
                    tokio::spawn(async move {
                        let Ok(mut stream) = acceptor.accept(stream).await else { return };
                        let head = read_head(&mut stream).await;
                        let _ = stream.write_all(&answer(&head)).await;
                        let _ = stream.shutdown().await;
                    });
                }
            }
        });
        Self { address, authority, seen: Arc::default(), connections, task }
    }

    /// Everything that arrived so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("not poisoned").clone()
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

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    (listener, address)
}

async fn read_head(stream: &mut TlsStream<TcpStream>) -> String {
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

async fn serve(stream: TlsStream<TcpStream>, number: u64, seen: Arc<Mutex<Vec<Seen>>>) {
    let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
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
        authority: head.uri.authority().map(ToString::to_string),
        headers: head.headers.clone(),
        body: Bytes::new(),
    };
    let at = {
        let mut seen = seen.lock().expect("not poisoned");
        seen.push(record);
        seen.len() - 1
    };
    if path == "/early" {
        return text(StatusCode::PAYLOAD_TOO_LARGE, "too much");
    }
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    seen.lock().expect("not poisoned")[at].body = body.clone();
    let auth = credential(&head.headers, &target);
    respond(&path, &target, &head.headers, &auth, body).await
}

/// Whatever looks like the credential in a request.
fn credential(headers: &HeaderMap, target: &str) -> String {
    let field = ["authorization", "x-api-key"].iter().find_map(|name| headers.get(*name));
    field.map_or_else(|| target.to_owned(), |value| value.to_str().expect("text").to_owned())
}

async fn respond(path: &str, target: &str, headers: &HeaderMap, auth: &str, body: Bytes) -> Response<Body> {
    let secret = auth.rsplit(' ').next().unwrap_or_default().to_owned();
    match path {
        "/echo" => {
            let headers: serde_json::Map<_, _> = headers
                .iter()
                .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into()))
                .collect();
            let json =
                serde_json::json!({ "target": target, "headers": headers, "body": String::from_utf8_lossy(&body) });
            let mut response = text(StatusCode::OK, &json.to_string());
            response.headers_mut().insert("content-type", HeaderValue::from_static("application/json"));
            response
        }
        "/header" => {
            let mut response = text(StatusCode::OK, "see the headers");
            response.headers_mut().insert("x-echo", HeaderValue::from_str(auth).expect("a value"));
            response.headers_mut().insert("etag", HeaderValue::from_str(&format!("\"{secret}\"")).expect("a value"));
            response
                .headers_mut()
                .insert("set-cookie", HeaderValue::from_str(&format!("a={secret}")).expect("a value"));
            response
        }
        "/reason" => {
            let mut response = text(StatusCode::BAD_REQUEST, "see the reason");
            if let Ok(reason) = hyper::ext::ReasonPhrase::try_from(format!("Bad {secret}")) {
                response.extensions_mut().insert(reason);
            }
            response
        }
        "/gzip" => encoded(gzip(format!("before {auth} after").as_bytes()), "gzip"),
        "/deflate" => encoded(b"not really deflate".to_vec(), "deflate"),
        "/unknown-encoding" => encoded(secret.clone().into_bytes(), "x-secret"),
        "/partial" => {
            let mut response = text(StatusCode::PARTIAL_CONTENT, &secret[..secret.len() / 2]);
            response.headers_mut().insert("content-range", HeaderValue::from_static("bytes 0-3/40"));
            response
        }
        "/split" => frames(secret.bytes().map(|byte| Bytes::copy_from_slice(&[byte])).collect(), Duration::ZERO, None),
        "/trailers" => {
            let mut trailers = HeaderMap::new();
            trailers.insert("x-checksum", HeaderValue::from_str(&secret).expect("a value"));
            trailers.insert("x-plain", HeaderValue::from_static("kept"));
            let mut response = frames(vec![Bytes::from_static(b"body")], Duration::ZERO, Some(trailers));
            response.headers_mut().insert("trailer", HeaderValue::from_static("x-checksum, x-plain"));
            response
        }
        "/sse" => {
            let events = (0..5).map(|n| Bytes::from(format!("data: event {n}\n\n"))).collect();
            let mut response = frames(events, Duration::from_millis(100), None);
            response.headers_mut().insert("content-type", HeaderValue::from_static("text/event-stream"));
            response
        }
        "/endless" => {
            let mut response =
                frames(vec![Bytes::from_static(b"data: tick\n\n"); 6000], Duration::from_millis(10), None);
            response.headers_mut().insert("content-type", HeaderValue::from_static("text/event-stream"));
            response
        }
        "/stall" => {
            tokio::time::sleep(Duration::from_secs(3600)).await;
            text(StatusCode::OK, "late")
        }
        "/break" => {
            let stream = futures_util::stream::unfold(0, |step| async move {
                tokio::time::sleep(Duration::from_millis(step * 100)).await;
                match step {
                    0 => Some((Ok(Frame::data(Bytes::from_static(b"half"))), 1)),
                    1 => Some((Err(broken()), 2)),
                    _ => None,
                }
            });
            Response::new(BodyExt::boxed_unsync(StreamBody::new(stream)))
        }
        "/redirect" => {
            let mut response = text(StatusCode::FOUND, "");
            response.headers_mut().insert("location", HeaderValue::from_static("https://other.test/x"));
            response
        }
        "/401" => text(StatusCode::UNAUTHORIZED, "the upstream's own 401"),
        "/204" => Response::builder().status(204).body(empty()).expect("a response"),
        "/alt-svc" => {
            let mut response = text(StatusCode::OK, "ok");
            response.headers_mut().insert("alt-svc", HeaderValue::from_static("h3=\":443\""));
            response
        }
        _ => text(StatusCode::OK, "ok"),
    }
}

fn broken() -> std::io::Error {
    std::io::ErrorKind::ConnectionReset.into()
}

fn text(status: StatusCode, body: &str) -> Response<Body> {
    let body = Full::new(Bytes::copy_from_slice(body.as_bytes())).map_err(|never| match never {});
    Response::builder().status(status).body(BodyExt::boxed_unsync(body)).expect("a response")
}

fn empty() -> Body {
    BodyExt::boxed_unsync(Full::default().map_err(|never| match never {}))
}

fn encoded(body: Vec<u8>, encoding: &'static str) -> Response<Body> {
    let body = Full::new(Bytes::from(body)).map_err(|never| match never {});
    let mut response = Response::new(BodyExt::boxed_unsync(body));
    response.headers_mut().insert("content-encoding", HeaderValue::from_static(encoding));
    response
}

/// Compresses with gzip.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

fn frames(chunks: Vec<Bytes>, pause: Duration, trailers: Option<HeaderMap>) -> Response<Body> {
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    tokio::spawn(async move {
        for chunk in chunks {
            if sender.send(Ok(Frame::data(chunk))).await.is_err() {
                return;
            }
            tokio::time::sleep(pause).await;
        }
        if let Some(trailers) = trailers {
            let _ = sender.send(Ok(Frame::trailers(trailers))).await;
        }
    });
    let stream = futures_util::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|frame| (frame, receiver))
    });
    Response::new(BodyExt::boxed_unsync(StreamBody::new(stream)))
}
