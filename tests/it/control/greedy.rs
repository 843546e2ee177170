//! One minter that takes all it can of what all minters share keeps nothing from another.

use std::fmt::Write as _;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::callers::{GROUP, open_to_group};
use crate::support::orchestrator::post;
use crate::support::stranger::{acting, can_be_others};
use crate::support::{Orchestrator, Stage, policies};

const OTHER: u32 = 54_330;
/// As many keys as are remembered, and then some.
const KEYS: usize = 10_100;
/// Calls that are sent before their answers are read.
const AT_ONCE: usize = 100;

/// `greedy` is this process and may call as fast as it can; `modest` is another user.
fn policy() -> String {
    let minter = |name: &str, uid: u32| {
        format!(
            "\n[minters.{name}]\nidentity = [\"uid:{uid}\"]\nagents = [\"worker\"]\nmay = [\"mint\"]\nrate = \"1000000/s\"\n"
        )
    };
    policies::ONE_API.to_owned() + &minter("greedy", rustix::process::geteuid().as_raw()) + &minter("modest", OTHER)
}

/// Mints as `modest`, with always the same key; the id of the nonce.
async fn mint_as_modest(stage: &Stage) -> Value {
    let control = stage.sidecar.control();
    let call = move || async move {
        let body = json!({"agent": "worker", "task": "t", "service": "api", "scope": "read"}).to_string();
        let mut request = post("/v1/nonces", "application/json", &body);
        request.headers_mut().insert("idempotency-key", "mine".parse().expect("a value"));
        let (_, body) = Orchestrator::new(control).send(request).await;
        serde_json::from_slice::<Value>(&body).expect("JSON")
    };
    acting(OTHER, GROUP, call).await["id"].clone()
}

/// Delegations that nobody may have, each with another key, one behind the other on one connection.
async fn claim_keys(stage: &Stage, path: &str, from: usize) -> usize {
    let mut stream = UnixStream::connect(stage.sidecar.control()).await.expect("the control socket");
    let body = r#"{"agent":"worker"}"#;
    let mut text = String::new();
    for number in from..from + AT_ONCE {
        let last = if number + 1 == from + AT_ONCE { "Connection: close\r\n" } else { "" };
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "POST {path} HTTP/1.1\r\nHost: valetkey\r\nContent-Type: application/json\r\nIdempotency-Key: k{number}\r\n\
             Content-Length: {}\r\n{last}\r\n{body}",
            body.len()
        );
    }
    let (mut reading, mut writing) = stream.split();
    let mut answers = String::new();
    let (written, read) = tokio::join!(writing.write_all(text.as_bytes()), reading.read_to_string(&mut answers));
    written.and(read.map(drop)).expect("answers");
    answers.matches("HTTP/1.1 403 ").count()
}

#[tokio::test]
async fn a_minter_with_more_keys_than_are_remembered_makes_nobody_else_forget_one() {
    if !can_be_others() {
        return;
    }
    let stage = open_to_group(&policy()).await;
    let first = mint_as_modest(&stage).await;
    assert!(first.is_string(), "{first}");
    let own = stage.sidecar.orchestrator().mint("worker", "api", "read").await;
    let path = format!("/v1/nonces/{}/delegate", own.id);
    for from in (0..KEYS).step_by(AT_ONCE) {
        assert_eq!(claim_keys(&stage, &path, from).await, AT_ONCE);
    }
    assert_eq!(mint_as_modest(&stage).await, first, "the same nonce again");
}
