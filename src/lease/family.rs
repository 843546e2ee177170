//! Delegating a lease, and what ends with one that has ended.

use std::sync::Arc;

use super::kin::Origin;
use super::{DelegateError, Delegating, EndCause, Lease, MintError, NewLease, Store};
use crate::model::{NonceHash, NonceId};

impl Store {
    /// See [`Minter::delegate`](super::Minter::delegate).
    pub(super) fn delegate(
        self: &Arc<Self>,
        parent: &Arc<Lease>,
        Delegating { children_max, by_holder }: Delegating,
        (id, hash): (NonceId, NonceHash),
        terms: NewLease,
    ) -> Result<Arc<Lease>, DelegateError> {
        if let Some(cause) = self.judge(parent) {
            return Err(DelegateError::ParentOver(cause));
        }
        let now = self.now();
        // Time went by since these terms were approved.
        let ttl = terms.ttl.min(parent.deadline().remaining(&now));
        let lifetime = terms.lifetime.min(parent.life_left(&now));
        let (origin, share) = (Origin::new(parent, &terms, by_holder), terms.minter_live_max);
        let lease = self.make(id, hash, NewLease { ttl, lifetime, ..terms }, &now, Some(origin));
        parent.adopt(&lease, children_max)?;
        let linked = self.link(&lease, &now, share);
        // Where another lease has the nonce, no child was made; and the parent may have ended since it was adopted.
        let is_made = linked.as_ref().is_ok_and(|linked| Arc::ptr_eq(linked, &lease));
        if !is_made {
            // Unless it was ended with its parent, and that was told of, it never was.
            let never_was = lease.end(EndCause::Revoked);
            lease.leave_parent();
            let error = linked.err().unwrap_or(MintError::Taken);
            return Err(lease.cause().filter(|_| !never_was).map_or(error.into(), DelegateError::Ended));
        }
        self.judge(&lease).map_or(Ok(lease), |cause| Err(DelegateError::Ended(cause)))
    }

    /// Ends all below a lease that has ended for this cause, and cuts what is under way there where the cause says so.
    pub(super) fn close_below(&self, lease: &Lease, cause: EndCause) -> Vec<Arc<Lease>> {
        let cause = cause.inherited();
        let (mut ended, mut below) = (Vec::new(), lease.children());
        while let Some(lease) = below.pop() {
            below.extend(lease.children());
            if self.close(&lease, cause) {
                ended.push(lease);
            } else if cause.cuts() {
                lease.cut();
            }
        }
        ended
    }

    pub(super) fn end_below(&self, lease: &Lease, cause: EndCause) {
        let below = self.close_below(lease, cause);
        self.announce_all_below(&below, cause);
    }

    pub(super) fn announce_all_below(&self, ended: &[Arc<Lease>], cause: EndCause) {
        for lease in ended {
            self.announce_below(lease, cause.inherited());
        }
    }

    /// Tells of a lease that ended with one above it: what ended it is its parent.
    pub(super) fn announce_below(&self, lease: &Lease, cause: EndCause) {
        let by = lease.lineage().map(|lineage| format!("parent {}", lineage.parent));
        self.announce([lease], cause, by.as_deref());
    }
}
