//! What the process can still do once it serves: open what it was started for, and nothing else (Landlock); and what of
//! it can get to a disk by way of swap.

use std::os::unix::fs::symlink;
use std::path::Path;

use crate::support::sidecar::eventually;
use crate::support::{FakeUpstream, TestSidecar, canary, policies, skip};

const KEY: &str = "{dir}/keys/key";

/// True where the kernel has Landlock; a test that is left out says so.
fn has_landlock() -> bool {
    let has = valetkey::process::can_confine();
    if !has {
        skip("this kernel has no Landlock");
    }
    has
}

fn policy(path: &str) -> String {
    policies::one_api_from(&format!("source = \"file\"\npath = \"{path}\""))
}

/// A directory that no sidecar of these tests was told of, with a credential in it.
fn beyond(secret: &str) -> tempfile::TempDir {
    let beyond = tempfile::tempdir().expect("a directory");
    std::fs::write(beyond.path().join("key"), secret).expect("a file");
    beyond
}

/// Puts a link into the place of the credential, as whoever can write there could.
fn lead_away(sidecar: &TestSidecar, target: &Path) {
    let (key, draft) = (sidecar.path("keys/key"), sidecar.path("keys/draft"));
    symlink(target, &draft).expect("a link");
    std::fs::rename(draft, key).expect("our directory");
}

async fn start(landlock: &str, upstream: &FakeUpstream) -> TestSidecar {
    let builder = TestSidecar::with_policy(&policy(KEY)).upstream(&["api.test"], "api", upstream);
    builder.file("keys/key", &canary()).flag("--landlock").flag(landlock).start().await
}

