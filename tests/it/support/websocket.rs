//! Both ends of a WebSocket, in bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::agent::{Agent, PATIENCE};
use super::upstream::FakeUpstream;

pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;

/// The key and the answer of RFC 6455, 1.3.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// What a socket is made of: TLS, TCP, or a stream of HTTP/2.
pub trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Wire for S {}

/// One end.
pub struct Socket {
    pub wire: Box<dyn Wire>,
    is_client: bool,
}

impl Socket {
    pub fn client(wire: impl Wire + 'static) -> Self {
        Self { wire: Box::new(wire), is_client: true }
    }

    pub fn server(wire: Box<dyn Wire>) -> Self {
        Self { wire, is_client: false }
    }

    /// Sends one frame; a client's is masked.
    pub async fn send(&mut self, is_last: bool, opcode: u8, payload: &[u8]) -> std::io::Result<()> {
        let bytes = frame(self.is_client, is_last, opcode, payload);
        self.wire.write_all(&bytes).await?;
        self.wire.flush().await
    }

    /// Sends a whole message in one frame.
    pub async fn say(&mut self, opcode: u8, payload: &[u8]) {
        self.send(true, opcode, payload).await.expect("writable");
    }

    /// The next frame: whether it is the last of its message, opcode, payload. `None` at the end.
    pub async fn frame(&mut self) -> Option<(bool, u8, Vec<u8>)> {
        let reading = async {
            let mut head = [0; 2];
            self.wire.read_exact(&mut head).await.ok()?;
            let length = match head[1] & 0x7f {
                126 => u64::from(self.wire.read_u16().await.ok()?),
                127 => self.wire.read_u64().await.ok()?,
                short => u64::from(short),
            };
            let mut mask = [0; 4];
            if head[1] & 0x80 != 0 {
                self.wire.read_exact(&mut mask).await.ok()?;
            }
            let mut payload = vec![0; usize::try_from(length).expect("a length")];
            self.wire.read_exact(&mut payload).await.ok()?;
            payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
            Some((head[0] & 0x80 != 0, head[0] & 0x0f, payload))
        };
        // Upstream's side waits for as long as the test does.
        if self.is_client {
            tokio::time::timeout(PATIENCE, reading).await.expect("a frame in time")
        } else {
            reading.await
        }
    }

    /// The next message, put together, or the next control frame.
    pub async fn hear(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut whole: Option<(u8, Vec<u8>)> = None;
        loop {
            let (is_last, opcode, payload) = self.frame().await?;
            if opcode >= CLOSE {
                return Some((opcode, payload));
            }
            let (_, text) = whole.get_or_insert((opcode, Vec::new()));
            text.extend_from_slice(&payload);
            if is_last {
                return whole;
            }
        }
    }

    /// Reads until the end; everything that came.
    pub async fn rest(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        let reading = self.wire.read_to_end(&mut all);
        let _ = tokio::time::timeout(PATIENCE, reading).await.expect("an end in time");
        all
    }
}

