//! The slot `aws-sigv4`: the agent's own signature is verified, and the request is signed again with the real key.

mod attacked;
mod forms;

use serde_json::{Value, json};

use crate::support::agent::{Reply, with};
use crate::support::sigv4::{Fields, Signer, moment, sha_256};
use crate::support::upstream::Seen;
use crate::support::{Builder, FakeUpstream, TestSidecar, canary};

pub(super) const POLICY: &str = r#"
version = 1

[credentials.pair]
source = "file"
path = "{dir}/pair.json"
hosts = ["api.test"]

[credentials.other]
source = "env"
name = "OTHER_KEY"
hosts = ["api.test"]

[services.store]
hosts = ["api.test"]
credential = "pair"
slots = ["aws-sigv4"]
aws = { service = "s3", regions = ["eu-west-1"] }
upstream_ca = "{dir}/api.pem"
[[services.store.scopes]]
name = "read"
risk = "low"
allow = ["GET /{*path}"]
[[services.store.scopes]]
name = "write"
risk = "low"
allow = ["GET /{*path}", "PUT /{*path}", "POST /{*path}"]

[services.plain]
hosts = ["api.test"]
credential = "other"
slots = ["bearer"]
upstream_ca = "{dir}/api.pem"
[[services.plain.scopes]]
name = "read"
risk = "low"
allow = ["GET /{*path}"]

[agents.worker]
identity = ["any"]
grants = { store = ["read", "write"], plain = ["read"] }
delegate = { to = ["worker"], depth = 1 }
"#;

pub(super) struct Signing {
    pub(super) real: Signer,
    pub(super) upstream: FakeUpstream,
    pub(super) sidecar: TestSidecar,
}

impl Signing {
    pub(super) async fn new() -> Self {
        Self::with(Some(canary())).await
    }

    /// With a real key of its own; the leak oracle hears of it and of the token.
    pub(super) async fn with(token: Option<String>) -> Self {
        Self::at(FakeUpstream::start(&["api.test"]).await, token).await
    }

    /// The same at an upstream that plays something else.
    pub(super) async fn at(upstream: FakeUpstream, token: Option<String>) -> Self {
        Self::of(POLICY, token, upstream, |builder| builder).await
    }

    /// The same with another policy and other flags.
    pub(super) async fn of(
        policy: &str,
        token: Option<String>,
        upstream: FakeUpstream,
        edit: impl FnOnce(Builder) -> Builder,
    ) -> Self {
        let (region, service) = ("eu-west-1".to_owned(), "s3".to_owned());
        let real =
            Signer { id: "AKIDREALKEY234567".to_owned(), secret: canary(), token, region, service, date: moment(0) };
        let pair = match &real.token {
            Some(token) => {
                json!({"Version": 1, "AccessKeyId": real.id, "SecretAccessKey": real.secret, "SessionToken": token})
            }
            None => json!({"Version": 1, "AccessKeyId": real.id, "SecretAccessKey": real.secret}),
        };
        let builder = TestSidecar::with_policy(policy)
            .upstream(&["api.test"], "api", &upstream)
            .environment("OTHER_KEY", &canary())
            .file("pair.json", &serde_json::to_string_pretty(&pair).expect("JSON"));
        let sidecar = edit(builder).start().await;
        Self { real, upstream, sidecar }
    }

    pub(super) async fn mint(&self, scope: &str) -> Value {
        self.sidecar.orchestrator().mint("worker", "store", scope).await.answer
    }

    pub(super) async fn signer(&self) -> Signer {
        Signer::of(&self.mint("write").await)
    }