/// Asks until the answer is this one: a file's value is good for a moment.
async fn answers(sidecar: &TestSidecar, nonce: &str, status: u16) {
    for _ in 0..100 {
        if sidecar.agent().get("api.test", "/x", nonce).await.status == status {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("no {status}:\n{}", sidecar.log());
}

#[tokio::test]
async fn a_file_beyond_what_it_was_started_for_cannot_be_opened() {
    if !has_landlock() {
        return;
    }
    let upstream = FakeUpstream::start(&["api.test"]).await;
    let beyond = beyond(&canary());
    for (landlock, expected) in [("off", 200), ("required", 503)] {
        let sidecar = start(landlock, &upstream).await;
        let nonce = sidecar.orchestrator().mint("worker", "api", "read").await.nonce;
        answers(&sidecar, &nonce, 200).await;
        // A new file in the old directory is what a rotation makes, and is always followed.
        std::fs::write(sidecar.path("keys/new"), canary()).expect("a file");
        std::fs::rename(sidecar.path("keys/new"), sidecar.path("keys/key")).expect("our directory");
        let seen = upstream.seen().len();
        answers(&sidecar, &nonce, 200).await;
        assert!(upstream.seen().len() > seen);
        lead_away(&sidecar, &beyond.path().join("key"));
        let other = std::fs::read_to_string(beyond.path().join("key")).expect("ours");
        if expected == 503 {
            answers(&sidecar, &nonce, 503).await;
            assert!(sidecar.log().contains("permission denied"), "{}", sidecar.log());
        } else {
            let has_other = || upstream.seen().iter().any(|request| is_with(request.header("authorization"), &other));
            for _ in 0..100 {
                answers(&sidecar, &nonce, 200).await;
                if has_other() {
                    break;
                }
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
            assert!(has_other(), "without it, the link is followed");
        }
    }
}

/// A store of the system's that links to elsewhere, as distributions have them.
#[tokio::test]
async fn roots_that_lie_elsewhere_are_read_again_and_never_give_way_to_those_built_in() {
    let (store, elsewhere) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let landlock = if has_landlock() { "required" } else { "off" };
    let upstream = FakeUpstream::start(&["api.test"]).await;
    let root = elsewhere.path().join("root.pem");
    std::fs::write(&root, &upstream.authority.pem).expect("a file");
    symlink(&root, store.path().join("0123abcd.0")).expect("a link");
    let policy = policies::ONE_API.replace("upstream_ca = \"{dir}/api.pem\"\n", "");
    let sidecar = TestSidecar::with_policy(&policy)
        .upstream(&["api.test"], "api", &upstream)
        .environment("API_KEY", &canary())
        .environment("SSL_CERT_FILE", "/nowhere/roots.pem")
        .environment("SSL_CERT_DIR", &store.path().to_string_lossy())
        .flag("--landlock")
        .flag(landlock)
        .start()
        .await;
    let nonce = sidecar.orchestrator().mint("worker", "api", "read").await.nonce;
    let read_again = async |times: usize| {
        let path = sidecar.path("policy.toml");
        let text = std::fs::read_to_string(&path).expect("the policy");
        std::fs::write(
            &path,
            format!("{text}[agents.another-{times}]\nidentity = [\"any\"]\ngrants = {{ api = [\"read\"] }}\n"),
        )
        .expect("ours");
        let adopted = || sidecar.log().matches("has changed and is in force").count() == times;
        eventually("the new policy", || adopted().then_some(())).await;
        sidecar.agent().get("api.test", "/x", &nonce).await.status.as_u16()
    };
    assert_eq!(sidecar.agent().get("api.test", "/x", &nonce).await.status, 200);
    assert_eq!(read_again(1).await, 200);
    assert!(!sidecar.log().contains("roots cannot be read"), "{}", sidecar.log());
    std::fs::remove_file(&root).expect("a file");
    assert_eq!(read_again(2).await, 200, "{}", sidecar.log());
    assert!(sidecar.log().contains("the system's roots cannot be read any more"), "{}", sidecar.log());
    assert_eq!(upstream.connections(), 3, "each with what was read last");
}

fn is_with(field: Option<&str>, secret: &str) -> bool {
    field.is_some_and(|value| value.ends_with(secret))
}

#[tokio::test]
async fn a_policy_that_needs_more_asks_for_a_restart_and_the_last_one_stays() {
    if !has_landlock() {
        return;
    }
    let upstream = FakeUpstream::start(&["api.test"]).await;
    let beyond = beyond(&canary());
    let sidecar = start("required", &upstream).await;
    let nonce = sidecar.orchestrator().mint("worker", "api", "read").await.nonce;
    let path = sidecar.path("policy.toml");
    let text = std::fs::read_to_string(&path).expect("the policy");
    let elsewhere = beyond.path().join("key");
    let from = sidecar.path("keys/key");
    std::fs::write(&path, text.replace(&*from.to_string_lossy(), &elsewhere.to_string_lossy())).expect("ours");
    sidecar.audited(|record| record["type"] == "policy" && record["outcome"] == "refused").await;
    let told = || {
        let log = sidecar.log();
        log.lines().any(|line| line.contains("restart to take it") && line.contains("Landlock")).then_some(())
    };
    eventually("the word restart", told).await;
    assert_eq!(sidecar.agent().get("api.test", "/x", &nonce).await.status, 200, "the last good policy stays");
    // What is in the directories that were known is taken as before.
    std::fs::write(&path, format!("# a change\n{text}")).expect("ours");
    sidecar.audited(|record| record["type"] == "policy" && record["outcome"] == "adopted").await;
}

#[tokio::test]
async fn every_thread_is_confined_and_it_is_on_record() {
    if !has_landlock() {
        return;
    }
    let upstream = FakeUpstream::start(&["api.test"]).await;
    let sidecar = start("best-effort", &upstream).await;
    let nonce = sidecar.orchestrator().mint("worker", "api", "read").await.nonce;
    answers(&sidecar, &nonce, 200).await;
    let started = sidecar.audited(|record| record["type"] == "start").await;
    assert!(started["facts"]["landlock"].as_str().is_some_and(|word| word.starts_with("landlock")), "{started}");
    // What confines a thread also takes from it, and from all that it starts, the way to more rights.
    let tasks = std::fs::read_dir(format!("/proc/{}/task", sidecar.pid())).expect("a process");
    let mut threads = 0;
    for task in tasks.map(|task| task.expect("a thread").path()) {
        // A helper thread may have ended meanwhile.
        let Ok(status) = std::fs::read_to_string(task.join("status")) else { continue };
        threads += 1;
        assert!(status.lines().any(|line| line == "NoNewPrivs:\t1"), "{}", task.display());
    }
    assert!(threads > 2, "{threads} threads");
}

#[tokio::test]
async fn one_that_runs_commands_is_not_confined_and_says_so_or_does_not_start() {
    let exec = policies::one_api_from("source = \"exec\"\ncommand = [\"/bin/cat\", \"{dir}/keys/key\"]");
    let upstream = FakeUpstream::start(&["api.test"]).await;
    let secret = canary();
    let builder = || {
        let builder = TestSidecar::with_policy(&exec).upstream(&["api.test"], "api", &upstream);
        builder.file("keys/key", &secret).flag("--allow-exec")
    };
    let sidecar = builder().start().await;
    assert!(sidecar.log().contains("credentials come from commands, which would be confined too"), "{}", sidecar.log());
    let (code, said) = builder().flag("--landlock").flag("required").fails();
    assert!(code != Some(0) && said.contains("--landlock required cannot be had"), "{said}");
}

#[tokio::test]
async fn memory_is_locked_where_nothing_can_fail_by_it_and_else_it_is_said() {
    let upstream = FakeUpstream::start(&["api.test"]).await;
    let can = valetkey::process::can_lock_memory().is_ok();
    let sidecar = start("best-effort", &upstream).await;
    let (locked, held) = (sidecar.status("VmLck"), sidecar.status("VmRSS"));
    let started = sidecar.audited(|record| record["type"] == "start").await;
    assert_eq!(started["facts"]["memory"], if can { "locked" } else { "unlocked" });
    assert_eq!(locked > 0, can, "{locked} KiB locked of {held}");
    if !can {
        skip("memory cannot be locked here");
        assert!(sidecar.log().contains("RLIMIT_MEMLOCK"), "{}", sidecar.log());
    }
    let builder = TestSidecar::with_policy(&policy(KEY)).upstream(&["api.test"], "api", &upstream);
    let open = builder.file("keys/key", &canary()).flag("--lock-memory").flag("off").start().await;
    assert_eq!(open.status("VmLck"), 0);
    // Pages are locked as they are used: locking makes none.
    let unlocked = open.status("VmRSS");
    assert!(held < unlocked + unlocked / 2, "{held} KiB locked, {unlocked} unlocked");
}
