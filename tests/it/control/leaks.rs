//! Nonces that were found where they must not be.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::callers::{GROUP, open_to_group};
use crate::support::Stage;
use crate::support::agent::{breaks, get};
use crate::support::orchestrator::post;
use crate::support::sidecar::eventually;
use crate::support::stranger::{STRANGER, acting, can_be_others};
use crate::support::{Orchestrator, policies};

/// The whole answer to a report: status, headers without the date, body.
async fn report(orchestrator: &Orchestrator, body: &Value) -> (u16, Vec<String>, String) {
    let request = post("/v1/leaks", "application/json", &body.to_string());
    let (status, mut headers, body) = orchestrator.exchange(request).await;
    headers.remove("date");
    let headers = headers.iter().map(|(name, value)| format!("{name}: {value:?}")).collect();
    (status.as_u16(), headers, String::from_utf8(body.to_vec()).expect("text"))
}

#[tokio::test]
async fn live_nonces_are_ended_in_whatever_form_they_are_found() {
    let stage = Stage::new().await;
    let orchestrator = stage.sidecar.orchestrator();
    let agent = stage.sidecar.agent();
    for form in ["plain", "percent", "basic", "list"] {
        let nonce = stage.reader().await;
        let mut tunnel = agent.tunnel("api.test").await;
        let stream = tunnel.start(get("api.test", "/endless", &nonce)).await;
        let body = match form {
            "plain" => json!({"text": format!("curl -H 'Authorization: Bearer {nonce}'"), "source": "ci log 7"}),
            "percent" => json!({"text": format!("GET /x?key={}", nonce.replace('_', "%5F"))}),
            "basic" => json!({"text": format!("Basic {}", STANDARD.encode(format!("x:{nonce}")))}),
            _ => json!({"nonces": ["an_nothing", format!("sk_test_{nonce}")]}),
        };
        assert_eq!(report(&orchestrator, &body).await.0, 202, "{form}");
        assert!(breaks(stream).await, "{form}");
        assert_eq!(agent.get("api.test", "/x", &nonce).await.refusal(), Some("nonce_revoked"), "{form}");
        stage.assert_silent(&[&nonce]);
    }
    let leak = stage.sidecar.audited(|record| record["type"] == "leak").await;
    assert_eq!((&leak["alarm"], &leak["source"]), (&"high".into(), &"ci log 7".into()));
    assert_eq!((&leak["agent"], &leak["task"]), (&"worker".into(), &"task-1".into()));
    assert!(leak["caller.identity"].as_str().expect("who").starts_with("uid:"));
    let summary = stage.sidecar.audited(|record| record["type"] == "leak_report").await;
    assert_eq!((&summary["found"], &summary["live"]), (&1.into(), &1.into()));
    let end = stage.sidecar.audited(|record| record["type"] == "lease_end").await;
    assert!(end["by"].as_str().expect("who").contains("leaks"), "{end:#}");
}

#[tokio::test]
async fn the_answer_tells_nothing_of_what_was_alive() {
    let stage = Stage::new().await;
    let orchestrator = stage.sidecar.orchestrator();
    let (live, over) = (stage.reader().await, orchestrator.mint("worker", "api", "read").await);
    orchestrator.revoke(&over.id).await;
    let unknown = valetkey::model::Nonce::from_entropy(&[9; 32]);
    let mut answers = Vec::new();
    for text in [&live, &over.nonce, unknown.as_str(), "nothing at all", ""] {
        answers.push(report(&orchestrator, &json!({"text": text})).await);
    }
    assert_eq!(answers[0].0, 202);
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:#?}");
    stage.sidecar.audited(|record| record["type"] == "leak" && record["alarm"] == "low").await;
    let reports = |records: &[Value]| records.iter().filter(|record| record["type"] == "leak_report").count();
    let records = eventually("five reports", || Some(stage.sidecar.audit()).filter(|all| reports(all) == 5)).await;
    let counts: Vec<_> =
        records.iter().filter(|r| r["type"] == "leak_report").map(|r| (&r["found"], &r["live"])).collect();
    let wanted: Vec<_> = [(1, 1), (1, 0), (1, 0), (0, 0), (0, 0)].map(|(a, b)| (json!(a), json!(b))).into();
    assert_eq!(counts, wanted.iter().map(|(a, b)| (a, b)).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_report_is_read_strictly() {
    let stage = Stage::new().await;
    let orchestrator = stage.sidecar.orchestrator();
    let nonce = stage.reader().await;
    for body in [
        json!({}),
        json!({"text": nonce, "nonces": [nonce]}),
        json!({"nonces": []}),
        json!({"nonces": [1]}),
        json!({"text": nonce, "source": nonce}),
        json!({"text": nonce, "surprise": 1}),
    ] {
        let (status, _, text) = report(&orchestrator, &body).await;
        assert_eq!(status, 400, "{text}");
        assert!(text.contains("invalid_request") && !text.contains(&nonce), "{text}");
    }
    assert_eq!(stage.sidecar.agent().get("api.test", "/x", &nonce).await.status, 200);
    stage.assert_silent(&[&nonce]);
}

const READER: u32 = 54_341;

#[tokio::test]
async fn everybody_who_may_use_the_api_may_report_whosever_it_is() {
    if !can_be_others() {
        return;
    }
    let minter = format!("[minters.watcher]\nidentity = [\"uid:{READER}\"]\nagents = [\"other\"]\nmay = [\"read\"]\n");
    let other = "\n[agents.other]\nidentity = [\"any\"]\ngrants = { api = [\"read\"] }\n";
    let stage = open_to_group(&[policies::ONE_API, other, &minter].concat()).await;
    let nonce = stage.reader().await;
    let send = async |uid: u32| {
        let (control, body) = (stage.sidecar.control(), json!({"text": nonce}));
        acting(uid, GROUP, move || async move { report(&Orchestrator::new(control), &body).await.0 }).await
    };
    assert_eq!(send(STRANGER).await, 401);
    assert_eq!(stage.sidecar.agent().get("api.test", "/x", &nonce).await.status, 200);
    assert_eq!(send(READER).await, 202);
    assert_eq!(stage.sidecar.agent().get("api.test", "/x", &nonce).await.refusal(), Some("nonce_revoked"));
}
