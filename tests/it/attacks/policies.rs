//! Policy files that are wrong, half there or too large, and policies that change faster than requests end.

use std::fs;

use crate::support::Stage;
use crate::support::agent::get;
use crate::support::sidecar::eventually;

const READ_ONLY: &str = r#"grants = { api = ["read"] }"#;
const ALL: &str = r#"grants = { api = ["read", "write", "once"] }"#;
/// How often the policy changes.
const CHANGES: usize = 100;
/// What the process may hold more afterwards, in KiB.
const GROWTH_KIB_MAX: u64 = 16 * 1024;

fn told(stage: &Stage, outcome: &str) -> usize {
    let is_it = |record: &&serde_json::Value| record["type"] == "policy" && record["outcome"] == outcome;
    stage.sidecar.audit().iter().filter(is_it).count()
}

#[tokio::test]
async fn half_a_file_and_one_without_end_change_nothing() {
    let stage = Stage::new().await;
    let (reader, path) = (stage.reader().await, stage.sidecar.path("policy.toml"));
    let whole = fs::read_to_string(&path).expect("the policy");
    let before = stage.sidecar.status("VmHWM");
    // Cut where TOML is still TOML: what is missing is what grants refer to.
    let half = &whole[..whole.find("[[services.api.scopes]]").expect("scopes")];
    let huge = format!("{whole}\n# {}\n", "x".repeat(64 * 1024 * 1024));
    let deep = format!("version = 1\na = {}1{}\n", "[".repeat(100_000), "]".repeat(100_000));
    for (what, text) in [("half", half), ("huge", &huge), ("deep", &deep), ("no text", "version = 1\n\0")] {
        let known = told(&stage, "refused");
        fs::write(&path, text).expect("our directory");
        stage.sidecar.signal("HUP");
        eventually(what, || (told(&stage, "refused") > known).then_some(())).await;
        assert_eq!(stage.sidecar.agent().get("api.test", "/x", &reader).await.status, 200, "{what}");
        assert_eq!(stage.sidecar.admin_get("/readyz").await.status, 200, "{what}: it goes on with the last good one");
    }
    let after = stage.sidecar.status("VmHWM");
    assert!(after < before + GROWTH_KIB_MAX, "a file without end is not read to its end: {before} to {after} KiB");
    fs::write(&path, whole.replace(ALL, READ_ONLY)).expect("our directory");
    stage.sidecar.signal("HUP");
    eventually("the change", || (told(&stage, "adopted") > 0).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_changes_drops_no_request_and_the_last_one_holds() {
    let stage = std::sync::Arc::new(Stage::new().await);
    let (reader, writer) = (stage.reader().await, stage.writer().await);
    let path = stage.sidecar.path("policy.toml");
    let all = fs::read_to_string(&path).expect("the policy");
    let read_only = all.replace(ALL, READ_ONLY);
    let before = stage.sidecar.status("VmRSS");
    let asking = {
        let (stage, reader) = (stage.clone(), reader.clone());
        tokio::spawn(async move {
            let mut tunnels =
                [stage.sidecar.agent().tunnel("api.test").await, stage.sidecar.agent().tunnel_h2("api.test").await];
            for number in 0..150 {
                for tunnel in &mut tunnels {
                    let reply = tunnel.send(get("api.test", &format!("/{number}"), &reader)).await;
                    assert_eq!(reply.status, 200, "{number}: {}", reply.text());
                }
            }
        })
    };
    let draft = stage.sidecar.path("policy.draft");
    for number in 0..CHANGES {
        fs::write(&draft, if number % 2 == 0 { &read_only } else { &all }).expect("our directory");
        fs::rename(&draft, &path).expect("our directory");
        stage.sidecar.signal("HUP");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    asking.await.expect("every request is answered");
    assert!(told(&stage, "adopted") >= 2, "it did change");
    let known = told(&stage, "adopted");
    fs::write(&draft, format!("# the last one\n{read_only}")).expect("our directory");
    fs::rename(&draft, &path).expect("our directory");
    stage.sidecar.signal("HUP");
    let request = || super::request("POST /x", "Content-Length: 0\r\n", &writer, "");
    for attempt in 0.. {
        assert!(attempt < 100, "the last policy does not hold ({known} changes)");
        let answer = super::send(&stage, &request()).await;
        if super::outcome(&answer) == (403, Some("out_of_scope")) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let after = stage.sidecar.status("VmRSS");
    assert!(after < before + 2 * GROWTH_KIB_MAX, "from {before} to {after} KiB");
}
