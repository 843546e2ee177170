//! One lease: its single way from alive to over, and the exchanges that joined it.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::kin::{Kin, Origin};
use super::redirects::Redirects;
use super::rule_pace::RulePaces;
use super::said::Said;
use super::state::{Period, State};
use super::sweep::{SLEEP_MAX, SLEEP_MIN};
use super::sync::fence;
use super::terms::Group;
use super::uses::Uses;
use super::{EndCause, NoUse, Renewal, Reservation, Restriction, Store, Terms};
use crate::model::{Budget, Deadline, NonceHash, NonceId, Now, Rate, RuleRate, ScopeName, ServiceName, TaskName};

/// A live (or just ended) lease.
///
/// There may be a million of them: what leases share is shared, and what few have is in a box of its own. In this order:
/// what a look-up reads comes first, so that as little as possible has to be fetched from memory.
#[repr(C)]
pub struct Lease {
    pub(super) hash: NonceHash,
    state: State,
    issued: Issued,
    group: Arc<Group>,
    /// There from the beginning where there is anything in it, and otherwise made by the first exchange that joins.
    rare: OnceLock<Box<Rare>>,
    /// Where the schedule has it; read and written under the schedule's lock alone.
    pub(super) due: AtomicU64,
    pub(super) id: NonceId,
    task: TaskName,
}

/// What few leases have at a time: many of a million may, so that of this as well each part is in a box of its own.
#[derive(Default)]
struct Rare {
    uses: Option<Box<Uses>>,
    said: Option<Said>,
    /// There from the beginning in what was delegated, and otherwise made with what comes first of it.
    busy: OnceLock<Box<Busy>>,
}

/// What a lease has once it is used or delegated from.
#[derive(Default)]
pub(super) struct Busy {
    /// Made by the first exchange that joins.
    cut: OnceLock<CancellationToken>,
    /// Made with the first request that a rule with a rate allows.
    rule_paces: OnceLock<Box<RulePaces>>,
    /// Made with the first redirect to elsewhere.
    pub(super) redirects: OnceLock<Box<Redirects>>,
    /// There from the beginning in what was delegated, and otherwise made with the first child.
    kin: OnceLock<Box<Kin>>,
}

impl Rare {
    fn new(uses: Option<Uses>, said: Option<Said>, origin: Option<Origin>) -> OnceLock<Box<Self>> {
        if uses.is_none() && said.is_none() && origin.is_none() {
            return OnceLock::new();
        }
        let busy = origin.map_or_else(OnceLock::new, |origin| OnceLock::from(Box::new(Busy::below(origin))));
        OnceLock::from(Box::new(Self { uses: uses.map(Box::new), said, busy }))
    }
}

impl Busy {
    fn below(origin: Origin) -> Self {
        Self { kin: OnceLock::from(Box::new(Kin::of(origin))), ..Self::default() }
    }
}

/// Of a second.
const NANOSECONDS: i64 = 1_000_000_000;

/// The moment of the minting in half the space of a [`Now`]: nanoseconds since boot and since the epoch.
#[derive(Clone, Copy)]
struct Issued {
    boot: u64,
    wall: i64,
}

impl Issued {
    /// What does not fit (the year 2263) becomes the last moment that does: leases made then are over at once.
    fn at(now: &Now) -> Self {
        let boot = u64::try_from(now.boot.as_nanos()).unwrap_or(u64::MAX);
        Self { boot, wall: i64::try_from(now.wall.as_nanosecond()).unwrap_or(i64::MAX) }
    }

    fn now(self) -> Now {
        // Divided in 64 bits, since it is asked of every lease that is looked at. The rest fits.
        let rest = i32::try_from(self.wall % NANOSECONDS).unwrap_or(0);
        let wall = Timestamp::new(self.wall / NANOSECONDS, rest).unwrap_or(Timestamp::MIN);
        Now { boot: Duration::from_nanos(self.boot), wall }
    }
}

impl Lease {
    pub(super) fn new(
        id: NonceId,
        hash: NonceHash,
        issued: &Now,
        group: Arc<Group>,
        task: TaskName,
        said: Option<Said>,
        origin: Option<Origin>,
    ) -> Self {
        let rare = Rare::new(Uses::of(&group.common), said, origin);
        let state = State::new(group.common.ttl.min(group.common.lifetime));
        Self { hash, state, issued: Issued::at(issued), group, rare, due: AtomicU64::default(), id, task }
    }

    /// The accessor.
    #[must_use]
    pub fn id(&self) -> NonceId {
        self.id
    }

