//! One credential: the value in use, the one load under way, the pause after a failure.
//!
//! Whoever finds a value in use takes it without a lock. Otherwise one load runs in a task of its
//! own, so that it does not end with the request that began it, and everybody waits for its outcome.
//!
//! A value that nobody needs can be let go of where it can be had again: the next one who needs it loads it.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::source::{Loaded, Problem, Source};
use super::value::Trace;
use super::{Changes, Health, Unavailable, Versioned};
use crate::clock::SharedClock;
use crate::model::{CredentialName, Deadline, Now};

/// The first pause after a failure.
pub const PAUSE_MIN: Duration = Duration::from_millis(250);

type Outcome = Result<Arc<Versioned>, Unavailable>;

/// What a slot is of, in words for people.
pub(super) struct Label {
    pub(super) name: CredentialName,
    /// `env`, `file`, `exec`.
    pub(super) source: &'static str,
    /// Begins the sentence that a [`Problem`] ends: `file /run/secrets/key`.
    pub(super) subject: String,
    /// Whether it must be long enough to be found in answers.
    pub(super) scrubbed: bool,
    /// Counts the values that came into use, of all slots.
    pub(super) changes: Arc<Changes>,
}

/// One credential.
pub(super) struct Slot {
    label: Label,
    /// `None` where the value was handed in at start and stays as it is.
    source: Option<Box<dyn Source>>,
    clock: SharedClock,
    held: ArcSwapOption<Held>,
    state: Mutex<State>,
}

struct Held {
    versioned: Arc<Versioned>,
    /// To be loaded again from here on.
    good_until: Option<Deadline>,
}

#[derive(Default)]
struct State {
    version: u64,
    problem: Option<Problem>,
    failures: u32,
    paused_until: Option<Deadline>,
    flight: Option<watch::Receiver<Option<Outcome>>>,
    /// Of the value that was let go of.
    released: Option<Trace>,
}

impl Slot {
    /// A slot whose value is already known, or known to be missing for good.
    pub(super) fn settled(label: Label, outcome: Result<Loaded, Problem>, clock: SharedClock) -> Arc<Self> {
        let slot = Self::new(label, None, clock);
        // What came of it is in the slot.
        let _ = slot.land(outcome);
        slot
    }

    /// A slot that asks `source`.
    pub(super) fn sourced(label: Label, source: Box<dyn Source>, clock: SharedClock) -> Arc<Self> {
        Self::new(label, Some(source), clock)
    }

    /// The same, whose next value has the version after this one.
    pub(super) fn counting_from(self: Arc<Self>, version: u64) -> Arc<Self> {
        self.state.lock().version = version;
        self
    }

    fn new(label: Label, source: Option<Box<dyn Source>>, clock: SharedClock) -> Arc<Self> {
        Arc::new(Self { label, source, clock, held: ArcSwapOption::empty(), state: Mutex::default() })
    }

    /// The value that holds now.
    ///
    /// # Errors
    /// [`Unavailable`].
    pub(super) async fn fetch(self: &Arc<Self>) -> Outcome {
        if let Some(versioned) = self.in_use() {
            return Ok(versioned);
        }
        match self.board()? {
            Boarding::Arrived(versioned) => Ok(versioned),
            Boarding::Waits(flight) => self.wait(flight).await,
            Boarding::Leads(landing) => {
                let flight = landing.sender.subscribe();
                tokio::spawn(landing.fly());
                self.wait(flight).await
            }
        }
    }

    /// The value that was last in use, be it to be loaded again or not; none after a failure.
    pub(super) fn loaded(&self) -> Option<Arc<Versioned>> {
        self.held.load().as_ref().map(|held| Arc::clone(&held.versioned))
    }

    /// Whether what it has can be had again.
    pub(super) fn can_be_had_again(&self) -> bool {
        self.source.is_some()
    }

    /// Lets go of a value that can be had again; true if there was one. Who took it before still has it.
    pub(super) fn release(&self) -> bool {
        if !self.can_be_had_again() {
            return false;
        }
        let mut state = self.state.lock();
        let Some(held) = self.held.swap(None) else { return false };
        // Without randomness it is not known again, and the same value gets another version.
        let fill = |pad: &mut [u8]| getrandom::fill(pad).is_ok();
        state.released = held.versioned.value.trace(fill);
        true
    }

    /// Whether a value was let go of, and none has been had since.
    pub(super) fn is_released(&self) -> bool {
        self.state.lock().released.is_some()
    }

    /// How it is doing.
    pub(super) fn health(&self) -> Health {
        let state = self.state.lock();
        Health {
            name: self.label.name.clone(),
            source: self.label.source,
            problem: state.problem.map(|problem| self.sentence(problem)),
            version: state.version,
        }
    }

    /// The value in use, unless it is to be loaded again. Takes no lock and allocates nothing.
    fn in_use(&self) -> Option<Arc<Versioned>> {
        let held = self.held.load();
        let held = held.as_ref()?;
        let over = held.good_until.is_some_and(|deadline| deadline.is_over(&self.clock.now()));
        (!over).then(|| Arc::clone(&held.versioned))
    }

    /// Joins the load under way or begins one.
    fn board(self: &Arc<Self>) -> Result<Boarding, Unavailable> {
        let mut state = self.state.lock();
        if let Some(versioned) = self.in_use() {
            return Ok(Boarding::Arrived(versioned));
        }
        if let Some(flight) = &state.flight {
            return Ok(Boarding::Waits(flight.clone()));
        }
        if self.source.is_none() {
            return Err(Unavailable { retry_after: None });
        }
        let now = self.clock.now();
        if let Some(pause) = state.paused_until.filter(|pause| !pause.is_over(&now)) {
            return Err(Unavailable { retry_after: Some(pause.remaining(&now)) });
        }
        let (sender, flight) = watch::channel(None);
        state.flight = Some(flight);
        // The caller starts the load once the lock is free: a runtime that is shutting down drops it at once, and that locks.
        Ok(Boarding::Leads(Landing { slot: Arc::clone(self), sender, outcome: Some(Err(Problem::Interrupted)) }))
    }

