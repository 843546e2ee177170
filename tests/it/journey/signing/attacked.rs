//! What somebody tries who wants more of a signature than it is for.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::Response;

use super::*;
use crate::support::sidecar::eventually;

fn borrowed(fields: &Fields) -> Vec<(&str, &str)> {
    fields.iter().map(|(name, value)| (&**name, &**value)).collect()
}

/// A nonce of `write` with these terms.
async fn mint_with(stage: &Signing, extra: Value) -> Value {
    let mut body = json!({"agent": "worker", "task": "t", "service": "store", "scope": "write"});
    body.as_object_mut().expect("an object").extend(extra.as_object().expect("an object").clone());
    stage.sidecar.orchestrator().mint_with(body).await.answer
}

fn rewrite(stage: &Signing, from: &str, to: &str) {
    let path = stage.sidecar.path("policy.toml");
    let text = std::fs::read_to_string(&path).expect("the policy");
    assert!(text.contains(from), "{from}");
    std::fs::write(path, text.replace(from, to)).expect("our directory");
}

#[tokio::test]
async fn no_other_object_is_named_beside_the_path() {
    let stage = Signing::new().await;
    let signer = stage.signer().await;
    for name in ["x-amz-copy-source", "x-amz-copy-source-range", "x-amz-rename-source"] {
        let fields = signer.sign("PUT", "api.test", "/a", &[(name, "/b/c")], "");
        let reply = stage.send("PUT", "/a", &fields, "").await;
        stage.assert_refused(&reply, "signature_refused", name);
        assert!(reply.text().contains("another object"), "{}", reply.text());
        for target in [format!("/a?{name}=b"), format!("/a?{}=b", name.to_uppercase())] {
            let fields = signer.sign("PUT", "api.test", &target, &[], "");
            let reply = stage.send("PUT", &target, &fields, "").await;
            stage.assert_refused(&reply, "signature_refused", &target);
            assert!(reply.text().contains("another object"), "{}", reply.text());
        }
        let hidden = format!("/a?a=1;{}=b", name.replace('-', "%2D"));
        let fields = signer.sign("PUT", "api.test", &format!("/a?a=1%3B{name}%3Db"), &[], "");
        stage.assert_refused(&stage.send("PUT", &hidden, &fields, "").await, "signature_refused", &hidden);
    }
}

