//! Flags and files that look right and are not.

use std::process::{Command, Stdio};
use std::sync::Arc;

use crate::support::{Builder, FakeUpstream, canary, policies};

fn one_api() -> Builder {
    Builder::new(policies::ONE_API).file("api.pem", "").environment("API_KEY", &canary())
}

#[test]
fn limits_with_which_nothing_would_work_are_usage_errors() {
    let most = usize::MAX.to_string();
    for (flag, value) in [
        ("--connections-max", "0"),
        ("--connections-max", &most),
        ("--headers-max", "0"),
        ("--headers-max", &most),
        ("--head-bytes-max", "8191"),
        ("--head-bytes-max", &most),
        ("--target-bytes-max", "0"),
        ("--streams-max", "0"),
        ("--streams-max", "4294967295"),
        ("--pool-idle-max", &most),
    ] {
        let (code, said) = one_api().flag(flag).flag(value).fails();
        assert_eq!(code, Some(2), "{flag} {value}: {said}");
        assert!(said.contains(flag), "{said}");
    }
}

#[test]
fn a_misspelt_log_level_does_not_silence_the_log() {
    for level in ["inof", "loud", "info,verbose"] {
        let (code, said) = one_api().flag("--log-level").flag(level).fails();
        assert_eq!(code, Some(2), "{level}: {said}");
        assert!(said.contains("the log level is none of"), "{said}");
    }
}

#[tokio::test]
async fn a_ca_in_memory_is_asked_for_or_not_and_a_directory_in_the_environment_is_no_conflict() {
    let upstream = FakeUpstream::start(&["api.test"]).await;
    let with_upstream = || one_api().upstream(&["api.test"], "api", &upstream);
    let sidecar = with_upstream().environment("VALETKEY_CA_DIR", "{dir}/unused").start().await;
    assert!(!sidecar.path("unused").exists());
    let sidecar = with_upstream().ca_dir("{dir}/ca").environment("VALETKEY_CA_IN_MEMORY", "false").start().await;
    assert!(sidecar.path("ca/ca-cert.pem").exists());
}

#[tokio::test]
async fn the_ready_file_touches_nothing_beside_it_and_without_it_the_start_ends_in_order() {
    let upstream = FakeUpstream::start(&["api.test"]).await;
    let sidecar = one_api().upstream(&["api.test"], "api", &upstream).file("ready.tmp", "precious").start().await;
    assert_eq!(std::fs::read_to_string(sidecar.path("ready.tmp")).expect("a file"), "precious");
    let drafts = std::fs::read_dir(sidecar.directory.path()).expect("a directory");
    assert!(!drafts.flatten().any(|entry| entry.file_name().to_string_lossy().contains("draft")));

    let directory = Arc::new(tempfile::tempdir().expect("a directory"));
    std::fs::create_dir(directory.path().join("place")).expect("a directory");
    let builder = one_api().within(&directory).upstream(&["api.test"], "api", &upstream);
    let (code, said) = builder.set("--ready-file", "{dir}/place").fails();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("--ready-file"), "{said}");
    let audit = std::fs::read_to_string(directory.path().join("audit.jsonl")).expect("the audit");
    assert!(
        audit.lines().last().is_some_and(|line| line.contains("\"type\":\"stop\"")),
        "it stopped in order: {audit}"
    );
    assert!(!directory.path().join("run/control.sock").exists());
}

#[test]
fn a_policy_on_standard_input_is_not_confused_with_the_secrets_that_are_there_later() {
    let directory = tempfile::tempdir().expect("a directory");
    let (policy, secret) = (directory.path().join("policy.toml"), canary());
    std::fs::write(&policy, policies::ONE_API.replace("upstream_ca = \"{dir}/api.pem\"", "")).expect("a file");
    let output = Command::new(crate::support::binary())
        .args([
            "serve",
            "--policy",
            "/dev/stdin",
            "--ca-in-memory",
            "--listen",
            "127.0.0.1:0",
            "--admin",
            "127.0.0.1:0",
        ])
        .env("API_KEY", &secret)
        .current_dir(directory.path())
        .stdin(std::fs::File::open(&policy).expect("a file"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .output()
        .expect("the binary runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    // Without a way to open it again (another user than root) that is what is said.
    assert!(said.contains("the file has no name") || said.contains("may not be read"), "{said}");
    assert!(!said.contains(&secret));
}

#[test]
fn an_audit_that_nobody_reads_is_said_in_words() {
    let directory = Arc::new(tempfile::tempdir().expect("a directory"));
    let pipe = directory.path().join("pipe");
    let made = Command::new("mkfifo").arg(&pipe).status().expect("mkfifo runs");
    assert!(made.success());
    let policy = policies::ONE_API.replace("upstream_ca = \"{dir}/api.pem\"", "");
    let (code, said) = Builder::new(&policy).within(&directory).audit("{dir}/pipe").fails();
    assert_eq!(code, Some(6), "{said}");
    assert!(said.contains("nobody reads from") && said.contains("start its reader"), "{said}");
}
