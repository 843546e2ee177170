//! Agents that prove themselves to the proxy by a token: with the `CONNECT`, for the life of its tunnel.

mod again;
mod elsewhere;

use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::support::agent::get;
use crate::support::remote::{Signer, jwks, seconds_from_now as soon, write};
use crate::support::wire::answers;
use crate::support::{Agent, Builder, FakeUpstream, Stage, policies};

const ISSUER: &str = "https://ci.test";
const SVID: &str = "spiffe://example.org/worker";

/// An agent of three kinds of token and of no uid, and the issuers of each.
fn policy() -> String {
    let identities = format!("[\"oidc:ci:repository=acme/app\", \"kubernetes:agents/worker\", \"{SVID}\"]");
    policies::ONE_API.replace("[\"any\"]", &identities) + &issuers()
}

fn issuers() -> String {
    let table = |name: &str, rest: &str| {
        format!(
            "\n[issuers.{name}]\nkind = \"{rest}\naudience = \"valetkey\"\nalgorithms = [\"ES256\"]\njwks = \"{{dir}}/{name}.json\"\n"
        )
    };
    [
        table("ci", &format!("oidc\"\nissuer = \"{ISSUER}\"")),
        table("cluster", "kubernetes\"\nissuer = \"https://cluster.test\""),
        table("mesh", "spiffe\"\ntrust_domain = \"example.org\""),
    ]
    .concat()
}

