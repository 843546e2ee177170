//! Where real secrets come from: environment, file, command; later sources come behind the same trait.
//!
//! - `source`: the trait, and all that can go wrong
//! - `environment`, `file`, `exec`: the sources
//! - `certificate`: client certificates with their keys, from files
//! - `key_pair`: the form of those that sign
//! - `value`: what a credential can be
//! - `slot`: one credential with its value in use, its one load under way, its pause after a failure

pub mod certificate;
mod environment;
pub mod exec;
pub mod file;
mod key_pair;
pub mod slot;
pub mod source;
mod value;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use zeroize::Zeroizing;

pub use self::value::Value;

use self::certificate::files::CertificateFiles;
use self::exec::{ExecSource, ExecSpec};
use self::file::FileSource;
use self::slot::{Label, Slot};
use self::source::Problem;
use crate::clock::SharedClock;
use crate::model::{Credential, CredentialName, Denial};

/// Most credentials that [`Credentials::probe`] tries at a time.
const PROBES_MAX: usize = 16;

/// One `[credentials.NAME]` of the policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// Its name.
    pub name: CredentialName,
    /// Where it comes from.
    pub source: SourceSpec,
    /// True where a service that uses it scrubs answers: then less than 16 bytes are refused, since
    /// they could not be searched for without false finds. The default is true.
    pub scrubbed: bool,
    /// What it has to be.
    pub form: Form,
}

/// What a credential has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Form {
    /// A text that goes out as it is.
    #[default]
    Text,
    /// The JSON of AWS's `credential_process`: a key pair that signs, for the slot `aws-sigv4`.
    AwsKeyPair,
}

/// Where a credential comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceSpec {
    /// An environment variable, read once at start and taken out of the environment.
    Env {
        /// The variable.
        name: String,
    },
    /// A file, read again when it changes: at most 64 KiB, one line end after the credential is dropped.
    File {
        /// The file; links are followed (Kubernetes swaps `..data`).
        path: PathBuf,
    },
    /// A client certificate and its private key in PEM files, read again when they change.
    Certificate {
        /// The file with the key.
        key: PathBuf,
        /// The file with the chain, leaf first; it may be the same one.
        certificate: PathBuf,
    },
    /// A command, run when a value is needed and the last one is over.
    Exec {
        /// Absolute path that others cannot write.
        command: PathBuf,
        /// Arguments.
        arguments: Vec<String>,
        /// Names of variables that it gets.
        environment: Vec<String>,
        /// How long a plain-text answer is good for.
        ttl: Duration,
        /// How long it may run.
        timeout: Duration,
    },
}

/// A credential with its version; a new value has a new version.
#[derive(Debug)]
pub struct Versioned {
    /// Which one.
    pub name: CredentialName,
    /// Counts up in this process with every change of the value, and when a value comes back after a failure; not when it
    /// is loaded again after nobody needed it.
    pub version: u64,
    /// The secret.
    pub value: Value,
}

impl Versioned {
    /// The text that goes into a request; `None` where it is something else.
    #[must_use]
    pub fn text(&self) -> Option<&Credential> {
        self.value.text()
    }

    /// The key pair that signs a request; `None` where it is something else.
    #[must_use]
    pub fn key_pair(&self) -> Option<&Credential> {
        self.value.key_pair()
    }
}

/// It cannot be had now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the credential cannot be had")]
pub struct Unavailable {
    /// When trying again makes sense, where that is known.
    pub retry_after: Option<Duration>,
}

impl From<Unavailable> for Denial {
    fn from(unavailable: Unavailable) -> Self {
        Self::CredentialUnavailable { retry_after: unavailable.retry_after }
    }
}

/// How one credential is doing, without a word of its value.
#[derive(Debug, Clone)]
pub struct Health {
    /// Its name.
    pub name: CredentialName,
    /// `env`, `file`, `exec`.
    pub source: &'static str,
    /// What was wrong when it was last needed, in words that hold no value; `None` when it could be had or was not needed yet.
    pub problem: Option<String>,
    /// Version of the last value, 0 before the first.
    pub version: u64,
}

/// All credentials of the policy.
pub struct Credentials {
    slots: HashMap<CredentialName, Source>,
    shared: Shared,
}

/// What all of them have in common.
struct Shared {
    clock: SharedClock,
    /// The values that came into use.
    changes: Arc<Changes>,
}

/// Tells of the values that come into use.
#[derive(Default)]
struct Changes {
    count: AtomicU64,
    last: Notify,
}

impl Changes {
    fn tell(&self) {
        self.count.fetch_add(1, Ordering::Release);
        self.last.notify_one();
    }
}

/// Hears of the values that come into use, also of those of a later policy.
pub struct Arrivals(Arc<Changes>);

