//! A real credential in what an agent sends: refused before it goes anywhere, and an alarm.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::support::agent::{Reply, with};
use crate::support::sidecar::eventually;
use crate::support::{FakeUpstream, Stage, canary, policies};

fn percent(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

fn alarms(stage: &Stage) -> Vec<Value> {
    stage.sidecar.audit().into_iter().filter(|record| record["type"] == "alarm").collect()
}

fn assert_refused(reply: &Reply, stage: &Stage, what: &str) {
    assert_eq!((reply.status.as_u16(), reply.refusal()), (403, Some("credential_exposed")), "{what}: {}", reply.text());
    stage.assert_clean(&reply.everything(), what);
}

async fn send(stage: &Stage, h2: bool, method: &str, path: &str, fields: &[(&str, &str)], body: &str) -> Reply {
    let agent = stage.sidecar.agent();
    let request = with(method, "api.test", path, fields, body);
    let mut tunnel = if h2 { agent.tunnel_h2("api.test").await } else { agent.tunnel("api.test").await };
    tunnel.send(request).await
}

#[tokio::test]
async fn in_a_head_it_is_refused_wherever_it_stands() {
    let stage = Stage::new().await;
    let nonce = stage.reader().await;
    let (secret, bearer) = (stage.secret.as_str(), format!("Bearer {nonce}"));
    let pair = STANDARD.encode(format!("user:{secret}"));
    let requests = [
        ("header", "/x".to_owned(), ("x-note", secret.to_owned())),
        ("header", "/x".to_owned(), ("cookie", format!("a=b; key={}", percent(secret)))),
        ("header", "/x".to_owned(), ("x-authorization", format!("Basic {pair}"))),
        ("path", format!("/keys/{secret}/x"), ("x-a", "b".to_owned())),
        ("path", format!("/{}", percent(secret)), ("x-a", "b".to_owned())),
        ("query", format!("/x?a=1&q={}", percent(&percent(secret))), ("x-a", "b".to_owned())),
    ];
    for (place, path, (name, value)) in &requests {
        for h2 in [false, true] {
            let before = alarms(&stage).len();
            let fields = [("authorization", bearer.as_str()), (name, value.as_str())];
            let method = if *place == "query" { "HEAD" } else { "GET" };
            let reply = send(&stage, h2, method, path, &fields, "").await;
            assert_eq!(reply.status, 403, "{place}");
            if method == "GET" {
                assert_refused(&reply, &stage, place);
            }
            let all = eventually("an alarm", || Some(alarms(&stage)).filter(|all| all.len() > before)).await;
            let record = all.last().expect("one");
            assert_eq!((&record["kind"], &record["outcome"]), (&json!("credential_exposed"), &json!("refused")));
            assert_eq!((&record["place"], &record["agent"]), (&json!(place), &json!("worker")));
        }
    }
    assert_eq!((stage.upstream.seen().len(), stage.upstream.connections()), (0, 0), "nothing was sent");
    let is_denied = |record: &Value| record["decision"] == "deny" && record["code"] == "credential_exposed";
    assert_eq!(stage.sidecar.audited(is_denied).await["agent"], "worker");
    let metrics = stage.sidecar.admin_get("/metrics").await.text();
    assert!(metrics.contains("valetkey_alarms_total{kind=\"credential_exposed\"} 12"), "{metrics}");
    stage.assert_silent(&[&nonce]);
    assert_eq!(stage.sidecar.agent().get("api.test", "/x", &nonce).await.status, 200, "the nonce lives on");
}

#[tokio::test]
async fn in_the_nonces_own_place_it_is_no_foreign_key() {
    let stage = Stage::new().await;
    let pair = STANDARD.encode(format!("{}:", stage.secret));
    for value in [format!("Bearer {}", stage.secret), format!("token {}", stage.secret), format!("Basic {pair}")] {
        let reply = send(&stage, false, "GET", "/x", &[("authorization", &value)], "").await;
        assert_refused(&reply, &stage, "a slot");
    }
    let reply = send(&stage, false, "GET", &format!("/x?key={}", stage.secret), &[], "").await;
    assert_refused(&reply, &stage, "the slot in the query");
    // A method is a text of the agent's choice, and on record.
    let reply = send(&stage, false, &stage.secret, "/x", &[], "").await;
    assert_refused(&reply, &stage, "the method");
    let foreign = send(&stage, false, "GET", "/x", &[("authorization", &format!("Bearer {}", canary()))], "").await;
    assert_eq!(foreign.refusal(), Some("foreign_credential"));
    // Our own door, and a host that no service lists, are no better places.
    for host in ["valetkey.internal", "elsewhere.test"] {
        let request = with("GET", host, &format!("/{}", stage.secret), &[], "");
        assert_refused(&stage.sidecar.agent().send(request).await, &stage, host);
    }
    assert_eq!(stage.upstream.connections(), 0, "nothing was sent");
    eventually("an alarm for each", || (alarms(&stage).len() == 7).then_some(())).await;
    stage.assert_silent(&[]);
}

#[tokio::test]
async fn in_a_body_it_never_goes_out_whole() {
    for (leak_scan, sends_nothing) in [("report", false), ("refuse", true), ("revoke", true)] {
        let stage = Stage::of_policy(&policies::one_api_with(&format!("leak_scan = \"{leak_scan}\""))).await;
        let writer = stage.writer().await;
        let bearer = format!("Bearer {writer}");
        let bodies = [
            format!("{{\"key\": \"{}\"}}", stage.secret),
            format!("a=b&key={}", percent(&stage.secret)),
            "y".repeat(300 * 1024) + &stage.secret + "tail",
        ];
        for (body, h2) in bodies.iter().flat_map(|body| [(body, false), (body, true)]) {
            if body.len() > 1024 && !h2 && sends_nothing {
                assert_eq!(stage.upstream.connections(), 0, "of the short ones nothing was sent");
            }
            let before = alarms(&stage).len();
            let reply = send(&stage, h2, "POST", "/x", &[("authorization", &bearer)], body).await;
            assert_refused(&reply, &stage, leak_scan);
            let all = eventually("an alarm", || Some(alarms(&stage)).filter(|all| all.len() > before)).await;
            let record = all.last().expect("one");
            assert_eq!((&record["kind"], &record["place"]), (&json!("credential_exposed"), &json!("body")));
            assert_eq!((&record["agent"], &record["outcome"]), (&json!("worker"), &json!("refused")));
        }
        for seen in stage.upstream.seen() {
            stage.assert_clean(&seen.body, "what went out");
        }
        stage.assert_silent(&[&writer]);
        let harmless = format!("{} and {}", &stage.secret[..stage.secret.len() - 1], canary());
        for h2 in [false, true] {
            let reply = send(&stage, h2, "POST", "/x", &[("authorization", &bearer)], &harmless).await;
            assert_eq!(reply.status, 200, "the nonce lives on");
        }
        let whole = stage.upstream.seen().iter().filter(|seen| seen.body == harmless.as_bytes()).count();
        assert_eq!(whole, 2, "unchanged");
    }
}

#[tokio::test]
async fn where_bodies_are_not_looked_at_it_passes_in_them() {
    let stage = Stage::of_policy(&policies::one_api_with("leak_scan = \"off\"")).await;
    let bearer = format!("Bearer {}", stage.writer().await);
    assert_eq!(send(&stage, false, "POST", "/x", &[("authorization", &bearer)], &stage.secret).await.status, 200);
    assert!(alarms(&stage).is_empty());
}

#[tokio::test]
async fn a_new_value_is_known_at_once_and_the_one_before_it_still() {
    let (first, second) = (canary(), canary());
    let policy =
        policies::ONE_API.replace("source = \"env\"\nname = \"API_KEY\"", "source = \"file\"\npath = \"{dir}/key\"");
    let upstream = FakeUpstream::start(&["api.test"]).await;
    let stage = Stage::of(&policy, upstream, |builder| builder.file("key", &first)).await;
    let reader = stage.reader().await;
    let expose = async |value: &str| send(&stage, false, "GET", "/x", &[("x-note", value)], "").await;
    assert_eq!(expose(&first).await.refusal(), Some("credential_exposed"));
    assert_eq!(expose(&second).await.refusal(), Some("nonce_missing"));
    std::fs::write(stage.sidecar.path("key"), &second).expect("a file");
    let mut is_known = false;
    for _ in 0..500 {
        // Its next use finds it.
        assert_eq!(stage.sidecar.agent().get("api.test", "/x", &reader).await.status, 200);
        is_known = expose(&second).await.refusal() == Some("credential_exposed");
        if is_known {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert!(is_known, "the new value is searched for");
    assert_eq!(expose(&first).await.refusal(), Some("credential_exposed"));
}
