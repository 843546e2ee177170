//! Two byte streams between which nothing may rest longer than a limit.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional};
use tokio::time::{Instant, sleep_until};

/// What has moved between two streams; counted also where the relay was cut.
#[derive(Debug, Default)]
pub struct Moved {
    /// Bytes from the first to the second.
    pub sent: AtomicU64,
    /// Bytes from the second to the first.
    pub received: AtomicU64,
}

impl Moved {
    fn total(&self) -> u64 {
        self.sent.load(Ordering::Relaxed).wrapping_add(self.received.load(Ordering::Relaxed))
    }
}

/// Relays in both directions until both have ended; a direction that ends first is shut down alone.
///
/// # Errors
/// `TimedOut` when nothing has moved in either direction for the limit, and whatever the streams say.
pub async fn relay<A, B>(a: &mut A, b: &mut B, limit: Duration, moved: &Moved) -> io::Result<()>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    // Outside of the copying: a direction that has ended is not polled any more, so that no stream could watch alone.
    let (mut a, mut b) = (Counted { stream: a, count: &moved.sent }, Counted { stream: b, count: &moved.received });
    tokio::select! {
        copied = copy_bidirectional(&mut a, &mut b) => copied.map(|_| ()),
        () = rests(moved, limit) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// Over when nothing has moved for the limit, or for a little longer: nobody says when something does.
async fn rests(moved: &Moved, limit: Duration) {
    let look_every = limit / 4;
    let (mut seen, mut since) = (moved.total(), Instant::now());
    loop {
        sleep_until(Instant::now() + look_every).await;
        let total = moved.total();
        if total != seen {
            (seen, since) = (total, Instant::now());
        } else if since.elapsed() >= limit {
            return;
        }
    }
}

/// Counts what is read of a stream.
struct Counted<'a, S> {
    stream: &'a mut S,
    count: &'a AtomicU64,
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<'_, S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut *self.stream).poll_read(cx, buf);
        self.count.fetch_add((buf.filled().len() - before) as u64, Ordering::Relaxed);
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<'_, S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    const LIMIT: Duration = Duration::from_secs(300);

    #[tokio::test(start_paused = true)]
    async fn silence_below_the_limit_is_kept_and_above_it_is_cut() {
        let ((mut client, mut a), (mut b, mut server)) = (duplex(64), duplex(64));
        let begun = Instant::now();
        let relaying = tokio::spawn(async move { relay(&mut a, &mut b, LIMIT, &Moved::default()).await });
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_secs(290)).await;
            client.write_all(b"x").await.unwrap();
            server.read_exact(&mut [0]).await.unwrap();
        }
        assert_eq!(relaying.await.unwrap().unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!((1170..1350).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn one_direction_may_end_and_the_limit_still_holds() {
        let ((mut client, mut a), (mut b, mut server)) = (duplex(64), duplex(64));
        let relaying = tokio::spawn(async move {
            let moved = Moved::default();
            (relay(&mut a, &mut b, LIMIT, &moved).await.map_err(|error| error.kind()), moved.total())
        });
        client.write_all(b"ask").await.unwrap();
        client.shutdown().await.unwrap();
        let mut asked = String::new();
        server.read_to_string(&mut asked).await.unwrap();
        server.write_all(b"answer").await.unwrap();
        client.read_exact(&mut [0; 6]).await.unwrap();
        assert_eq!(relaying.await.unwrap(), (Err(io::ErrorKind::TimedOut), 9));
        assert_eq!(asked, "ask");
    }
}
