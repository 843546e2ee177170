//! HTTP/1.1 answers as they stand on the wire, for tests that speak bytes.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};

/// One answer, as it was framed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WireAnswer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl WireAnswer {
    /// A field's value; the first, if there are several.
    pub fn header(&self, name: &str) -> Option<&str> {
        let fields = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        fields.map(|(key, value)| (key, value.trim())).find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, v)| v)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// The whole answers at the beginning of these bytes (RFC 9112, 6.3). What has no framing is whole only at the end.
pub fn answers(bytes: &[u8], is_over: bool) -> Vec<WireAnswer> {
    let mut found = Vec::new();
    let mut rest = bytes;
    while let Some((answer, used)) = next(rest, is_over) {
        found.push(answer);
        rest = &rest[used..];
    }
    found
}

fn next(bytes: &[u8], is_over: bool) -> Option<(WireAnswer, usize)> {
    let head_end = memchr::memmem::find(bytes, b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&bytes[..head_end]).into_owned();
    let status: u16 = head.split(' ').nth(1)?.parse().ok()?;
    let mut answer = WireAnswer { status, head, body: Vec::new() };
    let rest = &bytes[head_end..];
    let is_chunked = answer.header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked"));
    let length = answer.header("content-length").and_then(|value| value.parse::<usize>().ok());
    let (body, used) = match (status, is_chunked, length) {
        (100..=199 | 204 | 304, _, _) => (Vec::new(), 0),
        (_, true, _) => chunks(rest)?,
        (_, false, Some(length)) => (rest.get(..length)?.to_vec(), length),
        (_, false, None) => (is_over.then(|| rest.to_vec())?, rest.len()),
    };
    answer.body = body;
    Some((answer, head_end + used))
}

fn chunks(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let line = memchr::memmem::find(bytes.get(at..)?, b"\r\n")?;
        let size = std::str::from_utf8(&bytes[at..at + line]).ok()?.split(';').next()?;
        let size = usize::from_str_radix(size, 16).ok()?;
        at += line + 2;
        if size == 0 {
            let end = memchr::memmem::find(&bytes[at - 2..], b"\r\n\r\n")?;
            return Some((body, at + end + 2));
        }
        body.extend_from_slice(bytes.get(at..at + size)?);
        at += size + 2;
    }
}

/// Reads until `wanted` whole answers are there, the other side closes, or `patience` is over; all bytes, as text.
pub async fn read_answers<S: AsyncRead + Unpin>(stream: &mut S, wanted: usize, patience: Duration) -> String {
    let mut all = Vec::new();
    let mut chunk = [0; 4096];
    let reading = async {
        while answers(&all, false).iter().filter(|answer| answer.status >= 200).count() < wanted {
            match stream.read(&mut chunk).await {
                Ok(count) if count > 0 => all.extend_from_slice(&chunk[..count]),
                _ => break,
            }
        }
    };
    let _ = tokio::time::timeout(patience, reading).await;
    String::from_utf8_lossy(&all).into_owned()
}

#[test]
fn answers_are_split_as_they_were_framed() {
    let bytes = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabHTTP/1.1 200 OK\r\n\
                  Transfer-Encoding: chunked\r\n\r\n1\r\nc\r\n0\r\n\r\nHTTP/1.1 204 No\r\n\r\nHTTP/1.1 200 OK\r\n\r\nrest";
    let bodies: Vec<String> = answers(bytes, true).iter().map(WireAnswer::text).collect();
    assert_eq!(bodies, ["", "ab", "c", "", "rest"]);
    assert_eq!(answers(bytes, false).len(), 4);
    assert!(answers(&bytes[..60], false).len() < 2);
}
