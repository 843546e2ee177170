//! Issuers and minters of a policy file that changes under a running sidecar.

use serde_json::Value;

use super::{claims, of_keys, oidc, with};
use crate::control::tcp::Scene;
use crate::support::remote::{NAME, Signer, jwks};

/// Changes the policy file and waits for what comes of it.
pub async fn change(scene: &Scene, from: &str, to: &str, outcome: &str) {
    let path = scene.sidecar.path("policy.toml");
    let text = std::fs::read_to_string(&path).expect("the policy");
    let edited = text.replace(from, to);
    assert_ne!(text, edited, "the edit changes something");
    let of_policy = |record: &Value| record["type"] == "policy" && record["outcome"] == outcome;
    std::fs::write(path, edited).expect("our directory");
    scene.sidecar.audited(of_policy).await;
}

#[tokio::test]
async fn another_audience_holds_from_the_next_call_on() {
    let key = Signer::es256();
    let scene = of_keys(&oidc(), &jwks(&[key.jwk("k1", &[])])).await;
    let caller = scene.parties.caller(&scene.sidecar);
    let (old, new) = (key.token("k1", &claims()), key.token("k1", &with("aud", "other".into())));
    assert!(caller.whoami(&old).await.is_ok());
    assert!(caller.whoami(&new).await.is_err());
    change(&scene, "audience = \"valetkey\"", "audience = \"other\"", "adopted").await;
    let (status, detail) = caller.whoami(&old).await.expect_err("the audience of before");
    assert!(status == 401 && detail.contains("audience"), "{detail}");
    assert!(caller.whoami(&new).await.is_ok());
}

#[tokio::test]
async fn a_minter_that_changes_loses_what_it_had() {
    let key = Signer::es256();
    let scene = of_keys(&oidc(), &jwks(&[key.jwk("k1", &[])])).await;
    let caller = scene.parties.caller(&scene.sidecar);
    let token = key.token("k1", &claims());
    assert!(caller.whoami(&token).await.is_ok());
    change(&scene, "repository=acme/app", "repository=acme/other", "adopted").await;
    let (status, detail) = caller.whoami(&token).await.expect_err("no minter any more");
    assert!(status == 401 && detail.contains("knows no minter"), "{detail}");
    assert_eq!(caller.mint(&token).await.status, 401);
    assert!(caller.whoami(&key.token("k1", &with("repository", "acme/other".into()))).await.is_ok());
}

#[tokio::test]
async fn a_service_never_comes_to_list_the_listeners_name() {
    let key = Signer::es256();
    let scene = of_keys(&oidc(), &jwks(&[key.jwk("k1", &[])])).await;
    let caller = scene.parties.caller(&scene.sidecar);
    change(&scene, "api.test", NAME, "refused").await;
    assert!(scene.sidecar.log().contains("agents must not reach the control API"));
    assert!(caller.whoami(&key.token("k1", &claims())).await.is_ok(), "the last good policy stays in force");
}
