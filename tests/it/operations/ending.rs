//! The end comes when it is asked for, whatever clients and commands do, and the record says who cut what.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use tokio::io::AsyncWriteExt;

use crate::support::agent::get;
use crate::support::{Builder, FakeUpstream, Stage, policies, wire};

/// Longer than any drain here, and far shorter than the timeouts that would end things by themselves.
const SOON: Duration = Duration::from_secs(8);

#[tokio::test]
async fn a_tunnel_takes_a_place_among_the_connections_until_it_is_closed() {
    let upstream = FakeUpstream::start(&["api.test"]).await;
    let stage = Stage::with(upstream, |builder| builder.flag("--connections-max").flag("2")).await;
    let agent = stage.sidecar.agent();
    let (first, second) = (agent.connect("api.test:443").await, agent.connect("api.test:443").await);
    assert!(first.0.contains(" 200 ") && second.0.contains(" 200 "));
    let metrics = stage.sidecar.admin_get("/metrics").await.text();
    assert!(metrics.contains("valetkey_connections_open 2"), "{metrics}");

    let mut third = agent.tcp().await;
    third.write_all(b"CONNECT api.test:443 HTTP/1.1\r\nHost: api.test\r\n\r\n").await.expect("writable");
    let mut byte = [0];
    let early = tokio::time::timeout(Duration::from_millis(100), third.peek(&mut byte)).await;
    assert!(early.is_err(), "a third one was served");
    drop(first);
    let answer = wire::read_answers(&mut third, 1, SOON).await;
    assert!(answer.contains(" 200 "), "{answer}");
}

#[tokio::test]
async fn clients_that_hold_all_places_do_not_keep_it_from_ending() {
    let upstream = FakeUpstream::start(&["api.test"]).await;
    let edit = |builder: Builder| {
        let builder = builder.flag("--connections-max").flag("2").flag("--drain-timeout").flag("1s");
        builder.flag("--head-timeout").flag("60s").flag("--handshake-timeout").flag("60s")
    };
    let mut stage = Stage::with(upstream, edit).await;
    let agent = stage.sidecar.agent();
    let _held = (agent.connect("api.test:443").await, agent.connect("api.test:443").await);
    let _waiting = agent.tcp().await;
    let begun = Instant::now();
    stage.sidecar.signal("TERM");
    assert_eq!(stage.sidecar.wait(), Some(0));
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn what_the_end_cuts_is_on_record_as_cut() {
    let upstream = FakeUpstream::start(&["api.test"]).await;
    let mut stage = Stage::with(upstream, |builder| builder.flag("--drain-timeout").flag("1s")).await;
    let nonce = stage.reader().await;
    let agent = stage.sidecar.agent();
    let (mut h1, mut h2) = (agent.tunnel("api.test").await, agent.tunnel_h2("api.test").await);
    let mut answers = Vec::new();
    for tunnel in [&mut h1, &mut h2] {
        let mut answer = tunnel.start(get("api.test", "/endless", &nonce)).await;
        answer.frame().await.expect("a frame").expect("a whole frame");
        answers.push(answer);
    }
    stage.sidecar.signal("TERM");
    assert_eq!(stage.sidecar.wait(), Some(0));
    let records = stage.sidecar.audit();
    let ends: Vec<_> = records.iter().filter(|record| record["type"] == "end").collect();
    assert_eq!(ends.len(), 2, "{ends:#?}");
    assert!(ends.iter().all(|end| end["ending"] == "cut"), "{ends:#?}");
}

#[test]
fn a_command_that_hangs_does_not_keep_a_start_from_being_called_off() {
    let directory = Arc::new(tempfile::tempdir().expect("a directory"));
    let command = directory.path().join("hang.sh");
    // The parent is the sidecar: the signal comes while it waits for this command.
    std::fs::write(&command, "#!/bin/sh\nkill -TERM $PPID\nsleep 60\n").expect("a file");
    std::fs::set_permissions(&command, std::fs::Permissions::from_mode(0o700)).expect("a mode");
    let source = "source = \"exec\"\ncommand = [\"{dir}/hang.sh\"]\ntimeout = \"60s\"";
    let policy = policies::ONE_API
        .replace("source = \"env\"\nname = \"API_KEY\"", source)
        .replace("upstream_ca = \"{dir}/api.pem\"", "");
    let begun = Instant::now();
    let builder =
        Builder::new(&policy).within(&directory).flag("--allow-exec").file("ready.json", "an earlier start's");
    let (code, said) = builder.fails();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("before it was ready"), "{said}");
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    assert!(!directory.path().join("ready.json").exists(), "nobody may take this start for ready");
}
