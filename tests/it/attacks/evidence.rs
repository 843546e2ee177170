//! The audit under attack: its file while it is written, its text afterwards, and requests that come early.

use std::process::Command;

use tokio::io::AsyncWriteExt;

use crate::support::agent::PATIENCE;
use crate::support::sidecar::eventually;
use crate::support::wire::read_answers;
use crate::support::{Stage, TestSidecar};

/// The audit of a sidecar that has served and has ended, and the same of another.
async fn over() -> (Stage, Vec<String>) {
    let mut stage = Stage::new().await;
    let nonce = stage.reader().await;
    for number in 0..3 {
        assert_eq!(stage.sidecar.agent().get("api.test", &format!("/{number}"), &nonce).await.status, 200);
    }
    stage.sidecar.signal("TERM");
    assert_eq!(stage.sidecar.wait(), Some(0));
    let lines = stage.sidecar.audit_text().lines().map(str::to_owned).collect();
    (stage, lines)
}

/// What `audit verify` says of these lines: the exit code, and the line that it names.
fn verify(sidecar: &TestSidecar, lines: &[String], flags: &[&str]) -> (Option<i32>, serde_json::Value) {
    let path = sidecar.path("judged.jsonl");
    std::fs::write(&path, lines.iter().map(|line| format!("{line}\n")).collect::<String>()).expect("a file");
    let output =
        Command::new(crate::support::binary()).args(["audit", "verify", "--json"]).args(flags).arg(&path).output();
    let output = output.expect("the binary runs");
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    (output.status.code(), said["line"].clone())
}

#[tokio::test]
async fn no_line_can_be_changed_moved_doubled_or_taken_out() {
    let (stage, lines) = over().await;
    let (_other, foreign) = over().await;
    let judged = |lines: &[String], flags: &[&str]| verify(&stage.sidecar, lines, flags);
    assert_eq!(judged(&lines, &[]), (Some(0), serde_json::Value::Null), "as it was written");
    let last = lines.len() - 1;
    for at in 1..last {
        let (mut without, mut doubled, mut swapped) = (lines.clone(), lines.clone(), lines.clone());
        without.remove(at);
        doubled.insert(at, lines[at].clone());
        swapped.swap(at, at - 1);
        let mut replaced = lines.clone();
        replaced[at].clone_from(&foreign[at]);
        let mut relabelled = lines.clone();
        relabelled[at] = lines[at].replacen("{\"v\":1,", "{\"v\":2,", 1);
        let mut emptied = lines.clone();
        emptied[at].clear();
        for (what, lines) in [
            ("taken out", without),
            ("doubled", doubled),
            ("swapped", swapped),
            ("another's", replaced),
            ("of another version", relabelled),
            ("empty", emptied),
        ] {
            let (code, line) = judged(&lines, &[]);
            assert_eq!(code, Some(6), "{what} at line {}", at + 1);
            assert!(line.as_u64().is_some_and(|line| line.abs_diff(at as u64) <= 2), "{what} at {}: {line}", at + 1);
        }
    }
    // What is missing at the end shows to whoever has noted the last hash.
    let head: serde_json::Value = serde_json::from_str(&lines[last]).expect("a record");
    let head = head["hash"].as_str().expect("a hash").to_owned();
    assert_eq!(judged(&lines, &["--head", &head]).0, Some(0));
    assert_eq!(judged(&lines[..last], &["--head", &head]).0, Some(6));
}

