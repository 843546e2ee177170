//! What somebody tries with a body signed chunk by chunk who holds the key that signs it: every signature is right.

use tokio::io::AsyncWriteExt;

use super::*;
use crate::journey::signing::POLICY;
use crate::support::agent::PATIENCE;
use crate::support::sigv4::sha_256;
use crate::support::streams;
use crate::support::wire::read_answers;

/// One chunk behind another, with any line before it.
fn chunk(signer: &Signer, last: &mut String, data: &str, line: impl Fn(&str) -> String) -> String {
    let (date, scope, empty, hash) = (&signer.date, signer.scope(), sha_256(""), sha_256(data));
    *last = signer.signature(&format!("AWS4-HMAC-SHA256-PAYLOAD\n{date}\n{scope}\n{last}\n{empty}\n{hash}"));
    format!("{}{data}", line(last))
}

/// The head of an upload that announces so many bytes, and its signature.
fn head(signer: &Signer, length: &str, encoding: &str) -> (Fields, String) {
    let said = [
        ("content-encoding", encoding),
        ("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"),
        ("x-amz-decoded-content-length", length),
    ];
    let fields = signer.sign("PUT", "api.test", "/a", &said, "");
    let seed = seed(&fields);
    (fields, seed)
}

/// The head on the wire, with a framing.
pub(super) fn on_wire(fields: &Fields, framing: &str) -> String {
    let fields: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("PUT /a HTTP/1.1\r\nHost: api.test\r\n{fields}{framing}\r\n\r\n")
}

/// Fails unless the real key has signed what arrived, from its head on.
fn assert_chunks(stage: &Signing, seen: &Seen, pieces: &[&str], trailer: Option<(&str, &str)>) {
    stage.assert_signed(seen);
    let seed = seen.header("authorization").expect("a signature").rsplit('=').next().expect("one");
    let real = Signer { date: seen.header("x-amz-date").expect("a date").to_owned(), ..stage.real.clone() };
    assert!(seen.body == real.chunked(seed, pieces, trailer), "{}", String::from_utf8_lossy(&seen.body));
}

/// The bodies that arrived, a connection each, whole or not.
#[derive(Clone, Default)]
pub(super) struct Bodies(Arc<std::sync::Mutex<Vec<Vec<u8>>>>);

impl Bodies {
    /// At an upstream that keeps every byte as it arrives, and answers nothing.
    pub(super) async fn listening() -> (Signing, Self) {
        let bodies = Self::default();
        let heard = bodies.clone();
        let upstream = FakeUpstream::speaking_freely(&["api.test"], move |_, mut wire| {
            let heard = heard.clone();
            async move {
                let mut body = Vec::new();
                let _ = wire.read_to_end(&mut body).await;
                heard.0.lock().expect("not poisoned").push(body);
            }
        })
        .await;
        (Signing::at(upstream, Some(canary())).await, bodies)
    }

    /// All of them, once each connection is over.
    pub(super) async fn all(&self, stage: &Signing) -> Vec<Vec<u8>> {
        let over = || {
            let bodies = self.0.lock().expect("not poisoned");
            (bodies.len() as u64 == stage.upstream.connections()).then(|| bodies.clone())
        };
        crate::support::sidecar::eventually("each connection is over", over).await
    }

    /// The last of them.
    pub(super) async fn last(&self, stage: &Signing) -> Vec<u8> {
        self.all(stage).await.pop().unwrap_or_default()
    }
}

