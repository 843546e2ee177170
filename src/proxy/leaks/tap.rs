//! A body on its way upstream, looked at as it flows.
//!
//! Where finds are only reported, every piece goes on as it came. Where they are refused, what may be the beginning of a
//! nonce waits for the next piece, so that no nonce goes out whole: that is 107 bytes at most, and mostly none.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http_body::Frame;

use super::exposed::Sieve;
use super::finder::Finder;
use crate::audit::{Alarm, AlarmKind, AlarmOutcome, Audit, Event};
use crate::lease::{Found, Lease, Lookup};
use crate::metrics::Metrics;
use crate::model::{Destination, NonceHash, NonceId, ServiceName};
use crate::policy::LeakScan;
use crate::proxy::flow::UploadFault;

/// Nonces that are told of in one request.
const TOLD_MAX: usize = 16;
/// A shorter beginning of a real credential goes on: messages end in such letters, and who sends them may wait for an
/// answer. The rest of it is found all the same.
const HELD_BYTES_MIN: usize = 8;

/// Where it is, and whom it tells.
pub(super) struct Scene {
    pub(super) audit: Audit,
    pub(super) metrics: Arc<Metrics>,
    pub(super) leases: Lookup,
    pub(super) exchange_id: String,
    pub(super) destination: Option<Destination>,
    pub(super) service: ServiceName,
    /// Under which lease it is sent.
    pub(super) sender: Option<Arc<Lease>>,
}

/// Looks at one body.
pub struct Tap {
    judge: Judge,
    finder: Finder,
    /// Looks for real credentials, where any are loaded.
    sieve: Option<Sieve>,
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
    is_exposed: bool,
}

impl Tap {
    pub(super) fn new(scan: LeakScan, scene: Scene, sieve: Option<Sieve>) -> Self {
        let judge = Judge { scan, scene, told: Vec::new(), must_stop: false, is_exposed: false };
        Self { judge, finder: Finder::default(), sieve, held: Bytes::new(), trailers: None, is_over: false }
    }

    /// True where a find ends the request.
    pub(super) fn is_strict(&self) -> bool {
        matches!(self.judge.scan, LeakScan::Refuse | LeakScan::Revoke)
    }

    /// Judges the beginning of a body, of which nothing has been sent; what follows is looked at from there anew.
    ///
    /// # Errors
    /// [`UploadFault::NonceInBody`], [`UploadFault::CredentialExposed`].
    pub(super) fn judge(&mut self, beginning: &[u8]) -> Result<(), UploadFault> {
        Finder::default().look(beginning, &mut |candidate| self.judge.found(candidate));
        if self.sieve.as_ref().is_some_and(|sieve| sieve.fresh().look(beginning)) {
            self.judge.exposed("body");
        }
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
            Some(Err(trailers)) if self.is_exposed_in(&trailers) => Some(Some(Err(UploadFault::CredentialExposed))),
            Some(Err(trailers)) => Some(self.after_held(Some(trailers)).map(Ok)),
            None => Some(self.after_held(None).map(Ok)),
        }
    }

    /// What comes before the body is looked at again: its trailers, or its end.
    pub(in crate::proxy) fn rest(&mut self) -> Option<Option<Frame<Bytes>>> {
        self.is_over.then(|| self.trailers.take())
    }

    /// What waits, where nothing follows at once: whoever sends and answers in turns would wait for ever. The piece that
    /// would make a credential whole is looked at all the same. A nonce is waited for where that was asked for.
    pub(in crate::proxy) fn release(&mut self) -> Option<Frame<Bytes>> {
        (!self.is_strict() && !self.held.is_empty()).then(|| Frame::data(std::mem::take(&mut self.held)))
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
        if self.sieve.as_mut().is_some_and(|sieve| sieve.look(&data)) {
            self.judge.exposed("body");
        }
        self.judge.verdict()?;
        let open = self.open_bytes();
        if open == 0 && self.held.is_empty() {
            return Ok(data);
        }
        let mut text = self.before(data);
        let held = text.split_off(text.len() - open.min(text.len()));
        // A copy, so that a few bytes do not keep a large piece alive.
        self.held = Bytes::copy_from_slice(&held);
        Ok(text)
    }

    /// How many of the last bytes must not go out yet.
    fn open_bytes(&self) -> usize {
        let nonce = if self.is_strict() { self.finder.open_bytes() } else { 0 };
        let credential = self.sieve.as_ref().map_or(0, Sieve::open_bytes);
        nonce.max(if credential < HELD_BYTES_MIN { 0 } else { credential })
    }

    /// Whether a real credential stands in the trailers.
    fn is_exposed_in(&mut self, trailers: &Frame<Bytes>) -> bool {
        let is_in = |sieve: &Sieve| trailers.trailers_ref().is_some_and(|fields| sieve.is_in_fields(fields));
        let is_exposed = self.sieve.as_ref().is_some_and(is_in);
        if is_exposed {
            self.judge.exposed("header");
        }
        is_exposed
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

    /// A real credential: once for a request, whatever is done about nonces.
    fn exposed(&mut self, place: &'static str) {
        if !self.is_exposed {
            self.is_exposed = true;
            let sender = self.scene.sender.clone();
            let alarm = Alarm::new(AlarmKind::CredentialExposed, AlarmOutcome::Refused, place);
            let nonce_id = sender.as_ref().map(|lease| lease.id());
            self.raise(&Alarm { nonce_id, ..alarm }, sender.as_deref());
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
        self.raise(&Alarm { nonce_id: Some(id), ..Alarm::new(kind, outcome, "body") }, lease);
    }

    fn raise(&self, alarm: &Alarm, lease: Option<&Lease>) {
        let terms = lease.map(Lease::terms);
        let alarm = Alarm {
            exchange_id: Some(self.scene.exchange_id.clone()),
            destination: self.scene.destination.clone(),
            service: Some(self.scene.service.clone()),
            agent: terms.map(|terms| terms.agent.clone()),
            task: terms.map(|terms| terms.task.clone()),
            ..alarm.clone()
        };
        if alarm.outcome != AlarmOutcome::Noted {
            self.scene.metrics.alarm(alarm.kind.as_str());
        }
        self.scene.audit.note(Event::Alarm(Box::new(alarm)));
    }

    fn verdict(&self) -> Result<(), UploadFault> {
        match () {
            () if self.is_exposed => Err(UploadFault::CredentialExposed),
            () if self.must_stop => Err(UploadFault::NonceInBody),
            () => Ok(()),
        }
    }
}
