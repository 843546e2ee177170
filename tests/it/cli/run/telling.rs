//! Refusals on standard error as they happen.

use std::fs::File;
use std::io::Read as _;
use std::process::Stdio;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::attached::attached;
use super::{Bench, GRANT, PATIENCE, READS, WRITES};
use crate::cli::Desk;
use crate::support::{Stage, policies};

#[tokio::test]
async fn a_refusal_is_told_with_what_would_have_been_allowed() {
    let bench = Bench::new().await;
    let other = "curl -s -o /dev/null https://other.test/ || true";
    let done = bench.sh(&[], &format!("{READS}; {WRITES}; {WRITES}; {other}")).await.ends(0);
    assert_eq!(done.out, "200\n403\n403\n");
    let done = done.says("valetkey: refused POST api.test/y: out_of_scope: allowed GET /{*path}\n");
    assert_eq!(done.err.matches("refused POST").count(), 1, "the same one is counted: {}", done.err);
    done.says("2 times: POST api.test/y")
        .says("refused GET other.test/: host_not_listed")
        .says("1 allowed, 3 refused; the audit is audit.jsonl");
    assert_eq!(bench.upstream.seen().len(), 1);
    bench.desk.run(&["audit", "verify", "audit.jsonl"]).ends(0).shows("is whole");
    std::fs::remove_file(bench.desk.path("audit.jsonl")).expect("a file");
    let quiet = bench.sh(&["--quiet"], WRITES).await.ends(0);
    assert_eq!(quiet.err, "");
}

#[tokio::test]
async fn what_is_told_is_written_line_by_line_beside_what_the_command_writes() {
    let bench = Bench::new().await;
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).expect("a socket pair");
    let mut command = bench.command(&GRANT, &["sh", "-c", WRITES]);
    command.stderr(theirs);
    let read = tokio::task::spawn_blocking(move || {
        let mut child = command.stdout(Stdio::null()).spawn().expect("the binary starts");
        // Its copy of the other end would keep it open.
        drop(command);
        let (mut ours, mut written, mut buffer) = (File::from(ours), Vec::new(), vec![0; 1 << 16]);
        while let length @ 1.. = ours.read(&mut buffer).expect("a message") {
            written.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
        }
        child.wait().expect("an end");
        written
    });
    let written = tokio::time::timeout(PATIENCE, read).await.expect("an end").expect("no panic");
    assert!(written.iter().any(|line| line.starts_with("valetkey: refused POST api.test/y")), "{written:?}");
    for line in &written {
        assert!(line.starts_with("valetkey: ") && line.find('\n') == Some(line.len() - 1), "{written:?}");
    }
}

#[tokio::test]
async fn what_was_allowed_and_failed_later_is_told_by_its_name() {
    let bench = Bench::new().await;
    let mut command = bench.command(&GRANT, &["sh", "-c", READS]);
    command.env_remove("API_KEY");
    let done = bench.done(command).await.ends(0);
    assert_eq!(done.out, "503\n");
    done.says("refused GET api.test/x: credential_unavailable").says("0 allowed, 1 refused");
}

#[tokio::test]
async fn refusals_of_a_running_sidecar_are_told_and_those_of_others_are_not() {
    let stage = Stage::new().await;
    let other = stage.reader().await;
    let desk = Desk::new();
    let others = format!("KEY={other}; {WRITES}");
    let done = attached(&stage, &desk, &[], &format!("{WRITES}; ({others})")).await.ends(0);
    assert_eq!(done.out, "403\n403\n");
    done.says("refused POST api.test/y: out_of_scope").says("0 allowed, 1 refused");
}

#[tokio::test]
async fn requests_after_the_end_of_a_nonce_are_told() {
    let ceilings = "version = 1\n[nonces.ceilings]\nlow = { ttl = \"1s\", lifetime = \"1s\" }";
    let bench = Bench::of(&policies::ONE_API.replace("version = 1", ceilings)).await;
    let done = bench.sh(&[], &format!("sleep 2.5; {READS}")).await.ends(0);
    assert_eq!(done.out, "401\n");
    done.says("refused GET api.test/x: nonce_expired");
}
