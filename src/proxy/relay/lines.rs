//! The connections of one pool: the latest of HTTP/1.1 that rests is used first, one of HTTP/2 is shared by all requests
//! of an agent.
//!
//! No agent shares a connection of HTTP/2 with another. What becomes of it is up to whoever uses it: servers end one on
//! which too much is reset (rapid reset, CVE-2023-44487), and each request that is given up is a reset. Its streams and
//! its window are shares, too.
//!
//! No connection waits for another request's: one that finds none at rest opens its own. What is used least ends first,
//! and what has rested for too long is closed.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use http::uri::{self, Authority, PathAndQuery};
use http::{HeaderMap, HeaderValue, Request, Response, Uri, header};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioTimer;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::connector::{ConnectFault, Connector, Socket};
use crate::model::{Denial, Scheme};
use crate::proxy::fair::Whose;
use crate::proxy::flow::{Carrier, Upload, in_turns};
use crate::proxy::{HYPER_HEADERS_MAX, Limits};

/// How long a connection may rest at most. Most servers close theirs sooner.
const REST_MAX: Duration = Duration::from_secs(90);

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum NotAnswered {
    /// There was no connection.
    Unconnected(ConnectFault),
    /// The library never began to write it.
    Unsent,
    /// It may have been read. What the library says could quote the request.
    Broke(hyper::Error),
}

/// A pool's connections, and the way to open more.
pub(super) struct Lines {
    connector: Connector,
    /// The destination as HTTP/1.1 names it, and as a URI does.
    host: HeaderValue,
    authority: Authority,
    builder: http1::Builder,
    shared_builder: http2::Builder<Carrier>,
    /// Of HTTP/1.1 that rest; and agents with one of HTTP/2.
    resting_max: usize,
    rest_max: Duration,
    state: Mutex<State>,
    /// A shared connection has come.
    shared: Notify,
}

#[derive(Default)]
struct State {
    /// The latest is the last.
    resting: Vec<Resting>,
    shared: HashMap<Whose, Shared>,
    /// A task looks after what rests.
    is_swept: bool,
}

struct Resting {
    line: Line,
    since: Instant,
}

/// A connection of HTTP/1.1, for one exchange at a time.
struct Line {
    sender: http1::SendRequest<Upload>,
    address: SocketAddr,
}

/// A connection of HTTP/2, for many requests of one agent at once.
#[derive(Clone)]
struct Shared {
    sender: http2::SendRequest<Upload>,
    address: SocketAddr,
    used: Instant,
}

/// A connection to send over.
enum Taken {
    Line(Line),
    Shared(Shared),
}

impl State {
    /// Keeps an agent's connection. Where there are `max` of other agents, the one that is used least is left to the
    /// requests that are under way on it.
    fn keep(&mut self, whose: &Whose, fresh: Shared, max: usize) {
        if self.shared.len() >= max && !self.shared.contains_key(whose) {
            let least = self.shared.iter().min_by_key(|(_, shared)| shared.used).map(|(whose, _)| whose.clone());
            if let Some(least) = least {
                self.shared.remove(&least);
            }
        }
        self.shared.insert(whose.clone(), fresh);
    }
}

impl Lines {
    /// No connection yet.
    ///
    /// # Errors
    /// [`Denial::Internal`]: the destination cannot be named in a field. None that was parsed is so.
    pub(super) fn new(connector: Connector, limits: &Limits) -> Result<Self, Denial> {
        let authority = connector.destination.authority(connector.scheme);
        Ok(Self {
            host: HeaderValue::try_from(&authority).map_err(|_| Denial::Internal)?,
            authority: Authority::try_from(authority).map_err(|_| Denial::Internal)?,
            builder: builder(limits),
            shared_builder: shared_builder(limits),
            resting_max: limits.pool_idle_max,
            rest_max: limits.idle_timeout.min(REST_MAX),
            state: Mutex::default(),
            shared: Notify::new(),
            connector,
        })
    }

