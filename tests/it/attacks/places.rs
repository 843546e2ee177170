//! Connections are bounded, whatever is in them.

use crate::support::{FakeUpstream, Stage};

#[tokio::test]
async fn tunnels_count_as_connections_and_hold_no_end_up() {
    let upstream = FakeUpstream::start(&["api.test"]).await;
    let edit = |builder: crate::support::Builder| {
        builder.flag("--connections-max").flag("2").flag("--drain-timeout").flag("1s")
    };
    let mut stage = Stage::with(upstream, edit).await;
    let agent = stage.sidecar.agent();
    let first = agent.tls_tunnel("api.test", "api.test", &[b"http/1.1"]).await.expect("a tunnel");
    let _second = agent.tls_tunnel("api.test", "api.test", &[b"http/1.1"]).await.expect("a tunnel");
    let third = agent.connect("api.test:443");
    tokio::pin!(third);
    let waited = tokio::time::timeout(std::time::Duration::from_millis(300), &mut third).await;
    assert!(waited.is_err(), "there is no place for a third");
    drop(first);
    let (answer, _tunnel) = third.await;
    assert!(answer.contains(" 200 "), "{answer}");
    stage.sidecar.signal("TERM");
    assert_eq!(stage.sidecar.wait(), Some(0), "the end is heard though every place is taken");
}
