//! Who may ask, how, and what may be answered.

use super::{Stage, nonce, over, stage};
use crate::support::FakeUpstream;
use crate::support::websocket::{KEY, ask, question};

#[tokio::test]
async fn a_socket_needs_a_rule_of_its_own() {
    let (stage, _) = stage().await;
    let agent = stage.sidecar.agent();
    let reader = stage.reader().await;
    let answer = agent.raw_inside("api.test", question("/echo", &reader, "").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 403 out_of_scope"), "{answer}");
    assert!(answer.contains("WEBSOCKET api.test/echo is not allowed") || answer.contains("WEBSOCKET"), "{answer}");
    assert!(answer.contains(r#""required_scope":"socket""#), "{answer}");
    let answer = agent.raw_inside("api.test", question("/echo", "an_wrong", "").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");

    let nonce = nonce(&stage).await;
    let reply = agent.get("api.test", "/echo", &nonce).await;
    assert_eq!(reply.refusal(), Some("out_of_scope"), "a rule for sockets opens nothing else");
    assert_eq!(reply.json()["allowed"], serde_json::json!(["WEBSOCKET /{*path}"]));
    assert!(stage.upstream.seen().is_empty());
}

#[tokio::test]
async fn an_open_service_opens_no_sockets() {
    let (upstream, _) = crate::support::websocket::upstream().await;
    let policy = super::policy().replace("credential = \"api\"\n", "credential = \"api\"\nanonymous = true\n");
    let stage = Stage::of(&policy, upstream, |builder| builder).await;
    let anonymous = question("/echo", "", "").replace("Authorization: Bearer \r\n", "");
    let answer = stage.sidecar.agent().raw_inside("api.test", anonymous.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 401 nonce_missing"), "{answer}");
    assert!(stage.upstream.seen().is_empty());
}

#[tokio::test]
async fn a_question_is_as_it_must_be_or_refused() {
    let (stage, _) = stage().await;
    let nonce = nonce(&stage).await;
    let good = question("/echo", &nonce, "");
    let key = format!("Sec-WebSocket-Key: {KEY}\r\n");
    let version = "Sec-WebSocket-Version: 13\r\n";
    let cases = [
        good.replace(&key, ""),
        good.replace(KEY, "c2hvcnQ="),
        good.replace(KEY, "not base64"),
        good.replace(&key, &key.repeat(2)),
        good.replace(version, ""),
        good.replace(version, "Sec-WebSocket-Version: 8\r\n"),
        good.replace(version, &version.repeat(2)),
        good.replacen("GET", "POST", 1),
        good.replacen("\r\n\r\n", "\r\nContent-Length: 0\r\n\r\n", 1),
        good.replacen("\r\n\r\n", "\r\nContent-Length: 5\r\n\r\nhello", 1),
        good.replacen("\r\n\r\n", "\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 1),
    ];
    let agent = stage.sidecar.agent();
    for case in cases {
        let answer = agent.raw_inside("api.test", case.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400 request_ambiguous"), "{case}\n{answer}");
        assert!(answer.to_ascii_lowercase().contains("\nconnection: close\r"), "{answer}");
    }
    // Where `Upgrade` has no meaning, the request is an ordinary one, which no rule allows.
    for case in [
        good.replace("Connection: Upgrade\r\n", ""),
        good.replace("HTTP/1.1", "HTTP/1.0"),
        good.replace("Upgrade: websocket", "Upgrade: websocket2"),
    ] {
        let answer = agent.raw_inside("api.test", case.as_bytes()).await;
        assert!(answer.contains(" 403 out_of_scope"), "{case}\n{answer}");
    }
    assert!(stage.upstream.seen().is_empty());
}

#[tokio::test]
async fn any_other_answer_is_an_ordinary_one() {
    let (stage, _) = stage().await;
    let nonce = nonce(&stage).await;
    let agent = stage.sidecar.agent();
    let answer = agent.raw_inside("api.test", question("/no", &nonce, "").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("ordinary"), "{answer}");
    let answer = agent.raw_inside("api.test", question("/never", &nonce, "").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 404 ") && answer.ends_with(&"*".repeat(stage.secret.len())), "{answer}");
    assert_eq!(stage.upstream.seen().len(), 2);
}

#[tokio::test]
async fn a_yes_that_is_no_answer_to_the_question_is_refused() {
    let (stage, _) = stage().await;
    let (answer, _) = ask(&stage.sidecar.agent(), "/wrong", &nonce(&stage).await, "").await;
    assert!(answer.starts_with("HTTP/1.1 502 upstream_unreachable"), "{answer}");
    for fields in ["", "Upgrade: h2c\r\nConnection: Upgrade\r\n", "Upgrade: websocket\r\n"] {
        let accept = crate::support::websocket::ACCEPT;
        let yes = format!("HTTP/1.1 101 Yes\r\n{fields}Sec-WebSocket-Accept: {accept}\r\n\r\nraw bytes");
        let stage = over(FakeUpstream::raw(&["api.test"], move |_| yes.clone().into_bytes()).await).await;
        let question = question("/x", &nonce(&stage).await, "");
        let answer = stage.sidecar.agent().raw_inside("api.test", question.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 502 ") && !answer.contains("raw bytes"), "{answer}");
    }
}

#[tokio::test]
async fn an_upstream_that_speaks_http2_alone_is_not_asked() {
    let stage = over(FakeUpstream::start_with(&["api.test"], &[b"h2"]).await).await;
    let (answer, _) = ask(&stage.sidecar.agent(), "/x", &nonce(&stage).await, "").await;
    assert!(answer.starts_with("HTTP/1.1 502 upstream_tls"), "{answer}");
    assert!(stage.upstream.seen().is_empty());
}
