//! What a lease was made of. Most of it comes from the policy and is the same for many leases: it is kept once.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::NewLease;
use crate::model::{AgentName, IdentityRule, LeaseGrant, MinterName, TaskName};

/// Distinct terms that are remembered for sharing; beyond that they are forgotten together and collected anew.
const SHARED_MAX: usize = 1024;

static NO_LABELS: BTreeMap<String, String> = BTreeMap::new();

/// All that a lease was made of, as [`NewLease`] had it, borrowed from the lease.
#[derive(Debug, Clone, Copy)]
pub struct Terms<'a> {
    /// Whose.
    pub agent: &'a AgentName,
    /// Who may present it.
    pub identities: &'a [IdentityRule],
    /// For what.
    pub task: &'a TaskName,
    /// Who asked.
    pub minter: &'a MinterName,
    /// What it opens; per scope the uses that the policy allows.
    pub grants: &'a [LeaseGrant],
    /// How long its first period lasts, from the minting on.
    pub ttl: Duration,
    /// How long it may live with renewals, from the minting on.
    pub lifetime: Duration,
    /// Uses of the whole nonce.
    pub max_uses: Option<u32>,
    /// Which run of the agent, as the minter said.
    pub instance: Option<&'a str>,
    /// On whose behalf, as the minter said.
    pub on_behalf_of: Option<&'a str>,
    /// Why, as the minter said.
    pub reason: Option<&'a str>,
    /// Labels, as the minter said.
    pub labels: &'a BTreeMap<String, String>,
}

/// The part that leases have in common.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Common {
    agent: AgentName,
    identities: Arc<[IdentityRule]>,
    minter: MinterName,
    pub(super) grants: Box<[LeaseGrant]>,
    pub(super) ttl: Duration,
    pub(super) lifetime: Duration,
    pub(super) max_uses: Option<u32>,
}

/// What a minter may say of a lease and mostly does not.
struct Said {
    instance: Option<String>,
    on_behalf_of: Option<String>,
    reason: Option<String>,
    labels: BTreeMap<String, String>,
}

impl Said {
    fn is_nothing(&self) -> bool {
        self.instance.is_none() && self.on_behalf_of.is_none() && self.reason.is_none() && self.labels.is_empty()
    }
}

/// The terms as a lease keeps them.
pub(super) struct Kept {
    pub(super) common: Arc<Common>,
    task: TaskName,
    said: Option<Box<Said>>,
}

impl Kept {
    pub(super) fn view(&self) -> Terms<'_> {
        let Common { agent, identities, minter, grants, ttl, lifetime, max_uses } = &*self.common;
        let said = self.said.as_deref();
        Terms {
            agent,
            identities,
            task: &self.task,
            minter,
            grants,
            ttl: *ttl,
            lifetime: *lifetime,
            max_uses: *max_uses,
            instance: said.and_then(|said| said.instance.as_deref()),
            on_behalf_of: said.and_then(|said| said.on_behalf_of.as_deref()),
            reason: said.and_then(|said| said.reason.as_deref()),
            labels: said.map_or(&NO_LABELS, |said| &said.labels),
        }
    }
}

/// The common parts of recent leases.
#[derive(Default)]
pub(super) struct Shared(parking_lot::Mutex<HashSet<Arc<Common>>>);

impl Shared {
    /// Splits new terms into what they share with others and what is their own.
    pub(super) fn keep(&self, terms: NewLease) -> Kept {
        let NewLease { agent, identities, task, minter, grants, ttl, lifetime, max_uses, .. } = terms;
        let NewLease { instance, on_behalf_of, reason, labels, .. } = terms;
        let common = Common { agent, identities, minter, grants: grants.into(), ttl, lifetime, max_uses };
        let said = Said { instance, on_behalf_of, reason, labels };
        let said = (!said.is_nothing()).then(|| Box::new(said));
        Kept { common: self.share(common), task, said }
    }

    fn share(&self, common: Common) -> Arc<Common> {
        let mut known = self.0.lock();
        if let Some(same) = known.get(&common) {
            return same.clone();
        }
        if known.len() >= SHARED_MAX {
            known.clear();
        }
        let common = Arc::new(common);
        known.insert(common.clone());
        common
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::tests::terms;

    #[test]
    fn equal_terms_are_kept_once_and_others_apart() {
        let shared = Shared::default();
        let (first, second) = (shared.keep(terms()), shared.keep(terms()));
        let other = shared.keep(NewLease { max_uses: Some(1), ..terms() });
        assert!(Arc::ptr_eq(&first.common, &second.common));
        assert!(!Arc::ptr_eq(&first.common, &other.common));
        assert!(first.said.is_none());
    }

    #[test]
    fn what_the_minter_said_comes_back() {
        let labels = BTreeMap::from([("ticket".to_owned(), "OPS-12".to_owned())]);
        let new = NewLease { reason: Some("refund".to_owned()), labels: labels.clone(), ..terms() };
        let kept = Shared::default().keep(new);
        assert_eq!(kept.view().reason, Some("refund"));
        assert_eq!(kept.view().instance, None);
        assert_eq!(kept.view().labels, &labels);
    }

    #[test]
    fn the_memory_of_shared_terms_is_bounded() {
        let shared = Shared::default();
        for uses in 0..3000 {
            shared.keep(NewLease { max_uses: Some(uses), ..terms() });
        }
        assert!(shared.0.lock().len() <= SHARED_MAX);
    }
}
