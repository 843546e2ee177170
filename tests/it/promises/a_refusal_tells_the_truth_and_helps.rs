//! A stable code, one sentence, what to do next; never another tenant's data, never the policy of other services.

use crate::support::agent::{get, with};
use crate::support::{FakeUpstream, Stage, TestSidecar, canary, policies};

#[tokio::test]
async fn it_can_be_read_by_programs_and_by_models() {
    let stage = Stage::new().await;
    let minted = stage.sidecar.orchestrator().mint("worker", "api", "read").await;
    let bearer = format!("Bearer {}", minted.nonce);
    for h2 in [false, true] {
        let request = with("POST", "api.test", "/x?secret=1", &[("authorization", &bearer)], "body");
        let agent = stage.sidecar.agent();
        let reply = if h2 { agent.send_h2(request).await } else { agent.send(request).await };
        let body = reply.json();
        assert_eq!(reply.headers["content-type"], "application/json; charset=utf-8");
        assert_eq!(reply.headers["cache-control"], "no-store");
        assert_eq!(reply.headers["valetkey-error"], "out_of_scope");
        assert_eq!(reply.headers["x-should-retry"], "false");
        assert!(reply.headers["proxy-status"].to_str().expect("text").starts_with("valetkey; error="));
        assert_eq!(reply.headers["valetkey-exchange"], body["exchange_id"].as_str().expect("an id"));
        assert_eq!(
            (&body["status"], &body["code"], &body["origin"]),
            (&403.into(), &"out_of_scope".into(), &"valetkey".into())
        );
        assert_eq!((&body["retryable"], &body["nonce_id"]), (&false.into(), &minted.id.as_str().into()));
        assert_eq!(body["error"]["code"], "out_of_scope");
        assert_eq!(body["error"]["message"], body["message"]);
        assert!(!body["next_steps"].as_array().expect("a list").is_empty());
        let detail = body["detail"].as_str().expect("a sentence");
        assert!(detail.len() <= 600 && detail.contains("POST") && detail.contains("/x"), "{detail}");
        let all = reply.everything();
        assert!(!contains(&all, "secret=1") && !contains(&all, &minted.nonce), "no query, no nonce");
    }
}

#[tokio::test]
async fn problem_json_only_where_it_is_asked_for() {
    let stage = Stage::new().await;
    let request = with("GET", "api.test", "/x", &[("accept", "application/problem+json")], "");
    let reply = stage.sidecar.agent().send(request).await;
    assert!(reply.headers["content-type"].to_str().expect("text").starts_with("application/problem+json"));
}

#[tokio::test]
async fn git_and_grpc_are_answered_in_their_own_way() {
    let stage = Stage::new().await;
    let agent = stage.sidecar.agent();
    let git = agent.send(with("GET", "api.test", "/a.git/info/refs?service=git-upload-pack", &[], "")).await;
    assert_eq!(git.status, 401);
    assert!(git.headers["content-type"].to_str().expect("text").starts_with("text/plain"));
    assert!(git.headers.get_all("www-authenticate").iter().any(|value| value.as_bytes().starts_with(b"Basic")));
    let grpc =
        agent.send_h2(with("POST", "api.test", "/pkg.Service/Call", &[("content-type", "application/grpc")], "")).await;
    assert_eq!(grpc.status, 200);
    assert_eq!(grpc.headers["grpc-status"], "16");
    assert!(grpc.headers["grpc-message"].to_str().expect("text").contains("nonce_missing"));
}

#[tokio::test]
async fn it_says_nothing_of_other_services_or_their_rules() {
    let (api, other) = (FakeUpstream::start(&["api.test"]).await, FakeUpstream::start(&["other.test"]).await);
    let policy = policies::TWO_APIS.replacen("GET /{*path}", "GET /only/here", 2);
    let sidecar = TestSidecar::with_policy(&policy)
        .upstream(&["api.test"], "api", &api)
        .upstream(&["other.test"], "other", &other)
        .environment("API_KEY", &canary())
        .environment("OTHER_KEY", &canary())
        .start()
        .await;
    let nonce = sidecar.orchestrator().mint("worker", "api", "read").await.nonce;
    for reply in [
        sidecar.agent().get("api.test", "/elsewhere", &nonce).await,
        sidecar.agent().send(get("other.test", "/elsewhere", &nonce)).await,
    ] {
        let all = reply.everything();
        let is_about_other = reply.json()["detail"].as_str().expect("a sentence").contains("other.test");
        assert!(is_about_other || !contains(&all, "other"), "{}", reply.text());
        assert!(!contains(&all, "OTHER_KEY") && !contains(&all, "API_KEY"));
    }
}

#[tokio::test]
async fn the_states_of_a_nonce_are_told_to_who_holds_it_whole() {
    let stage = Stage::new().await;
    let minted = stage.sidecar.orchestrator().mint("worker", "api", "read").await;
    stage.sidecar.orchestrator().revoke(&minted.id).await;
    let agent = stage.sidecar.agent();
    let whole = agent.get("api.test", "/x", &minted.nonce).await;
    assert_eq!(whole.refusal(), Some("nonce_revoked"));
    let cut = agent.get("api.test", "/x", &minted.nonce[..30]).await;
    assert_eq!((cut.refusal(), cut.json()["nonce_id"].as_str()), (Some("nonce_unknown"), None));
}

fn contains(all: &[u8], text: &str) -> bool {
    memchr::memmem::find(all, text.as_bytes()).is_some()
}
