//! Whatever it is and wherever it comes from: what can be had again is not there while no lease needs it.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use serde_json::json;

use super::{becomes, is_closed, look, requests};
use crate::support::agent::with;
use crate::support::sidecar::eventually;
use crate::support::sigv4::{Signer, moment};
use crate::support::{FakeUpstream, Stage, TestSidecar, canary, policies};

const EXEC: &str = "source = \"exec\"\ncommand = [\"{dir}/fetch\"]\nttl = \"1h\"";

/// Bounded, and no more than that: how fast it goes is no promise that a busy machine keeps.
#[tokio::test]
async fn what_a_command_said_goes_with_the_last_lease_and_is_asked_for_again() {
    let secret = canary();
    let directory = Arc::new(tempfile::tempdir().expect("a directory"));
    let script = directory.path().join("fetch");
    let text = format!("#!/bin/sh\necho run >> \"$(dirname \"$0\")/runs\"\necho {secret}\n");
    std::fs::write(&script, text).expect("a file");
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o700)).expect("our file");
    let upstream = FakeUpstream::start_with(&["api.test"], &[b"h2"]).await;
    let sidecar = TestSidecar::with_policy(&policies::one_api_from(EXEC))
        .within(&directory)
        .upstream(&["api.test"], "api", &upstream)
        .flag("--allow-exec")
        .flag("--log-level")
        .flag("valetkey=debug")
        .start()
        .await;
    let stage = Stage { secret, upstream, sidecar };
    let is_blind = is_closed(&stage.sidecar);
    let runs = || std::fs::read_to_string(directory.path().join("runs")).map_or(0, |text| text.lines().count());
    let dropped = || stage.sidecar.log().matches("credentials that no live nonce needs were dropped").count();
    let orchestrator = stage.sidecar.orchestrator();
    // It ran at the start, and nobody needed what it said.
    for round in 1..=3 {
        eventually("it is let go of", || (dropped() >= round).then_some(())).await;
        if !is_blind {
            becomes(&stage, 0).await;
        }
        let minted = orchestrator.mint("worker", "api", "read").await;
        requests(&stage, "/x", &minted.nonce).await;
        assert!(is_blind || look(&stage) > 0, "one needs it");
        assert_eq!(runs(), 1 + round, "once for each time that it is needed, though it is good for an hour");
        orchestrator.revoke(&minted.id).await;
    }
}

const SIGNING: &str = r#"
version = 1
[credentials.pair]
source = "file"
path = "{dir}/key"
hosts = ["api.test"]
[services.store]
hosts = ["api.test"]
credential = "pair"
slots = ["aws-sigv4"]
aws = { service = "s3", regions = ["eu-west-1"] }
upstream_ca = "{dir}/api.pem"
[[services.store.scopes]]
name = "read"
risk = "low"
allow = ["GET /{*path}"]
[agents.worker]
identity = ["any"]
grants = { store = ["read"] }
"#;

#[tokio::test]
async fn a_key_pair_goes_with_the_last_lease() {
    let (secret, token) = (canary(), canary());
    let pair =
        json!({"Version": 1, "AccessKeyId": "AKIDREALKEY234567", "SecretAccessKey": secret, "SessionToken": token});
    let upstream = FakeUpstream::start_with(&["api.test"], &[b"h2"]).await;
    let stage = Stage::of(SIGNING, upstream, |builder| builder.file("key", &pair.to_string())).await;
    let stage = Stage { secret, ..stage };
    if is_closed(&stage.sidecar) {
        return;
    }
    becomes(&stage, 0).await;
    for _ in 0..2 {
        let minted = stage.sidecar.orchestrator().mint("worker", "store", "read").await;
        let signer = Signer { date: moment(0), ..Signer::of(&minted.answer) };
        let fields = signer.sign("GET", "api.test", "/x", &[], "");
        let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (&**name, &**value)).collect();
        let reply = stage.sidecar.agent().send(with("GET", "api.test", "/x", &fields, "")).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert!(look(&stage) > 0, "one needs it");
        stage.sidecar.orchestrator().revoke(&minted.id).await;
        becomes(&stage, 0).await;
        let pid = stage.sidecar.pid();
        eventually("no copy of the token is left", || (super::copies(pid, &token) == Some(0)).then_some(())).await;
    }
}
