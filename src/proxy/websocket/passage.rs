//! After the switch: bytes both ways until both sides have ended, somebody breaks off, nothing moves, or the nonce is
//! over.
//!
//! What upstream says is searched where answers are; what the agent says is relayed as it is. Each direction ends by
//! itself (half-close). Whatever is waited for, the lease and the clock are looked at too, so that sockets that nobody
//! reads are cut like others.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::Agreed;
use crate::audit::{Ending, Exchange};
use crate::proxy::accept::Connection;
use crate::proxy::inject::Tie;
use crate::proxy::pace::Busy;
use crate::proxy::scrub::{Frames, Needles, close};

/// What is read at once; with the pieces of `Frames` all the memory that a socket takes here.
const READ_BYTES: usize = 16 * 1024;

/// The status of a close frame for what is against the protocol (RFC 6455, 7.4.1).
const PROTOCOL_ERROR: u16 = 1002;

/// Two sides that are about to switch.
pub struct Opening {
    connection: Arc<Connection>,
    client: OnUpgrade,
    upstream: OnUpgrade,
    tie: Option<Arc<Tie>>,
    frames: Option<Frames>,
}

impl Opening {
    /// What upstream agreed to; searched where there are `needles`.
    pub fn new(agreed: Agreed, tie: Option<Arc<Tie>>, needles: Option<Needles>) -> Self {
        let Agreed { handshake, upstream } = agreed;
        let frames = needles.map(Frames::new);
        Self { connection: handshake.connection, client: handshake.client, upstream, tie, frames }
    }
}

/// Relays until the end. The exchange closes with it, and the places that it keeps are free again.
pub async fn pass(
    opening: Opening,
    mut exchange: Exchange,
    busy: Busy,
    idle_timeout: Duration,
    cutting: CancellationToken,
) {
    let Opening { connection, client, upstream, tie, frames } = opening;
    let tally = Tally::new();
    let ending = tokio::select! {
        // What ends it is asked first: a relay that is never at rest would leave no turn to it.
        biased;
        // The audit knows already.
        () = cutting.cancelled() => None,
        () = over(tie.as_deref()) => Some(Ending::Cut),
        () = tally.rests(idle_timeout) => Some(Ending::Cut),
        ending = relay(client, upstream, frames, &tally, tie.as_deref()) => Some(ending),
    };
    exchange.count_request(tally.sent.load(Ordering::Relaxed));
    exchange.count_response(tally.received.load(Ordering::Relaxed));
    if let Some(ending) = ending {
        exchange.end(ending);
    }
    drop((exchange, busy, connection));
}

async fn over(tie: Option<&Tie>) {
    match tie {
        Some(tie) => tie.membership.over().await,
        None => std::future::pending().await,
    }
}

/// What has moved, and when it last did.
struct Tally {
    begun: Instant,
    moved_milliseconds: AtomicU64,
    /// From the agent.
    sent: AtomicU64,
    /// To the agent.
    received: AtomicU64,
    /// Upstream's close frame is with the agent: nothing more can come.
    closed: AtomicBool,
}

impl Tally {
    fn new() -> Self {
        let zero = AtomicU64::default;
        Self {
            begun: Instant::now(),
            moved_milliseconds: zero(),
            sent: zero(),
            received: zero(),
            closed: AtomicBool::default(),
        }
    }

    fn moved(&self, counter: &AtomicU64, bytes: usize) {
        counter.fetch_add(bytes as u64, Ordering::Relaxed);
        let now = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.moved_milliseconds.store(now, Ordering::Relaxed);
    }

    /// Completes when neither direction has moved for the limit.
    async fn rests(&self, limit: Duration) {
        loop {
            let moved = self.begun + Duration::from_millis(self.moved_milliseconds.load(Ordering::Relaxed));
            if moved.elapsed() >= limit {
                return;
            }
            sleep_until(moved + limit).await;
        }
    }
}

/// Between two looks of [`over`] much can pass; so each piece asks. An answer that is on its way ends in the same way.
fn may_pass(tie: Option<&Tie>) -> Result<(), Ending> {
    if tie.is_some_and(|tie| tie.membership.is_cut()) { Err(Ending::Cut) } else { Ok(()) }
}

