//! The slot `aws-sigv4` in its other forms: bodies that are signed chunk by chunk, and presigned URLs.

mod chunks;
mod endings;
mod urls;

use std::sync::Arc;

use tokio::io::AsyncReadExt;
use tokio::sync::Mutex;

use super::signing::{Signing, set};
use crate::support::agent::{Reply, with};
use crate::support::sigv4::{Fields, Signer, moment};
use crate::support::upstream::Seen;
use crate::support::{FakeUpstream, canary};

const TRAILER: (&str, &str) = ("x-amz-checksum-crc32c", "sOO8/Q==");

/// The signature of a head.
fn seed(fields: &Fields) -> String {
    let said = fields.iter().find(|(name, _)| name == "authorization").expect("a signature");
    said.1.rsplit('=').next().expect("one").to_owned()
}

/// An upload in chunks, whole.
fn upload(signer: &Signer, pieces: &[&str], trailer: Option<(&str, &str)>) -> (Fields, String) {
    let length = pieces.iter().map(|piece| piece.len()).sum::<usize>().to_string();
    let mut said = vec![("content-encoding", "aws-chunked"), ("x-amz-decoded-content-length", &*length)];
    match trailer {
        None => said.push(("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD")),
        Some((name, _)) => {
            said.extend([
                ("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"),
                ("x-amz-trailer", name),
            ]);
        }
    }
    let fields = signer.sign("PUT", "api.test", "/a", &said, "");
    let body = signer.chunked(&seed(&fields), pieces, trailer);
    (fields, body)
}

#[tokio::test]
async fn each_chunk_is_signed_again_with_the_real_key() {
    let stage = Signing::new().await;
    let signer = stage.signer().await;
    let (long, longer) = ("x".repeat(8 * 1024), "y".repeat(300_000));
    for (pieces, trailer) in [
        (&["a body"][..], None),
        (&[&*long, &*longer, &*long, "the end"], None),
        (&[], None),
        (&[&*longer, "the end"], Some(TRAILER)),
        (&[], Some(TRAILER)),
    ] {
        for over_h2 in [false, true] {
            let (fields, body) = upload(&signer, pieces, trailer);
            let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (&**name, &**value)).collect();
            let (request, agent) = (with("PUT", "api.test", "/a", &fields, &body), stage.sidecar.agent());
            let reply = if over_h2 { agent.send_h2(request).await } else { agent.send(request).await };
            assert_eq!(reply.status, 200, "{}", reply.text());
            let seen = stage.upstream.only();
            stage.assert_signed(&seen);
            let out = seen.header("authorization").expect("a signature").rsplit('=').next().expect("one");
            let real = Signer { date: seen.header("x-amz-date").expect("a date").to_owned(), ..stage.real.clone() };
            let wanted = real.chunked(out, pieces, trailer);
            assert!(seen.body == wanted, "what arrives is signed by the real key, from its head on");
            assert_eq!((seen.body.len(), seen.trailers), (body.len(), None));
            stage.upstream.forget();
        }
    }
}

/// An upstream that keeps every byte of a body as it arrives, and answers nothing.
async fn listening() -> (FakeUpstream, Arc<Mutex<Vec<u8>>>) {
    let got = Arc::new(Mutex::new(Vec::new()));
    let heard = got.clone();
    let upstream = FakeUpstream::speaking_freely(&["api.test"], move |_, mut wire| {
        let heard = heard.clone();
        async move {
            let mut heard = heard.lock_owned().await;
            let _ = wire.read_to_end(&mut heard).await;
        }
    })
    .await;
    (upstream, got)
}

