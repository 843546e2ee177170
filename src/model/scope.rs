//! How dangerous a scope is.

use std::fmt;

/// The risk of a scope, which caps the life of the nonces that hold it. Ordered: low < medium < high.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Risk {
    /// Reading what is not sensitive.
    Low,
    /// Reading what is, or writing what can be undone.
    Medium,
    /// Moving money, deleting, granting access.
    High,
}

impl Risk {
    /// The word of the policy file: `low`, `medium` or `high`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }
}

impl fmt::Display for Risk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
