//! `valetkey run` from outside: what its command gets, what comes of it, and what is left when it is over.

mod attached;
mod ending;
mod mistakes;
mod telling;

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{Desk, Done};
use crate::support::{FakeUpstream, canary, policies};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// What presents the nonce in `KEY`, reads, and prints the answer's status.
const READS: &str = r#"curl -sS -o /dev/null -w '%{http_code}\n' -H "Authorization: Bearer $KEY" https://api.test/x"#;
/// The same, but writes.
const WRITES: &str =
    r#"curl -sS -o /dev/null -w '%{http_code}\n' -d a=b -H "Authorization: Bearer $KEY" https://api.test/y"#;
/// A nonce for reading.
const GRANT: [&str; 2] = ["--grant", "api:read=KEY"];

/// A desk with a policy, before one API at `api.test`.
struct Bench {
    desk: Desk,
    upstream: FakeUpstream,
    secret: String,
}

impl Bench {
    async fn new() -> Self {
        Self::of(policies::ONE_API).await
    }

    async fn of(policy: &str) -> Self {
        let bench = Self { desk: Desk::new(), upstream: FakeUpstream::start(&["api.test"]).await, secret: canary() };
        let directory = bench.desk.path("").to_str().expect("a path").trim_end_matches('/').to_owned();
        bench.desk.write("policy.toml", &policy.replace("{dir}", &directory));
        bench.desk.write("api.pem", &bench.upstream.authority.pem);
        std::fs::create_dir(bench.runtime()).expect("a directory");
        bench
    }

    /// Where the run makes its own directory.
    fn runtime(&self) -> PathBuf {
        self.desk.path("runtime")
    }

    /// `run` with these flags and this command.
    fn command(&self, flags: &[&str], line: &[&str]) -> Command {
        let connect_to = format!("api.test:443:{}", self.upstream.address);
        let known = ["run", "--audit", "audit.jsonl", "--connect-to", &connect_to];
        let mut command = self.desk.command(&[&known[..], flags, &["--"], line].concat());
        command.env("API_KEY", &self.secret).env("XDG_RUNTIME_DIR", self.runtime()).env("HOME", self.desk.path(""));
        command
    }

    /// Runs a script with a nonce for reading, and waits for its end.
    async fn sh(&self, flags: &[&str], script: &str) -> Done {
        self.done(self.command(&[&GRANT[..], flags].concat(), &["sh", "-c", script])).await
    }

    /// Waits for the end of a command, while the upstream serves.
    async fn done(&self, mut command: Command) -> Done {
        let output = tokio::task::spawn_blocking(move || command.output().expect("the binary starts"));
        let done = Done::of(&tokio::time::timeout(PATIENCE, output).await.expect("an end").expect("no panic"));
        self.assert_clean(&done);
        done
    }

    /// Neither the real key nor the run's directory is left anywhere.
    fn assert_clean(&self, done: &Done) {
        for text in [&done.out, &done.err] {
            crate::support::leak::assert_clean(&self.secret, text.as_bytes(), "what was printed");
        }
        assert!(!done.err.contains("an_"), "a nonce on standard error: {}", done.err);
        assert!(self.is_cleared(), "the run's directory is still there");
    }

    fn is_cleared(&self) -> bool {
        std::fs::read_dir(self.runtime()).expect("a directory").next().is_none()
    }
}

/// A run that goes on.
struct Going {
    child: Child,
}

