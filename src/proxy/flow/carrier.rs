//! Runs what the client library spawns, and ends uploads that are stuck.
//!
//! Over HTTP/2 the library carries a request's body in a task of its own, which looks at the body only while the
//! upstream gives it room. An upstream that gives none and resets nothing would keep the task and its stream for as long
//! as the connection lives, although nobody wants the rest any more. Here such a task is dropped, which resets the
//! stream. How a task is known: the library looks at the body once before it spawns, in the same turn.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::rt::Executor;

use super::alarms::IdleAlarm;
use super::want::{Want, Wanted};

thread_local! {
    /// The upload that was last looked at in this turn of a task.
    static LOOKED_AT: RefCell<Option<Want>> = const { RefCell::new(None) };
}

/// The library looks at an upload.
pub(in crate::proxy) fn looked_at(want: &Want) {
    LOOKED_AT.set(Some(want.clone()));
}

/// It will not do so again.
pub(in crate::proxy) fn let_go() {
    // A thread that ends has forgotten it.
    let _ = LOOKED_AT.try_with(RefCell::take);
}

/// Spawns on tokio.
#[derive(Debug, Clone)]
pub(in crate::proxy) struct Carrier {
    /// How long an upload may wait for room.
    pub(in crate::proxy) idle_timeout: Duration,
}

impl<F: Future<Output = ()> + Send + Unpin + 'static> Executor<F> for Carrier {
    fn execute(&self, task: F) {
        let upload = LOOKED_AT.take().map(|want| (want, IdleAlarm::new(self.idle_timeout)));
        tokio::spawn(Carried { task, upload });
    }
}

/// A task of the library.
struct Carried<F> {
    task: F,
    /// What it carries, and how long that has waited for room.
    upload: Option<(Want, IdleAlarm)>,
}

impl<F: Future<Output = ()> + Unpin> Future for Carried<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.task).poll(cx);
        let has_looked = LOOKED_AT.take().is_some();
        let Some((want, idle)) = &mut this.upload else { return polled };
        if polled.is_ready() || has_looked {
            // An upload that is looked at ends by itself.
            idle.moved();
            return polled;
        }
        if want.poll(cx) == Wanted::Over || idle.poll(cx).is_ready() { Poll::Ready(()) } else { Poll::Pending }
    }
}
