//! The slot `aws-sigv4` in its other forms: bodies that are signed chunk by chunk.

use std::sync::Arc;

use tokio::io::AsyncReadExt;
use tokio::sync::Mutex;

use super::signing::{Signing, set};
use crate::support::agent::with;
use crate::support::sigv4::{Fields, Signer};
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
