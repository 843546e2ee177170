//! Landlock: once all is set up, the process opens the files that it needs, and no others, whatever it is made to do.
//!
//! The kernel confines a thread, and the threads and processes that it starts. So this is for the only thread there is,
//! and for a process that starts no others; nothing can be added later.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use super::Effort;

/// What stays open to a confined process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Places {
    read: BTreeSet<PathBuf>,
    write: BTreeSet<PathBuf>,
    remove: BTreeSet<PathBuf>,
    missing: BTreeSet<PathBuf>,
}

impl Places {
    /// This file can be read, and what takes its place: everything in its directory, and where its links lead.
    pub fn read(&mut self, path: &Path) {
        let homes = homes(path);
        if homes.is_empty() {
            self.missing.insert(path.to_owned());
        }
        self.read.extend(homes);
    }

    /// These very files can be read, and nothing beside them: not what takes their place. No link is in their paths.
    pub fn read_alone(&mut self, paths: &[PathBuf]) {
        self.read.extend(paths.iter().filter(|path| !is_of_system(path)).cloned());
    }

    /// This file can be made, written, read and replaced, as can everything in its directory; or all that is in this
    /// directory.
    pub fn write(&mut self, path: &Path) {
        self.write.extend(homes(path));
    }

    /// This file can be removed, as can everything in its directory.
    pub fn remove(&mut self, path: &Path) {
        self.remove.extend(homes(path));
    }

    /// Files for reading whose directories are not there: they cannot be opened, not even when they come to be.
    pub fn missing(&self) -> impl Iterator<Item = &Path> {
        self.missing.iter().map(PathBuf::as_path)
    }
}

/// Where a file is looked for: its directory, and that to which its links lead. A directory stands for itself, as does
/// what is no regular file, and what lies right in the root, for the sake of which not everything is to be open.
fn homes(path: &Path) -> Vec<PathBuf> {
    let found = path.canonicalize().ok();
    if let Some(found) = found.as_ref().filter(|found| !found.is_file()) {
        return vec![found.clone()];
    }
    let named = std::path::absolute(path).ok().and_then(|path| path.parent()?.canonicalize().ok());
    let meant = found.as_ref().and_then(|found| found.parent().map(Path::to_owned));
    let homes: Vec<_> = [named, meant].into_iter().flatten().filter(|home| home.parent().is_some()).collect();
    if homes.is_empty() { found.into_iter().collect() } else { homes }
}

/// What the C library, the resolver and the runtime read. Of other processes `/proc` shows little: what is secret
/// there can be had by who may trace them, and that is over.
const SYSTEM: [&str; 16] = [
    "/etc",
    "/usr",
    "/lib",
    "/lib64",
    "/nix/store",
    "/run/systemd/resolve",
    "/run/resolvconf",
    "/run/NetworkManager",
    "/run/nscd",
    "/var/lib/sss",
    "/proc",
    "/sys/fs/cgroup",
    "/sys/devices/system/cpu",
    "/dev/null",
    "/dev/random",
    "/dev/urandom",
];

/// Whether it is beneath what every process can read.
fn is_of_system(path: &Path) -> bool {
    SYSTEM.iter().any(|root| path.starts_with(root))
}

/// How far a process is confined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confinement(State);

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Open(Why),
    /// Reading is confined to what is beneath these.
    Confined {
        is_whole: bool,
        roots: BTreeSet<PathBuf>,
    },
}

/// Why a process is not confined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    Asked,
    Commands,
    Kernel,
    Threads,
}

/// Why a process that has to be confined cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfinementError {
    /// The commands would be confined with us, and nobody knows what they need.
    #[error("credentials come from commands, which would be confined too, and nobody knows what they need")]
    Commands,
    /// It has no Landlock, or too little.
    #[error("the kernel cannot do it: {0}")]
    Kernel(String),
    /// A thread that is there already would go on as before.
    #[error("there are other threads already")]
    Threads,
}

impl Confinement {
    /// Of a process that starts commands: they would be confined with it.
    ///
    /// # Errors
    /// [`ConfinementError::Commands`] where it is required.
    pub fn with_commands(effort: Effort) -> Result<Self, ConfinementError> {
        match effort {
            Effort::Off => Ok(Self(State::Open(Why::Asked))),
            Effort::BestEffort => Ok(Self(State::Open(Why::Commands))),
            Effort::Required => Err(ConfinementError::Commands),
        }
    }

    /// False where commands would be confined, and so should not be started.
    #[must_use]
    pub fn lets_commands_run(&self) -> bool {
        matches!(self.0, State::Open(_))
    }

    /// Whether this file, and what takes its place, can be read.
    #[must_use]
    pub fn lets_read(&self, path: &Path) -> bool {
        let State::Confined { roots, .. } = &self.0 else { return true };
        let homes = homes(path);
        !homes.is_empty() && homes.iter().all(|home| roots.iter().any(|root| home.starts_with(root)))
    }

