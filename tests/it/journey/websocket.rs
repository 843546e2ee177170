//! WebSocket: asked for by a rule of its own, searched on the way back, over when the nonce is.

mod asking;
mod ending;
mod http2;

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::websocket::{self, BINARY, CLOSE, Open, PING, TEXT, ask, open, upstream};
use crate::support::{FakeUpstream, Stage, policies};

/// The usual API with a scope for sockets.
fn policy() -> String {
    let scopes = r#"
[[services.api.scopes]]
name = "socket"
risk = "low"
allow = ["WEBSOCKET /{*path}"]

[[services.api.scopes]]
name = "single"
risk = "low"
max_uses = 1
allow = ["WEBSOCKET /{*path}"]

[agents.worker]"#;
    let policy = policies::ONE_API.replace("\n[agents.worker]", scopes);
    policy.replace(r#""write", "once"]"#, r#""write", "once", "socket", "single"]"#)
}

async fn stage() -> (Stage, Open) {
    let (upstream, sockets) = upstream().await;
    (over(upstream).await, sockets)
}

async fn over(upstream: FakeUpstream) -> Stage {
    Stage::of(&policy(), upstream, |builder| builder).await
}

async fn nonce(stage: &Stage) -> String {
    stage.sidecar.orchestrator().mint("worker", "api", "socket").await.nonce
}

/// The closing record of the one exchange.
async fn closed(stage: &Stage) -> Value {
    stage.sidecar.audited(|record| record["type"] == "end").await
}

/// Waits until upstream has so many sockets.
async fn has(sockets: &Open, count: usize) {
    crate::support::sidecar::eventually("upstream's sockets", || (sockets.count() == count).then_some(())).await;
}

#[tokio::test]
async fn what_is_said_arrives_both_ways_and_the_credential_where_it_belongs() {
    let (stage, _) = stage().await;
    let nonce = nonce(&stage).await;
    let mut socket = open(&stage.sidecar.agent(), "/echo?x=1", &nonce).await;
    let large: Vec<u8> = (0..1_500_000_u32).map(|number| (number % 253) as u8).collect();
    for (opcode, text) in [(TEXT, &b"hello"[..]), (BINARY, b""), (PING, b"still there?"), (BINARY, &large)] {
        socket.say(opcode, text).await;
        let (heard, back) = socket.hear().await.expect("an echo");
        assert!(heard == opcode && back == text, "{heard} {}", back.len());
    }
    socket.say(CLOSE, &1000_u16.to_be_bytes()).await;
    assert_eq!(socket.hear().await, Some((CLOSE, vec![3, 0xe8])));
    assert!(socket.rest().await.is_empty());
    drop(socket);

    let seen = stage.upstream.only();
    assert_eq!((seen.method.as_str(), seen.target.as_str()), ("GET", "/echo?x=1"));
    assert_eq!(seen.header("authorization"), Some(format!("Bearer {}", stage.secret).as_str()));
    for (name, value) in [("connection", "Upgrade"), ("upgrade", "websocket"), ("sec-websocket-version", "13")] {
        assert_eq!(seen.header(name), Some(value), "{name}");
    }
    let record = closed(&stage).await;
    assert_eq!((record["status"].as_u64(), record["ending"].as_str()), (Some(101), Some("complete")), "{record:#}");
    let large = large.len() as u64;
    assert!(record["request_bytes"].as_u64() > Some(large), "{record:#}");
    assert!(record["response_bytes"].as_u64() > Some(large), "{record:#}");
    let decided = stage.sidecar.audited(|record| record["type"] == "decision").await;
    assert_eq!(decided["method"], json!("WEBSOCKET"), "{decided:#}");
    stage.assert_silent(&[&nonce]);
}

/// Heads are looked at closely, and this is none: it only reads like one on its way.
#[tokio::test]
async fn bytes_that_look_like_a_head_pass_behind_a_switch() {
    let (stage, _) = stage().await;
    let mut socket = open(&stage.sidecar.agent(), "/echo?x=1", &nonce(&stage).await).await;
    let head = "POST /x HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n";
    let text = format!("\r\n\r\n{head}{head}{head}");
    // The mask is undone before it is done, so that it is this text that passes.
    let mask = [1, 2, 3, 4];
    let unmasked: Vec<u8> = text.bytes().zip(mask.into_iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
    assert!(websocket::frame(true, true, BINARY, &unmasked).ends_with(text.as_bytes()), "as it is on the wire");
    socket.say(BINARY, &unmasked).await;
    assert_eq!(socket.hear().await, Some((BINARY, unmasked)));
}

#[tokio::test]
async fn an_echo_is_masked_in_every_frame() {
    let (stage, _) = stage().await;
    let mut socket = open(&stage.sidecar.agent(), "/tell", &nonce(&stage).await).await;
    let stars = "*".repeat(stage.secret.len());
    let text = format!("it is {stars}, is it not?").into_bytes();
    assert_eq!(socket.hear().await, Some((TEXT, text.clone())), "in one frame");
    for _ in 0..4 {
        // The parts of a message may come around the ping.
        let mut found = Vec::new();
        let mut parts = Vec::new();
        while found.len() < 2 {
            let (is_last, opcode, payload) = socket.frame().await.expect("a frame");
            match opcode {
                PING => found.push((PING, payload)),
                _ => {
                    parts.extend_from_slice(&payload);
                    if is_last {
                        found.push((TEXT, std::mem::take(&mut parts)));
                    }
                }
            }
        }
        assert_eq!(found, [(PING, stars.clone().into_bytes()), (TEXT, text.clone())], "in fragments, and in a ping");
    }
    assert_eq!(socket.hear().await, Some((BINARY, text)), "in many writes");
    assert_eq!(socket.hear().await, Some((CLOSE, [&1008_u16.to_be_bytes()[..], stars.as_bytes()].concat())));
}

#[tokio::test]
async fn the_head_of_the_answer_is_searched_and_loses_what_ends_here() {
    let (stage, _) = stage().await;
    let (answer, _) =
        ask(&stage.sidecar.agent(), "/head", &nonce(&stage).await, "Sec-WebSocket-Protocol: chat\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    stage.assert_clean(answer.as_bytes(), "the head");
    let answer = answer.to_ascii_lowercase();
    for field in ["sec-websocket-protocol: chat", "connection: upgrade", "upgrade: websocket"] {
        assert_eq!(answer.matches(&format!("\n{field}\r")).count(), 1, "{answer}");
    }
    assert!(
        answer
            .contains(&format!("\nsec-websocket-accept: {}\r", crate::support::websocket::ACCEPT.to_ascii_lowercase()))
    );
    assert!(!answer.contains("content-length"), "{answer}");
    assert_eq!(stage.upstream.only().header("sec-websocket-protocol"), Some("chat"));
}

#[tokio::test]
async fn extensions_are_offered_only_where_nothing_is_searched() {
    let fields = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
    let (searched, _) = stage().await;
    let nonce = nonce(&searched).await;
    open_with(&searched, "/echo", &nonce, fields, "101").await;
    assert_eq!(searched.upstream.only().header("sec-websocket-extensions"), None);
    open_with(&searched, "/extended", &nonce, fields, "502 answer_unscrubbable").await;

    let (upstream, _) = upstream().await;
    let policy = policy().replace("credential = \"api\"\n", "credential = \"api\"\nscrub = false\n");
    let unread = Stage::of(&policy, upstream, |builder| builder).await;
    let nonce = self::nonce(&unread).await;
    open_with(&unread, "/extended", &nonce, fields, "101").await;
    assert_eq!(unread.upstream.only().header("sec-websocket-extensions"), Some("permessage-deflate"));
    // What is not read is not judged either.
    let mut socket = open(&unread.sidecar.agent(), "/bad", &nonce).await;
    assert_eq!(socket.hear().await, Some((TEXT, b"first".to_vec())));
    let mut rest = [0; 3];
    tokio::io::AsyncReadExt::read_exact(&mut socket.wire, &mut rest).await.expect("three bytes");
    assert_eq!(rest, [0xc1, 1, b'x']);
}

async fn open_with(stage: &Stage, path: &str, nonce: &str, fields: &str, expected: &str) {
    let (answer, _) = ask(&stage.sidecar.agent(), path, nonce, fields).await;
    assert!(answer.starts_with(&format!("HTTP/1.1 {expected}")), "{answer}");
}

#[tokio::test]
async fn early_bytes_wait_for_a_yes() {
    use crate::support::websocket::{frame, head, question};
    use tokio::io::AsyncWriteExt;
    let (stage, _) = stage().await;
    let nonce = nonce(&stage).await;
    let agent = stage.sidecar.agent();
    let mut stream = agent.tls_tunnel("api.test", "api.test", &[b"http/1.1"]).await.expect("TLS");
    let bytes = [question("/echo", &nonce, "").into_bytes(), frame(true, true, TEXT, b"early")].concat();
    stream.write_all(&bytes).await.expect("writable");
    assert!(head(&mut stream).await.starts_with("HTTP/1.1 101 "));
    assert_eq!(crate::support::websocket::Socket::client(stream).hear().await, Some((TEXT, b"early".to_vec())));

    // Without a yes they go nowhere, neither as frames nor as a request.
    let smuggled = format!("GET /smuggled HTTP/1.1\r\nHost: api.test\r\nAuthorization: Bearer {nonce}\r\n\r\n");
    let bytes = question("/no", &nonce, "") + &smuggled;
    let answers = tokio::time::timeout(Duration::from_secs(20), agent.pipelined("api.test", bytes.as_bytes(), 2)).await;
    let answers = answers.expect("an end");
    assert!(answers.contains("ordinary") && answers.matches("HTTP/1.1").count() == 1, "{answers}");
    assert!(stage.upstream.seen().iter().all(|seen| seen.target != "/smuggled"));
}

#[tokio::test]
async fn a_socket_in_clear_text_needs_the_service_to_allow_it() {
    use crate::support::websocket::{Socket, head, question};
    use tokio::io::AsyncWriteExt;
    let (upstream, _) = upstream().await;
    let policy = policy()
        .replace("credential = \"api\"\n", "credential = \"api\"\ncleartext = true\n")
        .replace("hosts = [\"api.test\"]", "hosts = [\"api.test\", \"api.test:80\"]");
    let to = format!("api.test:80:{}", upstream.address);
    let stage = Stage::of(&policy, upstream, |builder| builder.flag("--connect-to").flag(&to)).await;
    let question = question("http://api.test/echo", &nonce(&stage).await, "");
    let mut stream = stage.sidecar.agent().tcp().await;
    stream.write_all(question.as_bytes()).await.expect("writable");
    let answer = head(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    assert_eq!(stage.upstream.only().target, "/echo");
    let mut socket = Socket::client(stream);
    socket.say(TEXT, b"in the clear").await;
    assert_eq!(socket.hear().await, Some((TEXT, b"in the clear".to_vec())));
}
