//! Reports of leaks from outside: what anybody says, and what a secret scanner signs.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use ring::digest::{SHA256, digest};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::{Value, json};

use super::tokens::Server;
use crate::support::remote::{Answer, Caller, NAME, Parties, write};
use crate::support::{Builder, FakeUpstream, Orchestrator, TestSidecar, canary, policies};

/// A key of the scanner's.
struct Key(EcdsaKeyPair);

impl Key {
    fn new() -> Self {
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new());
        let document = document.expect("a key");
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, document.as_ref(), &SystemRandom::new());
        Self(key.expect("a key"))
    }

    /// As GitHub publishes it.
    fn entry(&self, name: &str, is_current: bool) -> Value {
        const BEFORE: &str = "3059301306072a8648ce3d020106082a8648ce3d030107034200";
        let der = [hex::decode(BEFORE).expect("hex"), self.0.public_key().as_ref().to_vec()].concat();
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der));
        json!({"key_identifier": name, "key": pem, "is_current": is_current})
    }

    fn sign(&self, body: &str) -> String {
        STANDARD.encode(self.0.sign(&SystemRandom::new(), body.as_bytes()).expect("a signature"))
    }
}

fn published(keys: &[Value]) -> String {
    json!({"public_keys": keys}).to_string()
}

struct Scene {
    sidecar: TestSidecar,
    reporter: Caller,
    _upstream: FakeUpstream,
}

async fn scene(lay: impl FnOnce(&std::path::Path), edit: impl FnOnce(Builder) -> Builder) -> Scene {
    let upstream = FakeUpstream::start(&["api.test"]).await;
    let directory = Arc::new(tempfile::tempdir().expect("a directory"));
    let parties = Parties::new();
    parties.lay(directory.path());
    lay(directory.path());
    let builder = TestSidecar::with_policy(policies::ONE_API).within(&directory).environment("API_KEY", &canary());
    let builder = open(Parties::open(builder.upstream(&["api.test"], "api", &upstream)));
    let sidecar = edit(builder).start().await;
    let ready: Value = serde_json::from_str(&sidecar.text("ready.json")).expect("JSON");
    let address = ready["leaks_tcp"].as_str().expect("an address").parse().expect("an address");
    let mut reporter = parties.caller(&sidecar);
    reporter.address = address;
    Scene { sidecar, reporter, _upstream: upstream }
}

fn open(builder: Builder) -> Builder {
    [
        "--leaks-tcp",
        "127.0.0.1:0",
        "--leaks-tls-cert",
        "{dir}/tls/control.pem",
        "--leaks-tls-key",
        "{dir}/tls/control.key",
    ]
    .into_iter()
    .fold(builder, Builder::flag)
}

impl Scene {
    async fn post(&self, path: &str, fields: &[(&str, &str)], body: &str) -> Answer {
        self.try_post(path, fields, body).await.expect("an answer")
    }

    async fn try_post(&self, path: &str, fields: &[(&str, &str)], body: &str) -> Option<Answer> {
        let request = fields
            .iter()
            .fold(Request::post(path).header("host", NAME), |request, (name, value)| request.header(*name, *value));
        let request = request.body(Full::from(Bytes::copy_from_slice(body.as_bytes()))).expect("a request");
        self.reporter.send(request).await.ok()
    }

    async fn text(&self, body: &str) -> Answer {
        self.post("/v1/leaks", &[("content-type", "text/plain; charset=utf-8")], body).await
    }

    async fn scan(&self, key: &str, signature: &str, body: &str) -> Answer {
        let fields = [
            ("content-type", "application/json"),
            ("github-public-key-identifier", key),
            ("github-public-key-signature", signature),
        ];
        self.post("/v1/leaks/github", &fields, body).await
    }

    async fn mint(&self) -> String {
        Orchestrator::new(self.sidecar.control()).mint("worker", "api", "read").await.nonce
    }

    async fn lives(&self, nonce: &str) -> bool {
        self.sidecar.agent().get("api.test", "/x", nonce).await.status == 200
    }
}

