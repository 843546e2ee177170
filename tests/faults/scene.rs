//! One sidecar before one upstream, and what must hold of them at the end.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;

use crate::client::{Ask, Exchange, Outcome, exchange};
use crate::kinds::Case;
use crate::support::{Builder, TestSidecar, binary, canary, leak, policies};
use crate::upstream::{Fault, Upstream};

/// Files into which a case itself writes the credential.
const ITS_OWN: [&str; 2] = ["key", "fetch"];
/// Short where upstream stands still, and long where nothing should take its time.
const UPSTREAMS_LIMITS: [&str; 3] = ["--connect-timeout", "--upstream-head-timeout", "--idle-timeout"];
/// Long: agents here do what they do at once, as far as the machine lets them.
const AGENTS_LIMITS: [&str; 3] = ["--handshake-timeout", "--head-timeout", "--drain-timeout"];
const SHORT: &str = "1s";
const LONG: &str = "60s";

/// What a request may come to.
#[derive(Debug, Clone, Copy)]
pub enum Expect {
    /// Refused, with one of these codes.
    Refused(&'static [&'static str]),
    /// A cut answer; a refusal is as good.
    Cut,
    /// A whole answer with this body.
    Whole(&'static str),
    /// The whole answer with this body, or nothing that looks whole.
    WholeOrNot(&'static str),
}

/// A sidecar and its upstream.
pub struct Scene {
    pub case: Case,
    pub secret: String,
    pub upstream: Upstream,
    pub sidecar: TestSidecar,
    pub reader: String,
    pub writer: String,
    /// Everything that agents got.
    got: Mutex<Vec<u8>>,
}

impl Scene {
    /// With the usual policy.
    pub async fn new(case: Case, fault: Fault) -> Self {
        Self::with(case, fault, policies::ONE_API, |builder, _| builder).await
    }

    /// With a policy and more flags; `edit` is told the credential.
    pub async fn with(case: Case, fault: Fault, policy: &str, edit: impl FnOnce(Builder, &str) -> Builder) -> Self {
        let secret = canary();
        let time = if fault.holds() { SHORT } else { LONG };
        let upstream = Upstream::start(fault).await;
        let connect_to = format!("api.test:443:{}", upstream.address);
        let mut builder = TestSidecar::with_policy(policy)
            .file("api.pem", &upstream.authority.pem)
            .environment("API_KEY", &secret)
            .flag("--connect-to")
            .flag(&connect_to);
        for (limits, time) in [(UPSTREAMS_LIMITS, time), (AGENTS_LIMITS, LONG)] {
            for limit in limits {
                builder = builder.flag(limit).flag(time);
            }
        }
        builder = builder.flag("--log-level").flag("debug");
        let sidecar = edit(builder, &secret).start().await;
        let orchestrator = sidecar.orchestrator();
        let reader = orchestrator.mint("worker", "api", "read").await.nonce;
        let writer = orchestrator.mint("worker", "api", "write").await.nonce;
        let audit = sidecar.path("audit.jsonl");
        if audit.is_file() {
            upstream.recorder.audit.set(audit).expect("once");
        }
        Self { case, secret, upstream, sidecar, reader, writer, got: Mutex::default() }
    }

    /// What to ask for: something that may be repeated, or not, with a body, or not.
    pub fn request(&self, method: &'static str, path: &str, body: impl Into<Bytes>) -> Ask {
        let nonce = if method == "GET" { &self.reader } else { &self.writer };
        Ask { method, path: path.to_owned(), nonce: nonce.clone(), body: body.into() }
    }

    /// Sends a request after all others.
    pub async fn ask(&self, ask: &Ask) -> Outcome {
        self.upstream.recorder.asked.fetch_add(1, Ordering::SeqCst);
        self.exchange(ask).await
    }

    /// Sends a request, perhaps among others.
    pub async fn exchange(&self, ask: &Ask) -> Outcome {
        let Exchange { outcome, bytes } = exchange(&self.sidecar.agent(), self.case.protocol, ask).await;
        self.got.lock().expect("not poisoned").extend_from_slice(&bytes);
        outcome
    }

    /// One request of each sort, and what each must come to. None is sent twice but what may be.
    pub async fn expect(&self, expected: Expect, may_repeat: bool, body: &Bytes) {
        for (number, (method, body)) in
            [("GET", Bytes::new()), ("POST", Bytes::new()), ("POST", body.clone())].into_iter().enumerate()
        {
            let has_body = !body.is_empty();
            let ask = self.request(method, &format!("/fault/{number}"), body);
            let outcome = self.ask(&ask).await;
            let what = format!("{method} {}", if has_body { "with a body" } else { "without a body" });
            check(&outcome, expected, &what);
            // Once more is right only where upstream said that it did nothing.
            let most = if may_repeat && !has_body { 2 } else { 1 };
            self.upstream.recorder.assert_sent(number as u64 + 1, most, &what);
        }
    }

    /// A request that must work.
    pub async fn works(&self, path: &str) {
        let outcome = self.ask(&self.request("GET", path, "")).await;
        assert_eq!(outcome, Outcome::Whole(200, b"ok".to_vec()), "it does not work (again)\n{}", self.sidecar.log());
    }

    /// The same, with a little patience for what recovers in the background.
    pub async fn works_again(&self) {
        for attempt in 0..50 {
            let outcome = self.ask(&self.request("GET", &format!("/again/{attempt}"), "")).await;
            if matches!(outcome, Outcome::Whole(200, _)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("it does not work again\n{}", self.sidecar.log());
    }

    /// Everything that must hold at the end, while it runs.
    pub async fn finish(self) {
        let ready = self.sidecar.admin_get("/livez").await;
        assert_eq!(ready.status, 200, "it is not alive: {}", ready.text());
        let metrics = self.sidecar.admin_get("/metrics").await.text();
        self.clean(metrics.as_bytes(), "the metrics");
        for path in ["/v1/nonces", "/v1/services", "/v1/ready"] {
            let (_, answer) = self.sidecar.orchestrator().call("GET", path, None).await;
            self.clean(answer.to_string().as_bytes(), path);
        }
        assert!(!self.sidecar.log().contains("panicked"), "it panicked: {}", self.sidecar.log());
        self.after();
    }

    /// Everything that must hold at the end, alive or not.
    pub fn after(&self) {
        self.clean(&self.got.lock().expect("not poisoned"), "what agents got");
        for path in files(self.sidecar.directory.path()) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if ITS_OWN.contains(&name.as_str()) {
                continue;
            }
            let bytes = std::fs::read(&path).unwrap_or_default();
            self.clean(&bytes, &name);
            let has_nonce = [&self.reader, &self.writer].iter().any(|nonce| holds(&bytes, nonce));
            assert!(!has_nonce, "a nonce is in {name}");
        }
        self.upstream.recorder.assert_recorded();
        for send in self.upstream.recorder.sends() {
            let head = send.head.unwrap_or_default();
            assert!(!head.contains("an_"), "a nonce went upstream: {head}");
        }
        self.verified();
    }

    fn clean(&self, bytes: &[u8], what: &str) {
        leak::assert_clean(&self.secret, bytes, what);
    }

    fn verified(&self) {
        let audit = self.sidecar.path("audit.jsonl");
        if audit.is_file() {
            verify(&audit);
        }
    }
}

/// `valetkey audit verify` passes; it names a torn tail, and passes, where a process died in the middle of a line.
pub fn verify(audit: &Path) {
    let output = Command::new(binary()).args(["audit", "verify", "--json"]).arg(audit).output().expect("it runs");
    let said: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    assert!(output.status.success() && said["ok"] == true, "the audit does not verify: {said:#}");
}

fn holds(bytes: &[u8], text: &str) -> bool {
    memchr::memmem::find(bytes, text.as_bytes()).is_some()
}

/// Regular files below a directory.
fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(files(&entry.path())),
            Ok(kind) if kind.is_file() => found.push(entry.path()),
            _ => {}
        }
    }
    found
}

/// Fails if this did not come to what it must.
pub fn check(outcome: &Outcome, expected: Expect, what: &str) {
    let is_right = match (expected, outcome) {
        (Expect::Refused(codes), Outcome::Refused(_, code)) => codes.contains(&code.as_str()),
        (Expect::Whole(body) | Expect::WholeOrNot(body), Outcome::Whole(_, got)) => got == body.as_bytes(),
        (Expect::Cut | Expect::WholeOrNot(_), Outcome::Refused(..) | Outcome::Cut(_) | Outcome::Nothing) => true,
        (Expect::Refused(_) | Expect::Cut | Expect::Whole(_), _) => false,
    };
    assert!(is_right, "{what} came to {outcome:?}, and was to come to {expected:?}");
}