impl Arrivals {
    /// Completes when a value has come into use since this was last asked, where there was none or another one. One at a
    /// time may ask.
    pub async fn next(&self) {
        self.0.last.notified().await;
    }
}

impl Shared {
    fn again(&self) -> Self {
        Self { clock: Arc::clone(&self.clock), changes: Arc::clone(&self.changes) }
    }
}

/// A credential as the policy describes it, and what was made of that.
struct Source {
    spec: Spec,
    slot: Arc<Slot>,
}

impl Credentials {
    /// Takes the environment's values over from `environment` (already taken out of the process environment).
    ///
    /// A command's variables are looked for there and then in the process environment.
    #[must_use]
    pub fn new(specs: Vec<Spec>, environment: HashMap<String, Zeroizing<String>>, clock: SharedClock) -> Self {
        let shared = Shared { clock, changes: Arc::default() };
        let source = |spec: Spec| (spec.name.clone(), Source { slot: open(&spec, &environment, &shared), spec });
        let slots = specs.into_iter().map(source).collect();
        // What no credential uses is wiped here too.
        drop(environment);
        Self { slots, shared }
    }

    /// Those of another policy. What is described as before goes on with its value and its version.
    ///
    /// The environment was read once, at the start: a variable that no credential came from then has to wait for the
    /// next one, and [`Credentials::health`] says so.
    #[must_use]
    pub fn renewed(&self, specs: Vec<Spec>) -> Self {
        let source = |spec: Spec| {
            let known = self.slots.get(&spec.name).filter(|known| known.spec == spec);
            let slot = match (known, &spec.source) {
                (Some(known), _) => Arc::clone(&known.slot),
                (None, SourceSpec::Env { .. }) => missing(&spec, &self.shared),
                (None, SourceSpec::File { .. } | SourceSpec::Certificate { .. } | SourceSpec::Exec { .. }) => {
                    open(&spec, &HashMap::new(), &self.shared).counting_from(self.version(&spec.name))
                }
            };
            (spec.name.clone(), Source { spec, slot })
        };
        Self { slots: specs.into_iter().map(source).collect(), shared: self.shared.again() }
    }

    /// How many values have come into use so far, of all credentials; counts on through another policy.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.shared.changes.count.load(Ordering::Acquire)
    }

    /// All values that are loaded, whether or not they are to be loaded again before their next use.
    #[must_use]
    pub fn loaded(&self) -> Vec<Arc<Versioned>> {
        self.slots.values().filter_map(|source| source.slot.loaded()).collect()
    }

    /// The present value; single-flight where it has to be fetched.
    ///
    /// Takes no lock and allocates nothing while the value in use holds. What is wrong is remembered
    /// for a moment (250 ms for a file, up to 30 s for a command), and answered without trying again.
    ///
    /// # Errors
    /// [`Unavailable`].
    pub async fn fetch(&self, name: &CredentialName) -> Result<Arc<Versioned>, Unavailable> {
        match self.slots.get(name) {
            Some(source) => source.slot.fetch().await,
            None => Err(Unavailable { retry_after: None }),
        }
    }

    /// Tells when a value comes into use.
    #[must_use]
    pub fn arrivals(&self) -> Arrivals {
        Arrivals(Arc::clone(&self.shared.changes))
    }

    /// Whether a value, once it was let go of, can be had again: from a file or a command, not from the environment.
    #[must_use]
    pub fn can_be_had_again(&self, name: &CredentialName) -> bool {
        self.slots.get(name).is_some_and(|source| source.slot.can_be_had_again())
    }

    /// Lets go of the values that can be had again and that nobody needs; true if there was one. Whoever has one goes on
    /// with it, and whoever needs one next loads it.
    pub fn release(&self, is_needed: &dyn Fn(&CredentialName) -> bool) -> bool {
        let idle = self.slots.iter().filter(|(name, _)| !is_needed(name));
        idle.filter(|(_, source)| source.slot.release()).count() > 0
    }

    /// Begins to load what was let go of and is needed again, so that the first who asks for it waits less.
    pub fn recall(&self, is_needed: &dyn Fn(&CredentialName) -> bool) {
        let missed = self.slots.iter().filter(|(name, source)| is_needed(name) && source.slot.is_released());
        for (_, source) in missed {
            let slot = Arc::clone(&source.slot);
            // What came of it is in the slot's health.
            tokio::spawn(async move { slot.fetch().await.is_ok() });
        }
    }

    fn version(&self, name: &CredentialName) -> u64 {
        self.slots.get(name).map_or(0, |source| source.slot.health().version)
    }

    /// How all of them are doing, by name.
    #[must_use]
    pub fn health(&self) -> Vec<Health> {
        let mut all: Vec<Health> = self.slots.values().map(|source| source.slot.health()).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// Tries all once, so that what is missing is said at start.
    pub async fn probe(&self) {
        let slots: Vec<&Arc<Slot>> = self.slots.values().map(|source| &source.slot).collect();
        for some in slots.chunks(PROBES_MAX) {
            let mut probes = JoinSet::new();
            for &slot in some {
                let slot = Arc::clone(slot);
                // What came of it is in the slot's health.
                probes.spawn(async move { slot.fetch().await.is_ok() });
            }
            while probes.join_next().await.is_some() {}
        }
    }
}