#[tokio::test]
async fn what_anybody_reports_is_over_and_nobody_is_told() {
    let scene = scene(|_| (), |builder| builder).await;
    let (nonce, other) = (scene.mint().await, scene.mint().await);
    let unknown = format!("an_{}", "0".repeat(33));
    let found = scene.text(&format!("see this log: key={nonce}, again {nonce}\n")).await;
    let more = [scene.text(&nonce).await, scene.text(&unknown).await, scene.text("").await];
    for answer in &more {
        assert_eq!((answer.status.as_u16(), &answer.json), (202, &Value::Null));
        let names = |answer: &Answer| answer.headers.keys().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(names(answer), names(&found), "the answer tells nothing");
        assert_eq!(answer.headers["content-length"], found.headers["content-length"]);
    }
    assert_eq!(found.status, 202);
    assert!(!scene.lives(&nonce).await && scene.lives(&other).await);
    let record = scene.sidecar.audited(|record| record["type"] == "leak" && record["alarm"] == "high").await;
    assert_eq!((&record["agent"], &record["caller.identity"]), (&json!("worker"), &json!("anybody")));
    assert_eq!(record["caller.proof"], "none");
    scene.sidecar.audited(|record| record["type"] == "lease_end" && record["cause"] == "revoked").await;
    let report = scene.sidecar.audited(|record| record["type"] == "leak_report").await;
    assert_eq!((&report["found"], &report["live"]), (&json!(1), &json!(1)));
    assert!(!scene.sidecar.log().contains(&nonce) && !scene.sidecar.audit_text().contains(&nonce));
}

#[tokio::test]
async fn reports_are_bounded() {
    let scene = scene(|_| (), |builder| builder).await;
    let nonce = scene.mint().await;
    let plain = [("content-type", "text/plain")];
    assert_eq!(scene.text(&format!("{}{nonce}", "x".repeat(64 * 1024))).await.status, 413);
    assert_eq!(scene.post("/v1/leaks", &[("content-type", "application/json")], &nonce).await.status, 415);
    assert_eq!(scene.post("/v1/leaks", &[], &nonce).await.status, 415);
    assert_eq!(scene.post("/v1/nonces", &plain, &nonce).await.status, 404);
    assert_eq!(scene.post("/v1/leaks/github", &plain, &nonce).await.status, 404, "no keys, no scanner");
    assert_eq!(scene.reporter.get("/v1/leaks", None).await.status, 405);
    assert!(scene.lives(&nonce).await);
    let mut refused = None;
    for _ in 0..200 {
        let answer = scene.text("nothing").await;
        if answer.status == 429 {
            refused = Some(answer);
            break;
        }
        assert_eq!(answer.status, 202);
    }
    assert_eq!(refused.expect("too many").headers["retry-after"], "1");
}

#[tokio::test]
async fn a_scanners_report_is_believed_by_its_signature_alone() {
    let (key, old, stranger) = (Key::new(), Key::new(), Key::new());
    let keys = published(&[key.entry("k1", true), old.entry("k0", false)]);
    let lay = |directory: &std::path::Path| write(&directory.join("keys.json"), &keys, 0o644);
    let scene = scene(lay, |builder| builder.flag("--leaks-github-keys").flag("{dir}/keys.json")).await;
    let nonce = scene.mint().await;
    let unknown = format!("an_{}", "0".repeat(33));
    let found = |token: &str| json!({"token": token, "type": "valetkey_nonce", "url": "https://github.test/a/b", "source": "content"});
    let body = json!([found(&nonce), found(&unknown)]).to_string();
    let signature = key.sign(&body);

    for (what, answer) in [
        ("an unknown key", scene.scan("k9", &signature, &body).await),
        ("a key of before", scene.scan("k0", &old.sign(&body), &body).await),
        ("another's signature", scene.scan("k1", &stranger.sign(&body), &body).await),
        ("another body", scene.scan("k1", &signature, &format!("{body} ")).await),
        ("no base64", scene.scan("k1", "§§§", &body).await),
        ("no key", scene.scan("", &signature, &body).await),
    ] {
        assert_eq!((answer.status.as_u16(), &answer.json), (401, &Value::Null), "{what}");
    }
    let bare = [("content-type", "application/json")];
    assert_eq!(scene.post("/v1/leaks/github", &bare, &body).await.status, 401, "no signature");
    let large = format!("[{}]", " ".repeat(1024 * 1024));
    let fields = [("content-type", "application/json"), ("github-public-key-identifier", "k1")];
    let signed = key.sign(&large);
    // It may be hung up on before it has said it all.
    let answer = scene
        .try_post("/v1/leaks/github", &[&fields[..], &[("github-public-key-signature", &signed)]].concat(), &large)
        .await;
    assert!(answer.is_none_or(|answer| answer.status == 413));
    for bad in ["{}", "[{}]", "[1]", "x"] {
        assert_eq!(scene.scan("k1", &key.sign(bad), bad).await.status, 400, "{bad}");
    }
    assert!(scene.lives(&nonce).await, "nothing of that was believed");
    let refused = scene.sidecar.audited(|record| record["type"] == "control_refused").await;
    assert_eq!((&refused["call"], &refused["code"]), (&json!("leaks"), &json!("unauthenticated")));

    let answer = scene.scan("k1", &signature, &body).await;
    assert_eq!(answer.status, 200);
    let label = |token: &str, label: &str| {
        let hash = STANDARD.encode(digest(&SHA256, token.as_bytes()));
        json!({"token_hash": hash, "token_type": "valetkey_nonce", "label": label})
    };
    assert_eq!(answer.json, json!([label(&nonce, "true_positive"), label(&unknown, "false_positive")]));
    assert!(!scene.lives(&nonce).await);
    let record = scene.sidecar.audited(|record| record["type"] == "leak" && record["alarm"] == "high").await;
    assert_eq!((&record["caller.identity"], &record["caller.proof"]), (&json!("scanner:k1"), &json!("signature")));
    assert_eq!((&record["source"], &record["agent"]), (&json!("https://github.test/a/b"), &json!("worker")));
    assert_eq!(scene.scan("k1", &signature, &body).await.json[0]["label"], "true_positive", "it was ours");
    assert!(!scene.sidecar.log().contains(&nonce) && !scene.sidecar.audit_text().contains(&nonce));
}

