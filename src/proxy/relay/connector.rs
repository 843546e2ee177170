//! Dials and verifies an upstream before anything is sent to it.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::heads::Counted;
use super::parent::Parent;
use crate::model::{Destination, Scheme, ServiceName};
use crate::net::{DialError, Dialer, Reach};
use crate::proxy::flow::IdleAlarm;

/// How each service's upstreams are verified. No service resumes another's sessions: an upstream must not learn from
/// them that two credentials belong together.
pub struct TlsProfiles {
    /// System roots and the service's `upstream_ca`, and the service's own memory of sessions.
    pub own: HashMap<ServiceName, Arc<ClientConfig>>,
}

impl TlsProfiles {
    /// The configuration of a service.
    #[must_use]
    pub fn of(&self, service: &ServiceName) -> Option<Arc<ClientConfig>> {
        self.own.get(service).cloned()
    }
}

/// Why no connection was made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectFault {
    /// No TCP connection.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The TLS handshake failed: mostly a certificate that is not the host's.
    #[error("the upstream's TLS handshake failed")]
    Tls,
    /// It took too long.
    #[error("the upstream took too long to connect")]
    Timeout,
    /// What came of it speaks no HTTP.
    #[error("the upstream speaks no HTTP")]
    Http,
    /// The parent proxy refused the tunnel, or is none.
    #[error("the upstream proxy made no tunnel")]
    Parent,
    /// The parent proxy's own credential cannot be had.
    #[error("the credential of the upstream proxy cannot be had")]
    Credential,
}

/// How many reads an upstream gets before whoever waits for what it said has a turn. The library reads on for as long as
/// there is something, and keeps each interim head (1xx) until then: a flood of small ones takes a hundred times its size.
const READS_PER_TURN: u8 = 8;

/// Connects to the one destination of a pool. A URI is not looked at: the destination was judged.
#[derive(Clone)]
pub struct Connector {
    pub(super) dialer: Arc<Dialer>,
    /// The proxy to go through, where there is one and the destination may.
    pub(super) parent: Option<Arc<Parent>>,
    pub(super) destination: Destination,
    pub(super) scheme: Scheme,
    pub(super) reach: Reach,
    pub(super) tls: Arc<ClientConfig>,
    pub(super) timeout: Duration,
    /// How long an upstream may take nothing of what is written to it.
    pub(super) idle_timeout: Duration,
}

impl Connector {
    /// The same, for what HTTP/2 cannot carry: the same trust, and HTTP/1.1 the only protocol on offer.
    pub(super) fn http1_only(mut self) -> Self {
        let mut tls = ClientConfig::clone(&self.tls);
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        self.tls = Arc::new(tls);
        self
    }

    pub(super) async fn connect(self) -> Result<Socket, ConnectFault> {
        let timeout = self.timeout;
        tokio::time::timeout(timeout, self.dial_and_verify()).await.map_err(|_| ConnectFault::Timeout)?
    }

    async fn dial_and_verify(self) -> Result<Socket, ConnectFault> {
        let stall = Stall::new(self.idle_timeout);
        let (stream, address) = match &self.parent {
            Some(parent) => parent.tunnel(&self.dialer, &self.destination).await?,
            None => self.dialer.dial(&self.destination, self.reach).await?,
        };
        let leg = match self.scheme {
            Scheme::Http => Leg::Clear(TokioIo::new(stream)),
            Scheme::Https => {
                let name = ServerName::try_from(self.destination.host.as_str().to_owned());
                let name = name.map_err(|_| ConnectFault::Tls)?;
                let verified = TlsConnector::from(self.tls).connect(name, stream).await.map_err(|error| {
                    // rustls says what was wrong with the certificate, never what was sent.
                    tracing::warn!(destination = %self.destination, error = %error, "upstream TLS failed");
                    ConnectFault::Tls
                })?;
                let is_h2 = verified.get_ref().1.alpn_protocol() == Some(b"h2");
                Leg::Tls(Box::new(TokioIo::new(Counted::new(verified, is_h2))))
            }
        };
        Ok(Socket { leg, address, is_deaf: false, stall, reads: 0 })
    }
}