/// The file goes, or is emptied, while the sidecar writes on.
#[tokio::test]
async fn a_file_that_goes_away_is_not_written_to_in_the_dark() {
    let stage = Stage::new().await;
    let nonce = stage.reader().await;
    assert_eq!(stage.sidecar.agent().get("api.test", "/before", &nonce).await.status, 200);
    std::fs::remove_file(stage.sidecar.path("audit.jsonl")).expect("our file");
    for number in 0..40 {
        let before = stage.upstream.seen().len();
        let reply = stage.sidecar.agent().get("api.test", &format!("/{number}"), &nonce).await;
        if reply.status == 200 {
            // Then there is a file again, in which it is on record.
            let is_it = |record: &serde_json::Value| record["path"] == format!("/{number}");
            let audit = stage.sidecar.path("audit.jsonl");
            if audit.exists() {
                stage.sidecar.audited(is_it).await;
                return;
            }
        } else {
            assert_eq!((reply.status.as_u16(), reply.refusal()), (503, Some("audit_unavailable")));
            assert_eq!(stage.upstream.seen().len(), before, "it went upstream without a record");
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("nobody noticed that the audit is gone");
}

#[tokio::test]
async fn a_file_that_is_emptied_shows_to_whoever_noted_its_head() {
    let stage = Stage::new().await;
    let nonce = stage.reader().await;
    assert_eq!(stage.sidecar.agent().get("api.test", "/before", &nonce).await.status, 200);
    stage.sidecar.audited(|record| record["type"] == "end").await;
    let noted = stage.sidecar.audit().pop().expect("a record");
    let file = std::fs::OpenOptions::new().write(true).open(stage.sidecar.path("audit.jsonl")).expect("our file");
    file.set_len(0).expect("our file");
    assert_eq!(stage.sidecar.agent().get("api.test", "/after", &nonce).await.status, 200);
    stage.sidecar.audited(|record| record["type"] == "end").await;
    assert!(!stage.sidecar.audit_text().contains('\0'), "no hole where records were");
    // It goes on as a file that follows another one: who has that other one sees that there is none.
    let first = stage.sidecar.audit().remove(0);
    assert_eq!((&first["type"], &first["prev"]), (&"rotated".into(), &noted["hash"]), "{first:#}");
    let lines: Vec<String> = stage.sidecar.audit_text().lines().map(str::to_owned).collect();
    let head = noted["hash"].as_str().expect("a hash").to_owned();
    assert_eq!(verify(&stage.sidecar, &lines[1..], &["--head", &head]).0, Some(6));
}

/// What is refused before there is a policy to ask is on record all the same.
#[tokio::test]
async fn what_is_refused_early_is_on_record() {
    let stage = Stage::new().await;
    let agent = stage.sidecar.agent();
    let many: String = (0..300).map(|number| format!("X-{number}: y\r\n")).collect();
    let outside: [(&str, String); 5] = [
        ("clear text to a listed host", "GET http://api.test/x HTTP/1.1\r\nHost: api.test\r\n\r\n".into()),
        ("no proxy request", "GET /x HTTP/1.1\r\nHost: api.test\r\n\r\n".into()),
        ("two hosts", "GET http://api.test/x HTTP/1.1\r\nHost: api.test\r\nHost: b\r\n\r\n".into()),
        ("a CONNECT without a port", "CONNECT api.test HTTP/1.1\r\nHost: api.test\r\n\r\n".into()),
        ("no HTTP", "\x16\x03garbage\r\n\r\n".into()),
    ];
    for (what, bytes) in &outside {
        let before = refused(&stage);
        let answer = agent.raw(bytes.as_bytes()).await;
        eventually(&format!("a record of {what}: {answer}"), || (refused(&stage) > before).then_some(())).await;
    }
    let inside = [
        ("a head that is no head", "GET  /x HTTP/1.1\r\nHost: api.test\r\n\r\n".to_owned()),
        (
            "two lengths",
            "POST /x HTTP/1.1\r\nHost: api.test\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab".into(),
        ),
        ("too many fields", format!("GET /x HTTP/1.1\r\nHost: api.test\r\n{many}\r\n")),
        ("another host", "GET /x HTTP/1.1\r\nHost: evil.test\r\n\r\n".into()),
        ("no nonce", "GET /x HTTP/1.1\r\nHost: api.test\r\n\r\n".into()),
    ];
    for (what, bytes) in &inside {
        let before = refused(&stage);
        let mut stream = agent.tls_tunnel("api.test", "api.test", &[b"http/1.1"]).await.expect("TLS");
        stream.write_all(bytes.as_bytes()).await.expect("writable");
        let answer = read_answers(&mut stream, 1, PATIENCE).await;
        assert!(answer.starts_with("HTTP/1.1 4"), "{what}: {answer}");
        eventually(&format!("a record of {what}"), || (refused(&stage) > before).then_some(())).await;
    }
    assert_eq!(stage.upstream.connections(), 0);
}

fn refused(stage: &Stage) -> usize {
    stage.sidecar.audit().iter().filter(|record| record["code"].is_string() || record["decision"] == "deny").count()
}