    pub(super) async fn send(&self, method: &str, target: &str, fields: &Fields, body: &str) -> Reply {
        let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (&**name, &**value)).collect();
        self.sidecar.agent().send(with(method, "api.test", target, &fields, body)).await
    }

    /// Fails unless this is a signature of the real key over what has arrived.
    pub(super) fn assert_signed(&self, seen: &Seen) {
        self.assert_signed_as(seen, &seen.target);
    }

    /// The same, where this is the canonical form of the target.
    fn assert_signed_as(&self, seen: &Seen, canonical: &str) {
        let said = seen.header("authorization").expect("a signature");
        let names = said.split("SignedHeaders=").nth(1).expect("names").split(',').next().expect("names");
        let names: Vec<&str> = names.split(';').collect();
        let spaced = |text: &str| text.split([' ', '\t']).filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
        let fields: Fields = seen
            .headers
            .iter()
            .map(|(name, value)| (name.to_string(), spaced(value.to_str().expect("text"))))
            .collect();
        let real = Signer { date: seen.header("x-amz-date").expect("a date").to_owned(), ..self.real.clone() };
        let body = String::from_utf8_lossy(&seen.body);
        let host = seen.header("host").unwrap_or("api.test");
        assert_eq!(said, real.authorization(&seen.method, host, canonical, (&names, &fields), &body));
        for name in seen.headers.keys().filter(|name| name.as_str().starts_with("x-amz-")) {
            assert!(names.contains(&name.as_str()), "{name} is not signed");
        }
        assert_eq!(seen.header("x-amz-security-token"), self.real.token.as_deref());
    }

    pub(super) fn assert_refused(&self, reply: &Reply, code: &str, what: &str) {
        assert_eq!(reply.refusal(), Some(code), "{what}: {} {}", reply.status, reply.text());
        assert!(self.upstream.seen().is_empty(), "{what}: something went out");
    }
}

pub(super) fn set(fields: &Fields, name: &str, edit: impl Fn(&str) -> String) -> Fields {
    let edited =
        |(known, value): &(String, String)| (known.clone(), if known == name { edit(value) } else { value.clone() });
    fields.iter().map(edited).collect()
}

#[tokio::test]
async fn a_signed_request_is_signed_again_with_the_real_key() {
    let stage = Signing::new().await;
    let minted = stage.mint("write").await;
    let signer = Signer::of(&minted);
    assert_eq!((signer.id.len(), &signer.id[..4]), (20, "ASIA"));
    assert_eq!(signer.token.as_deref(), minted["nonce"].as_str());
    let (hash, empty) = (sha_256("a body"), sha_256(""));
    for (method, target, fields, body) in [
        ("GET", "/a/b?list-type=2&prefix=x", vec![], ""),
        (
            "GET",
            "/a%20b/~c",
            vec![("x-amz-content-sha256", &*empty), ("x-amz-meta-a", "b c"), ("range", "bytes=0-1")],
            "",
        ),
        ("PUT", "/a", vec![("content-type", "text/plain"), ("x-amz-content-sha256", &hash)], "a body"),
        ("POST", "/a?delete=", vec![("content-type", "text/plain")], "a body"),
        ("PUT", "/a", vec![("x-amz-content-sha256", "UNSIGNED-PAYLOAD")], "a body"),
        ("PUT", "/a", vec![("x-amz-content-sha256", "STREAMING-UNSIGNED-PAYLOAD-TRAILER")], "6\r\na body\r\n0\r\n\r\n"),
    ] {
        let fields = signer.sign(method, "api.test", target, &fields, body);
        let reply = stage.send(method, target, &fields, body).await;
        assert_eq!(reply.status, 200, "{method} {target}: {}", reply.text());
        let seen = stage.upstream.only();
        stage.assert_signed(&seen);
        assert_eq!((&*seen.target, &*seen.body), (target, body.as_bytes()));
        let all = String::from_utf8_lossy(&seen.everything()).into_owned();
        for ours in [&signer.id, &signer.secret, signer.token.as_ref().expect("a nonce")] {
            assert!(!all.contains(ours.as_str()), "{all}");
        }
        stage.upstream.forget();
    }
}