#[tokio::test]
async fn a_chunk_that_is_not_right_ends_the_upload_before_it() {
    let (upstream, got) = listening().await;
    let stage = Signing::at(upstream, Some(canary())).await;
    let signer = stage.signer().await;
    let (one, two) = ("1".repeat(9_000), "2".repeat(9_000));
    let pieces = [&*one, &*two];
    let (fields, good) = upload(&signer, &pieces, None);
    let (trailed_fields, trailed) = upload(&signer, &pieces, Some(TRAILER));
    let second = good.rfind("2328;").expect("the second");
    let last = good.rfind("0;chunk-signature").expect("the last");
    let flipped = |text: &str, at: usize| {
        let with = if text.as_bytes()[at] == b'0' { "1" } else { "0" };
        format!("{}{with}{}", &text[..at], &text[at + 1..])
    };
    let other_chain = upload(&Signer { secret: "0".repeat(40), ..signer.clone() }, &pieces, None).1;
    for (what, fields, body, before, code) in [
        ("a signature", &fields, flipped(&good, second + 30), second, "signature_refused"),
        ("data", &fields, flipped(&good, second + 500), second, "signature_refused"),
        ("the first", &fields, flipped(&good, 30), 0, "signature_refused"),
        ("the last", &fields, flipped(&good, last + 30), last, "signature_refused"),
        ("another key", &fields, other_chain, 0, "signature_refused"),
        ("more behind it", &fields, format!("{good}0"), good.len(), "signature_refused"),
        ("no end", &fields, good[..last].to_owned(), last, "signature_refused"),
        ("half a chunk", &fields, good[..last - 100].to_owned(), second, "signature_refused"),
        ("no chunks", &fields, "x".repeat(500), 0, "signature_refused"),
        ("a long chunk", &fields, good.replacen("2328;", "800001;", 1), 0, "request_too_large"),
        ("the trailer", &trailed_fields, trailed.replace("sOO8", "sOO9"), trailed.len(), "signature_refused"),
        ("no trailer", &trailed_fields, good.clone(), 0, "signature_refused"),
    ] {
        got.lock().await.clear();
        let reply = stage.send("PUT", "/a", fields, &body).await;
        assert_eq!(reply.refusal(), Some(code), "{what}: {} {}", reply.status, reply.text());
        let got = got.lock().await;
        // Never whole: the length that was announced is not reached.
        assert!(got.len() <= before && got.len() < body.len(), "{what}: {} of {}", got.len(), body.len());
        assert!(!String::from_utf8_lossy(&got).contains(&good[second + 21..second + 85]), "{what}: their signature");
    }
    let recorded = stage.sidecar.audited(|record| record["code"] == "signature_refused").await;
    assert_eq!(recorded["service"], "store", "{recorded:#}");
}

#[tokio::test]
async fn what_the_head_says_of_chunks_is_checked_before_anything_goes_out() {
    let stage = Signing::new().await;
    let signer = stage.signer().await;
    let (chunks, length) = ("x-amz-content-sha256", "x-amz-decoded-content-length");
    let (plain, trailed) = ("STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER");
    for (what, fields) in [
        ("no length", vec![(chunks, plain)]),
        ("no number", vec![(chunks, plain), (length, "+1")]),
        ("trailers that do not come", vec![(chunks, plain), (length, "1"), ("x-amz-trailer", TRAILER.0)]),
        ("no trailers", vec![(chunks, trailed), (length, "1")]),
        ("no checksum", vec![(chunks, trailed), (length, "1"), ("x-amz-trailer", "x-amz-meta-a")]),
        ("curves", vec![(chunks, "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD"), (length, "1")]),
        ("events", vec![(chunks, "STREAMING-AWS4-HMAC-SHA256-EVENTS"), (length, "1")]),
    ] {
        let fields = signer.sign("PUT", "api.test", "/a", &fields, "");
        let body = signer.chunked(&seed(&fields), &["x"], None);
        stage.assert_refused(&stage.send("PUT", "/a", &fields, &body).await, "signature_refused", what);
    }
    let (fields, body) = upload(&signer, &["a body"], None);
    stage.assert_refused(&stage.send("PUT", "/a", &fields, "").await, "signature_refused", "no body at all");
    let other = set(&fields, length, |_| "7".to_owned());
    stage.assert_refused(&stage.send("PUT", "/a", &other, &body).await, "signature_refused", "another length");
    let sts = Signer { service: "sts".to_owned(), ..signer.clone() };
    let (fields, body) = upload(&sts, &["a body"], None);
    stage.assert_refused(&stage.send("PUT", "/a", &fields, &body).await, "signature_refused", "not S3");
}

