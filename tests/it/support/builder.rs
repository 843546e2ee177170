//! What a sidecar is started with.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::upstream::Recorder;
use super::watch::Watch;
use super::{FakeUpstream, Namespace, TestSidecar};

/// How long a sidecar may take to be ready.
const READY_MAX: Duration = Duration::from_secs(20);

/// What to start.
pub struct Builder {
    policy: String,
    defaults: Vec<(&'static str, Option<String>)>,
    flags: Vec<String>,
    environment: Vec<(String, String)>,
    files: Vec<(String, String)>,
    directory: Option<Arc<tempfile::TempDir>>,
    user: Option<u32>,
    namespace: Option<Arc<Namespace>>,
    upstreams: Vec<(Vec<String>, Recorder)>,
}

impl Builder {
    /// With a policy; `{dir}` in it and in flags stands for the sidecar's directory.
    pub fn new(policy: &str) -> Self {
        let defaults = [
            ("--ca-in-memory", None),
            ("--policy", Some("{dir}/policy.toml")),
            ("--listen", Some("127.0.0.1:0")),
            ("--admin", Some("127.0.0.1:0")),
            ("--control", Some("{dir}/run/control.sock")),
            ("--audit", Some("{dir}/audit.jsonl")),
            ("--ca-publish", Some("{dir}/public")),
            ("--ready-file", Some("{dir}/ready.json")),
        ];
        Self {
            policy: policy.to_owned(),
            defaults: defaults.map(|(flag, value)| (flag, value.map(str::to_owned))).into(),
            flags: Vec::new(),
            environment: Vec::new(),
            files: Vec::new(),
            directory: None,
            user: None,
            namespace: None,
            upstreams: Vec::new(),
        }
    }

    /// An upstream: `{host}:443` goes there, and its CA is at `{dir}/NAME.pem`.
    pub fn upstream(mut self, hosts: &[&str], name: &str, upstream: &FakeUpstream) -> Self {
        self.files.push((format!("{name}.pem"), upstream.authority.pem.clone()));
        self.upstreams.push((hosts.iter().map(|host| (*host).to_owned()).collect(), upstream.recorder()));
        for host in hosts {
            let from = if host.contains(':') { (*host).to_owned() } else { format!("{host}:443") };
            self = self.flag("--connect-to").flag(&format!("{from}:{}", upstream.address));
        }
        self
    }

    pub fn flag(mut self, flag: &str) -> Self {
        self.flags.push(flag.to_owned());
        self
    }

    /// Another value for a flag that was given already.
    pub fn set_flag(mut self, flag: &str, value: &str) -> Self {
        let at = self.flags.iter().position(|known| known == flag).expect("a flag");
        value.clone_into(&mut self.flags[at + 1]);
        self
    }

    /// Another value for a flag that every test sidecar has.
    pub fn set(mut self, flag: &str, value: &str) -> Self {
        let known = self.defaults.iter_mut().find(|(name, _)| *name == flag).expect("a default flag");
        known.1 = Some(value.to_owned());
        self
    }

    /// Without a flag that every test sidecar has.
    pub fn without(mut self, flag: &str) -> Self {
        self.defaults.retain(|(name, _)| *name != flag);
        self
    }

    /// Another place for the audit.
    pub fn audit(self, path: &str) -> Self {
        self.set("--audit", path)
    }

    /// The CA in this directory instead of in memory.
    pub fn ca_dir(self, path: &str) -> Self {
        self.without("--ca-in-memory").flag("--ca-dir").flag(path)
    }

    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A file in the sidecar's directory, made before it starts.
    pub fn file(mut self, name: &str, content: &str) -> Self {
        self.files.push((name.to_owned(), content.to_owned()));
        self
    }

    /// In a directory that is there already.
    pub fn within(mut self, directory: &Arc<tempfile::TempDir>) -> Self {
        self.directory = Some(directory.clone());
        self
    }