    async fn wait(&self, mut flight: watch::Receiver<Option<Outcome>>) -> Outcome {
        let wait_max = self.source.as_ref().map_or(Duration::ZERO, |source| source.pace().wait_max);
        let arrival = tokio::time::timeout(wait_max, flight.wait_for(Option::is_some)).await;
        match arrival {
            Ok(Ok(outcome)) => outcome.clone().unwrap_or(Err(Unavailable { retry_after: None })),
            // It took too long, or ended without a word: the next caller may find it done.
            Ok(Err(_)) | Err(_) => Err(Unavailable { retry_after: Some(PAUSE_MIN) }),
        }
    }

    /// Takes the outcome of a load over.
    fn land(&self, outcome: Result<Loaded, Problem>) -> Outcome {
        let now = self.clock.now();
        let checked = outcome.and_then(|loaded| self.check(loaded, &now));
        let mut state = self.state.lock();
        state.flight = None;
        let before = (state.version, state.problem);
        let outcome = match checked {
            Ok(loaded) => Ok(self.hold(&mut state, loaded, &now)),
            Err(problem) => Err(self.fail(&mut state, problem, &now)),
        };
        let after = (state.version, state.problem);
        drop(state);
        if before != after {
            self.tell(after.0, after.1);
        }
        outcome
    }

    fn check(&self, loaded: Loaded, now: &Now) -> Result<Loaded, Problem> {
        match () {
            () if self.label.scrubbed && !loaded.value.is_scrubbable() => Err(Problem::Short),
            () if loaded.expires_at.is_some_and(|deadline| deadline.is_over(now)) => Err(Problem::Expired),
            () => Ok(loaded),
        }
    }

    fn hold(&self, state: &mut State, loaded: Loaded, now: &Now) -> Arc<Versioned> {
        let Loaded { value, expires_at } = loaded;
        let check_at = self.source.as_ref().and_then(|source| source.pace().check_every).map(|every| now.plus(every));
        let same = self.loaded();
        let (was_held, before) = (same.is_some(), state.version);
        let versioned = match same.filter(|held| held.value.same_as(&value)) {
            Some(versioned) => versioned,
            None => {
                if !state.released.take().is_some_and(|trace| trace.is_of(&value)) {
                    state.version += 1;
                }
                Arc::new(Versioned { name: self.label.name.clone(), version: state.version, value })
            }
        };
        let good_until = match (expires_at, check_at) {
            (Some(expiry), Some(check)) => {
                Some(Deadline { boot: expiry.boot.min(check.boot), wall: expiry.wall.min(check.wall) })
            }
            (either, other) => either.or(other),
        };
        self.held.store(Some(Arc::new(Held { versioned: Arc::clone(&versioned), good_until })));
        if !was_held || state.version != before {
            // Only now: whoever sees the count finds the value.
            self.label.changes.tell();
        }
        *state = State { version: state.version, ..State::default() };
        versioned
    }

    /// Remembers a failure; the value that was in use is dropped, whatever the failure.
    fn fail(&self, state: &mut State, problem: Problem, now: &Now) -> Unavailable {
        self.held.store(None);
        state.released = None;
        state.problem = Some(problem);
        state.failures = state.failures.saturating_add(1);
        let Some(source) = &self.source else { return Unavailable { retry_after: None } };
        let pause = jittered(pause(state.failures, source.pace().pause_max));
        state.paused_until = Some(now.plus(pause));
        Unavailable { retry_after: Some(pause) }
    }

    fn tell(&self, version: u64, problem: Option<Problem>) {
        let (name, source) = (self.label.name.as_str(), self.label.source);
        match problem {
            None => tracing::info!(
                credential.name = name,
                credential.source = source,
                credential.version = version,
                "a credential is in use"
            ),
            Some(problem) => tracing::warn!(
                credential.name = name,
                credential.source = source,
                credential.problem = self.sentence(problem),
                "a credential cannot be had; requests that need it are refused"
            ),
        }
    }

    fn sentence(&self, problem: Problem) -> String {
        format!("{} {problem}", self.label.subject)
    }
}

enum Boarding {
    Arrived(Arc<Versioned>),
    Waits(watch::Receiver<Option<Outcome>>),
    Leads(Landing),
}

/// Ends a load in any case: by its outcome, by a panic, or with the runtime.
struct Landing {
    slot: Arc<Slot>,
    sender: watch::Sender<Option<Outcome>>,
    outcome: Option<Result<Loaded, Problem>>,
}

impl Landing {
    async fn fly(mut self) {
        if let Some(source) = &self.slot.source {
            let outcome = source.load().await;
            self.outcome = Some(outcome);
        }
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        let outcome = self.outcome.take().unwrap_or(Err(Problem::Interrupted));
        let outcome = self.slot.land(outcome);
        self.sender.send_replace(Some(outcome));
    }
}

/// The pause after the given number of failures in a row.
fn pause(failures: u32, pause_max: Duration) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    PAUSE_MIN.saturating_mul(1 << doublings).min(pause_max)
}

/// Half of the pause to all of it, so that sidecars which failed together do not come back together.
fn jittered(pause: Duration) -> Duration {
    let random = getrandom::u32().unwrap_or(u32::MAX);
    pause.mul_f64(0.5 + 0.5 * f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests;
