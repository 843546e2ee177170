//! The indexes, minting, and what happens when a lease ends.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::allowance::Allowances;
use super::by_hash::ByHash;
use super::completed::Completed;
use super::kin::Origin;
use super::lingering::Lingering;
use super::needs::Needs;
use super::risk::Risks;
use super::said::Said;
use super::schedule::{Due, Schedule};
use super::shares::Shares;
use super::sorted::{Place, Sorted};
use super::stand_in::StandIns;
use super::sync::{Mutex, RwLock, in_turn, write_in_turn};
use super::terms::{Common, Shared};
use super::tombs::Tombs;
use super::{Config, EndCause, Found, Lease, Lookup, MintError, Minter, NewLease, Restriction, Tombstone};
use crate::clock::SharedClock;
use crate::model::{AgentName, Deadline, MinterName, NonceHash, NonceId, Now};

/// Leases that are listed under one lock: some 20 µs, where each of them has to be fetched from memory.
pub(super) const PAGE: usize = 128;

/// Leases or tombstones that the sweeper deals with under one hold of a lock. Each may have to leave its place for
/// another one, at some 2 µs: whoever mints or looks one up meanwhile waits for 30 µs.
pub(super) const HELD_MAX: usize = 16;

/// Hears of the end of a lease: why, and by whom where somebody ended it.
pub type Listener = dyn Fn(&Lease, EndCause, Option<&str>) + Send + Sync;

impl Place for NonceId {
    fn of(lease: &Arc<Lease>) -> Self {
        lease.id
    }
}

/// The store; [`Minter`] and [`Lookup`] are all that anybody else gets.
pub struct Store {
    clock: SharedClock,
    live_max: usize,
    shared: Shared,
    by_hash: ByHash,
    /// Held over the whole of a minting, so that a lease is in all indexes before anybody can take it out again.
    by_id: RwLock<Sorted<NonceId>>,
    schedule: Mutex<Schedule>,
    tombs: Mutex<Tombs>,
    lingering: Mutex<Lingering>,
    pub(super) completed: Completed,
    pub(super) risks: Risks,
    pub(super) allowances: Allowances,
    shares: Shares,
    pub(super) stand_ins: StandIns,
    pub(super) needs: Needs,
    listeners: RwLock<Arc<[Arc<Listener>]>>,
    /// Told when the next expiry is earlier than the sweeper knows.
    earlier: Notify,
}

impl Store {
    /// An empty store.
    #[must_use]
    pub fn new(config: Config, clock: SharedClock) -> Arc<Self> {
        Arc::new(Self {
            clock,
            live_max: config.live_max,
            shared: Shared::default(),
            by_hash: ByHash::new(config.live_max),
            by_id: RwLock::default(),
            schedule: Mutex::default(),
            tombs: Mutex::new(Tombs::new(&config)),
            lingering: Mutex::default(),
            completed: Completed::default(),
            risks: Risks::default(),
            allowances: Allowances::new(&config),
            shares: Shares::default(),
            stand_ins: StandIns::fresh(),
            needs: Needs::default(),
            listeners: RwLock::new(Arc::new([])),
            earlier: Notify::new(),
        })
    }

    /// Called once for every end of a lease (sweeper, look-up, revocation, last use) that comes after this, under no
    /// lock, by whoever noticed: it should be quick. The last argument says who revoked it.
    pub fn on_end(&self, listener: Box<Listener>) {
        let mut listeners = self.listeners.write();
        *listeners = listeners.iter().cloned().chain([Arc::from(listener)]).collect();
    }

    /// For the control API.
    #[must_use]
    pub fn minter(self: &Arc<Self>) -> Minter {
        Minter::new(self.clone())
    }

    /// For the proxy.
    #[must_use]
    pub fn lookup(self: &Arc<Self>) -> Lookup {
        Lookup::new(self.clone())
    }

    /// Live leases, those included whose expiry nobody has noticed yet.
    #[must_use]
    pub fn live_count(&self) -> usize {
        self.by_id.read().len()
    }

    /// Live leases of this minter.
    #[cfg(test)]
    pub(super) fn live_of(&self, minter: &MinterName) -> usize {
        self.shares.of(minter)
    }

