//! The agent's body on its way upstream.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::alarms::{CutAlarm, IdleAlarm};
use super::want::{ASK_TIME_MAX, Want, Wanted};
use super::{Meter, carrier};
use crate::model::Denial;
use crate::model::denial::{Misplaced, SignatureFault, TooLarge};
use crate::proxy::extract::check_trailers;
use crate::proxy::inject::Tie;
use crate::proxy::leaks::Tap;
use crate::proxy::sigv4::{ChunkFault, Chunks};

/// What ends an upload early, towards the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UploadFault {
    /// The agent broke off or sent bad framing.
    #[error("the agent's body broke off")]
    Agent,
    /// A credential in the trailers.
    #[error("the agent's trailers hold a credential")]
    ForeignCredential,
    /// A nonce in the trailers.
    #[error("the agent's trailers hold a nonce")]
    NonceMisplaced,
    /// A nonce in the body, where the service refuses that.
    #[error("the agent's body holds a nonce")]
    NonceInBody,
    /// A real credential in the body or the trailers.
    #[error("the agent's body holds a real credential")]
    CredentialExposed,
    /// A chunk that is not signed as its head is.
    #[error("the agent's body is not signed as its head says")]
    Signature(SignatureFault),
    /// A chunk that is larger than any that is held.
    #[error("a signed chunk of the agent's body is larger than allowed")]
    ChunkTooLarge,
    /// There is no room to hold a chunk.
    #[error("there is no room for a signed chunk of the agent's body")]
    NoRoom,
    /// The nonce was revoked.
    #[error("the nonce was revoked")]
    Cut,
    /// Nothing moved for too long.
    #[error("nothing moved for too long")]
    Idle,
    /// The upstream had refused the request, and its answer is over.
    #[error("the upstream wanted no more of it")]
    Unwanted,
}

impl UploadFault {
    /// What the agent is told, if it still listens.
    pub(in crate::proxy) fn denial(self) -> Denial {
        match self {
            Self::Agent => Denial::RequestMalformed,
            Self::ForeignCredential => Denial::ForeignCredential,
            Self::NonceMisplaced => Denial::NonceMisplaced(Misplaced::Header),
            Self::NonceInBody => Denial::NonceMisplaced(Misplaced::Body),
            Self::CredentialExposed => Denial::CredentialExposed,
            Self::Signature(fault) => Denial::SignatureRefused(fault),
            Self::ChunkTooLarge => Denial::RequestTooLarge(TooLarge::Body),
            Self::NoRoom => Denial::Overloaded,
            Self::Cut => Denial::NonceRevoked { at: jiff::Timestamp::now() },
            Self::Idle => Denial::RequestTimeout,
            // Comes after an answer, when nobody is told anything any more.
            Self::Unwanted => Denial::Internal,
        }
    }
}

impl From<ChunkFault> for UploadFault {
    fn from(fault: ChunkFault) -> Self {
        match fault {
            ChunkFault::Signature(fault) => Self::Signature(fault),
            ChunkFault::TooLarge => Self::ChunkTooLarge,
            ChunkFault::NoRoom => Self::NoRoom,
        }
    }
}

/// The agent's body on its way upstream; nothing where there is none. Boxed, since the library moves it often.
pub struct Upload(Option<Box<Flowing>>);

/// A body that flows.
struct Flowing {
    want: Want,
    patience: IdleAlarm,
    fault: Arc<OnceLock<UploadFault>>,
    meter: Meter,
    idle: IdleAlarm,
    cut: CutAlarm,
    /// Looks at what flows, where the service wants that.
    tap: Option<Box<Tap>>,
    /// Verifies what flows and signs it again, where it is signed chunk by chunk; before it is looked at.
    chunks: Option<Box<Chunks>>,
}

impl Upload {
    /// No body.
    pub(in crate::proxy) fn none() -> Self {
        Self(None)
    }

    /// A body, looked at by the tap where there is one, and signed again where that is to be done.
    pub(in crate::proxy) fn new(
        want: Want,
        meter: Meter,
        idle: Duration,
        tie: Option<Arc<Tie>>,
        (tap, chunks): (Option<Box<Tap>>, Option<Box<Chunks>>),
    ) -> Self {
        let (patience, fault) = (IdleAlarm::new(ASK_TIME_MAX), Arc::default());
        let (idle, cut) = (IdleAlarm::new(idle), CutAlarm::new(tie));
        Self(Some(Box::new(Flowing { want, patience, fault, meter, idle, cut, tap, chunks })))
    }

    /// Where it says what ended it early, once something has.
    pub(in crate::proxy) fn fault(&self) -> Option<Arc<OnceLock<UploadFault>>> {
        self.0.as_ref().map(|flowing| flowing.fault.clone())
    }
}

