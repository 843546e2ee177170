//! `deploy/pod.yaml`, played through by processes with the flags, users, groups and variables that it names.
//!
//! Needs root, to become those users. Mounts are not played: every process here sees every volume, so what keeps them
//! out is less than in a pod.

use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{FakeUpstream, canary, skip};

const MANIFEST: &str = include_str!("../../deploy/pod.yaml");
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn each_user_can_do_its_own_part_and_no_other() {
    let Some(mut pod) = Pod::start().await else { return };
    let (orchestrator, agent) = (User::of("orchestrator"), User::of("agent"));
    let nonce = pod.mint(orchestrator);

    assert_eq!(pod.call(agent, &nonce), "ok");
    let received = pod.upstream.only();
    assert_eq!(received.header("authorization"), Some(format!("Bearer {}", pod.secret).as_str()));

    let neighbour = User { uid: agent.uid + 1, gid: agent.gid + 1 };
    assert_eq!(pod.call(neighbour, &nonce)["code"], "agent_mismatch");
    assert_eq!(pod.upstream.seen().len(), 1, "nothing more arrived");

    pod.assert_closed_to(agent);
    pod.assert_closed_to(neighbour);
    pod.assert_files_closed_to(orchestrator);
    // Its files are its own; its memory is not even for a process with the same uid.
    pod.assert_closed(User::of("valetkey"), &pod.memory());
    assert_eq!(pod.stop(), Some(0));
    let said = pod.everything_said();
    assert!(said.contains("\"agent_mismatch\"") && said.contains("\"presented_by.identity\":\"uid:1000\""), "{said}");
    assert!(!said.contains(&pod.secret) && !said.contains(&nonce));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_container_keeps_the_agents_trust_and_ends_its_nonces() {
    let Some(mut pod) = Pod::start().await else { return };
    let (orchestrator, agent) = (User::of("orchestrator"), User::of("agent"));
    let before = pod.mint(orchestrator);
    let trusted = pod.read("run/valetkey/public/ca.pem");
    pod.kill();
    pod.run_sidecar();
    assert_eq!(pod.read("run/valetkey/public/ca.pem"), trusted);
    assert_eq!(pod.call(agent, &before)["code"], "nonce_unknown");
    let after = pod.mint(orchestrator);
    assert_eq!(pod.call(agent, &after), "ok");
}

/// A user of the pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct User {
    uid: u32,
    gid: u32,
}

impl User {
    fn of(container: &str) -> Self {
        let number = |name| values(container, name)[0].parse().expect("a number");
        Self { uid: number("runAsUser: "), gid: number("runAsGroup: ") }
    }

    /// A program of this user, without any other group, with nothing in its environment.
    fn command(self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        command.uid(self.uid).gid(self.gid).current_dir("/").env_clear().env("PATH", "/usr/bin:/bin");
        command.stdin(Stdio::null());
        command
    }
}

/// The lines of one container, without their indentation.
fn lines(container: &str) -> impl Iterator<Item = &'static str> {
    let heading = format!("    - name: {container}");
    let rest = MANIFEST.lines().skip_while(move |line| *line != heading).skip(1);
    rest.take_while(|line| line.starts_with("      ")).map(str::trim)
}

/// What follows `prefix` in the lines of one container.
fn values(container: &str, prefix: &str) -> Vec<&'static str> {
    let found: Vec<_> = lines(container).filter_map(|line| line.strip_prefix(prefix)).collect();
    assert!(!found.is_empty(), "{container} has no {prefix}");
    found
}

/// The policy in the ConfigMap.
fn policy() -> String {
    let rest = MANIFEST.lines().skip_while(|line| *line != "  policy.toml: |").skip(1);
    rest.take_while(|line| line.is_empty() || line.starts_with("    "))
        .map(|line| format!("{}\n", line.trim()))
        .collect()
}

/// The volumes in a directory, the sidecar, and what lies behind it.
struct Pod {
    directory: tempfile::TempDir,
    upstream: FakeUpstream,
    secret: String,
    sidecar: Option<Child>,
    proxy: String,
}

