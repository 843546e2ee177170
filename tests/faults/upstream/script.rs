//! What a connection of an upstream goes through.

use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// A flood ends here, whoever is still listening.
const FLOOD_BYTES_MAX: usize = 16 * 1024 * 1024;

/// When the script begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// Nobody listens.
    Connect,
    /// A connection is there.
    Accepted,
    /// The first bytes of the handshake are there.
    Hello,
    /// TLS stands.
    Secured,
    /// The head of a request is there.
    Head,
    /// The request is whole.
    Whole,
}

/// The certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tls {
    Good,
    OtherName,
    Expired,
    NotYet,
    OtherAuthority,
}

/// One step of a script.
#[derive(Debug, Clone)]
pub enum Step {
    /// Bytes at once.
    Say(Vec<u8>),
    /// Bytes one by one.
    Drip(Vec<u8>),
    /// Bytes again and again, until nobody takes them.
    Flood(Vec<u8>),
    Wait(Duration),
    /// Says and reads nothing more.
    Hold,
    /// The end in good order.
    Close,
    /// The end of TCP without the end of TLS.
    Drop,
    /// RST.
    Reset,
}

/// What comes after a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// The next request on this connection.
    Next,
    Close,
    Drop,
    Reset,
}

/// What breaks, when, and how. The script is given the number of the stream (0 in HTTP/1.1).
#[derive(Clone)]
pub struct Fault {
    pub at: At,
    pub tls: Tls,
    pub is_h2: bool,
    /// Payload of the first SETTINGS; none is sent without.
    pub settings: Option<Vec<u8>>,
    pub steps: Arc<dyn Fn(u32) -> Vec<Step> + Send + Sync>,
}

impl Fault {
    /// Over HTTP/1.1.
    pub fn h1(at: At, steps: impl Fn() -> Vec<Step> + Send + Sync + 'static) -> Self {
        Self { at, tls: Tls::Good, is_h2: false, settings: Some(Vec::new()), steps: Arc::new(move |_| steps()) }
    }

    /// Over HTTP/2.
    pub fn h2(at: At, steps: impl Fn(u32) -> Vec<Step> + Send + Sync + 'static) -> Self {
        Self { at, tls: Tls::Good, is_h2: true, settings: Some(Vec::new()), steps: Arc::new(steps) }
    }

    /// Whether it ever stands still, so that a limit has to end it.
    pub fn holds(&self) -> bool {
        (self.steps)(1).iter().any(|step| matches!(step, Step::Hold))
    }

    /// An upstream without faults, over HTTP/1.1, which closes each connection that it has answered on where asked.
    pub fn none() -> Self {
        Self::h1(At::Whole, || vec![Step::Say(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec())])
    }
}

/// Reads what is there.
pub async fn read_some(stream: &mut (impl AsyncRead + Unpin)) -> usize {
    stream.read(&mut [0; 4096]).await.unwrap_or(0)
}

/// Plays a script to its end.
pub async fn play(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), steps: Vec<Step>) -> After {
    for step in steps {
        let went_well = match step {
            Step::Say(bytes) => say(stream, &bytes).await,
            Step::Drip(bytes) => drip(stream, &bytes).await,
            Step::Flood(bytes) => flood(stream, &bytes).await,
            Step::Wait(time) => {
                tokio::time::sleep(time).await;
                true
            }
            Step::Hold => std::future::pending().await,
            Step::Close => return After::Close,
            Step::Drop => return After::Drop,
            Step::Reset => return After::Reset,
        };
        if !went_well {
            return After::Drop;
        }
    }
    After::Next
}

async fn say(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> bool {
    stream.write_all(bytes).await.is_ok() && stream.flush().await.is_ok()
}

async fn drip(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> bool {
    for byte in bytes {
        if !say(stream, &[*byte]).await {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    true
}

async fn flood(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> bool {
    for _ in 0..FLOOD_BYTES_MAX / bytes.len() {
        if stream.write_all(bytes).await.is_err() {
            return false;
        }
    }
    stream.flush().await.is_ok()
}

/// Ends a connection in clear text.
pub async fn end_plain(mut stream: TcpStream, after: After) {
    match after {
        After::Reset => drop(SockRef::from(&stream).set_linger(Some(Duration::ZERO))),
        After::Next | After::Close => linger(&mut stream).await,
        After::Drop => {}
    }
}

/// Ends a connection.
pub async fn end_tls(mut stream: TlsStream<TcpStream>, after: After) {
    match after {
        After::Reset => drop(SockRef::from(stream.get_ref().0).set_linger(Some(Duration::ZERO))),
        After::Next | After::Close => linger(&mut stream).await,
        After::Drop => {
            // TCP alone ends, after what was said has gone out.
            let (tcp, _) = stream.get_mut();
            linger(tcp).await;
        }
    }
}

/// Says that this is the end, and hears the other side out, lest unread bytes turn the end into a reset.
async fn linger(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    let _ = stream.shutdown().await;
    let hearing = async { while read_some(stream).await > 0 {} };
    let _ = tokio::time::timeout(Duration::from_secs(2), hearing).await;
}