    /// One word for records.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match &self.0 {
            State::Open(Why::Asked) => "off",
            State::Open(Why::Commands) => "commands",
            State::Open(Why::Kernel | Why::Threads) => "unavailable",
            State::Confined { is_whole: true, .. } => "landlock",
            State::Confined { is_whole: false, .. } => "landlock-partly",
        }
    }

    /// True unless there is something to warn of.
    #[must_use]
    pub fn is_as_meant(&self) -> bool {
        match &self.0 {
            State::Open(Why::Kernel | Why::Threads) => false,
            State::Open(Why::Asked | Why::Commands) | State::Confined { .. } => true,
        }
    }
}

impl fmt::Display for Confinement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.0 {
            State::Open(Why::Asked) => "this process is not confined by Landlock, as asked",
            State::Open(Why::Commands) => {
                "this process is not confined by Landlock: credentials come from commands, which would be confined too"
            }
            State::Open(Why::Kernel) => "this process is not confined by Landlock: the kernel does not have it",
            State::Open(Why::Threads) => "this process is not confined by Landlock: it had other threads before",
            State::Confined { is_whole: true, .. } => "this process is confined by Landlock to the files that it needs",
            State::Confined { is_whole: false, .. } => {
                "this process is confined by Landlock to the files that it needs, as far as this kernel has it"
            }
        })
    }
}

/// Confines this process to these places and to what every process needs of the system. No program can be started, no
/// process outside be signalled or traced, and no rights be gained.
///
/// To be called while there is one thread.
///
/// # Errors
/// [`ConfinementError`] where it is [`Effort::Required`] and cannot be had.
pub fn confine(places: &Places, effort: Effort) -> Result<Confinement, ConfinementError> {
    let outcome = match effort {
        Effort::Off => return Ok(Confinement(State::Open(Why::Asked))),
        Effort::BestEffort | Effort::Required => confine_thread(places, effort),
    };
    match outcome {
        Ok(confinement) => Ok(confinement),
        Err(error) if effort == Effort::Required => Err(error),
        Err(ConfinementError::Threads) => Ok(Confinement(State::Open(Why::Threads))),
        Err(ConfinementError::Commands | ConfinementError::Kernel(_)) => Ok(Confinement(State::Open(Why::Kernel))),
    }
}

#[cfg(target_os = "linux")]
fn confine_thread(places: &Places, effort: Effort) -> Result<Confinement, ConfinementError> {
    linux::confine(places, effort)
}

#[cfg(not(target_os = "linux"))]
fn confine_thread(_: &Places, _: Effort) -> Result<Confinement, ConfinementError> {
    Err(ConfinementError::Kernel("this is done on Linux only".to_owned()))
}

/// Whether this kernel has Landlock, and lets this process use it.
#[must_use]
#[cfg(target_os = "linux")]
pub fn can_confine() -> bool {
    linux::is_there()
}

/// Whether this kernel has Landlock.
#[must_use]
#[cfg(not(target_os = "linux"))]
pub fn can_confine() -> bool {
    false
}

#[cfg(target_os = "linux")]
mod linux {
    use std::collections::BTreeSet;
    use std::path::{Path, PathBuf};

    use landlock::{
        ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreatedAttr,
        RulesetError, RulesetStatus, Scope, make_bitflags, path_beneath_rules,
    };

    use super::{Confinement, ConfinementError, Places, SYSTEM, State, Why, is_of_system};
    use crate::process::Effort;