    /// See [`Minter::has_room`].
    pub(super) fn has_room(&self, minter: &MinterName, holder: Option<&AgentName>, max: usize) -> bool {
        self.shares.has_room(minter, holder, max)
    }

    pub(super) fn now(&self) -> Now {
        self.clock.now()
    }

    /// Why it ended; ends it when its time is over, or one above it is.
    pub(super) fn judge(&self, lease: &Lease) -> Option<EndCause> {
        if lease.cause().is_none() {
            // As deep as the policy lets nonces be delegated.
            let above = lease.parent().and_then(|parent| self.judge(parent));
            let now = self.now();
            if let Some(cause) = above {
                // Whoever ended the one above it may be on the way here.
                if self.close(lease, cause.inherited()) {
                    self.announce_below(lease, cause.inherited());
                    self.end_below(lease, cause);
                }
            } else if lease.deadline().is_over(&now) && self.close_expired(lease, &now) {
                self.announce([lease], EndCause::Expired, None);
                self.end_below(lease, EndCause::Expired);
            }
        }
        lease.cause()
    }

    pub(super) fn find(&self, hash: &NonceHash) -> Found {
        if let Some(lease) = self.by_hash.get(hash) {
            match self.judge(&lease) {
                None => return Found::Live(lease),
                Some(cause) => return Found::Dead(self.tombstone_of(&lease, cause)),
            }
        }
        let boot = self.now().boot;
        match self.tombs.lock().find(hash, boot) {
            Some(tombstone) => Found::Dead(tombstone.clone()),
            None => Found::Unknown,
        }
    }

    pub(super) fn get(&self, id: NonceId) -> Option<Arc<Lease>> {
        let lease = self.by_id.read().get(id).cloned()?;
        self.judge(&lease).is_none().then_some(lease)
    }

    pub(super) fn mint(
        self: &Arc<Self>,
        id: NonceId,
        hash: NonceHash,
        terms: NewLease,
    ) -> Result<Arc<Lease>, MintError> {
        let (now, share) = (self.now(), terms.minter_live_max);
        let lease = self.make(id, hash, terms, &now, None);
        let minted = self.link(&lease, &now, share)?;
        // It may be the one that was there: that has to be alive still.
        if self.judge(&minted).is_some() { Err(MintError::Taken) } else { Ok(minted) }
    }

    pub(super) fn make(
        self: &Arc<Self>,
        id: NonceId,
        hash: NonceHash,
        terms: NewLease,
        now: &Now,
        origin: Option<Origin>,
    ) -> Arc<Lease> {
        let said = Said::of(&terms);
        let (common, task) = Common::of(terms);
        let group = self.shared.group(common, Arc::downgrade(self));
        Arc::new(Lease::new(id, hash, now, group, task, said, origin))
    }

    /// Puts a lease into all indexes, where its minter has less than `share`; or finds the one that the nonce has already.
    pub(super) fn link(&self, lease: &Arc<Lease>, now: &Now, share: usize) -> Result<Arc<Lease>, MintError> {
        let mut ids = self.by_id.write();
        if let Some(existing) = self.by_hash.get(&lease.hash) {
            return Ok(existing);
        }
        // In this order: an ending lease gets its tombstone before it leaves the map.
        if self.tombs.lock().holds(&lease.hash) || ids.get(lease.id).is_some() {
            return Err(MintError::Taken);
        }
        // Under the lock of the ids: a completion that came before is seen here, and one that comes after waits for this
        // lock and then finds the lease.
        let terms = lease.terms();
        if self.completed.holds(terms.minter, terms.task, now.boot) {
            return Err(MintError::Completed);
        }
        if ids.len() >= self.live_max {
            return Err(MintError::Full);
        }
        if !self.shares.enter(terms.minter, lease.made_by(), share) {
            return Err(MintError::MinterFull);
        }
        self.allowances.enter(lease).inspect_err(|_| self.shares.leave(terms.minter, lease.made_by()))?;
        if lease.group().is_entered() {
            self.needs.enter(terms.grants);
        }
        ids.insert(lease.clone());
        self.by_hash.insert(lease.clone());
        if self.schedule.lock().insert(lease, now) {
            self.earlier.notify_one();
        }
        Ok(lease.clone())
    }

