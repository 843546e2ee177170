//! What callers of the control API and of the admin listener should not send.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::control::tcp::{policy, scene};
use crate::support::agent::PATIENCE;
use crate::support::orchestrator::{get, post};
use crate::support::remote::write;
use crate::support::wire::read_answers;
use crate::support::{Stage, canary};

/// Every call that takes a body; `{id}` is that of a live nonce.
const CALLS: [&str; 8] = [
    "/v1/nonces",
    "/v1/nonces/{id}/renew",
    "/v1/nonces/{id}/delegate",
    "/v1/revocations",
    "/v1/introspect",
    "/v1/explain",
    "/v1/risk",
    "/v1/leaks",
];

/// A body of this mint with one thing more at its end.
fn mint_and(more: &str) -> String {
    format!("{{\"agent\":\"worker\",\"task\":\"t\",\"service\":\"api\",\"scope\":\"read\",{more}}}")
}

#[expect(clippy::too_many_lines, reason = "a table: one body after the other")]
#[tokio::test]
async fn bodies_are_read_strictly_whatever_they_are() {
    let stage = Stage::new().await;
    let orchestrator = stage.sidecar.orchestrator();
    let live = orchestrator.mint("worker", "api", "read").await;
    let deep = |open: &str, close: &str, depth: usize| open.repeat(depth) + "1" + &close.repeat(depth);
    let mut bodies: Vec<String> = [
        "",
        "null",
        "true",
        "1",
        "\"x\"",
        "[]",
        "[{}]",
        "{",
        "{}}",
        "{}{}",
        "{} x",
        "{,}",
        "{\"a\"}",
        "{'agent':1}",
        "\u{feff}{}",
        "{\"__proto__\":{\"may\":[\"mint\"]}}",
        "{\"\":1}",
        "{\"agent\\u0000\":1}",
        "{\"agent\":\"\\ud800\"}",
        "/**/{}",
        "{\"agent\":NaN}",
        "{\"ttl\":1e999}",
        "{\"ttl\":-1}",
        "{\"ttl\":0x10}",
        "{\"ttl\":01}",
        "<a/>",
        "agent=worker",
    ]
    .map(str::to_owned)
    .into();
    for depth in [17, 1_000, 20_000] {
        bodies.push(deep("[", "]", depth));
        bodies.push(deep("{\"labels\":", "}", depth));
    }
    for more in [
        "\"agent\":\"other\"",
        "\"ag\\u0065nt\":\"other\"",
        "\"id\":\"nc_mine\"",
        "\"nonce\":\"an_mine\"",
        "\"minted_by\":\"root\"",
        "\"expires_at\":\"2100-01-01T00:00:00Z\"",
        "\"uses_left\":9",
        "\"identity\":[\"any\"]",
        "\"credential\":\"api\"",
        "\"may\":[\"mint\"]",
        "\"depth\":0",
        "\"risk\":\"low\"",
        "\"Agent\":\"worker\"",
        "\"labels\":{\"a\":\"1\",\"a\":\"2\"}",
        "\"labels\":{\"a\":{}}",
        "\"labels\":null",
        "\"max_uses\":1.5",
        "\"max_uses\":1e3",
        "\"max_uses\":-0",
        "\"max_uses\":18446744073709551616",
        "\"max_uses\":99999999999999999999999999",
        "\"max_uses\":\"1\"",
        "\"max_uses\":true",
        "\"ttl\":4294967296",
        "\"ttl\":1e2",
        "\"ttl\":\"1e2s\"",
        "\"ttl\":\"-1s\"",
        "\"ttl\":[]",
        "\"reason\":\"\\u0000\"",
        "\"reason\":\"\\u001b[2J\"",
        "\"canary\":1",
        "\"canary\":\"true\"",
        "\"grants\":[]",
        "\"rules\":[]",
    ] {
        bodies.push(mint_and(more));
    }
    let no_text = [&b"{\"agent\":\""[..], &[0xff, 0xfe], b"\"}"].concat();
    for call in CALLS {
        let path = call.replace("{id}", &live.id);
        for body in &bodies {
            // A renewal goes without a body, and `null` is none.
            if (body.is_empty() || body == "null") && call.ends_with("/renew") {
                continue;
            }
            let (status, headers, answer) = orchestrator.exchange(post(&path, "application/json", body)).await;
            let shown: String = body.chars().take(80).collect();
            assert!(status.is_client_error(), "{call} {shown}: {status} {answer:?}");
            assert_eq!(headers["content-type"], "application/problem+json", "{call} {shown}");
            let problem: Value = serde_json::from_slice(&answer).expect("JSON");
            assert_eq!(problem["status"], status.as_u16(), "{call} {shown}");
        }
        let mut request = post(&path, "application/json", "");
        *request.body_mut() = http_body_util::Full::from(no_text.clone());
        assert_eq!(orchestrator.exchange(request).await.0, 400, "{call}: no text");
    }
    let mints = stage.sidecar.audit().iter().filter(|record| record["type"] == "mint").count();
    assert_eq!(mints, 1, "the first alone");
    let (status, lease) = orchestrator.call("GET", &format!("/v1/nonces/{}", live.id), None).await;
    assert_eq!((status.as_u16(), &lease["id"]), (200, &live.id.clone().into()), "nothing has ended it");
}

