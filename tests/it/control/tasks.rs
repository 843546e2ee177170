//! Completing a task.

use serde_json::{Value, json};

use crate::support::Stage;
use crate::support::agent::{breaks, get};

fn ask(task: &str) -> Value {
    json!({"agent": "worker", "task": task, "service": "api", "scope": "read"})
}

#[tokio::test]
async fn a_completed_task_ends_and_nothing_is_minted_for_it() {
    let stage = Stage::new().await;
    let orchestrator = stage.sidecar.orchestrator();
    let (one, two) = (orchestrator.mint_with(ask("a/b")).await, orchestrator.mint_with(ask("a/b")).await);
    let other = orchestrator.mint_with(ask("a")).await;
    let mut tunnel = stage.sidecar.agent().tunnel("api.test").await;
    let stream = tunnel.start(get("api.test", "/endless", &one.nonce)).await;
    let body = Some(json!({"reason": "done"}));
    let (status, answer) = orchestrator.call("POST", "/v1/tasks/a%2Fb/complete", body).await;
    assert_eq!((status.as_u16(), answer), (200, json!({"revoked": 2})));
    assert!(breaks(stream).await, "what was under way is cut");
    let agent = stage.sidecar.agent();
    assert_eq!(agent.get("api.test", "/x", &two.nonce).await.refusal(), Some("nonce_revoked"));
    assert_eq!(agent.get("api.test", "/x", &other.nonce).await.status, 200);
    let record = stage.sidecar.audited(|record| record["type"] == "revocation").await;
    assert_eq!(
        (&record["call"], &record["task"], &record["reason"]),
        (&"complete".into(), &"a/b".into(), &"done".into())
    );

    let mints = || stage.sidecar.audit().iter().filter(|record| record["type"] == "mint").count();
    let before = mints();
    let (status, problem) = orchestrator.call("POST", "/v1/nonces", Some(ask("a/b"))).await;
    assert_eq!((status.as_u16(), &problem["code"]), (409, &"task_completed".into()), "{problem:#}");
    stage.sidecar.audited(|record| record["type"] == "control_refused" && record["code"] == "task_completed").await;
    assert_eq!(mints(), before, "no mint that nobody gets is on record");
    orchestrator.mint_with(ask("a")).await;
    // Without a body, and again.
    let (status, answer) = orchestrator.call("POST", "/v1/tasks/a%2Fb/complete", None).await;
    assert_eq!((status.as_u16(), answer), (200, json!({"revoked": 0})));
}

#[tokio::test]
async fn a_completion_and_mints_at_the_same_time_leave_nothing_alive() {
    let stage = Stage::new().await;
    let control = stage.sidecar.control();
    let mints: Vec<_> = (0..40)
        .map(|_| {
            let orchestrator = crate::support::Orchestrator::new(control.clone());
            tokio::spawn(async move { orchestrator.call("POST", "/v1/nonces", Some(ask("t"))).await.0.as_u16() })
        })
        .collect();
    let orchestrator = stage.sidecar.orchestrator();
    let (status, _) = orchestrator.call("POST", "/v1/tasks/t/complete", None).await;
    assert_eq!(status, 200);
    for mint in mints {
        // The last one that it can be is a mint whose lease ended before its answer.
        let status = mint.await.expect("an answer");
        assert!(status == 201 || status == 409, "{status}");
    }
    let (_, page) = orchestrator.call("GET", "/v1/nonces?task=t", None).await;
    assert_eq!(page["nonces"], json!([]));
}

#[tokio::test]
async fn what_is_no_task_is_not_found() {
    let stage = Stage::new().await;
    let orchestrator = stage.sidecar.orchestrator();
    let post = async |path: &str, body| {
        let (status, problem) = orchestrator.call("POST", path, body).await;
        (status.as_u16(), problem["code"].as_str().unwrap_or_default().to_owned())
    };
    for path in ["/v1/tasks//complete", "/v1/tasks/%00/complete", "/v1/tasks/a/b/complete", "/v1/tasks/%2525/complete"]
    {
        assert_eq!(post(path, None).await, (404, "not_found".into()), "{path}");
    }
    for body in [json!({"surprise": 1}), json!({"reason": ""}), json!([])] {
        assert_eq!(post("/v1/tasks/t/complete", Some(body)).await, (400, "invalid_request".into()));
    }
    assert_eq!(orchestrator.call("GET", "/v1/tasks/t/complete", None).await.0, 405);
}
