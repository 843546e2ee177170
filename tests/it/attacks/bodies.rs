//! Bodies and queries that a rule judges in one way and a server could read in another.

use crate::support::agent::{Reply, with};
use crate::support::{Stage, policies};

/// What follows the service.
const RULES: &str = r#"
[[services.api.scopes]]
name = "judged"
risk = "low"
[[services.api.scopes.rules]]
allow = "POST /transfers"
body = { type = "json", max = "64KiB", fields = { amount = "int", note = "string", more = "any" } }
when = "body.amount < 10"
[[services.api.scopes.rules]]
allow = "POST /prices"
body = { type = "json", max = "64KiB", fields = { price = "number" } }
when = "body.price <= 9007199254740992.0"
[[services.api.scopes.rules]]
allow = "POST /orders"
[[services.api.scopes.rules]]
deny = "POST /orders"
body = { type = "json", max = "64KiB", fields = { country = "string" } }
when = "body.country == 'XX'"
[[services.api.scopes.rules]]
allow = "GET /things"
[[services.api.scopes.rules]]
deny = "GET /things"
when = "has(request.query.force) && request.query.force == 'true'"

[agents.worker]
identity = ["any"]
grants = { api = ["judged"] }
"#;

struct Scene {
    stage: Stage,
    nonce: String,
}

impl Scene {
    async fn start() -> Self {
        let stage = Stage::of_policy(&policies::bearer_api(RULES)).await;
        let nonce = stage.sidecar.orchestrator().mint("worker", "api", "judged").await.nonce;
        Self { stage, nonce }
    }

    async fn send(&self, method: &str, path: &str, kind: &str, body: &str) -> Reply {
        let bearer = format!("Bearer {}", self.nonce);
        let request = with(method, "api.test", path, &[("authorization", &bearer), ("content-type", kind)], body);
        self.stage.sidecar.agent().send(request).await
    }

    async fn refuses(&self, path: &str, kind: &str, body: &str) {
        let reply = self.send("POST", path, kind, body).await;
        let shown = body.get(..body.len().min(80)).unwrap_or("…");
        assert_eq!(reply.refusal(), Some("condition_failed"), "{path} {kind} {shown}: {}", reply.text());
    }
}

const JSON: &str = "application/json";

#[tokio::test]
async fn json_that_is_not_read_by_all_alike_is_refused() {
    let scene = Scene::start().await;
    let deep = format!(r#"{{"amount": 5, "more": {}{}}}"#, "[".repeat(20_000), "]".repeat(20_000));
    let numbers = ["5.0", "5e0", "-0", "05", "+5", "0x5", "5.", "1e400", "9223372036854775808", "NaN", "\"5\"", "null"];
    let numbers = numbers.iter().map(|number| format!(r#"{{"amount": {number}}}"#));
    let bodies = [
        r#"{"\u0061mount": 5, "amount": 5000}"#,
        r#"{"amount": 5, "more": {"a": 1, "\u0061": 2}}"#,
        r#"{"amount": 5, "note": "a\u0000b"}"#,
        r#"{"amount": 5, "more": {"a\u0000": 1}}"#,
        r#"{"amount": 5, "note": "\ud800"}"#,
        r#"{"amount": 5, "Amount": 5000}"#,
        "\u{feff}{\"amount\": 5}",
        "{\"amount\": 5}\0",
        r#"[{"amount": 5}]"#,
        r#"{'amount': 5}"#,
        r#"{"amount": 5,}"#,
        r#"{"amount": 5 /* 5000 */}"#,
        "{\"amount\": 5}\n{\"amount\": 5000}",
        "",
        &deep,
    ];
    for body in bodies.into_iter().map(str::to_owned).chain(numbers) {
        scene.refuses("/transfers", JSON, &body).await;
    }
    for price in ["9007199254740993", "9007199254740993.0e1", "1e17", "18446744073709551617"] {
        scene.refuses("/prices", JSON, &format!(r#"{{"price": {price}}}"#)).await;
    }
    for country in ["\"XX\\u0000\"", "\"\\u0058X\"", "\"XX\", \"country\": \"YY\"", "null", "[\"XX\"]"] {
        scene.refuses("/orders", JSON, &format!(r#"{{"country": {country}}}"#)).await;
    }
    assert_eq!(scene.stage.upstream.seen().len(), 0, "nothing of it reached the upstream");
    let fine = r#" {"amount": -5, "more": [{"a": 1}, {"a": 1}]} "#;
    assert_eq!(scene.send("POST", "/transfers", JSON, fine).await.status, 200);
    assert_eq!(scene.send("POST", "/orders", JSON, r#"{"country": "YY"}"#).await.status, 200);
}

#[tokio::test]
async fn a_body_of_another_type_is_refused() {
    let scene = Scene::start().await;
    let kinds = [
        "application/json; charset=utf-16",
        "application/json; charset=utf-7",
        "application/json; charset=utf-8; charset=utf-16",
        "application/json; boundary=x",
        "application/json, text/plain",
        "application/vnd.api+json",
        "text/json",
        "multipart/form-data; boundary=x",
        "application/x-www-form-urlencoded",
        "application/jsonp",
    ];
    for kind in kinds {
        scene.refuses("/transfers", kind, r#"{"amount": 5}"#).await;
        scene.refuses("/orders", kind, r#"{"country": "YY"}"#).await;
    }
    assert_eq!(scene.stage.upstream.seen().len(), 0, "nothing of it reached the upstream");
    for kind in ["Application/JSON", "application/json;charset=UTF-8", "application/json ; charset=\"utf-8\""] {
        assert_eq!(scene.send("POST", "/transfers", kind, r#"{"amount": 5}"#).await.status, 200, "{kind}");
    }
}

#[tokio::test]
async fn a_deny_on_a_parameter_denies_what_it_cannot_read() {
    let scene = Scene::start().await;
    let queries = [
        "force=true",
        "f%6frce=tru%65",
        "force=true&force=false",
        "force=false&force=true",
        "a=b;force=true",
        "force=%ff",
        "%ff=1&force=false",
        "force=true&=",
    ];
    for query in queries {
        let reply = scene.send("GET", &format!("/things?{query}"), "text/plain", "").await;
        assert!([400, 403].contains(&reply.status.as_u16()), "{query}: {}", reply.text());
        assert!(reply.refusal().is_some(), "{query}");
    }
    assert_eq!(scene.stage.upstream.seen().len(), 0, "nothing of it reached the upstream");
    for query in ["force=false", "a=b", "a=true&b=1"] {
        assert_eq!(scene.send("GET", &format!("/things?{query}"), "text/plain", "").await.status, 200, "{query}");
    }
}
