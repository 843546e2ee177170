//! Two requests that look like one, and one that looks like two.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{outcome, request, send};
use crate::support::{FakeUpstream, Stage};

const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";
const BODY: &str = "5\r\nhello\r\n0\r\n\r\n";
/// Would be refused if it were judged, and must not arrive unjudged.
const HIDDEN: &str = "POST /forbidden HTTP/1.1\r\nHost: api.test\r\n\r\n";

#[tokio::test]
async fn framing_that_can_be_read_twice_is_refused() {
    let stage = Stage::new().await;
    let nonce = stage.writer().await;
    let mut cases: Vec<(String, String)> = Vec::new();
    let codings = "chunked, chunked|,chunked|chunked,|identity|xchunked|chunked;q=1|gzip, chunked|chunked, gzip|gzip|\
                   \"chunked\"||chunked foo|trailers";
    for coding in codings.split('|') {
        cases.push((format!("Transfer-Encoding: {coding}\r\n"), format!("{BODY}{HIDDEN}")));
        cases.push((format!("Transfer-Encoding: {coding}\r\nContent-Length: 3\r\n"), format!("{BODY}{HIDDEN}")));
    }
    for length in
        ["3, 3", "+3", "-0", "03", "0x3", "", "3 3", "99999999999999999999", "18446744073709551619", "3;", "00"]
    {
        cases.push((format!("Content-Length: {length}\r\n"), "abc".to_owned()));
    }
    for fields in [
        format!("{CHUNKED}{CHUNKED}"),
        format!("{CHUNKED}Transfer-Encoding: identity\r\n"),
        format!("Transfer-Encoding: identity\r\n{CHUNKED}"),
        "Transfer-Encoding : chunked\r\n".to_owned(),
        "Transfer-Encoding:\r\n chunked\r\n".to_owned(),
        " Transfer-Encoding: chunked\r\n".to_owned(),
        "Content-Length: 3\r\nContent-Length: 60\r\n".to_owned(),
        "Content-Length : 3\r\n".to_owned(),
    ] {
        cases.push((fields, format!("{BODY}{HIDDEN}")));
    }
    for body in [
        "0x5\r\nhello",
        "+5\r\nhello",
        "5\nhello",
        "5\r\nhelloXX",
        "fffffffffffffffff\r\nhello",
        "-5\r\nhello",
        "g\r\nhello",
    ] {
        cases.push((CHUNKED.to_owned(), format!("{body}\r\n0\r\n\r\n{HIDDEN}")));
    }
    for (fields, body) in cases {
        let answer = send(&stage, &request("POST /x", &fields, &nonce, &body)).await;
        assert_eq!(outcome(&answer).0, 400, "{fields:?} {body:?}: {answer}");
    }
    let hidden = stage.upstream.seen().into_iter().find(|seen| seen.target == "/forbidden");
    assert!(hidden.is_none(), "{hidden:?}");
}

#[tokio::test]
async fn a_body_stays_with_its_request() {
    for alpn in [&b"http/1.1"[..], b"h2"] {
        let stage = Stage::with(FakeUpstream::start_with(&["api.test"], &[alpn]).await, |builder| builder).await;
        let (reader, writer) = (stage.reader().await, stage.writer().await);
        let chunks = format!("{:x}\r\n{HIDDEN}\r\n0\r\n\r\n", HIDDEN.len());
        let length = format!("Content-Length: {}\r\n", HIDDEN.len());
        for (method, nonce) in [("GET", &reader), ("POST", &writer), ("PUT", &writer)] {
            for (fields, body) in [(CHUNKED, &chunks[..]), (&length, HIDDEN)] {
                let line = format!("{method} /x");
                let answer = send(&stage, &request(&line, fields, nonce, body)).await;
                assert_eq!(outcome(&answer).0, 200, "{line} {fields}: {answer}");
                let seen = stage.upstream.seen().pop().expect("a request");
                assert_eq!((seen.method.as_str(), &seen.body[..]), (method, HIDDEN.as_bytes()), "{fields}");
            }
        }
        assert_eq!(stage.upstream.seen().len(), 6, "nothing else arrived");
    }
}