#[tokio::test]
async fn nobody_keeps_a_scanners_report_away() {
    let (key, stranger) = (Key::new(), Key::new());
    let keys = published(&[key.entry("k1", true)]);
    let lay = |directory: &std::path::Path| write(&directory.join("keys.json"), &keys, 0o644);
    let scene = scene(lay, |builder| builder.flag("--leaks-github-keys").flag("{dir}/keys.json")).await;
    let nonce = scene.mint().await;
    let body = json!([{"token": nonce, "type": "n", "url": "", "source": "commit"}]).to_string();
    let forged = stranger.sign(&body);
    for _ in 0..60 {
        assert_eq!(scene.scan("k1", &forged, &body).await.status, 401);
    }
    assert_eq!(scene.scan("k1", &key.sign(&body), &body).await.json[0]["label"], "true_positive");
    assert!(!scene.lives(&nonce).await);
    let records = scene.sidecar.audit().into_iter().filter(|record| record["type"] == "control_refused").count();
    assert!((1..60).contains(&records), "{records}: forgeries fill no audit");
}

#[tokio::test]
async fn keys_come_from_a_server_too() {
    let (first, second) = (Key::new(), Key::new());
    let server = Server::start("keys.test", "").await;
    let pem = server.authority.pem.clone();
    let to = format!("keys.test:443:{}", server.address);
    let lay = |directory: &std::path::Path| write(&directory.join("keys.pem"), &pem, 0o644);
    let flags =
        ["--leaks-github-keys", "https://keys.test/keys", "--leaks-github-ca", "{dir}/keys.pem", "--connect-to", &to];
    let scene = scene(lay, |builder| flags.into_iter().fold(builder, Builder::flag)).await;
    let nonce = scene.mint().await;
    let body = json!([{"token": nonce, "type": "n", "url": "", "source": "commit"}]).to_string();
    server.say(500, "");
    assert_eq!(scene.scan("k1", &first.sign(&body), &body).await.status, 503, "nothing is believed without keys");
    server.say(200, &published(&[first.entry("k1", true)]));
    assert_eq!(scene.scan("k2", &second.sign(&body), &body).await.status, 401);
    assert!(scene.lives(&nonce).await);
    server.say(200, &published(&[first.entry("k1", false), second.entry("k2", true)]));
    assert_eq!(scene.scan("k2", &second.sign(&body), &body).await.json[0]["label"], "true_positive");
    assert!(!scene.lives(&nonce).await);
    assert_eq!(scene.scan("k1", &first.sign(&body), &body).await.status, 401, "its time is over");
}

#[test]
fn flags_that_do_not_fit_together_do_not_start() {
    for (flags, said) in [
        (&["--leaks-tcp", "127.0.0.1:0"][..], "over TLS alone"),
        (&["--leaks-github-keys", "/x"], "which is not there"),
        (&["--leaks-tls-cert", "/x"], "which is not there"),
        (&["--leaks-github-keys", "http://a.test/x"], "expected https://"),
        (
            &[
                "--leaks-tcp",
                "127.0.0.1:0",
                "--leaks-tls-cert",
                "/x",
                "--leaks-tls-key",
                "/y",
                "--leaks-github-ca",
                "/z",
            ],
            "--leaks-github-ca is about the server",
        ),
    ] {
        let builder = TestSidecar::with_policy(policies::ONE_API).environment("API_KEY", &canary());
        let (code, text) = flags.iter().fold(builder, |builder, flag| builder.flag(flag)).fails();
        assert_eq!(code, Some(2), "{text}");
        assert!(text.contains(said), "{said}: {text}");
    }
}
