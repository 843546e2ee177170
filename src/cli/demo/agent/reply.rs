//! An answer as the agent sees it.

use std::io::Read;

use crate::cli::demo::trouble::Trouble;
use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::ext::ReasonPhrase;
use serde_json::Value;

/// A body in bytes at most, before and after unpacking.
const BODY_BYTES_MAX: usize = 1024 * 1024;

/// A whole answer.
#[derive(Debug, Clone, Default)]
pub(in crate::cli::demo) struct Reply {
    pub(in crate::cli::demo) status: u16,
    /// HTTP/1.1 only, where it is not the usual one.
    pub(in crate::cli::demo) reason: String,
    pub(in crate::cli::demo) headers: HeaderMap,
    pub(in crate::cli::demo) trailers: HeaderMap,
    /// As it came.
    pub(in crate::cli::demo) body: Bytes,
    /// Unpacked, where it came as gzip.
    pub(in crate::cli::demo) plain: Bytes,
}

impl Reply {
    /// Reads an answer to its end.
    pub(in crate::cli::demo) async fn read(response: Response<Incoming>) -> Result<Self, Trouble> {
        let (head, body) = response.into_parts();
        let reason = head.extensions.get::<ReasonPhrase>().map(|reason| reason.as_bytes().to_vec());
        let collected = Limited::new(body, BODY_BYTES_MAX).collect().await?;
        let trailers = collected.trailers().cloned().unwrap_or_default();
        let body = collected.to_bytes();
        let is_gzip = head.headers.get("content-encoding").is_some_and(|value| value == "gzip");
        let plain = if is_gzip { unpack(&body)? } else { body.clone() };
        let reason = String::from_utf8_lossy(&reason.unwrap_or_default()).into_owned();
        Ok(Self { status: head.status.as_u16(), reason, headers: head.headers, trailers, body, plain })
    }

    /// A header's value, empty if it is not there.
    pub(in crate::cli::demo) fn header(&self, name: &str) -> String {
        let value = self.headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        value.unwrap_or_default()
    }

    /// The body as text.
    pub(in crate::cli::demo) fn text(&self) -> String {
        String::from_utf8_lossy(&self.plain).into_owned()
    }

    /// The body as JSON; null if it is none.
    pub(in crate::cli::demo) fn json(&self) -> Value {
        serde_json::from_slice(&self.plain).unwrap_or(Value::Null)
    }

    /// A text in the body's JSON, empty if it is not there.
    pub(in crate::cli::demo) fn member(&self, name: &str) -> String {
        self.json()[name].as_str().unwrap_or_default().to_owned()
    }

    /// All of it, for looking for what must not be there.
    pub(in crate::cli::demo) fn everything(&self) -> Vec<u8> {
        let mut all = format!("{} {}\n", self.status, self.reason).into_bytes();
        for (name, value) in self.headers.iter().chain(&self.trailers) {
            all.extend_from_slice(&[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\n"].concat());
        }
        for part in [&self.body, &self.plain] {
            all.extend_from_slice(part);
            all.push(b'\n');
        }
        all
    }
}

fn unpack(bytes: &[u8]) -> std::io::Result<Bytes> {
    let mut plain = Vec::new();
    flate2::read::MultiGzDecoder::new(bytes).take(BODY_BYTES_MAX as u64).read_to_end(&mut plain)?;
    Ok(plain.into())
}
