//! One request as an agent sends it, and what became of it: every byte is kept for the search for leaks.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use http::{HeaderMap, Request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::wire::answers;
use crate::support::{Agent, streams};

/// Longest for one exchange; every limit of the sidecars here is far below.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// What an agent speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    H1,
    H2,
}

impl fmt::Display for Protocol {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::H1 => "h1",
            Self::H2 => "h2",
        })
    }
}

/// What to ask for, at `api.test`.
#[derive(Debug, Clone)]
pub struct Ask {
    pub method: &'static str,
    pub path: String,
    pub nonce: String,
    pub body: Bytes,
}

/// What became of a request, as the agent sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The sidecar said no: status and code.
    Refused(u16, String),
    /// A whole answer, as far as its framing tells.
    Whole(u16, Vec<u8>),
    /// An answer that broke off, for all to see.
    Cut(u16),
    /// Not even a head.
    Nothing,
}

/// What became of a request, and all that the agent got.
#[derive(Debug)]
pub struct Exchange {
    pub outcome: Outcome,
    pub bytes: Vec<u8>,
}

/// Sends it in a tunnel of its own.
pub async fn exchange(agent: &Agent, protocol: Protocol, ask: &Ask) -> Exchange {
    let exchanging = async {
        match protocol {
            Protocol::H1 => over_h1(agent, ask).await,
            Protocol::H2 => over_h2(agent, ask).await,
        }
    };
    let hung = || panic!("{} {} hung for {DEADLINE:?}", ask.method, ask.path);
    tokio::time::timeout(DEADLINE, exchanging).await.unwrap_or_else(|_| hung())
}

const NOTHING: Exchange = Exchange { outcome: Outcome::Nothing, bytes: Vec::new() };

/// A head in HTTP/1.1, with all of its fields.
pub fn head(ask: &Ask) -> String {
    let Ask { method, path, nonce, body } = ask;
    let length = if *method == "GET" { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    format!(
        "{method} {path} HTTP/1.1\r\nHost: api.test\r\nAuthorization: Bearer {nonce}\r\n{length}Connection: close\r\n\r\n"
    )
}

async fn over_h1(agent: &Agent, ask: &Ask) -> Exchange {
    let Ok(stream) = agent.tls_tunnel("api.test", "api.test", &[b"http/1.1"]).await else { return NOTHING };
    let (mut reader, mut writer) = tokio::io::split(stream);
    let (head, body) = (head(ask), ask.body.clone());
    let writing = tokio::spawn(async move {
        let _ = writer.write_all(head.as_bytes()).await;
        let _ = writer.write_all(&body).await;
        let _ = writer.flush().await;
        // Kept open: what is sent is over, the answer is not.
        std::future::pending::<()>().await;
    });
    let mut bytes = Vec::new();
    let ended_well = reader.read_to_end(&mut bytes).await.is_ok();
    writing.abort();
    Exchange { outcome: judged(&bytes, ended_well), bytes }
}

/// What an HTTP/1.1 client has to think of these bytes, after which came a good end of TLS or none (RFC 9112, 8).
pub fn judged(bytes: &[u8], ended_well: bool) -> Outcome {
    let last = |is_over| answers(bytes, is_over).into_iter().find(|answer| answer.status >= 200);
    if let Some(answer) = last(false).or_else(|| last(ended_well)) {
        return match answer.header("valetkey-error") {
            Some(code) => Outcome::Refused(answer.status, code.to_owned()),
            None => Outcome::Whole(answer.status, answer.body),
        };
    }
    let text = String::from_utf8_lossy(bytes);
    let heads = text.split("HTTP/1.1 ").skip(1).filter_map(|rest| rest.get(..3)?.parse().ok());
    heads.filter(|status: &u16| *status >= 200).map(Outcome::Cut).next().unwrap_or(Outcome::Nothing)
}

async fn over_h2(agent: &Agent, ask: &Ask) -> Exchange {
    let mut sender = agent.frames("api.test").await;
    let request = Request::builder().method(ask.method).uri(format!("https://api.test{}", ask.path));
    let request = request.header("authorization", format!("Bearer {}", ask.nonce)).body(()).expect("a request");
    let Ok((response, mut stream)) = sender.send_request(request, ask.body.is_empty()) else { return NOTHING };
    let body = ask.body.clone();
    let writing = tokio::spawn(async move {
        if !body.is_empty() && streams::send(&mut stream, body).await {
            let _ = stream.send_data(Bytes::new(), true);
        }
        std::future::pending::<()>().await;
    });
    let exchange = match response.await {
        Err(_) => NOTHING,
        Ok(response) => answer(response).await,
    };
    writing.abort();
    exchange
}

/// Fields as they came; `Debug` leaves out the values of some.
fn plain(fields: &HeaderMap) -> Vec<u8> {
    fields
        .iter()
        .flat_map(|(name, value)| [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\n"].concat())
        .collect()
}

async fn answer(response: http::Response<RecvStream>) -> Exchange {
    let (head, mut stream) = response.into_parts();
    let mut bytes = plain(&head.headers);
    let mut body = Vec::new();
    let mut is_whole = true;
    while let Some(data) = stream.data().await {
        let Ok(data) = data else {
            is_whole = false;
            break;
        };
        let _ = stream.flow_control().release_capacity(data.len());
        body.extend_from_slice(&data);
    }
    if is_whole {
        match stream.trailers().await {
            Ok(trailers) => bytes.extend(trailers.iter().flat_map(plain)),
            Err(_) => is_whole = false,
        }
    }
    bytes.extend_from_slice(&body);
    let status = head.status.as_u16();
    let code = head.headers.get("valetkey-error").and_then(|code| code.to_str().ok());
    let outcome = match (code, is_whole) {
        (Some(code), true) => Outcome::Refused(status, code.to_owned()),
        (None, true) => Outcome::Whole(status, body),
        (_, false) => Outcome::Cut(status),
    };
    Exchange { outcome, bytes }
}
