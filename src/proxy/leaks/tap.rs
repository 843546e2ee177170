//! A body on its way upstream, looked at as it flows.
//!
//! Where finds are only reported, every piece goes on as it came. Where they are refused, what may be the beginning of a
//! nonce waits for the next piece, so that no nonce goes out whole: that is 107 bytes at most, and mostly none.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http_body::Frame;

use super::finder::Finder;
use crate::audit::{Alarm, AlarmKind, AlarmOutcome, Audit, Event};
use crate::lease::{Found, Lease, Lookup};
use crate::metrics::Metrics;
use crate::model::{Destination, NonceHash, NonceId, ServiceName};
use crate::policy::LeakScan;
use crate::proxy::flow::UploadFault;

/// Nonces that are told of in one request.
const TOLD_MAX: usize = 16;

/// Where it is, and whom it tells.
pub(super) struct Scene {
    pub(super) audit: Audit,
    pub(super) metrics: Arc<Metrics>,
    pub(super) leases: Lookup,
    pub(super) exchange_id: String,
    pub(super) destination: Option<Destination>,
    pub(super) service: ServiceName,
}

/// Looks at one body.
pub struct Tap {
    judge: Judge,
    finder: Finder,
    /// What waits for the next piece.
    held: Bytes,
    /// What comes after the bytes that were held.
    trailers: Option<Frame<Bytes>>,
    is_over: bool,
}

/// What is done about a find.
struct Judge {
    scan: LeakScan,
    scene: Scene,
    /// Told already.
    told: Vec<NonceId>,
    must_stop: bool,
}

impl Tap {
    pub(super) fn new(scan: LeakScan, scene: Scene) -> Self {
        let judge = Judge { scan, scene, told: Vec::new(), must_stop: false };
        Self { judge, finder: Finder::default(), held: Bytes::new(), trailers: None, is_over: false }
    }

    /// True where a find ends the request.
    pub(super) fn is_strict(&self) -> bool {
        matches!(self.judge.scan, LeakScan::Refuse | LeakScan::Revoke)
    }

    /// Judges the beginning of a body, of which nothing has been sent; what follows is looked at from there anew.
    ///
    /// # Errors
    /// [`UploadFault::NonceInBody`].
    pub(super) fn judge(&mut self, beginning: &[u8]) -> Result<(), UploadFault> {
        Finder::default().look(beginning, &mut |candidate| self.judge.found(candidate));
        self.judge.verdict()
    }

    /// Takes the next of the body; `None` says that there is nothing to send yet.
    pub(in crate::proxy) fn pass(
        &mut self,
        frame: Option<Result<Frame<Bytes>, UploadFault>>,
    ) -> Option<Option<Result<Frame<Bytes>, UploadFault>>> {
        let frame = match frame.transpose() {
            Ok(frame) => frame.map(Frame::into_data),
            Err(fault) => return Some(Some(Err(fault))),
        };
        match frame {
            Some(Ok(data)) => match self.pass_data(data) {
                Ok(data) if data.is_empty() => None,
                Ok(data) => Some(Some(Ok(Frame::data(data)))),
                Err(fault) => Some(Some(Err(fault))),
            },
            Some(Err(trailers)) => Some(self.after_held(Some(trailers)).map(Ok)),
            None => Some(self.after_held(None).map(Ok)),
        }
    }

    /// What comes before the body is looked at again: its trailers, or its end.
    pub(in crate::proxy) fn rest(&mut self) -> Option<Option<Frame<Bytes>>> {
        self.is_over.then(|| self.trailers.take())
    }

    /// How many bytes wait for the next piece.
    pub(in crate::proxy) fn held_bytes(&self) -> usize {
        self.held.len()
    }

    /// True where something is still to come that the body itself does not know of.
    pub(in crate::proxy) fn has_more(&self) -> bool {
        !self.held.is_empty() || self.trailers.is_some()
    }

    fn pass_data(&mut self, data: Bytes) -> Result<Bytes, UploadFault> {
        self.finder.look(&data, &mut |candidate| self.judge.found(candidate));
        if !self.is_strict() {
            return Ok(data);
        }
        self.judge.verdict()?;
        let mut text = self.before(data);
        let held = text.split_off(text.len() - self.finder.open_bytes().min(text.len()));
        // A copy, so that a few bytes do not keep a large piece alive.
        self.held = Bytes::copy_from_slice(&held);
        Ok(text)
    }

    fn before(&mut self, data: Bytes) -> Bytes {
        if self.held.is_empty() {
            return data;
        }
        let mut text = BytesMut::with_capacity(self.held.len() + data.len());
        text.extend_from_slice(&self.held);
        text.extend_from_slice(&data);
        text.freeze()
    }

    /// The body is over: what was held grew into nothing, and goes before the trailers.
    fn after_held(&mut self, trailers: Option<Frame<Bytes>>) -> Option<Frame<Bytes>> {
        self.is_over = true;
        if self.held.is_empty() {
            return trailers;
        }
        self.trailers = trailers;
        Some(Frame::data(std::mem::take(&mut self.held)))
    }
}

impl Judge {
    fn found(&mut self, candidate: &[u8]) {
        match self.scene.leases.find(&NonceHash::of(candidate)) {
            Found::Live(lease) => self.live(&lease),
            Found::Canary(lease) => {
                // To whoever sent it, it is a text like any other.
                self.tell(AlarmKind::CanaryUsed, AlarmOutcome::Reported, lease.id(), Some(&lease));
            }
            Found::Dead(tombstone) => self.tell(AlarmKind::NonceInBody, AlarmOutcome::Noted, tombstone.id, None),
            Found::Unknown => {}
        }
    }

    fn live(&mut self, lease: &Lease) {
        let outcome = match self.scan {
            LeakScan::Report | LeakScan::Off => AlarmOutcome::Reported,
            LeakScan::Refuse => AlarmOutcome::Refused,
            LeakScan::Revoke => AlarmOutcome::Revoked,
        };
        self.must_stop |= matches!(self.scan, LeakScan::Refuse | LeakScan::Revoke);
        self.tell(AlarmKind::NonceInBody, outcome, lease.id(), Some(lease));
        if self.scan == LeakScan::Revoke {
            self.scene.leases.misplaced(lease);
        }
    }

    /// Once for each nonce.
    fn tell(&mut self, kind: AlarmKind, outcome: AlarmOutcome, id: NonceId, lease: Option<&Lease>) {
        // The dead leave room for the living: nobody hides one behind them.
        let told_max = if outcome == AlarmOutcome::Noted { TOLD_MAX / 2 } else { TOLD_MAX };
        if self.told.contains(&id) || self.told.len() >= told_max {
            return;
        }
        self.told.push(id);
        let terms = lease.map(Lease::terms);
        let alarm = Alarm {
            exchange_id: Some(self.scene.exchange_id.clone()),
            destination: self.scene.destination.clone(),
            service: Some(self.scene.service.clone()),
            nonce_id: Some(id),
            agent: terms.map(|terms| terms.agent.clone()),
            task: terms.map(|terms| terms.task.clone()),
            ..Alarm::new(kind, outcome, "body")
        };
        if outcome != AlarmOutcome::Noted {
            self.scene.metrics.alarm(kind.as_str());
        }
        self.scene.audit.note(Event::Alarm(Box::new(alarm)));
    }

    fn verdict(&self) -> Result<(), UploadFault> {
        if self.must_stop { Err(UploadFault::NonceInBody) } else { Ok(()) }
    }
}
