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

/// The most that may be done for an agent or a task at a level of risk. Ordered: the stricter is the smaller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RiskCap {
    /// Nothing that carries a credential.
    Nothing,
    /// Scopes up to this risk.
    UpTo(Risk),
}

impl RiskCap {
    /// True where a scope of this risk may still be used.
    #[must_use]
    pub fn allows(self, risk: Risk) -> bool {
        Self::UpTo(risk) <= self
    }

    /// The word of the policy file: `none`, `low`, `medium` or `high`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Nothing => "none",
            Self::UpTo(risk) => risk.as_str(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cap_allows_its_own_risk_and_what_is_below() {
        let allowed = |cap: RiskCap| [Risk::Low, Risk::Medium, Risk::High].map(|risk| cap.allows(risk));
        assert_eq!(allowed(RiskCap::Nothing), [false, false, false]);
        assert_eq!(allowed(RiskCap::UpTo(Risk::Low)), [true, false, false]);
        assert_eq!(allowed(RiskCap::UpTo(Risk::Medium)), [true, true, false]);
        assert_eq!(allowed(RiskCap::UpTo(Risk::High)), [true, true, true]);
        assert!(RiskCap::Nothing < RiskCap::UpTo(Risk::Low));
    }
}
