//! Ending many leases by one word, a page at a time.

use std::sync::Arc;

use super::{EndCause, Lease, Store};

impl Store {
    /// Revokes all live leases where `which` says so, and cuts what is under way of those that are over; how many were
    /// alive. Others get their turn after every page.
    ///
    /// Every lease that was minted before the call is asked about: it is in the index of ids until it is buried, and
    /// from before that on among the lingering if anything may be under way.
    pub(super) async fn revoke_many(&self, which: &(dyn Fn(&Lease) -> bool + Sync), by: &str) -> usize {
        let (mut after, mut count) = (None, 0);
        loop {
            let page = self.page(after);
            let Some(last) = page.last() else { break };
            after = Some(last.id);
            count += self.revoke_page(&page, which, by);
            drop(page);
            tokio::task::yield_now().await;
        }
        let mut after = None;
        loop {
            let page = self.page_of_lingering(after);
            let Some((last, _)) = page.last() else { break };
            after = Some(*last);
            page.iter()
                .filter_map(|(_, lease)| lease.as_ref())
                .filter(|lease| which(lease))
                .for_each(|lease| lease.cut());
            drop(page);
            tokio::task::yield_now().await;
        }
        count
    }

    fn revoke_page(&self, page: &[Arc<Lease>], which: &dyn Fn(&Lease) -> bool, by: &str) -> usize {
        let mut ended: Vec<&Lease> = Vec::new();
        for lease in page.iter().filter(|lease| which(lease)) {
            if self.judge(lease).is_none() && self.close(lease, EndCause::Revoked) {
                ended.push(lease);
            } else {
                // It is over for another reason, which may have left something under way.
                lease.cut();
            }
        }
        let count = ended.len();
        self.announce(ended, EndCause::Revoked, Some(by));
        count
    }
}