    const READ: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadFile | ReadDir});
    const REMOVE: BitFlags<AccessFs> = make_bitflags!(AccessFs::{RemoveFile});
    const WRITE: BitFlags<AccessFs> =
        make_bitflags!(AccessFs::{ReadFile | ReadDir | WriteFile | Truncate | MakeReg | RemoveFile});
    /// What a kernel has to have where this is required: the first that knows of truncation (6.2).
    const NEEDED: ABI = ABI::V3;
    /// What is asked for where it is there: devices (6.10), signals and abstract sockets (6.12).
    const WANTED: ABI = ABI::V6;

    pub(super) fn is_there() -> bool {
        let ruleset = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
        ruleset.handle_access(AccessFs::from_all(ABI::V1)).and_then(Ruleset::create).is_ok()
    }

    pub(super) fn confine(places: &Places, effort: Effort) -> Result<Confinement, ConfinementError> {
        if threads_count().is_some_and(|count| count > 1) {
            return Err(ConfinementError::Threads);
        }
        let status = restrict(places, effort).map_err(|error| ConfinementError::Kernel(error.to_string()))?;
        let roots = || {
            let system = SYSTEM.iter().filter_map(|path| Path::new(path).canonicalize().ok());
            places.read.iter().cloned().chain(places.write.iter().cloned()).chain(system).collect()
        };
        Ok(Confinement(match status {
            RulesetStatus::FullyEnforced => State::Confined { is_whole: true, roots: roots() },
            RulesetStatus::PartiallyEnforced => State::Confined { is_whole: false, roots: roots() },
            RulesetStatus::NotEnforced => State::Open(Why::Kernel),
        }))
    }

    fn threads_count() -> Option<usize> {
        Some(std::fs::read_dir("/proc/self/task").ok()?.count())
    }

    /// Without what can be read anyhow.
    fn beyond_system(paths: &BTreeSet<PathBuf>) -> BTreeSet<PathBuf> {
        paths.iter().filter(|path| !is_of_system(path)).cloned().collect()
    }

    fn restrict(places: &Places, effort: Effort) -> Result<RulesetStatus, RulesetError> {
        let needed = match effort {
            Effort::Required => CompatLevel::HardRequirement,
            Effort::Off | Effort::BestEffort => CompatLevel::BestEffort,
        };
        let beneath = |paths: &BTreeSet<PathBuf>, access: BitFlags<AccessFs>| path_beneath_rules(paths.clone(), access);
        let status = Ruleset::default()
            .set_compatibility(needed)
            .handle_access(AccessFs::from_all(NEEDED))?
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(WANTED))?
            .scope(Scope::from_all(WANTED))?
            .create()?
            .add_rules(path_beneath_rules(SYSTEM, READ))?
            .add_rules(path_beneath_rules(["/dev/null"], WRITE))?
            .add_rules(beneath(&beyond_system(&places.read), READ))?
            .add_rules(beneath(&places.write, WRITE))?
            .add_rules(beneath(&places.remove, REMOVE))?
            .restrict_self()?;
        Ok(status.ruleset)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn directory() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().canonicalize().unwrap();
        (directory, path)
    }

    #[test]
    fn a_file_is_at_home_where_it_is_named_and_where_its_links_lead() {
        let (_directory, path) = directory();
        let at = |name: &str| path.join(name);
        for name in ["mounted", "data"] {
            std::fs::create_dir(at(name)).unwrap();
        }
        std::fs::write(at("data/key"), "").unwrap();
        symlink("../data/key", at("mounted/key")).unwrap();
        assert_eq!(homes(&at("mounted/key")), [at("mounted"), at("data")]);
        assert_eq!(homes(&at("data/key")), [at("data"), at("data")]);
        assert_eq!(homes(&at("data/not-yet")), [at("data")]);
        assert_eq!(homes(&at("data")), [at("data")], "a directory is itself");
        assert!(homes(&at("nowhere/key")).is_empty());
    }

    #[test]
    fn what_is_no_file_and_what_lies_in_the_root_opens_nothing_else() {
        assert_eq!(homes(Path::new("/dev/null")), [Path::new("/dev/null")]);
        assert!(homes(Path::new("/no-such-file-in-the-root")).is_empty());
    }

    #[test]
    fn what_every_process_reads_is_no_place_of_its_own() {
        let mut places = Places::default();
        places.read_alone(&["/usr/share/x.crt", "/usr2/x.crt", "/opt/x.crt"].map(PathBuf::from));
        assert_eq!(places.read, ["/opt/x.crt", "/usr2/x.crt"].map(PathBuf::from).into());
    }

    #[test]
    fn what_is_beneath_a_place_can_be_read_and_nothing_beside_it() {
        let (_directory, path) = directory();
        std::fs::create_dir_all(path.join("in/below")).unwrap();
        std::fs::create_dir(path.join("in-not")).unwrap();
        let confined = Confinement(State::Confined { is_whole: true, roots: [path.join("in")].into() });
        for (name, is_open) in
            [("in/key", true), ("in/below/key", true), ("in-not/key", false), ("key", false), ("in/none/key", false)]
        {
            assert_eq!(confined.lets_read(&path.join(name)), is_open, "{name}");
        }
        symlink(path.join("in-not"), path.join("in/out")).unwrap();
        assert!(!confined.lets_read(&path.join("in/out/key")), "by a link");
        assert!(Confinement(State::Open(Why::Asked)).lets_read(&path.join("key")));
    }

    #[test]
    fn what_starts_commands_is_not_confined_or_not_started() {
        let outcome = |effort| Confinement::with_commands(effort).map(|open| open.word());
        assert_eq!(outcome(Effort::Off), Ok("off"));
        assert_eq!(outcome(Effort::BestEffort), Ok("commands"));
        assert_eq!(outcome(Effort::Required), Err(ConfinementError::Commands));
    }

    #[test]
    fn a_process_with_other_threads_is_told_so() {
        // The test harness has one for each test.
        let outcome = confine(&Places::default(), Effort::Required);
        assert!(outcome.is_err(), "{outcome:?}");
    }
}