/// A frame as it stands on the wire.
pub fn frame(is_masked: bool, is_last: bool, opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![if is_last { 0x80 | opcode } else { opcode }];
    let masked = if is_masked { 0x80 } else { 0 };
    match payload.len() {
        0..126 => bytes.push(masked | payload.len() as u8),
        126..65_536 => {
            bytes.push(masked | 126);
            bytes.extend_from_slice(&(payload.len() as u16).to_be_bytes());
        }
        _ => {
            bytes.push(masked | 127);
            bytes.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    let mask = if is_masked { [1, 2, 3, 4] } else { [0; 4] };
    if is_masked {
        bytes.extend_from_slice(&mask);
    }
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// The question, with these fields beside what belongs to it.
pub fn question(path: &str, nonce: &str, fields: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: api.test\r\nAuthorization: Bearer {nonce}\r\nConnection: Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n{fields}\r\n"
    )
}

/// Reads a head.
pub async fn head(wire: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    let reading = async {
        while !head.ends_with(b"\r\n\r\n") {
            match wire.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => break,
            }
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("a head in time");
    String::from_utf8_lossy(&head).into_owned()
}

/// Asks in a tunnel; the head of the answer and the socket.
pub async fn ask(agent: &Agent, path: &str, nonce: &str, fields: &str) -> (String, Socket) {
    let mut stream = agent.tls_tunnel("api.test", "api.test", &[b"http/1.1"]).await.expect("TLS");
    stream.write_all(question(path, nonce, fields).as_bytes()).await.expect("writable");
    let answer = head(&mut stream).await;
    (answer, Socket::client(stream))
}

/// Asks, and expects a yes.
pub async fn open(agent: &Agent, path: &str, nonce: &str) -> Socket {
    let (answer, socket) = ask(agent, path, nonce, "").await;
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    socket
}

/// How many sockets upstream has now.
#[derive(Clone, Default)]
pub struct Open(Arc<AtomicUsize>);

impl Open {
    pub fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// An upstream that speaks WebSocket as the path asks, over HTTP/1.1 alone.
pub async fn upstream() -> (FakeUpstream, Open) {
    let open = Open::default();
    let counted = open.clone();
    let upstream = FakeUpstream::speaking_freely(&["api.test"], move |head, wire| {
        let open = counted.clone();
        async move {
            open.0.fetch_add(1, Ordering::SeqCst);
            speak(&head, wire).await;
            open.0.fetch_sub(1, Ordering::SeqCst);
        }
    })
    .await;
    (upstream, open)
}

/// The 101 to a head.
pub fn yes(head: &str, fields: &str) -> String {
    let key = field(head, "sec-websocket-key").unwrap_or_default();
    let accept = accept(key);
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {accept}\r\n{fields}\r\n"
    )
}

fn accept(key: &str) -> String {
    use base64::Engine;
    let text = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let hash = ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
    base64::engine::general_purpose::STANDARD.encode(hash)
}

/// A field of a head.
pub fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let fields = head.lines().filter_map(|line| line.split_once(": "));
    fields.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
}

async fn speak(head: &str, mut wire: Box<dyn Wire>) {
    let path = head.split(' ').nth(1).unwrap_or_default().split('?').next().unwrap_or_default();
    let secret = field(head, "authorization").unwrap_or_default().trim_start_matches("Bearer ").to_owned();
    let answer = match path {
        "/no" => "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nordinary".to_owned(),
        "/never" => format!("HTTP/1.1 404 Not Found\r\nContent-Length: {}\r\n\r\n{secret}", secret.len()),
        "/wrong" => yes("", ""),
        "/extended" => yes(head, "Sec-WebSocket-Extensions: permessage-deflate\r\n"),
        "/head" => yes(head, &format!("Sec-WebSocket-Protocol: chat\r\nX-Echo: {secret}\r\nContent-Length: 5\r\n")),
        _ => yes(head, ""),
    };
    let _ = wire.write_all(answer.as_bytes()).await;
    let _ = wire.flush().await;
    let mut socket = Socket::server(wire);
    match path {
        "/tell" => tell(&mut socket, secret.as_bytes()).await,
        "/flood" => while socket.send(true, BINARY, &[7; 60_000]).await.is_ok() {},
        "/after" => after(&mut socket).await,
        "/bad" => {
            let _ = socket.send(true, TEXT, b"first").await;
            let _ = socket.wire.write_all(&[0xc1, 1, b'x']).await;
            let _ = socket.wire.flush().await;
            while socket.wire.read_u8().await.is_ok() {}
        }
        // It says that it is over, and leaves it to the other to go.
        "/farewell" => {
            let _ = socket.send(true, CLOSE, &1000_u16.to_be_bytes()).await;
            while socket.wire.read_u8().await.is_ok() {}
        }
        "/cut" => {
            let _ = socket.wire.write_all(&[0x81, 10, b'x']).await;
            let _ = socket.wire.shutdown().await;
        }
        "/deaf" => std::future::pending().await,
        _ => echo(&mut socket).await,
    }
}

/// Gives every message back; ends after a close frame.
async fn echo(socket: &mut Socket) {
    while let Some((opcode, payload)) = socket.hear().await {
        if socket.send(true, opcode, &payload).await.is_err() || opcode == CLOSE {
            break;
        }
    }
    let _ = socket.wire.shutdown().await;
}

/// Says what it has heard once the other side has ended.
async fn after(socket: &mut Socket) {
    let mut heard = Vec::new();
    let _ = socket.wire.read_to_end(&mut heard).await;
    let _ = socket.send(true, TEXT, format!("heard {}", heard.len()).as_bytes()).await;
    let _ = socket.send(true, CLOSE, &1000_u16.to_be_bytes()).await;
    let _ = socket.wire.shutdown().await;
}

/// Says the credential in every way.
async fn tell(socket: &mut Socket, secret: &[u8]) {
    let text = [b"it is ", secret, b", is it not?"].concat();
    let _ = socket.send(true, TEXT, &text).await;
    for cut in [1, 10, text.len() / 2, text.len() - 14] {
        let _ = socket.send(false, TEXT, &text[..cut]).await;
        let _ = socket.send(true, PING, secret).await;
        let _ = socket.send(true, 0, &text[cut..]).await;
    }
    for piece in frame(false, true, BINARY, &text).chunks(5) {
        let _ = socket.wire.write_all(piece).await;
        let _ = socket.wire.flush().await;
        tokio::task::yield_now().await;
    }
    let _ = socket.send(true, CLOSE, &[&1008_u16.to_be_bytes()[..], secret].concat()).await;
    let _ = socket.wire.shutdown().await;
}