#[tokio::test]
async fn over_http_2_too() {
    let stage = Signing::new().await;
    let fields = stage.signer().await.sign("GET", "api.test", "/a", &[], "");
    let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (&**name, &**value)).collect();
    let reply = stage.sidecar.agent().send_h2(with("GET", "api.test", "/a", &fields, "")).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    stage.assert_signed(&stage.upstream.only());
}

#[tokio::test]
async fn a_key_without_a_token_goes_without_one() {
    let stage = Signing::with(None).await;
    let fields = stage.signer().await.sign("GET", "api.test", "/a", &[], "");
    assert_eq!(stage.send("GET", "/a", &fields, "").await.status, 200);
    stage.assert_signed(&stage.upstream.only());
}

#[tokio::test]
async fn nothing_of_the_real_key_comes_back() {
    let stage = Signing::new().await;
    let signer = stage.signer().await;
    for target in ["/echo", "/header", "/gzip", "/split"] {
        let fields = signer.sign("GET", "api.test", target, &[], "");
        let reply = stage.send("GET", target, &fields, "").await;
        assert_eq!(reply.status, 200, "{target}");
        // The secret and the token are looked for everywhere when the sidecar ends.
        assert!(!String::from_utf8_lossy(&reply.everything()).contains(&stage.real.id), "{target}: {}", reply.text());
    }
    assert!(!stage.sidecar.log().contains(&stage.real.id));
    assert!(!stage.sidecar.audit_text().contains(&signer.secret));
}

#[tokio::test]
async fn what_was_changed_after_signing_is_refused() {
    let stage = Signing::new().await;
    let (signer, other) = (stage.signer().await, stage.signer().await);
    let hash = sha_256("a body");
    let fields =
        signer.sign("PUT", "api.test", "/a?x=1", &[("x-amz-meta-a", "b"), ("x-amz-content-sha256", &hash)], "a body");
    for (method, target, body, what) in [
        ("POST", "/a?x=1", "a body", "method"),
        ("PUT", "/b?x=1", "a body", "path"),
        ("PUT", "/a?x=2", "a body", "query"),
        ("PUT", "/a?x=1&y=1", "a body", "one more parameter"),
        ("PUT", "/a?x=1", "another", "body"),
        ("PUT", "/a?x=1", "", "no body"),
    ] {
        stage.assert_refused(&stage.send(method, target, &fields, body).await, "signature_refused", what);
    }
    let wrong_end = |value: &str| {
        let (rest, last) = value.split_at(value.len() - 1);
        format!("{rest}{}", if last == "0" { "1" } else { "0" })
    };
    let another_token = other.token.clone().expect("a nonce");
    let another_id = |value: &str| value.replace(&signer.id, &other.id);
    for (edited, what) in [
        (set(&fields, "authorization", wrong_end), "signature"),
        (set(&fields, "authorization", another_id), "access key id"),
        (set(&fields, "x-amz-meta-a", |_| "c".to_owned()), "field"),
        (set(&fields, "x-amz-date", |_| moment(60)), "date"),
        (set(&fields, "x-amz-content-sha256", |_| "UNSIGNED-PAYLOAD".to_owned()), "hash"),
        (set(&fields, "x-amz-security-token", |_| another_token.clone()), "nonce"),
    ] {
        stage.assert_refused(&stage.send("PUT", "/a?x=1", &edited, "a body").await, "signature_refused", what);
    }
    let without_hash = signer.sign("PUT", "api.test", "/a", &[], "a body");
    stage.assert_refused(
        &stage.send("PUT", "/a", &without_hash, "another").await,
        "signature_refused",
        "body without hash",
    );
    for forged in [
        Signer { secret: other.secret.clone(), ..signer.clone() },
        Signer { id: other.id.clone(), secret: other.secret.clone(), ..signer.clone() },
        Signer { secret: "0".repeat(40), ..signer.clone() },
    ] {
        let fields = forged.sign("GET", "api.test", "/a", &[], "");
        stage.assert_refused(&stage.send("GET", "/a", &fields, "").await, "signature_refused", "another secret");
    }
    let at_another_host = signer.sign("GET", "other.test", "/a", &[], "");
    stage.assert_refused(&stage.send("GET", "/a", &at_another_host, "").await, "signature_refused", "host");
}

