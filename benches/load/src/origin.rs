//! An origin that knows whether the real credential arrived.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE};
use http::{Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Either, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::TcpListener;
use tokio::time::Sleep;
use tokio_rustls::TlsAcceptor;

use crate::Failure;

/// One piece of a large body.
static PIECE: [u8; 64 * 1024] = [b'x'; 64 * 1024];
/// Between two events.
const EVENT_EVERY: Duration = Duration::from_millis(2);

/// Serves until it is killed. Certificates are for `bench.test` and one label below it.
pub async fn run(listen: &str, ca_out: &str, credential: &str, h2: bool) -> Result<(), Failure> {
    let config = configuration(ca_out, h2)?;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let expected: Arc<str> = format!("Bearer {credential}").into();
    let listener = TcpListener::bind(listen).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (acceptor, expected) = (acceptor.clone(), expected.clone());
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            let service = service_fn(move |request| answer(expected.clone(), request));
            let io = TokioIo::new(stream);
            if is_h2 {
                let mut server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                let _ = server.max_concurrent_streams(1024).serve_connection(io, service).await;
            } else {
                let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
            }
        });
    }
}

fn configuration(ca_out: &str, h2: bool) -> Result<ServerConfig, Failure> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    // Two origins' CAs have two names, so that who trusts both finds the right one.
    let name = if h2 { "benchmark h2 origin CA" } else { "benchmark origin CA" };
    params.distinguished_name.push(DnType::CommonName, name);
    std::fs::write(ca_out, params.self_signed(&key)?.pem())?;
    let issuer = Issuer::new(params, key);
    let leaf_key = KeyPair::generate()?;
    let names = vec!["bench.test".to_owned(), "*.bench.test".to_owned()];
    let leaf = CertificateParams::new(names)?.signed_by(&leaf_key, &issuer)?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(
            vec![leaf.der().clone()],
            PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(leaf_key.serialize_der())),
        )?;
    config.alpn_protocols = if h2 { vec![b"h2".to_vec(), b"http/1.1".to_vec()] } else { vec![b"http/1.1".to_vec()] };
    config.ticketer = rustls::crypto::ring::Ticketer::new()?;
    Ok(config)
}

type Answer = Response<Either<Full<Bytes>, Stream>>;

async fn answer(expected: Arc<str>, request: Request<Incoming>) -> Result<Answer, Infallible> {
    let whole = |status: StatusCode, kind: &'static str, body: Bytes| {
        let mut answer = Response::new(Either::Left(Full::new(body)));
        *answer.status_mut() = status;
        answer.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static(kind));
        Ok(answer)
    };
    if request.headers().get(AUTHORIZATION).is_none_or(|value| value.as_bytes() != expected.as_bytes()) {
        return whole(StatusCode::UNAUTHORIZED, "text/plain", Bytes::from_static(b"no"));
    }
    let path = request.uri().path().to_owned();
    let number = |prefix: &str| path.strip_prefix(prefix).and_then(|text| text.parse::<u64>().ok());
    if let Some(bytes) = number("/bytes/") {
        let mut answer = Response::new(Either::Right(Stream::Bytes { left: bytes }));
        answer.headers_mut().insert(CONTENT_LENGTH, bytes.into());
        return Ok(answer);
    }
    if let Some(count) = number("/events/") {
        let events = Stream::Events { left: count, next: Box::pin(tokio::time::sleep(EVENT_EVERY)) };
        let mut answer = Response::new(Either::Right(events));
        answer.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static("text/event-stream"));
        return Ok(answer);
    }
    if path == "/sink" {
        let mut body = request.into_body();
        let mut total = 0;
        while let Some(Ok(frame)) = body.frame().await {
            total += frame.data_ref().map_or(0, Bytes::len);
        }
        return whole(StatusCode::OK, "text/plain", Bytes::from(total.to_string()));
    }
    whole(StatusCode::OK, "application/json", Bytes::from_static(json().as_bytes()))
}

/// About a KiB of JSON.
fn json() -> &'static str {
    static TEXT: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| {
        let item = r#"{"id":"cus_NffrFeUfNV2Hib","object":"customer","email":"ada@example.test","balance":0},"#;
        format!(r#"{{"object":"list","data":[{}]}}"#, item.repeat(12).trim_end_matches(','))
    });
    &TEXT
}

/// Now, in microseconds.
pub fn now_micros() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros()
}

enum Stream {
    Bytes { left: u64 },
    Events { left: u64, next: Pin<Box<Sleep>> },
}

impl Body for Stream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut *self {
            Self::Bytes { left: 0 } | Self::Events { left: 0, .. } => Poll::Ready(None),
            Self::Bytes { left } => {
                let count = usize::try_from(*left).unwrap_or(usize::MAX).min(PIECE.len());
                *left -= count as u64;
                Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&PIECE[..count])))))
            }
            Self::Events { left, next } => {
                if next.as_mut().poll(context).is_pending() {
                    return Poll::Pending;
                }
                *left -= 1;
                next.as_mut().reset(tokio::time::Instant::now() + EVENT_EVERY);
                let event = format!("data: {:020}\n\n", now_micros());
                Poll::Ready(Some(Ok(Frame::data(event.into()))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Bytes { left: 0 } | Self::Events { left: 0, .. })
    }
}