#[tokio::test]
async fn each_of_many_in_one_write_is_judged() {
    let stage = Stage::new().await;
    let nonce = stage.reader().await;
    let one = |line: &str| format!("{line} HTTP/1.1\r\nHost: api.test\r\nAuthorization: Bearer {nonce}\r\n\r\n");
    let all = [one("GET /a"), one("POST /b"), one("GET /c"), one("CONNECT evil.test:443"), one("GET /d")].concat();
    let answer = stage.sidecar.agent().pipelined("api.test", all.as_bytes(), 5).await;
    let statuses: Vec<&str> = answer.split("HTTP/1.1 ").skip(1).map(|text| &text[..3]).collect();
    assert_eq!(statuses, ["200", "403", "200", "400", "200"], "{answer}");
    let targets: Vec<String> = stage.upstream.seen().into_iter().map(|seen| seen.target).collect();
    assert_eq!(targets, ["/a", "/c", "/d"]);
}

#[tokio::test]
async fn nothing_is_read_behind_a_framing_that_is_not_clear() {
    let stage = Stage::new().await;
    let nonce = stage.writer().await;
    let next = format!("POST /next HTTP/1.1\r\nHost: api.test\r\nAuthorization: Bearer {nonce}\r\n\r\n");
    // Refused for its framing, and for something else that is looked at first.
    for (host, codings) in [("api.test", CHUNKED.repeat(2)), ("evil.test", CHUNKED.repeat(2))] {
        let head = format!("POST /x HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {nonce}\r\n{codings}\r\n{BODY}");
        let answer = stage.sidecar.agent().pipelined("api.test", (head + &next).as_bytes(), 2).await;
        assert!(matches!(outcome(&answer).0, 400 | 421), "{answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    }
    assert!(stage.upstream.seen().is_empty(), "{:?}", stage.upstream.seen());
}

/// Both lengths of one body, in each order and wherever a head may be cut on its way: neither is taken for the right one.
#[tokio::test]
async fn a_length_beside_chunks_is_refused_wherever_it_stands() {
    let stage = Stage::new().await;
    let nonce = stage.writer().await;
    let agent = stage.sidecar.agent();
    let first =
        format!("POST /first HTTP/1.1\r\nHost: api.test\r\nAuthorization: Bearer {nonce}\r\n{CHUNKED}\r\n{BODY}");
    let mut firsts = 0;
    for fields in [
        format!("Content-Length: 3\r\n{CHUNKED}"),
        format!("{CHUNKED}Content-Length: 3\r\n"),
        "content-length:0\r\nX: y\r\ntransfer-ENCODING:Chunked\r\n".to_owned(),
        format!("Content-Length: {}\r\nContent-Length: {}\r\n{CHUNKED}", BODY.len(), BODY.len()),
    ] {
        let both = request("POST /x", &fields, &nonce, &format!("{BODY}{HIDDEN}"));
        let answer = send(&stage, &both).await;
        assert!(outcome(&answer).0 == 400 && answer.matches("HTTP/1.1 ").count() == 1, "{fields:?}: {answer}");
        // Behind another request, in the same bytes.
        let answer = agent.pipelined("api.test", &[first.as_bytes(), &both].concat(), 3).await;
        let statuses: Vec<&str> = answer.split("HTTP/1.1 ").skip(1).map(|text| &text[..3]).collect();
        assert_eq!(statuses, ["200", "400"], "{fields:?}: {answer}");
        firsts += 1;
        // A piece at a time, cut where the names are.
        let mut stream = agent.tls_tunnel("api.test", "api.test", &[b"http/1.1"]).await.expect("TLS");
        for piece in both.chunks(9) {
            if stream.write_all(piece).await.and(stream.flush().await).is_err() {
                break;
            }
        }
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert!(answer.starts_with(b"HTTP/1.1 400 "), "{fields:?}: {}", String::from_utf8_lossy(&answer));
        // And of the proxy itself.
        let mut stream = agent.tcp().await;
        let connect = format!("CONNECT api.test:443 HTTP/1.1\r\nHost: api.test:443\r\n{fields}\r\n{BODY}");
        stream.write_all(connect.as_bytes()).await.expect("writable");
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert!(answer.starts_with(b"HTTP/1.1 400 "), "{fields:?}: {}", String::from_utf8_lossy(&answer));
    }
    let targets: Vec<String> = stage.upstream.seen().into_iter().map(|seen| seen.target).collect();
    assert_eq!(targets, vec!["/first"; firsts]);
}
