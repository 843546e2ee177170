//! Memory that never goes to swap.
//!
//! All of it or nothing: where a credential comes by is not only where we keep it, but in buffers of libraries too. And
//! only where it is certain that the kernel will not say no later: with a limit on locked memory, an allocation beyond
//! it fails, and the process with it. Pages are locked as they are used, so that nothing grows by it.

use std::io::ErrorKind;

use super::Effort;

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Locked {
    /// Nobody asked for it.
    #[error("memory is not locked, as asked: swap and hibernation can hold a credential")]
    Off,
    /// Nothing of this process goes to swap.
    #[error("memory is locked: nothing of it goes to swap")]
    Whole,
    /// Not to be had here.
    #[error("memory is not locked, swap can hold a credential: {0}")]
    Not(LockError),
}

/// Why memory is not locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LockError {
    /// There is a limit, and no privilege to go beyond it.
    #[error("that takes an unlimited RLIMIT_MEMLOCK (`ulimit -l unlimited`), or CAP_IPC_LOCK")]
    Limited,
    /// The kernel refused.
    #[error("the kernel refused: {0}")]
    System(ErrorKind),
    /// This system has no way to do it.
    #[error("this is done on Linux only")]
    Unsupported,
}

impl Locked {
    /// One word for records.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Whole => "locked",
            Self::Not(_) => "unlocked",
        }
    }
}

/// Locks all memory of this process, what there is and what will be.
///
/// # Errors
/// [`LockError`] where it is [`Effort::Required`] and cannot be had.
pub fn lock_memory(effort: Effort) -> Result<Locked, LockError> {
    let outcome = match effort {
        Effort::Off => return Ok(Locked::Off),
        Effort::BestEffort | Effort::Required => can_lock_memory().and_then(|()| lock()),
    };
    match outcome {
        Ok(()) => Ok(Locked::Whole),
        Err(error) if effort == Effort::Required => Err(error),
        Err(error) => Ok(Locked::Not(error)),
    }
}

/// Whether memory can be locked without a limit that would be met later.
///
/// # Errors
/// [`LockError`]: why not.
#[cfg(target_os = "linux")]
pub fn can_lock_memory() -> Result<(), LockError> {
    linux::can_lock()
}

/// Whether memory can be locked without a limit that would be met later.
///
/// # Errors
/// [`LockError::Unsupported`].
#[cfg(not(target_os = "linux"))]
pub fn can_lock_memory() -> Result<(), LockError> {
    Err(LockError::Unsupported)
}

#[cfg(target_os = "linux")]
fn lock() -> Result<(), LockError> {
    linux::lock()
}

#[cfg(not(target_os = "linux"))]
fn lock() -> Result<(), LockError> {
    Err(LockError::Unsupported)
}

#[cfg(target_os = "linux")]
mod linux {
    use rustix::mm::{MlockAllFlags, mlockall};
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    use rustix::thread::{CapabilitySet, capabilities};

    use super::LockError;
    use crate::process::io_kind;

    pub(super) fn can_lock() -> Result<(), LockError> {
        // The kernel asks for the capability where user namespaces begin; one that a namespace gave is worth nothing.
        let is_capable = || capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::IPC_LOCK));
        let is_unlimited = getrlimit(Resource::Memlock).maximum.is_none();
        if is_unlimited || is_capable() && is_first_namespace() { Ok(()) } else { Err(LockError::Limited) }
    }

    fn is_first_namespace() -> bool {
        std::fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| maps_all(&map))
    }

    /// All users are called what they are called outside.
    pub(super) fn maps_all(map: &str) -> bool {
        map.split_ascii_whitespace().eq(["0", "0", "4294967295"])
    }

    pub(super) fn lock() -> Result<(), LockError> {
        let fault = |errno| LockError::System(io_kind(errno));
        if getrlimit(Resource::Memlock).maximum.is_none() {
            setrlimit(Resource::Memlock, Rlimit { current: None, maximum: None }).map_err(fault)?;
        }
        // As they are used: without ONFAULT, whole stacks and arenas would be made present at once.
        mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT).map_err(fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_made_to() {
        assert_eq!(lock_memory(Effort::Off), Ok(Locked::Off));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_namespace_of_users_is_told_from_the_first() {
        assert!(linux::maps_all("         0          0 4294967295\n"));
        for other in ["0 1000 1\n", "0 0 1\n", "0 0 1\n1 100000 65536\n", "0 0 4294967295\n1 1 1\n", ""] {
            assert!(!linux::maps_all(other), "{other}");
        }
    }
}
