//! A proxy on the loopback that answers everything itself and remembers who came how far.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use crate::authority::Authority;
use crate::model::Destination;

/// Largest head of a request that is read, in bytes.
const HEAD_BYTES_MAX: usize = 32 * 1024;
/// Connections at once; more wait.
const CONNECTIONS_MAX: usize = 64;
/// How long one connection may take in all.
const CONNECTION_MAX: Duration = Duration::from_secs(60);
/// Hosts that are remembered: far more than there are clients.
const HOSTS_MAX: usize = 256;
/// Enough of an answer for every client: none of them needs more than to have asked.
const ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}";
const REFUSED: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// How far a client came, by the host that it asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// It asked the proxy for a tunnel.
    pub(super) proxy: bool,
    /// It sent a request within TLS, so it trusts our CA.
    pub(super) request: bool,
}

/// What was seen, by host.
#[derive(Debug, Default)]
pub(super) struct Book(Mutex<BTreeMap<String, Seen>>);

impl Book {
    /// How far the client with this host came.
    pub(super) fn of(&self, host: &str) -> Seen {
        self.0.lock().get(host).copied().unwrap_or_default()
    }

    fn note(&self, host: &str, change: impl FnOnce(&mut Seen)) {
        let mut book = self.0.lock();
        if book.len() < HOSTS_MAX || book.contains_key(host) {
            change(book.entry(host.to_owned()).or_default());
        }
    }
}

/// A socket for the proxy, at a port of the system's choice.
pub(super) async fn bind() -> io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// Accepts until it is dropped.
pub(super) async fn serve(listener: TcpListener, authority: Arc<Authority>, book: Arc<Book>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        // The semaphore is never closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let Ok((socket, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let (authority, book) = (Arc::clone(&authority), Arc::clone(&book));
        tokio::spawn(async move {
            // What a client does to its connection is in the book; an error says nothing more.
            let _ = tokio::time::timeout(CONNECTION_MAX, connection(socket, &authority, &book)).await;
            drop(place);
        });
    }
}

async fn connection(mut socket: TcpStream, authority: &Authority, book: &Book) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let head = head(&mut socket).await?;
    let Some(destination) = tunnel(&head) else {
        socket.write_all(REFUSED).await?;
        return socket.shutdown().await;
    };
    let name = destination.host.as_str();
    book.note(name, |seen| seen.proxy = true);
    let Ok(config) = authority.server_config(&destination.host) else { return socket.write_all(REFUSED).await };
    // One protocol is enough to see a request, and HTTP/1.1 is the one that all speak.
    let mut config = rustls::ServerConfig::clone(&config);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    socket.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
    let mut secured = TlsAcceptor::from(Arc::new(config)).accept(socket).await?;
    self::head(&mut secured).await?;
    book.note(name, |seen| seen.request = true);
    secured.write_all(ANSWER).await?;
    secured.shutdown().await
}

/// Everything up to the empty line.
async fn head(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    while memchr::memmem::find(&head, b"\r\n\r\n").is_none() {
        if head.len() >= HEAD_BYTES_MAX || from.read_buf(&mut head).await? == 0 {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
    Ok(head)
}

/// Where a `CONNECT` wants to go.
fn tunnel(head: &[u8]) -> Option<Destination> {
    let line = head.split(|byte| *byte == b'\r').next().and_then(|line| std::str::from_utf8(line).ok())?;
    let mut words = line.split(' ');
    let authority = (words.next() == Some("CONNECT")).then(|| words.next()).flatten()?;
    Destination::parse(authority, None).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_tunnel_with_a_destination_is_taken() {
        let of = |head: &str| tunnel(head.as_bytes()).map(|destination| destination.to_string());
        assert_eq!(of("CONNECT a.invalid:443 HTTP/1.0\r\n\r\n").as_deref(), Some("a.invalid:443"));
        for head in ["GET http://a.invalid/ HTTP/1.1\r\n\r\n", "CONNECT a.invalid HTTP/1.1\r\n\r\n", "CONNECT\r\n", ""]
        {
            assert_eq!(of(head), None, "{head:?}");
        }
    }

    #[test]
    fn the_book_is_bounded() {
        let book = Book::default();
        for number in 0..2 * HOSTS_MAX {
            book.note(&number.to_string(), |seen| seen.proxy = true);
        }
        assert_eq!(book.0.lock().len(), HOSTS_MAX);
        assert!(book.of("0").proxy && !book.of("0").request);
        assert_eq!(book.of("none"), Seen::default());
    }
}
