//! Where a delegated lease comes from, and what was delegated from a lease.

use std::collections::BTreeMap;
use std::iter;
use std::sync::{Arc, Weak};

use super::sync::Mutex;
use super::{DelegateError, EndCause, Lease};
use crate::model::{AgentName, LeaseGrant, Lineage, NonceId};

/// The relatives of a lease; most have none.
#[derive(Default)]
pub(super) struct Kin {
    origin: Option<Origin>,
    /// The live ones, and those that are over while somebody holds them: exchanges do, and their own children.
    children: Mutex<BTreeMap<NonceId, Weak<Lease>>>,
}

/// What a lease was delegated from.
pub(super) struct Origin {
    parent: Arc<Lease>,
    lineage: Arc<Lineage>,
    by_holder: bool,
}

/// How a lease is delegated.
#[derive(Debug, Clone, Copy)]
pub struct Delegating {
    /// Live children that the parent has at most.
    pub children_max: usize,
    /// By whoever holds the parent, not by its minter.
    pub by_holder: bool,
}

impl Kin {
    pub(super) fn of(origin: Origin) -> Self {
        Self { origin: Some(origin), children: Mutex::default() }
    }
}

impl Origin {
    /// What is delegated to this lease's agent from that parent.
    pub(super) fn new(parent: &Arc<Lease>, child: &super::NewLease, by_holder: bool) -> Self {
        Self { parent: parent.clone(), lineage: Arc::new(parent.lineage_below(&child.agent)), by_holder }
    }
}

impl Lease {
    /// The lease that it was delegated from.
    #[must_use]
    pub fn parent(&self) -> Option<&Arc<Lease>> {
        self.kin()?.origin.as_ref().map(|origin| &origin.parent)
    }

    /// All above it: its parent first, the one that was minted last.
    pub fn ancestors(&self) -> impl Iterator<Item = &Arc<Lease>> {
        iter::successors(self.parent(), |lease| lease.parent())
    }

    /// Where it comes from, if it was delegated.
    #[must_use]
    pub fn lineage(&self) -> Option<&Arc<Lineage>> {
        self.kin()?.origin.as_ref().map(|origin| &origin.lineage)
    }

    /// How many delegations lie between it and the lease that was minted.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.lineage().map_or(0, |lineage| lineage.depth())
    }

    /// The agent that the first nonce above it was minted for.
    pub(super) fn first_agent(&self) -> &AgentName {
        self.lineage().and_then(|lineage| lineage.chain.first()).unwrap_or_else(|| self.terms().agent)
    }

    /// In whose share it counts, if it was made by whoever holds its parent.
    pub(super) fn made_by(&self) -> Option<&AgentName> {
        let origin = self.kin()?.origin.as_ref()?;
        origin.by_holder.then(|| origin.parent.first_agent())
    }

    /// The agents from the one whose nonce was minted down to its own.
    #[must_use]
    pub fn chain(&self) -> Vec<AgentName> {
        match self.lineage() {
            Some(lineage) => lineage.chain.to_vec(),
            None => vec![self.terms().agent.clone()],
        }
    }

    /// Where a lease comes from that is delegated from this one to that agent.
    #[must_use]
    pub fn lineage_below(&self, child: &AgentName) -> Lineage {
        let chain = self.chain().into_iter().chain([child.clone()]).collect();
        Lineage { parent: self.id, chain }
    }

    /// Live leases that were delegated from it.
    #[must_use]
    pub fn children_count(&self) -> usize {
        self.kin().map_or(0, Kin::live_count)
    }

    /// What it opens, with the uses that are left of each scope, here and above.
    #[must_use]
    pub fn grants_left(&self) -> Vec<LeaseGrant> {
        let mut grants = self.terms().grants.to_vec();
        for grant in &mut grants {
            for (scope, limits) in &mut grant.scopes {
                let left = self.and_ancestors().filter_map(|lease| match lease.place(&grant.service, scope) {
                    Some(place) => lease.uses()?.left_of(place),
                    None => Some(0),
                });
                limits.uses = left.min();
            }
        }
        grants
    }

    pub(super) fn and_ancestors(&self) -> impl Iterator<Item = &Lease> {
        iter::once(self).chain(self.ancestors().map(Arc::as_ref))
    }

    /// Why it is over, or why one above it is, if anybody has noticed; does not read the clock.
    pub(super) fn cause_above(&self) -> Option<EndCause> {
        self.cause().or_else(|| self.ancestors().find_map(|lease| lease.cause()).map(EndCause::inherited))
    }

    /// Takes a child in, which is in no index yet.
    pub(super) fn adopt(&self, child: &Arc<Lease>, children_max: usize) -> Result<(), DelegateError> {
        let mut children = self.kin_or_new().children.lock();
        // Under the lock: whoever ends this lease, or one above it, looks at the children after that.
        if let Some(cause) = self.cause_above() {
            return Err(DelegateError::ParentOver(cause));
        }
        children.retain(|_, child| child.strong_count() > 0);
        if live_count(&children) >= children_max {
            return Err(DelegateError::TooManyChildren);
        }
        children.insert(child.id, Arc::downgrade(child));
        Ok(())
    }

    /// Forgets a child that is over and has nothing under way, nor anything below it that could have.
    pub(super) fn leave_parent(&self) {
        if let Some(kin) = self.parent().and_then(|parent| parent.kin())
            && !self.was_joined()
            && !self.has_children()
        {
            kin.children.lock().remove(&self.id);
        }
    }

    /// True if there is anything below it that may have to be ended or cut.
    pub(super) fn has_children(&self) -> bool {
        self.kin().is_some_and(|kin| !kin.children.lock().is_empty())
    }

    /// Its children that live, or that somebody holds.
    pub(super) fn children(&self) -> Vec<Arc<Lease>> {
        self.kin().map_or_else(Vec::new, |kin| kin.children.lock().values().filter_map(Weak::upgrade).collect())
    }

    /// Cuts its exchanges and those of all below it; it is over, and so are they.
    pub(super) fn cut_all(&self) {
        self.cut();
        let mut below = self.children();
        while let Some(lease) = below.pop() {
            below.extend(lease.children());
            lease.cut();
        }
    }
}

impl Kin {
    fn live_count(&self) -> usize {
        live_count(&self.children.lock())
    }
}

/// Those that nobody has seen ended.
fn live_count(children: &BTreeMap<NonceId, Weak<Lease>>) -> usize {
    let is_live = |child: &&Weak<Lease>| child.upgrade().is_some_and(|child| child.cause().is_none());
    children.values().filter(is_live).count()
}
