//! Limits that the kernel puts on this process.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::io_kind;

/// Fewer open files than this are worth a warning: a connection through us takes two.
pub const OPEN_FILES_MIN: u64 = 65_536;
/// More open files than this are not asked for.
pub const OPEN_FILES_MAX: u64 = 1_048_576;

pub(super) fn refuse_core_files() -> Option<String> {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    let e = setrlimit(Resource::Core, none).err()?;
    Some(format!("core files are not ruled out: {}", io_kind(e)))
}

pub(super) fn raise_open_files() -> Option<String> {
    let limit = getrlimit(Resource::Nofile);
    let wanted = wanted(limit);
    let set = if wanted == limit { Ok(()) } else { setrlimit(Resource::Nofile, wanted) };
    let count = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    match set {
        Err(e) => Some(format!("only {count} files can be open at a time, and raising that failed: {}", io_kind(e))),
        Ok(()) if count < OPEN_FILES_MIN => {
            Some(format!("only {count} files can be open at a time, {OPEN_FILES_MIN} are advised (`ulimit -Hn`)"))
        }
        Ok(()) => None,
    }
}

/// The soft limit as near to the hard one as is of use; never lower than it was.
fn wanted(limit: Rlimit) -> Rlimit {
    let possible = limit.maximum.unwrap_or(u64::MAX).min(OPEN_FILES_MAX);
    Rlimit { current: limit.current.map(|current| current.max(possible)), maximum: limit.maximum }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_files_are_raised_within_bounds_and_never_lowered() {
        let raised = |current, maximum| wanted(Rlimit { current, maximum }).current;
        assert_eq!(raised(Some(1024), Some(4096)), Some(4096));
        assert_eq!(raised(Some(1024), Some(1 << 30)), Some(OPEN_FILES_MAX));
        assert_eq!(raised(Some(1024), None), Some(OPEN_FILES_MAX));
        assert_eq!(raised(Some(1 << 29), Some(1 << 30)), Some(1 << 29));
        assert_eq!(raised(None, None), None);
    }
}
