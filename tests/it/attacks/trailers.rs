//! The fields after a body: no second head.

use super::{outcome, request, send};
use crate::support::{FakeUpstream, Stage};

async fn after_a_body(stage: &Stage, nonce: &str, trailer: &str) -> String {
    let body = format!("5\r\nhello\r\n0\r\n{trailer}\r\n\r\n");
    send(stage, &request("POST /x", "Transfer-Encoding: chunked\r\n", nonce, &body)).await
}

#[tokio::test]
async fn credentials_and_nonces_do_not_go_out_behind_a_body() {
    for alpn in [&b"http/1.1"[..], b"h2"] {
        let stage = Stage::with(FakeUpstream::start_with(&["api.test"], &[alpn]).await, |builder| builder).await;
        let nonce = stage.writer().await;
        let cases = [
            ("Authorization: Bearer mine".to_owned(), "foreign_credential"),
            (format!("Authorization: Bearer {nonce}"), "foreign_credential"),
            ("Cookie: a=b".to_owned(), "foreign_credential"),
            ("X_Api_Key: mine".to_owned(), "foreign_credential"),
            (format!("X-Note: {nonce}"), "nonce_misplaced"),
        ];
        for (trailer, code) in cases {
            let answer = after_a_body(&stage, &nonce, &trailer).await;
            assert_eq!(outcome(&answer).1, Some(code), "{trailer}: {answer}");
        }
        let carried = stage.upstream.seen().into_iter().find(|seen| seen.trailers.is_some());
        assert!(carried.is_none(), "{carried:?}");
        stage.assert_silent(&[&nonce]);
    }
}

#[tokio::test]
async fn what_belongs_to_a_head_is_taken_out_and_the_rest_arrives() {
    let stage = Stage::with(FakeUpstream::start_with(&["api.test"], &[b"h2"]).await, |builder| builder).await;
    let nonce = stage.writer().await;
    let trailers = "Host: evil.test\r\nX-Forwarded-Host: evil.test\r\nX-HTTP-Method-Override: DELETE\r\n\
                    Proxy-Authorization: x\r\nContent-Type: text/html\r\nX-Checksum: 1";
    let answer = after_a_body(&stage, &nonce, trailers).await;
    assert_eq!(outcome(&answer).0, 200, "{answer}");
    let trailers = stage.upstream.only().trailers.expect("trailers");
    assert_eq!(trailers.keys().collect::<Vec<_>>(), ["x-checksum"]);
}
