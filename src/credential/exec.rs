//! `source = "exec"`: a command that prints the credential.
//!
//! - `answer`: what it may print
//! - `trust`: whether it may be run at all
//!
//! It runs in `/`, in a process group of its own, with the named variables and nothing else, without
//! input. What it prints on stderr is thrown away, since it may hold secrets; of a failure only the
//! exit code is told.

mod answer;
mod trust;

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, geteuid, kill_process_group};
use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};
use zeroize::Zeroizing;

pub use self::answer::AnswerError;
pub use self::trust::Distrust;
use super::source::{Loaded, Loading, Pace, Problem, SOURCE_BYTES_MAX, Source};
use super::{Form, key_pair};
use crate::clock::SharedClock;

/// How long a command may run where the policy does not say.
pub const EXEC_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a plain-text answer is good for where the policy does not say.
pub const EXEC_TTL: Duration = Duration::from_secs(5 * 60);
/// Longest pause after a command has failed.
pub const EXEC_PAUSE_MAX: Duration = Duration::from_secs(30);
/// How much longer than the command's own limit a caller waits, so that the command's end is what is told.
const EXEC_WAIT_MARGIN: Duration = Duration::from_secs(1);

/// A command that prints a credential.
pub(super) struct ExecSource {
    command: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, Zeroizing<Vec<u8>>)>,
    ttl: Duration,
    timeout: Duration,
    form: Form,
    clock: SharedClock,
}

/// What the policy says of a command.
pub(super) struct ExecSpec {
    pub(super) command: PathBuf,
    pub(super) arguments: Vec<String>,
    /// Names of variables; those that are not set are left out.
    pub(super) environment: Vec<String>,
    pub(super) ttl: Duration,
    pub(super) timeout: Duration,
    pub(super) form: Form,
}

impl ExecSource {
    /// Takes the named variables from `taken` (what was taken out of the process environment) or from the process environment.
    pub(super) fn new(spec: ExecSpec, taken: &HashMap<String, Zeroizing<String>>, clock: SharedClock) -> Self {
        let ExecSpec { command, arguments, environment, ttl, timeout, form } = spec;
        let value = |name: &String| match taken.get(name) {
            Some(value) => Some(value.as_bytes().to_vec()),
            None => std::env::var_os(name).map(OsStringExt::into_vec),
        };
        let environment =
            environment.into_iter().filter_map(|name| value(&name).map(|it| (name, Zeroizing::new(it)))).collect();
        Self { command, arguments, environment, ttl, timeout, form, clock }
    }

    async fn run(&self) -> Result<Loaded, Problem> {
        let started = self.clock.now();
        let path = self.command.clone();
        let judging = tokio::task::spawn_blocking(move || trust::resolve(&path, geteuid().as_raw()));
        let path = judging.await.map_err(|_| Problem::Interrupted)??;
        let mut running = self.start(path)?;
        let printed = running.printed().await?;
        running.end().await?;
        match self.form {
            Form::Text => answer::parse(printed, &started, self.ttl),
            Form::AwsKeyPair => {
                let loaded = key_pair::parse(&printed, &started)?;
                Ok(Loaded { expires_at: loaded.expires_at.or_else(|| Some(started.plus(self.ttl))), ..loaded })
            }
        }
    }

    fn start(&self, path: PathBuf) -> Result<Running, Problem> {
        let variables = self.environment.iter().map(|(name, value)| (name, OsStr::from_bytes(value)));
        Command::new(path)
            .arg0(&self.command)
            .args(&self.arguments)
            .env_clear()
            .envs(variables)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map(Running)
            .map_err(|e| Problem::Start(e.kind()))
    }
}

impl Source for ExecSource {
    fn load(&self) -> Loading<'_> {
        Box::pin(async {
            let run = tokio::time::timeout(self.timeout, self.run());
            run.await.unwrap_or(Err(Problem::TimedOut))
        })
    }

    fn pace(&self) -> Pace {
        let wait_max = self.timeout.saturating_add(EXEC_WAIT_MARGIN);
        Pace { check_every: None, pause_max: EXEC_PAUSE_MAX, wait_max }
    }
}

/// A command that runs; dropped before its end, it is killed with all that it started.
struct Running(Child);

impl Running {
    /// All that it prints. It is waited for only afterwards: until then its id can be nobody else's.
    async fn printed(&mut self) -> Result<Zeroizing<Vec<u8>>, Problem> {
        // Allocated once: a buffer that grows leaves copies behind that nobody wipes.
        let mut bytes = Zeroizing::new(vec![0; SOURCE_BYTES_MAX + 1]);
        let mut filled = 0;
        let mut stdout = self.0.stdout.take().ok_or(Problem::Interrupted)?;
        loop {
            match stdout.read(&mut bytes[filled..]).await {
                Ok(0) if filled > SOURCE_BYTES_MAX => return Err(Problem::Long),
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(e) => return Err(Problem::Io(e.kind())),
            }
        }
        bytes.truncate(filled);
        Ok(bytes)
    }

