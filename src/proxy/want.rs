//! Whether an upstream wants the body of a request.
//!
//! With `Expect: 100-continue` it is not sent before the upstream asks for it, or a second is over (RFC 9110, 10.1.1).
//! An upstream that has refused the request gets no more of it (RFC 9112, 9.5), while its answer goes on; only when the
//! answer is over, the upload ends with a fault, since that may take the connection with it.

use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use http::StatusCode;
use parking_lot::Mutex;

/// How long an upstream is given to ask for a body that is not sent unasked.
pub(super) const ASK_TIME_MAX: Duration = Duration::from_secs(1);

/// What is known of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
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
pub(super) struct Want(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    wanted: Wanted,
    /// The upload's.
    waker: Option<Waker>,
}

impl Want {
    /// For a body that is sent at once, or when the upstream has asked.
    pub(super) fn new(wanted: Wanted) -> Self {
        Self(Arc::new(Mutex::new(State { wanted, waker: None })))
    }

    /// What is known now; the upload is woken when that changes.
    pub(super) fn poll(&self, cx: &Context<'_>) -> Wanted {
        let mut state = self.0.lock();
        if state.waker.as_ref().is_none_or(|waker| !waker.will_wake(cx.waker())) {
            state.waker = Some(cx.waker().clone());
        }
        state.wanted
    }

    /// The upstream asks, or has been waited for long enough.
    pub(super) fn ask(&self) {
        self.go(|wanted| (wanted == Wanted::NotYet).then_some(Wanted::Yes));
    }

    /// The last of it is on its way.
    pub(super) fn sent(&self) {
        self.go(|wanted| matches!(wanted, Wanted::NotYet | Wanted::Yes).then_some(Wanted::Sent));
    }

    /// The final answer's status is here. A redirection refuses only a body that was not asked for.
    pub(super) fn answered(&self, status: StatusCode) {
        let is_refused = status.is_client_error() || status.is_server_error();
        self.go(|wanted| match wanted {
            Wanted::NotYet if status.is_success() => Some(Wanted::Yes),
            Wanted::NotYet => Some(Wanted::NoMore),
            Wanted::Yes if is_refused => Some(Wanted::NoMore),
            Wanted::Yes | Wanted::Sent | Wanted::NoMore | Wanted::Over => None,
        });
    }

    /// The answer is over.
    fn over(&self) {
        self.go(|wanted| (wanted == Wanted::NoMore).then_some(Wanted::Over));
    }

    fn go(&self, next: impl FnOnce(Wanted) -> Option<Wanted>) {
        let mut state = self.0.lock();
        if let Some(next) = next(state.wanted) {
            state.wanted = next;
            let waker = state.waker.take();
            drop(state);
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }
}

/// Rides with an answer; when it is dropped, the answer is over.
pub(super) struct Answering(pub(super) Want);

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.over();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(first: Wanted, steps: impl FnOnce(&Want)) -> Wanted {
        let want = Want::new(first);
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
            want.sent();
            refused(want);
        };
        assert_eq!(after(Wanted::Yes, sent), Wanted::Sent);
        let over = |want: &Want| {
            refused(want);
            drop(Answering(want.clone()));
        };
        assert_eq!(after(Wanted::Yes, over), Wanted::Over);
        assert_eq!(after(Wanted::Yes, |want| drop(Answering(want.clone()))), Wanted::Yes, "an upload may go on");
    }
}
