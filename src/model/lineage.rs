//! Where a delegated nonce comes from.

use super::{AgentName, NonceId};

/// The nonce above a delegated one, and who acts for whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lineage {
    /// The nonce that it was delegated from.
    pub parent: NonceId,
    /// The agents from the one whose nonce was minted down to its own: two at least.
    pub chain: Box<[AgentName]>,
}

impl Lineage {
    /// How many delegations lie between it and the nonce that was minted.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.chain.len().saturating_sub(1)
    }
}
