//! A request's body as the agent sends it.
//!
//! Whoever drops it before its end need not think of the rest. On HTTP/1.1 an agent that still sends would get a reset
//! instead of its answer if the connection were just closed, so the rest is read and thrown away for a while; then the
//! connection can even be kept. An agent that waits to be asked for its body (`Expect: 100-continue`) is not asked.
//! On HTTP/2 the library resets the stream, after the answer.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use bytes::BytesMut;
use http::{HeaderMap, Request, Version, header};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::time::{Instant, timeout, timeout_at};

use super::entire::{Broken, Entire};
use crate::proxy::fair::Place;
use crate::proxy::pace::Busy;

/// How long the rest of an unwanted body is read at most.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(30);
/// How long an agent may be silent meanwhile.
const DRAIN_SILENCE_MAX: Duration = Duration::from_secs(5);

/// The agent's body; what nobody wants of it is drained.
#[derive(Debug)]
pub struct Inbound {
    /// What was held to be judged; it goes first.
    held: Option<Box<Held>>,
    open: Option<Open>,
}

/// The beginning of a body, or all of it.
#[derive(Debug)]
struct Held {
    bytes: Bytes,
    trailers: Option<HeaderMap>,
    /// Its room among all that is held, until it has gone on.
    _room: Place,
}

/// What was read of a body.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Its bytes: the very ones that will be sent.
    pub bytes: Bytes,
    /// Nothing comes after these.
    pub is_whole: bool,
    /// Trailers came behind it.
    pub has_trailers: bool,
}

#[derive(Debug)]
struct Open {
    body: Entire,
    /// The connection is at work as long as a body flows on it, which may be longer than its answer.
    busy: Busy,
    rest: Rest,
}

/// What becomes of the rest when nobody wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rest {
    /// It is read and thrown away.
    Drained,
    /// Nothing: the agent has not been asked for it.
    Unasked,
    /// Nothing: its stream is reset.
    Reset,
}

impl Inbound {
    /// A request with its body watched over.
    pub(in crate::proxy) fn of(request: Request<Incoming>, busy: &Busy) -> Request<Self> {
        let rest = match request.version() {
            Version::HTTP_2 => Rest::Reset,
            _ if request.headers().contains_key(header::EXPECT) => Rest::Unasked,
            _ => Rest::Drained,
        };
        let version = request.version();
        request.map(|body| {
            let body = Entire::new(body, version);
            Self { held: None, open: Some(Open { body, busy: busy.again(), rest }) }
        })
    }

    /// No body.
    pub(in crate::proxy) fn none() -> Self {
        Self { held: None, open: None }
    }

    /// Reads it until its end, or until it has more than `bytes_max`; what was read still is in it, and goes first. One
    /// that says itself that it is longer is not even begun.
    pub(in crate::proxy) async fn hold(&mut self, bytes_max: usize, room: Place) -> Result<Seen, Broken> {
        let is_longer = usize::try_from(self.size_hint().lower()).map_or(true, |lower| lower > bytes_max);
        if is_longer || self.is_end_stream() {
            return Ok(Seen { bytes: Bytes::new(), is_whole: !is_longer, has_trailers: false });
        }
        let (mut read, mut trailers, mut is_whole) = (BytesMut::new(), None, false);
        while !is_whole && read.len() <= bytes_max {
            match self.frame().await.transpose()?.map(Frame::into_data) {
                Some(Ok(data)) => read.extend_from_slice(&data),
                Some(Err(other)) => trailers = other.into_trailers().ok(),
                None => is_whole = true,
            }
        }
        if is_whole {
            self.open = None;
        }
        let (bytes, has_trailers) = (read.freeze(), trailers.is_some());
        if !bytes.is_empty() || has_trailers {
            self.held = Some(Box::new(Held { bytes: bytes.clone(), trailers, _room: room }));
        }
        Ok(Seen { bytes, is_whole, has_trailers })
    }

    /// Puts back what was read of it, to go first.
    pub(in crate::proxy) fn put_back(&mut self, bytes: Bytes, trailers: Option<HeaderMap>, room: Place) {
        if !bytes.is_empty() || trailers.is_some() {
            self.held = Some(Box::new(Held { bytes, trailers, _room: room }));
        }
    }

    /// The next of what was held.
    fn next_held(&mut self) -> Option<Frame<Bytes>> {
        let held = self.held.as_mut()?;
        if !held.bytes.is_empty() {
            let bytes = std::mem::take(&mut held.bytes);
            if held.trailers.is_none() {
                self.held = None;
            }
            return Some(Frame::data(bytes));
        }
        self.held.take().and_then(|held| held.trailers).map(Frame::trailers)
    }
}

impl Drop for Inbound {
    fn drop(&mut self) {
        if let Some(open) = self.open.take()
            && open.rest == Rest::Drained
            && !open.body.is_end_stream()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            // One at a time for a connection, and over with it.
            runtime.spawn(drain(open));
        }
    }
}

async fn drain(mut open: Open) {
    let reading = async { while let Ok(Some(Ok(_))) = timeout(DRAIN_SILENCE_MAX, open.body.frame()).await {} };
    let _ = timeout_at(Instant::now() + DRAIN_TIME_MAX, reading).await;
    drop(open.busy);
}

impl HttpBody for Inbound {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let this = self.get_mut();
        if let Some(frame) = this.next_held() {
            return Poll::Ready(Some(Ok(frame)));
        }
        let Some(open) = &mut this.open else { return Poll::Ready(None) };
        if open.rest == Rest::Unasked {
            // The library asks for a body when it is first looked at.
            open.rest = Rest::Drained;
        }
        Pin::new(&mut open.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.held.is_none() && self.open.as_ref().is_none_or(|open| open.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.open.as_ref().map_or_else(|| SizeHint::with_exact(0), |open| open.body.size_hint());
        if let Some(held) = &self.held {
            let bytes = held.bytes.len() as u64;
            // With trailers it has to be chunked.
            let upper = hint.upper().filter(|_| held.trailers.is_none()).and_then(|upper| upper.checked_add(bytes));
            let lower = hint.lower().saturating_add(bytes);
            hint = SizeHint::new();
            hint.set_lower(lower);
            if let Some(upper) = upper {
                hint.set_upper(upper);
            }
        }
        hint
    }
}
