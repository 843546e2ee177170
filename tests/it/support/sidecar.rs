//! The built binary as a process of its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{Agent, FakeUpstream, Orchestrator};

/// How long a sidecar may take to be ready.
const READY_MAX: Duration = Duration::from_secs(20);

/// A running sidecar with its own directory; killed when dropped.
pub struct TestSidecar {
    pub proxy: SocketAddr,
    pub admin: SocketAddr,
    pub directory: tempfile::TempDir,
    child: Child,
}

/// What to start.
pub struct Builder {
    policy: String,
    flags: Vec<String>,
    environment: Vec<(String, String)>,
    files: Vec<(String, String)>,
    audit: String,
}

impl TestSidecar {
    /// Starts with a policy; `{dir}` in it stands for the sidecar's directory.
    pub fn with_policy(policy: &str) -> Builder {
        Builder {
            policy: policy.to_owned(),
            flags: Vec::new(),
            environment: Vec::new(),
            files: Vec::new(),
            audit: "{dir}/audit.jsonl".to_owned(),
        }
    }

    /// A file in the sidecar's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn control(&self) -> PathBuf {
        self.path("run/control.sock")
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// An agent that trusts the sidecar's CA.
    pub fn agent(&self) -> Agent {
        Agent::new(self.proxy, &std::fs::read_to_string(self.path("public/ca.pem")).expect("the CA"))
    }

    /// An orchestrator on the control socket.
    pub fn orchestrator(&self) -> Orchestrator {
        Orchestrator::new(self.control())
    }

    /// The audit's records.
    pub fn audit(&self) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(self.path("audit.jsonl")).expect("the audit");
        text.lines().map(|line| serde_json::from_str(line).expect("a record")).collect()
    }

    /// The audit as text, for looking for what must not be there.
    pub fn audit_text(&self) -> String {
        std::fs::read_to_string(self.path("audit.jsonl")).expect("the audit")
    }

    /// What it said on standard error.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("stderr.log")).expect("the log")
    }

    /// Waits until the audit holds a record that `found` recognises.
    pub async fn audited(&self, found: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
        let begun = Instant::now();
        loop {
            if let Some(record) = self.audit().into_iter().find(|record| found(record)) {
                return record;
            }
            assert!(begun.elapsed() < Duration::from_secs(10), "no such record:\n{}", self.audit_text());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Sends a signal by name, such as `TERM`.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").arg(format!("-{name}")).arg(self.pid().to_string()).status();
        assert!(status.expect("kill").success());
    }

    /// Waits for the end; its exit code.
    pub fn wait(&mut self) -> Option<i32> {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status.code();
            }
            assert!(begun.elapsed() < Duration::from_secs(30), "it did not end");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for TestSidecar {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Builder {
    /// An upstream: `{host}:443` goes there, and its CA is at `{dir}/NAME.pem`.
    pub fn upstream(mut self, hosts: &[&str], name: &str, upstream: &FakeUpstream) -> Self {
        self.files.push((format!("{name}.pem"), upstream.authority.pem.clone()));
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

    /// Another place for the audit.
    pub fn audit(mut self, path: &str) -> Self {
        self.audit = path.to_owned();
        self
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

    /// Starts it and waits until it is ready.
    pub async fn start(self) -> TestSidecar {
        let directory = tempfile::tempdir().expect("a directory");
        let mut child = self.command(directory.path()).spawn().expect("the binary starts");
        let ready = directory.path().join("ready.json");
        let begun = Instant::now();
        let addresses: serde_json::Value = loop {
            if let Some(addresses) = std::fs::read(&ready).ok().and_then(|text| serde_json::from_slice(&text).ok()) {
                break addresses;
            }
            let ended = child.try_wait().expect("a child");
            let log = || std::fs::read_to_string(directory.path().join("stderr.log")).unwrap_or_default();
            assert!(ended.is_none(), "it ended with {ended:?}:\n{}", log());
            assert!(begun.elapsed() < READY_MAX, "it was not ready in time:\n{}", log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        let address = |name: &str| addresses[name].as_str().and_then(|text| text.parse().ok()).expect("an address");
        TestSidecar { proxy: address("proxy"), admin: address("admin"), directory, child }
    }

    /// Starts it and expects it to end by itself: exit code and standard error.
    pub fn fails(self) -> (Option<i32>, String) {
        let directory = tempfile::tempdir().expect("a directory");
        let mut child = self.command(directory.path()).spawn().expect("the binary starts");
        let begun = Instant::now();
        while child.try_wait().expect("a child").is_none() {
            if begun.elapsed() > READY_MAX {
                let _ = child.kill();
                panic!("it did not end");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let status = child.wait().expect("a child");
        (status.code(), std::fs::read_to_string(directory.path().join("stderr.log")).expect("the log"))
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
        let mut command = Command::new(env!("CARGO_BIN_EXE_valetkey"));
        command
            .arg("serve")
            .args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--ca-in-memory"])
            .args(["--policy", &place("{dir}/policy.toml")])
            .args(["--control", &place("{dir}/run/control.sock")])
            .args(["--audit", &place(&self.audit)])
            .args(["--ca-publish", &place("{dir}/public")])
            .args(["--ready-file", &place("{dir}/ready.json")])
            .args(self.flags.iter().map(|flag| place(flag)))
            .env_remove("SSLKEYLOGFILE")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(log);
        command
    }
}
