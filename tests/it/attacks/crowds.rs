//! Many at once, and many one after another.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;

use crate::support::sidecar::eventually;
use crate::support::sockets::{connected, descriptors};
use crate::support::{FakeUpstream, Stage, TestSidecar, canary, policies};

/// Half a head each, in the clear and in tunnels, and tunnels in which nothing is said.
#[tokio::test(flavor = "multi_thread")]
async fn clients_that_dawdle_keep_nobody_else_waiting_and_are_cut() {
    let upstream = FakeUpstream::start(&["api.test"]).await;
    let edit = |builder: crate::support::Builder| {
        builder.flag("--head-timeout").flag("5s").flag("--handshake-timeout").flag("5s")
    };
    let stage = Stage::with(upstream, edit).await;
    let nonce = stage.reader().await;
    let agent = stage.sidecar.agent();
    let mut slow = Vec::new();
    for _ in 0..150 {
        let mut tcp = agent.tcp().await;
        tcp.write_all(b"CONNECT api.test:443 HTT").await.expect("writable");
        slow.push(tcp);
        let (answer, tcp) = agent.connect("api.test:443").await;
        assert!(answer.contains(" 200 "), "{answer}");
        slow.push(tcp);
    }
    let mut halves = Vec::new();
    for _ in 0..20 {
        let mut stream = agent.tls_tunnel("api.test", "api.test", &[b"http/1.1"]).await.expect("TLS");
        stream.write_all(b"GET /x HTTP/1.1\r\nHost: api.test\r\nX-").await.expect("writable");
        halves.push(stream);
    }
    for number in 0..10 {
        assert_eq!(agent.get("api.test", &format!("/{number}"), &nonce).await.status, 200);
    }
    let admin = stage.sidecar.admin;
    eventually("the end of all that dawdle", || {
        let text = String::from_utf8_lossy(&open_connections(admin)).into_owned();
        text.contains("valetkey_connections_open 0").then_some(())
    })
    .await;
    assert_eq!(stage.upstream.seen().len(), 10);
    drop((slow, halves));
}

/// The metrics, without the runtime of the test.
fn open_connections(admin: std::net::SocketAddr) -> Vec<u8> {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(admin).expect("the admin listener");
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("writable");
    let mut text = Vec::new();
    let _ = stream.read_to_end(&mut text);
    text
}

#[tokio::test]
async fn a_thousand_tunnels_that_come_and_go_leave_nothing() {
    let stage = Stage::new().await;
    let nonce = stage.reader().await;
    let agent = stage.sidecar.agent();
    assert_eq!(agent.get("api.test", "/x", &nonce).await.status, 200);
    let pid = stage.sidecar.pid();
    let Some(before) = settled(pid).await else { return };
    for number in 0..1000 {
        let host = if number % 2 == 0 { "api.test".to_owned() } else { format!("host{number}.test") };
        let (answer, _) = agent.connect(&format!("{host}:443")).await;
        assert!(answer.contains(" 200 "), "{number}: {answer}");
        if number % 500 == 0 {
            settled(pid).await;
        }
    }
    let rest = settled(pid).await.expect("it could be seen before");
    assert!(rest <= before, "{before} descriptors before, {rest} after");
    assert_eq!(agent.get("api.test", "/after", &nonce).await.status, 200);
}

/// The descriptors once no agent is connected; a connection to upstream may be kept.
async fn settled(pid: u32) -> Option<usize> {
    connected(pid)?;
    eventually("the end of connections", || (connected(pid)?.len() <= 1).then_some(())).await;
    descriptors(pid)
}

/// Each unlisted host gets a certificate, so that its refusal can be read.
#[tokio::test(flavor = "multi_thread")]
async fn hosts_that_an_agent_makes_up_do_not_pile_up() {
    const ROUND: usize = 150;
    const GROWTH_KIB_MAX: u64 = 24 * 1024;
    let stage = Stage::new().await;
    let agent = stage.sidecar.agent();
    let mut sizes = Vec::new();
    for round in 0..3 {
        for number in 0..ROUND {
            let host = format!("made-up-{round}-{number}.test");
            let reply = agent.get(&host, "/x", "an_none").await;
            assert_eq!((reply.status.as_u16(), reply.refusal()), (403, Some("host_not_listed")), "{}", reply.text());
        }
        sizes.push(stage.sidecar.status("VmRSS"));
    }
    assert!(sizes[2] < sizes[0] + GROWTH_KIB_MAX, "{sizes:?}");
    let metrics = stage.sidecar.admin_get("/metrics").await.text();
    assert!(!metrics.contains("made-up"), "what an agent makes up is no label");
}

/// The command notes when it runs, and whether it was running already.
#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_is_over_is_fetched_once_for_all_who_wait() {
    let (place, secret) = (Arc::new(tempfile::tempdir().expect("a directory")), canary());
    let script = place.path().join("fetch");
    let text = format!(
        "#!/bin/sh\ncd \"$(dirname \"$0\")\"\nmkdir running 2>/dev/null || echo twice >> twice\necho run >> runs\n\
         sleep 0.3\nrmdir running\nprintf '{{\"credential\":\"{secret}\",\"expires_in\":1}}'\n"
    );
    std::fs::write(&script, text).expect("a file");
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o700)).expect("our file");
    let upstream = FakeUpstream::start(&["api.test"]).await;
    let policy = policies::one_api_from("source = \"exec\"\ncommand = [\"{dir}/fetch\"]\nttl = \"1m\"");
    let builder = TestSidecar::with_policy(&policy).within(&place).upstream(&["api.test"], "api", &upstream);
    let sidecar = builder.flag("--allow-exec").start().await;
    let nonce = sidecar.orchestrator().mint("worker", "api", "read").await.nonce;
    let mut asking = JoinSet::new();
    for _ in 0..24 {
        let (agent, nonce) = (sidecar.agent(), nonce.clone());
        asking.spawn(async move {
            for _ in 0..8 {
                let reply = agent.get("api.test", "/x", &nonce).await;
                assert_eq!(reply.status, 200, "{}", reply.text());
                tokio::time::sleep(std::time::Duration::from_millis(90)).await;
            }
        });
    }
    while let Some(done) = asking.join_next().await {
        done.expect("every request is served");
    }
    assert!(!place.path().join("twice").exists(), "two commands ran at once");
    assert!(sidecar.text("runs").lines().count() < 24, "{}", sidecar.text("runs"));
}