impl Going {
    /// With every signal as a terminal's shell leaves it: what was started in the background of a script ignores some,
    /// and so would its children, to the last `sh`.
    fn new(command: &Command) -> Self {
        let mut going = Command::new("env");
        going.arg("--default-signal").arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => going.env(name, value),
                None => going.env_remove(name),
            };
        }
        going.current_dir(command.get_current_dir().expect("a directory")).stdin(Stdio::null());
        let child = going.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary starts");
        Self { child }
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status();
        assert!(status.expect("kill").success());
    }

    /// The processes that it started.
    fn children(&self) -> Vec<u32> {
        let path = format!("/proc/{0}/task/{0}/children", self.child.id());
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.split_whitespace().map(|pid| pid.parse().expect("a number")).collect()
    }

    async fn done(mut self) -> Done {
        let begun = Instant::now();
        while self.child.try_wait().expect("a child").is_none() {
            if begun.elapsed() > PATIENCE {
                // Else its command would go on, and hold the pipes open.
                self.children().into_iter().for_each(kill);
                self.child.kill().expect("it runs");
                panic!("it did not end");
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let output = tokio::task::spawn_blocking(move || self.child.wait_with_output().expect("an end"));
        Done::of(&tokio::time::timeout(PATIENCE, output).await.expect("an end").expect("no panic"))
    }
}

/// Ends a process of ours; one that is over already is no matter.
fn kill(pid: u32) {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw).expect("a process id");
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
}

