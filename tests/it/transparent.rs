//! The transparent listener: what a kernel redirects there, and what comes without that.
//!
//! Connections are redirected for real, in network namespaces. Where there can be none the tests say so and pass.

mod closed;
mod flags;
mod identified;
mod quick;
mod redirected;
mod rules;
mod tproxied;

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;

use crate::support::namespace::can_redirect;
use crate::support::wire::{WireAnswer, answers};
use crate::support::{Builder, FakeUpstream, Namespace, Stage, policies, skip};

/// The agent's uid, as in `deploy/redirect.nft`.
const AGENT: u32 = 1000;
/// Another agent's.
const OTHER: u32 = 1001;
/// The sidecar's.
const SIDECAR: u32 = 64_888;
/// Addresses that are nobody's, and that nothing here listens at.
const ELSEWHERE: [&str; 2] = ["198.51.100.7", "[2001:db8::7]"];

/// Long enough for whatever stays on one machine.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);

/// Agent and sidecar in one namespace, with the ruleset of `deploy/redirect.nft`; what is outside is another one.
struct Scene {
    stage: Stage,
    inner: Arc<Namespace>,
    outer: Namespace,
    trust: tempfile::TempDir,
}

/// What curl said.
#[derive(Debug)]
struct Curl {
    exit: Option<i32>,
    answer: Option<WireAnswer>,
    #[expect(dead_code, reason = "for whoever reads a failed assertion")]
    complaint: String,
}

impl Curl {
    fn status(&self) -> u16 {
        self.answer.as_ref().unwrap_or_else(|| panic!("no answer: {self:?}")).status
    }

    fn refusal(&self) -> Option<&str> {
        self.answer.as_ref().and_then(|answer| answer.header("valetkey-error"))
    }
}

/// [`policies::ONE_API`] for an agent that is known by its uid.
fn for_the_agent(policy: &str) -> String {
    policy.replace("identity = [\"any\"]", &format!("identity = [\"uid:{AGENT}\"]"))
}

/// `deploy/redirect.nft`, for these users.
fn ruleset(agents: &[u32]) -> String {
    let agents: Vec<String> = agents.iter().map(ToString::to_string).collect();
    let from = format!("define agents = {{ {AGENT} }}");
    let text = include_str!("../../deploy/redirect.nft");
    assert!(text.contains(&from));
    text.replace(&from, &format!("define agents = {{ {} }}", agents.join(", ")))
}

impl Scene {
    async fn new() -> Option<Self> {
        Self::of(&for_the_agent(policies::ONE_API), |builder, _| builder).await
    }

    /// With a policy of one's own, and more flags.
    async fn of(policy: &str, edit: impl FnOnce(Builder, &Namespace) -> Builder) -> Option<Self> {
        Self::over(policy, |listener| FakeUpstream::start_on(listener, &["api.test"]), edit).await
    }

    /// Over an upstream in clear text, at `api.test:80`.
    async fn in_clear_text() -> Option<Self> {
        let policy = for_the_agent(&policies::one_api_with("cleartext = true"))
            .replace("hosts = [\"api.test\"]", "hosts = [\"api.test\", \"api.test:80\"]")
            .replace("upstream_ca = \"{dir}/api.pem\"\n", "");
        let address = std::cell::OnceCell::new();
        let plain = |listener| {
            let upstream = FakeUpstream::plain_on(listener);
            address.set(upstream.address).expect("once");
            upstream
        };
        let at_port_80 = |builder: Builder, _: &_| {
            builder.flag("--connect-to").flag(&format!("api.test:80:{}", address.get().expect("an upstream")))
        };
        Self::over(&policy, plain, at_port_80).await
    }

    async fn over(
        policy: &str,
        upstream: impl FnOnce(tokio::net::TcpListener) -> FakeUpstream,
        edit: impl FnOnce(Builder, &Namespace) -> Builder,
    ) -> Option<Self> {
        if !can_redirect() {
            return None;
        }
        let (inner, outer) = Namespace::pair();
        if let Err(error) = inner.rules(&ruleset(&[AGENT, OTHER])) {
            skip(format!("this kernel does not take deploy/redirect.nft: {error}"));
            return None;
        }
        let inner = Arc::new(inner);
        let upstream = upstream(inner.listener("127.0.0.1:0"));
        let stage = Stage::of(policy, upstream, |builder| {
            let builder = builder.inside(&inner).user(SIDECAR);
            let builder = builder.flag("--transparent").flag("127.0.0.1:15001").flag("--transparent=[::1]:15001");
            edit(builder, &inner)
        })
        .await;
        let trust = trust(&[("ca.pem", &stage.sidecar.text("public/ca.pem"))]);
        Some(Self { stage, inner, outer, trust })
    }

    async fn nonce(&self) -> String {
        self.stage.reader_as(SIDECAR).await
    }

    /// curl as this user, without any variable; `{trust}` stands for the directory with `ca.pem`.
    async fn curl(&self, uid: u32, arguments: &[&str]) -> Curl {
        curl(&self.inner, uid, &self.trust, arguments).await
    }

    /// `GET https://api.test/echo` with a nonce, by way of this address.
    async fn get(&self, uid: u32, address: &str, nonce: &str) -> Curl {
        let (resolve, bearer) = (format!("api.test:443:{address}"), format!("Authorization: Bearer {nonce}"));
        self.curl(uid, &["--resolve", &resolve, "-H", &bearer, "https://api.test/echo"]).await
    }

    /// Waits for the record of a connection that was closed.
    async fn closed_as(&self, code: &str) -> serde_json::Value {
        self.stage.sidecar.audited(|record| record["type"] == "connection" && record["code"] == code).await
    }
}

/// A directory that every user can read, with these files.
fn trust(files: &[(&str, &str)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(directory.path(), mode).expect("a mode");
    for (name, text) in files {
        std::fs::write(directory.path().join(name), text).expect("a file");
    }
    directory
}

async fn curl(namespace: &Arc<Namespace>, uid: u32, trust: &tempfile::TempDir, arguments: &[&str]) -> Curl {
    let directory = trust.path().to_str().expect("a path").to_owned();
    let mut command = Command::new("curl");
    command.env_clear().args(["--silent", "--show-error", "--include", "--max-time", "20"]);
    command.args(["--http1.1", "--cacert", &format!("{directory}/ca.pem")]);
    command.args(arguments.iter().map(|argument| argument.replace("{trust}", &directory)));
    command.uid(uid).gid(uid).current_dir("/");
    let namespace = namespace.clone();
    let output = tokio::task::spawn_blocking(move || namespace.inside(0, || command.output())).await;
    let output = output.expect("a task").expect("curl");
    Curl {
        exit: output.status.code(),
        answer: answers(&output.stdout, true).pop(),
        complaint: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
