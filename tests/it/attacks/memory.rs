//! How many copies of a credential the process holds, as root sees it.

use std::io::{Read, Seek, SeekFrom};

use crate::support::agent::get;
use crate::support::{FakeUpstream, Stage, TestSidecar, canary, policies};

/// Copies that we keep ourselves, as the source spelled them.
const OWN_MAX: usize = 2;

/// Times that this text is in the writable memory of a process; `None` where nobody may look.
fn copies(pid: u32, secret: &str) -> Option<usize> {
    let mut memory = std::fs::File::open(format!("/proc/{pid}/mem")).ok()?;
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).ok()?;
    let mut count = 0;
    for line in maps.lines().filter(|line| line.split(' ').nth(1).is_some_and(|mode| mode.starts_with("rw"))) {
        let (from, to) = line.split(' ').next()?.split_once('-')?;
        let (from, to) = (u64::from_str_radix(from, 16).ok()?, u64::from_str_radix(to, 16).ok()?);
        let mut bytes = vec![0; usize::try_from(to - from).ok()?];
        memory.seek(SeekFrom::Start(from)).ok()?;
        // Pages that were never touched may not be readable.
        if memory.read_exact(&mut bytes).is_ok() {
            count += memchr::memmem::find_iter(&bytes, secret.as_bytes()).count();
        }
    }
    Some(count)
}

#[tokio::test]
async fn requests_leave_no_more_and_more_copies() {
    let stage = Stage::new().await;
    if copies(stage.sidecar.pid(), &stage.secret).is_none() {
        return eprintln!("skipped: nobody but root may look");
    }
    let look = || copies(stage.sidecar.pid(), &stage.secret).expect("memory");
    let before = look();
    let nonce = stage.reader().await;
    let agent = stage.sidecar.agent();
    let round = async || {
        for _ in 0..20 {
            agent.get("api.test", "/x", &nonce).await;
            agent.send_h2(get("api.test", "/header", &nonce)).await;
        }
    };
    round().await;
    let once = look();
    for _ in 0..5 {
        round().await;
    }
    let often = look();
    // What is left in buffers that are in use is bounded by their number, not by that of the requests.
    assert!(before <= OWN_MAX, "{before} copies of what nobody has used");
    assert!(often <= once + 100, "{before} copies before, {once} after 40 requests, {often} after 240");
}

#[tokio::test]
async fn what_was_replaced_is_forgotten() {
    let (old, new) = (canary(), canary());
    let upstream = FakeUpstream::start(&["api.test"]).await;
    let policy = policies::one_api_from("source = \"file\"\npath = \"{dir}/key\"");
    let sidecar =
        TestSidecar::with_policy(&policy).upstream(&["api.test"], "api", &upstream).file("key", &old).start().await;
    if copies(sidecar.pid(), &old).is_none() {
        return eprintln!("skipped: nobody but root may look");
    }
    let nonce = sidecar.orchestrator().mint("worker", "api", "read").await.nonce;
    let has = |secret: &str| {
        let arrived = upstream.seen().pop().expect("a request");
        arrived.header("authorization").is_some_and(|value| value.ends_with(secret)).then_some(())
    };
    sidecar.agent().get("api.test", "/x", &nonce).await;
    assert!(has(&old).is_some());
    std::fs::write(sidecar.path("key"), &new).expect("a file");
    for _ in 0..100 {
        sidecar.agent().get("api.test", "/x", &nonce).await;
        if has(&new).is_some() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert!(has(&new).is_some());
    // Freed memory is wiped; buffers that are still in use may hold it.
    let left = copies(sidecar.pid(), &old).expect("memory");
    assert!(left <= 4, "{left} copies of what was replaced");
}
