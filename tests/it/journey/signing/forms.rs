//! One request in many spellings: each is verified as its client has signed it, goes on as it came, and is signed as AWS
//! will read it.

use super::*;
use crate::support::agent::PATIENCE;
use crate::support::wire::read_answers;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The head of a request over HTTP/1.1, as it is.
fn head(line: &str, fields: &[(&str, &str)]) -> String {
    let fields: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("{line} HTTP/1.1\r\n{fields}\r\n")
}

/// What has to be signed of every request of this signer.
fn necessary(signer: &Signer) -> Fields {
    let token = signer.token.clone().expect("a nonce");
    vec![("x-amz-date".to_owned(), signer.date.clone()), ("x-amz-security-token".to_owned(), token)]
}

#[tokio::test]
async fn a_target_is_signed_in_its_canonical_form_and_goes_on_as_it_came() {
    let stage = Signing::new().await;
    let signer = stage.signer().await;
    for (sent, canonical) in [
        ("/a?b=2&a=1", "/a?a=1&b=2"),
        ("/a?a=2&a=1&a=10", "/a?a=1&a=10&a=2"),
        ("/a?a-b=1&a=2", "/a?a=2&a-b=1"),
        ("/a?B=1&a=2", "/a?B=1&a=2"),
        ("/a?acl&b=", "/a?acl=&b="),
        ("/a?&a=1&&", "/a?a=1"),
        ("/a?a=1;b=2", "/a?a=1%3Bb%3D2"),
        ("/a?a+b=c+d", "/a?a%2Bb=c%2Bd"),
        ("/a?x=%7e%2f%20", "/a?x=~%2F%20"),
        ("/a?x=%2520", "/a?x=%2520"),
        ("/a?x=a=b", "/a?x=a%3Db"),
        ("/a%7eb/c:d@e", "/a~b/c%3Ad%40e"),
        ("/%e1%88%b4/", "/%E1%88%B4/"),
    ] {
        let fields = signer.sign("GET", "api.test", canonical, &[], "");
        let reply = stage.send("GET", sent, &fields, "").await;
        assert_eq!(reply.status, 200, "{sent}: {}", reply.text());
        let seen = stage.upstream.only();
        assert_eq!(seen.target, sent);
        stage.assert_signed_as(&seen, canonical);
        stage.upstream.forget();
    }
    // One signature, and targets that only some servers take for the same.
    for (sent, canonical) in [
        ("/a%2Fb", "/a/b"),
        ("/a//b", "/a//b"),
        ("/a/./b", "/a/b"),
        ("/a/../b", "/b"),
        ("/a/%2e%2e/b", "/a/../b"),
        ("/a%252Fb", "/a%252Fb"),
        ("/a?x=1%26y=2", "/a?x=1&y=2"),
        ("/a?x=a+b", "/a?x=a%20b"),
    ] {
        let fields = signer.sign("GET", "api.test", canonical, &[], "");
        let reply = stage.send("GET", sent, &fields, "").await;
        assert!(reply.refusal().is_some() && stage.upstream.seen().is_empty(), "{sent}: {}", reply.status);
    }
}

#[tokio::test]
async fn services_other_than_s3_sign_paths_encoded_twice() {
    let policy = POLICY.replace("service = \"s3\"", "service = \"es\"");
    let upstream = FakeUpstream::start(&["api.test"]).await;
    let mut stage = Signing::of(&policy, Some(canary()), upstream, |builder| builder).await;
    stage.real.service = "es".to_owned();
    let signer = Signer { service: "es".to_owned(), ..stage.signer().await };
    for (sent, canonical) in [("/a%20b/c:d", "/a%2520b/c%3Ad"), ("/%e1%88%b4", "/%25e1%2588%25b4")] {
        let fields = signer.sign("GET", "api.test", canonical, &[], "");
        assert_eq!(stage.send("GET", sent, &fields, "").await.status, 200, "{sent}");
        stage.assert_signed_as(&stage.upstream.only(), canonical);
        stage.upstream.forget();
        let once = signer.sign("GET", "api.test", sent, &[], "");
        stage.assert_refused(&stage.send("GET", sent, &once, "").await, "signature_refused", "encoded once");
    }
}