#[tokio::test]
async fn a_nonce_in_a_signed_chunk_is_found() {
    let stage = Signing::new().await;
    let signer = stage.signer().await;
    let nonce = signer.token.clone().expect("a nonce");
    let text = format!("a log that says {nonce} and goes on");
    let (fields, body) = upload(&signer, &["before", &text], None);
    assert_eq!(stage.send("PUT", "/a", &fields, &body).await.status, 200);
    stage.sidecar.audited(|record| record["type"] == "alarm" && record["kind"] == "nonce_in_body").await;
}

impl Signing {
    /// Fails unless the URL that arrived is signed by the real key, in the place of the one that was sent.
    fn assert_presigned(&self, seen: &Seen, sent: (&Signer, &str)) {
        let (unsigned, signature) = seen.target.split_once("&X-Amz-Signature=").expect("a signature at the end");
        assert_eq!(signature, self.real.of_query((&seen.method, "api.test", unsigned), "host", &[]), "{}", seen.target);
        let (signer, sent) = sent;
        let nonce = format!("X-Amz-Security-Token={}", signer.token.as_ref().expect("a nonce"));
        let token = self.real.token.as_ref().map(|token| format!("X-Amz-Security-Token={token}"));
        let sent = sent.split_once("&X-Amz-Signature=").expect("a signature at the end").0;
        let wanted = sent.replace(&signer.id, &self.real.id).replace(&nonce, token.as_deref().unwrap_or("-"));
        assert_eq!(unsigned, wanted.replace("&-", ""), "all else is where it was");
        assert!(seen.header("authorization").is_none() && seen.header("x-amz-security-token").is_none());
    }
}

#[tokio::test]
async fn a_presigned_url_is_signed_again_with_the_real_key() {
    for token in [Some(canary()), None] {
        let stage = Signing::with(token).await;
        let minted = stage.mint("write").await;
        let signer = Signer::of(&minted);
        let stage = Signing { real: Signer { date: signer.date.clone(), ..stage.real.clone() }, ..stage };
        for (method, target, body) in [
            ("GET", "/a", ""),
            ("GET", "/a%20b/~c?versions&prefix=x%2Fy&max-keys=2", ""),
            ("PUT", "/a?x-id=PutObject", "a body that nothing covers but TLS"),
        ] {
            for over_h2 in [false, true] {
                let url = signer.presign(method, "api.test", target, 3600);
                let (request, agent) =
                    (with(method, "api.test", &url, &[("range", "bytes=0-1")], body), stage.sidecar.agent());
                let reply = if over_h2 { agent.send_h2(request).await } else { agent.send(request).await };
                assert_eq!(reply.status, 200, "{method} {target}: {}", reply.text());
                let seen = stage.upstream.only();
                stage.assert_presigned(&seen, (&signer, &url));
                assert_eq!(seen.body, body);
                stage.upstream.forget();
            }
        }
        let audit = stage.sidecar.audit_text();
        assert!(!audit.contains("X-Amz") && !audit.contains("max-keys"), "the audit holds no query");
    }
}

#[tokio::test]
async fn nothing_of_a_presigned_url_comes_back() {
    let stage = Signing::new().await;
    let signer = stage.signer().await;
    for path in ["/echo", "/header", "/gzip", "/zstd"] {
        let url = signer.presign("GET", "api.test", path, 60);
        let reply = stage.send("GET", &url, &vec![], "").await;
        assert_eq!(reply.status, 200, "{path}");
        let seen = stage.upstream.only();
        let signature = seen.target.split_once("&X-Amz-Signature=").expect("a signature").1.to_owned();
        let token = stage.real.token.clone().expect("a token");
        let all = format!("{:?} {}", reply.headers, reply.text()).to_ascii_lowercase();
        for secret in [&stage.real.id, &token, &signature] {
            assert!(!all.contains(&secret.to_ascii_lowercase()), "{path}: {secret} in {all}");
        }
        stage.upstream.forget();
    }
}

