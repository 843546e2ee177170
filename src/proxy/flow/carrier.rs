//! Runs what the client library spawns, and ends uploads that are stuck.
//!
//! Over HTTP/2 the library carries a request's body in a task of its own, which looks at the body only while the
//! upstream gives it room. An upstream that gives none and resets nothing would keep the task and its stream for as long
//! as the connection lives, although nobody wants the rest any more, or its nonce was revoked. Here such a task is
//! dropped, which resets the stream. How a task is known: the library looks at the body once before it spawns, in the
//! same turn.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::rt::Executor;

use super::alarms::{CutAlarm, IdleAlarm};
use super::want::{Want, Wanted};

thread_local! {
    /// The upload that was last looked at in this turn of a task.
    static LOOKED_AT: RefCell<Option<(Want, CutAlarm)>> = const { RefCell::new(None) };
}

/// The library looks at an upload, which a revoke ends as it ends this alarm.
pub(in crate::proxy) fn looked_at(want: &Want, cut: &CutAlarm) {
    LOOKED_AT.set(Some((want.clone(), cut.another())));
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
        let upload =
            LOOKED_AT.take().map(|(want, cut)| Carrying { want, cut, idle: IdleAlarm::new(self.idle_timeout) });
        tokio::spawn(Carried { task, upload });
    }
}

/// A task of the library.
struct Carried<F> {
    task: F,
    upload: Option<Carrying>,
}

/// An upload that a task carries.
struct Carrying {
    want: Want,
    cut: CutAlarm,
    /// How long it has waited for room.
    idle: IdleAlarm,
}

impl Carrying {
    /// Whether it is to end while it waits for room.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.want.poll(cx) == Wanted::Over || self.cut.poll(cx).is_ready() {
            return Poll::Ready(());
        }
        self.idle.poll(cx)
    }
}

impl<F: Future<Output = ()> + Unpin> Future for Carried<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.task).poll(cx);
        let has_looked = LOOKED_AT.take().is_some();
        let Some(upload) = &mut this.upload else { return polled };
        if polled.is_ready() || has_looked {
            // An upload that is looked at ends by itself.
            upload.idle.moved();
            return polled;
        }
        upload.poll_end(cx)
    }
}
