//! One lease: its single way from alive to over, and the exchanges that joined it.

use std::fmt;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering, fence};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::sweep::{SLEEP_MAX, SLEEP_MIN};
use super::terms::Kept;
use super::uses::Uses;
use super::{EndCause, Reservation, Spent, Store, Terms};
use crate::model::{Deadline, NonceHash, NonceId, Now, ScopeName, ServiceName};

/// A live (or just ended) lease.
///
/// There may be a million of them: what leases share is shared, and what few have is boxed.
pub struct Lease {
    pub(super) hash: NonceHash,
    pub(super) id: NonceId,
    issued: Now,
    terms: Kept,
    uses: Option<Box<Uses>>,
    end: End,
    /// Made by the first exchange that joins.
    cut: OnceLock<CancellationToken>,
    store: Weak<Store>,
    /// Where the schedule has it; read and written under the schedule's lock alone.
    pub(super) due: AtomicU64,
}

/// Alive (zero), or the one cause of the end.
#[derive(Default)]
struct End(AtomicU8);

impl End {
    fn get(&self) -> Option<EndCause> {
        match self.0.load(Ordering::SeqCst) {
            0 => None,
            1 => Some(EndCause::Expired),
            3 => Some(EndCause::Spent),
            4 => Some(EndCause::Misplaced),
            // 2, and never anything else: `set` is the only writer.
            _ => Some(EndCause::Revoked),
        }
    }

    /// True for the one caller that ended it.
    fn set(&self, cause: EndCause) -> bool {
        let code = match cause {
            EndCause::Expired => 1,
            EndCause::Revoked => 2,
            EndCause::Spent => 3,
            EndCause::Misplaced => 4,
        };
        self.0.compare_exchange(0, code, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }
}

impl Lease {
    pub(super) fn new(id: NonceId, hash: NonceHash, terms: Kept, issued: Now, store: Weak<Store>) -> Self {
        let uses = Uses::of(&terms.common);
        Self {
            hash,
            id,
            issued,
            terms,
            uses,
            end: End::default(),
            cut: OnceLock::new(),
            store,
            due: AtomicU64::default(),
        }
    }

    /// The accessor.
    #[must_use]
    pub fn id(&self) -> NonceId {
        self.id
    }

    /// All that it was made of.
    #[must_use]
    pub fn terms(&self) -> Terms<'_> {
        self.terms.view()
    }

    /// When it was minted.
    #[must_use]
    pub fn issued_at(&self) -> Timestamp {
        self.issued.wall
    }

    /// When this period ends.
    #[must_use]
    pub fn deadline(&self) -> Deadline {
        self.issued.plus(self.terms.common.ttl.min(self.terms.common.lifetime))
    }

    /// When its life ends for good.
    #[must_use]
    pub fn ends_at(&self) -> Timestamp {
        self.issued.plus(self.terms.common.lifetime).wall
    }

    /// Uses of the whole nonce that nobody has spent or reserved, where there is a limit: its own, or, when every
    /// scope has one, their sum.
    #[must_use]
    pub fn uses_left(&self) -> Option<u32> {
        self.uses()?.left()
    }

    /// Why it ended, if it has (expiry by the clock included).
    ///
    /// Reads the clock; whoever first sees that the time is over ends the lease for good, so that a clock that is
    /// set back afterwards does not bring it to life again. When the whole store is gone, it counts as revoked.
    #[must_use]
    pub fn ended(&self) -> Option<EndCause> {
        match self.store.upgrade() {
            Some(store) => store.judge(self),
            None => Some(self.cause().unwrap_or(EndCause::Revoked)),
        }
    }

    /// Reserves one use of the nonce and of the scope, atomically, exactly under concurrency.
    ///
    /// # Errors
    /// [`Spent`] when either has none left, when the scope is not in the lease, or when the lease is over (ask
    /// [`Lease::ended`] why); nothing is taken then.
    pub fn reserve(self: &Arc<Self>, service: &ServiceName, scope: &ScopeName) -> Result<Reservation, Spent> {
        if self.cause().is_some() {
            return Err(Spent);
        }
        let place = self.place(service, scope).ok_or(Spent)?;
        Reservation::take(self, place)
    }

    /// Joins the lease for the time of an exchange; `None` if it is already cut or over.
    #[must_use]
    pub fn join(self: &Arc<Self>) -> Option<Membership> {
        if self.ended().is_some() { None } else { self.enter() }
    }

    /// The second half of joining, in which the lease may end.
    pub(super) fn enter(self: &Arc<Self>) -> Option<Membership> {
        let token = self.cut.get_or_init(CancellationToken::new).clone();
        // Pairs with the fence in `end`: either the token is seen there, or the cause here.
        fence(Ordering::SeqCst);
        self.cause().is_none().then(|| Membership { lease: self.clone(), token })
    }

    /// Ends it, and cuts the exchanges where the cause says so. True for the one caller that ended it.
    pub(super) fn end(&self, cause: EndCause) -> bool {
        if !self.end.set(cause) {
            return false;
        }
        fence(Ordering::SeqCst);
        if cause.cuts()
            && let Some(token) = self.cut.get()
        {
            token.cancel();
        }
        true
    }

    /// What is left of this period, by both clocks; nothing once the whole store is gone.
    fn time_left(&self) -> Duration {
        self.store.upgrade().map_or(Duration::ZERO, |store| self.deadline().remaining(&store.now()))
    }

    /// Its last use is gone.
    pub(super) fn end_as_spent(&self) {
        if let Some(store) = self.store.upgrade() {
            store.finish(self, EndCause::Spent, None);
        }
    }

    /// Why it ended, if anybody has noticed; does not read the clock.
    pub(super) fn cause(&self) -> Option<EndCause> {
        self.end.get()
    }

    pub(super) fn uses(&self) -> Option<&Uses> {
        self.uses.as_deref()
    }

    /// Where this scope stands among all the scopes of all grants.
    fn place(&self, service: &ServiceName, scope: &ScopeName) -> Option<usize> {
        let grants = self.terms.common.grants.iter();
        let mut all = grants.flat_map(|grant| grant.scopes.iter().map(|(scope, _)| (&grant.service, scope)));
        all.position(|pair| pair == (service, scope))
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("id", &self.id).field("end", &self.cause()).finish_non_exhaustive()
    }
}

/// An exchange's membership in its lease: tells when the lease is cut.
#[derive(Debug)]
pub struct Membership {
    lease: Arc<Lease>,
    token: CancellationToken,
}

impl Membership {
    /// True once the lease is revoked (or misplaced): nothing more may pass.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.lease.cause().is_some_and(EndCause::cuts)
    }

    /// Completes when the lease is revoked or misplaced (not when it merely expires or is spent).
    pub async fn cut(&self) {
        self.token.cancelled().await;
    }

    /// Completes when the lease is revoked or misplaced, or when its time is over, be it spent or not: for what has no
    /// end of its own. A clock that was set is noticed within half a minute.
    pub async fn over(&self) {
        loop {
            let left = self.lease.time_left();
            if left.is_zero() {
                return;
            }
            tokio::select! {
                () = self.token.cancelled() => return,
                () = tokio::time::sleep(left.clamp(SLEEP_MIN, SLEEP_MAX)) => {}
            }
        }
    }
}
