//! Interim heads (1xx) before an answer: an upstream may send some, and not without end.
//!
//! The library passes over them for as long as they come, which keeps its task busy and the agent waiting until the
//! answer is overdue. Over HTTP/2 it does not tell of them; there they are counted below it (see `heads`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use http::{Request, StatusCode};
use tokio::sync::Notify;

use crate::proxy::flow::Want;

/// Interim heads before one answer. Hints come once or twice, signs of life every some seconds.
pub(super) const HEADS_MAX: u32 = 64;

/// Those of one exchange.
#[derive(Debug, Default)]
pub(super) struct Interims {
    count: AtomicU32,
    too_many: Notify,
}

impl Interims {
    /// Counts those before the answer to a request, and asks the agent for its body where upstream wants it now.
    pub(super) fn of<B>(request: &mut Request<B>, asked: Option<Want>) -> Arc<Self> {
        let interims = Arc::new(Self::default());
        let counting = interims.clone();
        hyper::ext::on_informational(request, move |interim| {
            if let Some(want) = asked.as_ref().filter(|_| interim.status() == StatusCode::CONTINUE) {
                want.ask();
            }
            if counting.count.fetch_add(1, Ordering::Relaxed) >= HEADS_MAX {
                counting.too_many.notify_one();
            }
        });
        interims
    }

    /// The answer; nothing if there were too many before it, also where it came with the last of them.
    pub(super) async fn within<T>(&self, answer: impl Future<Output = T>) -> Option<T> {
        let answer = tokio::select! {
            biased; // the count is looked at anyhow
            answer = answer => answer,
            () = self.too_many.notified() => return None,
        };
        (self.count.load(Ordering::Relaxed) <= HEADS_MAX).then_some(answer)
    }
}