impl Flowing {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UploadFault>>> {
        if self.cut.is_cut() {
            return Poll::Ready(Some(Err(UploadFault::Cut)));
        }
        let want = self.want.clone();
        if !self.poll_wanted(&want, cx)? {
            return Poll::Pending;
        }
        match self.poll_looked_at(&want, cx) {
            Poll::Ready(frame) => {
                self.idle.moved();
                let Some(frame) = frame else { return Poll::Ready(None) };
                if let Ok(data) = frame.as_ref().map(Frame::data_ref) {
                    self.meter.sent(data.map_or(0, Bytes::len));
                }
                Poll::Ready(Some(frame))
            }
            Poll::Pending if self.cut.poll(cx).is_ready() => Poll::Ready(Some(Err(UploadFault::Cut))),
            Poll::Pending if self.idle.poll_beside(cx, self.meter.moves()).is_ready() => {
                Poll::Ready(Some(Err(UploadFault::Idle)))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl Flowing {
    /// The next of the body, judged and looked at.
    fn poll_looked_at(&mut self, want: &Want, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UploadFault>>> {
        loop {
            if let Some(rest) = self.tap.as_mut().and_then(|tap| tap.rest()) {
                return Poll::Ready(rest.map(Ok));
            }
            let Poll::Ready(frame) = self.poll_verified(want, cx) else {
                let held = self.tap.as_mut().and_then(|tap| tap.release());
                return held.map_or(Poll::Pending, |frame| Poll::Ready(Some(Ok(frame))));
            };
            let Some(tap) = &mut self.tap else { return Poll::Ready(frame) };
            if let Some(passed) = tap.pass(frame) {
                return Poll::Ready(passed);
            }
        }
    }

    /// The next of the body, judged; of one that is signed chunk by chunk, what was verified.
    fn poll_verified(&mut self, want: &Want, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UploadFault>>> {
        let Some(chunks) = &mut self.chunks else {
            return want.poll_frame(cx).map(|frame| frame.map(|frame| judged(frame.map_err(|_| UploadFault::Agent)?)));
        };
        loop {
            match chunks.next() {
                Ok(Some(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Ok(None) => {}
                Err(fault) => return Poll::Ready(Some(Err(fault.into()))),
            }
            let frame = match ready!(want.poll_frame(cx)) {
                Some(frame) => frame.map_err(|_| UploadFault::Agent)?,
                None if chunks.is_over() => return Poll::Ready(None),
                None => return Poll::Ready(Some(Err(UploadFault::Signature(SignatureFault::Malformed)))),
            };
            self.meter.moved(); // what is held moves, too
            match frame.into_data() {
                Ok(data) => chunks.push(data),
                // No signature covers them.
                Err(_trailers) => return Poll::Ready(Some(Err(UploadFault::Signature(SignatureFault::UnsignedBody)))),
            }
        }
    }

    /// Whether anything is to be sent now.
    fn poll_wanted(&mut self, want: &Want, cx: &mut Context<'_>) -> Result<bool, UploadFault> {
        match want.poll(cx) {
            Wanted::Yes | Wanted::Sent => Ok(true),
            Wanted::NotYet if self.patience.poll(cx).is_ready() => {
                want.ask();
                Ok(true)
            }
            Wanted::NotYet if self.cut.poll(cx).is_ready() => Err(UploadFault::Cut),
            Wanted::NotYet | Wanted::NoMore => Ok(false),
            Wanted::Over => Err(UploadFault::Unwanted),
        }
    }
}

/// Trailers are judged as the head was.
fn judged(frame: Frame<Bytes>) -> Result<Frame<Bytes>, UploadFault> {
    match frame.into_trailers() {
        Ok(trailers) => check_trailers(&trailers).map(Frame::trailers),
        Err(frame) => Ok(frame),
    }
}

impl Drop for Flowing {
    fn drop(&mut self) {
        carrier::let_go();
    }
}

impl HttpBody for Upload {
    type Data = Bytes;
    type Error = UploadFault;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UploadFault>>> {
        let Some(flowing) = &mut self.get_mut().0 else { return Poll::Ready(None) };
        carrier::looked_at(&flowing.want, &flowing.cut);
        let frame = ready!(flowing.poll_next(cx));
        if let Some(Err(fault)) = &frame {
            // The first one is the cause.
            let _ = flowing.fault.set(*fault);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(|flowing| {
            flowing.want.is_end_stream()
                && flowing.chunks.as_ref().is_none_or(|chunks| chunks.is_over())
                && !flowing.tap.as_ref().is_some_and(|tap| tap.has_more())
        })
    }

    fn size_hint(&self) -> SizeHint {
        let Some(flowing) = &self.0 else { return SizeHint::with_exact(0) };
        let rest = flowing.want.size_hint();
        let tapped = flowing.tap.as_ref().map_or(0, |tap| tap.held_bytes());
        // Signed again, they are as long as they were.
        let unverified = flowing.chunks.as_ref().map_or(0, |chunks| chunks.held_bytes());
        let held = (tapped + unverified) as u64;
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(held));
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper.saturating_add(held));
        }
        hint
    }
}
