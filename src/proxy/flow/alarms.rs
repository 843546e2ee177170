//! What ends a body from outside: nothing moves, or its lease is revoked. Each is made only once something is waited for.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

use crate::proxy::inject::Tie;

/// Fires when nothing moved for the limit; made only once something is waited for.
pub(in crate::proxy) struct IdleAlarm {
    limit: Duration,
    alarm: Option<Pin<Box<Sleep>>>,
    is_armed: bool,
    /// What had moved beside it when it was armed.
    moves: u64,
}

impl IdleAlarm {
    pub(in crate::proxy) fn new(limit: Duration) -> Self {
        Self { limit, alarm: None, is_armed: false, moves: 0 }
    }

    pub(in crate::proxy) fn moved(&mut self) {
        self.is_armed = false;
    }

    pub(in crate::proxy) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_beside(cx, 0)
    }

    /// The same, but it does not fire while `moves` changes: what moves beside it keeps it quiet.
    pub(in crate::proxy) fn poll_beside(&mut self, cx: &mut Context<'_>, moves: u64) -> Poll<()> {
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep(self.limit)));
        loop {
            if !self.is_armed {
                alarm.as_mut().reset(Instant::now() + self.limit);
                (self.is_armed, self.moves) = (true, moves);
            }
            ready!(alarm.as_mut().poll(cx));
            if self.moves == moves {
                return Poll::Ready(());
            }
            self.is_armed = false;
        }
    }
}

/// Fires when the lease is revoked; made only once something is waited for.
pub(in crate::proxy) struct CutAlarm {
    tie: Option<Arc<Tie>>,
    alarm: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl CutAlarm {
    pub(in crate::proxy) fn new(tie: Option<Arc<Tie>>) -> Self {
        Self { tie, alarm: None }
    }

    /// One more for the same lease.
    pub(super) fn another(&self) -> Self {
        Self::new(self.tie.clone())
    }

    pub(in crate::proxy) fn is_cut(&self) -> bool {
        self.tie.as_ref().is_some_and(|tie| tie.membership.is_cut())
    }

    pub(in crate::proxy) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(tie) = &self.tie else { return Poll::Pending };
        let alarm = self.alarm.get_or_insert_with(|| {
            let tie = tie.clone();
            Box::pin(async move { tie.membership.cut().await })
        });
        alarm.as_mut().poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::time::timeout;

    use super::*;
    use crate::proxy::flow::Meter;

    #[tokio::test(start_paused = true)]
    async fn silence_below_the_limit_is_kept_and_above_it_is_cut() {
        let mut idle = IdleAlarm::new(Duration::from_secs(300));
        // Events, each after a silence of almost the limit.
        for _ in 0..3 {
            assert!(timeout(Duration::from_secs(299), poll_fn(|cx| idle.poll(cx))).await.is_err());
            idle.moved();
        }
        assert!(timeout(Duration::from_secs(301), poll_fn(|cx| idle.poll(cx))).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn what_moves_beside_it_keeps_it_quiet() {
        let mut idle = IdleAlarm::new(Duration::from_secs(300));
        let meter = Meter::default();
        let moving = async {
            for _ in 0..4 {
                tokio::time::sleep(Duration::from_secs(250)).await;
                meter.moved();
            }
            std::future::pending::<()>().await;
        };
        let begun = Instant::now();
        let watching = async { poll_fn(|cx| idle.poll_beside(cx, meter.moves())).await };
        tokio::select! {
            () = watching => {}
            () = moving => {}
        }
        // The last move at 1,000 s was seen at 1,200 s.
        assert_eq!(begun.elapsed().as_secs(), 1500);
    }
}