#[tokio::test]
async fn the_line_before_a_chunk_is_read_in_one_form() {
    let (stage, bodies) = Bodies::listening().await;
    let signer = stage.signer().await;
    let (fields, seed) = head(&signer, "6", "aws-chunked");
    let other = "0".repeat(64);
    let lines: [&dyn Fn(&str) -> String; 27] = [
        &|of| format!("06;chunk-signature={of}\r\n"),
        &|of| format!("00000006;chunk-signature={of}\r\n"),
        &|of| format!("000000006;chunk-signature={of}\r\n"),
        &|of| format!("+6;chunk-signature={of}\r\n"),
        &|of| format!("-6;chunk-signature={of}\r\n"),
        &|of| format!(" 6;chunk-signature={of}\r\n"),
        &|of| format!("6 ;chunk-signature={of}\r\n"),
        &|of| format!("6\t;chunk-signature={of}\r\n"),
        &|of| format!("0x6;chunk-signature={of}\r\n"),
        &|of| format!("6_;chunk-signature={of}\r\n"),
        &|of| format!(";chunk-signature={of}\r\n"),
        &|of| format!("10000000000000006;chunk-signature={of}\r\n"),
        &|of| format!("100000006;chunk-signature={of}\r\n"),
        &|of| format!("FFFFFFFFFFFFFFFA;chunk-signature={of}\r\n"),
        &|of| format!("6;a=b;chunk-signature={of}\r\n"),
        &|of| format!("6;chunk-signature={of};a=b\r\n"),
        &|of| format!("6;chunk-signature={of}; chunk-signature={other}\r\n"),
        &|of| format!("6;chunk-signature={other};chunk-signature={of}\r\n"),
        &|of| format!("6;Chunk-Signature={of}\r\n"),
        &|of| format!("6; chunk-signature={of}\r\n"),
        &|of| format!("6;chunk-signature=\"{of}\"\r\n"),
        &|of| format!("6;chunk-signature={}\r\n", of.to_uppercase()),
        &|of| format!("6;chunk-signature={of} \r\n"),
        &|of| format!("6;chunk-signature={of}\n"),
        &|of| format!("6;chunk-signature={of}\r"),
        &|of| format!("6;chunk-signature={of}\r\r\n"),
        &|of| format!("\r\n6;chunk-signature={of}\r\n"),
    ];
    for line in lines {
        let mut last = seed.clone();
        let first = chunk(&signer, &mut last, "a body", line);
        let end = chunk(&signer, &mut last, "", |of| format!("0;chunk-signature={of}\r\n"));
        let body = format!("{first}\r\n{end}\r\n");
        let reply = stage.send("PUT", "/a", &fields, &body).await;
        assert_eq!(reply.refusal(), Some("signature_refused"), "{first:?}: {} {}", reply.status, reply.text());
        assert!(bodies.last(&stage).await.is_empty(), "{first:?}: something of it went on");
    }
}

#[tokio::test]
async fn chunks_are_as_many_bytes_as_the_head_says_and_end_once() {
    let (stage, bodies) = Bodies::listening().await;
    let signer = stage.signer().await;
    let line = |size: usize| move |of: &str| format!("{size:x};chunk-signature={of}\r\n");
    for (what, length, sizes, behind) in [
        ("fewer", "7", &[6, 0][..], ""),
        ("more", "5", &[6, 0], ""),
        ("more in another", "6", &[6, 1, 0], ""),
        ("none of them", "6", &[0], ""),
        ("some where there are none", "0", &[6, 0], ""),
        ("no end", "6", &[6], ""),
        ("two ends", "6", &[6, 0, 0], ""),
        ("chunks behind the end", "12", &[6, 0, 6, 0], ""),
        ("bytes behind the end", "6", &[6, 0], "x"),
        ("a line behind the end", "6", &[6, 0], "\r\n"),
        ("a trailer that nobody has announced", "6", &[6, 0], "x-amz-checksum-crc32c:sOO8/Q==\r\n\r\n"),
        ("a request behind the end", "6", &[6, 0], "GET /b HTTP/1.1\r\nHost: api.test\r\n\r\n"),
    ] {
        let (fields, mut last) = head(&signer, length, "aws-chunked");
        let chunks = sizes.iter().map(|size| chunk(&signer, &mut last, &"x".repeat(*size), line(*size)) + "\r\n");
        let body = chunks.collect::<String>() + behind;
        let reply = stage.send("PUT", "/a", &fields, &body).await;
        assert_eq!(reply.refusal(), Some("signature_refused"), "{what}: {} {}", reply.status, reply.text());
        assert!(bodies.last(&stage).await.len() < body.len(), "{what}: upstream had all of it");
    }
    for (what, length, end) in [
        ("data that is longer than its line says", "6", "x\r\n"),
        ("data that is not ended", "6", ""),
        ("data that is ended by LF", "6", "\n"),
        ("data that is ended by CR", "6", "\r"),
    ] {
        let (fields, mut last) = head(&signer, length, "aws-chunked");
        let first = chunk(&signer, &mut last, "a body", line(6));
        let body = format!("{first}{end}{}\r\n", chunk(&signer, &mut last, "", line(0)));
        let reply = stage.send("PUT", "/a", &fields, &body).await;
        assert_eq!(reply.refusal(), Some("signature_refused"), "{what}: {} {}", reply.status, reply.text());
        assert!(bodies.last(&stage).await.is_empty(), "{what}: something of it went on");
    }
    let twice =
        [head(&signer, "6", "aws-chunked").0, vec![("x-amz-decoded-content-length".to_owned(), "6".to_owned())]];
    let reply = stage.send("PUT", "/a", &twice.concat(), "x").await;
    assert_eq!(reply.refusal(), Some("request_ambiguous"), "two lengths: {}", reply.status);
}

