//! The built binary as a process of its own.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

pub use super::builder::Builder;
use super::watch::{Watch, metrics};
use super::wire::{WireAnswer, answers, read_answers};
use super::{Agent, Orchestrator};

/// A running sidecar with its own directory. When dropped it is killed, and everything that anybody got to see of it is
/// searched for the credentials of the test.
pub struct TestSidecar {
    pub proxy: SocketAddr,
    pub admin: SocketAddr,
    pub directory: Arc<tempfile::TempDir>,
    pub(super) child: Child,
    pub(super) watch: Watch,
    /// Whether it is in the network of the tests.
    pub(super) is_near: bool,
}

impl TestSidecar {
    /// Starts with a policy; `{dir}` in it stands for the sidecar's directory.
    pub fn with_policy(policy: &str) -> Builder {
        Builder::new(policy)
    }

    /// A file in the sidecar's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A text file in the sidecar's directory.
    pub fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    pub fn control(&self) -> PathBuf {
        self.path("run/control.sock")
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// An agent that trusts the sidecar's CA.
    pub fn agent(&self) -> Agent {
        Agent::new(self.proxy, &self.text("public/ca.pem")).heard_by(&self.watch.heard)
    }

    /// An orchestrator on the control socket.
    pub fn orchestrator(&self) -> Orchestrator {
        Orchestrator::new(self.control()).heard_by(&self.watch.heard)
    }

    /// `GET` from the admin listener.
    pub async fn admin_get(&self, path: &str) -> WireAnswer {
        let mut stream = TcpStream::connect(self.admin).await.expect("the admin listener");
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("writable");
        let text = read_answers(&mut stream, 1, Duration::from_secs(10)).await;
        self.watch.heard.hear(text.as_bytes());
        answers(text.as_bytes(), true).pop().expect("an answer")
    }

    /// The audit's records.
    pub fn audit(&self) -> Vec<serde_json::Value> {
        records(&self.audit_text())
    }

    /// The audit as text, for looking for what must not be there.
    pub fn audit_text(&self) -> String {
        self.text("audit.jsonl")
    }

    /// What it said on standard error.
    pub fn log(&self) -> String {
        self.text("stderr.log")
    }

    /// Waits until the audit holds a record that `found` recognises.
    pub async fn audited(&self, found: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
        let record = || self.audit().into_iter().find(|record| found(record));
        eventually("such a record", record).await
    }

    /// A field of `/proc/PID/status`, in its own unit.
    pub fn status(&self, field: &str) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("a process");
        let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).expect("a field");
        line.split_whitespace().next().and_then(|number| number.parse().ok()).expect("a number")
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
        let is_running = matches!(self.child.try_wait(), Ok(None));
        let metrics = if is_running && self.is_near { metrics(self.admin) } else { Vec::new() };
        let _ = self.child.kill();
        let _ = self.child.wait();
        // A test that has failed has said why.
        if !std::thread::panicking() {
            self.watch.sweep(self.directory.path(), &metrics);
        }
    }
}

/// The records in an audit's text; an unfinished line at its end is left out.
pub fn records(text: &str) -> Vec<serde_json::Value> {
    let lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    lines.map(|line| serde_json::from_str(line).expect("a record")).collect()
}

/// Asks again and again until there is something.
pub async fn eventually<T>(what: &str, look: impl Fn() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