    /// Sends a request and waits for the head of its answer. A request that the library hands back unsent, since the
    /// connection that had rested was just being closed, goes over another one; one that may have been read never does.
    pub(super) async fn send(
        self: &Arc<Self>,
        whose: &Whose,
        request: Box<Request<Upload>>,
    ) -> Result<(Response<Incoming>, SocketAddr), NotAnswered> {
        let (taken, is_fresh) = match self.take(whose, Instant::now()) {
            Some(taken) => (taken, false),
            None => (Box::pin(self.open(whose)).await.map_err(NotAnswered::Unconnected)?, true),
        };
        let mut failed = match taken {
            Taken::Line(mut line) => match line.sender.try_send_request(self.in_origin_form(*request)).await {
                Ok(response) => {
                    let address = line.address;
                    self.back(line);
                    return Ok((response, address));
                }
                Err(failed) => failed,
            },
            Taken::Shared(mut shared) => match shared.sender.try_send_request(without_host(*request)).await {
                Ok(response) => return Ok((response, shared.address)),
                Err(failed) => {
                    self.forget(whose, &shared);
                    failed
                }
            },
        };
        match failed.take_message() {
            // Each time takes one that has rested, until there is none.
            Some(unsent) if !is_fresh => Box::pin(self.send(whose, Box::new(self.in_absolute_form(unsent)))).await,
            Some(_) => Err(NotAnswered::Unsent),
            None => Err(NotAnswered::Broke(failed.into_error())),
        }
    }

    /// A connection that is ready now.
    fn take(&self, whose: &Whose, now: Instant) -> Option<Taken> {
        let mut state = self.state.lock();
        if let Some(shared) = state.shared.get_mut(whose) {
            if shared.sender.is_ready() {
                shared.used = now;
                return Some(Taken::Shared(shared.clone()));
            }
            state.shared.remove(whose);
        }
        while let Some(Resting { line, since }) = state.resting.pop() {
            if line.sender.is_ready() && now.duration_since(since) < self.rest_max {
                return Some(Taken::Line(line));
            }
        }
        None
    }

    /// A connection of its own, or the agent's that has come meanwhile.
    async fn open(self: &Arc<Self>, whose: &Whose) -> Result<Taken, ConnectFault> {
        let mut connecting = pin!(self.connector.clone().connect());
        loop {
            tokio::select! {
                socket = &mut connecting => return self.begin(whose, socket?).await,
                () = self.shared.notified() => if let Some(taken) = self.take(whose, Instant::now()) {
                    return Ok(taken);
                },
            }
        }
    }

    /// HTTP over a fresh socket.
    async fn begin(self: &Arc<Self>, whose: &Whose, socket: Socket) -> Result<Taken, ConnectFault> {
        let address = socket.address;
        if !socket.is_h2() {
            let (sender, connection) = self.builder.handshake(socket).await.map_err(|_| ConnectFault::Http)?;
            // Ends when its sender is dropped, or the upstream closes it.
            tokio::spawn(connection);
            return Ok(Taken::Line(Line { sender, address }));
        }
        let shaking = in_turns(self.shared_builder.handshake(socket));
        let (sender, connection) = shaking.await.map_err(|_| ConnectFault::Http)?;
        tokio::spawn(in_turns(connection));
        let fresh = Shared { sender, address, used: Instant::now() };
        let mut state = self.state.lock();
        if let Some(shared) = state.shared.get(whose).filter(|shared| shared.sender.is_ready()) {
            return Ok(Taken::Shared(shared.clone()));
        }
        state.keep(whose, fresh.clone(), self.resting_max);
        self.see_to(&mut state);
        drop(state);
        self.shared.notify_waiters();
        Ok(Taken::Shared(fresh))
    }

    /// A connection goes to rest, as soon as it can be used again.
    fn back(self: &Arc<Self>, mut line: Line) {
        if line.sender.is_ready() {
            return self.rest(line);
        }
        // Its answer, or the request's body, is still under way.
        let lines = self.clone();
        tokio::spawn(async move {
            if line.sender.ready().await.is_ok() {
                lines.rest(line);
            }
        });
    }