fn claims() -> Value {
    json!({"iss": ISSUER, "aud": "valetkey", "sub": "s", "exp": soon(300), "iat": soon(-5), "repository": "acme/app"})
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

/// A sidecar with one key for all issuers.
struct Scene {
    stage: Stage,
    key: Signer,
}

async fn scene(policy: &str, edit: impl FnOnce(Builder) -> Builder) -> Scene {
    let key = Signer::es256();
    let directory = Arc::new(tempfile::tempdir().expect("a directory"));
    lay(&key, directory.path());
    let upstream = FakeUpstream::start(&["api.test"]).await;
    let stage = Stage::of(policy, upstream, |builder| edit(builder.within(&directory))).await;
    Scene { stage, key }
}

fn lay(key: &Signer, directory: &Path) {
    for name in ["ci", "cluster"] {
        write(&directory.join(format!("{name}.json")), &jwks(&[key.jwk("k", &[])]), 0o644);
    }
    write(&directory.join("mesh.json"), &jwks(&[key.jwk("k", &[("use", "jwt-svid")])]), 0o644);
}

impl Scene {
    fn agent(&self, token: &str) -> Agent {
        self.stage.sidecar.agent().saying(&format!("Bearer {token}"))
    }

    /// The status, code and reason of a `CONNECT`.
    async fn connect(&self, field: &str) -> (u16, String, String) {
        let (head, _) = self.stage.sidecar.agent().saying(field).connect("api.test:443").await;
        let answer = answers(head.as_bytes(), true).pop().expect("an answer");
        let code = answer.header("valetkey-error").unwrap_or_default().to_owned();
        (answer.status, code, head)
    }
}

#[tokio::test]
async fn each_kind_of_token_proves_its_agent() {
    // The agent's token is of the pod that it shares with the sidecar, by which nobody mints.
    let scene = scene(&policy(), |builder| builder.flag("--pod-uid").flag("own-pod")).await;
    let nonce = scene.stage.reader().await;
    let account = json!({
        "iss": "https://cluster.test", "aud": ["valetkey"], "exp": soon(600), "sub": "system:serviceaccount:agents:worker",
        "kubernetes.io": {
            "namespace": "agents", "pod": {"name": "p", "uid": "own-pod"},
            "serviceaccount": {"name": "worker", "uid": "u"},
        },
    });
    let svid = json!({"sub": SVID, "aud": ["valetkey"], "exp": soon(60)});
    for (claims, identity) in [(claims(), "oidc:ci:sub=s"), (account, "kubernetes:agents/worker"), (svid, SVID)] {
        let token = scene.key.token("k", &claims);
        let mut tunnel = scene.agent(&token).tunnel("api.test").await;
        for _ in 0..2 {
            assert_eq!(tunnel.send(get("api.test", "/x", &nonce)).await.status, 200, "{identity}");
        }
        let mut tunnel = scene.agent(&token).tunnel_h2("api.test").await;
        assert_eq!(tunnel.send(get("api.test", "/x", &nonce)).await.status, 200, "{identity}");
        let record = scene.stage.sidecar.audited(|record| record["presented_by.identity"] == identity).await;
        assert_eq!(record["presented_by.proof"], if identity == SVID { "svid" } else { "token" });
        for text in [scene.stage.sidecar.audit_text(), scene.stage.sidecar.log()] {
            assert!(!text.contains(&token), "{text}");
        }
    }
    let seen = scene.stage.upstream.seen();
    assert!(seen.len() == 9 && seen.iter().all(|seen| seen.header("proxy-authorization").is_none()));
}

#[tokio::test]
async fn without_its_token_a_nonce_is_nobodys() {
    let scene = scene(&policy(), |builder| builder).await;
    let nonce = scene.stage.reader().await;
    let reply = scene.stage.sidecar.agent().get("api.test", "/x", &nonce).await;
    assert_eq!((reply.status.as_u16(), reply.refusal()), (401, Some("agent_unidentified")));
    let other = scene.key.token("k", &with("repository", "acme/other".into()));
    let reply = scene.agent(&other).get("api.test", "/x", &nonce).await;
    assert_eq!((reply.status.as_u16(), reply.refusal()), (403, Some("agent_mismatch")));
    // In the tunnel it proves nothing: there it is a credential of somebody's.
    let token = scene.key.token("k", &claims());
    let request = format!(
        "GET /x HTTP/1.1\r\nHost: api.test\r\nAuthorization: Bearer {nonce}\r\nProxy-Authorization: Bearer {token}\r\n\r\n"
    );
    let answer = scene.stage.sidecar.agent().raw_inside("api.test", request.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 401") && answer.contains("agent_unidentified"), "{answer}");
    assert!(scene.stage.upstream.seen().is_empty());
}

#[tokio::test]
async fn absolute_form_brings_its_own_each_time() {
    let scene = scene(&policy(), |builder| builder).await;
    let (nonce, token) = (scene.stage.reader().await, scene.key.token("k", &claims()));
    let ask = |field: &str| {
        format!("GET https://api.test/x HTTP/1.1\r\nHost: api.test\r\nAuthorization: Bearer {nonce}\r\n{field}\r\n")
    };
    let agent = scene.stage.sidecar.agent();
    let answer = agent.raw(ask(&format!("Proxy-Authorization: Bearer {token}\r\n")).as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let answer = agent.raw(ask("").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 401") && answer.contains("agent_unidentified"), "{answer}");
    let answer = agent.raw(ask("Proxy-Authorization: Bearer a.b.c\r\n").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("identity_refused"), "{answer}");
}

#[tokio::test]
async fn whatever_is_wrong_with_a_token_opens_no_tunnel() {
    let scene = scene(&policy(), |builder| builder).await;
    let key = &scene.key;
    let none = key.sign(r#"{"alg":"none","kid":"k"}"#, &claims().to_string());
    for (what, token, why) in [
        ("alg none", none.clone(), "algorithm"),
        ("alg none, unsigned", none.rsplit_once('.').expect("parts").0.to_owned() + ".", "algorithm"),
        ("a shared secret", key.sign(r#"{"alg":"HS256","kid":"k"}"#, &claims().to_string()), "algorithm"),
        ("another algorithm", Signer::eddsa().token("k", &claims()), "algorithm"),
        ("another issuer", key.token("k", &with("iss", "https://evil.test".into())), "issuer"),
        ("another audience", key.token("k", &with("aud", "other".into())), "audience"),
        ("expired", key.token("k", &with("exp", soon(-1).into())), "expired"),
        ("not yet", key.token("k", &with("nbf", soon(120).into())), "not valid yet"),
        ("an unknown key", key.token("k9", &claims()), "key"),
        ("another signature", Signer::es256().token("k", &claims()), "signature"),
        ("no JWT", "a.b.c".to_owned(), "well-formed"),
        ("a nonce in it", format!("eyJ.an_{}.x", "0".repeat(33)), "well-formed"),
        ("one word", "x".repeat(40), "not one that the policy knows"),
    ] {
        let (status, code, head) = scene.connect(&format!("Bearer {token}")).await;
        assert_eq!((status, code.as_str()), (403, "identity_refused"), "{what}");
        assert!(head.contains(why) && !head.contains("roxy-authenticate"), "{what}: {head}");
    }
    // Credentials of other kinds are not ours to judge.
    assert_eq!(scene.connect("Basic eDp5").await.0, 200);
    let good = key.token("k", &claims());
    assert_eq!(scene.connect(&format!("Bearer {good}")).await.0, 200);
    // Known or not: keys that cannot be had prove nobody who is not known yet.
    write(&scene.stage.sidecar.path("ci.json"), "{}", 0o644);
    let (status, code, _) = scene.connect(&format!("Bearer {}", key.token("k", &with("sub", "t".into())))).await;
    assert_eq!((status, code.as_str()), (503, "identity_unavailable"));
    assert_eq!(scene.connect(&format!("Bearer {good}")).await.0, 200, "verified a moment ago");
    scene.stage.sidecar.audited(|record| record["type"] == "connection" && record["code"] == "identity_refused").await;
}

#[tokio::test]
async fn where_no_agent_has_a_token_bearers_are_passed_over() {
    let scene = scene(&(policies::ONE_API.to_owned() + &issuers()), |builder| builder).await;
    let nonce = scene.stage.reader().await;
    assert_eq!(scene.agent("a.b.c").get("api.test", "/x", &nonce).await.status, 200);
}

#[tokio::test]
async fn a_token_is_enough_where_credentials_are_required() {
    let scene = scene(&(policy() + "\n[egress]\nproxy_auth = \"required\"\n"), |builder| builder).await;
    let nonce = scene.stage.reader().await;
    let token = scene.key.token("k", &claims());
    assert_eq!(scene.agent(&token).get("api.test", "/x", &nonce).await.status, 200);
    let stranger = scene.key.token("k", &with("repository", "acme/other".into()));
    for (field, code) in [
        (format!("Bearer {stranger}"), "agent_unidentified"),
        ("Bearer a.b.c".to_owned(), "identity_refused"),
        ("Basic eDp5".to_owned(), "agent_unidentified"),
    ] {
        let (status, said, head) = scene.connect(&field).await;
        assert_eq!((status, said.as_str()), (407, code), "{head}");
    }
}