#[tokio::test]
async fn no_trailer_comes_but_those_that_were_announced_and_signed() {
    let (stage, bodies) = Bodies::listening().await;
    let signer = stage.signer().await;
    let (fields, good) = upload(&signer, &["a body"], Some(TRAILER));
    let (said, signed) = good.split_once("x-amz-trailer-signature:").expect("a signature");
    let (chunks, said) = said.split_once("x-amz-checksum").expect("a trailer");
    let (said, other) = (format!("x-amz-checksum{said}"), "x-amz-checksum-sha256:AA==\r\n");
    let unsigned = "x-amz-trailer-signature:";
    let another = upload(&signer, &["a body"], Some(("x-amz-checksum-sha256", "AA=="))).1;
    for body in [
        format!("{chunks}{said}\r\n"),
        format!("{chunks}{unsigned}{signed}"),
        format!("{chunks}\r\n{said}{unsigned}{signed}"),
        format!("{chunks}{said}{said}{unsigned}{signed}"),
        format!("{chunks}{said}{other}{unsigned}{signed}"),
        format!("{chunks}{other}{unsigned}{signed}"),
        format!("{chunks}{unsigned}{}{said}\r\n", signed.trim_end_matches("\r\n")),
        format!("{chunks}{said}x-amz-meta-a:b\r\n{unsigned}{signed}"),
        format!("{chunks}{said}{unsigned}{}\r\n\r\n", "0".repeat(64)),
        format!("{chunks}{said}{unsigned}{}", signed.to_uppercase()),
        format!("{chunks}{said}{unsigned} {signed}"),
        format!("{chunks}{said}{unsigned}{signed}{unsigned}{signed}"),
        format!("{chunks}{said}{unsigned}{}", signed.replace("\r\n", "\n")),
        format!("{chunks}{said}X-Amz-Trailer-Signature:{signed}"),
        good.replace("crc32c:sOO8", "crc32c: sOO8"),
        good.replace("x-amz-checksum-crc32c", "X-Amz-Checksum-Crc32c"),
        good.replace("sOO8/Q==", "sOO8/Q==\r\n x"),
        good.replace("sOO8/Q==", &"A".repeat(5000)),
        good.trim_end_matches("\r\n").to_owned(),
        another,
    ] {
        let reply = stage.send("PUT", "/a", &fields, &body).await;
        assert_eq!(reply.refusal(), Some("signature_refused"), "{body:?}: {} {}", reply.status, reply.text());
        assert!(bodies.last(&stage).await.len() <= chunks.len(), "{body:?}: a trailer went on");
    }
    // HTTP has trailers of its own, which no signature covers.
    let (fields, body) = upload(&signer, &["a body"], None);
    let request = format!(
        "{}{:x}\r\n{body}\r\n0\r\nx-amz-checksum-crc32c: sOO8/Q==\r\n\r\n",
        on_wire(&fields, "Transfer-Encoding: chunked"),
        body.len()
    );
    let answer = stage.sidecar.agent().raw_inside("api.test", request.as_bytes()).await;
    assert!(answer.contains("signature_refused"), "{answer}");
    assert!(!bodies.last(&stage).await.ends_with(b"\r\n0\r\n\r\n"), "upstream had all of it");
}

#[tokio::test]
async fn a_body_may_come_byte_by_byte() {
    let stage = Signing::new().await;
    let signer = stage.signer().await;
    let pieces = ["a body", "in three", "pieces"];
    for trailer in [None, Some(TRAILER)] {
        let (fields, body) = upload(&signer, &pieces, trailer);
        let in_chunks = format!(
            "{}\r\n",
            body.bytes().map(|byte| format!("1\r\n{}\r\n", char::from(byte))).collect::<String>() + "0\r\n"
        );
        for (framing, body) in [
            (format!("Content-Length: {}", body.len()), body.clone()),
            ("Transfer-Encoding: chunked".to_owned(), in_chunks),
        ] {
            let mut stream =
                stage.sidecar.agent().tls_tunnel("api.test", "api.test", &[b"http/1.1"]).await.expect("TLS");
            stream.write_all(on_wire(&fields, &framing).as_bytes()).await.expect("writable");
            for byte in body.bytes() {
                stream.write_all(&[byte]).await.expect("writable");
                stream.flush().await.expect("writable");
            }
            let answer = read_answers(&mut stream, 1, PATIENCE).await;
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            assert_chunks(&stage, &stage.upstream.only(), &pieces, trailer);
            stage.upstream.forget();
        }
        let borrowed: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (&**name, &**value)).collect();
        let request = with("PUT", "api.test", "/a", &borrowed, "").map(|_| ());
        let mut frames = stage.sidecar.agent().frames("api.test").await;
        let (response, mut stream) = frames.send_request(request, false).expect("a stream");
        for byte in body.bytes() {
            assert!(streams::send(&mut stream, vec![byte].into()).await, "it is taken");
        }
        stream.send_data(Vec::new().into(), true).expect("an open stream");
        let response = tokio::time::timeout(PATIENCE, response).await.expect("in time").expect("an answer");
        assert_eq!(response.status(), 200);
        assert_chunks(&stage, &stage.upstream.only(), &pieces, trailer);
        stage.upstream.forget();
    }
}

