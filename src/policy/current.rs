//! The policy in force.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::Policy;

/// The policy in force; a reload replaces it whole. Clones see the same one.
#[derive(Clone)]
pub struct Current(Arc<ArcSwap<Policy>>);

impl Current {
    /// The first one.
    #[must_use]
    pub fn new(policy: Arc<Policy>) -> Self {
        Self(Arc::new(ArcSwap::new(policy)))
    }

    /// The one in force now; whoever asks several questions for one answer asks them of this.
    #[must_use]
    pub fn get(&self) -> Arc<Policy> {
        self.0.load_full()
    }

    /// Puts another one in force.
    pub fn replace(&self, policy: Arc<Policy>) {
        self.0.store(policy);
    }
}
