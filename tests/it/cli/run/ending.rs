//! Exit codes, signals, and what is left when somebody is killed.

use super::{Bench, GRANT, Going, kill, until};

#[tokio::test]
async fn exit_codes_are_the_commands_own() {
    let bench = Bench::new().await;
    for (script, code) in [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", 128 + 15), ("kill -KILL $$", 128 + 9)] {
        let _ = std::fs::remove_file(bench.desk.path("audit.jsonl"));
        bench.sh(&[], script).await.ends(code);
    }
}

#[tokio::test]
async fn a_command_that_is_not_there_ends_with_127_and_one_that_cannot_run_with_126() {
    let bench = Bench::new().await;
    bench.desk.write("plain", "#!/bin/sh\n");
    bench.done(bench.command(&GRANT, &["no-such-command"])).await.ends(127).says("no-such-command: ");
    bench.done(bench.command(&GRANT, &["./plain"])).await.ends(126).says("./plain: ");
    bench.done(bench.command(&GRANT, &["/"])).await.ends(126).says("/: this is a directory");
    bench.done(bench.command(&GRANT, &["echo hi"])).await.ends(127).says("goes behind `sh -c`");
}

/// Starts a script that says in a file when it is ready.
async fn going(bench: &Bench, script: &str) -> Going {
    let going = Going::new(&bench.command(&GRANT, &["sh", "-c", script]));
    let ready = bench.desk.path("ready");
    until("the command", || ready.exists()).await;
    going
}

#[tokio::test]
async fn signals_are_handed_on() {
    for name in ["TERM", "INT", "HUP", "QUIT", "USR1", "USR2"] {
        let bench = Bench::new().await;
        let script = format!("trap 'exit 9' {name}; touch ready; while :; do sleep 0.05; done");
        let going = going(&bench, &script).await;
        going.signal(name);
        let done = going.done().await.ends(9);
        bench.assert_clean(&done);
    }
}

#[tokio::test]
async fn a_run_that_is_killed_takes_its_sidecar_along() {
    let bench = Bench::new().await;
    let mut going = going(&bench, "touch ready; exec sleep 20").await;
    let children = going.children();
    let runs = |pid: u32, word: &str| {
        std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| String::from_utf8_lossy(&line).contains(word))
    };
    let sidecar = children.iter().copied().find(|pid| runs(*pid, "--supervised")).expect("a sidecar");
    let command = children.iter().copied().find(|pid| runs(*pid, "sleep")).expect("a command");
    going.child.kill().expect("it runs");
    going.child.wait().expect("an end");
    until("the sidecar's end", || !runs(sidecar, "--supervised")).await;
    // Nobody else waits for it.
    assert!(runs(command, "sleep"), "it still runs");
    kill(command);
}

#[tokio::test]
async fn a_sidecar_that_is_killed_is_told_of() {
    let bench = Bench::new().await;
    let going = going(&bench, "touch ready; while [ ! -e go ]; do sleep 0.05; done; exit 5").await;
    let is_sidecar = |pid: &u32| {
        std::fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| String::from_utf8_lossy(&line).contains("--supervised"))
    };
    let sidecar = going.children().into_iter().find(is_sidecar).expect("a sidecar");
    kill(sidecar);
    until("its end", || !is_sidecar(&sidecar)).await;
    bench.desk.write("go", "");
    let done = going.done().await.ends(5);
    bench.assert_clean(&done);
    let done = done.says("the sidecar has ended");
    assert!(!done.err.contains("was not revoked"), "its nonces ended with it: {}", done.err);
}