impl Pod {
    /// `None` where we cannot become other users; that is said.
    async fn start() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            skip("only root can play users other than itself");
            return None;
        }
        let upstream = FakeUpstream::start(&["api.stripe.com"]).await;
        let directory = tempfile::tempdir().expect("a directory");
        let mut pod = Self { directory, upstream, secret: canary(), sidecar: None, proxy: String::new() };
        pod.make_volumes();
        pod.run_sidecar();
        Some(pod)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).expect("a file")
    }

    /// Volumes as kubelet makes them: an emptyDir can be written by everybody. In place of the mount, the Secret's
    /// directory is closed.
    fn make_volumes(&self) {
        let mode = |name: &str, mode| {
            std::fs::set_permissions(self.path(name), PermissionsExt::from_mode(mode)).expect("a mode");
        };
        mode("", 0o755);
        for (name, bits) in [
            ("etc/valetkey", 0o755),
            ("run/secrets/valetkey", 0o755),
            ("run/valetkey/public", 0o777),
            ("run/valetkey/control", 0o777),
            ("var/lib/valetkey", 0o777),
            ("ready", 0o777),
        ] {
            std::fs::create_dir_all(self.path(name)).expect("a directory");
            mode(name, bits);
        }
        let write = |name: &str, text: &str| std::fs::write(self.path(name), text).expect("a file");
        let placed = policy().replace("\"/run/", &format!("\"{}/run/", self.directory.path().display()));
        write("etc/valetkey/policy.toml", &placed);
        write("run/secrets/valetkey/stripe", &format!("{}\n", self.secret));
        write("roots.pem", &self.upstream.authority.pem);
        chown(self.path("run/secrets/valetkey"), Some(User::of("valetkey").uid), None).expect("an owner");
        mode("run/secrets/valetkey", 0o500);
        for file in ["etc/valetkey/policy.toml", "run/secrets/valetkey/stripe", "roots.pem"] {
            mode(file, 0o444);
        }
        // The build directory may be closed to other users.
        // By another program: a child of another test's could inherit the file while it is written, and what is open for
        // writing cannot be run.
        let copied = Command::new("cp").arg(crate::support::binary()).arg(self.path("valetkey")).status();
        assert!(copied.expect("cp").success());
        mode("valetkey", 0o755);
    }

    fn run_sidecar(&mut self) {
        let root = self.directory.path().display();
        let place = |argument: &str| {
            let placed = argument.replace("=/", &format!("={root}/"));
            // Ports that are free on this machine.
            placed.replace("127.0.0.1:8080", "127.0.0.1:0").replace("0.0.0.0:9090", "0.0.0.0:0")
        };
        let ready = self.path("ready/ready.json");
        let _ = std::fs::remove_file(&ready);
        let log = |name: &str| {
            let file = std::fs::OpenOptions::new().create(true).append(true).open(self.path(name));
            file.expect("a file")
        };
        let child = User::of("valetkey")
            .command(self.path("valetkey"))
            .arg("serve")
            .args(values("valetkey", "- --").iter().map(|flag| place(&format!("--{flag}"))))
            .args(["--ready-file", ready.to_str().expect("a path")])
            .args(["--connect-to", &format!("api.stripe.com:443:{}", self.upstream.address)])
            .env("SSL_CERT_FILE", self.path("roots.pem"))
            .stdout(log("audit.jsonl"))
            .stderr(log("stderr.log"))
            .spawn()
            .expect("the sidecar starts");
        self.sidecar = Some(child);
        let addresses = self.wait_for(&ready);
        self.proxy = addresses["proxy"].as_str().expect("an address").to_owned();
    }

    fn wait_for(&mut self, ready: &Path) -> Value {
        let begun = Instant::now();
        loop {
            if let Some(value) = std::fs::read(ready).ok().and_then(|text| serde_json::from_slice(&text).ok()) {
                return value;
            }
            let ended = self.sidecar.as_mut().and_then(|child| child.try_wait().expect("a child"));
            assert!(ended.is_none(), "it ended with {ended:?}:\n{}", self.read("stderr.log"));
            assert!(begun.elapsed() < PATIENCE, "it was not ready in time:\n{}", self.read("stderr.log"));
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn sidecar_id(&self) -> u32 {
        self.sidecar.as_ref().expect("a sidecar").id()
    }

    /// A call of the control API by curl, as a user.
    fn control(&self, user: User, arguments: &[&str]) -> Output {
        let mut command = user.command("curl");
        command.args(["--silent", "--show-error", "--max-time", "20", "--unix-socket"]);
        command.arg(self.path("run/valetkey/control/private/control.sock")).args(arguments);
        command.output().expect("curl")
    }

    fn mint(&self, user: User) -> String {
        let body = r#"{"agent":"billing","task":"refund-4711","service":"stripe","scope":"read:customers"}"#;
        let output = self.control(user, &["--json", body, "http://localhost/v1/nonces"]);
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
        answer["nonce"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
    }

    /// Stripe, by curl, with the variables of the agent's container, as a user.
    fn call(&self, user: User, nonce: &str) -> Value {
        let root = self.directory.path().display();
        let names = values("agent", "- name: ").into_iter().take_while(|name| *name != "ca-public");
        let mut command = user.command("curl");
        for (name, value) in names.zip(values("agent", "value: ")) {
            let value = value.trim_matches('"').replace("127.0.0.1:8080", &self.proxy);
            command.env(name, value.replace("/run/valetkey", &format!("{root}/run/valetkey")));
        }
        command.args([
            "--silent",
            "--show-error",
            "--max-time",
            "20",
            "https://api.stripe.com/v1/customers",
            "--header",
        ]);
        let output = command.arg(format!("Authorization: Bearer {nonce}")).output().expect("curl");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && !said.contains(&self.secret), "{output:?}");
        // A refusal is JSON; what comes from the upstream is not.
        serde_json::from_str(&said).unwrap_or_else(|_| said.into())
    }

    /// Nothing of the sidecar's, by no way.
    fn assert_closed_to(&self, user: User) {
        self.assert_files_closed_to(user);
        let output = self.control(user, &["http://localhost/v1/whoami"]);
        assert_eq!(output.status.code(), Some(7), "the socket let {user:?} in: {output:?}");
    }

    fn assert_files_closed_to(&self, user: User) {
        let files = ["run/secrets/valetkey/stripe", "var/lib/valetkey/ca/ca-key.pem"].map(|name| self.path(name));
        self.assert_closed(user, &files);
        self.assert_closed(user, &self.memory());
    }

    fn memory(&self) -> [PathBuf; 3] {
        let process = PathBuf::from(format!("/proc/{}", self.sidecar_id()));
        ["environ", "mem", "maps"].map(|name| process.join(name))
    }

    fn assert_closed(&self, user: User, paths: &[PathBuf]) {
        for path in paths {
            assert!(std::fs::File::open(path).is_ok(), "{} is there, for root", path.display());
            // `mem` cannot be read from its beginning by anybody; opening it is what is refused.
            let output = user.command("sh").args(["-c", ": < \"$0\""]).arg(path).output().expect("sh");
            assert!(!output.status.success(), "{user:?} opened {}", path.display());
            let said = String::from_utf8_lossy(&output.stderr).to_lowercase();
            assert!(said.contains("permission denied"), "{user:?} {}: {said}", path.display());
        }
    }

    fn everything_said(&self) -> String {
        self.read("audit.jsonl") + &self.read("stderr.log")
    }

    /// SIGTERM; the exit code.
    fn stop(&mut self) -> Option<i32> {
        let asked = Command::new("kill").arg(self.sidecar_id().to_string()).status().expect("kill");
        assert!(asked.success());
        let begun = Instant::now();
        loop {
            if let Some(status) = self.sidecar.as_mut().expect("a sidecar").try_wait().expect("a child") {
                return status.code();
            }
            assert!(begun.elapsed() < PATIENCE, "it did not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// SIGKILL, as when a container runs out of memory.
    fn kill(&mut self) {
        if let Some(mut sidecar) = self.sidecar.take() {
            let _ = sidecar.kill();
            let _ = sidecar.wait();
        }
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        self.kill();
    }
}
