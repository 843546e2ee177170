//! The process itself: closed to onlookers, free of secrets where others can look.

use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use crate::support::stranger::{STRANGER, acting, can_be_others};
use crate::support::{FakeUpstream, Stage, TestSidecar, canary, policies, skip};

#[tokio::test]
async fn secrets_are_in_no_environment_and_no_command_line() {
    let upstream = FakeUpstream::start(&["api.test"]).await;
    let stage = Stage::with(upstream, |builder| builder.environment("UNRELATED_VARIABLE", "stays")).await;
    let nonce = stage.reader().await;
    assert_eq!(stage.sidecar.agent().get("api.test", "/x", &nonce).await.status, 200, "it has the secret");
    let look = |file: &str| std::fs::read(format!("/proc/{}/{file}", stage.sidecar.pid())).unwrap_or_default();
    let environment = look("environ");
    stage.assert_clean(&environment, "/proc/PID/environ");
    let environment = String::from_utf8_lossy(&environment).into_owned();
    assert!(!environment.contains("API_KEY="), "{environment}");
    if rustix::process::geteuid().is_root() {
        assert!(environment.contains("UNRELATED_VARIABLE=stays"), "it was really read: {environment}");
    }
    stage.assert_clean(&look("cmdline"), "/proc/PID/cmdline");
    assert!(look("cmdline").windows(5).any(|word| word == b"serve"), "arguments stay");
    assert!(look("comm").starts_with(b"valetkey"), "it keeps its name after it started itself over");
}

#[tokio::test]
async fn children_do_not_get_them() {
    let secret = canary();
    let place = std::sync::Arc::new(tempfile::tempdir().expect("a directory"));
    let script = place.path().join("fetch");
    std::fs::write(&script, format!("#!/bin/sh\nenv > \"$0.env\"\necho {}\n", canary())).expect("a file");
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o700)).expect("our file");
    let policy = policies::TWO_APIS
        .replace("source = \"env\"\nname = \"OTHER_KEY\"", "source = \"exec\"\ncommand = [\"{dir}/fetch\"]");
    let other = FakeUpstream::start(&["other.test"]).await;
    let sidecar = TestSidecar::with_policy(&policy)
        .within(&place)
        .file("api.pem", &other.authority.pem)
        .upstream(&["other.test"], "other", &other)
        .environment("API_KEY", &secret)
        .flag("--allow-exec")
        .start()
        .await;
    let nonce = sidecar.orchestrator().mint("worker", "other", "read").await.nonce;
    assert_eq!(sidecar.agent().get("other.test", "/x", &nonce).await.status, 200);
    let environment = sidecar.text("fetch.env");
    assert!(!environment.contains(&secret) && !environment.contains("API_KEY"), "{environment}");
}

#[tokio::test]
async fn no_core_files_and_no_files_for_others() {
    let stage = Stage::new().await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", stage.sidecar.pid())).expect("a process");
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).expect("a limit");
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{core}");
    let mode = |name: &str| std::fs::metadata(stage.sidecar.path(name)).expect("a file").mode() & 0o7777;
    assert_eq!((mode("audit.jsonl"), mode("run"), mode("run/control.sock")), (0o600, 0o700, 0o600));
    assert_eq!((mode("public"), mode("public/ca.pem"), mode("public/ca-bundle.pem")), (0o755, 0o644, 0o644));
}

/// Reads a file of another process as its own user, once as it is and once as any process is.
#[tokio::test]
async fn a_process_of_the_same_user_cannot_look_into_it() {
    if !can_be_others() {
        return;
    }
    let upstream = FakeUpstream::start(&["api.test"]).await;
    let stage = Stage::with(upstream, |builder| builder.user(STRANGER)).await;
    let nonce = stage.reader_as(STRANGER).await;
    assert_eq!(stage.sidecar.agent().get("api.test", "/x", &nonce).await.status, 200, "it has the secret");
    let mut open = Command::new("sleep");
    let mut open = open.arg("60").uid(STRANGER).gid(STRANGER).stdin(Stdio::null()).spawn().expect("sleep");
    let (closed, any) = (stage.sidecar.pid(), open.id());
    let readable = acting(STRANGER, STRANGER, move || async move {
        let readable = |pid: u32, file: &str| {
            let opened = std::fs::File::open(format!("/proc/{pid}/{file}"));
            opened.is_ok_and(|mut file| file.read(&mut [0; 1]).is_ok() || file.metadata().is_ok())
        };
        ["environ", "mem", "maps"].map(|file| (readable(closed, file), readable(any, file)))
    })
    .await;
    let _ = open.kill();
    let _ = open.wait();
    assert_eq!(readable, [(false, true); 3], "closed in this process, and open in any other: environ, mem, maps");
}

/// What a tracer of this user says of a process; bounded, and without anything for it to write.
fn traced(pid: u32) -> String {
    let traced = Command::new("timeout")
        .args(["5", "strace", "-o", "/dev/null", "-p", &pid.to_string()])
        .uid(STRANGER)
        .gid(STRANGER)
        .stdin(Stdio::null())
        .output();
    traced.map_or_else(|error| error.to_string(), |output| String::from_utf8_lossy(&output.stderr).into_owned())
}

#[tokio::test]
async fn a_process_of_the_same_user_cannot_attach_to_it() {
    if !can_be_others() {
        return;
    }
    let upstream = FakeUpstream::start(&["api.test"]).await;
    let stage = Stage::with(upstream, |builder| builder.user(STRANGER)).await;
    let mut open = Command::new("sleep");
    let mut open = open.arg("1").uid(STRANGER).gid(STRANGER).stdin(Stdio::null()).spawn().expect("sleep");
    let any = traced(open.id());
    let _ = open.wait();
    if !any.contains(" attached") {
        return skip(format!("nobody can attach to anything here: {any}"));
    }
    let refused = traced(stage.sidecar.pid());
    assert!(refused.contains("Operation not permitted") && !refused.contains(" attached"), "{refused}");
    let nonce = stage.reader_as(STRANGER).await;
    assert_eq!(stage.sidecar.agent().get("api.test", "/x", &nonce).await.status, 200, "it was not held up");
}
