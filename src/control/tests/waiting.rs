//! Calls that wait for another one with their `Idempotency-Key`, while the policy changes.

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::*;
use crate::control::fixture::{Read, policy_parts};
use crate::control::idempotency::{BodyHash, Key, Outcome};
use crate::model::{MinterName, Risk};
use crate::policy::{DelegateRule, Parts, Policy};

const KEY: &str = "k";

/// What becomes of the policy while a call waits.
type Change = fn(&mut Parts);

/// The policy with refunds for `billing`, whose nonces may be delegated to itself.
fn parts() -> Parts {
    let mut parts = policy_parts();
    let billing = parts.agents.iter_mut().find(|agent| agent.name.as_str() == "billing").unwrap();
    billing.delegate = Some(DelegateRule { depth: 1, to: vec![billing.name.clone()], children_max: 8 });
    parts
}

/// A call that has the key, for as long as the sender is there, and then fails.
fn first_call(plane: &Plane, body: &str) -> oneshot::Sender<()> {
    let (minter, key) = (MinterName::parse("orchestrator").unwrap(), Key::parse(KEY.as_bytes()).unwrap());
    let keys = plane.control.keys.as_ref().unwrap();
    let slot = keys.claim(&minter, &key, BodyHash::of(body), &plane.control.parts.clock.now()).unwrap();
    let (sender, over) = oneshot::channel();
    tokio::spawn(async move {
        let failing = async || over.await.map_err(drop).and(Err::<Outcome, ()>(()));
        assert!(slot.get_or_try_init(failing).await.is_err());
    });
    sender
}

/// What a call with the key comes to that waits while the policy changes.
async fn after_waiting(plane: &Plane, target: &str, hashed: &str, body: &Value, change: Change) -> Read {
    let first = first_call(plane, hashed);
    tokio::task::yield_now().await;
    let request = Request::post(target).header("content-type", "application/json").header("idempotency-key", KEY);
    let request = request.body(Full::from(body.to_string())).unwrap();
    let mut waiting = std::pin::pin!(plane.send(ORCHESTRATOR_UID, request));
    assert!(timeout(Duration::from_millis(20), &mut waiting).await.is_err(), "it waits");
    let mut parts = parts();
    change(&mut parts);
    plane.control.parts.policy.replace(Arc::new(Policy::new(parts)));
    drop(first);
    waiting.await
}

#[tokio::test]
async fn what_waited_for_its_key_is_made_by_the_policy_in_force_then() {
    let cases: [(Change, u16); 4] = [
        (|_| {}, 201),
        (|parts| parts.agents.retain(|agent| agent.name.as_str() != "billing"), 404),
        (|parts| parts.minters.retain(|minter| minter.name.as_str() != "orchestrator"), 403),
        (|parts| parts.minters[0].max_risk = Some(Risk::Low), 403),
    ];
    let mut body = refund();
    body["scope"] = json!("write:refunds");
    for (change, status) in cases {
        let plane = Plane::new();
        let minted = after_waiting(&plane, "/v1/nonces", &body.to_string(), &body, change).await;
        assert_eq!(minted.status, status, "{minted:?}");

        let plane = Plane::new();
        plane.control.parts.policy.replace(Arc::new(Policy::new(parts())));
        let parent = plane.mint(ORCHESTRATOR_UID, &body).await.json()["id"].as_str().unwrap().to_owned();
        let asked = json!({"agent": "billing"});
        let hashed = format!("delegate {parent} {asked}");
        let target = format!("/v1/nonces/{parent}/delegate");
        let child = after_waiting(&plane, &target, &hashed, &asked, change).await;
        assert_eq!(child.status, status, "{child:?}");
        let live = 1 + usize::from(status == 201);
        assert_eq!(plane.store.live_count(), live, "the parent, and the child where there is one");
    }
}