/// A connected upstream.
pub struct Socket {
    leg: Leg,
    pub(super) address: SocketAddr,
    /// The upstream takes no more. It may have answered before it closed, and the library, told of a failed write, would
    /// not look: so that the rest is thrown away, and reading tells the end.
    is_deaf: bool,
    stall: Stall,
    /// How many reads in a row found something.
    reads: u8,
}

impl Socket {
    /// Whether HTTP/2 was agreed on.
    pub(super) fn is_h2(&self) -> bool {
        match &self.leg {
            Leg::Tls(stream) => stream.inner().is_h2(),
            Leg::Clear(_) => false,
        }
    }

    /// What came of writing `length` bytes.
    fn written(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
        length: usize,
    ) -> Poll<io::Result<usize>> {
        match self.stall.watch(cx, written) {
            Poll::Ready(Err(error)) if is_hung_up(&error) => {
                self.is_deaf = true;
                Poll::Ready(Ok(length))
            }
            other => other,
        }
    }

    fn flushed(&mut self, cx: &mut Context<'_>, flushed: Poll<io::Result<()>>) -> Poll<io::Result<()>> {
        match self.stall.watch(cx, flushed) {
            Poll::Ready(Err(error)) if is_hung_up(&error) => {
                self.is_deaf = true;
                Poll::Ready(Ok(()))
            }
            other => other,
        }
    }
}

/// Writes that wait for too long: while the library waits for a socket, it does not look at the body, whose own limit of
/// idleness is then of no use.
struct Stall(IdleAlarm);

impl Stall {
    fn new(limit: Duration) -> Self {
        Self(IdleAlarm::new(limit))
    }

    fn watch<T>(&mut self, cx: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match outcome {
            Poll::Pending => self.0.poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into())),
            ready @ Poll::Ready(_) => {
                self.0.moved();
                ready
            }
        }
    }
}

fn is_hung_up(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

enum Leg {
    Clear(TokioIo<TcpStream>),
    Tls(Box<TokioIo<Counted<TlsStream<TcpStream>>>>),
}

impl Read for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        if self.reads >= READS_PER_TURN {
            self.reads = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let read = match &mut self.leg {
            Leg::Clear(stream) => Pin::new(stream).poll_read(cx, buf),
            Leg::Tls(stream) => Pin::new(stream.as_mut()).poll_read(cx, buf),
        };
        self.reads = if read.is_pending() { 0 } else { self.reads + 1 };
        read
    }
}

impl Write for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_deaf {
            return Poll::Ready(Ok(buf.len()));
        }
        let written = match &mut self.leg {
            Leg::Clear(stream) => Pin::new(stream).poll_write(cx, buf),
            Leg::Tls(stream) => Pin::new(stream.as_mut()).poll_write(cx, buf),
        };
        self.written(cx, written, buf.len())
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_deaf {
            return Poll::Ready(Ok(()));
        }
        let flushed = match &mut self.leg {
            Leg::Clear(stream) => Pin::new(stream).poll_flush(cx),
            Leg::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
        };
        self.flushed(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.leg {
            Leg::Clear(stream) => Pin::new(stream).poll_shutdown(cx),
            Leg::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.leg {
            Leg::Clear(stream) => stream.is_write_vectored(),
            Leg::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = bufs.iter().map(|buf| buf.len()).sum();
        if self.is_deaf {
            return Poll::Ready(Ok(length));
        }
        let written = match &mut self.leg {
            Leg::Clear(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Leg::Tls(stream) => Pin::new(stream.as_mut()).poll_write_vectored(cx, bufs),
        };
        self.written(cx, written, length)
    }
}
