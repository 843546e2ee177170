//! Refusals as each kind of client reads them. (JSON, git and gRPC are with the promises.)

use crate::support::Stage;
use crate::support::agent::{get, with};
use crate::support::policies::one_api_with;

async fn refused(dialect: &str) -> crate::support::agent::Reply {
    let stage = Stage::of_policy(&one_api_with(&format!("dialect = \"{dialect}\""))).await;
    let nonce = stage.writer().await;
    let reply = stage.sidecar.agent().send(get("api.test", "/x", &nonce)).await;
    assert_eq!(reply.refusal(), Some("out_of_scope"));
    assert!(stage.upstream.seen().is_empty());
    reply
}

#[tokio::test]
async fn slack_reads_a_text_in_error() {
    let body = refused("slack").await.json();
    assert_eq!((&body["ok"], &body["error"]), (&false.into(), &"out_of_scope".into()));
}

#[tokio::test]
async fn npm_shows_a_text_in_error() {
    let body = refused("npm").await.json();
    assert!(body["error"].as_str().expect("a sentence").starts_with("valetkey out_of_scope: "), "{body}");
    assert!(body.get("ok").is_none());
}

#[tokio::test]
async fn kubernetes_reads_a_status() {
    let reply = refused("kubernetes").await;
    let body = reply.json();
    assert_eq!(
        (&body["kind"], &body["apiVersion"], &body["status"]),
        (&"Status".into(), &"v1".into(), &"Failure".into())
    );
    assert_eq!((&body["reason"], &body["code"]), (&"Forbidden".into(), &403.into()));
    assert!(body["message"].as_str().expect("a sentence").contains("out_of_scope"));
    assert_eq!(reply.status, 403);
}

#[tokio::test]
async fn aws_reads_xml() {
    let reply = refused("aws").await;
    assert!(reply.headers["content-type"].to_str().expect("text").contains("xml"));
    let text = reply.text();
    assert!(text.contains("<Code>AccessDenied</Code>") && text.contains("<RequestId>ex_"), "{text}");
    assert_eq!(reply.headers["x-amzn-errortype"], "AccessDenied");
}

#[tokio::test]
async fn git_and_grpc_by_the_policy_too() {
    let git = refused("git").await;
    assert!(git.headers["content-type"].to_str().expect("text").starts_with("text/plain"));
    assert!(git.text().starts_with("valetkey out_of_scope: "), "{}", git.text());
    let grpc = refused("grpc").await;
    assert_eq!((grpc.status.as_u16(), &grpc.headers["grpc-status"]), (200, &"7".parse().expect("a value")));
}

#[tokio::test]
async fn a_dialect_cannot_be_broken_out_of_by_what_an_agent_chooses() {
    let path = "/%3Cscript%3E%22%20X-Injected:%201'%7D";
    for dialect in ["json", "slack", "npm", "aws", "kubernetes", "git", "grpc"] {
        let stage = Stage::of_policy(&one_api_with(&format!("dialect = \"{dialect}\""))).await;
        let nonce = stage.writer().await;
        let bearer = format!("Bearer {nonce}");
        let reply = stage.sidecar.agent().send(with("M!'`", "api.test", path, &[("authorization", &bearer)], "")).await;
        assert!(reply.refusal().is_some(), "{dialect}: {}", reply.status);
        assert!(!reply.headers.contains_key("x-injected"), "{dialect}");
        assert!(!reply.text().contains("<script>"), "{dialect}: {}", reply.text());
        if ["json", "slack", "npm", "kubernetes"].contains(&dialect) {
            reply.json();
        }
    }
}
