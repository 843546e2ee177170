//! What `valetkey audit verify` is told is an audit.

use std::process::{Command, Output};

use serde_json::Value;

use crate::support::Stage;

#[test]
fn an_emptied_audit_does_not_verify() {
    let directory = tempfile::tempdir().expect("a directory");
    for content in ["", "garbage without an end", "{\"v\":1,\"boot_id\":\""] {
        let file = directory.path().join("audit.jsonl");
        std::fs::write(&file, content).expect("a file");
        let output = Command::new(crate::support::binary())
            .args(["audit", "verify", "--json"])
            .arg(&file)
            .output()
            .expect("the binary runs");
        assert_eq!(output.status.code(), Some(6), "{content:?}");
        let answer: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!((&answer["ok"], &answer["code"]), (&false.into(), &"empty".into()));
    }
}

fn audit(arguments: &[&str]) -> Output {
    Command::new(crate::support::binary()).arg("audit").args(arguments).output().expect("the binary runs")
}

/// What a command printed, without its newline.
fn said(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

#[tokio::test]
async fn what_a_running_sidecar_says_of_its_audit_finds_a_cut_and_a_rewritten_one() {
    let stage = Stage::new().await;
    let nonce = stage.reader().await;
    assert_eq!(stage.sidecar.agent().get("api.test", "/x", &nonce).await.status, 200);
    stage.sidecar.audited(|record| record["type"] == "end").await;
    let admin = stage.sidecar.admin.to_string();
    let head = said(&audit(&["head", "--admin", &admin]));
    let key = said(&audit(&["head", "--admin", &admin, "--key"]));
    let file = stage.sidecar.path("audit.jsonl");
    let name = file.to_str().expect("a path");
    let notes = stage.sidecar.path("noted.keys");
    std::fs::write(&notes, format!("{}\n{key}\n", "0".repeat(64))).expect("a file");
    let notes = notes.to_str().expect("a path");
    let verified = json(&audit(&["verify", name, "--json", "--head", &head, "--key", notes]));
    assert_eq!((&verified["ok"], &verified["key"]), (&true.into(), &key.as_str().into()), "{verified}");
    assert_eq!(verified["signed_by_given_keys"], verified["signed_records"]);
    assert_eq!(verified["gaps_count"], 0);

    let text = std::fs::read_to_string(&file).expect("an audit");
    let cut: String = text.lines().take(2).map(|line| format!("{line}\n")).collect();
    let copy = stage.sidecar.path("cut.jsonl");
    std::fs::write(&copy, cut).expect("a file");
    let copy = copy.to_str().expect("a path");
    assert!(audit(&["verify", copy]).status.success(), "the chain alone does not show it");
    let found = audit(&["verify", copy, "--json", "--head", &head]);
    assert_eq!((found.status.code(), &json(&found)["code"]), (Some(6), &"head_missing".into()));
    let found = audit(&["verify", name, "--json", "--key", &"0".repeat(64)]);
    assert_eq!((found.status.code(), &json(&found)["code"]), (Some(6), &"key_missing".into()));
    assert_eq!(audit(&["verify", name, "--key", "neither"]).status.code(), Some(2));
}