#[tokio::test]
async fn a_body_with_another_coding_below_goes_on_as_it_came() {
    let stage = Signing::new().await;
    let signer = stage.signer().await;
    for encoding in ["gzip,aws-chunked", "aws-chunked, gzip", "AWS-Chunked", "aws-chunked"] {
        let (fields, seed) = head(&signer, "6", encoding);
        let reply = stage.send("PUT", "/a", &fields, &signer.chunked(&seed, &["a body"], None)).await;
        assert_eq!(reply.status, 200, "{encoding}: {}", reply.text());
        let seen = stage.upstream.only();
        assert_eq!(seen.header("content-encoding"), Some(encoding));
        assert_chunks(&stage, &seen, &["a body"], None);
        stage.upstream.forget();
    }
}

#[tokio::test]
async fn where_a_nonce_in_a_body_is_refused_chunks_are_verified_all_the_same() {
    for scan in ["refuse", "revoke"] {
        let policy =
            POLICY.replace("slots = [\"aws-sigv4\"]\n", &format!("slots = [\"aws-sigv4\"]\nleak_scan = \"{scan}\"\n"));
        let upstream = FakeUpstream::start(&["api.test"]).await;
        let stage = Signing::of(&policy, Some(canary()), upstream, |builder| builder).await;
        let signer = stage.signer().await;
        let long = "x".repeat(100_000);
        for (pieces, trailer) in [
            (&["a body", "in two"][..], None),
            (&["a body"], Some(TRAILER)),
            (&["a body", &long, "the end"], Some(TRAILER)),
        ] {
            let (fields, body) = upload(&signer, pieces, trailer);
            let reply = stage.send("PUT", "/a", &fields, &body).await;
            assert_eq!(reply.status, 200, "{scan}: {}", reply.text());
            assert_chunks(&stage, &stage.upstream.only(), pieces, trailer);
            stage.upstream.forget();
        }
        let (fields, body) = upload(&signer, &["a body", "in two"], None);
        let reply = stage.send("PUT", "/a", &fields, &body.replace("two", "twi")).await;
        assert_eq!(reply.refusal(), Some("signature_refused"), "{scan}: {}", reply.status);
        assert!(stage.upstream.seen().iter().all(|seen| seen.body.is_empty()), "{scan}: it was whole");
        stage.upstream.forget();
        let token = signer.token.clone().expect("a nonce");
        let (fields, body) = upload(&signer, &["a body", &token], None);
        let reply = stage.send("PUT", "/a", &fields, &body).await;
        stage.assert_refused(&reply, "nonce_misplaced", scan);
    }
}

#[tokio::test]
async fn a_body_that_waits_to_be_asked_for_is_signed_again() {
    let stage = Signing::new().await;
    let (fields, body) = upload(&stage.signer().await, &["a body"], Some(TRAILER));
    let framing = format!("Content-Length: {}\r\nExpect: 100-continue", body.len());
    let mut stream = stage.sidecar.agent().tls_tunnel("api.test", "api.test", &[b"http/1.1"]).await.expect("TLS");
    stream.write_all(on_wire(&fields, &framing).as_bytes()).await.expect("writable");
    let mut asked = [0; 25];
    tokio::time::timeout(PATIENCE, stream.read_exact(&mut asked)).await.expect("in time").expect("bytes");
    assert_eq!(&asked, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(body.as_bytes()).await.expect("writable");
    let answer = read_answers(&mut stream, 1, PATIENCE).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_chunks(&stage, &stage.upstream.only(), &["a body"], Some(TRAILER));
}
