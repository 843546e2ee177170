//! A connection that is too slow is closed: heads have a deadline, idleness has a limit.
//!
//! hyper knows one timeout for both; a head must be in within seconds, while a kept-alive connection may rest for
//! minutes. [`Paced`] watches the bytes, [`Pace`] is told when exchanges begin and end.
//!
//! - `framing`: since every byte of a client passes here, a length that is said twice is seen here too

mod framing;

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use framing::Framing;

/// What a connection is doing; shared between its socket and its exchanges.
#[derive(Debug)]
pub struct Pace {
    head_timeout: Duration,
    idle_timeout: Duration,
    protocol: Protocol,
    exchanges: AtomicUsize,
    in_head: AtomicBool,
    /// An exchange has ended since the socket last looked.
    has_rested: AtomicBool,
    /// What comes is no HTTP any more.
    has_switched: AtomicBool,
}

/// What bytes mean while no exchange is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1: a head has begun.
    Http1,
    /// HTTP/2: anything, mostly a ping or a window update. They neither begin a head nor keep the connection alive.
    Http2,
}

impl Pace {
    /// A fresh connection: its first head (or handshake) is due within `head_timeout`.
    #[must_use]
    pub fn new(protocol: Protocol, head_timeout: Duration, idle_timeout: Duration) -> Arc<Self> {
        Arc::new(Self {
            head_timeout,
            idle_timeout,
            protocol,
            exchanges: AtomicUsize::new(0),
            in_head: AtomicBool::new(true),
            has_rested: AtomicBool::new(false),
            has_switched: AtomicBool::new(false),
        })
    }

    /// A head has arrived; the exchange lasts until the guard is dropped.
    #[must_use]
    pub fn begin(self: &Arc<Self>) -> Busy {
        self.exchanges.fetch_add(1, Ordering::AcqRel);
        self.in_head.store(false, Ordering::Release);
        Busy(self.clone())
    }

    /// How long the connection may stay silent now; `None` while an exchange (with limits of its own) is under way.
    fn patience(&self) -> Option<Duration> {
        if !self.is_idle() {
            None
        } else if self.in_head.load(Ordering::Acquire) {
            Some(self.head_timeout)
        } else {
            Some(self.idle_timeout)
        }
    }

    /// Bytes came while nothing was under way: a head has begun. True if this is its first byte.
    fn head_begins(&self) -> bool {
        match self.protocol {
            Protocol::Http1 => self.is_idle() && !self.in_head.swap(true, Ordering::AcqRel),
            Protocol::Http2 => false,
        }
    }

    /// The end of an answer still goes out, although its exchange is over: that shows that something moves. While one is
    /// under way nobody asks, since the rest begins at its end.
    fn is_moved_by_writing(&self) -> bool {
        match self.protocol {
            Protocol::Http1 => self.is_idle() && !self.in_head.load(Ordering::Acquire),
            Protocol::Http2 => false,
        }
    }

    fn is_idle(&self) -> bool {
        self.exchanges.load(Ordering::Acquire) == 0
    }

    /// True once after each end of an exchange: the rest begins there.
    fn rest_begins(&self) -> bool {
        self.has_rested.swap(false, Ordering::AcqRel)
    }
}

/// An exchange under way on a connection.
#[derive(Debug)]
pub struct Busy(Arc<Pace>);

impl Busy {
    /// For something else of the exchange that may last longer.
    pub(super) fn again(&self) -> Self {
        self.0.begin()
    }

    /// Behind this exchange the connection speaks something else than HTTP. To be said before the agent hears of it.
    pub(super) fn switches(&self) {
        self.0.has_switched.store(true, Ordering::Release);
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.exchanges.fetch_sub(1, Ordering::AcqRel);
        self.0.has_rested.store(true, Ordering::Release);
    }
}

/// A byte stream that fails with `TimedOut` when its [`Pace`] runs out.
#[derive(Debug)]
pub struct Paced<S> {
    stream: S,
    pace: Arc<Pace>,
    since: Instant,
    alarm: Pin<Box<Sleep>>,
    /// Where messages of HTTP/1.1 begin and end.
    framing: Option<Framing>,
}

impl<S> Paced<S> {
    /// Watches a stream; the time starts now.
    pub fn new(stream: S, pace: Arc<Pace>) -> Self {
        let since = Instant::now();
        let alarm = Box::pin(sleep_until(since + pace.head_timeout));
        let framing = match pace.protocol {
            Protocol::Http1 => Some(Framing::default()),
            Protocol::Http2 => None,
        };
        Self { stream, pace, since, alarm, framing }
    }

