//! An answer on its way to the agent.
//!
//! What flows lies in a slot: while an agent reads nothing, hyper does not poll a body, so that a revoke or a limit
//! would not be noticed there. [`super::watch`] looks into the slots from outside and empties them.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::Full;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::Meter;
use super::alarms::{CutAlarm, IdleAlarm};
use super::entire::Entire;
use super::upload::UploadFault;
use super::want::Answering;
use super::watch::{Watch, Watched};
use crate::audit::{Ending, Exchange};
use crate::proxy::inject::Tie;
use crate::proxy::pace::Busy;
use crate::proxy::relay::returned;
use crate::proxy::scrub::ScrubbedBody;

/// What ends a body early, towards the agent. Says nothing of the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyFault {
    /// The upstream broke off, or its body could not be searched.
    #[error("the upstream's answer broke off")]
    Upstream,
    /// The nonce was revoked.
    #[error("the nonce was revoked")]
    Cut,
    /// Nothing moved for too long.
    #[error("nothing moved for too long")]
    Idle,
}

/// What the agent gets: a refusal, or an upstream's answer.
pub enum Body {
    /// Ours, whole.
    Refusal(Full<Bytes>),
    /// The upstream's, streaming.
    Answer(Download),
}

impl Body {
    pub(in crate::proxy) fn empty() -> Self {
        Self::Refusal(Full::default())
    }

    pub(in crate::proxy) fn refusal(body: Full<Bytes>) -> Self {
        Self::Refusal(body)
    }
}

/// An answer's bytes: searched, or as they came where nothing is to be searched for.
pub enum Source {
    /// Every echo is masked.
    Scrubbed(ScrubbedBody<Entire>),
    /// As it came.
    Plain(Entire),
    /// No body belongs to the answer.
    Nothing,
}

impl Source {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        let frame = match self {
            Self::Scrubbed(body) => {
                ready!(Pin::new(body).poll_frame(cx)).map(|frame| frame.map_err(|_| BodyFault::Upstream))
            }
            Self::Plain(body) => {
                ready!(Pin::new(body).poll_frame(cx)).map(|frame| frame.map_err(|_| BodyFault::Upstream))
            }
            Self::Nothing => None,
        };
        Poll::Ready(frame.map(|frame| frame.map(without_ending_fields)))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Scrubbed(body) => body.is_end_stream(),
            Self::Plain(body) => body.is_end_stream(),
            Self::Nothing => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Scrubbed(body) => body.size_hint(),
            Self::Plain(body) => body.size_hint(),
            Self::Nothing => SizeHint::with_exact(0),
        }
    }
}

/// Trailers lose what a head loses.
fn without_ending_fields(frame: Frame<Bytes>) -> Frame<Bytes> {
    match frame.into_trailers() {
        Ok(trailers) => Frame::trailers(returned(trailers)),
        Err(frame) => frame,
    }
}

/// An answer on its way; what it carries goes with the body, or earlier, when the slot is emptied.
pub struct Download {
    slot: Arc<Slot>,
    _watched: Option<Watched>,
}

impl Download {
    pub(in crate::proxy) fn new(flow: Flow, idle_timeout: Duration, watch: &Arc<Watch>) -> Self {
        // What is over already needs no watching.
        let is_over = flow.source.is_end_stream();
        let slot = Arc::new(Slot { idle_timeout, state: Mutex::new(State::of(flow)) });
        let watched = (!is_over).then(|| watch.add(&slot));
        Self { slot, _watched: watched }
    }
}

/// What an answer carries with it; dropping it closes the exchange and lets go of the upstream.
pub struct Flow {
    source: Source,
    exchange: Exchange,
    meter: Meter,
    idle: IdleAlarm,
    cut: CutAlarm,
    fault: Option<BodyFault>,
    is_over: bool,
    _busy: Busy,
    answering: Answering,
}