    /// Ends a lease and what was delegated from it, and tells the listeners. For the one caller that ended it: how many
    /// were below it.
    pub(super) fn finish(&self, lease: &Lease, cause: EndCause, by: Option<&str>) -> Option<usize> {
        self.close(lease, cause).then(|| {
            let below = self.close_below(lease, cause);
            self.announce([lease], cause, by);
            self.announce_all_below(&below, cause);
            below.len()
        })
    }

    /// Ends all live leases where `which` says so, with what was delegated from them, and only then tells the listeners
    /// of each.
    pub(super) fn finish_where(&self, which: &dyn Fn(&Lease) -> bool, cause: EndCause, by: &str) -> usize {
        let (mut ended, mut below) = (Vec::new(), Vec::new());
        self.each_live(None, &mut |lease| {
            if which(&lease) && self.close(&lease, cause) {
                below.extend(self.close_below(&lease, cause));
                ended.push(lease);
            }
            true
        });
        self.announce(ended.iter().map(Arc::as_ref), cause, Some(by));
        self.announce_all_below(&below, cause);
        ended.len() + below.len()
    }

    /// Shows all live leases after this id, in the order of ids, under no lock, until `see` says false.
    pub(super) fn each_live(&self, after: Option<NonceId>, see: &mut dyn FnMut(Arc<Lease>) -> bool) {
        let mut after = after;
        loop {
            let page = self.page(after);
            let Some(last) = page.last() else { return };
            after = Some(last.id);
            for lease in page {
                if self.judge(&lease).is_none() && !see(lease) {
                    return;
                }
            }
        }
    }

    pub(super) fn page(&self, after: Option<NonceId>) -> Vec<Arc<Lease>> {
        self.by_id.read().after(after).take(PAGE).cloned().collect()
    }

    /// Some that are over while exchanges of them may go on, by their ids; those that are gone meanwhile without.
    pub(super) fn page_of_lingering(&self, after: Option<NonceId>) -> Vec<(NonceId, Option<Arc<Lease>>)> {
        self.lingering.lock().after(after, PAGE)
    }

    /// Lets a lease live until then; false if it is over. See [`Minter::renew`].
    pub(super) fn extend(&self, lease: &Arc<Lease>, until: Deadline) -> bool {
        let now = self.now();
        let mut schedule = self.schedule.lock();
        // A lease that lives is in the schedule: it was put there before anybody got it, and its end, which cannot come
        // before the swap in here, waits for this lock to take it out.
        let is_extended = lease.extend(until, &now);
        if is_extended {
            schedule.place_anew(lease, &now);
        }
        drop(schedule);
        is_extended
    }

    pub(super) fn restriction(&self, lease: &Lease) -> Option<Restriction> {
        self.risks.of(&lease.terms(), || self.now())
    }

    /// What is remembered of a lease that is over.
    pub(super) fn dead(&self, id: NonceId) -> Option<Tombstone> {
        let boot = self.now().boot;
        self.tombs.lock().find_id(id, boot).cloned()
    }

    /// One that is over while exchanges of it may go on.
    pub(super) fn lingering(&self, id: NonceId) -> Option<Arc<Lease>> {
        // In this order: it is among those before it leaves these.
        let ending = self.by_id.read().get(id).cloned();
        ending.filter(|lease| lease.cause().is_some()).or_else(|| self.lingering.lock().find(id))
    }

    pub(super) fn close(&self, lease: &Lease, cause: EndCause) -> bool {
        let ended = lease.end(cause);
        if ended {
            self.bury(lease, cause);
        }
        ended
    }

    /// Closes a lease if its period is over at this moment: it may have been renewed since somebody looked.
    fn close_expired(&self, lease: &Lease, now: &Now) -> bool {
        let ended = lease.expire(now);
        if ended {
            self.bury(lease, EndCause::Expired);
        }
        ended
    }