#[tokio::test]
async fn a_presigned_url_is_for_its_time_and_for_what_it_names() {
    let stage = Signing::new().await;
    let signer = stage.signer().await;
    let good = signer.presign("GET", "api.test", "/a", 60);
    let (at, other) = (|seconds| Signer { date: moment(seconds), ..signer.clone() }, stage.signer().await);
    let refused = "signature_refused";
    for (what, method, url, code) in [
        ("over", "GET", at(-120).presign("GET", "api.test", "/a", 60), refused),
        ("to come", "GET", at(1200).presign("GET", "api.test", "/a", 60), refused),
        ("too long", "GET", signer.presign("GET", "api.test", "/a", 604_801), refused),
        ("method", "PUT", good.clone(), refused),
        ("path", "GET", good.replace("/a?", "/b?"), refused),
        ("query", "GET", format!("{good}&acl"), refused),
        ("time", "GET", good.replace("Expires=60", "Expires=61"), refused),
        ("host", "GET", signer.presign("GET", "other.test", "/a", 60), refused),
        ("twice", "GET", format!("{good}&X-Amz-Date=20130524T000000Z"), refused),
        ("in another case", "GET", good.replace("X-Amz-Date", "x-amz-date"), refused),
        ("no token", "GET", Signer { token: None, ..signer.clone() }.presign("GET", "api.test", "/a", 60), refused),
        (
            "another's",
            "GET",
            Signer { token: other.token.clone(), ..signer.clone() }.presign("GET", "api.test", "/a", 60),
            refused,
        ),
        (
            "region",
            "GET",
            Signer { region: "us-east-1".to_owned(), ..signer.clone() }.presign("GET", "api.test", "/a", 60),
            refused,
        ),
        ("a copy", "PUT", signer.presign("PUT", "api.test", "/a?x-amz-copy-source=%2Fb%2Fc", 60), refused),
        ("version 2", "GET", "/a?AWSAccessKeyId=A&Expires=1&Signature=x".to_owned(), refused),
        (
            "a token that is no nonce",
            "GET",
            Signer { token: Some("no nonce".to_owned()), ..signer.clone() }.presign("GET", "api.test", "/a", 60),
            "foreign_credential",
        ),
        (
            "the nonce once more",
            "GET",
            signer.presign("GET", "api.test", &format!("/a?b={}", signer.token.as_ref().expect("a nonce")), 60),
            "nonce_misplaced",
        ),
    ] {
        stage.assert_refused(&stage.send(method, &url, &vec![], "").await, code, what);
    }
    let fields = signer.sign("GET", "api.test", &good, &[], "");
    stage.assert_refused(&stage.send("GET", &good, &fields, "").await, refused, "both forms");
    let bearer = vec![("authorization".to_owned(), "Bearer x".to_owned())];
    stage.assert_refused(&stage.send("GET", &good, &bearer, "").await, refused, "a bearer beside it");
    let unsigned = vec![("x-amz-acl".to_owned(), "public-read".to_owned())];
    stage.assert_refused(&stage.send("GET", &good, &unsigned, "").await, refused, "a field that is not signed");
    let reader = Signer::of(&stage.mint("read").await);
    let url = reader.presign("PUT", "api.test", "/a", 60);
    stage.assert_refused(&stage.send("PUT", &url, &vec![], "x").await, "out_of_scope", "writing");
    assert_eq!(stage.send("GET", &at(-1800).presign("GET", "api.test", "/a", 3600), &vec![], "").await.status, 200);
}