async fn relay(
    client: OnUpgrade,
    upstream: OnUpgrade,
    frames: Option<Frames>,
    tally: &Tally,
    tie: Option<&Tie>,
) -> Ending {
    // The agent's side comes once the answer is with it; upstream's is there.
    let Ok(client) = client.await else { return Ending::ClientGone };
    let Ok(upstream) = upstream.await else { return Ending::UpstreamBroke };
    let (client_read, client_write) = split(TokioIo::new(client));
    let (upstream_read, upstream_write) = split(TokioIo::new(upstream));
    let up = up(client_read, upstream_write, tally, tie);
    let down = Down { agent: client_write, frames, tally, tie }.run(upstream_read);
    tokio::pin!(up, down);
    let ended = tokio::select! {
        ended = &mut up => match ended {
            Ok(()) => down.await,
            Err(ending) => Err(ending),
        },
        ended = &mut down => {
            if ended.is_ok() {
                // Upstream has said all that it had to say: how the agent goes away is no matter any more.
                let _ = up.await;
            }
            ended
        }
    };
    match ended {
        Ok(()) => Ending::Complete,
        // Whoever has been told that it is over may go without waiting for the end of the connection.
        Err(Ending::ClientGone) if tally.closed.load(Ordering::Relaxed) => Ending::Complete,
        Err(ending) => ending,
    }
}

/// From the agent to upstream, as it is.
async fn up<R, W>(mut agent: R, mut upstream: W, tally: &Tally, tie: Option<&Tie>) -> Result<(), Ending>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(READ_BYTES);
        let count = agent.read_buf(&mut buffer).await.map_err(|_| Ending::ClientGone)?;
        may_pass(tie)?;
        let sent = if count == 0 { upstream.shutdown().await } else { write(&mut upstream, &buffer).await };
        // An upstream that takes nothing more may still have something to say: the other direction ends this.
        if count == 0 || sent.is_err() {
            return Ok(());
        }
        tally.moved(&tally.sent, count);
        buffer.clear();
    }
}

/// From upstream to the agent, searched where it can be.
struct Down<'a, W> {
    agent: W,
    frames: Option<Frames>,
    tally: &'a Tally,
    tie: Option<&'a Tie>,
}

impl<W: AsyncWrite + Unpin> Down<'_, W> {
    async fn run<R: AsyncRead + Unpin>(mut self, mut upstream: R) -> Result<(), Ending> {
        let mut buffer = BytesMut::new();
        loop {
            buffer.reserve(READ_BYTES);
            match upstream.read_buf(&mut buffer).await {
                Ok(0) => break,
                Ok(_) => self.deliver(buffer.split().freeze()).await?,
                // Many servers close the socket without a word from TLS once they have said it in a close frame.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && self.is_closed() => break,
                Err(_) => return Err(Ending::UpstreamBroke),
            }
        }
        if self.frames.as_ref().is_some_and(|frames| !frames.is_between_messages()) {
            return Err(Ending::UpstreamBroke);
        }
        self.agent.shutdown().await.map_err(|_| Ending::ClientGone)
    }

    async fn deliver(&mut self, piece: Bytes) -> Result<(), Ending> {
        let Some(frames) = &mut self.frames else { return self.send(&piece).await };
        let mut out = BytesMut::new();
        if let Err(fault) = frames.push(piece, &mut out) {
            tracing::debug!(error = %fault, "an upstream's WebSocket frame is against the protocol");
            out.extend_from_slice(&close(PROTOCOL_ERROR));
            self.send(&out).await?;
            let _ = self.agent.shutdown().await;
            return Err(Ending::UpstreamBroke);
        }
        let is_closed = frames.is_closed() && frames.is_between_messages();
        self.send(&out).await?;
        self.tally.closed.store(is_closed, Ordering::Relaxed);
        Ok(())
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), Ending> {
        may_pass(self.tie)?;
        write(&mut self.agent, bytes).await.map_err(|_| Ending::ClientGone)?;
        self.tally.moved(&self.tally.received, bytes.len());
        Ok(())
    }

    fn is_closed(&self) -> bool {
        self.frames.as_ref().is_some_and(Frames::is_closed)
    }
}

async fn write<W: AsyncWrite + Unpin>(to: &mut W, bytes: &[u8]) -> io::Result<()> {
    to.write_all(bytes).await?;
    to.flush().await
}
