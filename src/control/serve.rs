//! Accepting and serving connections within limits: one loop for the control socket and for the admin listener.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{Request, Response};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::events::AnswerBody;
use super::inbound::Inbound;

/// How long `accept` rests after the system refused it (no descriptors left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Header fields of one request at most.
const HEADERS_MAX: usize = 64;
/// Bytes of one request's head at most.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// An answer of either listener: whole in memory, since all of them are bounded, but for streams of events.
pub(super) type Answer = Response<AnswerBody>;

/// What one listener puts up with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Connections at once; more wait to be accepted.
    pub(super) connections_max: usize,
    /// For a whole request head, and for a connection that stays idle between requests.
    pub(super) head_timeout: Duration,
    /// For a connection: after it the present request is finished and the connection closed.
    pub(super) connection_age_max: Duration,
    /// How long the present request may take once the connection is to close; then it is cut.
    pub(super) drain_timeout: Duration,
}

/// A listening socket.
pub(super) trait Listener: Send + Sync + 'static {
    /// Its connections.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    /// The next one.
    fn accept(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Listener for UnixListener {
    type Stream = UnixStream;
    async fn accept(&self) -> io::Result<UnixStream> {
        UnixListener::accept(self).await.map(|(stream, _)| stream)
    }
}

impl Listener for TcpListener {
    type Stream = TcpStream;
    async fn accept(&self) -> io::Result<TcpStream> {
        let (stream, _) = TcpListener::accept(self).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

/// What answers the requests of a listener.
pub(super) trait Service<Stream>: Send + Sync + 'static {
    /// What is known of a connection's other end.
    type Caller: Send + Sync + 'static;
    /// What its requests are read from.
    type Io: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    /// Looks at a connection once, before its first request is read; `None` ends it.
    fn greet(&self, stream: Stream) -> impl Future<Output = Option<(Self::Caller, Self::Io)>> + Send;
    /// Answers one request; a connection has one at a time.
    fn answer(&self, caller: &Self::Caller, request: Request<Inbound>) -> impl Future<Output = Answer> + Send;
}

/// Serves until `shutdown`, then lets present requests finish within the drain timeout.
pub(super) async fn run<L, S>(listener: L, service: Arc<S>, limits: Limits, shutdown: CancellationToken)
where
    L: Listener,
    S: Service<L::Stream>,
{
    let places = Arc::new(Semaphore::new(limits.connections_max));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, stream) = tokio::select! {
            () = shutdown.cancelled() => break,
            (place, stream) = next => (place, stream),
        };
        match stream {
            Ok(stream) => {
                let connection = connection(stream, Arc::clone(&service), limits, shutdown.clone());
                connections.spawn(async move {
                    connection.await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// One connection: HTTP/1.1, one request after the other, until it is closed, too old, or we stop.
async fn connection<T, S>(stream: T, service: Arc<S>, limits: Limits, shutdown: CancellationToken)
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<T>,
{
    let greeted = tokio::select! {
        greeted = service.greet(stream) => greeted,
        () = shutdown.cancelled() => None,
    };
    let Some((caller, stream)) = greeted else { return };
    let is_streaming = AtomicBool::new(false);
    let answer = |request| {
        let answer = service.answer(&caller, Inbound::of(request));
        async {
            let answer = answer.await;
            is_streaming.store(answer.body().is_endless(), Ordering::Relaxed);
            Ok::<_, Infallible>(answer)
        }
    };
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_timeout)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .keep_alive(true)
        .half_close(false)
        .pipeline_flush(false)
        .serve_connection(TokioIo::new(stream), service_fn(answer));
    let mut served = std::pin::pin!(served);
    let closed = tokio::select! {
        closed = served.as_mut() => Some(closed),
        () = shutdown.cancelled() => None,
        () = sleep(limits.connection_age_max) => None,
    };
    let closed = match closed {
        Some(closed) => closed,
        None => {
            served.as_mut().graceful_shutdown();
            // A stream of events is no answer that takes too long: it goes on until its reader leaves or we stop.
            let patience = async {
                if is_streaming.load(Ordering::Relaxed) {
                    shutdown.cancelled().await;
                }
                sleep(limits.drain_timeout).await;
            };
            tokio::select! {
                closed = served => closed,
                () = patience => Ok(()),
            }
        }
    };
    if let Err(error) = closed {
        tracing::debug!(%error, "a connection ended badly");
    }
}
