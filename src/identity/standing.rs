//! Whether who has vouched for somebody still may.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The word of one issuer or client CA of a policy: what leans on it falls with it. Copies are one and the same.
#[derive(Debug, Clone)]
pub(super) struct Standing(Arc<AtomicBool>);

impl Default for Standing {
    fn default() -> Self {
        Self(Arc::new(AtomicBool::new(true)))
    }
}

impl Standing {
    /// True until it has ended.
    pub(super) fn holds(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// For good.
    pub(super) fn end(&self) {
        self.0.store(false, Ordering::Release);
    }

    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}
