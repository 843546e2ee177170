//! How many copies of a credential the process holds, as root sees it.

mod kinds;
mod needed;

use std::io::{Read, Seek, SeekFrom};

use crate::support::agent::get;
use crate::support::sidecar::eventually;
use crate::support::{FakeUpstream, Stage, TestSidecar, canary, policies, skip};

/// Copies of an idle credential that we keep ourselves: as it is, and in lower case as what is searched for.
const OWN_MAX: usize = 2;

/// What the library for HTTP/2 keeps for a connection of what came over it in heads: a block into which it decodes, and
/// the table that the upstream may fill, in bytes.
const HPACK_BYTES_MAX: usize = 4096 + 4096;

/// Times that this text is in the writable memory of a process, in either case of letters; `None` where nobody may look.
fn copies(pid: u32, secret: &str) -> Option<usize> {
    let mut memory = std::fs::File::open(format!("/proc/{pid}/mem")).ok()?;
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).ok()?;
    let secret = secret.to_ascii_lowercase();
    let mut count = 0;
    for line in maps.lines().filter(|line| line.split(' ').nth(1).is_some_and(|mode| mode.starts_with("rw"))) {
        let (from, to) = line.split(' ').next()?.split_once('-')?;
        let (from, to) = (u64::from_str_radix(from, 16).ok()?, u64::from_str_radix(to, 16).ok()?);
        let mut bytes = vec![0; usize::try_from(to - from).ok()?];
        memory.seek(SeekFrom::Start(from)).ok()?;
        // Pages that were never touched may not be readable.
        if memory.read_exact(&mut bytes).is_ok() {
            bytes.make_ascii_lowercase();
            count += memchr::memmem::find_iter(&bytes, secret.as_bytes()).count();
        }
    }
    Some(count)
}

/// True, said aloud, where nobody may look.
fn is_closed(sidecar: &TestSidecar) -> bool {
    let is_closed = copies(sidecar.pid(), "x").is_none();
    if is_closed {
        skip("nobody but root may look");
    }
    is_closed
}

fn look(stage: &Stage) -> usize {
    copies(stage.sidecar.pid(), &stage.secret).expect("memory")
}

/// Waits until there are no more copies than that.
async fn becomes(stage: &Stage, most: usize) {
    let what = format!("{most} copies at most; there are {}", look(stage));
    eventually(&what, || (look(stage) <= most).then_some(())).await;
}

/// Twenty requests from connections of HTTP/1.1, four at a time, and twenty from connections of HTTP/2.
async fn requests(stage: &Stage, path: &str, nonce: &str) {
    let agent = stage.sidecar.agent();
    for _ in 0..5 {
        let four = std::array::from_fn::<_, 4, _>(|_| agent.get("api.test", path, nonce));
        for reply in futures_util::future::join_all(four).await {
            assert_eq!(reply.status, 200);
        }
        for _ in 0..4 {
            assert_eq!(agent.send_h2(get("api.test", path, nonce)).await.status, 200);
        }
    }
}

#[tokio::test]
async fn an_idle_credential_is_there_twice_and_once_more_for_each_connection_of_http_1() {
    for (alpn, is_h2) in [([&b"h2"[..]], true), ([&b"http/1.1"[..]], false)] {
        let upstream = FakeUpstream::start_with(&["api.test"], &alpn).await;
        let stage = Stage::with(upstream, |builder| builder).await;
        if is_closed(&stage.sidecar) {
            return;
        }
        assert!(look(&stage) <= OWN_MAX, "{} copies of what nobody has used", look(&stage));
        let nonce = stage.reader().await;
        for _ in 0..3 {
            requests(&stage, "/x", &nonce).await;
            let pooled = usize::try_from(stage.upstream.connections()).expect("a count");
            becomes(&stage, OWN_MAX + if is_h2 { 0 } else { pooled }).await;
        }
    }
}

#[tokio::test]
async fn what_an_upstream_echoes_stays_in_buffers_of_a_bounded_size() {
    let stage = Stage::new().await;
    if is_closed(&stage.sidecar) {
        return;
    }
    let nonce = stage.reader().await;
    let connections = async || {
        requests(&stage, "/header", &nonce).await;
        usize::try_from(stage.upstream.connections()).expect("a count")
    };
    for _ in 0..6 {
        let most = connections().await * (HPACK_BYTES_MAX / stage.secret.len());
        becomes(&stage, OWN_MAX + most).await;
    }
}

/// Over HTTP/2, where no buffer of a connection keeps in plain text what went out in its heads. One copy is left until the
/// next rotation: in the search for what agents send, since the credential before may still be good.
#[tokio::test]
async fn what_was_replaced_is_forgotten() {
    let [old, new, newest] = [(); 3].map(|()| canary());
    let upstream = FakeUpstream::start_with(&["api.test"], &[b"h2"]).await;
    let policy = policies::one_api_from("source = \"file\"\npath = \"{dir}/key\"");
    let stage = Stage::of(&policy, upstream, |builder| builder.file("key", &old)).await;
    let stage = Stage { secret: old, ..stage };
    if is_closed(&stage.sidecar) {
        return;
    }
    let nonce = stage.reader().await;
    requests(&stage, "/x", &nonce).await;
    assert!(look(&stage) > 0);
    for (secret, left) in [(&new, 1), (&newest, 0)] {
        std::fs::write(stage.sidecar.path("key"), secret).expect("a file");
        goes_out(&stage, &nonce, secret).await;
        // What is searched for changes with the request after the one that had the file read.
        requests(&stage, "/x", &nonce).await;
        becomes(&stage, left).await;
    }
}

/// Asks until it is this credential that arrives.
async fn goes_out(stage: &Stage, nonce: &str, secret: &str) {
    for _ in 0..100 {
        stage.sidecar.agent().get("api.test", "/x", nonce).await;
        let arrived = stage.upstream.seen().pop().expect("a request");
        if arrived.header("authorization").is_some_and(|value| value.ends_with(secret)) {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("the old credential stays in use");
}