    /// All that it was made of.
    #[must_use]
    pub fn terms(&self) -> Terms<'_> {
        self.group.view(&self.task, self.rare.get().and_then(|rare| rare.said.as_ref()))
    }

    /// When it was minted.
    #[must_use]
    pub fn issued_at(&self) -> Timestamp {
        self.issued.now().wall
    }

    /// How long ago it was minted, by whichever clock says longer.
    #[must_use]
    pub fn age(&self, now: &Now) -> Duration {
        let age = self.since_issue(Deadline { boot: now.boot, wall: now.wall });
        age.boot.max(age.wall)
    }

    /// When this period ends. A renewal moves it later, so whoever waits for it looks again.
    #[must_use]
    pub fn deadline(&self) -> Deadline {
        self.deadline_of(self.state.period())
    }

    fn deadline_of(&self, period: Period) -> Deadline {
        let issued = self.issued.now();
        Deadline { boot: issued.boot.saturating_add(period.boot), wall: issued.plus(period.wall).wall }
    }

    fn since_issue(&self, until: Deadline) -> Period {
        let issued = self.issued.now();
        let wall = Duration::try_from(until.wall.duration_since(issued.wall)).unwrap_or(Duration::ZERO);
        Period { boot: until.boot.saturating_sub(issued.boot), wall }
    }

    fn life(&self) -> Deadline {
        self.issued.now().plus(self.group.common.lifetime)
    }

    /// What a renewal for another `period` from `now` would give: never beyond the end of its life, and never an
    /// earlier expiry than it has. What was delegated never outlives its parent's period.
    #[must_use]
    pub fn renewal(&self, period: Duration, now: &Now) -> Renewal {
        let (wanted, last, present) = (now.plus(period), self.last(), self.deadline());
        let boot = wanted.boot.min(last.boot).max(present.boot);
        let wall = wanted.wall.min(last.wall).max(present.wall);
        let is_capped = wanted.boot > last.boot || wanted.wall > last.wall;
        // To the microsecond, as it will be kept: what is recorded beforehand is what holds afterwards.
        let until = self.deadline_of(self.since_issue(Deadline { boot, wall }).kept());
        Renewal { until, is_capped }
    }

    /// When its life ends for good.
    #[must_use]
    pub fn ends_at(&self) -> Timestamp {
        self.life().wall
    }

    /// The latest end that a renewal can give: of its life, and of its parent's present period.
    fn last(&self) -> Deadline {
        let (life, parent) = (self.life(), self.parent().map(|parent| parent.deadline()));
        parent.map_or(life, |parent| Deadline { boot: life.boot.min(parent.boot), wall: life.wall.min(parent.wall) })
    }

    /// What is left of its life at this moment, by both clocks.
    #[must_use]
    pub fn life_left(&self, now: &Now) -> Duration {
        self.life().remaining(now)
    }

    /// Uses of the whole nonce that nobody has spent or reserved, where there is a limit: its own, or, when every
    /// scope has one, their sum; or less, where one above it has less.
    #[must_use]
    pub fn uses_left(&self) -> Option<u32> {
        self.and_ancestors().filter_map(|lease| lease.uses()?.left()).min()
    }

    /// Uses of one of its scopes that nobody has spent or reserved, where the scope has a limit.
    #[must_use]
    pub fn scope_uses_left(&self, service: &ServiceName, scope: &ScopeName) -> Option<u32> {
        self.uses()?.left_of(self.place(service, scope)?)
    }

    /// The strictest level of risk in force for it.
    #[must_use]
    pub fn restriction(&self) -> Option<Restriction> {
        self.group.store.upgrade()?.restriction(self)
    }

    /// True for a lease that opens nothing: its nonce was minted to be found, and any use of it is an alarm.
    #[must_use]
    pub fn is_canary(&self) -> bool {
        self.group.common.grants.is_empty()
    }

    /// Why it ended, if it has (expiry by the clock included).
    ///
    /// Reads the clock; whoever first sees that the time is over ends the lease for good, so that a clock that is
    /// set back afterwards does not bring it to life again. When the whole store is gone, it counts as revoked.
    #[must_use]
    pub fn ended(&self) -> Option<EndCause> {
        match self.group.store.upgrade() {
            Some(store) => store.judge(self),
            None => Some(self.cause().unwrap_or(EndCause::Revoked)),
        }
    }

    /// Reserves one use of the nonce, of the scope and of the task's allowance, and the same of all above it, atomically,
    /// exactly under concurrency.
    ///
    /// # Errors
    /// [`NoUse::Spent`] when one of those nonces or its scope has none left, when the scope is not in the lease, or when
    /// the lease is over (ask [`Lease::ended`] why), and the others where a rate or an allowance says so; nothing is
    /// taken then.
    pub fn reserve(self: &Arc<Self>, service: &ServiceName, scope: &ScopeName) -> Result<Reservation, NoUse> {
        self.reserve_paced(service, scope, &[])
    }

    /// The same for a request that these rules of the scope allow, each at its own pace here and above.
    ///
    /// # Errors
    /// As of [`Lease::reserve`].
    pub fn reserve_paced(
        self: &Arc<Self>,
        service: &ServiceName,
        scope: &ScopeName,
        rules: &[RuleRate],
    ) -> Result<Reservation, NoUse> {
        if self.cause_above().is_some() {
            return Err(NoUse::Spent);
        }
        Reservation::take(self, service, scope, rules)
    }

    /// Joins the lease for the time of an exchange; `None` if it is already cut or over.
    #[must_use]
    pub fn join(self: &Arc<Self>) -> Option<Membership> {
        if self.ended().is_some() { None } else { self.enter() }
    }

    /// The second half of joining, in which the lease may end.
    pub(super) fn enter(self: &Arc<Self>) -> Option<Membership> {
        let token = self.busy_or_new().cut.get_or_init(CancellationToken::new).clone();
        // Pairs with the fence in `cut`: either the token is seen there, or the cause here.
        fence(Ordering::SeqCst);
        self.cause_above().is_none().then(|| Membership { lease: self.clone(), token })
    }

    /// Ends it if its period is over: it may have been renewed since somebody looked. True for the one caller that
    /// ended it. Exchanges that began in time go on.
    pub(super) fn expire(&self, now: &Now) -> bool {
        self.state.expire(|period| self.deadline_of(period).is_over(now))
    }

    /// Ends it, and cuts the exchanges where the cause says so. True for the one caller that ended it.
    pub(super) fn end(&self, cause: EndCause) -> bool {
        if !self.state.end(cause) {
            return false;
        }
        if cause.cuts() {
            self.cut();
        }
        true
    }

    /// Cuts the exchanges of a lease that is over.
    pub(super) fn cut(&self) {
        fence(Ordering::SeqCst);
        if let Some(token) = self.token() {
            token.cancel();
        }
    }

    /// True if it ever had an exchange; a lease that is over gets no more.
    pub(super) fn was_joined(&self) -> bool {
        fence(Ordering::SeqCst);
        self.token().is_some()
    }

    fn token(&self) -> Option<&CancellationToken> {
        self.busy().and_then(|busy| busy.cut.get())
    }

    /// What is left of this period, by both clocks; nothing once the whole store is gone.
    fn time_left(&self) -> Duration {
        self.group.store.upgrade().map_or(Duration::ZERO, |store| self.deadline().remaining(&store.now()))
    }

    /// Lets it live until then, within its life and never shorter than it would anyhow; false if it is over. One
    /// caller at a time: under the schedule's lock.
    pub(super) fn extend(&self, until: Deadline, now: &Now) -> bool {
        let (last, later) = (self.since_issue(self.last()), self.since_issue(until));
        let later = Period { boot: later.boot.min(last.boot), wall: later.wall.min(last.wall) };
        self.state.extend(later, |period| self.deadline_of(period).is_over(now))
    }

    /// Its last use is gone.
    pub(super) fn end_as_spent(&self) {
        if let Some(store) = self.group.store.upgrade() {
            let _below = store.finish(self, EndCause::Spent, None);
        }
    }

    /// Why it ended, if anybody has noticed; does not read the clock.
    pub(super) fn cause(&self) -> Option<EndCause> {
        self.state.cause()
    }

    pub(super) fn uses(&self) -> Option<&Uses> {
        self.rare.get().and_then(|rare| rare.uses.as_deref())
    }

    /// Made where there are none.
    pub(super) fn rule_paces(&self) -> &RulePaces {
        self.busy_or_new().rule_paces.get_or_init(Box::default)
    }

    pub(super) fn kin(&self) -> Option<&Kin> {
        self.busy()?.kin.get().map(Box::as_ref)
    }

    /// The same, made where there is none.
    pub(super) fn kin_or_new(&self) -> &Kin {
        self.busy_or_new().kin.get_or_init(Box::default)
    }

    pub(super) fn busy(&self) -> Option<&Busy> {
        self.rare.get()?.busy.get().map(Box::as_ref)
    }

    pub(super) fn busy_or_new(&self) -> &Busy {
        self.rare.get_or_init(Box::default).busy.get_or_init(Box::default)
    }

    /// How fast the scope at this place may be used.
    pub(super) fn rate(&self, place: usize) -> Option<Rate> {
        let mut limits = self.group.common.grants.iter().flat_map(|grant| &grant.scopes);
        limits.nth(place).and_then(|(_, limits)| limits.rate)
    }

    /// How fast the whole nonce may be used.
    pub(super) fn own_rate(&self) -> Option<Rate> {
        self.group.common.rate
    }

    /// What it shares with its task, as its own terms have it.
    pub(super) fn budget(&self) -> Option<Budget> {
        self.group.common.budget
    }

    /// What it shares with the leases that have the same terms.
    pub(super) fn group(&self) -> &Group {
        &self.group
    }

    pub(super) fn store(&self) -> Option<Arc<Store>> {
        self.group.store.upgrade()
    }

    /// Where this scope stands among all the scopes of all grants.
    pub(super) fn place(&self, service: &ServiceName, scope: &ScopeName) -> Option<usize> {
        let grants = self.group.common.grants.iter();
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
        self.token.is_cancelled() || self.lease.cause_above().is_some_and(EndCause::cuts)
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Blocks of memory come in steps of 16 bytes, of which 8 are the allocator's; the lease itself has two counters.
    #[test]
    fn what_there_may_be_a_million_of_takes_the_blocks_that_it_was_made_for() {
        let sizes = [size_of::<Lease>() + 16, size_of::<Rare>(), size_of::<Uses>()];
        assert!(sizes.iter().zip([152, 40, 56]).all(|(size, most)| *size <= most), "{sizes:?}");
    }
}
