//! Agents whose tokens somebody else vouches for: an RSA key of an issuer, keys of a server, an API server.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{ISSUER, Scene, claims, with};
use crate::control::tokens::Server;
use crate::support::agent::get;
use crate::support::remote::{Signer, jwks, seconds_from_now as soon, write};
use crate::support::rsa::RsaSigner;
use crate::support::{FakeUpstream, Stage, policies};

fn issuer(kind: &str, issuer: &str, algorithm: &str, rest: &str) -> String {
    format!(
        "\n[issuers.ci]\nkind = \"{kind}\"\nissuer = \"{issuer}\"\naudience = \"valetkey\"\nalgorithms = [\"{algorithm}\"]\n{rest}\n"
    )
}

fn agent_is(identity: &str) -> String {
    policies::ONE_API.replace("[\"any\"]", &format!("[\"{identity}\"]"))
}

/// A sidecar that asks this server under the name `there.test`.
async fn scene_at(server: &Server, policy: &str) -> Scene {
    let directory = Arc::new(tempfile::tempdir().expect("a directory"));
    write(&directory.path().join("there.pem"), &server.authority.pem, 0o644);
    write(&directory.path().join("own-token"), "the-sidecars-own-token\n", 0o640);
    let upstream = FakeUpstream::start(&["api.test"]).await;
    let to = format!("there.test:443:{}", server.address);
    let stage = Stage::of(policy, upstream, |builder| {
        let builder = builder.within(&directory).flag("--connect-to").flag(&to);
        builder.flag("--pod-uid").flag("own-pod")
    })
    .await;
    Scene { stage, key: Signer::es256() }
}

#[tokio::test]
async fn a_token_of_an_rsa_key_proves_an_agent() {
    let (Some(key), Some(other)) = (RsaSigner::make(), RsaSigner::make()) else { return };
    let policy =
        agent_is("oidc:ci:repository=acme/app") + &issuer("oidc", ISSUER, "RS256", "jwks = \"{dir}/rsa.json\"");
    let directory = Arc::new(tempfile::tempdir().expect("a directory"));
    write(&directory.path().join("rsa.json"), &jwks(&[key.jwk("k", &[])]), 0o644);
    let upstream = FakeUpstream::start(&["api.test"]).await;
    let stage = Stage::of(&policy, upstream, |builder| builder.within(&directory)).await;
    let scene = Scene { stage, key: Signer::es256() };
    let nonce = scene.stage.reader().await;
    let agent = scene.agent(&key.token("RS256", "k", &claims()));
    for mut tunnel in [agent.tunnel("api.test").await, agent.tunnel_h2("api.test").await] {
        assert_eq!(tunnel.send(get("api.test", "/x", &nonce)).await.status, 200);
    }
    for (what, token, why) in [
        ("another key", other.token("RS256", "k", &claims()), "signature"),
        ("PS256, which is not listed", key.token("PS256", "k", &claims()), "algorithm"),
        ("RS512, which is not listed", key.token("RS512", "k", &claims()), "algorithm"),
        ("PS256 under the name of RS256", key.signed("PS256", "RS256", "k", &claims()), "signature"),
    ] {
        let (status, code, head) = scene.connect(&format!("Bearer {token}")).await;
        assert_eq!((status, code.as_str()), (403, "identity_refused"), "{what}");
        assert!(head.contains(why), "{what}: {head}");
    }
    assert_eq!(scene.stage.upstream.seen().len(), 2);
}

