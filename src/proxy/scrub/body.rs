//! The answer's body, searched as it streams.

use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use super::envelopes::{EnvelopeFault, Protocol};
use super::head::mask_headers;
use super::open::OpenError;
use super::recode::Recoder;
use super::text::Text;
use super::{Coding, Needles};

/// Encoded bytes are sent on once there are this many, or when upstream pauses.
const SEND_BYTES: usize = 16 * 1024;
/// Opened bytes in one poll at most, or as much work, so that one stream does not keep the others waiting.
const POLL_WORK_MAX: usize = 256 * 1024;

/// Why a body broke off: the client sees an aborted answer, never a clean end.
#[derive(Debug, thiserror::Error)]
pub enum ScrubError {
    /// The upstream's body broke off.
    #[error("the upstream's body broke off")]
    Inner(#[source] Box<dyn Error + Send + Sync>),
    /// The body is not in the coding that it names, is damaged, ends early, or goes on after its end.
    #[error("the upstream's compressed body is damaged or ends early")]
    Corrupt,
    /// The body grows more than a thousandfold, and beyond 1 MiB.
    #[error("the upstream's compressed body grows beyond any honest ratio")]
    Bomb,
    /// A message in it cannot be searched, or is none.
    #[error("the upstream's messages cannot be searched")]
    Envelope(#[from] EnvelopeFault),
}

impl From<OpenError> for ScrubError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Corrupt => Self::Corrupt,
            OpenError::Bomb => Self::Bomb,
        }
    }
}

/// A body whose every echo of the credential is masked with the same length.
pub struct ScrubbedBody<B> {
    inner: B,
    needles: Needles,
    text: Text,
    /// Of a compressed body.
    recoder: Option<Box<Recoder>>,
    flow: Flow,
}

/// Where the body stands.
enum Flow {
    Open,
    /// All data was delivered, this was not.
    Trailers(HeaderMap),
    Ended,
    /// Broken off: `is_end_stream` stays false, so that nobody takes it for complete.
    Failed,
}

impl<B> ScrubbedBody<B> {
    pub(super) fn identity(inner: B, protocol: Option<Protocol>, needles: Needles) -> Self {
        let text = Text::new(protocol, needles.clone());
        Self { inner, needles, text, recoder: None, flow: Flow::Open }
    }

    pub(super) fn coded(inner: B, coding: Coding, protocol: Option<Protocol>, needles: Needles) -> Self {
        Self { recoder: Some(Box::new(Recoder::new(coding))), ..Self::identity(inner, protocol, needles) }
    }
}

impl<B> Body for ScrubbedBody<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = ScrubError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ScrubError>>> {
        let this = &mut *self;
        match std::mem::replace(&mut this.flow, Flow::Ended) {
            Flow::Open => this.flow = Flow::Open,
            Flow::Trailers(trailers) => return Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
            Flow::Ended => return Poll::Ready(None),
            Flow::Failed => {
                this.flow = Flow::Failed;
                return Poll::Ready(None);
            }
        }
        let polled = if this.recoder.is_some() { this.poll_coded(context) } else { this.poll_identity(context) };
        if let Poll::Ready(Some(Err(_))) = &polled {
            this.flow = Flow::Failed;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match self.flow {
            Flow::Open => {
                let is_settled = match &self.recoder {
                    None => self.text.is_settled(),
                    Some(recoder) => recoder.is_untouched(),
                };
                is_settled && self.inner.is_end_stream()
            }
            Flow::Ended => true,
            Flow::Trailers(_) | Flow::Failed => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.flow, &self.recoder) {
            (Flow::Open, None) => {
                let held = self.text.held_bytes() as u64;
                let inner = self.inner.size_hint();
                let mut hint = SizeHint::new();
                hint.set_lower(inner.lower().saturating_add(held));
                if let Some(upper) = inner.upper() {
                    hint.set_upper(upper.saturating_add(held));
                }
                hint
            }
            (Flow::Open, Some(_)) => SizeHint::default(),
            (Flow::Trailers(_) | Flow::Ended | Flow::Failed, _) => SizeHint::with_exact(0),
        }
    }
}

