//! Another CA for a sidecar whose agents must not notice: both are trusted for a while.

use std::process::{Command, Output};

use crate::support::agent::Agent;
use crate::support::{Builder, FakeUpstream, Stage};

fn rotate(stage: &Stage, more: &[&str]) -> Output {
    Command::new(crate::support::binary())
        .args(["ca", "rotate", "--json", "--ca-dir"])
        .arg(stage.sidecar.path("certs"))
        .args(more)
        .output()
        .expect("the binary runs")
}

/// The same sidecar, started anew.
async fn restarted(stage: Stage) -> Stage {
    let Stage { upstream, mut sidecar, .. } = stage;
    sidecar.signal("TERM");
    assert_eq!(sidecar.wait(), Some(0));
    let directory = sidecar.directory.clone();
    Stage::with(upstream, |builder: Builder| builder.ca_dir("{dir}/certs").within(&directory)).await
}

async fn is_served(stage: &Stage, agent: &Agent) -> bool {
    let nonce = stage.reader().await;
    let agent = agent.at(stage.sidecar.proxy);
    let Ok(tunnel) = agent.tls_tunnel("api.test", "api.test", &[b"http/1.1"]).await else { return false };
    drop(tunnel);
    assert_eq!(agent.get("api.test", "/x", &nonce).await.status, 200);
    true
}

#[tokio::test]
async fn an_agent_that_has_read_both_is_served_before_and_after() {
    let upstream = FakeUpstream::start(&["api.test"]).await;
    let stage = Stage::with(upstream, |builder| builder.ca_dir("{dir}/certs")).await;
    let (old, too_early) = (stage.sidecar.agent(), rotate(&stage, &["--finish"]));
    assert_eq!(too_early.status.code(), Some(4), "there is none yet: {too_early:?}");

    let public = stage.sidecar.path("public");
    let made = rotate(&stage, &["--ca-publish", public.to_str().expect("a path")]);
    assert!(made.status.success(), "{made:?}");
    let both = stage.sidecar.agent();
    assert_eq!(stage.sidecar.text("public/ca.pem").matches("BEGIN CERTIFICATE").count(), 2);
    assert!(is_served(&stage, &old).await && is_served(&stage, &both).await, "the running one signs as before");
    let stage = restarted(stage).await;
    assert!(is_served(&stage, &old).await && is_served(&stage, &both).await, "and so does the next");
    let (_, over_the_api) = stage.sidecar.orchestrator().send(crate::support::orchestrator::get("/ca.pem")).await;
    assert_eq!(over_the_api, stage.sidecar.text("public/ca.pem").as_bytes(), "both are published wherever one was");

    let finished = rotate(&stage, &["--finish"]);
    assert!(finished.status.success(), "{finished:?}");
    assert!(is_served(&stage, &old).await && is_served(&stage, &both).await, "not before a restart");
    let stage = restarted(stage).await;
    assert!(!is_served(&stage, &old).await, "the new one signs");
    assert!(is_served(&stage, &both).await && is_served(&stage, &stage.sidecar.agent()).await);
    assert_eq!(stage.sidecar.text("public/ca.pem").matches("BEGIN CERTIFICATE").count(), 1);
}
