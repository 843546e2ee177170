//! Bodies signed chunk by chunk that end otherwise than they should: by their agent, by upstream, or by a revoke.

use std::time::Duration;

use serde_json::json;
use tokio::io::AsyncWriteExt;

use super::chunks::{Bodies, on_wire};
use super::*;
use crate::support::agent::{PATIENCE, breaks};
use crate::support::sidecar::eventually;
use crate::support::wire::read_answers;

#[tokio::test]
async fn an_agent_that_breaks_off_leaves_no_whole_body() {
    let (stage, bodies) = Bodies::listening().await;
    let signer = stage.signer().await;
    for trailer in [None, Some(TRAILER)] {
        let (fields, body) = upload(&signer, &["a body", "in two"], trailer);
        for bytes in (0..body.len()).step_by(29).chain([body.len() - 2, body.len() - 1]) {
            for is_framed in [false, true] {
                let framing = match is_framed {
                    false => format!("Content-Length: {}", body.len()),
                    true => "Transfer-Encoding: chunked".to_owned(),
                };
                let part = &body[..bytes];
                let part = if is_framed { format!("{bytes:x}\r\n{part}\r\n") } else { part.to_owned() };
                let part = if is_framed && bytes == 0 { String::new() } else { part };
                let mut stream =
                    stage.sidecar.agent().tls_tunnel("api.test", "api.test", &[b"http/1.1"]).await.expect("TLS");
                stream.write_all((on_wire(&fields, &framing) + &part).as_bytes()).await.expect("writable");
                stream.shutdown().await.expect("writable");
                let answer = read_answers(&mut stream, 1, PATIENCE).await;
                assert!(!answer.starts_with("HTTP/1.1 2"), "{bytes}: {answer}");
            }
        }
        for got in bodies.all(&stage).await {
            let is_end = got.ends_with(b"0\r\n\r\n");
            assert!(got.len() < body.len() && !is_end, "upstream had all of {}", String::from_utf8_lossy(&got));
        }
    }
}

#[tokio::test]
async fn framed_anew_a_bad_body_has_no_end() {
    let (stage, bodies) = Bodies::listening().await;
    let signer = stage.signer().await;
    let (fields, good) = upload(&signer, &["a body", "in two"], None);
    let last = good.rfind("0;chunk-signature").expect("the last");
    for bad in
        [good[..last].to_owned(), format!("{good}x"), good[..good.len() - 2].to_owned(), good.replace("two", "twi")]
    {
        let request =
            format!("{}{:x}\r\n{bad}\r\n0\r\n\r\n", on_wire(&fields, "Transfer-Encoding: chunked"), bad.len());
        let answer = stage.sidecar.agent().raw_inside("api.test", request.as_bytes()).await;
        assert!(answer.contains("signature_refused"), "{bad:?}: {answer}");
        assert!(!bodies.last(&stage).await.ends_with(b"0\r\n\r\n"), "{bad:?}: upstream had an end");
    }
}

/// An upstream that answers once it has so much of the body: with this, and then it closes.
async fn answering(after_bytes: usize, answer: &'static str) -> FakeUpstream {
    FakeUpstream::speaking_freely(&["api.test"], move |_, mut wire| async move {
        let mut some = vec![0; after_bytes];
        let _ = wire.read_exact(&mut some).await;
        let _ = wire.write_all(answer.as_bytes()).await;
        let _ = wire.shutdown().await;
    })
    .await
}

#[tokio::test]
async fn an_upstream_that_ends_early_is_no_success_for_the_agent() {
    let (long, longer) = ("x".repeat(9_000), "y".repeat(400_000));
    for (answer, is_broken) in [
        ("", false),
        ("HTTP/1.1 200 OK\r\n", false),
        ("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n<Cut", true),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n<Cut\r\n", true),
    ] {
        let stage = Signing::at(answering(1_000, answer).await, Some(canary())).await;
        let (fields, body) = upload(&stage.signer().await, &[&long, &longer, &long], None);
        let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (&**name, &**value)).collect();
        for h2 in [false, true] {
            let agent = stage.sidecar.agent();
            let mut tunnel = if h2 { agent.tunnel_h2("api.test").await } else { agent.tunnel("api.test").await };
            match tunnel.try_start(with("PUT", "api.test", "/a", &fields, &body)).await {
                Ok(response) if is_broken => assert!(breaks(response).await, "{answer:?} h2 {h2}"),
                Ok(response) => {
                    assert!(response.status().is_server_error(), "{answer:?} h2 {h2}: {}", response.status())
                }
                Err(_) => {}
            }
        }
    }
}

