//! Sockets in: limits, timeouts, drain.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::time::{Duration, Instant};

use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::HttpService;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::crowd::{Caller, Crowd, Seat};
use super::fair;
use super::flow::Body;
use super::outer::{self, OuterTls};
use super::pace::{Pace, Paced, Protocol};
use super::socket::Socket;
use super::{HYPER_HEADERS_MAX, Limits, Proxy, connect, refuse, transparent};
use crate::audit::Event;
use crate::clock::{Clock, SystemClock};
use crate::identity::{self, Shown};
use crate::metrics::Metrics;
use crate::model::{AgentName, Denial, Destination, Identity, Now};
use crate::net::intercept::Interception;

/// How long accepting rests when the system has no file or memory for another connection.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);

/// How often it is said that accepting fails.
const ACCEPT_TOLD_EVERY: Duration = Duration::from_secs(10);

/// How long the kernel may take to take a refusal of a fresh connection.
const TOLD_WITHIN: Duration = Duration::from_millis(100);

/// How clients come to a listener.
#[derive(Debug, Clone)]
pub enum Entrance {
    /// On purpose: it is their proxy.
    Proxy,
    /// The same, over TLS.
    Tls(Arc<OuterTls>),
    /// Unknowingly: their connections to elsewhere are redirected here.
    Transparent(Interception),
}

/// One client connection; tunnels and exchanges on it share this.
#[derive(Debug)]
pub struct Connection {
    /// Its number in this process.
    pub id: u64,
    /// The client's address.
    pub peer: SocketAddr,
    /// When it was accepted.
    pub opened: Now,
    local: SocketAddr,
    owner: OnceLock<Option<Identity>>,
    /// Set where the connection itself is TLS: what the client has shown in its handshake, if anything.
    encrypted: OnceLock<Option<Arc<Shown>>>,
    place: Place,
    /// Its place among those of its agent, once a nonce was accepted on it.
    belongs: OnceLock<fair::Place>,
}

impl Connection {
    fn new(peer: SocketAddr, local: SocketAddr, place: Place) -> Arc<Self> {
        Self::of(peer, local, OnceLock::new(), place)
    }

    /// One that was going to `original`. Its owner is asked for now: later another socket could have its addresses.
    pub(super) fn redirected(peer: SocketAddr, original: SocketAddr, place: Place) -> Arc<Self> {
        Self::of(peer, original, OnceLock::from(identity::redirected_owner(peer, original)), place)
    }

    /// One without a socket, of which nobody is the owner.
    pub(super) fn of_nobody() -> Arc<Self> {
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        Self::of(nowhere, nowhere, OnceLock::from(None), Place::of_nobody())
    }

    fn of(peer: SocketAddr, local: SocketAddr, owner: OnceLock<Option<Identity>>, place: Place) -> Arc<Self> {
        static NUMBER: AtomicU64 = AtomicU64::new(1);
        let id = NUMBER.fetch_add(1, Ordering::Relaxed);
        let opened = SystemClock.now();
        Arc::new(Self { id, peer, opened, local, owner, encrypted: OnceLock::new(), place, belongs: OnceLock::new() })
    }

    /// From here on everything on it is read from TLS; the client has shown this.
    pub(super) fn encrypted(&self, shown: Option<Arc<Shown>>) {
        let _ = self.encrypted.set(shown);
    }

    /// True where nobody else can read what the client sends to us.
    pub(super) fn is_encrypted(&self) -> bool {
        self.encrypted.get().is_some()
    }

    /// The certificate that the client has shown.
    pub(super) fn shown(&self) -> Option<&Arc<Shown>> {
        self.encrypted.get().and_then(Option::as_ref)
    }

    /// A place for a request that came on it, with a nonce of this agent or with none.
    ///
    /// # Errors
    /// [`Denial::TooManyAtOnce`], [`Denial::Overloaded`].
    pub(super) fn admit(&self, agent: Option<&AgentName>) -> Result<fair::Place, Denial> {
        let crowd = &self.place.crowd;
        agent.map_or(Ok(()), |agent| crowd.belongs(&self.belongs, agent))?;
        crowd.request(&agent.cloned())
    }

    /// True if its caller may have it beside those of others.
    fn is_seated(&self) -> bool {
        let seat = self.place.crowd.connection(|| Caller::of(self.owner(), self.peer.ip()));
        seat.is_some_and(|seat| self.place.seat.set(seat).is_ok())
    }

    /// Who owns the other end, as far as it can be proven. Asked once, and only when a rule needs it.
    pub fn owner(&self) -> Option<&Identity> {
        self.owner.get_or_init(|| identity::loopback_owner(self.peer, self.local)).as_ref()
    }

    /// The owner, if somebody has asked already.
    pub fn known_owner(&self) -> Option<&Identity> {
        self.owner.get().and_then(Option::as_ref)
    }
}

