//! The process itself: closed to onlookers, its environment free of secrets, its signals heard.
//!
//! - `limits`: no core files, enough open files
//! - `environment`: secrets leave the environment before any thread exists
//! - `signals`: drain, end, reopen
//! - `channel`: the socket pair that a supervisor gave us
//! - `memory`: nothing of it goes to swap, where that is allowed
//! - `confinement`: from here on the process opens what it needs and nothing else
//!
//! The order at start, before the first thread: [`harden`], then [`take_environment`] (which starts
//! the program over once, and with it `harden`), [`lock_memory`], the runtime on this one thread, and, once
//! the sockets are bound and before there are other threads, [`confine`].

mod channel;
mod confinement;
mod environment;
mod limits;
mod memory;
mod signals;

pub use self::channel::{ChannelError, take_channel};
pub use self::confinement::{Confinement, ConfinementError, Places, can_confine, confine};
pub use self::environment::{HANDED_BYTES_MAX, REEXEC_VARIABLE, take_environment};
pub use self::limits::{OPEN_FILES_MAX, OPEN_FILES_MIN};
pub use self::memory::{LockError, Locked, can_lock_memory, lock_memory};
pub use self::signals::{Asked, Signals};

/// How much is to be made of a protection that not every system gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Effort {
    /// Nothing.
    Off,
    /// Take it where it can be had, and say where not.
    BestEffort,
    /// Do not start without it.
    Required,
}

/// Why secrets could not be taken out of the environment. None is a reason to go on with them in there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProcessError {
    /// The kernel refused the memory that hands them over.
    #[error("secrets cannot be taken out of the environment: memory to hand them over cannot be had: {0}")]
    Memory(std::io::ErrorKind),
    /// The program could not be started over.
    #[error("secrets cannot be taken out of the environment: /proc/self/exe cannot be started over: {0}")]
    Restart(std::io::ErrorKind),
    /// They are more than [`HANDED_BYTES_MAX`].
    #[error("secrets cannot be taken out of the environment: they are more than 4 MiB")]
    TooLarge,
    /// The marker is set, and what stands on the standard input is not from us.
    #[error("the variable VALETKEY_REEXEC is for the program's own use: unset it")]
    Forged,
    /// This system has no way to do it.
    #[error(
        "secrets cannot be taken out of the environment on this system: use `source = \"file\"` or `source = \"exec\"`"
    )]
    Unsupported,
}

/// Closes this process to onlookers; to be called first of all, before any thread exists.
///
/// - not dumpable: no other process of the same user reads our memory or `/proc/PID/environ`, or traces us (Linux);
/// - no core files;
/// - files that we make are for us alone (umask 077), unless their maker says otherwise;
/// - as many open files as we may have, at most [`OPEN_FILES_MAX`].
///
/// Returns what could not be had, as sentences to be told to the operator.
#[must_use]
pub fn harden() -> Vec<String> {
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    [close_memory(), limits::refuse_core_files(), limits::raise_open_files()].into_iter().flatten().collect()
}

/// Closes this process to onlookers as [`harden`] does, and changes nothing that the commands it starts inherit: for
/// one that holds secrets and starts others on a user's behalf. A process that is not dumpable writes no core file.
///
/// Returns what could not be had, as a sentence for the user.
#[must_use]
pub fn conceal() -> Option<String> {
    close_memory()
}

#[cfg(target_os = "linux")]
fn close_memory() -> Option<String> {
    use rustix::process::{DumpableBehavior, dumpable_behavior, set_dumpable_behavior};
    let set = set_dumpable_behavior(DumpableBehavior::NotDumpable).and_then(|()| dumpable_behavior());
    match set {
        Ok(DumpableBehavior::NotDumpable) => None,
        Ok(DumpableBehavior::Dumpable | DumpableBehavior::DumpableReadableOnlyByRoot) => {
            Some("this process stays open to debuggers of the same user: the kernel ignored PR_SET_DUMPABLE".to_owned())
        }
        Err(e) => Some(format!("this process stays open to debuggers of the same user: {}", io_kind(e))),
    }
}

#[cfg(not(target_os = "linux"))]
fn close_memory() -> Option<String> {
    Some("this process stays open to debuggers of the same user: closing it works on Linux only".to_owned())
}

fn io_kind(e: rustix::io::Errno) -> std::io::ErrorKind {
    std::io::Error::from(e).kind()
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests;
