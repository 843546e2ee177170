//! Tokens that an RSA key signs, as most issuers do.

use serde_json::json;

use super::{claims, of_keys, oidc, with};
use crate::support::remote::{jwks, seconds_from_now as soon};
use crate::support::rsa::RsaSigner;

#[tokio::test]
async fn a_token_of_an_rsa_key_mints_by_the_listed_algorithm_alone() {
    let (Some(key), Some(other)) = (RsaSigner::make(), RsaSigner::make()) else { return };
    let keys =
        [key.jwk("k1", &[("use", "sig"), ("alg", "RS256")]), key.jwk("k2", &[]), key.jwk("ps", &[("alg", "PS256")])];
    let scene = of_keys(&oidc().replace("ES256", "RS256"), &jwks(&keys)).await;
    let caller = scene.parties.caller(&scene.sidecar);
    let identity = "oidc:ci:sub=repo:acme/app:ref:refs/heads/main";
    for kid in ["k1", "k2"] {
        let token = key.token("RS256", kid, &claims());
        assert_eq!(caller.whoami(&token).await.as_deref(), Ok(identity), "{kid}");
        assert_eq!(caller.mint(&token).await.status, 201, "{kid}");
    }
    let good = key.token("RS256", "k1", &claims());
    let (text, _) = good.rsplit_once('.').expect("parts");
    let (_, elses) = other
        .token("RS256", "k1", &claims())
        .rsplit_once('.')
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .expect("parts");
    for (what, token, why) in [
        ("another key", other.token("RS256", "k1", &claims()), "signature"),
        ("another key's signature", format!("{text}.{elses}"), "signature"),
        ("PS256, which is not listed", key.token("PS256", "k2", &claims()), "algorithm"),
        ("PS256 by a key that is for it", key.token("PS256", "ps", &claims()), "algorithm"),
        ("RS512, which is not listed", key.token("RS512", "k2", &claims()), "algorithm"),
        ("PS256 under the name of RS256", key.signed("PS256", "RS256", "k2", &claims()), "signature"),
        ("RS512 under the name of RS256", key.signed("RS512", "RS256", "k2", &claims()), "signature"),
        ("RS256 by a key for PS256", key.token("RS256", "ps", &claims()), ""),
        ("an unknown key", key.token("RS256", "k9", &claims()), "key"),
        ("another audience", key.token("RS256", "k1", &with("aud", json!("other"))), "audience"),
        ("expired", key.token("RS256", "k1", &with("exp", soon(-1).into())), "expired"),
    ] {
        let (status, detail) = caller.whoami(&token).await.expect_err(what);
        assert!(status == 401 && detail.contains(why), "{what}: {status} {detail}");
    }
    assert!(caller.whoami(&good).await.is_ok(), "it goes on");
}