    /// As another user, who then owns the sidecar's directory.
    pub fn user(mut self, uid: u32) -> Self {
        self.user = Some(uid);
        self
    }

    /// In a network namespace.
    pub fn inside(mut self, namespace: &Arc<Namespace>) -> Self {
        self.namespace = Some(namespace.clone());
        self
    }

    /// Starts it and waits until it is ready.
    pub async fn start(self) -> TestSidecar {
        let (mut watch, is_near) = (self.watch(), self.namespace.is_none());
        let (mut child, directory) = self.spawn();
        let ready = directory.path().join("ready.json");
        let begun = Instant::now();
        let addresses: serde_json::Value = loop {
            let addresses: Option<serde_json::Value> =
                std::fs::read(&ready).ok().and_then(|text| serde_json::from_slice(&text).ok());
            // A file of an earlier run in the same directory is not ours.
            if let Some(addresses) = addresses.filter(|ready| ready["pid"] == child.id()) {
                break addresses;
            }
            let ended = child.try_wait().expect("a child");
            let log = || std::fs::read_to_string(directory.path().join("stderr.log")).unwrap_or_default();
            assert!(ended.is_none(), "it ended with {ended:?}:\n{}", log());
            assert!(begun.elapsed() < READY_MAX, "it was not ready in time:\n{}", log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        watch.learn(directory.path());
        let address = |name: &str| addresses[name].as_str().and_then(|text| text.parse().ok()).expect("an address");
        TestSidecar { proxy: address("proxy"), admin: address("admin"), directory, child, watch, is_near }
    }

    fn watch(&self) -> Watch {
        Watch {
            policy: self.policy.clone(),
            environment: self.environment.clone(),
            inputs: self.files.iter().map(|(name, _)| name.into()).collect(),
            upstreams: self.upstreams.clone(),
            ..Watch::default()
        }
    }

    /// Starts it and expects it to end by itself: exit code and standard error.
    pub fn fails(self) -> (Option<i32>, String) {
        let (mut child, directory) = self.spawn();
        let begun = Instant::now();
        while child.try_wait().expect("a child").is_none() {
            if begun.elapsed() > READY_MAX {
                let _ = child.kill();
                panic!("it did not end");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let status = child.wait().expect("a child");
        (status.code(), std::fs::read_to_string(directory.path().join("stderr.log")).expect("the log"))
    }

    fn spawn(self) -> (Child, Arc<tempfile::TempDir>) {
        let directory = self.directory.clone();
        let directory = directory.unwrap_or_else(|| Arc::new(tempfile::tempdir().expect("a directory")));
        let mut command = self.command(directory.path());
        let child = match &self.namespace {
            Some(namespace) => namespace.inside(0, || command.spawn()),
            None => command.spawn(),
        };
        let child = child.expect("the binary starts");
        (child, directory)
    }

    fn command(&self, directory: &Path) -> Command {
        let place = |text: &str| text.replace("{dir}", directory.to_str().expect("a path"));
        std::fs::write(directory.join("policy.toml"), place(&self.policy)).expect("a file");
        for (name, content) in &self.files {
            let path = directory.join(name);
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent).expect("a directory");
            }
            std::fs::write(path, content).expect("a file");
        }
        let log = std::fs::File::create(directory.join("stderr.log")).expect("a file");
        let output = std::fs::File::create(directory.join("stdout.log")).expect("a file");
        let mut command = Command::new(super::binary());
        command.arg("serve").env_remove("SSLKEYLOGFILE").current_dir(directory);
        for (flag, value) in &self.defaults {
            command.arg(flag).args(value.as_deref().map(place));
        }
        command
            .args(self.flags.iter().map(|flag| place(flag)))
            .envs(self.environment.iter().map(|(name, value)| (name, place(value))))
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(log);
        if let Some(uid) = self.user {
            use std::os::unix::process::CommandExt;
            std::os::unix::fs::chown(directory, Some(uid), Some(uid)).expect("root");
            command.uid(uid).gid(uid);
        }
        command
    }
}