    /// Lays the tombstone, then takes the lease out of the indexes; in between it is in both, never in neither.
    pub(super) fn bury(&self, lease: &Lease, cause: EndCause) {
        let now = self.now();
        let tombstone = tombstone(lease, cause, &now);
        in_turn(&self.tombs, |tombs| tombs.lay(lease.hash, tombstone, now.boot));
        lease.leave_parent();
        if !cause.cuts() && (lease.was_joined() || lease.has_children()) {
            let known = self.by_id.read().get(lease.id).cloned();
            if let Some(lease) = known {
                self.lingering.lock().add(&lease);
            }
        }
        // First of the indexes: waits for a minting that is still putting it into the others.
        let entry = write_in_turn(&self.by_id, |ids| ids.remove(lease.id));
        self.by_hash.remove(&lease.hash);
        if let Some(lease) = entry {
            in_turn(&self.schedule, |schedule| schedule.remove(&lease));
            // A child that ended with its parent before it was in the indexes never entered.
            self.allowances.leave(&lease, now.boot);
            self.shares.leave(lease.terms().minter, lease.made_by());
            if lease.group().is_left() {
                self.needs.leave(lease.terms().grants);
            }
        }
    }

    /// What was laid for it, or, in the instant before that, what will be.
    fn tombstone_of(&self, lease: &Lease, cause: EndCause) -> Tombstone {
        let now = self.now();
        let laid = self.tombs.lock().find(&lease.hash, now.boot).cloned();
        laid.unwrap_or_else(|| tombstone(lease, cause, &now))
    }

    pub(super) fn announce<'a>(&self, ended: impl IntoIterator<Item = &'a Lease>, cause: EndCause, by: Option<&str>) {
        let listeners = self.listeners.read().clone();
        for lease in ended {
            for listener in &*listeners {
                listener(lease, cause, by);
            }
        }
    }
}

/// What the sweeper does to the indexes, a batch at a time.
impl Store {
    /// Ends at most `batch` leases whose time is over; how many there were.
    pub(super) fn expire_batch(&self, now: &Now, batch: usize) -> usize {
        let mut found = 0;
        while found < batch {
            let wanted = HELD_MAX.min(batch - found);
            let mut over = in_turn(&self.schedule, |schedule| schedule.over(now, wanted));
            let is_last = over.len() < wanted;
            found += over.len();
            over.retain(|lease| self.close_expired(lease, now));
            self.announce(over.iter().map(Arc::as_ref), EndCause::Expired, None);
            for lease in &over {
                self.end_below(lease, EndCause::Expired);
            }
            if is_last {
                break;
            }
        }
        found
    }

    /// Drops at most `batch` tombstones whose time is over, a multiple of [`HELD_MAX`]; true when there are more.
    pub(super) fn prune_tombs(&self, now: &Now, batch: usize) -> bool {
        (0..batch / HELD_MAX).all(|_| in_turn(&self.tombs, |tombs| tombs.prune(now.boot, HELD_MAX)))
    }

    /// The same with the allowances of tasks that are over.
    pub(super) fn prune_allowances(&self, now: &Now, batch: usize) -> bool {
        (0..batch / HELD_MAX).all(|_| self.allowances.prune(now.boot, HELD_MAX))
    }

    /// Computes the order of expiry anew, `batch` from `after` on.
    pub(super) fn renew_batch(&self, after: Option<Due>, now: &Now, batch: usize) -> Option<Due> {
        in_turn(&self.schedule, |schedule| schedule.place_all_anew(after, now, batch))
    }

    pub(super) fn until_next_expiry(&self, now: &Now) -> Option<Duration> {
        self.schedule.lock().wait(now)
    }

    /// Sleeps so long, or until a lease is minted that expires before all others.
    pub(super) async fn until_earlier(&self, sleep: Duration) {
        // Either way it is time to look again.
        let _ = tokio::time::timeout(sleep, self.earlier.notified()).await;
    }
}

fn tombstone(lease: &Lease, cause: EndCause, now: &Now) -> Tombstone {
    let at = match cause {
        // It was over then, whenever somebody noticed.
        EndCause::Expired => lease.deadline().wall.min(now.wall),
        EndCause::Revoked | EndCause::Spent | EndCause::Misplaced => now.wall,
    };
    let (agent, minter) = (lease.terms().agent.clone(), lease.terms().minter.clone());
    Tombstone { id: lease.id, cause, at, agent, minter }
}