/// Accepts until `shutdown`.
pub(super) async fn run(
    proxy: &Arc<Proxy>,
    listeners: Vec<(TcpListener, Entrance)>,
    places: Arc<Semaphore>,
    shutdown: CancellationToken,
) {
    let mut told: Option<Instant> = None;
    let mut turn = 0_usize;
    loop {
        turn = turn.wrapping_add(1);
        let next = async {
            let place = places.clone().acquire_owned().await;
            (place, accept(&listeners, turn).await)
        };
        let (place, accepted) = tokio::select! {
            next = next => next,
            () = shutdown.cancelled() => break,
        };
        match accepted {
            Ok((stream, peer, entrance)) => {
                let Ok(permit) = place else { break };
                let place = Place::new(permit, proxy);
                let proxy = proxy.clone();
                let tasks = proxy.tasks.clone();
                // Boxed, because what a task is made of is copied several times while it is spawned.
                tasks.spawn(Box::pin(async move {
                    let cut = proxy.cutting.clone();
                    tokio::select! {
                        biased; // at each turn of a connection: drawing lots has its price
                        () = handle(proxy, stream, peer, place, entrance) => {}
                        () = cut.cancelled() => {}
                    }
                }));
            }
            Err(error) => {
                // Without files left this comes many times a second.
                if told.is_none_or(|at| at.elapsed() >= ACCEPT_TOLD_EVERY) {
                    told = Some(Instant::now());
                    tracing::warn!(error = %error, "cannot accept connections; trying again until it works");
                }
                tokio::time::sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
}

/// The next connection of any listener; the first to be asked is another one each turn, so that none starves.
async fn accept(listeners: &[(TcpListener, Entrance)], turn: usize) -> io::Result<(TcpStream, SocketAddr, Entrance)> {
    poll_fn(|cx| {
        let (after, before) = listeners.split_at(turn % listeners.len().max(1));
        for (listener, entrance) in before.iter().chain(after) {
            if let Poll::Ready(accepted) = listener.poll_accept(cx) {
                return Poll::Ready(accepted.map(|(stream, peer)| (stream, peer, entrance.clone())));
            }
        }
        Poll::Pending
    })
    .await
}

async fn handle(proxy: Arc<Proxy>, stream: TcpStream, peer: SocketAddr, place: Place, entrance: Entrance) {
    let Ok(local) = stream.set_nodelay(true).and_then(|()| stream.local_addr()) else { return };
    let (connection, original) = match &entrance {
        Entrance::Proxy | Entrance::Tls(_) => (Connection::new(peer, local, place), None),
        Entrance::Transparent(interception) => {
            let original = transparent::original(&proxy, &stream, local, *interception);
            (Connection::redirected(peer, original.unwrap_or(local), place), original)
        }
    };
    if !connection.is_seated() {
        return Box::pin(turn_away(&proxy, stream, &connection, &entrance)).await;
    }
    match entrance {
        Entrance::Proxy => explicit(proxy, Socket::Clear(stream), connection).await,
        Entrance::Tls(tls) => Box::pin(outer::run(proxy, stream, connection, tls)).await,
        Entrance::Transparent(_) => Box::pin(transparent::run(proxy, stream, connection, original)).await,
    }
}

/// Closes a connection of a caller that has its share, at once: to wait for what it asks would take the place that others
/// are to find. Who expects HTTP in clear text is told why.
async fn turn_away(proxy: &Proxy, mut stream: TcpStream, connection: &Connection, entrance: &Entrance) {
    let response = connect::refused(proxy, connection, None, &Denial::TooManyAtOnce);
    if matches!(entrance, Entrance::Proxy) {
        let head = refuse::head(&response);
        let _ = tokio::time::timeout(TOLD_WITHIN, stream.write_all(&head)).await;
        // What is unread when it is closed would take the answer away with it.
        let _ = stream.try_read(&mut [0; 4096]);
        let _ = stream.shutdown().await;
    }
}

/// Serves a client that knows us for its proxy.
pub(super) async fn explicit(proxy: Arc<Proxy>, stream: Socket, connection: Arc<Connection>) {
    let pace = proxy.pace(Protocol::Http1);
    let io = TokioIo::new(Paced::new(stream, pace.clone()));
    let service = {
        let (proxy, connection) = (proxy.clone(), connection.clone());
        hyper::service::service_fn(move |request| {
            let (proxy, connection, busy) = (proxy.clone(), connection.clone(), pace.begin());
            async move { Ok::<_, std::convert::Infallible>(connect::front(proxy, connection, request, busy).await) }
        })
    };
    serve_h1(&proxy, &connection, None, io, service).await;
}

/// A connection's place among the many: taken, and counted, until the last of its tunnels and exchanges is over.
pub(super) struct Place {
    metrics: Arc<Metrics>,
    crowd: Arc<Crowd>,
    /// That of its caller, once it has one.
    seat: OnceLock<Seat>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Place {
    fn new(permit: OwnedSemaphorePermit, proxy: &Proxy) -> Self {
        proxy.metrics.connections(1);
        let (metrics, crowd) = (proxy.metrics.clone(), proxy.crowd.clone());
        Self { metrics, crowd, seat: OnceLock::new(), _permit: Some(permit) }
    }

    fn of_nobody() -> Self {
        let crowd = Crowd::new(&Limits::default());
        Self { metrics: Metrics::new(), crowd, seat: OnceLock::new(), _permit: None }
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Place")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.metrics.connections(-1);
    }
}

/// The HTTP/1.1 server, with every option spelled out.
fn http1_builder(limits: &Limits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        // `Paced` is stricter and tells a slow head from an idle connection.
        .header_read_timeout(None)
        .keep_alive(true)
        .half_close(false)
        .preserve_header_case(true)
        .max_header_size(limits.head_bytes_max)
        .max_buf_size(limits.head_bytes_max)
        .pipeline_flush(false);
    if limits.headers_max != HYPER_HEADERS_MAX {
        builder.max_headers(limits.headers_max);
    }
    builder
}

/// The HTTP/2 server, with every option spelled out.
fn http2_builder(limits: &Limits) -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams_max)
        .max_header_list_size(u32::try_from(limits.head_bytes_max).unwrap_or(u32::MAX))
        .initial_stream_window_size(256 * 1024)
        .initial_connection_window_size(1024 * 1024)
        .max_send_buf_size(256 * 1024)
        .keep_alive_interval(Duration::from_secs(60))
        .keep_alive_timeout(Duration::from_secs(20))
        // For WebSocket (RFC 8441); every other protocol that is asked for is refused.
        .enable_connect_protocol();
    builder
}

/// Serves HTTP/1 on a connection until it ends or the proxy drains.
pub(super) async fn serve_h1<S, I>(
    proxy: &Proxy,
    connection: &Connection,
    destination: Option<&Destination>,
    io: TokioIo<I>,
    service: S,
) where
    S: HttpService<Incoming, ResBody = Body, Error = std::convert::Infallible>,
    S::Future: Send,
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let serving = http1_builder(&proxy.limits).serve_connection(io, service).with_upgrades();
    tokio::pin!(serving);
    let ended = tokio::select! {
        biased;
        ended = serving.as_mut() => ended,
        () = proxy.draining.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        note_fault(proxy, connection, destination, &error);
    }
}

/// Serves HTTP/2 on a connection until it ends or the proxy drains.
pub(super) async fn serve_h2<S, I>(
    proxy: &Proxy,
    connection: &Connection,
    destination: Option<&Destination>,
    io: TokioIo<I>,
    service: S,
) where
    S: HttpService<Incoming, ResBody = Body, Error = std::convert::Infallible> + Clone,
    S::Future: Send + 'static,
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let serving = http2_builder(&proxy.limits).serve_connection(io, service);
    tokio::pin!(serving);
    let ended = tokio::select! {
        biased;
        ended = serving.as_mut() => ended,
        () = proxy.draining.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        note_fault(proxy, connection, destination, &error);
    }
}

