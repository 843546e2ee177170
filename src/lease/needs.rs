//! Which scopes live leases have, so that what no lease needs any more can be let go of.

use std::collections::HashMap;

use tokio::sync::Notify;

use super::sync::Mutex;
use crate::model::{LeaseGrant, ScopeName, ServiceName};

/// How many kinds of live leases have a scope: never more entries than live leases have scopes.
#[derive(Default)]
pub(super) struct Needs {
    scopes: Mutex<HashMap<(ServiceName, ScopeName), usize>>,
    changed: Notify,
}

impl Needs {
    /// The first lease with these grants is there.
    pub(super) fn enter(&self, grants: &[LeaseGrant]) {
        let mut known = self.scopes.lock();
        for pair in pairs(grants) {
            *known.entry(pair).or_default() += 1;
        }
        drop(known);
        self.changed.notify_one();
    }

    /// The last lease with these grants is over.
    pub(super) fn leave(&self, grants: &[LeaseGrant]) {
        let mut known = self.scopes.lock();
        for pair in pairs(grants) {
            if let Some(count) = known.get_mut(&pair) {
                *count -= 1;
                if *count == 0 {
                    known.remove(&pair);
                }
            }
        }
        drop(known);
        self.changed.notify_one();
    }

    /// Whether a live lease has this scope.
    pub(super) fn holds(&self, service: &ServiceName, scope: &ScopeName) -> bool {
        self.scopes.lock().contains_key(&(service.clone(), scope.clone()))
    }

    /// Whether a live lease has any.
    pub(super) fn hold_any(&self) -> bool {
        !self.scopes.lock().is_empty()
    }

    /// Completes when something was needed or let go of since this was last asked.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }
}

fn pairs(grants: &[LeaseGrant]) -> impl Iterator<Item = (ServiceName, ScopeName)> {
    let scopes = |grant: &LeaseGrant| grant.scopes.iter().map(|(scope, _)| scope.clone()).collect::<Vec<_>>();
    grants.iter().flat_map(move |grant| scopes(grant).into_iter().map(|scope| (grant.service.clone(), scope)))
}

#[cfg(test)]
mod tests {
    use crate::clock::ManualClock;
    use crate::lease::tests::{nonce, terms};
    use crate::lease::{Config, EndCause, NewLease, Store};

    #[test]
    fn a_scope_is_needed_from_the_first_lease_that_has_it_to_the_end_of_the_last() {
        let store = Store::new(Config::default(), ManualClock::new());
        let (minter, lookup) = (store.minter(), store.lookup());
        let mint = |number, terms| minter.mint(minter.next_id(), &nonce(number), terms).unwrap().id();
        let (service, scope) = {
            let grant = &terms().grants[0];
            (grant.service.clone(), grant.scopes[0].0.clone())
        };
        let is_needed = || lookup.needs(&service, &scope);
        assert!(!is_needed() && !lookup.needs_any());
        // Two of the same terms, and one that has the scope by others.
        let leases = [mint(1, terms()), mint(2, terms()), mint(3, NewLease { max_uses: Some(7), ..terms() })];
        assert!(is_needed() && lookup.needs_any());
        for id in leases {
            assert!(is_needed());
            assert!(minter.revoke(id, EndCause::Revoked, "test"));
        }
        assert!(!is_needed() && !lookup.needs_any());
        assert_eq!(store.needs.scopes.lock().len(), 0, "nothing is kept");
        let again = mint(4, terms());
        assert!(is_needed());
        assert!(minter.revoke(again, EndCause::Revoked, "test") && !is_needed());
    }

    #[test]
    fn what_was_refused_needs_nothing() {
        let store = Store::new(Config { live_max: 0, ..Config::default() }, ManualClock::new());
        let minter = store.minter();
        assert!(minter.mint(minter.next_id(), &nonce(1), terms()).is_err());
        assert!(!store.lookup().needs_any());
    }
}
