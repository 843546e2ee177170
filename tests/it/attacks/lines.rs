//! HTTP/1 line by line: ends of lines, versions, chunks and what stands before a request; and what an upstream sends
//! before, beside and after its answer.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::mutations::{pour, strict};
use super::outcome;
use crate::support::agent::{PATIENCE, get};
use crate::support::upstream::read_head;
use crate::support::wire::{answers, read_answers};
use crate::support::{FakeUpstream, Stage, TestSidecar, canary, policies};

/// Must not be taken for a request where it follows something.
const HIDDEN: &str = "POST /hidden HTTP/1.1\r\nHost: api.test\r\nAuthorization: Bearer @\r\nContent-Length: 0\r\n\r\n";

/// What it is, what is sent, and what becomes of it.
type Case<'a> = (&'a str, String, Result<&'a [&'a str], u16>);

/// What becomes of bytes, in which `@` stands for the nonce: the bodies that arrive, or the status of a refusal.
async fn each(cases: &[Case<'_>]) {
    let (upstream, notes) = strict().await;
    let stage = Stage::with(upstream, |builder| builder).await;
    let nonce = stage.writer().await;
    for (what, bytes, expected) in cases {
        let answer = pour(&stage, bytes.replace('@', &nonce).as_bytes()).await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let mut notes = notes.lock().expect("not poisoned");
        let bodies: Vec<String> =
            notes.messages.drain(..).map(|message| String::from_utf8(message.body).expect("text")).collect();
        assert!(notes.wrong.is_empty(), "{what}: {:?}", notes.wrong);
        match expected {
            Ok(expected) => assert_eq!(bodies, *expected, "{what}: {answer}"),
            Err(status) => {
                assert_eq!(bodies, [""; 0], "{what}: {answer}");
                // What is wrong with a body may come out when its answer cannot be given any more.
                assert!(answer.is_empty() || outcome(&answer).0 == *status, "{what}: {answer}");
            }
        }
    }
}

fn post(fields: &str, body: &str) -> String {
    format!("POST /x HTTP/1.1\r\nHost: api.test\r\nAuthorization: Bearer @\r\n{fields}\r\n{body}")
}

fn chunked(body: &str) -> String {
    post("Transfer-Encoding: chunked\r\n", body)
}

#[tokio::test]
async fn a_line_ends_in_one_way_and_a_request_begins_in_one() {
    let plain = post("Content-Length: 2\r\nConnection: close\r\n", "ab");
    each(&[
        ("as it should be", plain.clone(), Ok(&["ab"])),
        ("bare LF, which is written anew", plain.replace("\r\n", "\n"), Ok(&["ab"])),
        ("bare CR", plain.replace("\r\n", "\r") + "\r\n\r\n", Err(400)),
        ("CR CR LF", plain.replacen("\r\n", "\r\r\n", 2), Err(400)),
        ("CR in a value", post("X: a\rb\r\n", ""), Err(400)),
        ("CR and a field in a value", post("X: a\rContent-Length: 5\r\n", HIDDEN), Err(400)),
        ("NUL in a value", post("X: a\0b\r\n", ""), Err(400)),
        ("VT in a value", post("X: a\x0bb\r\n", ""), Err(400)),
        ("DEL in a value", post("X: a\x7fb\r\n", ""), Err(400)),
        ("NUL in a name", post("X\0: a\r\n", ""), Err(400)),
        ("a high byte in a name", post("X\u{e9}: a\r\n", ""), Err(400)),
        ("a bracket in a name", post("X(: a\r\n", ""), Err(400)),
        ("no name", post(": a\r\n", ""), Err(400)),
        ("no colon", post("X\r\n", ""), Err(400)),
        ("a space before the colon", post("X : a\r\n", ""), Err(400)),
        ("a space before the name", post(" X: a\r\n", ""), Err(400)),
        ("a folded line", post("X: a\r\n b\r\n", ""), Err(400)),
        ("one empty line first", format!("\r\n{plain}"), Ok(&["ab"])),
        ("ten thousand empty lines first", format!("{}{plain}", "\r\n".repeat(10_000)), Ok(&["ab"])),
        ("empty lines without end", "\r\n".repeat(200_000), Err(431)),
        ("101 fields", post(&"X: y\r\n".repeat(99), ""), Err(431)),
        ("ten thousand fields", post(&"X: y\r\n".repeat(10_000), ""), Err(431)),
        ("a field of a megabyte", post(&format!("X: {}\r\n", "y".repeat(1024 * 1024)), ""), Err(431)),
        ("garbage first", format!("\x01\x02garbage\r\n{plain}"), Err(400)),
        ("a space first", format!(" {plain}"), Err(400)),
    ])
    .await;
}

#[tokio::test]
async fn a_version_is_one_that_is_spoken() {
    let plain = post("Content-Length: 2\r\nConnection: close\r\n", "ab");
    let as_version = |version: &str| plain.replacen("HTTP/1.1", version, 1);
    let old = |fields: &str| post(fields, "").replacen("HTTP/1.1", "HTTP/1.0", 1);
    let mut cases: Vec<Case<'_>> = vec![
        ("HTTP/0.9", "GET /x\r\n\r\n".to_owned(), Err(400)),
        ("HTTP/0.9 with a space", "GET /x \r\n\r\n".to_owned(), Err(400)),
        ("the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), Err(400)),
        ("the preface behind a request", post("", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), Ok(&[""])),
        ("1.0 and chunked", old("Transfer-Encoding: chunked\r\n") + "2\r\nab\r\n0\r\n\r\n", Err(400)),
        ("1.0 and chunked, kept", old("Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n") + HIDDEN, Err(400)),
        ("1.0 without a length", old("") + HIDDEN, Ok(&[""])),
        ("1.0 with a length", old("Content-Length: 2\r\n") + "ab" + HIDDEN, Ok(&["ab"])),
        ("1.0, kept", old("Connection: keep-alive\r\nContent-Length: 2\r\n") + "ab" + HIDDEN, Ok(&["ab", ""])),
    ];
    for version in
        ["HTTP/1.2", "HTTP/2.0", "HTTP/0.9", "HTTP/1.1 ", "HTTP/1.1\t", "HTTP/1.1 x", "http/1.1", "HTTP/1", "HTTP/11"]
    {
        cases.push((version, as_version(version), Err(400)));
    }
    each(&cases).await;
}

#[tokio::test]
async fn a_chunk_has_the_size_that_it_says() {
    let long = "x".repeat(1024 * 1024);
    let close = "Transfer-Encoding: chunked\r\nConnection: close\r\n";
    each(&[
        ("as it should be", post(close, "2\r\nab\r\n0\r\n\r\n"), Ok(&["ab"])),
        ("an extension", post(close, "2;a=b\r\nab\r\n0;c\r\n\r\n"), Ok(&["ab"])),
        ("a quoted extension", post(close, "2;a=\"b;c\"\r\nab\r\n0\r\n\r\n"), Ok(&["ab"])),
        ("LF in an extension", chunked(&format!("2;a\nab\r\n0\r\n\r\n{HIDDEN}")), Err(400)),
        ("CR in an extension", chunked(&format!("2;a\rab\r\n0\r\n\r\n{HIDDEN}")), Err(400)),
        ("an extension of a megabyte", chunked(&format!("2;{long}\r\nab\r\n0\r\n\r\n")), Err(400)),
        (
            "a megabyte of extensions",
            chunked(&format!("{}0\r\n\r\n", "1;xxxxxxxxxxxx\r\na\r\n".repeat(60_000))),
            Err(400),
        ),
        ("0x", chunked(&format!("0x2\r\nab\r\n0\r\n\r\n{HIDDEN}")), Err(400)),
        ("a sign", chunked(&format!("+2\r\nab\r\n0\r\n\r\n{HIDDEN}")), Err(400)),
        ("an underscore", chunked(&format!("1_0\r\nab\r\n0\r\n\r\n{HIDDEN}")), Err(400)),
        ("17 digits", chunked(&format!("10000000000000002\r\nab\r\n0\r\n\r\n{HIDDEN}")), Err(400)),
        ("a space first", chunked(&format!(" 2\r\nab\r\n0\r\n\r\n{HIDDEN}")), Err(400)),
        ("no size", chunked(&format!("\r\nab\r\n0\r\n\r\n{HIDDEN}")), Err(400)),
        ("no end", chunked(&format!("2\r\nab0\r\n\r\n{HIDDEN}")), Err(400)),
        ("a bare LF as its end", chunked(&format!("2\r\nab\n0\r\n\r\n{HIDDEN}")), Err(400)),
        ("one end too many", chunked(&format!("2\r\nab\r\n\r\n0\r\n\r\n{HIDDEN}")), Err(400)),
        ("a last chunk that ends in LF", chunked(&format!("2\r\nab\r\n0\n\n{HIDDEN}")), Err(400)),
        ("trailers without end", chunked(&format!("0\r\n{}", "x: y\r\n".repeat(100_000))), Err(400)),
    ])
    .await;
}

#[tokio::test]
async fn a_body_arrives_with_whatever_method() {
    let policy =
        policies::ONE_API.replace("\"GET /{*path}\"", "\"GET /{*path}\", \"OPTIONS /{*path}\", \"DELETE /{*path}\"");
    let (upstream, notes) = strict().await;
    let stage = Stage::of(&policy, upstream, |builder| builder).await;
    let nonce = stage.reader().await;
    for method in ["GET", "HEAD", "DELETE", "OPTIONS"] {
        let length = format!("Content-Length: {}\r\n", HIDDEN.len());
        let chunks = format!("{:x}\r\n{HIDDEN}\r\n0\r\n\r\n", HIDDEN.len());
        for (fields, body) in [(&*length, HIDDEN), ("Transfer-Encoding: chunked\r\n", &chunks)] {
            let bytes = post(&format!("{fields}Connection: close\r\n"), "").replacen("POST", method, 1);
            let answer = pour(&stage, (bytes.replace('@', &nonce) + body).as_bytes()).await;
            let mut notes = notes.lock().expect("not poisoned");
            assert!(notes.wrong.is_empty(), "{method} {fields}: {:?}", notes.wrong);
            let seen: Vec<_> = notes.messages.drain(..).map(|message| (message.method, message.body)).collect();
            let answer = String::from_utf8_lossy(&answer);
            assert_eq!(seen, [(method.to_owned(), HIDDEN.as_bytes().to_vec())], "{fields}: {answer}");
        }
    }
}

#[tokio::test]
async fn a_hundred_in_one_write_are_answered_in_order() {
    let stage = Stage::new().await;
    let nonce = stage.reader().await;
    let one = |number: usize| {
        let line = if number % 7 == 3 { format!("POST /{number}") } else { format!("GET /{number}") };
        format!("{line} HTTP/1.1\r\nHost: api.test\r\nAuthorization: Bearer {nonce}\r\n\r\n")
    };
    let all: String = (0..100).map(one).collect();
    let text = stage.sidecar.agent().pipelined("api.test", all.as_bytes(), 100).await;
    let statuses: Vec<u16> = answers(text.as_bytes(), true).iter().map(|answer| answer.status).collect();
    let expected: Vec<u16> = (0..100).map(|number| if number % 7 == 3 { 403 } else { 200 }).collect();
    assert_eq!(statuses, expected);
    let arrived: Vec<String> = stage.upstream.seen().into_iter().map(|seen| seen.target).collect();
    let allowed: Vec<String> = (0..100).filter(|number| number % 7 != 3).map(|number| format!("/{number}")).collect();
    assert_eq!(arrived, allowed);
}

#[tokio::test]
async fn a_connection_with_half_a_body_in_it_is_not_used_again() {
    let early = |_: String, mut wire: Box<dyn crate::support::websocket::Wire>| async move {
        // An answer before the body, and then only reading: what a second request would be read as a body of.
        let answer = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly";
        let _ = wire.write_all(answer.as_bytes()).await;
        let _ = wire.flush().await;
        let _ = wire.read_to_end(&mut Vec::new()).await;
    };
    for fields in ["Content-Length: 1000000\r\n", "Transfer-Encoding: chunked\r\n"] {
        let stage = Stage::with(FakeUpstream::speaking_freely(&["api.test"], early).await, |builder| builder).await;
        let nonce = stage.writer().await;
        let mut first = stage.sidecar.agent().tls_tunnel("api.test", "api.test", &[b"http/1.1"]).await.expect("TLS");
        let bytes = post(fields, "5\r\nhello\r\n").replace('@', &nonce);
        first.write_all(bytes.as_bytes()).await.expect("writable");
        let answer = read_answers(&mut first, 1, PATIENCE).await;
        assert!(answer.ends_with("early"), "{fields}: {answer}");
        let second = post("Content-Length: 2\r\nConnection: close\r\n", "ab").replace('@', &nonce);
        let answer = stage.sidecar.agent().raw_inside("api.test", second.as_bytes()).await;
        assert!(answer.ends_with("early"), "{fields}: {answer}");
        assert_eq!(stage.upstream.connections(), 2, "{fields}: each has its own");
    }
}

#[tokio::test]
async fn whatever_an_answer_does_wrong_the_next_client_never_sees() {
    let evil = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nevil!";
    let flood = "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n".repeat(10_000);
    for (what, wrong) in [
        ("10,000 interim answers", format!("{flood}HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok{evil}")),
        ("interim answers and no other", flood),
        ("a bad chunk", format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\nab\r\n0\r\n\r\n{evil}")),
        (
            "a chunk with another end",
            format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n{evil}"),
        ),
        ("less than its length", "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\nab".to_owned()),
        (
            "a length and chunks",
            format!("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{evil}"),
        ),
        ("lengths that differ", format!("HTTP/1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\nab{evil}")),
        ("a length that is none", format!("HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nab{evil}")),
        ("a head of a megabyte", format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n{evil}", "x".repeat(1024 * 1024))),
        ("no head", evil[20..].to_owned()),
    ] {
        let count = AtomicUsize::new(0);
        let upstream = FakeUpstream::raw_kept(&["api.test"], move |_| {
            let right = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nright";
            if count.fetch_add(1, Ordering::SeqCst) == 0 { wrong.clone() } else { right.to_owned() }.into_bytes()
        })
        .await;
        let limits = |builder: crate::support::Builder| {
            builder.flag("--upstream-head-timeout").flag("1s").flag("--idle-timeout").flag("1s")
        };
        let stage = Stage::with(upstream, limits).await;
        let nonce = stage.reader().await;
        let mut tunnel = stage.sidecar.agent().tunnel("api.test").await;
        if let Ok(response) = tunnel.try_start(get("api.test", "/1", &nonce)).await {
            let read = tokio::time::timeout(PATIENCE, crate::support::agent::read(response)).await.expect("an end");
            assert!(read.is_err() || !read.as_ref().expect("whole").text().contains("evil"), "{what}: {read:?}");
        }
        let next = stage.sidecar.agent().get("api.test", "/2", &nonce).await;
        assert_eq!(next.text(), "right", "{what}");
    }
}

#[tokio::test]
async fn a_file_whose_content_would_break_a_head_is_no_credential() {
    for bad in ["\0", "\r\nX-Injected: 1", "\nX-Injected: 1", "\r", "\u{e9}", "\u{7f}", "\t1"] {
        let upstream = FakeUpstream::start(&["api.test"]).await;
        let policy = policies::one_api_from("source = \"file\"\npath = \"{dir}/key\"");
        let content = format!("sk_live_beginning{bad}end_of_it_{}", canary());
        let builder = TestSidecar::with_policy(&policy).upstream(&["api.test"], "api", &upstream);
        let sidecar = builder.file("key", &content).start().await;
        let nonce = sidecar.orchestrator().mint("worker", "api", "read").await.nonce;
        let reply = sidecar.agent().get("api.test", "/x", &nonce).await;
        assert_eq!(reply.refusal(), Some("credential_unavailable"), "{bad:?}");
        assert_eq!(upstream.connections(), 0, "{bad:?}");
    }
}

#[tokio::test]
async fn a_switch_to_http_2_is_not_passed_on() {
    let stage = Stage::with(
        FakeUpstream::played(&["api.test"], b"http/1.1", |mut stream, _| async move {
            let head = read_head(&mut stream).await.to_ascii_lowercase();
            let asked = ["upgrade", "http2-settings", "h2c"].iter().any(|word| head.contains(word));
            let body = if asked { "asked" } else { "plain" };
            let answer = format!("HTTP/1.1 200 OK\r\nUpgrade: h2c\r\nContent-Length: 5\r\n\r\n{body}");
            let _ = stream.write_all(answer.as_bytes()).await;
        })
        .await,
        |builder| builder,
    )
    .await;
    let nonce = stage.writer().await;
    let settings = "HTTP2-Settings: AAMAAABkAARAAAAA\r\n";
    for fields in [
        format!("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n{settings}"),
        format!("Connection: HTTP2-Settings\r\n{settings}"),
        settings.to_owned(),
        "Upgrade: h2c\r\n".to_owned(),
        "Connection: Upgrade\r\nUpgrade: h2c, websocket2\r\n".to_owned(),
        "Connection: Upgrade\r\nUpgrade: TLS/1.0\r\n".to_owned(),
    ] {
        let bytes = post(&format!("{fields}Content-Length: 2\r\n"), "ab").replace('@', &nonce);
        let answer = stage.sidecar.agent().raw_inside("api.test", bytes.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("plain"), "{fields}: {answer}");
        assert!(!answer.to_ascii_lowercase().contains("upgrade:"), "{fields}: {answer}");
    }
}
