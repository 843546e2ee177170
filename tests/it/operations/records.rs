//! What `valetkey audit verify` is told is an audit.

use std::process::Command;

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
