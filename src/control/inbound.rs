//! A request's body as its caller sends it.
//!
//! Whoever drops it before its end need not think of the rest. A caller that still sends would get a reset instead of its
//! answer if the connection were just closed, so the rest is read and thrown away for a while. A caller that waits to be
//! asked for its body (`Expect: 100-continue`) is not asked.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, header};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::timeout;

/// How long the rest of an unwanted body is read at most.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(5);
/// How long its caller may be silent meanwhile.
const DRAIN_SILENCE_MAX: Duration = Duration::from_secs(1);
/// Bytes of it that are read at most; beyond them the connection is closed.
const DRAIN_BYTES_MAX: usize = 1024 * 1024;

/// The body of a request over HTTP/1.1.
pub(super) struct Inbound {
    /// `None` if the rest need not be read.
    open: Option<Incoming>,
    /// Its caller waits to be asked for it, and has not been.
    is_unasked: bool,
}

impl Inbound {
    /// A request with its body watched over.
    pub(super) fn of(request: Request<Incoming>) -> Request<Self> {
        let is_unasked = request.headers().contains_key(header::EXPECT);
        request.map(|body| Self { open: Some(body), is_unasked })
    }
}

impl Drop for Inbound {
    fn drop(&mut self) {
        if let Some(body) = self.open.take()
            && !self.is_unasked
            && !body.is_end_stream()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            // One at a time for a connection, and over with it.
            runtime.spawn(timeout(DRAIN_TIME_MAX, drain(body)));
        }
    }
}

async fn drain(mut body: Incoming) {
    let mut left = DRAIN_BYTES_MAX;
    while let Ok(Some(Ok(frame))) = timeout(DRAIN_SILENCE_MAX, body.frame()).await {
        let read = frame.data_ref().map_or(0, Bytes::len);
        let Some(after) = left.checked_sub(read) else { break };
        left = after;
    }
}

impl Body for Inbound {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = self.get_mut();
        // The library asks for a body when it is first looked at.
        this.is_unasked = false;
        this.open.as_mut().map_or(Poll::Ready(None), |body| Pin::new(body).poll_frame(cx))
    }

    fn is_end_stream(&self) -> bool {
        self.open.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.open.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}
