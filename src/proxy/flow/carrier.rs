//! Runs what the client library spawns, and ends uploads that are stuck.
//!
//! Over HTTP/2 the library carries a request's body in a task of its own, which looks at the body only while the
//! upstream gives it room. An upstream that gives none and resets nothing would keep the task and its stream for as long
//! as the connection lives, although nobody wants the rest any more, or its nonce was revoked. Here such a task is
//! dropped, which resets the stream. How a task is known: the library looks at the body once before it spawns, in the
//! same turn.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
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

/// A future of the library that spawns: what others on this thread have looked at in their turns is none of its uploads.
pub(in crate::proxy) async fn in_turns<F: Future>(spawning: F) -> F::Output {
    let mut spawning = pin!(spawning);
    let polled = poll_fn(|cx| {
        let_go();
        spawning.as_mut().poll(cx)
    });
    polled.await
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

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use tokio::sync::oneshot::{self, error::TryRecvError};

    use super::*;
    use crate::proxy::flow::{Answering, Inbound};

    /// Whether a task that is spawned `in_turns` or not, after an upload was looked at, ends with that upload.
    async fn ends_with_it(is_apart: bool) -> bool {
        let want = Want::new(Wanted::NotYet, Inbound::none());
        looked_at(&want, &CutAlarm::new(None));
        let (held, mut dropped) = oneshot::channel::<()>();
        let spawning = async {
            let task = Box::pin(async move {
                let _held = held;
                std::future::pending::<()>().await;
            });
            Carrier { idle_timeout: Duration::from_secs(300) }.execute(task);
        };
        if is_apart {
            in_turns(spawning).await;
        } else {
            spawning.await;
        }
        want.answered(StatusCode::PAYLOAD_TOO_LARGE);
        drop(Answering { want: Some(want), upload_fault: None });
        tokio::time::sleep(Duration::from_secs(1)).await;
        dropped.try_recv() != Err(TryRecvError::Empty)
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_carries_what_was_looked_at_in_its_own_turn_alone() {
        assert!(ends_with_it(false).await);
        assert!(!ends_with_it(true).await, "that was another's");
    }
}
