//! How the fake upstream answers: the path says which way.

use std::io::Write as _;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};

use crate::support::codings::pack;

pub type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// Whatever looks like the credential in a request.
pub fn credential(headers: &HeaderMap, target: &str) -> String {
    let field = ["authorization", "x-api-key"].iter().find_map(|name| headers.get(*name));
    field.map_or_else(|| target.to_owned(), |value| value.to_str().expect("text").to_owned())
}

#[expect(clippy::too_many_lines, reason = "a table: one arm for each path")]
pub async fn respond(path: &str, target: &str, headers: &HeaderMap, auth: &str, body: Bytes) -> Response<Body> {
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
        "/deflate" => encoded(pack("deflate", format!("before {auth} after").as_bytes()), "deflate"),
        "/br" => encoded(pack("br", format!("before {auth} after").as_bytes()), "br"),
        "/zstd" => encoded(pack("zstd", format!("before {auth} after").as_bytes()), "zstd"),
        "/stacked" => encoded(gzip(&gzip(format!("before {auth} after").as_bytes())), "gzip, gzip"),
        "/unknown-encoding" => encoded(secret.clone().into_bytes(), "x-secret"),
        "/partial" => {
            let mut response = text(StatusCode::PARTIAL_CONTENT, &secret[..secret.len() / 2]);
            response.headers_mut().insert("content-range", HeaderValue::from_static("bytes 0-3/40"));
            response
        }
        "/split" => frames(secret.bytes().map(|byte| Bytes::copy_from_slice(&[byte])).collect(), Duration::ZERO, None),
        "/late-echo" => {
            let pieces = ["begun ", &secret, " ended"].map(|piece| Bytes::copy_from_slice(piece.as_bytes()));
            frames(pieces.into(), Duration::from_secs(1), None)
        }
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
        "/large" => {
            let count = target.split_once('=').and_then(|(_, count)| count.parse().ok()).expect("?pieces=N");
            frames(vec![Bytes::from_static(&PIECE); count], Duration::ZERO, None)
        }
        "/slow" => {
            tokio::time::sleep(Duration::from_millis(700)).await;
            text(StatusCode::OK, "slow and whole")
        }
        "/hang" => frames(vec![Bytes::from_static(b"a"), Bytes::from_static(b"b")], Duration::from_secs(3600), None),
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
            let location = target.split_once('?').map_or("https://other.test/x", |(_, location)| location);
            let mut response = text(StatusCode::FOUND, "");
            response.headers_mut().insert("location", HeaderValue::from_str(location).expect("a value"));
            response
        }
        "/401" => text(StatusCode::UNAUTHORIZED, "the upstream's own 401"),
        "/205" => Response::builder().status(205).body(empty()).expect("a response"),
        "/304" => Response::builder().status(304).header("etag", "\"x\"").body(empty()).expect("a response"),
        "/204" => Response::builder().status(204).body(empty()).expect("a response"),
        "/alt-svc" => {
            let mut response = text(StatusCode::OK, "ok");
            response.headers_mut().insert("alt-svc", HeaderValue::from_static("h3=\":443\""));
            response
        }
        _ => text(StatusCode::OK, "ok"),
    }
}

/// What large answers are made of.
pub static PIECE: [u8; 64 * 1024] = [b'p'; 64 * 1024];

fn broken() -> std::io::Error {
    std::io::ErrorKind::ConnectionReset.into()
}

pub fn text(status: StatusCode, body: &str) -> Response<Body> {
    let body = Full::new(Bytes::copy_from_slice(body.as_bytes())).map_err(|never| match never {});
    Response::builder().status(status).body(BodyExt::boxed_unsync(body)).expect("a response")
}

/// The head of an answer, with the length that its body would have had: hyper sends bodies to HEAD over HTTP/2.
pub fn without_body(response: Response<Body>) -> Response<Body> {
    let length = http_body::Body::size_hint(response.body()).exact();
    let mut response = response.map(|_| empty());
    if let Some(length) = length {
        response.headers_mut().insert("content-length", length.into());
    }
    response
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