#[tokio::test]
async fn fields_are_signed_by_their_names_and_what_they_say_however_they_are_written() {
    let stage = Signing::new().await;
    let signer = stage.signer().await;
    let mut canonical = necessary(&signer);
    canonical.extend(
        [("x-amz-meta-a", "one two"), ("x-amz-meta-b", "1,2"), ("x-amz-meta-c", "")]
            .map(|(name, value)| (name.to_owned(), value.to_owned())),
    );
    let names: Vec<&str> = canonical.iter().map(|(name, _)| &**name).chain(["host"]).collect();
    let value = signer.authorization("PUT", "API.test:443", "/a", (&names, &canonical), "");
    let token = signer.token.clone().expect("a nonce");
    let fields = |meta: &str| {
        let fields = [
            ("X-Amz-Meta-B", "1"),
            ("X-AMZ-DATE", &format!("  {}  ", signer.date)),
            ("authorization", &value),
            ("X-Amz-Meta-A", meta),
            ("x-amz-Security-Token", &token),
            ("x-amz-meta-b", " 2\t"),
            ("X-Amz-Meta-C", ""),
            ("Content-Length", "0"),
            ("Host", "API.test:443"),
        ];
        head("PUT /a", &fields)
    };
    let answer = stage.sidecar.agent().raw_inside("api.test", fields("  one   two ").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    stage.assert_signed(&stage.upstream.only());
    stage.upstream.forget();
    for folded in ["one\r\n two", "one\r\n\ttwo", "one\t two", "onetwo", "one two\r\nX-Amz-Meta-A: three"] {
        let answer = stage.sidecar.agent().raw_inside("api.test", fields(folded).as_bytes()).await;
        assert!(!answer.starts_with("HTTP/1.1 200"), "{folded:?}: {answer}");
        assert!(stage.upstream.seen().is_empty(), "{folded:?}");
    }
}

/// What of a signed request changes on its way is not in the new signature.
#[tokio::test]
async fn what_changes_on_its_way_is_not_signed_again() {
    let stage = Signing::new().await;
    let signer = stage.signer().await;
    let hash = sha_256("a body");
    let more = [
        ("accept-encoding", "br, x-unknown, gzip"),
        ("content-length", "6"),
        ("range", "bytes=0-3"),
        ("te", "trailers"),
        ("user-agent", "an agent"),
        ("x-amz-content-sha256", &hash),
        ("x-amzn-trace-id", "Root=1"),
    ];
    for h2 in [false, true] {
        let fields = signer.sign("PUT", "api.test", "/a", &more, "a body");
        let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (&**name, &**value)).collect();
        let request = with("PUT", "api.test", "/a", &fields, "a body");
        let agent = stage.sidecar.agent();
        let reply = if h2 { agent.send_h2(request).await } else { agent.send(request).await };
        assert_eq!(reply.status, 200, "h2 {h2}: {}", reply.text());
        let seen = stage.upstream.only();
        stage.assert_signed(&seen);
        let said = seen.header("authorization").expect("a signature");
        assert!(said.contains("SignedHeaders=host;x-amz-content-sha256;x-amz-date;x-amz-security-token,"), "{said}");
        stage.upstream.forget();
    }
}

#[tokio::test]
async fn a_body_is_held_and_compared_however_it_comes() {
    let stage = Signing::new().await;
    let signer = stage.signer().await;
    let named = signer.sign("PUT", "api.test", "/a", &[("x-amz-content-sha256", &sha_256("hello"))], "hello");
    let unnamed = signer.sign("PUT", "api.test", "/a", &[], "hello");
    for fields in [&named, &unnamed] {
        let mut fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (&**name, &**value)).collect();
        fields.extend([("Host", "api.test"), ("Transfer-Encoding", "chunked")]);
        let head = head("PUT /a", &fields);
        for (body, is_right) in [
            ("2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", true),
            ("5\r\nhello\r\n0\r\nx-amz-meta-a: 1\r\n\r\n", false),
            ("5\r\nhallo\r\n0\r\n\r\n", false),
            ("6\r\nhello!\r\n0\r\n\r\n", false),
            ("0\r\n\r\n", false),
        ] {
            let answer = stage.sidecar.agent().raw_inside("api.test", format!("{head}{body}").as_bytes()).await;
            if is_right {
                assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
                stage.assert_signed(&stage.upstream.only());
                stage.upstream.forget();
            } else {
                assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("signature_refused"), "{body}: {answer}");
                assert!(stage.upstream.seen().is_empty(), "{body}");
            }
        }
    }
    // As S3's clients send what they upload.
    let mut fields: Vec<(&str, &str)> = named.iter().map(|(name, value)| (&**name, &**value)).collect();
    fields.extend([("Host", "api.test"), ("Content-Length", "5"), ("Expect", "100-continue")]);
    let mut stream = stage.sidecar.agent().tls_tunnel("api.test", "api.test", &[b"http/1.1"]).await.expect("TLS");
    stream.write_all(head("PUT /a", &fields).as_bytes()).await.expect("writable");
    let mut asked = [0; 25];
    tokio::time::timeout(PATIENCE, stream.read_exact(&mut asked)).await.expect("in time").expect("bytes");
    assert_eq!(&asked, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"hello").await.expect("writable");
    let answer = read_answers(&mut stream, 1, PATIENCE).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    stage.assert_signed(&stage.upstream.only());
}

#[tokio::test]
async fn a_body_that_cannot_be_held_is_refused_before_anything_goes_out() {
    const PIECE: usize = 1024 * 1024;
    let stage = Signing::new().await;
    let signer = stage.signer().await;
    let body = "x".repeat(9 * PIECE);
    let hash = sha_256(&body);
    let fields = signer.sign("PUT", "api.test", "/a", &[("x-amz-content-sha256", &hash)], "");
    let reply = stage.send("PUT", "/a", &fields, &body).await;
    stage.assert_refused(&reply, "request_too_large", "with a length");
    let mut fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (&**name, &**value)).collect();
    fields.extend([("Host", "api.test"), ("Transfer-Encoding", "chunked")]);
    let stream = stage.sidecar.agent().tls_tunnel("api.test", "api.test", &[b"http/1.1"]).await.expect("TLS");
    let (mut reading, mut writing) = tokio::io::split(stream);
    let head = head("PUT /a", &fields);
    let say = async {
        let piece = format!("{PIECE:x}\r\n{}\r\n", &body[..PIECE]);
        let mut going = writing.write_all(head.as_bytes()).await.is_ok();
        for _ in 0..9 {
            // Who was refused may find nobody who listens.
            going = going && writing.write_all(piece.as_bytes()).await.is_ok();
        }
        let _ = writing.write_all(b"0\r\n\r\n").await;
    };
    let (answer, ()) = tokio::join!(read_answers(&mut reading, 1, PATIENCE), say);
    assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("request_too_large"), "{answer}");
    assert!(stage.upstream.seen().is_empty());
}
