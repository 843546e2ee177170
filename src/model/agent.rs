//! Who is on the other end of a connection, and whom the policy admits.

use std::fmt;

/// An identity that was proven, not one that was claimed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Identity {
    /// A local user: the peer of a Unix socket, or the owner of a loopback TCP connection.
    Uid(u32),
    /// Whoever started this process and holds the other end of its socket pair; no path leads there.
    Supervisor,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uid(uid) => write!(f, "uid:{uid}"),
            Self::Supervisor => f.write_str("supervisor"),
        }
    }
}

/// Whom the policy admits, one line of `identity = […]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum IdentityRule {
    /// Anybody who can reach the listener; spelled out as `"any"`.
    Any,
    /// The local user with this number; `"uid:1000"`.
    Uid(u32),
}

impl IdentityRule {
    /// True when a caller with this proven identity (or none) is admitted.
    #[must_use]
    pub fn admits(&self, proven: Option<&Identity>) -> bool {
        match (self, proven) {
            (Self::Any, _) => true,
            (Self::Uid(wanted), Some(Identity::Uid(uid))) => wanted == uid,
            (Self::Uid(_), Some(Identity::Supervisor) | None) => false,
        }
    }
}

impl fmt::Display for IdentityRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::Uid(uid) => write!(f, "uid:{uid}"),
        }
    }
}