#[tokio::test]
async fn an_answer_that_is_under_way_is_cut_where_the_body_turns_out_bad() {
    let upstream = FakeUpstream::speaking_freely(&["api.test"], move |_, mut wire| async move {
        let _ = wire.read_exact(&mut [0; 100]).await;
        let _ = wire.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nsome\r\n").await;
        let _ = wire.flush().await;
        let mut rest = Vec::new();
        let _ = wire.read_to_end(&mut rest).await;
        // As one that takes what it got for the whole.
        let _ = wire.write_all(b"0\r\n\r\n").await;
        let _ = wire.shutdown().await;
    })
    .await;
    let stage = Signing::at(upstream, Some(canary())).await;
    let (fields, body) = upload(&stage.signer().await, &["a body", "in two", "pieces"], None);
    let second = body.find("in two").expect("it");
    let framing = format!("Content-Length: {}", body.len());
    let mut stream = stage.sidecar.agent().tls_tunnel("api.test", "api.test", &[b"http/1.1"]).await.expect("TLS");
    stream.write_all((on_wire(&fields, &framing) + &body[..second + 10]).as_bytes()).await.expect("writable");
    let mut head = vec![0; 60];
    tokio::time::timeout(PATIENCE, stream.read_exact(&mut head)).await.expect("in time").expect("an answer");
    assert!(head.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&head));
    stream.write_all(body[second + 10..].replace("pieces", "pierce").as_bytes()).await.expect("writable");
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("an end in time");
    assert!(!rest.ends_with(b"0\r\n\r\n"), "{}", String::from_utf8_lossy(&rest));
    // Whose fault it was is on record.
    let ended = stage.sidecar.audited(|record| record["type"] == "end").await;
    assert_eq!((&ended["code"], &ended["ending"]), (&json!("signature_refused"), &json!("cut")), "{ended:#}");
}

#[tokio::test]
async fn a_revoke_ends_an_upload_between_and_within_chunks() {
    let (stage, bodies) = Bodies::listening().await;
    for (bytes, within) in [(10_000, "between"), (15_000, "within")] {
        let minted = stage.mint("write").await;
        let signer = Signer::of(&minted);
        let (one, two) = ("1".repeat(9_900), "2".repeat(9_900));
        let (fields, body) = upload(&signer, &[&one, &two], None);
        let framing = format!("Content-Length: {}", body.len());
        let mut stream = stage.sidecar.agent().tls_tunnel("api.test", "api.test", &[b"http/1.1"]).await.expect("TLS");
        stream.write_all((on_wire(&fields, &framing) + &body[..bytes]).as_bytes()).await.expect("writable");
        // Until it is under way.
        let seen = || (!stage.upstream.seen().is_empty()).then_some(());
        eventually("it is under way", seen).await;
        stage.sidecar.orchestrator().revoke(minted["id"].as_str().expect("an id")).await;
        let _ = stream.write_all(&body.as_bytes()[bytes..]).await;
        let answer = read_answers(&mut stream, 1, Duration::from_secs(5)).await;
        assert!(answer.contains("nonce_revoked"), "{within}: {answer}");
        assert!(bodies.last(&stage).await.len() < body.len(), "{within}: upstream had all of it");
        stage.upstream.forget();
    }
}

/// Each use of a nonce is one upload, whatever becomes of it.
#[tokio::test]
async fn a_use_is_spent_by_an_upload_that_turns_out_bad() {
    let stage = Signing::new().await;
    let terms = json!({"agent": "worker", "task": "t", "service": "store", "scope": "write", "max_uses": 1});
    let signer = Signer::of(&stage.sidecar.orchestrator().mint_with(terms).await.answer);
    let (fields, body) = upload(&signer, &["a body", "in two"], None);
    let reply = stage.send("PUT", "/a", &fields, &body.replace("two", "twi")).await;
    assert_eq!(reply.refusal(), Some("signature_refused"), "{}", reply.status);
    let reply = stage.send("PUT", "/a", &fields, &body).await;
    assert_eq!(reply.refusal(), Some("nonce_spent"), "{}", reply.status);
}