impl Flow {
    pub(in crate::proxy) fn new(
        source: Source,
        exchange: Exchange,
        meter: Meter,
        idle: Duration,
        tie: Option<Arc<Tie>>,
        (busy, answering): (Busy, Answering),
    ) -> Self {
        let (idle, cut) = (IdleAlarm::new(idle), CutAlarm::new(tie));
        Self { source, exchange, meter, idle, cut, fault: None, is_over: false, _busy: busy, answering }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        if self.cut.is_cut() {
            return Poll::Ready(Some(Err(BodyFault::Cut)));
        }
        match self.source.poll_frame(cx) {
            Poll::Ready(frame) => {
                self.idle.moved();
                Poll::Ready(frame)
            }
            Poll::Pending if self.cut.poll(cx).is_ready() => Poll::Ready(Some(Err(BodyFault::Cut))),
            Poll::Pending if self.idle.poll_beside(cx, self.meter.moves()).is_ready() => {
                Poll::Ready(Some(Err(BodyFault::Idle)))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn poll_counted(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        let frame = ready!(self.poll_next(cx));
        match &frame {
            Some(Ok(frame)) => {
                self.meter.moved();
                self.exchange.count_response(frame.data_ref().map_or(0, Bytes::len) as u64);
            }
            Some(Err(fault)) => self.fault = Some(*fault),
            None => self.is_over = true,
        }
        Poll::Ready(frame)
    }
}

impl Flow {
    /// The answer broke off: that is upstream's doing unless the upload had ended before it, which takes the answer along.
    fn who_broke_it(&mut self) -> Ending {
        let Some(fault) = self.answering.upload_fault() else { return Ending::UpstreamBroke };
        match fault {
            UploadFault::Agent => Ending::ClientGone,
            UploadFault::Cut | UploadFault::Idle => Ending::Cut,
            UploadFault::Unwanted => Ending::UpstreamBroke,
            UploadFault::ForeignCredential
            | UploadFault::NonceMisplaced
            | UploadFault::NonceInBody
            | UploadFault::CredentialExposed
            | UploadFault::Signature(_)
            | UploadFault::ChunkTooLarge
            | UploadFault::NoRoom => {
                self.exchange.declined(fault.denial().code());
                Ending::Cut
            }
        }
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.exchange.count_request(self.meter.total());
        let ending = match self.fault {
            Some(BodyFault::Upstream) => self.who_broke_it(),
            Some(BodyFault::Cut | BodyFault::Idle) => Ending::Cut,
            // hyper drops a body as soon as it says that it is over, or when no body is due.
            None if self.is_over || self.source.is_end_stream() => Ending::Complete,
            None if self.cut.is_cut() => Ending::Cut,
            // Without a word: the client went away, or a shutdown took its connection.
            None => return,
        };
        self.exchange.end(ending);
    }
}

/// The place of what flows; both the body and the watch can empty it.
pub struct Slot {
    idle_timeout: Duration,
    state: Mutex<State>,
}

struct State {
    /// `None` once the slot was emptied.
    flow: Option<Flow>,
    /// Why it was.
    fault: BodyFault,
    has_moved: bool,
    /// What had moved, in either direction, when the watch last looked.
    moves: u64,
    /// Since when nothing has moved, as far as the watch has seen.
    resting_since: Option<Instant>,
    waker: Option<Waker>,
}

impl State {
    fn of(flow: Flow) -> Self {
        Self { flow: Some(flow), fault: BodyFault::Cut, has_moved: true, moves: 0, resting_since: None, waker: None }
    }

    /// What is wrong with what flows, if anything; called by the watch from time to time.
    fn judge(&mut self, now: Instant, idle_timeout: Duration) -> Option<BodyFault> {
        let flow = self.flow.as_ref()?;
        if flow.cut.is_cut() {
            return Some(BodyFault::Cut);
        }
        let moves = flow.meter.moves();
        let is_beside = std::mem::replace(&mut self.moves, moves) != moves;
        if std::mem::take(&mut self.has_moved) || is_beside {
            self.resting_since = None;
        }
        let since = *self.resting_since.get_or_insert(now);
        (now.duration_since(since) >= idle_timeout).then_some(BodyFault::Idle)
    }
}

impl Slot {
    /// Empties the slot if its lease was revoked, or if nothing has moved for too long.
    pub(in crate::proxy) fn look(&self, now: Instant) {
        let mut state = self.state.lock();
        let Some(fault) = state.judge(now, self.idle_timeout) else { return };
        state.fault = fault;
        let (flow, waker) = (state.flow.take(), state.waker.take());
        drop(state);
        if let Some(mut flow) = flow {
            flow.fault = Some(fault);
            drop(flow);
        }
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl HttpBody for Download {
    type Data = Bytes;
    type Error = BodyFault;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        let mut state = self.slot.state.lock();
        state.has_moved = true;
        if state.waker.as_ref().is_none_or(|waker| !waker.will_wake(cx.waker())) {
            state.waker = Some(cx.waker().clone());
        }
        let fault = state.fault;
        match &mut state.flow {
            Some(flow) => flow.poll_counted(cx),
            None => Poll::Ready(Some(Err(fault))),
        }
    }

    fn is_end_stream(&self) -> bool {
        // An emptied slot has an error to tell.
        self.slot.state.lock().flow.as_ref().is_some_and(|flow| flow.source.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.slot.state.lock().flow.as_ref().map_or_else(SizeHint::default, |flow| flow.source.size_hint())
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyFault;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        match self.get_mut() {
            Self::Refusal(body) => {
                Pin::new(body).poll_frame(cx).map(|frame| frame.map(|frame| frame.map_err(|never| match never {})))
            }
            Self::Answer(download) => Pin::new(download).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Refusal(body) => body.is_end_stream(),
            Self::Answer(download) => download.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Refusal(body) => body.size_hint(),
            Self::Answer(download) => download.size_hint(),
        }
    }
}
