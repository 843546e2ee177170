//! What only shows from outside: this test binary starts itself as a helper and looks at it.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};

use rustix::process::{DumpableBehavior, Resource, dumpable_behavior, getrlimit};

use super::*;

const HELPER: &str = "VALETKEY_TEST_HELPER";
const SECRET: &str = "sk_live_canary_1234567890";

/// Does nothing in an ordinary run of the tests; started by the others, it plays the program.
#[test]
fn helper() {
    match std::env::var(HELPER).as_deref() {
        Ok("take") => {
            // The umask is the process's own here.
            let _ = harden();
            let values = take_environment(&["VK_CANARY".to_owned(), "VK_NONE".to_owned()]);
            match values {
                Ok(values) => println!("took {} {}", std::process::id(), values.len()),
                Err(error) => println!("failed {error}"),
            }
            let arrived = take_environment_is_empty() && std::io::stdin().read(&mut [0]).is_ok_and(|count| count == 0);
            println!("clean {arrived}");
            // Until the test has looked.
            std::thread::park_timeout(std::time::Duration::from_secs(60));
        }
        Ok("value") => {
            let values = take_environment(&["VK_CANARY".to_owned()]).unwrap();
            println!("value {}", values["VK_CANARY"].as_str() == SECRET);
        }
        Ok("harden") => {
            let problems = harden();
            let dumpable = dumpable_behavior().unwrap() != DumpableBehavior::NotDumpable;
            let core = getrlimit(Resource::Core).maximum;
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("file");
            std::fs::write(&path, "").unwrap();
            let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&path).unwrap()) & 0o777;
            println!(
                "hardened {dumpable} {core:?} {mode:o} {}",
                problems.iter().all(|it| it.contains("files can be open"))
            );
        }
        _ => {}
    }
}

fn take_environment_is_empty() -> bool {
    std::env::var_os("VK_CANARY").is_none()
}

struct Helper(Child, Box<dyn BufRead>);

impl Helper {
    fn start(role: &str, prepare: impl FnOnce(&mut Command)) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "--nocapture", "process::tests::helper"]).env(HELPER, role);
        command.env_remove("VK_CANARY").env_remove(REEXEC_VARIABLE).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        prepare(&mut command);
        let mut child = command.spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        Self(child, Box::new(BufReader::new(stdout)))
    }

    /// The rest of its first line that begins with `word`, wherever the test harness has put it.
    fn line(&mut self, word: &str) -> String {
        self.1
            .by_ref()
            .lines()
            .map(Result::unwrap)
            .find_map(|line| line.split_once(&format!("{word} ")).map(|(_, rest)| rest.to_owned()))
            .unwrap_or_else(|| panic!("the helper ended without a line `{word}`"))
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The environment that a process was started with; `None` when it is closed to us, which only root's never is.
fn environ(id: u32) -> Option<String> {
    match std::fs::read_to_string(format!("/proc/{id}/environ")) {
        Ok(text) => Some(text),
        Err(e) => {
            assert_eq!((e.kind(), rustix::process::geteuid().is_root()), (std::io::ErrorKind::PermissionDenied, false));
            None
        }
    }
}

#[test]
fn a_secret_leaves_the_environment() {
    let mut helper = Helper::start("take", |command| {
        command.env("VK_CANARY", SECRET).env("VK_OTHER", "stays");
    });
    let id = helper.0.id();
    assert_eq!(helper.line("took"), format!("{id} 1"), "the same process id, one value");
    assert_eq!(helper.line("clean"), "true");
    let name = std::fs::read_to_string(format!("/proc/{id}/comm")).unwrap();
    assert_ne!(name, "exe\n");
    let Some(environ) = environ(id) else { return };
    assert!(environ.contains("VK_OTHER=stays"), "it is the helper's environment");
    assert!(environ.contains(&format!("{REEXEC_VARIABLE}={id}")));
    assert!(!environ.contains("VK_CANARY") && !environ.contains(SECRET));
    let input = std::fs::read_link(format!("/proc/{id}/fd/0")).unwrap();
    assert_eq!(input.to_str(), Some("/dev/null"));
}

#[test]
fn a_secret_arrives_as_it_was() {
    let mut helper = Helper::start("value", |command| {
        command.env("VK_CANARY", SECRET);
    });
    assert_eq!(helper.line("value"), "true");
}

#[test]
fn without_secrets_nothing_is_started_over() {
    let mut helper = Helper::start("take", |_| {});
    let id = helper.0.id();
    assert_eq!(helper.line("took"), format!("{id} 0"));
    let Some(environ) = environ(id) else { return };
    assert!(!environ.contains(REEXEC_VARIABLE));
}

#[test]
fn an_inherited_marker_means_nothing() {
    let mut helper = Helper::start("take", |command| {
        command.env("VK_CANARY", SECRET).env(REEXEC_VARIABLE, "1");
    });
    assert_eq!(helper.line("took"), format!("{} 1", helper.0.id()));
}

#[test]
fn a_forged_marker_is_refused_and_nothing_waits_for_input() {
    // The shell gives the helper its own process id, and a pipe that nobody writes to.
    let exe = std::env::current_exe().unwrap();
    let script = "export VALETKEY_REEXEC=$$; exec \"$0\" --exact --nocapture process::tests::helper";
    let mut child = Command::new("/bin/sh")
        .args(["-c", script])
        .arg(exe)
        .env(HELPER, "take")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let input = child.stdin.take();
    let stdout = child.stdout.take().unwrap();
    let mut helper = Helper(child, Box::new(BufReader::new(stdout)));
    assert_eq!(helper.line("failed"), ProcessError::Forged.to_string());
    drop(input);
}

#[test]
fn a_hardened_process_is_closed() {
    let mut helper = Helper::start("harden", |_| {});
    assert_eq!(helper.line("hardened"), "false Some(0) 600 true");
}