/// Asks again and again until it is so.
async fn until(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn is_root() -> bool {
    rustix::process::getuid().is_root()
}

#[tokio::test]
async fn the_command_gets_a_nonce_and_the_api_gets_the_key() {
    let bench = Bench::new().await;
    let done = bench.sh(&[], &format!("printenv KEY; {READS}")).await.ends(0);
    let lines: Vec<&str> = done.out.lines().collect();
    assert!(lines[0].starts_with("an_") && lines[1] == "200", "{}", done.out);
    assert_eq!(bench.upstream.only().header("authorization"), Some(&*format!("Bearer {}", bench.secret)));
    assert!(!format!("{:?}", bench.upstream.seen()).contains(lines[0]), "the nonce reached the API");
    done.says("KEY opens api:read").says("not given to the command: API_KEY");
}

#[tokio::test]
async fn the_command_gets_no_real_key_and_no_identity() {
    let bench = Bench::new().await;
    let mut command = bench.command(&[&GRANT[..], &["--keep-env", "VAULT_TOKEN"]].concat(), &["printenv"]);
    let copy = format!("Bearer {}", bench.secret);
    command.env("COPY", &copy).env("AWS_SESSION_TOKEN", "identity").env("SSH_AUTH_SOCK", "/x").env("PLAIN", "stays");
    command
        .env("DOPPLER_TOKEN", "opens a vault")
        .env("SYSTEM_ACCESSTOKEN", "of a build")
        .env("ARM_ACCESS_KEY", "cloud");
    command.env("VAULT_TOKEN", "kept").env("VALETKEY_CONTROL", "/x").env("grpc_proxy", "http://around");
    let done = bench.done(command).await.ends(0);
    let has = |name: &str| done.out.lines().any(|line| line.split('=').next() == Some(name));
    for name in ["API_KEY", "COPY", "AWS_SESSION_TOKEN", "SSH_AUTH_SOCK", "VALETKEY_CONTROL", "grpc_proxy"] {
        assert!(!has(name), "{name} is in:\n{}", done.out);
    }
    for line in ["PLAIN=stays", "VAULT_TOKEN=kept", "AWS_EC2_METADATA_DISABLED=true"] {
        assert!(done.out.lines().any(|own| own == line), "{line} is not in:\n{}", done.out);
    }
    for name in ["HTTPS_PROXY", "SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS", "KEY"] {
        assert!(has(name), "{name} is not in:\n{}", done.out);
    }
    done.says("not given to the command: API_KEY, ARM_ACCESS_KEY, AWS_SESSION_TOKEN, COPY, DOPPLER_TOKEN, SSH_AUTH_SOCK, SYSTEM_ACCESSTOKEN\n");
}

#[tokio::test]
async fn keys_go_by_their_names_too() {
    let bench =
        Bench::of(&policies::ONE_API.replace("services.api", "services.stripe").replace("{ api =", "{ stripe =")).await;
    let mut command = bench.command(&["--grant", "stripe:read=KEY"], &["printenv"]);
    // Too short to be looked for in other variables; and a key of a service in the policy that the policy does not read.
    command.env("API_KEY", "short").env("STRIPE_SECRET_KEY", "another");
    let done = bench.done(command).await.ends(0);
    assert!(!done.out.contains("API_KEY=short") && !done.out.contains("STRIPE_SECRET_KEY"), "{}", done.out);
    done.says("not given to the command: API_KEY, STRIPE_SECRET_KEY\n");
}

#[tokio::test]
async fn grants_with_one_name_are_one_nonce_and_services_have_their_shapes() {
    let shaped = policies::one_api_with("placeholder = \"sk_test_{nonce}\"");
    let bench = Bench::of(&shaped).await;
    let flags = ["--grant", "api:read=A,B", "--grant", "api:write=B", "--grant", "api:read=C"];
    let done = bench.done(bench.command(&flags, &["sh", "-c", "echo $A; echo $B; echo $C"])).await.ends(0);
    let lines: Vec<&str> = done.out.lines().collect();
    assert!(lines[0].starts_with("sk_test_an_") && lines[0] == lines[1] && lines[2] != lines[0], "{lines:?}");
    done.says("A, B opens api:read,write\n").says("C opens api:read\n");
}

#[tokio::test]
async fn a_nonce_lives_as_long_as_the_command() {
    let bench = Bench::of(&policies::ONE_API.replace("version = 1", "version = 1\n[nonces]\nttl = \"2s\"")).await;
    let done = bench.sh(&[], &format!("sleep 4.5; {READS}")).await.ends(0);
    assert_eq!(done.out, "200\n", "{}", done.err);
    assert!(!done.err.contains("ends for good"), "{}", done.err);
}

#[tokio::test]
async fn the_end_of_a_nonces_life_is_announced() {
    let ceilings = "version = 1\n[nonces.ceilings]\nlow = { ttl = \"2s\", lifetime = \"3s\" }";
    let bench = Bench::of(&policies::ONE_API.replace("version = 1", ceilings)).await;
    let done = bench.sh(&[], &format!("sleep 4.5; {READS}")).await.ends(0);
    assert_eq!(done.out, "401\n");
    done.says("the nonce in KEY ends for good at");
}

/// What a user has the dynamic linker load into programs is loaded into the command, not into who has the real keys.
#[tokio::test]
async fn nothing_is_loaded_into_the_sidecar() {
    let bench = Bench::new().await;
    let mut command = bench.command(&GRANT, &["printenv", "LD_PRELOAD"]);
    // The linker complains on the standard error of each program that it starts.
    command.env("LD_PRELOAD", "/nowhere/to-load.so");
    let done = bench.done(command).await.ends(0);
    assert_eq!(done.out, "/nowhere/to-load.so\n");
    let sidecars = done.err.lines().filter(|line| line.contains("sidecar: ") && line.contains("to-load.so"));
    assert_eq!(sidecars.count(), 0, "{}", done.err);
}

/// The real key stays out of reach of a command that runs as the same user: our environment cannot be read.
#[tokio::test]
async fn the_environment_of_the_run_is_closed_to_its_command() {
    let bench = Bench::new().await;
    let mut command =
        bench.command(&GRANT, &["sh", "-c", "cat /proc/$PPID/environ; for p in $(cat /proc/$PPID/task/$PPID/children); do [ $p = $$ ] || cat /proc/$p/environ; done"]);
    if is_root() {
        // Root reads everything; so somebody else runs it.
        own(&bench.desk.path(""), 65_534);
        command.uid(65_534).gid(65_534);
    }
    let done = bench.done(command).await;
    assert_eq!(done.err.matches("ermission denied").count(), 2, "the run and its sidecar: {}", done.err);
}

/// Everything in a directory goes to a user.
fn own(path: &Path, uid: u32) {
    std::os::unix::fs::chown(path, Some(uid), Some(uid)).expect("root");
    if path.is_dir() {
        for entry in std::fs::read_dir(path).expect("a directory") {
            own(&entry.expect("an entry").path(), uid);
        }
    }
}