    async fn end(&mut self) -> Result<(), Problem> {
        let status: ExitStatus = self.0.wait().await.map_err(|e| Problem::Io(e.kind()))?;
        match (status.success(), status.code()) {
            (true, _) => Ok(()),
            (false, Some(code)) => Err(Problem::ExitCode(code)),
            (false, None) => Err(Problem::Killed),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // There is an id only until the command was waited for.
        let pid = self.0.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // It may have ended by itself meanwhile: then there is nothing to kill.
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    fn shell(script: &str) -> ExecSource {
        shell_with(script, &[], &HashMap::new(), EXEC_TIMEOUT)
    }

    fn shell_with(
        script: &str,
        environment: &[&str],
        taken: &HashMap<String, Zeroizing<String>>,
        timeout: Duration,
    ) -> ExecSource {
        let spec = ExecSpec {
            command: "/bin/sh".into(),
            arguments: vec!["-c".to_owned(), script.to_owned()],
            environment: environment.iter().map(|&name| name.to_owned()).collect(),
            ttl: EXEC_TTL,
            timeout,
            form: Form::Text,
        };
        ExecSource::new(spec, taken, ManualClock::new())
    }

    async fn bytes_count(source: &ExecSource) -> Result<usize, Problem> {
        source.load().await.map(|loaded| loaded.value.text().unwrap().bytes_count())
    }

    #[tokio::test]
    async fn what_it_prints_is_the_credential() {
        let loaded = shell("echo sk_live_1234567890").load().await.unwrap();
        assert_eq!(loaded.value.text().unwrap().bytes_count(), 18);
        assert!(loaded.expires_at.is_some());
    }

    #[tokio::test]
    async fn its_failure_is_told_by_its_code_alone() {
        assert_eq!(bytes_count(&shell("echo token; echo secret >&2; exit 3")).await, Err(Problem::ExitCode(3)));
        assert_eq!(bytes_count(&shell("echo token; kill -9 $$")).await, Err(Problem::Killed));
    }

    #[tokio::test]
    async fn it_sees_the_named_variables_alone_and_no_input() {
        let taken = HashMap::from([("VK_TOKEN".to_owned(), Zeroizing::new("0123456789".to_owned()))]);
        let script = "cat; [ -z \"$HOME$CARGO_MANIFEST_DIR\" ] && [ \"$(pwd)\" = / ] && echo \"$VK_TOKEN\"";
        let source = shell_with(script, &["VK_TOKEN", "VK_UNSET"], &taken, EXEC_TIMEOUT);
        assert_eq!(bytes_count(&source).await, Ok(10));
        let path = std::env::var("PATH").unwrap();
        let source = shell_with("echo \"$PATH\"", &["PATH"], &taken, EXEC_TIMEOUT);
        assert_eq!(bytes_count(&source).await, Ok(path.len()), "from the process environment");
    }

    #[tokio::test]
    async fn a_flood_is_refused() {
        let flood = shell("while :; do echo 0123456789012345678901234567890123456789; done");
        assert_eq!(bytes_count(&flood).await, Err(Problem::Long));
    }

    #[tokio::test]
    async fn one_that_hangs_is_ended() {
        let source = shell_with("exec sleep 600", &["PATH"], &HashMap::new(), Duration::from_millis(50));
        assert_eq!(bytes_count(&source).await, Err(Problem::TimedOut));
    }

    #[tokio::test]
    async fn all_that_it_started_ends_with_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("alive");
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        let script = format!("(echo up; exec sleep 60) >{} & wait", path.display());
        let running = shell_with(&script, &["PATH"], &HashMap::new(), EXEC_TIMEOUT).start("/bin/sh".into()).unwrap();
        let mut pipe = tokio::fs::File::open(&path).await.unwrap();
        assert_eq!(pipe.read_u8().await.unwrap(), b'u', "the grandchild is up and holds the pipe open");
        drop(running);
        let mut rest = String::new();
        // Only a grandchild that lives on makes this wait.
        let read = tokio::time::timeout(Duration::from_secs(20), pipe.read_to_string(&mut rest)).await;
        assert!(read.is_ok() && rest == "p\n");
    }

    #[tokio::test]
    async fn what_cannot_be_trusted_is_not_started() {
        let spec = ExecSpec {
            command: "bin/sh".into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            ttl: EXEC_TTL,
            timeout: EXEC_TIMEOUT,
            form: Form::Text,
        };
        let source = ExecSource::new(spec, &HashMap::new(), ManualClock::new());
        assert_eq!(bytes_count(&source).await, Err(Problem::Distrusted(Distrust::Relative)));
    }
}
