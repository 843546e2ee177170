//! A follower of the audit whom a new policy lets follow no more: what is open for it ends.

use std::fs;
use std::time::Duration;

use serde_json::Value;
use valetkey::control::client::{Client, Events};

use crate::support::{Stage, policies};

fn policy() -> String {
    let uid = rustix::process::geteuid().as_raw();
    let minter = "[minters.watcher]\nidentity = [\"uid:{uid}\"]\nagents = [\"worker\"]\nmay = [\"mint\", \"read\", \"events\"]\n";
    format!("{}\n{}", policies::ONE_API, minter.replace("{uid}", &uid.to_string()))
}

/// Changes the policy file and waits until that is in force.
async fn rewrite(stage: &Stage, from: &str, to: &str) {
    let path = stage.sidecar.path("policy.toml");
    let text = fs::read_to_string(&path).expect("the policy");
    assert!(text.contains(from));
    fs::write(path, text.replace(from, to)).expect("our directory");
    let is_it = |record: &Value| record["type"] == "policy" && record["outcome"] == "adopted";
    stage.sidecar.audited(is_it).await;
}

/// True if it ends without another record.
async fn ends(events: &mut Events) -> bool {
    let next = tokio::time::timeout(Duration::from_secs(5), events.next()).await;
    next.is_ok_and(|next| !matches!(next, Ok(Some(_))))
}

#[tokio::test]
async fn a_stream_of_events_ends_with_the_permission_to_follow() {
    let stage = Stage::of_policy(&policy()).await;
    let client = Client::new(&stage.sidecar.control());
    let (mut all, mut one) =
        (client.events(None, None).await.unwrap(), client.events(Some("worker"), None).await.unwrap());
    let nonce = stage.reader().await;
    for events in [&mut all, &mut one] {
        assert_eq!(events.next().await.unwrap().unwrap()["type"], "mint");
    }
    rewrite(&stage, ", \"events\"]", "]").await;
    assert_eq!(stage.sidecar.agent().get("api.test", "/x", &nonce).await.status, 200);
    assert!(ends(&mut all).await && ends(&mut one).await, "nothing of what came after is shown");
    assert!(client.events(None, None).await.is_err());
}