/// Bytes on the control socket; one whole answer, or everything until it closes.
async fn said_to(stage: &Stage, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(stage.sidecar.control()).await.expect("the control socket");
    // It may have heard enough before the end.
    let _ = stream.write_all(bytes).await;
    let answer = read_answers(&mut stream, 1, PATIENCE).await;
    stage.assert_clean(answer.as_bytes(), "an answer");
    answer
}

#[tokio::test]
async fn heads_and_bodies_have_an_end() {
    let stage = Stage::new().await;
    let head = "POST /v1/nonces HTTP/1.1\r\nHost: valetkey\r\nContent-Type: application/json\r\n";
    let chunks =
        format!("{head}Transfer-Encoding: chunked\r\n\r\n{}", "1000\r\n".to_owned() + &" ".repeat(4096) + "\r\n");
    let chunks = chunks + &("1000\r\n".to_owned() + &" ".repeat(4096) + "\r\n").repeat(40);
    let fields: String = (0..200).map(|number| format!("X-{number}: y\r\n")).collect();
    let wide = "a".repeat(40_000);
    for (what, bytes, statuses) in [
        ("a length beyond the limit", format!("{head}Content-Length: 10000000000\r\n\r\n"), &["413", "400"][..]),
        ("chunks without an end", chunks, &["413"]),
        ("many fields", format!("GET /v1/whoami HTTP/1.1\r\nHost: valetkey\r\n{fields}\r\n"), &["431"]),
        ("a wide field", format!("GET /v1/whoami HTTP/1.1\r\nHost: valetkey\r\nX: {wide}\r\n\r\n"), &["431", "400"]),
        ("a long target", format!("GET /v1/{wide} HTTP/1.1\r\nHost: valetkey\r\n\r\n"), &["431", "414", "400"]),
        ("two lengths", format!("{head}Content-Length: 2\r\nContent-Length: 3\r\n\r\n{{}}"), &["400"]),
        (
            "length and chunks",
            format!("{head}Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
            &["400"],
        ),
        ("another method", "TRACE /v1/whoami HTTP/1.1\r\nHost: valetkey\r\n\r\n".to_owned(), &["405", "404"]),
        ("no method", "\x16\x03\x01\x02\r\n\r\n".to_owned(), &["400"]),
    ] {
        let answer = said_to(&stage, bytes.as_bytes()).await;
        let status = answer.split(' ').nth(1).unwrap_or("closed");
        assert!(status == "closed" || statuses.contains(&status), "{what}: {answer}");
    }
    // A body that does not come keeps one connection for some seconds, and nobody else.
    let mut waiting = Vec::new();
    for _ in 0..64 {
        let mut stream = UnixStream::connect(stage.sidecar.control()).await.expect("the control socket");
        stream.write_all(format!("{head}Content-Length: 100\r\n\r\n{{").as_bytes()).await.expect("writable");
        waiting.push(stream);
    }
    stage.reader().await;
    let mut last = waiting.pop().expect("one");
    let mut answer = String::new();
    let reading = tokio::time::timeout(PATIENCE, last.read_to_string(&mut answer)).await.expect("an end in time");
    assert!(reading.is_ok() && answer.starts_with("HTTP/1.1 408"), "{answer}");
}

#[tokio::test]
async fn whoever_sends_too_much_hears_of_it() {
    let stage = Stage::new().await;
    let large = " ".repeat(600_000);
    let wrong = |path: &str, fields: &str| format!("POST {path} HTTP/1.1\r\nHost: valetkey\r\n{fields}");
    for (what, head, status) in [
        ("too long", wrong("/v1/nonces", "Content-Type: application/json\r\n"), "413"),
        ("of another type", wrong("/v1/nonces", "Content-Type: text/plain\r\n"), "415"),
        ("for nothing that is here", wrong("/v1/none", "Content-Type: application/json\r\n"), "404"),
        ("for another host", wrong("/v1/nonces", "Content-Type: application/json\r\nHost: elsewhere\r\n"), "403"),
    ] {
        let mut stream = UnixStream::connect(stage.sidecar.control()).await.expect("the control socket");
        let length = large.len();
        let sent = format!("{head}Content-Length: {length}\r\n\r\n{large}");
        // All of it first: a caller that only writes must not be cut off while it does.
        stream.write_all(sent.as_bytes()).await.unwrap_or_else(|error| panic!("{what}: {error}"));
        let answer = read_answers(&mut stream, 1, PATIENCE).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{what}: {answer}");
    }
    // There is an end to it, and whoever waits to be asked is not asked.
    let head = wrong("/v1/none", "Content-Type: application/json\r\nContent-Length: 99000000\r\n");
    let mut stream = UnixStream::connect(stage.sidecar.control()).await.expect("the control socket");
    let sent = async {
        stream.write_all(format!("{head}\r\n").as_bytes()).await?;
        for _ in 0..165 {
            stream.write_all(large.as_bytes()).await?;
        }
        Ok::<_, std::io::Error>(())
    };
    assert!(tokio::time::timeout(PATIENCE, sent).await.expect("an end in time").is_err(), "all of it was read");
    let answer = said_to(&stage, format!("{head}Expect: 100-continue\r\n\r\n").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
}

#[tokio::test]
async fn what_was_asked_is_not_shown_as_a_page() {
    let stage = Stage::new().await;
    let tag = "<script>alert(1)</script>";
    let coded = "%3Cscript%3Ealert(1)%3C%2Fscript%3E";
    for listener in ["control", "admin"] {
        for request in [
            format!("GET /{coded} HTTP/1.1\r\nHost: valetkey\r\n\r\n"),
            format!("GET /v1/nonces/{coded} HTTP/1.1\r\nHost: valetkey\r\n\r\n"),
            format!("GET /v1/nonces?{coded}={coded} HTTP/1.1\r\nHost: valetkey\r\n\r\n"),
            format!("GET /v1/whoami HTTP/1.1\r\nHost: {tag}\r\n\r\n"),
            format!("GET /v1/whoami HTTP/1.1\r\nHost: valetkey\r\nOrigin: {tag}\r\n\r\n"),
            format!("GET /readyz?verbose={coded} HTTP/1.1\r\nHost: evil.test\r\nX-Forwarded-Host: evil.test\r\n\r\n"),
            format!("{tag} /livez HTTP/1.1\r\nHost: valetkey\r\n\r\n"),
        ] {
            let answer = if listener == "control" {
                said_to(&stage, request.as_bytes()).await
            } else {
                stage.sidecar.agent().at(stage.sidecar.admin).raw(request.as_bytes()).await
            };
            let lower = answer.to_ascii_lowercase();
            assert!(!lower.contains("text/html") && !lower.contains("\r\nlocation:"), "{listener} {request}: {answer}");
            // A mistake is pointed at in JSON, for an orchestrator's log; no browser takes that for a page.
            let is_data = lower.contains("application/problem+json") && lower.contains("nosniff");
            for text in [tag, coded, "evil.test"] {
                assert!(!answer.contains(text) || (is_data && text == coded), "{listener} repeats {text}: {answer}");
            }
        }
    }
    let body = json!({"agent": tag, "task": tag, tag: 1}).to_string();
    let (status, headers, _) =
        stage.sidecar.orchestrator().exchange(post("/v1/nonces", "application/json", &body)).await;
    assert_eq!(
        (status.as_u16(), &headers["content-type"]),
        (400, &"application/problem+json".parse().expect("a value"))
    );
}

#[tokio::test]
async fn nothing_that_is_asked_for_brings_a_credential_or_the_policy() {
    let stage = Stage::new().await;
    let orchestrator = stage.sidecar.orchestrator();
    let minted = orchestrator.mint("worker", "api", "read").await;
    for path in [
        "/v1/services",
        "/v1/whoami",
        "/v1/nonces",
        "/v1/ready",
        "/ca.pem",
        "/openapi.json",
        "/metrics",
        "/debug",
        "/v1/policy",
        "/v1/credentials",
        "/v1/credentials/api",
        "/v1/config",
        "/v1/agents",
        "/v1/minters",
        "/v1/audit",
        "/debug/pprof/heap",
    ] {
        let (status, headers, body) = orchestrator.exchange(get(path)).await;
        assert!(status == 200 || status == 404, "{path}: {status}");
        stage.assert_clean(&body, path);
        let all = format!("{headers:?}{}", String::from_utf8_lossy(&body));
        for text in [minted.nonce.as_str(), "API_KEY", "PRIVATE KEY"] {
            assert!(!all.contains(text), "{path} shows {text}: {all}");
        }
        let admin = stage.sidecar.admin_get(path).await;
        assert!(admin.status == 404 || path == "/metrics", "{path}: {}", admin.status);
        stage.assert_clean(admin.text().as_bytes(), path);
    }
    let (status, lease) = orchestrator.call("GET", &format!("/v1/nonces/{}", minted.id), None).await;
    assert_eq!(status, 200);
    assert!(!lease.to_string().contains(&minted.nonce), "a nonce is in the answer of its mint alone");
}

#[tokio::test]
async fn a_token_in_a_url_proves_nothing_and_is_not_kept() {
    let token = canary().replace("sk_live_", "mint-token-");
    let lay = |directory: &std::path::Path| write(&directory.join("mint-token"), &token, 0o600);
    let scene = scene(&policy("[\"any\"]", "[\"bearer:file:{dir}/mint-token\"]"), lay, |builder| builder).await;
    let caller = scene.parties.caller(&scene.sidecar);
    assert!(caller.whoami(&token).await.is_ok());
    for name in ["access_token", "token", "authorization", "bearer", "api_key"] {
        for path in
            [format!("/v1/whoami?{name}={token}"), format!("/v1/nonces?{name}={token}"), format!("/v1/nonces/{token}")]
        {
            let answer = caller.get(&path, None).await;
            assert_eq!(answer.status, 401, "{name}");
            assert!(!format!("{:?}{}", answer.headers, answer.json).contains(&token), "{name}: {:#}", answer.json);
        }
    }
    let kept = [scene.sidecar.audit_text(), scene.sidecar.log(), scene.sidecar.admin_get("/metrics").await.text()];
    assert!(kept.iter().all(|text| !text.contains(&token)), "the token was kept");
}
