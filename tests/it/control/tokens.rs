//! JWTs on the control listener: each way to prove oneself, and each way to fail.

use std::time::Duration;

use serde_json::{Value, json};

use super::tcp::{Scene, policy, scene};
use crate::support::remote::{Signer, jwks, seconds_from_now as soon, write};

mod reloading;
mod rsa;
mod servers;
mod workload;

pub use servers::Server;

const ISSUER: &str = "https://ci.test";

/// An OpenID Connect issuer whose keys are in a file, and a minter by a claim of it.
fn oidc() -> String {
    let minter = "[\"oidc:ci:repository=acme/app,protected=true\"]";
    format!(
        "{}\n[issuers.ci]\nkind = \"oidc\"\nissuer = \"{ISSUER}\"\naudience = \"valetkey\"\nalgorithms = [\"ES256\"]\njwks = \"{{dir}}/keys.json\"\n",
        policy("[\"any\"]", minter)
    )
}

fn claims() -> Value {
    json!({
        "iss": ISSUER, "aud": "valetkey", "sub": "repo:acme/app:ref:refs/heads/main", "exp": soon(300), "iat": soon(-5),
        "nbf": soon(-5), "repository": "acme/app", "protected": true, "run": 7,
    })
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

fn without(name: &str) -> Value {
    let mut claims = claims();
    claims.as_object_mut().expect("an object").remove(name);
    claims
}

async fn of_keys(policy: &str, keys: &str) -> Scene {
    scene(policy, |directory| write(&directory.join("keys.json"), keys, 0o644), |builder| builder).await
}

#[tokio::test]
async fn a_token_of_a_trusted_issuer_mints() {
    let key = Signer::es256();
    let scene = of_keys(&oidc(), &jwks(&[key.jwk("k1", &[("use", "sig"), ("alg", "ES256")])])).await;
    let caller = scene.parties.caller(&scene.sidecar);
    let identity = "oidc:ci:sub=repo:acme/app:ref:refs/heads/main";
    for claims in [
        claims(),
        with("aud", json!(["other", "valetkey"])),
        without("nbf"),
        without("iat"),
        with("iat", soon(20).into()),
    ] {
        assert_eq!(caller.whoami(&key.token("k1", &claims)).await.as_deref(), Ok(identity), "{claims}");
    }
    let token = key.token("k1", &claims());
    let minted = caller.mint(&token).await;
    assert_eq!(minted.status, 201, "{:#}", minted.json);
    let record = scene.sidecar.audited(|record| record["type"] == "mint").await;
    assert_eq!((&record["minted_by.identity"], &record["minted_by.proof"]), (&identity.into(), &"token".into()));
    for text in [scene.sidecar.audit_text(), scene.sidecar.log()] {
        assert!(!text.contains(&token), "{text}");
    }
    // Proven, and no minter.
    for claims in [with("repository", "acme/other".into()), with("protected", false.into()), without("repository")] {
        let (status, detail) = caller.whoami(&key.token("k1", &claims)).await.expect_err("no minter");
        assert!(status == 401 && detail.contains("knows no minter"), "{detail}");
    }
}

#[tokio::test]
async fn a_stream_of_events_ends_with_the_token_that_opened_it() {
    let key = Signer::es256();
    let policy = oidc().replace("\"revoke\"]", "\"revoke\", \"events\"]");
    let scene = of_keys(&policy, &jwks(&[key.jwk("k1", &[])])).await;
    let caller = scene.parties.caller(&scene.sidecar);
    let follow = async |exp: i64| {
        let token = format!("Bearer {}", key.token("k1", &with("exp", soon(exp).into())));
        tokio::time::timeout(Duration::from_secs(if exp > 60 { 3 } else { 30 }), caller.get("/v1/events", Some(&token)))
            .await
    };
    let ended = follow(2).await.expect("its end");
    assert_eq!((ended.status.as_u16(), &ended.headers["content-type"]), (200, &"text/event-stream".parse().unwrap()));
    assert!(follow(300).await.is_err(), "it goes on for as long as its token");
}

#[tokio::test]
async fn whatever_is_wrong_with_a_token_refuses_it() {
    let (key, other) = (Signer::es256(), Signer::es256());
    let scene = of_keys(&oidc(), &jwks(&[key.jwk("k1", &[]), Signer::eddsa().jwk("k2", &[])])).await;
    let caller = scene.parties.caller(&scene.sidecar);
    let good = key.token("k1", &claims());
    assert!(caller.whoami(&good).await.is_ok());
    let head = |more: &str| key.sign(&format!("{{\"kid\":\"k1\",{more}}}"), &claims().to_string());
    let body = |text: &str| key.sign(r#"{"alg":"ES256","kid":"k1"}"#, text);
    let parts: Vec<&str> = good.split('.').collect();
    let unsigned = key.sign(r#"{"alg":"none","kid":"k1"}"#, &claims().to_string());
    let unsigned = unsigned.rsplit_once('.').expect("three parts").0.to_owned() + ".";
    let twice = claims().to_string().replacen('{', r#"{"sub":"x","#, 1);
    for (what, token, why) in [
        ("alg none", head(r#""alg":"none""#), "algorithm"),
        ("alg none, unsigned", unsigned, "algorithm"),
        ("a shared secret", head(r#""alg":"HS256""#), "algorithm"),
        ("another family", Signer::eddsa().token("k1", &claims()), "algorithm"),
        ("another family that the set has", Signer::eddsa().token("k2", &claims()), "algorithm"),
        ("a key of another family", key.sign(r#"{"alg":"ES256","kid":"k2"}"#, &claims().to_string()), "signature"),
        ("jku", head(r#""alg":"ES256","jku":"https://evil.test/keys""#), "header"),
        ("x5u", head(r#""alg":"ES256","x5u":"https://evil.test/cert""#), "header"),
        ("jwk", head(r#""alg":"ES256","jwk":{}"#), "header"),
        ("crit", head(r#""alg":"ES256","crit":["exp"]"#), "header"),
        ("b64", head(r#""alg":"ES256","b64":false"#), "header"),
        ("another typ", head(r#""alg":"ES256","typ":"logout+jwt""#), "header"),
        ("no kid", key.sign(r#"{"alg":"ES256"}"#, &claims().to_string()), "key"),
        ("an unknown kid", key.token("k9", &claims()), "key"),
        ("alg twice", head(r#""alg":"ES256","alg":"ES256""#), "well-formed"),
        ("sub twice", body(&twice), "well-formed"),
        ("an array", body("[]"), "well-formed"),
        ("somebody else's signature", other.token("k1", &claims()), "signature"),
        (
            "another payload",
            format!(
                "{}.{}.{}",
                parts[0],
                other.token("k1", &with("x", 1.into())).split('.').nth(1).expect("a payload"),
                parts[2]
            ),
            "signature",
        ),
        ("no signature", format!("{}.{}.", parts[0], parts[1]), "signature"),
        ("two parts", format!("{}.{}", parts[0], parts[1]), "well-formed"),
        ("four parts", format!("{good}.x"), "well-formed"),
        ("padding", format!("{good}="), "well-formed"),
        ("another issuer", key.token("k1", &with("iss", "https://evil.test".into())), "issuer"),
        ("almost the issuer", key.token("k1", &with("iss", format!("{ISSUER}/").into())), "issuer"),
        ("no issuer", key.token("k1", &without("iss")), "issuer"),
        ("another audience", key.token("k1", &with("aud", "other".into())), "audience"),
        ("no audience", key.token("k1", &without("aud")), "aud"),
        ("expired", key.token("k1", &with("exp", soon(-1).into())), "expired"),
        ("no expiry", key.token("k1", &without("exp")), "exp"),
        ("an expiry that is text", key.token("k1", &with("exp", "soon".into())), "exp"),
        ("not yet", key.token("k1", &with("nbf", soon(120).into())), "not valid yet"),
        ("issued in the future", key.token("k1", &with("iat", soon(120).into())), "not valid yet"),
        ("no subject", key.token("k1", &without("sub")), "sub"),
        ("a long subject", key.token("k1", &with("sub", "s".repeat(600).into())), "sub"),
        ("no token", "a.b.c".to_owned(), "well-formed"),
        ("one word", "x".repeat(40), "not one that the policy knows"),
    ] {
        let (status, detail) = caller.whoami(&token).await.expect_err(what);
        assert!(status == 401 && detail.contains(why), "{what}: {status} {detail}");
    }
    let long = key.token("k1", &with("long", "x".repeat(20_000).into()));
    assert_eq!(caller.whoami(&long).await.expect_err("too long").0, 431, "the head itself is too long");
    assert!(caller.whoami(&good).await.is_ok(), "it goes on");
}

#[tokio::test]
async fn keys_in_a_file_may_change() {
    let (old, new) = (Signer::es256(), Signer::es256());
    let scene = of_keys(&oidc(), &jwks(&[old.jwk("k1", &[])])).await;
    let caller = scene.parties.caller(&scene.sidecar);
    let path = scene.sidecar.path("keys.json");
    assert!(caller.whoami(&old.token("k1", &claims())).await.is_ok());
    assert!(caller.whoami(&new.token("k2", &claims())).await.is_err());
    write(&path, &jwks(&[new.jwk("k2", &[])]), 0o644);
    assert!(caller.whoami(&new.token("k2", &claims())).await.is_ok());
    assert!(caller.whoami(&old.token("k1", &claims())).await.is_err(), "withdrawn");
    for (content, mode) in [("{}", 0o644), ("", 0o644), (&*jwks(&[new.jwk("k2", &[])]), 0o666)] {
        write(&path, content, mode);
        let (status, detail) = caller.whoami(&new.token("k2", &claims())).await.expect_err("no keys");
        assert!(status == 503 && detail.contains("keys cannot be had"), "{detail}");
    }
}

/// A cluster and a trust domain with keys in files.
fn cluster_and_mesh() -> String {
    let minters = "[\"kubernetes:ops/minter\", \"spiffe://example.org/minter\"]";
    let agent = "[\"uid:4242\", \"kubernetes:agents/worker\", \"spiffe://example.org/worker\"]";
    let table = |name: &str, rest: &str| {
        format!(
            "\n[issuers.{name}]\nkind = \"{rest}\naudience = \"valetkey\"\nalgorithms = [\"ES256\"]\njwks = \"{{dir}}/{name}.json\"\n"
        )
    };
    format!(
        "{}{}{}",
        policy(agent, minters),
        table("cluster", "kubernetes\"\nissuer = \"https://cluster.test\""),
        table("mesh", "spiffe\"\ntrust_domain = \"example.org\""),
    )
}

pub fn service_account(namespace: &str, name: &str, pod: &str) -> Value {
    json!({
        "iss": "https://cluster.test", "aud": ["valetkey"], "exp": soon(600), "iat": soon(-5), "nbf": soon(-5),
        "sub": format!("system:serviceaccount:{namespace}:{name}"),
        "kubernetes.io": {
            "namespace": namespace, "pod": {"name": "p", "uid": pod}, "serviceaccount": {"name": name, "uid": "u"},
        },
    })
}

#[tokio::test]
async fn service_accounts_and_spiffe_ids_prove_themselves() {
    let (cluster, mesh) = (Signer::es256(), Signer::es256());
    let lay = |directory: &std::path::Path| {
        write(&directory.join("cluster.json"), &jwks(&[cluster.jwk("c", &[])]), 0o644);
        let bundle = jwks(&[mesh.jwk("m", &[("use", "jwt-svid")]), Signer::es256().jwk("x", &[("use", "x509-svid")])]);
        write(&directory.join("mesh.json"), &bundle, 0o644);
    };
    let scene = scene(&cluster_and_mesh(), lay, |builder| builder.flag("--pod-uid").flag("own-pod")).await;
    let caller = scene.parties.caller(&scene.sidecar);
    let account = |namespace: &str, name: &str, pod: &str| cluster.token("c", &service_account(namespace, name, pod));
    assert_eq!(caller.whoami(&account("ops", "minter", "p1")).await.as_deref(), Ok("kubernetes:ops/minter"));
    let svid = |id: &str| json!({"sub": id, "aud": ["valetkey"], "exp": soon(60)});
    let minter = "spiffe://example.org/minter";
    assert_eq!(caller.whoami(&mesh.token("m", &svid(minter))).await.as_deref(), Ok(minter));
    assert_eq!(caller.mint(&account("ops", "minter", "p1")).await.status, 201);

    let mut lying = service_account("ops", "minter", "p1");
    lying["kubernetes.io"]["serviceaccount"]["name"] = "other".into();
    let mut bare = service_account("ops", "minter", "p1");
    bare.as_object_mut().expect("an object").remove("kubernetes.io");
    let mut odd = service_account("ops", "minter", "p1");
    odd["sub"] = "system:serviceaccount:ops:minter:x".into();
    for (what, token, status) in [
        ("another account", account("ops", "other", "p1"), 401),
        ("an agent's account", account("agents", "worker", "p1"), 403),
        ("a token of our own pod", account("ops", "minter", "own-pod"), 401),
        ("claims that do not agree", cluster.token("c", &lying), 401),
        ("no claims of Kubernetes", cluster.token("c", &bare), 401),
        ("a subject of more parts", cluster.token("c", &odd), 401),
        ("an agent's SVID", mesh.token("m", &svid("spiffe://example.org/worker")), 403),
        ("another workload", mesh.token("m", &svid("spiffe://example.org/other")), 401),
        ("another trust domain", mesh.token("m", &svid("spiffe://evil.test/minter")), 401),
        ("no workload", mesh.token("m", &svid("spiffe://example.org")), 401),
        ("a workload vouched for by the cluster", cluster.token("c", &svid(minter)), 401),
        ("a key for certificates", mesh.token("x", &svid(minter)), 401),
        ("an account vouched for by the mesh", mesh.token("m", &service_account("ops", "minter", "p1")), 401),
    ] {
        assert_eq!(caller.whoami(&token).await.expect_err(what).0, status, "{what}");
    }
    let record = |record: &Value| record["caller.identity"] == "kubernetes:agents/worker";
    assert_eq!(scene.sidecar.audited(record).await["code"], "forbidden");
}