impl<B> ScrubbedBody<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    fn poll_identity(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ScrubError>>> {
        loop {
            self.text.check()?;
            match ready!(self.poll_inner(context)) {
                Some(Ok(Received::Data(data))) => {
                    let safe = self.text.push(data);
                    // All of it held back: at most as often as a form has bytes.
                    if !safe.is_empty() {
                        return Poll::Ready(Some(Ok(Frame::data(safe))));
                    }
                }
                Some(Ok(Received::Trailers(trailers))) => self.flow = Flow::Trailers(trailers),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => self.flow = Flow::Ended,
            }
            if !matches!(self.flow, Flow::Open) {
                let rest = self.text.finish()?;
                return self.deliver_last(rest);
            }
        }
    }

    fn poll_coded(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ScrubError>>> {
        let Some(mut recoder) = self.recoder.take() else { return Poll::Ready(None) };
        let polled = self.poll_recoder(&mut recoder, context);
        self.recoder = Some(recoder);
        polled
    }

    fn poll_recoder(
        &mut self,
        recoder: &mut Recoder,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ScrubError>>> {
        let mut work = 0;
        loop {
            while recoder.has_work() {
                work += recoder.step(&mut self.text)?;
                self.text.check()?;
                if recoder.encoded_bytes() >= SEND_BYTES || work >= POLL_WORK_MAX {
                    return send(recoder, context);
                }
            }
            match self.poll_inner(context) {
                Poll::Ready(Some(Ok(Received::Data(data)))) => recoder.feed(data),
                Poll::Ready(Some(Ok(Received::Trailers(trailers)))) => self.flow = Flow::Trailers(trailers),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
                Poll::Ready(None) => self.flow = Flow::Ended,
                // Upstream pauses: what is known goes out now, as an event that somebody may wait for.
                Poll::Pending if recoder.is_dirty() => {
                    let sent = recoder.flush()?;
                    return if sent.is_empty() { Poll::Pending } else { Poll::Ready(Some(Ok(Frame::data(sent)))) };
                }
                Poll::Pending => return Poll::Pending,
            }
            if !matches!(self.flow, Flow::Open) {
                let rest = recoder.finish(&mut self.text)?;
                return self.deliver_last(rest);
            }
        }
    }

    /// The last data, if any; then the trailers, if any.
    fn deliver_last(&mut self, rest: Bytes) -> Poll<Option<Result<Frame<Bytes>, ScrubError>>> {
        if !rest.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(rest))));
        }
        match std::mem::replace(&mut self.flow, Flow::Ended) {
            Flow::Trailers(trailers) => Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
            Flow::Open | Flow::Ended | Flow::Failed => Poll::Ready(None),
        }
    }

    /// The next frame of the upstream's body, trailers masked.
    fn poll_inner(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Received, ScrubError>>> {
        loop {
            let frame = match ready!(Pin::new(&mut self.inner).poll_frame(context)) {
                None => return Poll::Ready(None),
                Some(Err(error)) => return Poll::Ready(Some(Err(ScrubError::Inner(error.into())))),
                Some(Ok(frame)) => frame,
            };
            match frame.into_data() {
                Ok(data) if data.is_empty() => {}
                Ok(data) => return Poll::Ready(Some(Ok(Received::Data(data)))),
                Err(frame) => {
                    // A frame that is neither data nor trailers has no bytes to send on.
                    if let Ok(mut trailers) = frame.into_trailers() {
                        mask_headers(&mut trailers, &self.needles);
                        return Poll::Ready(Some(Ok(Received::Trailers(trailers))));
                    }
                }
            }
        }
    }
}

enum Received {
    Data(Bytes),
    Trailers(HeaderMap),
}

/// What is encoded so far, without waiting for more of a block; asks to be polled again if that is nothing.
fn send(recoder: &mut Recoder, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ScrubError>>> {
    let sent = match (recoder.encoded_bytes(), recoder.is_dirty()) {
        (1.., _) => recoder.take(),
        (0, true) => recoder.flush()?,
        (0, false) => Bytes::new(),
    };
    if sent.is_empty() {
        context.waker().wake_by_ref();
        return Poll::Pending;
    }
    Poll::Ready(Some(Ok(Frame::data(sent))))
}
