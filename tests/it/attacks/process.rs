//! What can be done to the process from outside: signals without a meaning, and too few descriptors.

use http_body_util::BodyExt;
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

use crate::support::agent::{PATIENCE, get};
use crate::support::sockets::descriptors;
use crate::support::{FakeUpstream, Stage};

/// Ticks of a processor (a hundredth of a second) that may go by while nothing can be accepted for about a second.
const TICKS_MAX: u64 = 40;

#[tokio::test]
async fn signals_without_a_meaning_do_no_harm_or_end_it() {
    for (signal, lives) in [("PIPE", true), ("CHLD", true), ("WINCH", true), ("USR1", false), ("USR2", false)] {
        let mut stage = Stage::new().await;
        let nonce = stage.reader().await;
        let mut tunnel = stage.sidecar.agent().tunnel("api.test").await;
        assert_eq!(tunnel.send(get("api.test", "/before", &nonce)).await.status, 200);
        stage.sidecar.signal(signal);
        if lives {
            assert_eq!(tunnel.send(get("api.test", "/after", &nonce)).await.status, 200, "{signal}");
            continue;
        }
        assert_eq!(stage.sidecar.wait(), None, "{signal} ended it");
        assert!(std::net::TcpStream::connect(stage.sidecar.proxy).is_err(), "{signal}: nobody answers in its place");
        assert_eq!(stage.upstream.seen().len(), 1);
        let verify = ["audit", "verify"];
        let audit = stage.sidecar.path("audit.jsonl");
        let verified = std::process::Command::new(crate::support::binary()).args(verify).arg(audit).output();
        assert!(verified.expect("the binary runs").status.success(), "{signal}");
    }
}

#[tokio::test]
async fn without_descriptors_what_is_open_goes_on_and_nothing_spins() {
    let upstream = FakeUpstream::start(&["api.test"]).await;
    let stage = Stage::with(upstream, |builder| builder).await;
    let nonce = stage.reader().await;
    let agent = stage.sidecar.agent();
    let mut tunnel = agent.tunnel("api.test").await;
    let mut stream = tunnel.start(get("api.test", "/endless", &nonce)).await;
    let number = stage.sidecar.pid();
    let pid = Pid::from_raw(number.cast_signed()).expect("a pid");
    let usual = getrlimit(Resource::Nofile);
    let Some(now) = descriptors(number) else { return };
    let limit = |current| prlimit(Some(pid), Resource::Nofile, Rlimit { current, maximum: usual.maximum });
    limit(Some(now as u64)).expect("a limit");
    let mut held = Vec::new();
    for _ in 0..30 {
        held.push(agent.tcp().await);
    }
    let before = ticks(number);
    // About a second of an answer that goes on: an event every ten milliseconds.
    for event in 0..100 {
        let frame = tokio::time::timeout(PATIENCE, stream.body_mut().frame()).await;
        frame.expect("it goes on").unwrap_or_else(|| panic!("it ended at {event}")).expect("data");
    }
    let spent = ticks(number) - before;
    limit(usual.current).expect("a limit");
    assert!(spent < TICKS_MAX, "{spent} ticks");
    drop(held);
    assert_eq!(agent.get("api.test", "/after", &nonce).await.status, 200);
}

/// What a process has had of the processors, in ticks (proc(5), `utime` and `stime`).
fn ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process");
    let fields: Vec<&str> = stat.rsplit(") ").next().expect("fields").split(' ').collect();
    fields[11..13].iter().map(|field| field.parse::<u64>().expect("a number")).sum()
}