fn open(spec: &Spec, environment: &HashMap<String, Zeroizing<String>>, shared: &Shared) -> Arc<Slot> {
    let Spec { name, source, scrubbed, form } = spec.clone();
    let Shared { clock, changes } = shared.again();
    let label = |source, subject| Label { name, source, subject, scrubbed, changes };
    match source {
        SourceSpec::Env { name } => {
            let outcome = environment::find(&name, environment, (form, &clock.now()));
            Slot::settled(label("env", variable(&name)), outcome, clock)
        }
        SourceSpec::File { path } => {
            let label = label("file", format!("file {}", path.display()));
            Slot::sourced(label, Box::new(FileSource::new(path, form, Arc::clone(&clock))), clock)
        }
        SourceSpec::Certificate { key, certificate } => {
            let subject = format!("file {} (certificate {})", key.display(), certificate.display());
            let source = CertificateFiles::new(key, certificate, Arc::clone(&clock));
            Slot::sourced(label("file", subject), Box::new(source), clock)
        }
        SourceSpec::Exec { command, arguments, environment: variables, ttl, timeout } => {
            let label = label("exec", format!("command {}", command.display()));
            let spec = ExecSpec { command, arguments, environment: variables, ttl, timeout, form };
            Slot::sourced(label, Box::new(ExecSource::new(spec, environment, Arc::clone(&clock))), clock)
        }
    }
}

/// A variable that nobody has taken over.
fn missing(spec: &Spec, shared: &Shared) -> Arc<Slot> {
    let SourceSpec::Env { name } = &spec.source else { return open(spec, &HashMap::new(), shared) };
    let Shared { clock, changes } = shared.again();
    let (name, subject) = (spec.name.clone(), variable(name));
    let label = Label { name, source: "env", subject, scrubbed: spec.scrubbed, changes };
    Slot::settled(label, Err(Problem::NotTaken), clock)
}

