//! Whether an upstream wants the body of a request.
//!
//! With `Expect: 100-continue` it is not sent before the upstream asks for it, or a second is over (RFC 9110, 10.1.1).
//! An upstream that has refused the request gets no more of it (RFC 9112, 9.5), while its answer goes on; only when the
//! answer is over, the upload ends with a fault, since that may take the connection with it. The body lies here, so that
//! it is let go at once, although the library may not look at the upload while it waits for the upstream's socket.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http_body::{Body as _, Frame, SizeHint};
use parking_lot::Mutex;

use super::entire::Broken;
use super::inbound::Inbound;
use super::upload::UploadFault;

/// How long an upstream is given to ask for a body that is not sent unasked.
pub(in crate::proxy) const ASK_TIME_MAX: Duration = Duration::from_secs(1);

/// What is known of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::proxy) enum Wanted {
    /// The upstream has not asked yet.
    NotYet,
    /// It may be sent.
    Yes,
    /// All of it was sent.
    Sent,
    /// The upstream has refused the request; its answer is under way.
    NoMore,
    /// And its answer is over.
    Over,
}

/// Shared by an upload, the wait for its answer, and the answer.
#[derive(Debug, Clone)]
pub(in crate::proxy) struct Want(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    wanted: Wanted,
    /// Empty once it is not wanted any more.
    body: Inbound,
    /// The upload's.
    waker: Option<Waker>,
}

impl Want {
    /// For a body that is sent at once, or when the upstream has asked.
    pub(in crate::proxy) fn new(wanted: Wanted, body: Inbound) -> Self {
        Self(Arc::new(Mutex::new(State { wanted, body, waker: None })))
    }