#[tokio::test]
async fn one_signature_in_one_place_and_nothing_beside_it() {
    let stage = Signing::new().await;
    let (signer, other) = (stage.signer().await, stage.signer().await);
    let token = signer.token.clone().expect("a nonce");
    for parameters in [
        "X-Amz-Algorithm=AWS4-HMAC-SHA256".to_owned(),
        "X-Amz-Credential=x".to_owned(),
        format!("X-Amz-Security-Token={token}"),
        "X-Amz-Signature=".to_owned(),
        "AWSAccessKeyId=x".to_owned(),
    ] {
        let target = format!("/a?{parameters}");
        let fields = signer.sign("GET", "api.test", &target, &[], "");
        let reply = stage.send("GET", &target, &fields, "").await;
        assert!(reply.refusal().is_some() && stage.upstream.seen().is_empty(), "{parameters}: {}", reply.status);
    }
    let fields = signer.sign("GET", "api.test", "/a", &[], "");
    let another = other.sign("GET", "api.test", "/a", &[], "");
    for (name, value) in another.iter().chain([
        &("x_amz_security_token".to_owned(), "x".to_owned()),
        &("x-amz_security-token".to_owned(), token.clone()),
        &("authorization".to_owned(), "Bearer x".to_owned()),
        &("x-api-key".to_owned(), "x".to_owned()),
        &("x-amz-meta-a".to_owned(), token.clone()),
    ]) {
        let mut fields = fields.clone();
        fields.push((name.clone(), value.clone()));
        let request = || with("GET", "api.test", "/a", &borrowed(&fields), "");
        for reply in [stage.sidecar.agent().send(request()).await, stage.sidecar.agent().send_h2(request()).await] {
            assert!(reply.refusal().is_some() && stage.upstream.seen().is_empty(), "{name}: {}", reply.status);
        }
    }
    let mut twice = signer.sign("PUT", "api.test", "/a", &[("x-amz-content-sha256", "UNSIGNED-PAYLOAD")], "x");
    twice.push(("x-amz-content-sha256".to_owned(), sha_256("x")));
    stage.assert_refused(&stage.send("PUT", "/a", &twice, "x").await, "request_ambiguous", "two hashes");
    let without: Fields = fields.iter().filter(|(name, _)| name != "x-amz-security-token").cloned().collect();
    stage.assert_refused(&stage.send("GET", "/a", &without, "").await, "signature_refused", "no token");
    let socket = [
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let mut fields = fields;
    fields.extend(socket.map(|(name, value)| (name.to_owned(), value.to_owned())));
    stage.assert_refused(&stage.send("GET", "/a", &fields, "").await, "signature_refused", "a WebSocket");
}

#[tokio::test]
async fn a_signature_holds_for_a_quarter_of_an_hour_and_for_the_day_in_its_scope() {
    let stage = Signing::new().await;
    let signer = stage.signer().await;
    // As far from the bounds as a slow machine may need.
    for (seconds, is_good) in [(-840, true), (840, true), (-960, false), (960, false)] {
        let fields = Signer { date: moment(seconds), ..signer.clone() }.sign("GET", "api.test", "/a", &[], "");
        let reply = stage.send("GET", "/a", &fields, "").await;
        assert_eq!(reply.refusal(), (!is_good).then_some("signature_refused"), "{seconds}");
    }
    stage.upstream.forget();
    let mut fields = signer.sign("GET", "api.test", "/a", &[("date", "Fri, 24 May 2013 00:00:00 GMT")], "");
    assert_eq!(stage.send("GET", "/a", &fields, "").await.status, 200, "`Date` means nothing beside `X-Amz-Date`");
    stage.upstream.forget();
    fields.retain(|(name, _)| name != "x-amz-date");
    stage.assert_refused(&stage.send("GET", "/a", &fields, "").await, "signature_refused", "`Date` alone");
    let mut fields = signer.sign("GET", "api.test", "/a", &[], "");
    fields.pop();
    for day in ["20150830", &moment(-86_400)[..8], &moment(86_400)[..8]] {
        let names = ["host", "x-amz-date", "x-amz-security-token"];
        let value = signer.authorization_of(day, ("GET", "api.test", "/a"), (&names, &fields), "");
        let mut fields = fields.clone();
        fields.push(("authorization".to_owned(), value));
        stage.assert_refused(&stage.send("GET", "/a", &fields, "").await, "signature_refused", day);
    }
}

#[tokio::test]
async fn in_clear_text_the_body_is_always_signed() {
    let policy = POLICY
        .replace("hosts = [\"api.test\"]", "hosts = [\"api.test\", \"api.test:80\"]")
        .replace("upstream_ca = \"{dir}/api.pem\"\n", "cleartext = true\n");
    let upstream = FakeUpstream::plain().await;
    let address = upstream.address;
    let there = format!("api.test:80:{address}");
    let stage =
        Signing::of(&policy, Some(canary()), upstream, |builder| builder.flag("--connect-to").flag(&there)).await;
    let signer = stage.signer().await;
    let say = async |content: &str| {
        let fields = signer.sign("PUT", "api.test", "/a", &[("x-amz-content-sha256", content)], "hello");
        let fields: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let text = format!(
            "PUT http://api.test/a HTTP/1.1\r\nHost: api.test\r\nContent-Length: 5\r\nConnection: close\r\n{fields}\r\nhello"
        );
        stage.sidecar.agent().raw(text.as_bytes()).await
    };
    for unsigned in ["UNSIGNED-PAYLOAD", "STREAMING-UNSIGNED-PAYLOAD-TRAILER"] {
        let answer = say(unsigned).await;
        assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("signature_refused"), "{answer}");
        assert!(stage.upstream.seen().is_empty());
    }
    let answer = say(&sha_256("hello")).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    stage.assert_signed(&stage.upstream.only());
}