    /// The stream itself.
    pub fn into_inner(self) -> S {
        self.stream
    }

    /// Looks at what was read, as long as it is HTTP/1.1.
    fn watch(&mut self, fresh: &mut [u8]) {
        if self.pace.has_switched.load(Ordering::Acquire) {
            self.framing = None;
        }
        if let Some(framing) = &mut self.framing {
            framing.watch(fresh);
        }
    }

    /// Looks at the clock while the stream has nothing for us.
    fn poll_patience(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.pace.rest_begins() {
            self.since = Instant::now();
        }
        loop {
            let limit = self.pace.patience();
            // An exchange ends without telling us; look again after at most an idle period.
            let due = self.since + limit.unwrap_or(self.pace.idle_timeout);
            if self.alarm.deadline() != due {
                self.alarm.as_mut().reset(due);
            }
            if self.alarm.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if limit.is_some() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            self.since = Instant::now();
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        match Pin::new(&mut self.stream).poll_read(cx, buf) {
            Poll::Ready(outcome) => {
                self.watch(&mut buf.filled_mut()[before..]);
                // Within a head the time runs on from its first byte: dribbling does not help.
                if self.pace.head_begins() {
                    self.since = Instant::now();
                }
                Poll::Ready(outcome)
            }
            Poll::Pending => self.poll_patience(cx),
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        if written.is_ready() && self.pace.is_moved_by_writing() {
            self.since = Instant::now();
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        if written.is_ready() && self.pace.is_moved_by_writing() {
            self.since = Instant::now();
        }
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const HEAD: Duration = Duration::from_secs(10);
    const IDLE: Duration = Duration::from_secs(300);

    #[tokio::test(start_paused = true)]
    async fn a_dribbled_head_is_cut_at_its_deadline() {
        let (mut client, server) = tokio::io::duplex(64);
        let mut server = Paced::new(server, Pace::new(Protocol::Http1, HEAD, IDLE));
        let begun = Instant::now();
        let dribble = tokio::spawn(async move {
            loop {
                if client.write_all(b"x").await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
        let mut byte = [0];
        let error = loop {
            if let Err(error) = server.read_exact(&mut byte).await {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(begun.elapsed().as_secs(), 10);
        drop(server);
        dribble.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_may_rest_and_a_busy_one_has_no_limit_here() {
        let (mut client, server) = tokio::io::duplex(64);
        let pace = Pace::new(Protocol::Http1, HEAD, IDLE);
        let mut server = Paced::new(server, pace.clone());
        client.write_all(b"GET").await.unwrap();
        server.read_exact(&mut [0; 3]).await.unwrap();
        let busy = pace.begin();
        let nothing = tokio::time::timeout(Duration::from_secs(900), server.read_exact(&mut [0])).await;
        assert!(nothing.is_err(), "a thinking upstream is not an idle connection");
        drop(busy);
        let begun = Instant::now();
        let error = server.read_exact(&mut [0]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!((1..=300).contains(&begun.elapsed().as_secs()));
    }

    #[tokio::test(start_paused = true)]
    async fn the_second_head_has_its_own_deadline() {
        let (mut client, server) = tokio::io::duplex(64);
        let pace = Pace::new(Protocol::Http1, HEAD, IDLE);
        let mut server = Paced::new(server, pace.clone());
        client.write_all(b"a").await.unwrap();
        server.read_exact(&mut [0]).await.unwrap();
        drop(pace.begin());
        tokio::time::sleep(Duration::from_secs(100)).await;
        client.write_all(b"b").await.unwrap();
        server.read_exact(&mut [0]).await.unwrap();
        let begun = Instant::now();
        assert_eq!(server.read_exact(&mut [0]).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(begun.elapsed().as_secs(), 10);
    }
    #[tokio::test(start_paused = true)]
    async fn pings_on_http2_begin_no_head_and_end_no_rest() {
        let (mut client, server) = tokio::io::duplex(64);
        let pace = Pace::new(Protocol::Http2, HEAD, IDLE);
        let mut server = Paced::new(server, pace.clone());
        drop(pace.begin());
        let begun = Instant::now();
        let pinging = tokio::spawn(async move {
            while client.write_all(b"p").await.is_ok() {
                tokio::time::sleep(Duration::from_secs(20)).await;
            }
        });
        let error = loop {
            if let Err(error) = server.read_exact(&mut [0]).await {
                break error;
            }
            server.write_all(b"q").await.ok();
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(begun.elapsed().as_secs(), 300);
        drop(server);
        pinging.await.unwrap();
    }
}