    /// The next of the body, as long as it is wanted. What is not wanted any more has no end: it must not look whole.
    pub(in crate::proxy) fn poll_frame(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let mut state = self.0.lock();
        if !matches!(state.wanted, Wanted::Yes | Wanted::Sent) {
            // Told meanwhile: looked at once more.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let frame = Pin::new(&mut state.body).poll_frame(cx);
        if matches!(frame, Poll::Ready(None)) || state.body.is_end_stream() {
            state.wanted = state.wanted.next(Event::Sent).unwrap_or(state.wanted);
        }
        frame
    }

    pub(in crate::proxy) fn is_end_stream(&self) -> bool {
        let state = self.0.lock();
        matches!(state.wanted, Wanted::Yes | Wanted::Sent) && state.body.is_end_stream()
    }

    pub(in crate::proxy) fn size_hint(&self) -> SizeHint {
        self.0.lock().body.size_hint()
    }

    /// What is known now; the upload is woken when that changes.
    pub(in crate::proxy) fn poll(&self, cx: &Context<'_>) -> Wanted {
        let mut state = self.0.lock();
        if state.waker.as_ref().is_none_or(|waker| !waker.will_wake(cx.waker())) {
            state.waker = Some(cx.waker().clone());
        }
        state.wanted
    }

    /// The upstream asks, or has been waited for long enough.
    pub(in crate::proxy) fn ask(&self) {
        self.tell(Event::Asked);
    }

    /// The final answer's status is here.
    pub(in crate::proxy) fn answered(&self, status: StatusCode) {
        self.tell(Event::Answered(status));
    }

    fn tell(&self, event: Event) {
        let mut state = self.0.lock();
        let Some(next) = state.wanted.next(event) else { return };
        state.wanted = next;
        let unwanted = (next == Wanted::NoMore).then(|| std::mem::replace(&mut state.body, Inbound::none()));
        let waker = state.waker.take();
        drop(state);
        drop(unwanted);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// What changes it.
enum Event {
    Asked,
    Sent,
    Answered(StatusCode),
    Over,
}

impl Wanted {
    /// What follows; `None` if the event changes nothing. A redirection refuses only a body that was not asked for.
    fn next(self, event: Event) -> Option<Self> {
        match (self, event) {
            (Self::NotYet, Event::Asked) => Some(Self::Yes),
            (Self::NotYet | Self::Yes, Event::Sent) => Some(Self::Sent),
            (Self::NotYet, Event::Answered(status)) => Some(if status.is_success() { Self::Yes } else { Self::NoMore }),
            (Self::Yes, Event::Answered(status)) => {
                (status.is_client_error() || status.is_server_error()).then_some(Self::NoMore)
            }
            (Self::NoMore, Event::Over) => Some(Self::Over),
            (Self::Yes | Self::Sent | Self::NoMore | Self::Over, Event::Asked)
            | (Self::Sent | Self::NoMore | Self::Over, Event::Sent | Event::Answered(_))
            | (Self::NotYet | Self::Yes | Self::Sent | Self::Over, Event::Over) => None,
        }
    }
}

/// Rides with an answer; when it is dropped, the answer is over. Empty for an answer to a request without a body.
#[derive(Default)]
pub(in crate::proxy) struct Answering {
    pub(in crate::proxy) want: Option<Want>,
    /// What ended the upload early, once something has.
    pub(in crate::proxy) upload_fault: Option<Arc<OnceLock<UploadFault>>>,
}

impl Answering {
    /// What ended the upload early, if anything has.
    pub(in crate::proxy) fn upload_fault(&self) -> Option<UploadFault> {
        self.upload_fault.as_ref()?.get().copied()
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        if let Some(want) = &self.want {
            want.tell(Event::Over);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(first: Wanted, steps: impl FnOnce(&Want)) -> Wanted {
        let want = Want::new(first, Inbound::none());
        steps(&want);
        want.poll(&Context::from_waker(Waker::noop()))
    }

    #[test]
    fn a_body_that_waits_is_sent_when_it_is_asked_for_or_the_answer_is_good() {
        assert_eq!(after(Wanted::NotYet, |_| ()), Wanted::NotYet);
        assert_eq!(after(Wanted::NotYet, Want::ask), Wanted::Yes);
        assert_eq!(after(Wanted::NotYet, |want| want.answered(StatusCode::OK)), Wanted::Yes);
        for status in [StatusCode::TEMPORARY_REDIRECT, StatusCode::EXPECTATION_FAILED, StatusCode::BAD_GATEWAY] {
            assert_eq!(after(Wanted::NotYet, |want| want.answered(status)), Wanted::NoMore, "{status}");
        }
    }

    #[test]
    fn a_body_that_is_refused_meanwhile_never_looks_whole() {
        let want = Want::new(Wanted::Yes, Inbound::none());
        want.answered(StatusCode::PAYLOAD_TOO_LARGE);
        assert!(want.poll_frame(&mut Context::from_waker(Waker::noop())).is_pending());
        assert!(!want.is_end_stream());
    }

    #[test]
    fn a_refusal_ends_what_is_still_sent_and_the_end_of_the_answer_ends_the_rest() {
        let refused = |want: &Want| want.answered(StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(after(Wanted::Yes, refused), Wanted::NoMore);
        assert_eq!(after(Wanted::Yes, |want| want.answered(StatusCode::SEE_OTHER)), Wanted::Yes);
        let late = |want: &Want| {
            refused(want);
            want.ask();
        };
        assert_eq!(after(Wanted::NotYet, late), Wanted::NoMore, "asked too late");
        let sent = |want: &Want| {
            want.tell(Event::Sent);
            refused(want);
        };
        assert_eq!(after(Wanted::Yes, sent), Wanted::Sent);
        let over = |want: &Want| {
            refused(want);
            drop(Answering { want: Some(want.clone()), upload_fault: None });
        };
        assert_eq!(after(Wanted::Yes, over), Wanted::Over);
        assert_eq!(
            after(Wanted::Yes, |want| drop(Answering { want: Some(want.clone()), upload_fault: None })),
            Wanted::Yes,
            "an upload may go on"
        );
    }
}