    fn rest(self: &Arc<Self>, line: Line) {
        let mut state = self.state.lock();
        if state.resting.len() < self.resting_max {
            state.resting.push(Resting { line, since: Instant::now() });
            self.see_to(&mut state);
        }
    }

    /// Has what rests looked after.
    fn see_to(self: &Arc<Self>, state: &mut State) {
        if !std::mem::replace(&mut state.is_swept, true) {
            tokio::spawn(sweep(Arc::downgrade(self), self.rest_max));
        }
    }

    /// Closes what has rested for too long; false once nothing is left.
    fn sweep(&self, now: Instant) -> bool {
        let mut state = self.state.lock();
        let fresh = |since: Instant| now.duration_since(since) < self.rest_max;
        state.resting.retain(|resting| fresh(resting.since) && !resting.line.sender.is_closed());
        // Streams under way outlive the last sender.
        state.shared.retain(|_, shared| fresh(shared.used) && shared.sender.is_ready());
        state.is_swept = !state.resting.is_empty() || !state.shared.is_empty();
        state.is_swept
    }

    /// Leaves a shared connection that has failed to those that still use it, if it takes no more requests.
    fn forget(&self, whose: &Whose, failed: &Shared) {
        if failed.sender.is_ready() {
            return;
        }
        let mut state = self.state.lock();
        if state.shared.get(whose).is_some_and(|shared| !shared.sender.is_ready()) {
            state.shared.remove(whose);
        }
    }

    /// As a request stands on a connection to its origin (RFC 9112, 3.2.1).
    fn in_origin_form(&self, mut request: Request<Upload>) -> Request<Upload> {
        let target = request.uri().path_and_query().cloned();
        *request.uri_mut() = Uri::from(target.unwrap_or(PathAndQuery::from_static("/")));
        request.headers_mut().insert(header::HOST, self.host.clone());
        request
    }

    /// As it was before that, or as it is.
    fn in_absolute_form(&self, mut request: Request<Upload>) -> Request<Upload> {
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        parts.scheme = Some(match self.connector.scheme {
            Scheme::Https => uri::Scheme::HTTPS,
            Scheme::Http => uri::Scheme::HTTP,
        });
        parts.authority = Some(self.authority.clone());
        *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
        request
    }
}

/// As a request stands on a connection of HTTP/2, where `:authority` says it all (RFC 9113, 8.3.1). In a new map, so that
/// the order of the rest is kept.
fn without_host(mut request: Request<Upload>) -> Request<Upload> {
    if request.headers().contains_key(header::HOST) {
        let mut kept = HeaderMap::with_capacity(request.headers().len());
        for (name, value) in request.headers().iter().filter(|(name, _)| *name != header::HOST) {
            kept.append(name.clone(), value.clone());
        }
        *request.headers_mut() = kept;
    }
    request
}

/// Looks now and then, for as long as there is something to look after.
async fn sweep(lines: Weak<Lines>, every: Duration) {
    loop {
        tokio::time::sleep(every).await;
        if !lines.upgrade().is_some_and(|lines| lines.sweep(Instant::now())) {
            return;
        }
    }
}

/// HTTP/1.1, with every option spelled out.
fn builder(limits: &Limits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.preserve_header_case(true).max_buf_size(limits.head_bytes_max.max(8192));
    if limits.headers_max != HYPER_HEADERS_MAX {
        builder.max_headers(limits.headers_max);
    }
    builder
}

/// HTTP/2, with every option spelled out.
fn shared_builder(limits: &Limits) -> http2::Builder<Carrier> {
    let mut builder = http2::Builder::new(Carrier { idle_timeout: limits.idle_timeout });
    builder
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(limits.head_bytes_max).unwrap_or(u32::MAX))
        .initial_stream_window_size(1024 * 1024)
        .initial_connection_window_size(4 * 1024 * 1024)
        .keep_alive_interval(Duration::from_secs(60))
        .keep_alive_timeout(Duration::from_secs(20));
    builder
}