#[tokio::test]
async fn what_a_signature_does_not_cover_is_refused() {
    let stage = Signing::new().await;
    let signer = stage.signer().await;
    let mut all: Fields = signer.sign("GET", "api.test", "/a", &[], "");
    all.pop();
    for left_out in ["host", "x-amz-date", "x-amz-security-token"] {
        let names: Vec<&str> =
            ["host", "x-amz-date", "x-amz-security-token"].into_iter().filter(|name| *name != left_out).collect();
        let mut fields = all.clone();
        let value = signer.authorization("GET", "api.test", "/a", (&names, &all), "");
        fields.push(("authorization".to_owned(), value));
        stage.assert_refused(&stage.send("GET", "/a", &fields, "").await, "signature_refused", left_out);
    }
    for (name, value) in [("x-amz-acl", "public-read"), ("x_amz_acl", "public-read"), ("x-amz-copy-source", "/b/c")] {
        let mut fields = signer.sign("PUT", "api.test", "/a", &[], "");
        fields.push((name.to_owned(), value.to_owned()));
        stage.assert_refused(&stage.send("PUT", "/a", &fields, "").await, "signature_refused", name);
    }
    let copying = signer.sign("PUT", "api.test", "/a", &[("x-amz-copy-source", "/b/c")], "");
    stage.assert_refused(&stage.send("PUT", "/a", &copying, "").await, "signature_refused", "a signed copy");
    let reply = stage.send("PUT", "/a", &copying, "").await;
    assert!(reply.text().contains("<Code>AccessDenied</Code>"), "as its clients read it: {}", reply.text());
}

#[tokio::test]
async fn a_signature_is_for_now_and_for_what_the_host_is() {
    let stage = Signing::new().await;
    let signer = stage.signer().await;
    for (seconds, what) in [(-1000, "past"), (1000, "future"), (-86_400, "yesterday")] {
        let fields = Signer { date: moment(seconds), ..signer.clone() }.sign("GET", "api.test", "/a", &[], "");
        let reply = stage.send("GET", "/a", &fields, "").await;
        stage.assert_refused(&reply, "signature_refused", what);
        assert!(reply.text().contains("<Code>RequestTimeTooSkewed</Code>"), "{}", reply.text());
    }
    for (region, service) in [("us-east-1", "s3"), ("eu-west-1", "sts"), ("eu-west-1", "s3express")] {
        let (region, service) = (region.to_owned(), service.to_owned());
        let fields = Signer { region, service, ..signer.clone() }.sign("GET", "api.test", "/a", &[], "");
        stage.assert_refused(&stage.send("GET", "/a", &fields, "").await, "signature_refused", "scope");
    }
}

#[tokio::test]
async fn other_forms_and_doubled_fields_are_refused() {
    let stage = Signing::new().await;
    let signer = stage.signer().await;
    let fields = signer.sign("GET", "api.test", "/a", &[], "");
    for doubled in ["authorization", "x-amz-date", "x-amz-security-token"] {
        let again = fields.iter().find(|(name, _)| name == doubled).expect("it").clone();
        let reply = stage.send("GET", "/a", &[fields.clone(), vec![again]].concat(), "").await;
        assert!(reply.refusal().is_some(), "{doubled}: {}", reply.status);
        assert!(stage.upstream.seen().is_empty(), "{doubled}");
    }
    let chunks = [("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD")];
    let chunked = signer.sign("PUT", "api.test", "/a", &chunks, "");
    stage.assert_refused(&stage.send("PUT", "/a", &chunked, "x").await, "signature_refused", "chunks");
    let curves = set(&fields, "authorization", |value| value.replace("HMAC-SHA256", "ECDSA-P256-SHA256"));
    stage.assert_refused(&stage.send("GET", "/a", &curves, "").await, "signature_refused", "SigV4A");
    for parameter in
        ["X-Amz-Signature=00", "X-Amz-Algorithm=AWS4-HMAC-SHA256", "AWSAccessKeyId=x", "x-amz-signat%75re=1"]
    {
        let reply = stage.send("GET", &format!("/a?{parameter}"), &vec![], "").await;
        stage.assert_refused(&reply, "signature_refused", parameter);
    }
    let nobody = Signer { token: Some("no nonce".to_owned()), ..signer.clone() }.sign("GET", "api.test", "/a", &[], "");
    stage.assert_refused(&stage.send("GET", "/a", &nobody, "").await, "foreign_credential", "another token");
}