#[tokio::test]
async fn the_keys_of_a_server_prove_an_agent() {
    let (old, new) = (Signer::es256(), Signer::es256());
    let server = Server::start("there.test", "").await;
    server.say(500, "");
    let rest = "jwks = \"https://there.test/jwks\"\nca = \"{dir}/there.pem\"";
    let policy = agent_is("oidc:ci:repository=acme/app") + &issuer("oidc", ISSUER, "ES256", rest);
    let scene = scene_at(&server, &policy).await;
    let nonce = scene.stage.reader().await;
    let connect = async |token: &str| {
        let (status, code, _) = scene.connect(&format!("Bearer {token}")).await;
        (status, code)
    };
    let (first, second) = (old.token("k1", &claims()), new.token("k2", &claims()));
    assert_eq!(connect(&first).await, (503, "identity_unavailable".to_owned()), "nobody is believed without keys");
    server.say(302, &jwks(&[old.jwk("k1", &[])]));
    assert_eq!(connect(&first).await.0, 503, "a redirect is no answer");
    server.say(200, &jwks(&[old.jwk("k1", &[])]));
    assert_eq!(scene.agent(&first).get("api.test", "/x", &nonce).await.status, 200);
    assert_eq!(connect(&second).await, (403, "identity_refused".to_owned()), "its key is not there yet");
    server.say(200, &jwks(&[new.jwk("k2", &[])]));
    assert_eq!(scene.agent(&second).get("api.test", "/x", &nonce).await.status, 200, "a new key appears");
    let late = old.token("k1", &with("sub", "t".into()));
    assert_eq!(connect(&late).await, (403, "identity_refused".to_owned()), "the old one is withdrawn");
    // What a server says of another issuer's tokens is never asked for.
    assert_eq!(connect(&new.token("k2", &with("iss", "https://evil.test".into()))).await.0, 403);
    let reply =
        scene.agent(&new.token("k2", &with("repository", "acme/other".into()))).get("api.test", "/x", &nonce).await;
    assert_eq!((reply.status.as_u16(), reply.refusal()), (403, Some("agent_mismatch")));
    assert_eq!(scene.stage.upstream.seen().len(), 2);
}

fn account(name: &str, late: i64) -> Value {
    json!({
        "iss": "https://there.test", "aud": ["valetkey"], "exp": soon(late),
        "sub": format!("system:serviceaccount:agents:{name}"),
        "kubernetes.io": {
            "namespace": "agents", "pod": {"name": "p", "uid": "p1"}, "serviceaccount": {"name": name, "uid": "u"},
        },
    })
}

#[tokio::test]
async fn the_api_servers_word_proves_an_agent() {
    let key = Signer::es256();
    let server = Server::start("there.test", "").await;
    let rest = "api_server = \"https://there.test\"\napi_token = \"{dir}/own-token\"\nca = \"{dir}/there.pem\"";
    let policy = agent_is("kubernetes:agents/worker") + &issuer("kubernetes", "https://there.test", "ES256", rest);
    let scene = scene_at(&server, &policy).await;
    let nonce = scene.stage.reader().await;
    let review = |is_good: bool, audience: &str, name: &str| {
        let user = json!({"username": format!("system:serviceaccount:agents:{name}")});
        json!({"kind": "TokenReview", "status": {"authenticated": is_good, "audiences": [audience], "user": user}})
            .to_string()
    };
    let token = |name: &str, late: i64| key.token("c", &account(name, late));
    // Each of its own: a token that was believed is known for a moment.
    for (late, (status, answer, refused)) in (600..).zip([
        (201, review(false, "valetkey", "worker"), (403, "identity_refused")),
        (201, review(true, "other", "worker"), (403, "identity_refused")),
        (201, review(true, "valetkey", "other"), (403, "identity_refused")),
        (201, "{}".to_owned(), (503, "identity_unavailable")),
        (403, review(true, "valetkey", "worker"), (503, "identity_unavailable")),
        (302, review(true, "valetkey", "worker"), (503, "identity_unavailable")),
    ]) {
        server.say(status, &answer);
        let (status, code, head) = scene.connect(&format!("Bearer {}", token("worker", late))).await;
        assert_eq!((status, code.as_str()), refused, "{answer}: {head}");
    }
    server.say(201, &review(true, "valetkey", "worker"));
    let good = token("worker", 700);
    let agent = scene.agent(&good);
    for mut tunnel in [agent.tunnel("api.test").await, agent.tunnel_h2("api.test").await] {
        assert_eq!(tunnel.send(get("api.test", "/x", &nonce)).await.status, 200);
    }
    let record =
        scene.stage.sidecar.audited(|record| record["presented_by.identity"] == "kubernetes:agents/worker").await;
    assert_eq!(record["presented_by.proof"], "token", "{record:#}");
    // Vouched for, and another agent's.
    server.say(201, &review(true, "valetkey", "other"));
    let reply = scene.agent(&token("other", 700)).get("api.test", "/x", &nonce).await;
    assert_eq!((reply.status.as_u16(), reply.refusal()), (403, Some("agent_mismatch")));
    assert_eq!(
        scene.connect(&format!("Bearer {}", token("worker", -1))).await.0,
        403,
        "expired, whatever is said of it"
    );
    assert_eq!(scene.stage.upstream.seen().len(), 2);
    let told = [scene.stage.sidecar.audit_text(), scene.stage.sidecar.log()];
    assert!(told.iter().all(|text| !text.contains(&good) && !text.contains("the-sidecars-own-token")));
}
