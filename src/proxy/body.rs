//! What bodies have in common on their way: counted, bounded in idleness, cut when their lease is revoked, never
//! buffered; and the agent's body on its way upstream.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep};

use super::carrier;
use super::extract::check_trailers;
use super::inject::Tie;
use super::want::{ASK_TIME_MAX, Want, Wanted};
use crate::model::Denial;
use crate::model::denial::Misplaced;

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
    pub(super) fn denial(self) -> Denial {
        match self {
            Self::Agent => Denial::RequestMalformed,
            Self::ForeignCredential => Denial::ForeignCredential,
            Self::NonceMisplaced => Denial::NonceMisplaced(Misplaced::Header),
            Self::Cut => Denial::NonceRevoked { at: jiff::Timestamp::now() },
            Self::Idle => Denial::RequestTimeout,
            // Comes after an answer, when nobody is told anything any more.
            Self::Unwanted => Denial::Internal,
        }
    }
}

/// Counts an exchange's bodies; shared between the upload, the answer and the record.
#[derive(Debug, Clone, Default)]
pub struct Meter(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    sent: AtomicU64,
    /// Pieces of either body.
    moves: AtomicU64,
}

impl Meter {
    fn sent(&self, bytes: usize) {
        self.0.sent.fetch_add(bytes as u64, Ordering::Relaxed);
        self.moved();
    }

    /// A piece of either body has passed.
    pub(super) fn moved(&self) {
        self.0.moves.fetch_add(1, Ordering::Relaxed);
    }

    /// Bytes of the upload.
    pub(super) fn total(&self) -> u64 {
        self.0.sent.load(Ordering::Relaxed)
    }

    /// Changes with each piece of either body: while one moves, the other may rest.
    pub(super) fn moves(&self) -> u64 {
        self.0.moves.load(Ordering::Relaxed)
    }
}

/// Fires when nothing moved for the limit; made only once something is waited for.
pub(super) struct IdleAlarm {
    limit: Duration,
    alarm: Option<Pin<Box<Sleep>>>,
    is_armed: bool,
    /// What had moved beside it when it was armed.
    moves: u64,
}

impl IdleAlarm {
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, alarm: None, is_armed: false, moves: 0 }
    }

    pub(super) fn moved(&mut self) {
        self.is_armed = false;
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_beside(cx, 0)
    }

    /// The same, but it does not fire while `moves` changes: what moves beside it keeps it quiet.
    pub(super) fn poll_beside(&mut self, cx: &mut Context<'_>, moves: u64) -> Poll<()> {
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
pub(super) struct CutAlarm {
    tie: Option<Arc<Tie>>,
    alarm: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl CutAlarm {
    pub(super) fn new(tie: Option<Arc<Tie>>) -> Self {
        Self { tie, alarm: None }
    }

    pub(super) fn is_cut(&self) -> bool {
        self.tie.as_ref().is_some_and(|tie| tie.membership.is_cut())
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(tie) = &self.tie else { return Poll::Pending };
        let alarm = self.alarm.get_or_insert_with(|| {
            let tie = tie.clone();
            Box::pin(async move { tie.membership.cut().await })
        });
        alarm.as_mut().poll(cx)
    }
}

/// The agent's body on its way upstream.
pub struct Upload {
    /// `None` where there is no body.
    want: Option<Want>,
    patience: IdleAlarm,
    fault: Arc<OnceLock<UploadFault>>,
    meter: Meter,
    idle: IdleAlarm,
    cut: CutAlarm,
}

impl Upload {
    pub(super) fn new(want: Option<Want>, meter: Meter, idle: Duration, tie: Option<Arc<Tie>>) -> Self {
        Self {
            want,
            patience: IdleAlarm::new(ASK_TIME_MAX),
            fault: Arc::default(),
            meter,
            idle: IdleAlarm::new(idle),
            cut: CutAlarm::new(tie),
        }
    }

    /// What ended it early, once something has.
    pub(super) fn fault(&self) -> Arc<OnceLock<UploadFault>> {
        self.fault.clone()
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UploadFault>>> {
        if self.cut.is_cut() {
            return Poll::Ready(Some(Err(UploadFault::Cut)));
        }
        let Some(want) = self.want.clone() else { return Poll::Ready(None) };
        if !self.poll_wanted(&want, cx)? {
            return Poll::Pending;
        }
        match want.poll_frame(cx) {
            Poll::Ready(frame) => {
                self.idle.moved();
                let Some(frame) = frame else { return Poll::Ready(None) };
                let frame = frame.map_err(|_| UploadFault::Agent).and_then(judged);
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

impl Upload {
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

impl Drop for Upload {
    fn drop(&mut self) {
        carrier::let_go();
    }
}

impl HttpBody for Upload {
    type Data = Bytes;
    type Error = UploadFault;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UploadFault>>> {
        let this = self.get_mut();
        if let Some(want) = &this.want {
            carrier::looked_at(want);
        }
        let frame = ready!(this.poll_next(cx));
        if let Some(Err(fault)) = &frame {
            // The first one is the cause.
            let _ = this.fault.set(*fault);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.want.as_ref().is_none_or(Want::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.want.as_ref().map_or_else(|| SizeHint::with_exact(0), Want::size_hint)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::time::timeout;

    use super::*;

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