/// What hyper refused by itself never became an exchange; it is on record with its connection.
fn note_fault(proxy: &Proxy, connection: &Connection, destination: Option<&Destination>, error: &hyper::Error) {
    let code = if error.is_parse_too_large() {
        "request_too_large"
    } else if error.is_parse() {
        "request_malformed"
    } else if error.is_timeout() || is_timed_out(error) {
        "request_timeout"
    } else {
        return;
    };
    proxy.metrics.exchange(None, code);
    proxy.audit.note(Event::Connection {
        connection_id: connection.id,
        peer: connection.peer,
        destination: destination.cloned(),
        code,
    });
}

fn is_timed_out(error: &hyper::Error) -> bool {
    std::error::Error::source(error)
        .and_then(|source| source.downcast_ref::<std::io::Error>())
        .is_some_and(|source| source.kind() == std::io::ErrorKind::TimedOut)
}

impl Proxy {
    pub(super) fn pace(&self, protocol: Protocol) -> Arc<Pace> {
        Pace::new(protocol, self.limits.head_timeout, self.limits.idle_timeout)
    }

    /// Lets exchanges under way finish within the limit, tunnels included; then cuts what is left.
    pub(super) async fn drain(&self) {
        self.draining.cancel();
        self.tasks.close();
        if tokio::time::timeout(self.limits.drain_timeout, self.tasks.wait()).await.is_err() {
            self.audit.cut();
            self.cutting.cancel();
            // Tasks end at their next poll; a second is ample.
            let _ = tokio::time::timeout(Duration::from_secs(1), self.tasks.wait()).await;
        }
    }
}