#[tokio::test]
async fn a_nonce_keeps_to_its_own_slot_and_its_own_scopes() {
    let stage = Signing::new().await;
    let minted = stage.mint("read").await;
    let signer = Signer::of(&minted);
    let token = signer.token.clone().expect("a nonce");
    let bearer = vec![("authorization".to_owned(), format!("Bearer {token}"))];
    stage.assert_refused(&stage.send("GET", "/a", &bearer, "").await, "nonce_misplaced", "as a bearer");
    let fields = signer.sign("PUT", "api.test", "/a", &[], "x");
    stage.assert_refused(&stage.send("PUT", "/a", &fields, "x").await, "out_of_scope", "writing");
    let plain = stage.sidecar.orchestrator().mint("worker", "plain", "read").await;
    assert!(plain.answer.get("aws").is_none(), "no key pair for a service that does not sign");
    let fields = Signer { token: Some(plain.nonce.clone()), ..signer.clone() }.sign("GET", "api.test", "/a", &[], "");
    stage.assert_refused(&stage.send("GET", "/a", &fields, "").await, "signature_refused", "another service's nonce");
    stage.sidecar.orchestrator().revoke(minted["id"].as_str().expect("an id")).await;
    let fields = signer.sign("GET", "api.test", "/a", &[], "");
    let reply = stage.send("GET", "/a", &fields, "").await;
    stage.assert_refused(&reply, "nonce_revoked", "after its end");
    assert!(reply.text().contains("<Code>AccessDenied</Code>"), "{}", reply.text());
}

#[tokio::test]
async fn a_delegated_nonce_has_a_pair_of_its_own() {
    let stage = Signing::new().await;
    let parent = stage.mint("read").await;
    let path = format!("/v1/nonces/{}/delegate", parent["id"].as_str().expect("an id"));
    let body = json!({"agent": "worker", "service": "store", "scope": "read"});
    let (status, child) = stage.sidecar.orchestrator().call("POST", &path, Some(body)).await;
    assert_eq!(status, 201, "{child:#}");
    assert_ne!(child["aws"]["secret_access_key"], parent["aws"]["secret_access_key"]);
    let fields = Signer::of(&child).sign("GET", "api.test", "/a", &[], "");
    assert_eq!(stage.send("GET", "/a", &fields, "").await.status, 200);
    stage.assert_signed(&stage.upstream.only());
}

#[tokio::test]
async fn a_file_that_is_no_key_pair_is_said_at_start_and_refused() {
    let stage = Signing::new().await;
    let signer = stage.signer().await;
    std::fs::write(stage.sidecar.path("pair.json"), "AKIDREALKEY234567:a-secret-of-some-length").expect("a file");
    let wanted = "is not the JSON of AWS's credential_process";
    let reply = crate::support::sidecar::eventually("the file is read again", || {
        stage.sidecar.log().contains(wanted).then_some(())
    });
    let asking = async {
        for _ in 0..200 {
            let fields = signer.sign("GET", "api.test", "/a", &[], "");
            if stage.send("GET", "/a", &fields, "").await.refusal() == Some("credential_unavailable") {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        panic!("never refused");
    };
    tokio::join!(reply, asking);
}
