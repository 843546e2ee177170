//! `valetkey demo`: one command on a machine where nothing was prepared, and an exit code that can be believed.

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};

use crate::support::Agent;

/// Longest that a test waits for the demo; it takes about two seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// The demo in a directory where there is nothing, with nothing of ours in its environment.
fn demo(directory: &Path, flags: &[&str]) -> Command {
    let mut command = Command::new(crate::support::binary());
    command
        .arg("demo")
        .args(flags)
        .env_clear()
        .env("TMPDIR", directory)
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

async fn output(command: &mut Command) -> Output {
    tokio::time::timeout(PATIENCE, command.output()).await.expect("it ends in time").expect("it starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

fn assert_empty(directory: &Path) {
    let left: Vec<_> =
        std::fs::read_dir(directory).expect("a directory").map(|entry| entry.map(|e| e.path())).collect();
    assert!(left.is_empty(), "it left something behind: {left:?}");
}

#[tokio::test]
async fn every_promise_holds() {
    let directory = tempfile::tempdir().expect("a directory");
    let output = output(&mut demo(directory.path(), &["--json"])).await;
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(output.status.success(), "{told:#}\n{}", text(&output.stderr));
    let scenes = told["scenes"].as_array().expect("scenes");
    assert_eq!((&told["ok"], &told["promises"]), (&true.into(), &scenes.len().into()));
    assert_eq!(told["promises_held"], told["promises"]);
    assert_eq!(scenes.len(), 8);
    for scene in scenes {
        let checks = scene["checks"].as_array().expect("checks");
        assert!(!checks.is_empty() && !scene["story"].as_array().expect("a story").is_empty(), "{scene:#}");
        assert!(scene["held"] == true && checks.iter().all(|check| check["held"] == true), "{scene:#}");
    }
    assert_eq!(text(&output.stderr), "");
    assert_empty(directory.path());
}

#[tokio::test]
async fn what_the_user_has_set_up_does_not_matter() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut command = demo(directory.path(), &["--json"]);
    for (name, value) in [
        ("VALETKEY_POLICY", "/nowhere/policy.toml"),
        ("VALETKEY_CA_DIR", "/nowhere/certs"),
        ("VALETKEY_AUDIT", "/nowhere/audit.jsonl"),
        ("VALETKEY_LISTEN", "192.0.2.1:1"),
        ("HTTPS_PROXY", "http://192.0.2.1:1"),
        ("SSL_CERT_FILE", "/nowhere/roots.pem"),
        ("XDG_RUNTIME_DIR", "/nowhere"),
    ] {
        command.env(name, value);
    }
    let output = output(&mut command).await;
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
}

#[tokio::test]
async fn the_account_is_readable_and_keeps_its_secrets() {
    let directory = tempfile::tempdir().expect("a directory");
    let output = output(demo(directory.path(), &[]).env("LANG", "C")).await;
    let account = text(&output.stdout);
    assert!(output.status.success(), "{account}");
    assert!(account.contains("8 of 8 promises held"), "{account}");
    assert!(account.is_ascii(), "neither colours nor letters that the locale does not have");
    assert!(!account.contains('\u{1b}') && !account.contains("FAILED"), "{account}");
    // A whole canary has 32 hexadecimal digits in a row.
    let longest = account.split(|c: char| !c.is_ascii_hexdigit()).map(str::len).max();
    assert!(longest < Some(32), "a secret is shown in full: {account}");
    let utf8 = demo(directory.path(), &[]).env("LANG", "C.UTF-8").output().await.expect("it starts");
    assert!(text(&utf8.stdout).contains('✓'));
}

/// A demo that goes on running, and what it said until then.
async fn kept(directory: &Path) -> (Child, BufReader<ChildStdout>, String) {
    let mut child = demo(directory, &["--keep"]).spawn().expect("it starts");
    let mut output = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut account = String::new();
    while !account.contains("Ctrl-C ends it") {
        let line = tokio::time::timeout(PATIENCE, output.read_line(&mut account)).await;
        assert!(line.expect("a line in time").expect("a line") > 0, "it ended early: {account}");
    }
    (child, output, account)
}

/// The value of a variable among the lines that it tells to export.
fn exported<'a>(account: &'a str, name: &str) -> &'a str {
    let assignment = format!("{name}=");
    let lines = account.lines().filter(|line| line.trim_start().starts_with("export "));
    let value = lines.flat_map(str::split_whitespace).find_map(|word| word.strip_prefix(&*assignment));
    value.unwrap_or_else(|| panic!("{name} is not told: {account}"))
}

async fn interrupt(mut child: Child, mut output: BufReader<ChildStdout>) -> (Option<i32>, String) {
    let pid = child.id().expect("it runs").to_string();
    let sent = Command::new("kill").args(["-INT", &pid]).status().await.expect("kill");
    assert!(sent.success());
    let mut rest = String::new();
    tokio::time::timeout(PATIENCE, output.read_to_string(&mut rest)).await.expect("it ends in time").expect("text");
    (child.wait().await.expect("a child").code(), rest)
}

#[tokio::test]
async fn kept_running_it_can_be_tried() {
    let directory = tempfile::tempdir().expect("a directory");
    let (child, output, account) = kept(directory.path()).await;
    let proxy = exported(&account, "HTTPS_PROXY").strip_prefix("http://").expect("a URL").parse().expect("an address");
    let ca = std::fs::read_to_string(exported(&account, "CURL_CA_BUNDLE")).expect("the CA");
    let nonce = exported(&account, "NONCE");
    let agent = Agent::new(proxy, &ca);
    let reply = agent.get("api.stripe.com", "/v1/customers", nonce).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let refused = agent.get("api.stripe.com", "/v1/refunds", nonce).await;
    assert_eq!(refused.refusal(), Some("out_of_scope"));

    let (code, rest) = interrupt(child, output).await;
    assert_eq!(code, Some(0), "{rest}");
    assert!(rest.contains("8 of 8 promises held"), "what was tried does not spoil the count: {rest}");
    assert_empty(directory.path());
}

#[tokio::test]
async fn an_audit_that_somebody_edits_meanwhile_fails_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let (child, output, account) = kept(directory.path()).await;
    let socket = Path::new(exported(&account, "VALETKEY_CONTROL"));
    let audit = socket.ancestors().nth(2).expect("the demo's directory").join("audit.jsonl");
    let text = std::fs::read_to_string(&audit).expect("the audit");
    assert!(text.contains("out_of_scope"));
    // In place and of the same length, so that the sidecar goes on writing behind it.
    std::fs::write(&audit, text.replace("out_of_scope", "0ut_of_scope")).expect("writable");

    let (code, rest) = interrupt(child, output).await;
    assert_eq!(code, Some(1), "{rest}");
    assert!(rest.contains("7 of 8 promises held") && rest.contains("FAILED"), "{rest}");
}

#[tokio::test]
async fn ended_early_it_fails_and_leaves_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut child = demo(directory.path(), &[]).spawn().expect("it starts");
    let mut output = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut first = String::new();
    output.read_line(&mut first).await.expect("a line");
    let (code, rest) = interrupt(child, output).await;
    assert_eq!(code, Some(1), "{rest}");
    assert!(!rest.contains("promises held"), "{rest}");
    assert_empty(directory.path());
}
