//! `FetchJWTBundles` and `FetchX509Bundles`: one gRPC call over a Unix socket, whose answers have no end.

use std::io;
use std::path::Path;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::UnixStream;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

/// The scheme and authority that HTTP/2 wants, and the service; the call's name follows.
const SERVICE: &str = "http://localhost/SpiffeWorkloadAPI/";
/// Without it the Workload API answers nobody: no browser or confused server sends it (SPIFFE Workload Endpoint, 4).
const SECURITY_HEADER: &str = "workload.spiffe.io";
/// How a status is told, in the head or the trailers.
const STATUS: &str = "grpc-status";
/// Whether the message is compressed, and its length.
const PREFIX_BYTES: usize = 5;
/// A message in bytes at most; gRPC's own default.
const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// For connecting, for the first message, and for the rest of one that has begun.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How often somebody has to be there still, while no message comes.
const PING_EVERY: Duration = Duration::from_secs(30);
/// Bytes of an answer's head at most.
const HEAD_BYTES_MAX: u32 = 16 * 1024;

/// Why there are no more updates.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    #[error("the socket cannot be reached: {0}")]
    Connect(io::ErrorKind),
    #[error("HTTP/2 cannot be spoken")]
    Http,
    #[error("no answer within {} seconds", TIMEOUT.as_secs())]
    Slow,
    #[error("it answered {0}, or no gRPC")]
    Answer(StatusCode),
    #[error("it ended the stream with the gRPC status {0}")]
    Status(u32),
    #[error("the stream was cut")]
    Cut,
    #[error("a message or a bundle is too long")]
    Long,
    #[error("a message is compressed, which was not asked for")]
    Compressed,
    #[error("a message is not well-formed")]
    Malformed,
    #[error("a bundle is not well-formed")]
    Bundle,
}

/// An open call.
pub(super) struct Stream {
    body: Incoming,
    buffer: BytesMut,
    has_begun: bool,
    _connection: AbortOnDropHandle<hyper::Result<()>>,
}

impl Stream {
    pub(super) async fn open(path: &Path, call: &str) -> Result<Self, Broken> {
        timeout(TIMEOUT, Self::call(path, call)).await.map_err(|_| Broken::Slow)?
    }

    async fn call(path: &Path, call: &str) -> Result<Self, Broken> {
        let socket = UnixStream::connect(path).await.map_err(|error| Broken::Connect(error.kind()))?;
        let (mut sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(TIMEOUT)
            .max_header_list_size(HEAD_BYTES_MAX)
            .handshake(TokioIo::new(socket))
            .await
            .map_err(|_| Broken::Http)?;
        let connection = AbortOnDropHandle::new(tokio::spawn(connection));
        let answer = sender.send_request(request(call)?).await.map_err(|_| Broken::Http)?;
        check(&answer)?;
        Ok(Self { body: answer.into_body(), buffer: BytesMut::new(), has_begun: false, _connection: connection })
    }

    /// The next message; the end of the stream is an error.
    pub(super) async fn next(&mut self) -> Result<Bytes, Broken> {
        loop {
            if let Some(message) = message(&mut self.buffer)? {
                self.has_begun = true;
                return Ok(message);
            }
            let is_resting = self.has_begun && self.buffer.is_empty();
            let frame = self.body.frame();
            let frame =
                if is_resting { frame.await } else { timeout(TIMEOUT, frame).await.map_err(|_| Broken::Slow)? };
            let frame = frame.and_then(Result::ok).ok_or(Broken::Cut)?;
            let data =
                frame.into_data().map_err(|frame: Frame<Bytes>| frame.trailers_ref().map_or(Broken::Cut, ended))?;
            self.buffer.extend_from_slice(&data);
        }
    }
}

/// The one message that is sent is empty: its prefix alone.
fn request(call: &str) -> Result<Request<Full<Bytes>>, Broken> {
    Request::post(format!("{SERVICE}{call}"))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .header(SECURITY_HEADER, "true")
        .body(Full::from(Bytes::from_static(&[0; PREFIX_BYTES])))
        .map_err(|_| Broken::Http)
}

fn check(answer: &Response<Incoming>) -> Result<(), Broken> {
    if answer.headers().contains_key(STATUS) {
        return Err(ended(answer.headers()));
    }
    let kind = answer.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let is_grpc = kind == "application/grpc" || kind == "application/grpc+proto";
    if answer.status() == StatusCode::OK && is_grpc { Ok(()) } else { Err(Broken::Answer(answer.status())) }
}

/// What stands where a status should, if it is none, is UNKNOWN (2).
fn ended(fields: &HeaderMap) -> Broken {
    let status = fields.get(STATUS).and_then(|status| status.to_str().ok()?.parse().ok());
    Broken::Status(status.unwrap_or(2))
}

/// Takes the first message out of what has come, if all of it has.
fn message(buffer: &mut BytesMut) -> Result<Option<Bytes>, Broken> {
    let Some((prefix, rest)) = buffer.split_first_chunk::<PREFIX_BYTES>() else { return Ok(None) };
    let [compressed, length @ ..] = *prefix;
    if compressed != 0 {
        return Err(Broken::Compressed);
    }
    let length = usize::try_from(u32::from_be_bytes(length)).map_err(|_| Broken::Long)?;
    if length > MESSAGE_BYTES_MAX {
        return Err(Broken::Long);
    }
    if rest.len() < length {
        return Ok(None);
    }
    buffer.advance(PREFIX_BYTES);
    Ok(Some(buffer.split_to(length).freeze()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_taken_one_by_one_and_whole() {
        let whole = [[0, 0, 0, 0, 2].as_slice(), b"ab", &[0, 0, 0, 0, 0], &[0, 0, 0, 0, 1], b"c"].concat();
        let mut buffer = BytesMut::new();
        let mut found = Vec::new();
        for byte in whole {
            buffer.extend_from_slice(&[byte]);
            while let Some(message) = message(&mut buffer).unwrap() {
                found.push(message);
            }
        }
        assert_eq!(found, [&b"ab"[..], b"", b"c"]);
        assert!(buffer.is_empty());
        let refused = |bytes: &[u8]| message(&mut BytesMut::from(bytes)).unwrap_err().to_string();
        assert!(refused(&[1, 0, 0, 0, 0]).contains("compressed"));
        assert!(refused(&[0, 0, 0x40, 0, 1]).contains("too long"), "before its bytes have come");
        assert!(message(&mut BytesMut::from(&[0, 0, 0x40, 0, 0][..])).unwrap().is_none());
    }
}