#[tokio::test]
async fn a_pair_signs_for_its_own_nonce_for_as_long_as_that_lives() {
    let stage = Signing::new().await;
    let parent = mint_with(&stage, json!({})).await;
    let path = format!("/v1/nonces/{}/delegate", parent["id"].as_str().expect("an id"));
    let body = json!({"agent": "worker", "service": "store", "scope": "write"});
    let (status, child) = stage.sidecar.orchestrator().call("POST", &path, Some(body)).await;
    assert_eq!(status, 201, "{child:#}");
    let nonce = format!("Bearer {}", parent["nonce"].as_str().expect("a nonce"));
    let fields = [("authorization", &*nonce), ("content-type", "application/json")];
    let asking = with("POST", "valetkey.internal", "/v1/self/delegate", &fields, r#"{"agent": "worker"}"#);
    let own = stage.sidecar.agent().send(asking).await;
    assert_eq!(own.status, 201, "{}", own.text());
    let own = own.json();
    let (signer, child, own) = (Signer::of(&parent), Signer::of(&child), Signer::of(&own));
    let get = async |signer: &Signer| {
        let fields = signer.sign("GET", "api.test", "/a", &[], "");
        stage.send("GET", "/a", &fields, "").await
    };
    for (one, other) in [(&signer, &child), (&child, &signer), (&own, &child), (&child, &own)] {
        let mixed = Signer { token: other.token.clone(), ..one.clone() };
        stage.assert_refused(&get(&mixed).await, "signature_refused", "another's pair");
    }
    for live in [&signer, &child, &own] {
        assert_eq!(get(live).await.status, 200);
    }
    stage.upstream.forget();
    stage.sidecar.orchestrator().revoke(parent["id"].as_str().expect("an id")).await;
    for dead in [&signer, &child, &own] {
        stage.assert_refused(&get(dead).await, "nonce_revoked", "after its end");
    }
}

#[tokio::test]
async fn what_is_refused_takes_no_use() {
    let stage = Signing::new().await;
    let signer = Signer::of(&mint_with(&stage, json!({"max_uses": 1})).await);
    let wrong = Signer { secret: "0".repeat(40), ..signer.clone() }.sign("PUT", "api.test", "/a", &[], "x");
    let stale = Signer { date: moment(-3600), ..signer.clone() }.sign("PUT", "api.test", "/a", &[], "x");
    let right = signer.sign("PUT", "api.test", "/a", &[], "x");
    for fields in [&wrong, &stale] {
        stage.assert_refused(&stage.send("PUT", "/a", fields, "x").await, "signature_refused", "it is wrong");
    }
    stage.assert_refused(&stage.send("PUT", "/a", &right, "y").await, "signature_refused", "another body");
    assert_eq!(stage.send("PUT", "/a", &right, "x").await.status, 200);
    stage.upstream.forget();
    stage.assert_refused(&stage.send("PUT", "/a", &right, "x").await, "nonce_spent", "the same once more");
    stage.assert_refused(&stage.send("PUT", "/a", &wrong, "x").await, "nonce_spent", "a wrong one");
}

#[tokio::test]
async fn what_the_policy_takes_back_is_signed_no_more() {
    let stage = Signing::new().await;
    let signer = stage.signer().await;
    let mut before = 0;
    for (from, to, code) in [
        ("store = [\"read\", \"write\"]", "store = [\"read\"]", "out_of_scope"),
        ("regions = [\"eu-west-1\"]", "regions = [\"eu-west-2\"]", "signature_refused"),
        ("store = [\"read\"], ", "", "signature_refused"),
    ] {
        let fields = signer.sign("PUT", "api.test", "/a", &[], "x");
        if before == 0 {
            assert_eq!(stage.send("PUT", "/a", &fields, "x").await.status, 200);
            stage.upstream.forget();
        }
        rewrite(&stage, from, to);
        let adopted = || {
            let records = stage.sidecar.audit();
            let count =
                records.iter().filter(|record| record["type"] == "policy" && record["outcome"] == "adopted").count();
            (count > before).then_some(count)
        };
        before = eventually("the policy is read again", adopted).await;
        stage.assert_refused(&stage.send("PUT", "/a", &fields, "x").await, code, to);
    }
}

/// A request that the upstream has not looked at is sent once more, with a signature of its own.
#[tokio::test]
async fn what_is_sent_once_more_is_signed_too() {
    let said: Arc<Mutex<Vec<http::HeaderMap>>> = Arc::default();
    let upstream = FakeUpstream::played(&["api.test"], b"h2", {
        let said = said.clone();
        move |stream, _| {
            let said = said.clone();
            async move {
                let mut connection = h2::server::handshake(stream).await.expect("HTTP/2");
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    let mut said = said.lock().expect("not poisoned");
                    said.push(request.headers().clone());
                    if said.len() == 1 {
                        respond.send_reset(h2::Reason::REFUSED_STREAM);
                    } else {
                        let mut body = respond.send_response(Response::new(()), false).expect("an open stream");
                        body.send_data(Bytes::from_static(b"done"), true).expect("an open stream");
                    }
                }
            }
        }
    })
    .await;
    let stage = Signing::of(POLICY, Some(canary()), upstream, |builder| builder).await;
    let signer = Signer::of(&mint_with(&stage, json!({"max_uses": 1})).await);
    let fields = signer.sign("GET", "api.test", "/a", &[], "");
    assert_eq!(stage.send("GET", "/a", &fields, "").await.text(), "done");
    let said = said.lock().expect("not poisoned").clone();
    assert_eq!(said.len(), 2);
    for headers in said {
        let seen = Seen { target: "/a".to_owned(), headers, ..Seen::of_head(1, "GET /a HTTP/1.1\r\n") };
        stage.assert_signed(&seen);
    }
}

