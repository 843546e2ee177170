//! A policy file that changes under a running sidecar.

use std::fs;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};

use crate::support::agent::{get, with};
use crate::support::policies::ONE_API;
use crate::support::sidecar::eventually;
use crate::support::upstream::PIECE;
use crate::support::{Stage, canary};

/// In which the watch has looked several times: it does so every second, and takes what two looks agree on.
const LOOKS: Duration = Duration::from_millis(3500);

const READ_ONLY: &str = r#"grants = { api = ["read"] }"#;
const ALL: &str = r#"grants = { api = ["read", "write", "once"] }"#;

/// The policy file's text as the sidecar has it, changed.
fn rewrite(stage: &Stage, edit: impl Fn(&str) -> String) {
    let path = stage.sidecar.path("policy.toml");
    let text = fs::read_to_string(&path).expect("the policy");
    let edited = edit(&text);
    assert_ne!(text, edited, "the edit changes something");
    fs::write(path, edited).expect("our directory");
}

/// Waits for a change to be on record.
async fn told(stage: &Stage, outcome: &str) -> Value {
    let is_it = |record: &Value| record["type"] == "policy" && record["outcome"] == outcome;
    stage.sidecar.audited(is_it).await
}

fn post(nonce: &str) -> Request<Full<Bytes>> {
    with("POST", "api.test", "/x", &[("authorization", &format!("Bearer {nonce}"))], "body")
}

async fn get_status(stage: &Stage, nonce: &str) -> (u16, Option<String>) {
    let reply = stage.sidecar.agent().get("api.test", "/x", nonce).await;
    (reply.status.as_u16(), reply.refusal().map(str::to_owned))
}

async fn patch_status(stage: &Stage, nonce: &str) -> (u16, Option<String>) {
    let request = with("PATCH", "api.test", "/new", &[("authorization", &format!("Bearer {nonce}"))], "");
    let reply = stage.sidecar.agent().send(request).await;
    (reply.status.as_u16(), reply.refusal().map(str::to_owned))
}

async fn post_status(stage: &Stage, nonce: &str) -> (u16, Option<String>) {
    let agent = stage.sidecar.agent();
    let mut tunnel = agent.tunnel("api.test").await;
    let reply = tunnel.send(post(nonce)).await;
    (reply.status.as_u16(), reply.refusal().map(str::to_owned))
}

#[tokio::test]
async fn a_grant_that_is_taken_back_is_refused_from_the_next_request_on() {
    let stage = Stage::new().await;
    let (reader, writer) = (stage.reader().await, stage.writer().await);
    assert_eq!(post_status(&stage, &writer).await.0, 200);
    let mut tunnel = stage.sidecar.agent().tunnel("api.test").await;
    assert_eq!(tunnel.send(post(&writer)).await.status, 200);
    rewrite(&stage, |text| text.replace(ALL, READ_ONLY));
    let record = told(&stage, "adopted").await;
    let refused = tunnel.send(post(&writer)).await;
    assert_eq!((refused.status.as_u16(), refused.refusal()), (403, Some("out_of_scope")), "on the open tunnel too");
    assert_eq!(post_status(&stage, &writer).await, (403, Some("out_of_scope".to_owned())));
    assert_eq!(get_status(&stage, &reader).await, (200, None), "what is still granted goes on");
    let decision = stage.sidecar.audited(|record| record["code"] == "out_of_scope").await;
    assert_eq!(decision["policy.digest"], record["policy.digest"], "the new policy decided");
    let (status, problem) = stage
        .sidecar
        .orchestrator()
        .call(
            "POST",
            "/v1/nonces",
            Some(serde_json::json!({"agent": "worker", "task": "t", "service": "api", "scope": "write"})),
        )
        .await;
    assert_eq!((status.as_u16(), &problem["code"]), (403, &Value::from("scope_not_grantable")), "{problem}");
}

#[tokio::test]
async fn a_service_that_is_gone_is_not_reached() {
    let stage = Stage::new().await;
    let reader = stage.reader().await;
    assert_eq!(get_status(&stage, &reader).await.0, 200);
    rewrite(&stage, |text| {
        let text = text.replace("[services.api]\nhosts = [\"api.test\"]", "[services.api]\nhosts = [\"api2.test\"]");
        text.replace("name = \"API_KEY\"\nhosts = [\"api.test\"]", "name = \"API_KEY\"\nhosts = [\"api2.test\"]")
    });
    told(&stage, "adopted").await;
    let requests = stage.upstream.seen().len();
    // The nonce is away from home now, and home is gone.
    assert_eq!(get_status(&stage, &reader).await, (403, Some("nonce_misplaced".to_owned())));
    assert_eq!(stage.upstream.seen().len(), requests);
}

