//! `audit` and `health` against a sidecar that runs.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::Stdio;

use serde_json::Value;

use super::{Desk, Done};
use crate::support::Stage;
use crate::support::agent::get;

/// A sidecar that allowed one request and refused one; its audit's path.
async fn busy() -> (Stage, String) {
    let stage = Stage::new().await;
    let nonce = stage.reader().await;
    let mut tunnel = stage.sidecar.agent().tunnel("api.test").await;
    assert_eq!(tunnel.send(get("api.test", "/x", &nonce)).await.status, 200);
    assert_eq!(tunnel.send(get("api.test", "/y", "an_none")).await.status, 401);
    stage.sidecar.audited(|record| record["type"] == "end" && record["code"].is_string()).await;
    let audit = stage.sidecar.path("audit.jsonl").to_str().expect("a path").to_owned();
    (stage, audit)
}

#[tokio::test]
async fn a_running_audit_is_whole_and_an_edit_shows() {
    let (_stage, audit) = busy().await;
    let desk = Desk::new();
    desk.run(&["audit", "verify", &audit]).ends(0).shows("is whole").shows("starts");
    let whole = desk.run(&["audit", "verify", &audit, "--json"]).ends(0).json();
    assert_eq!((&whole["ok"], &whole["boots"], &whole["continues"]), (&true.into(), &1.into(), &Value::Null));
    let head = whole["head"].as_str().unwrap();
    desk.run(&["audit", "verify", &audit, "--head", head]).ends(0);
    desk.run(&["audit", "verify", &audit, "--head", &"0".repeat(63)]).ends(2).says("--head");
    desk.run(&["audit", "verify", &audit, "--head", &"ab".repeat(32)]).ends(6).says("no record has the given head");

    let text = std::fs::read_to_string(&audit).unwrap();
    desk.write("edited", &text.replacen("\"allow\"", "\"deny_\"", 1));
    let line = 1 + text.lines().position(|line| line.contains("\"allow\"")).unwrap();
    desk.run(&["audit", "verify", "edited"]).ends(6).says(&format!("line {line}: the record was changed"));
    let broken = desk.run(&["audit", "verify", "edited", "--json"]).ends(6).json();
    assert_eq!((&broken["line"], &broken["code"]), (&line.into(), &"edited".into()));
    desk.write("cut", &text.lines().skip(1).map(|line| format!("{line}\n")).collect::<String>());
    desk.run(&["audit", "verify", "cut"]).ends(6).says("line 1");
    desk.write("torn", text.strip_suffix('\n').unwrap());
    desk.run(&["audit", "verify", "torn"]).ends(0).says("after the last record");
    desk.run(&["audit", "verify", "missing"]).ends(6).says("missing");
    desk.write("whole", &text);
    desk.sh("\"$V\" audit verify - < whole").ends(0).shows("is whole");
    desk.sh("\"$V\" audit verify - < edited").ends(6);
}

#[tokio::test]
async fn records_are_shown_filtered() {
    let (_stage, audit) = busy().await;
    let desk = Desk::new();
    let tail = |filters: &[&str]| desk.run(&[&["audit", "tail", &audit][..], filters].concat()).ends(0);
    let everything = tail(&[]);
    assert!(everything.out.lines().count() >= 6 && everything.err.is_empty(), "{}", everything.out);
    let denied = tail(&["--decision", "deny", "--code", "nonce_unknown"]);
    assert_eq!(denied.out.lines().count(), 1 + usize::from(denied.out.contains(" end ")), "{}", denied.out);
    denied.shows("nonce_unknown");
    let allowed =
        tail(&["--type", "decision", "--decision", "allow", "--agent", "worker", "--service", "api", "--json"]);
    assert_eq!(allowed.json()["path"], "/x");
    assert!(tail(&["--agent", "nobody"]).out.is_empty());
    assert_eq!(tail(&["-n", "2"]).out.lines().count(), 2);
    for line in tail(&["--json"]).out.lines() {
        serde_json::from_str::<Value>(line).expect("a record");
    }
    desk.run(&["audit", "tail", "missing"]).ends(1).says("serve --audit");
    desk.run(&["audit", "tail", "-"]).ends(2);
}

#[tokio::test]
async fn a_tail_follows_and_ends_with_its_reader() {
    let (stage, audit) = busy().await;
    let desk = Desk::new();
    let mut command = desk.command(&["audit", "tail", &audit, "--follow", "--last", "1", "--type", "mint", "--json"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary starts");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut next = || {
        let mut line = String::new();
        lines.read_line(&mut line).expect("a line");
        serde_json::from_str::<Value>(&line).expect("a record")
    };
    assert_eq!(next()["task"], "task-1");
    let minted = stage.sidecar.orchestrator().mint("worker", "api", "write").await;
    assert_eq!(next()["nonce.id"], minted.id.as_str());
    drop(lines);
    stage.sidecar.orchestrator().mint("worker", "api", "write").await;
    let mut said = String::new();
    child.stderr.take().expect("a pipe").read_to_string(&mut said).expect("text");
    assert_eq!((child.wait().expect("a child").code(), said.as_str()), (Some(0), ""));
}

#[tokio::test]
async fn a_sidecar_that_is_ready_says_so() {
    let stage = Stage::new().await;
    let desk = Desk::new();
    let admin = stage.sidecar.admin.to_string();
    desk.run(&["health", "--admin", &admin]).ends(0).shows("ready\n").shows("audit");
    let health = desk.run(&["health", "--admin", &admin, "--json"]).ends(0).json();
    assert_eq!((&health["ready"], &health["checks"]["audit"]), (&true.into(), &"ok".into()));
    let proxy = stage.sidecar.proxy.to_string();
    desk.run(&["health", "--admin", &proxy]).ends(7).says("not valetkey's admin listener");
}

/// Asks a listener that gives this answer, once.
fn health_of(answer: &str, more: &[&str]) -> Done {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let admin = listener.local_addr().expect("an address").to_string();
    let answer = answer.to_owned();
    let serving = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut seen = Vec::new();
        while !seen.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("a request");
            seen.push(byte[0]);
        }
        stream.write_all(answer.as_bytes()).expect("writable");
    });
    let done = Desk::new().run(&[&["health", "--admin", &admin][..], more].concat());
    serving.join().expect("it was asked");
    done
}

fn http(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

#[test]
fn what_is_not_ready_says_why_and_ends_with_7() {
    let ill = http("503 No", r#"{"checks":{"audit":"the disk is full","x":"ok"},"ready":false}"#);
    health_of(&ill, &[]).ends(7).says("not ready: audit: the disk is full\n");
    assert_eq!(health_of(&ill, &["--json"]).ends(7).json()["ready"], false);
    for answer in [
        http("503 No", r#"{"checks":{},"ready":true}"#),
        http("200 OK", r#"{"checks":{},"ready":false}"#),
        http("200 OK", "ok"),
        "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{".to_owned(),
        "nonsense\r\n\r\n".to_owned(),
        String::new(),
    ] {
        health_of(&answer, &[]).ends(7);
    }
    health_of(&http("200 OK", r#"{"checks":{},"ready":true}"#), &[]).ends(0);
}

#[test]
fn where_nobody_listens_health_ends_with_7() {
    let free = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    Desk::new().run(&["health", "--admin", &free.to_string()]).ends(7).says("valetkey serve");
}