#[tokio::test]
async fn neither_pair_is_in_a_log_a_record_or_an_answer() {
    let upstream = FakeUpstream::start(&["api.test"]).await;
    let stage =
        Signing::of(POLICY, Some(canary()), upstream, |builder| builder.flag("--log-level").flag("debug")).await;
    let signer = stage.signer().await;
    let mut heard = String::new();
    for (target, edit) in [("/echo", ""), ("/header", ""), ("/echo", "x"), ("/forbidden", "")] {
        let mut fields = signer.sign("GET", "api.test", target, &[], "");
        fields.iter_mut().filter(|(name, _)| name == "x-amz-date").for_each(|(_, value)| value.push_str(edit));
        let reply = stage.send("GET", target, &fields, "").await;
        heard.push_str(&String::from_utf8_lossy(&reply.everything()));
        let reply = stage.sidecar.agent().send_h2(with("GET", "api.test", target, &borrowed(&fields), "")).await;
        heard.push_str(&String::from_utf8_lossy(&reply.everything()));
    }
    let ours = [signer.secret.as_str(), signer.token.as_deref().expect("a nonce"), &signer.id];
    let theirs = [stage.real.secret.as_str(), stage.real.token.as_deref().expect("a token"), &stage.real.id];
    for (what, text) in
        [("the answers", heard), ("the log", stage.sidecar.log()), ("the audit", stage.sidecar.audit_text())]
    {
        for secret in ours.into_iter().chain(theirs) {
            assert!(!text.contains(secret), "{secret} is in {what}");
        }
    }
}