fn variable(name: &str) -> String {
    format!("environment variable {name}")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::*;
    use crate::clock::ManualClock;

    const FIRST: &str = "sk_live_first_0000";
    const SECOND: &str = "sk_live_second_000";

    fn name(name: &str) -> CredentialName {
        CredentialName::parse(name).unwrap()
    }

    fn spec(text: &str, source: SourceSpec) -> Spec {
        Spec { name: name(text), source, scrubbed: true, form: Form::Text }
    }

    fn env(text: &str, variable: &str) -> Spec {
        spec(text, SourceSpec::Env { name: variable.to_owned() })
    }

    fn file(text: &str, path: &Path) -> Spec {
        spec(text, SourceSpec::File { path: path.to_owned() })
    }

    fn environment(pairs: &[(&str, &str)]) -> HashMap<String, Zeroizing<String>> {
        pairs.iter().map(|&(name, value)| (name.to_owned(), Zeroizing::new(value.to_owned()))).collect()
    }

    async fn version(credentials: &Credentials, text: &str) -> Result<u64, Unavailable> {
        credentials.fetch(&name(text)).await.map(|versioned| versioned.version)
    }

    #[tokio::test]
    async fn variables_are_there_or_not_for_good() {
        let specs = vec![env("a", "A"), env("b", "B"), env("c", "C"), env("d", "D")];
        let given = environment(&[("A", FIRST), ("B", "short"), ("C", "sk_live_\r\nInjected: 1")]);
        let credentials = Credentials::new(specs, given, ManualClock::new());
        assert_eq!(version(&credentials, "a").await, Ok(1));
        for missing in ["b", "c", "d", "unknown"] {
            assert_eq!(version(&credentials, missing).await, Err(Unavailable { retry_after: None }));
        }
        let problems: Vec<_> = credentials.health().into_iter().map(|health| health.problem).collect();
        let [None, Some(short), Some(bad), Some(unset)] = &problems[..] else { panic!("{problems:?}") };
        assert!(short.starts_with("environment variable B is shorter than 16 bytes"), "{short}");
        assert!(bad.starts_with("environment variable C holds a control character"), "{bad}");
        assert_eq!(unset, "environment variable D is not set");
        assert!(!format!("{problems:?}").contains("sk_live"));
    }

    #[tokio::test]
    async fn a_file_that_changes_is_followed_and_garbage_ends_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        let clock = ManualClock::new();
        let credentials = Credentials::new(vec![file("f", &path)], HashMap::new(), Arc::clone(&clock) as _);
        let look = async |content: Option<&str>| {
            match content {
                Some(content) => std::fs::write(&path, content).unwrap(),
                None => std::fs::remove_file(&path).unwrap(),
            }
            clock.advance(Duration::from_millis(250));
            version(&credentials, "f").await.ok()
        };
        assert_eq!(look(Some(FIRST)).await, Some(1));
        assert_eq!(look(Some(FIRST)).await, Some(1), "touched, not changed");
        assert_eq!(look(Some(SECOND)).await, Some(2), "the same length");
        assert_eq!(look(Some("")).await, None);
        assert_eq!(look(Some("sk_live_\nsecond_000")).await, None);
        assert_eq!(look(Some(SECOND)).await, Some(3));
        assert_eq!(look(None).await, None);
        let problem = credentials.health().remove(0).problem.unwrap();
        assert_eq!(problem, format!("file {} cannot be read: entity not found", path.display()));
    }

    #[tokio::test]
    async fn the_swap_of_a_mounted_secret_is_followed() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for (generation, value) in [("..1", FIRST), ("..2", SECOND)] {
            std::fs::create_dir(at(generation)).unwrap();
            std::fs::write(at(generation).join("key"), value).unwrap();
        }
        symlink("..1", at("..data")).unwrap();
        symlink("..data/key", at("key")).unwrap();
        let clock = ManualClock::new();
        let credentials = Credentials::new(vec![file("f", &at("key"))], HashMap::new(), Arc::clone(&clock) as _);
        assert_eq!(version(&credentials, "f").await, Ok(1));
        symlink("..2", at("..data_tmp")).unwrap();
        std::fs::rename(at("..data_tmp"), at("..data")).unwrap();
        std::fs::remove_dir_all(at("..1")).unwrap();
        clock.advance(file::FILE_CHECK_EVERY);
        assert_eq!(version(&credentials, "f").await, Ok(2));
    }

    #[tokio::test]
    async fn a_command_runs_when_its_value_is_over() {
        let directory = tempfile::tempdir().unwrap();
        let runs = directory.path().join("runs");
        let script = format!("echo >>{0}; wc -l <{0} | xargs printf 'sk_live_run_number_%s\\n'", runs.display());
        let source = SourceSpec::Exec {
            command: "/bin/sh".into(),
            arguments: vec!["-c".to_owned(), script],
            environment: vec!["PATH".to_owned()],
            ttl: Duration::from_secs(60),
            timeout: exec::EXEC_TIMEOUT,
        };
        let clock = ManualClock::new();
        let credentials = Credentials::new(vec![spec("e", source)], HashMap::new(), Arc::clone(&clock) as _);
        credentials.probe().await;
        assert_eq!(version(&credentials, "e").await, Ok(1));
        clock.advance(Duration::from_secs(59));
        assert_eq!(version(&credentials, "e").await, Ok(1));
        clock.advance(Duration::from_secs(1));
        assert_eq!(version(&credentials, "e").await, Ok(2));
        assert_eq!(std::fs::read(runs).unwrap().len(), 2);
    }

    #[tokio::test]
    async fn another_policy_keeps_what_it_describes_as_before() {
        let directory = tempfile::tempdir().unwrap();
        let (one, two) = (directory.path().join("one"), directory.path().join("two"));
        std::fs::write(&one, FIRST).unwrap();
        std::fs::write(&two, SECOND).unwrap();
        let given = environment(&[("A", FIRST), ("B", SECOND)]);
        let credentials = Credentials::new(vec![env("a", "A"), file("f", &one)], given, ManualClock::new());
        credentials.probe().await;
        let renewed = credentials.renewed(vec![env("a", "A"), env("b", "B"), file("f", &two)]);
        assert_eq!(version(&renewed, "a").await, Ok(1));
        assert_eq!(version(&renewed, "f").await, Ok(2), "another value, another version");
        assert_eq!(version(&renewed, "b").await, Err(Unavailable { retry_after: None }));
        let problem = renewed.health().into_iter().find_map(|health| health.problem).unwrap();
        assert_eq!(problem, "environment variable B was not taken over at start; start the sidecar again");
        assert_eq!(version(&renewed.renewed(vec![]), "a").await, Err(Unavailable { retry_after: None }));
    }

    #[tokio::test]
    async fn probing_finds_what_is_missing() {
        let missing = Path::new("/nonexistent/key");
        let specs = (0..40).map(|n| file(&format!("f{n:02}"), missing)).collect();
        let credentials = Credentials::new(specs, HashMap::new(), ManualClock::new());
        assert!(credentials.health().iter().all(|health| health.problem.is_none()));
        credentials.probe().await;
        assert!(credentials.health().iter().all(|health| health.problem.is_some()));
    }
}
