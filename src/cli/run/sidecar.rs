//! The run's own sidecar: this program once more, as `serve --supervised`, with its control API on a socket pair.
//!
//! The real keys reach it through its environment, out of which it takes them at once. It ends when the other end of
//! the socket pair closes, so it never outlives the run.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStderr, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::names;
use super::voice::Voice;
use crate::cli::{Failure, print};
use crate::control::client::Client;

/// How long it may take to be ready; a credential's command can take its time.
const READY_MAX: Duration = Duration::from_secs(120);
/// How long it may take to stop.
const STOP_MAX: Duration = Duration::from_secs(8);
/// How long it waits for exchanges under way when it stops.
const DRAIN: &str = "2s";
/// How long one that failed to start may take to end.
const FAILED_MAX: Duration = Duration::from_secs(5);
/// Lines of its log that are kept until it is ready.
const LINES_MAX: usize = 50;
/// A line of its log in bytes at most; the rest of it is left out.
const LINE_BYTES_MAX: usize = 4096;

/// What it is started with.
pub(super) struct Settings<'a> {
    pub(super) policy: &'a Path,
    pub(super) audit: &'a Path,
    pub(super) public: PathBuf,
    pub(super) log_level: &'a str,
    /// Flags that are handed on as they came.
    pub(super) flags: Vec<String>,
}

/// The running process; killed when dropped.
pub(super) struct Sidecar {
    child: Child,
    log: JoinHandle<()>,
}

impl Sidecar {
    /// Starts it and waits until it is ready.
    pub(super) async fn start(settings: &Settings<'_>, voice: Voice) -> Result<(Self, Client), Failure> {
        let unable = |error: std::io::Error| Failure::other(format!("the sidecar cannot be started: {error}"));
        let (ours, theirs) = UnixStream::pair().map_err(unable)?;
        // The command goes at the end of this statement, and with it our copy of the sidecar's end.
        let mut child = command(settings, theirs).map_err(unable)?.spawn().map_err(unable)?;
        let Some(stderr) = child.stderr.take() else { return Err(Failure::other("the sidecar has no log")) };
        let mut lines = Lines::new(stderr);
        let mut said = VecDeque::new();
        match timeout(READY_MAX, listening(ours, &mut lines, &mut said)).await {
            Ok(Some(client)) => {
                let log = tokio::spawn(async move {
                    for line in said {
                        voice.sidecar(&line);
                    }
                    while let Some(line) = lines.next().await {
                        voice.sidecar(&line);
                    }
                });
                Ok((Self { child, log }, client))
            }
            Ok(None) => Err(failed(child, lines, said).await),
            Err(_) => {
                Err(Failure::other(format!("the sidecar was not ready within {READY_MAX:?}:\n{}", joined(&said))))
            }
        }
    }

    /// Waits for an end that nobody asked for. Loses nothing when it is dropped.
    pub(super) async fn ended(&mut self) {
        // That it cannot be waited for means that it is over.
        let _ = self.child.wait().await;
    }

    /// True if it has ended.
    pub(super) fn is_over(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Stops it: it drains, and ends its audit in good order.
    pub(super) async fn stop(mut self) {
        let pid = self.child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // Until it is waited for, its id is not given to another process. One that is over needs no signal.
            let _ = kill_process(pid, Signal::TERM);
        }
        if timeout(STOP_MAX, self.child.wait()).await.is_err() {
            // It goes with `self`, and with it all nonces.
            let _ = self.child.start_kill();
        }
        // What it said last; its end of the pipe is closed.
        let _ = timeout(Duration::from_secs(1), &mut self.log).await;
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        self.log.abort();
    }
}

fn command(settings: &Settings<'_>, theirs: UnixStream) -> std::io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(["serve", "--supervised", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--ca-in-memory"])
        .args(["--log-format", "text", "--drain-timeout", DRAIN, "--log-level", settings.log_level])
        .arg("--policy")
        .arg(settings.policy)
        .arg("--audit")
        .arg(settings.audit)
        .arg("--ca-publish")
        .arg(&settings.public)
        .args(&settings.flags)
        .stdin(Stdio::null())
        .stdout(Stdio::from(OwnedFd::from(theirs)))
        .stderr(Stdio::piped())
        // Ctrl-C on the terminal is for the command; the sidecar serves it to its end.
        .process_group(0)
        .kill_on_drop(true);
    // The settings of another sidecar are not its own, and nothing is loaded into the process that has the real keys.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with(names::OWN) || names::is_loader(&text) {
            command.env_remove(&name);
        }
    }
    Ok(command)
}

/// Waits until it serves; `None` if it ended first. What it says meanwhile goes into `said`.
async fn listening(ours: UnixStream, lines: &mut Lines, said: &mut VecDeque<String>) -> Option<Client> {
    let asked = async {
        let client = Client::over(ours).await.ok()?;
        client.ready().await.ok()?;
        Some(client)
    };
    let mut asked = std::pin::pin!(asked);
    loop {
        tokio::select! {
            client = asked.as_mut() => return client,
            line = lines.next() => keep(said, line?),
        }
    }
}

/// Why it did not start, in its own words and with its own exit code.
async fn failed(mut child: Child, mut lines: Lines, mut said: VecDeque<String>) -> Failure {
    let rest = async {
        while let Some(line) = lines.next().await {
            keep(&mut said, line);
        }
        child.wait().await.ok().and_then(|status| status.code())
    };
    let code = timeout(FAILED_MAX, rest).await.ok().flatten().and_then(|code| u8::try_from(code).ok());
    let sentence = format!("the sidecar did not start:\n{}", joined(&said));
    Failure::with_code(code.filter(|code| *code != 0).unwrap_or(1), sentence)
}

fn keep(said: &mut VecDeque<String>, line: String) {
    if said.len() == LINES_MAX {
        said.pop_front();
    }
    said.push_back(line);
}

fn joined(said: &VecDeque<String>) -> String {
    said.iter().map(|line| format!("  {}", print::visible(line))).collect::<Vec<_>>().join("\n")
}

/// A log, line by line.
struct Lines {
    reader: BufReader<ChildStderr>,
    line: Vec<u8>,
}

impl Lines {
    fn new(stderr: ChildStderr) -> Self {
        Self { reader: BufReader::new(stderr), line: Vec::new() }
    }

    /// The next line; `None` at the end. Loses nothing when it is dropped while it waits.
    async fn next(&mut self) -> Option<String> {
        loop {
            let read = self.reader.fill_buf().await.ok()?;
            if read.is_empty() && self.line.is_empty() {
                return None;
            }
            let end = memchr::memchr(b'\n', read);
            let piece = &read[..end.unwrap_or(read.len())];
            let room = LINE_BYTES_MAX - self.line.len();
            self.line.extend_from_slice(&piece[..piece.len().min(room)]);
            let used = end.map_or(read.len(), |end| end + 1);
            let is_whole = end.is_some() || read.is_empty();
            self.reader.consume(used);
            if is_whole {
                return Some(String::from_utf8_lossy(&std::mem::take(&mut self.line)).into_owned());
            }
        }
    }
}
