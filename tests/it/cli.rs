//! The command line from outside: what each command prints where, and with which code it ends.

mod clients;
mod files;
mod nonces;
mod policy_tools;
mod run;
mod running;
mod scanning;
mod usage;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// A directory in which commands are typed.
struct Desk {
    directory: tempfile::TempDir,
}

/// What a command did.
struct Done {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Desk {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().expect("a directory") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, content: &str) {
        std::fs::write(self.path(name), content).expect("a file");
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).expect("a file")
    }

    /// A command of ours, without this machine's settings.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(crate::support::binary());
        let own = std::env::vars_os().map(|(name, _)| name);
        for name in own.filter(|name| name.to_string_lossy().starts_with("VALETKEY_")) {
            command.env_remove(name);
        }
        command.args(arguments).current_dir(self.directory.path()).stdin(Stdio::null());
        command
    }

    /// Types a command and waits for its end.
    fn run(&self, arguments: &[&str]) -> Done {
        Done::of(&self.command(arguments).output().expect("the binary starts"))
    }

    /// Types a line in a shell that knows us as `$V`.
    fn sh(&self, script: &str) -> Done {
        let mut shell = Command::new("sh");
        shell.args(["-c", script]).env("V", crate::support::binary()).current_dir(self.directory.path());
        Done::of(&shell.stdin(Stdio::null()).output().expect("a shell"))
    }
}

impl Done {
    fn of(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
        let done = Self { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) };
        assert!(!done.err.contains("panicked"), "{}", done.err);
        assert!(!done.out.contains('\u{1b}') && !done.err.contains('\u{1b}'), "colours without a terminal");
        done
    }

    /// It ended with this code.
    #[track_caller]
    fn ends(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout:\n{}\nstderr:\n{}", self.out, self.err);
        self
    }

    /// Its standard error has this in it.
    #[track_caller]
    fn says(self, what: &str) -> Self {
        assert!(self.err.contains(what), "{what:?} is not in:\n{}", self.err);
        self
    }

    /// Its standard output has this in it.
    #[track_caller]
    fn shows(self, what: &str) -> Self {
        assert!(self.out.contains(what), "{what:?} is not in:\n{}", self.out);
        self
    }

    /// Its standard output is one JSON document.
    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}:\n{}", self.out))
    }
}

/// The policy at the root of the repository.
fn root_policy() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("policy.toml").to_str().expect("a path").to_owned()
}
