//! Agents that leave, wholly or by half.

use std::time::Duration;

use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use crate::support::agent::{PATIENCE, get};
use crate::support::upstream::read_head;
use crate::support::{FakeUpstream, Stage};

#[tokio::test]
async fn half_an_end_is_no_place_that_stays_taken() {
    let upstream = FakeUpstream::start(&["api.test"]).await;
    let stage = Stage::with(upstream, |builder| builder.flag("--connections-max").flag("2")).await;
    let nonce = stage.reader().await;
    for number in 0..8 {
        let mut stream = stage.sidecar.agent().tls_tunnel("api.test", "api.test", &[b"http/1.1"]).await.expect("TLS");
        let head = format!("GET /{number} HTTP/1.1\r\nHost: api.test\r\nAuthorization: Bearer {nonce}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.expect("writable");
        // Its end: nothing more will come from here, and the answer is waited for.
        stream.shutdown().await.expect("writable");
        let mut answer = Vec::new();
        let reading = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
        assert!(reading.is_ok(), "{number}: it is left open");
        let answer = String::from_utf8_lossy(&answer).into_owned();
        // Whoever ends its side is answered, or is taken to be gone; it is never answered in part.
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 200"), "{number}: {answer}");
    }
    assert_eq!(stage.sidecar.agent().get("api.test", "/after", &nonce).await.status, 200);
    let is_end = |record: &&serde_json::Value| record["type"] == "end";
    stage.sidecar.audited(|record| record["type"] == "end").await;
    let (decisions, ends) = (decisions(&stage), stage.sidecar.audit().iter().filter(is_end).count());
    assert!(decisions >= 1 && ends <= decisions, "{decisions} {ends}");
}

fn decisions(stage: &Stage) -> usize {
    stage.sidecar.audit().iter().filter(|record| record["type"] == "decision").count()
}

/// How far an answer has come when its agent leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    BeforeTheAnswer,
    /// Of its body a few bytes are there, which are held back to be searched with what follows.
    AfterTheHead,
    /// A whole line of its body is there.
    InTheAnswer,
}

impl When {
    /// What upstream says; what the agent has of it when it leaves.
    fn said(self) -> (&'static str, &'static str) {
        match self {
            Self::BeforeTheAnswer => ("", ""),
            Self::AfterTheHead => ("3\r\nabc\r\n", "\r\n\r\n"),
            Self::InTheAnswer => ("6\r\nbegun\n\r\n", "begun\n"),
        }
    }
}

/// Upstream begins an answer, or none, and tells when its connection has ended.
async fn upstream(when: When, gone: mpsc::Sender<()>) -> FakeUpstream {
    FakeUpstream::played(&["api.test"], b"http/1.1", move |mut stream, _| {
        let gone = gone.clone();
        async move {
            if read_head(&mut stream).await.is_empty() {
                return;
            }
            if when != When::BeforeTheAnswer {
                let begun = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{}", when.said().0);
                stream.write_all(begun.as_bytes()).await.expect("writable");
                stream.flush().await.expect("writable");
            }
            let _ = stream.read_to_end(&mut Vec::new()).await;
            let _ = gone.send(()).await;
        }
    })
    .await
}

#[tokio::test]
async fn whoever_leaves_takes_its_request_upstream_along() {
    for (when, h2) in [When::BeforeTheAnswer, When::AfterTheHead, When::InTheAnswer]
        .into_iter()
        .flat_map(|when| [(when, false), (when, true)])
    {
        let (tell, mut gone) = mpsc::channel(1);
        let stage = Stage::with(upstream(when, tell).await, |builder| builder).await;
        let nonce = stage.reader().await;
        let agent = stage.sidecar.agent();
        if h2 {
            let mut tunnel = agent.tunnel_h2("api.test").await;
            let asking = tokio::spawn(async move {
                let mut response = tunnel.start(get("api.test", "/x", &nonce)).await;
                response.body_mut().frame().await.expect("a frame").expect("data");
                std::future::pending::<()>().await;
            });
            begun(&stage).await;
            asking.abort();
        } else {
            let mut stream = agent.tls_tunnel("api.test", "api.test", &[b"http/1.1"]).await.expect("TLS");
            stream.write_all(&super::request("GET /x", "", &nonce, "")).await.expect("writable");
            let mut answer = Vec::new();
            while !answer.ends_with(when.said().1.as_bytes()) {
                let byte = tokio::time::timeout(PATIENCE, stream.read_u8()).await;
                answer.push(byte.expect("more in time").expect("more"));
            }
            begun(&stage).await;
            drop(stream);
        }
        let told = tokio::time::timeout(PATIENCE, gone.recv()).await;
        assert!(matches!(told, Ok(Some(()))), "{when:?}, h2 {h2}: upstream still works for nobody");
        let end = stage.sidecar.audited(|record| record["type"] == "end").await;
        assert_eq!(end["ending"], "client_gone", "{when:?}, h2 {h2}: {end:#}");
    }
}

/// Upstream has the request, and what it says of it has had the time to arrive.
async fn begun(stage: &Stage) {
    stage.sidecar.audited(|record| record["type"] == "decision").await;
    tokio::time::sleep(Duration::from_millis(50)).await;
}
