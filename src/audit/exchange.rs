//! One request and its answer, from the first byte to the closing record.

use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::Unavailable;
use super::facts::{Decided, DecisionFacts};
use super::flood::{Kind, Whose, may_be_counted};
use super::handle::Handle;
use super::record::{Body, Decision, End, Failure, Outcome, Request, Verdict};
use crate::model::{Denial, Destination};

/// How long a refusal may wait for its record: it is given without one, too.
const DENY_WAIT_MAX: Duration = Duration::from_millis(100);

/// Proof that a decision is on record. Made only by [`Exchange::record`].
pub struct Recorded<T>(T);

impl<T> Recorded<T> {
    /// The decision itself.
    pub fn into_inner(self) -> T {
        self.0
    }

    /// A copy of the decision, which is on record as the decision is; `None` if it has none.
    pub fn copied(&self, copy: impl FnOnce(&T) -> Option<T>) -> Option<Self> {
        copy(&self.0).map(Self)
    }
}

impl<T> Deref for Recorded<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

/// How an exchange ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The whole answer was delivered.
    Complete,
    /// The client went away first.
    ClientGone,
    /// The upstream broke off.
    UpstreamBroke,
    /// We cut it: the lease was revoked, a limit was reached, we shut down, or a panic ended it.
    Cut,
    /// It was refused.
    Refused,
}

impl Ending {
    /// The word of the record.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::ClientGone => "client_gone",
            Self::UpstreamBroke => "upstream_broke",
            Self::Cut => "cut",
            Self::Refused => "refused",
        }
    }
}

/// What is known of the decision's own record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OnRecord {
    /// There is none.
    No,
    /// It was handed over, and may be written, now or later.
    Perhaps,
    /// It is written.
    Yes,
    /// It is a refusal among many: a summary tells of it, and of how it ended.
    Counted,
}

/// One request and its answer. Dropping it writes its closing record, whatever happened.
pub struct Exchange {
    handle: Arc<Handle>,
    request: Arc<Request>,
    decision: Option<Decision>,
    on_record: OnRecord,
    /// The closing record's place in the queue.
    place: Option<OwnedSemaphorePermit>,
    outcome: Outcome,
    /// What somebody said.
    ending: Option<Ending>,
    is_refused: bool,
}

impl Exchange {
    pub(super) fn new(handle: Arc<Handle>, request: Request) -> Self {
        Self {
            handle,
            request: Arc::new(request),
            decision: None,
            on_record: OnRecord::No,
            place: None,
            outcome: Outcome::default(),
            ending: None,
            is_refused: false,
        }
    }