#[tokio::test]
async fn what_is_under_way_ends_as_it_began() {
    for h2 in [false, true] {
        let stage = Stage::new().await;
        let reader = stage.reader().await;
        let agent = stage.sidecar.agent();
        let mut tunnel = if h2 { agent.tunnel_h2("api.test").await } else { agent.tunnel("api.test").await };
        let response = tunnel.start(get("api.test", "/large?pieces=200", &reader)).await;
        assert_eq!(response.status(), 200);
        rewrite(&stage, |text| text.replace(ALL, r#"grants = { api = ["write"] }"#));
        told(&stage, "adopted").await;
        let body = response.into_body().collect().await.expect("a whole answer").to_bytes();
        assert!(body.len() > 1024 * 1024, "h2 {h2}: {} bytes", body.len());
        assert_eq!(get_status(&stage, &reader).await.1.as_deref(), Some("out_of_scope"), "h2 {h2}");
    }
}

#[tokio::test]
async fn a_bad_file_changes_nothing_and_is_told_of() {
    let stage = Stage::new().await;
    let (reader, before) = (stage.reader().await, fs::read_to_string(stage.sidecar.path("policy.toml")).expect("it"));
    let digest = stage.sidecar.orchestrator().call("GET", "/v1/whoami", None).await.1["policy_digest"].clone();
    for bad in ["not toml [", "version = 1\nunknown = 3\n", ""] {
        let known = refusals(&stage);
        fs::write(stage.sidecar.path("policy.toml"), bad).expect("our directory");
        eventually("the refusal of a file", || (refusals(&stage) > known).then_some(())).await;
        assert_eq!(get_status(&stage, &reader).await, (200, None), "{bad:?}");
    }
    let record = told(&stage, "refused").await;
    assert_eq!(record["policy.digest"], digest, "the one that is in force");
    assert!(stage.sidecar.log().contains("the last good one stays in force"));
    let metrics = String::from_utf8(stage.sidecar.admin_get("/metrics").await.body).expect("text");
    assert!(metrics.contains("valetkey_policy_reads_total{outcome=\"refused\"} 3"), "{metrics}");
    fs::remove_file(stage.sidecar.path("policy.toml")).expect("our directory");
    assert_eq!(get_status(&stage, &reader).await, (200, None), "without a file too");
    fs::write(stage.sidecar.path("policy.toml"), before.replace(ALL, READ_ONLY)).expect("our directory");
    told(&stage, "adopted").await;
}

/// What is on record of files that were read.
fn policies(stage: &Stage) -> Vec<Value> {
    stage.sidecar.audit().into_iter().filter(|record| record["type"] == "policy").collect()
}

fn refusals(stage: &Stage) -> usize {
    policies(stage).iter().filter(|record| record["outcome"] == "refused").count()
}

#[tokio::test]
async fn a_link_that_is_swapped_is_a_change() {
    let directory = std::sync::Arc::new(tempfile::tempdir().expect("a directory"));
    let at = |name: &str| directory.path().join(name);
    let policy = |grants: &str| ONE_API.replace(ALL, grants).replace("{dir}", directory.path().to_str().expect("text"));
    for (name, grants) in [("..1", ALL), ("..2", READ_ONLY)] {
        fs::create_dir(at(name)).expect("our directory");
        fs::write(at(name).join("policy.toml"), policy(grants)).expect("our directory");
    }
    std::os::unix::fs::symlink("..1", at("..data")).expect("a link");
    std::os::unix::fs::symlink("..data/policy.toml", at("mounted.toml")).expect("a link");
    let stage = Stage::of(ONE_API, crate::support::FakeUpstream::start(&["api.test"]).await, |builder| {
        builder.within(&directory).set("--policy", "{dir}/mounted.toml")
    })
    .await;
    let writer = stage.writer().await;
    assert_eq!(post_status(&stage, &writer).await.0, 200);
    std::os::unix::fs::symlink("..2", at("..new")).expect("a link");
    fs::rename(at("..new"), at("..data")).expect("swapped");
    told(&stage, "adopted").await;
    assert_eq!(post_status(&stage, &writer).await.1.as_deref(), Some("out_of_scope"));
}

#[tokio::test]
async fn a_hangup_reads_it_at_once_and_says_when_nothing_has_changed() {
    let stage = Stage::new().await;
    stage.sidecar.signal("HUP");
    eventually("the word", || stage.sidecar.log().contains("the policy is as it was").then_some(())).await;
    assert!(stage.sidecar.audit().iter().all(|record| record["type"] != "policy"), "nothing was adopted");
}

/// The watch reads a file once for each change of the file itself. So that it is the signal that is seen here, the file
/// is refused for what it names and does not change any more: whoever reads it again was asked to.
#[tokio::test]
async fn a_hangup_takes_a_file_that_the_watch_has_done_with_and_disturbs_nothing() {
    let stage = Stage::new().await;
    let reader = stage.reader().await;
    let mut tunnel = stage.sidecar.agent().tunnel("api.test").await;
    let under_way = tunnel.start(get("api.test", "/large?pieces=200", &reader)).await;
    rewrite(&stage, |text| {
        let text = text.replace("/api.pem\"", "/new.pem\"");
        text.replace("allow = [\"GET /{*path}\"]", "allow = [\"GET /{*path}\", \"PATCH /new\"]")
    });
    told(&stage, "refused").await;
    assert_eq!(patch_status(&stage, &reader).await, (403, Some("out_of_scope".to_owned())), "not in force");

    stage.sidecar.signal("HUP");
    eventually("another refusal of the same file", || (refusals(&stage) == 2).then_some(())).await;
    assert_eq!(get_status(&stage, &reader).await, (200, None), "the last good one is");

    fs::copy(stage.sidecar.path("api.pem"), stage.sidecar.path("new.pem")).expect("our directory");
    tokio::time::sleep(LOOKS).await;
    assert_eq!(policies(&stage).len(), 2, "nobody has read it meanwhile");
    stage.sidecar.signal("HUP");
    let record = told(&stage, "adopted").await;
    assert_eq!(patch_status(&stage, &reader).await, (200, None));
    let decision = stage.sidecar.audited(|record| record["method"] == "PATCH" && record["decision"] == "allow").await;
    assert_eq!(decision["policy.digest"], record["policy.digest"], "the new policy decided");

    assert_eq!(under_way.status(), 200);
    let body = under_way.into_body().collect().await.expect("a whole answer").to_bytes();
    assert_eq!(body.len(), 200 * PIECE.len(), "what was under way has gone on");
}

#[tokio::test]
async fn every_reading_has_the_services_on_record_whose_answers_are_not_searched() {
    let stage = Stage::new().await;
    let start = stage.sidecar.audited(|record| record["type"] == "start").await;
    assert_eq!(start["facts"]["unscrubbed"], json!([]), "{start:#}");
    let good = fs::read_to_string(stage.sidecar.path("policy.toml")).expect("the policy");
    let unscrubbed = good.replace("credential = \"api\"\n", "credential = \"api\"\nscrub = false\n");
    let api = json!(["api"]);
    for (at, (text, outcome, expected)) in [
        (unscrubbed.as_str(), "adopted", Some(&api)),
        ("not toml [", "refused", Some(&api)),
        (good.as_str(), "adopted", None),
        ("version = 2", "refused", None),
    ]
    .into_iter()
    .enumerate()
    {
        fs::write(stage.sidecar.path("policy.toml"), text).expect("our directory");
        let record = eventually("a record of it", || policies(&stage).into_iter().nth(at)).await;
        assert_eq!((&record["outcome"], record.get("unscrubbed")), (&outcome.into(), expected), "{at}: {record:#}");
    }
}

#[tokio::test]
async fn a_credential_that_moves_is_followed_and_never_echoed() {
    let (first, second) = (canary(), canary());
    let policy = ONE_API.replace("source = \"env\"\nname = \"API_KEY\"", "source = \"file\"\npath = \"{dir}/one\"");
    let upstream = crate::support::FakeUpstream::start(&["api.test"]).await;
    let stage = Stage::of(&policy, upstream, |builder| builder.file("one", &first).file("two", &second)).await;
    let reader = stage.reader().await;
    assert_eq!(get_status(&stage, &reader).await.0, 200);
    rewrite(&stage, |text| text.replace("/one\"", "/two\""));
    told(&stage, "adopted").await;
    let reply = stage.sidecar.agent().get("api.test", "/echo", &reader).await;
    assert_eq!(reply.status, 200);
    let sent = stage.upstream.seen();
    let last = sent.last().expect("a request");
    assert_eq!(last.header("authorization"), Some(format!("Bearer {second}").as_str()));
    assert!(!reply.text().contains(&second), "the new one is searched for");
}
