//! The command itself: started on this terminal, told the signals that come to us, and waited for.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;

use rustix::process::{Pid, Signal, getpgrp, kill_process};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::environment::Environment;
use crate::cli::{Failure, print};

/// Signals that may wait to be handed on.
const SIGNALS_MAX: usize = 16;
/// What a shell answers for a command that is not there, and for one that cannot be run.
const NOT_FOUND: u8 = 127;
const NOT_EXECUTABLE: u8 = 126;
/// What a shell adds to the number of the signal that ended a command.
const BY_SIGNAL: i32 = 128;

/// What is handed on.
const FORWARDED: [Signal; 7] =
    [Signal::HUP, Signal::INT, Signal::QUIT, Signal::TERM, Signal::USR1, Signal::USR2, Signal::WINCH];

/// The signals of this process, from [`Signals::listen`] on; none of them ends it by itself. Those that stop and
/// continue it (Ctrl-Z) do what they always do, to the command too: it is in the same process group.
pub(super) struct Signals {
    came: mpsc::Receiver<Signal>,
}

impl Signals {
    /// Takes them over, except what is ignored already (`nohup`): the command then ignores it too.
    pub(super) fn listen() -> Result<Self, Failure> {
        let (send, came) = mpsc::channel(SIGNALS_MAX);
        let ignored = ignored();
        for own in FORWARDED.into_iter().filter(|own| ignored & (1 << (own.as_raw() - 1)) == 0) {
            let mut stream = signal(SignalKind::from_raw(own.as_raw())).map_err(Failure::other)?;
            let send = send.clone();
            tokio::spawn(async move { while stream.recv().await.is_some() && send.send(own).await.is_ok() {} });
        }
        Ok(Self { came })
    }

    /// The next one. Loses nothing when it is dropped while it waits.
    async fn next(&mut self) -> Signal {
        match self.came.recv().await {
            Some(signal) => signal,
            // All of them are ignored.
            None => std::future::pending().await,
        }
    }

    /// Waits for one that asks for an end; the exit code for it.
    pub(super) async fn end(&mut self) -> u8 {
        loop {
            let signal = self.next().await;
            if [Signal::HUP, Signal::INT, Signal::QUIT, Signal::TERM].contains(&signal) {
                return by_signal(signal.as_raw());
            }
        }
    }
}

/// The signals that this process ignores, a bit each; none where that cannot be known.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

/// Starts the command with this environment, and our input, output and process group.
pub(super) fn start(line: &[OsString], environment: &Environment) -> Result<Child, Failure> {
    let Some((program, arguments)) = line.split_first() else {
        return Err(Failure::usage("there is no command: valetkey run --grant … -- COMMAND"));
    };
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(environment.variables());
    command.spawn().map_err(|error| {
        let code = if error.kind() == ErrorKind::NotFound { NOT_FOUND } else { NOT_EXECUTABLE };
        let why = reason(Path::new(program)).map_or_else(|| error.to_string(), str::to_owned);
        Failure::with_code(code, format!("{}: {why}", print::visible(&program.to_string_lossy())))
    })
}

/// Why a program could not be started, where more can be said than the system's own word for it.
fn reason(program: &Path) -> Option<&'static str> {
    let name = program.to_string_lossy();
    let is_path = name.contains('/');
    match () {
        () if name.is_empty() => Some("the command behind -- is empty"),
        () if is_path && program.is_dir() => Some("this is a directory"),
        () if is_path && program.exists() => None,
        () if name.contains(char::is_whitespace) => {
            Some("there is no such program; a line for a shell goes behind `sh -c`")
        }
        () if !is_path => Some("there is no such program in PATH"),
        () => None,
    }
}

/// Waits for its end, and hands on what comes meanwhile; its exit code as a shell would tell it.
pub(super) async fn attend(child: &mut Child, signals: &mut Signals) -> Result<u8, Failure> {
    loop {
        tokio::select! {
            status = child.wait() => return status.map(code).map_err(Failure::other),
            signal = signals.next() => forward(signal, child),
        }
    }
}

fn forward(signal: Signal, child: &Child) {
    let is_from_terminal = [Signal::INT, Signal::QUIT, Signal::WINCH].contains(&signal) && is_in_foreground();
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
    if let (Some(pid), false) = (pid, is_from_terminal) {
        // Until it is waited for, its id is not given to another process. One that is over needs no signal.
        let _ = kill_process(pid, signal);
    }
}

/// True if we are in the terminal's foreground process group: then so is the command, and it got the signal already.
/// A second one means "now!" to many programs.
fn is_in_foreground() -> bool {
    let terminal = std::fs::File::open("/dev/tty");
    terminal.is_ok_and(|terminal| rustix::termios::tcgetpgrp(&terminal).is_ok_and(|group| group == getpgrp()))
}

fn code(status: ExitStatus) -> u8 {
    let by_itself = status.code().and_then(|code| u8::try_from(code).ok());
    by_itself.unwrap_or_else(|| status.signal().map_or(1, by_signal))
}

fn by_signal(number: i32) -> u8 {
    u8::try_from(BY_SIGNAL + number).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_mistakes_are_called_by_their_names() {
        let says = |program: &str, word: &str| reason(Path::new(program)).is_some_and(|said| said.contains(word));
        assert!(
            says("", "empty") && says("/", "directory") && says("no-such-program", "PATH") && says("echo hi", "sh -c")
        );
        assert_eq!(reason(Path::new("./missing")), None, "the system says it");
    }

    #[test]
    fn codes_are_those_of_a_shell() {
        assert_eq!(code(ExitStatus::from_raw(0)), 0);
        assert_eq!(code(ExitStatus::from_raw(7 << 8)), 7);
        assert_eq!(code(ExitStatus::from_raw(255 << 8)), 255);
        assert_eq!(code(ExitStatus::from_raw(15)), 143);
        assert_eq!(code(ExitStatus::from_raw(9)), 137);
    }
}