    /// `ex_…`: unique in this process's life and beyond; stands in refusals and in the audit.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.request.id
    }

    /// Where it goes, if that is known.
    #[must_use]
    pub fn destination(&self) -> Option<&Destination> {
        self.request.facts.destination.as_ref()
    }

    /// Puts an allowing decision on record and waits until the kernel has it; also reserves the closing record's place.
    ///
    /// # Errors
    /// [`Unavailable`] after at most [`Config::wait_max`](super::Config::wait_max): nothing may be sent. The record
    /// may still be written later; the closing record then says that the exchange was refused.
    pub async fn record<T: Decided>(&mut self, decision: T) -> Result<Recorded<T>, Unavailable> {
        let facts = decision.facts().shared_and_bounded();
        match self.decide(Verdict::Allow, facts, self.handle.wait_max).await {
            Ok(()) => Ok(Recorded(decision)),
            Err(failure) => {
                self.refuse_unrecorded(failure);
                Err(Unavailable)
            }
        }
    }

    /// Puts a refusal on record (best effort: a refusal is given even if the audit is down). `facts` is what was known.
    ///
    /// A refusal after an allowing decision is told by the closing record alone: an exchange has one decision. From
    /// here on the ending is [`Ending::Refused`], whatever [`Exchange::end`] says of the refusal's delivery.
    ///
    /// Of a flood of refusals that are alike, some are only counted, unless `facts` hold an alarm.
    pub async fn deny(&mut self, denial: &Denial, facts: DecisionFacts) {
        self.refuse(denial);
        if self.is_one_among_many(denial, &facts) {
            self.on_record = OnRecord::Counted;
        }
        if self.on_record == OnRecord::No {
            let verdict = Verdict::Deny { code: denial.code(), status: denial.status() };
            let wait_max = self.handle.wait_max.min(DENY_WAIT_MAX);
            // Without its record the refusal is told by the closing record, in full.
            let _ = self.decide(verdict, Arc::new(facts.bounded()), wait_max).await;
        }
    }

    /// Counts a refusal that nothing is on record of; true where that is all that is told of it.
    fn is_one_among_many(&self, denial: &Denial, facts: &DecisionFacts) -> bool {
        // An allowance that did not get on record has left its decision here.
        let is_untold = self.on_record == OnRecord::No && self.decision.is_none() && self.outcome.address.is_none();
        if !is_untold || facts.alarm.is_some() || !may_be_counted(denial) {
            return false;
        }
        let peer = || Whose::Peer(self.request.facts.peer.ip().to_canonical());
        let whose = facts.agent.clone().map_or_else(peer, Whose::Agent);
        self.handle.is_counted(Kind { whose, service: facts.service.clone(), of: "decision", code: denial.code() })
    }

    /// Hands a decision over and waits for its record. Before each await everything is set so that a drop tells the
    /// truth: the agent can hang up at any moment.
    async fn decide(&mut self, verdict: Verdict, facts: Arc<DecisionFacts>, wait_max: Duration) -> Result<(), Failure> {
        let deadline = Instant::now() + wait_max;
        let decision = Decision { verdict, facts };
        self.decision = Some(decision.clone());
        self.on_record = OnRecord::No;
        let place = self.reserve(deadline).await.ok_or(Failure::Unwritten)?;
        self.on_record = OnRecord::Perhaps;
        let body = Body::Decision { request: self.request.clone(), decision };
        let result = self.handle.submit(place, body, deadline).await;
        self.on_record = match result {
            Ok(()) => OnRecord::Yes,
            Err(Failure::Unsure) => OnRecord::Perhaps,
            Err(Failure::Unwritten) => OnRecord::No,
        };
        result
    }

    /// A place for the decision, and one for the closing record if it has none.
    async fn reserve(&mut self, deadline: Instant) -> Option<OwnedSemaphorePermit> {
        if self.place.is_some() {
            return self.handle.reserve(1, deadline).await;
        }
        let mut places = self.handle.reserve(2, deadline).await?;
        self.place = places.split(1);
        Some(places)
    }

    fn refuse(&mut self, denial: &Denial) {
        self.outcome.code = Some(denial.code());
        self.outcome.status = Some(denial.status());
        self.is_refused = true;
    }

    /// What was allowed and could not be recorded is denied.
    fn refuse_unrecorded(&mut self, failure: Failure) {
        self.refuse(&Denial::AuditUnavailable);
        match (failure, self.decision.take()) {
            (Failure::Unsure, decision) => self.decision = decision,
            (Failure::Unwritten, decision) => {
                let denial = Denial::AuditUnavailable;
                let verdict = Verdict::Deny { code: denial.code(), status: denial.status() };
                let facts = decision.map(|decision| decision.facts).unwrap_or_default();
                self.decision = Some(Decision { verdict, facts });
            }
        }
    }

    /// Notes what was sent upstream: which version of which credential to which address.
    pub fn dialled(&mut self, address: Option<SocketAddr>, credential_version: Option<u64>) {
        self.outcome.address = address.or(self.outcome.address);
        self.outcome.credential_version = credential_version.or(self.outcome.credential_version);
    }

    /// Notes the status that the agent gets.
    pub fn answered(&mut self, status: u16) {
        self.outcome.status = Some(status);
    }

    /// Notes why we ourselves, who were asked, did not do it.
    pub fn declined(&mut self, code: &'static str) {
        self.outcome.code = Some(code);
    }

    /// Counts body bytes from the agent.
    pub fn count_request(&mut self, bytes: u64) {
        self.outcome.request_bytes = self.outcome.request_bytes.saturating_add(bytes);
    }

    /// Counts body bytes to the agent.
    pub fn count_response(&mut self, bytes: u64) {
        self.outcome.response_bytes = self.outcome.response_bytes.saturating_add(bytes);
    }

    /// Says how it ended; the last word counts. Without it a drop is [`Ending::ClientGone`], or [`Ending::Cut`] after
    /// [`Audit::cut`](super::Audit::cut). What was refused stays so.
    pub fn end(&mut self, ending: Ending) {
        self.ending = Some(ending);
    }

    fn ending(&self) -> Ending {
        match self.ending {
            _ if self.is_refused => Ending::Refused,
            Some(ending) => ending,
            None if self.handle.is_cutting.load(Ordering::Acquire) => Ending::Cut,
            // Dropped by a panic: nobody else broke it off.
            None if std::thread::panicking() => Ending::Cut,
            None => Ending::ClientGone,
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if self.on_record == OnRecord::Counted {
            return;
        }
        let closed = self.handle.clock.now();
        let end = End {
            request: self.request.clone(),
            decision: self.decision.take(),
            is_decision_recorded: self.on_record == OnRecord::Yes,
            outcome: self.outcome,
            ending: self.ending(),
            duration: closed.boot.saturating_sub(self.request.opened.boot),
        };
        self.handle.leave(self.place.take(), closed.wall, Body::End(Box::new(end)));
    }
}
