//! Upstreams that echo the credential where a search may not look, and answers that are none.

use std::io::Read as _;

use super::{outcome, request, send};
use crate::support::upstream::gzip;
use crate::support::{FakeUpstream, Stage};

/// Makes an answer that holds a secret.
type Mangle = fn(&str) -> Vec<u8>;

/// The secret in a request's head.
fn secret(head: &str) -> &str {
    let value = head.lines().find_map(|line| line.split_once(": Bearer ").map(|(_, secret)| secret));
    value.expect("a credential").trim()
}

fn with_body(head: &str, body: &[u8]) -> Vec<u8> {
    [format!("HTTP/1.1 {head}Content-Length: {}\r\n\r\n", body.len()).as_bytes(), body].concat()
}

fn chunked(head: &str, body: &[u8], trailers: &str) -> Vec<u8> {
    let head = format!("HTTP/1.1 {head}\r\n{:x}\r\n", body.len());
    [head.as_bytes(), body, format!("\r\n0\r\n{trailers}\r\n").as_bytes()].concat()
}

const GZIP: &str = "200 OK\r\nContent-Encoding: gzip\r\n";
const TE: &str = "200 OK\r\nTransfer-Encoding: chunked\r\n";

const MANGLED: [(&str, Mangle); 26] = [
    ("gzip members", |s| with_body(GZIP, &[gzip(&s.as_bytes()[..9]), gzip(&s.as_bytes()[9..])].concat())),
    ("gzip, garbage after", |s| with_body(GZIP, &[gzip(b"x"), s.as_bytes().to_vec()].concat())),
    ("gzip label on plain text", |s| with_body(GZIP, s.as_bytes())),
    ("x-gzip", |s| with_body("200 OK\r\nContent-Encoding: x-gzip\r\n", &gzip(s.as_bytes()))),
    ("gzip twice", |s| with_body("200 OK\r\nContent-Encoding: gzip, gzip\r\n", &gzip(&gzip(s.as_bytes())))),
    ("identity and gzip", |s| {
        with_body("200 OK\r\nContent-Encoding: identity\r\nContent-Encoding: gzip\r\n", &gzip(s.as_bytes()))
    }),
    ("empty coding", |s| with_body("200 OK\r\nContent-Encoding: \r\n", s.as_bytes())),
    ("gzip as transfer coding", |s| chunked("200 OK\r\nTransfer-Encoding: gzip, chunked\r\n", &gzip(s.as_bytes()), "")),
    ("gzip as first transfer coding", |s| {
        chunked("200 OK\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", &gzip(s.as_bytes()), "")
    }),
    ("gzip as only transfer coding", |s| {
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n".to_vec(), gzip(s.as_bytes())].concat()
    }),
    ("204 with gzip", |s| with_body("204 No\r\nContent-Encoding: gzip\r\n", &gzip(s.as_bytes()))),
    ("304 with gzip", |s| with_body("304 No\r\nContent-Encoding: gzip\r\n", &gzip(s.as_bytes()))),
    ("101", |s| format!("HTTP/1.1 101 Switch\r\nConnection: upgrade\r\nUpgrade: x\r\nX: {s}\r\n\r\n{s}").into_bytes()),
    ("103", |s| {
        [format!("HTTP/1.1 103 Early\r\nLink: {s}\r\n\r\n").into_bytes(), with_body("200 OK\r\n", b"x")].concat()
    }),
    ("part", |s| with_body("206 Part\r\nContent-Range: bytes 0-19/40\r\n", &s.as_bytes()[..20])),
    ("trailer", |s| chunked(TE, b"x", &format!("X-T: {s}\r\n"))),
    ("chunk extension", |s| format!("HTTP/1.1 {TE}\r\n1;x={s}\r\na\r\n0\r\n\r\n").into_bytes()),
    ("reason", |s| with_body(&format!("400 Bad {s}\r\n"), b"x")),
    ("status line", |s| format!("HTTP/1.1 {s}\r\n\r\n").into_bytes()),
    ("field's name", |s| with_body(&format!("200 OK\r\n{s}: 1\r\n"), b"x")),
    ("length", |s| format!("HTTP/1.1 200 OK\r\nContent-Length: {s}\r\n\r\n").into_bytes()),
    ("HTTP/0.9", |s| s.as_bytes().to_vec()),
    ("two answers", |s| [with_body("200 OK\r\n", b"x"), with_body("200 OK\r\n", s.as_bytes())].concat()),
    ("cut off", |s| format!("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{s}").into_bytes()),
    ("gzip as a manipulation", |s| with_body("226 IM Used\r\nIM: gzip\r\n", &gzip(s.as_bytes()))),
    ("gzip as a manipulation of a whole", |s| with_body("200 OK\r\nIM: gzip\r\n", &gzip(s.as_bytes()))),
];

#[tokio::test]
async fn no_coding_and_no_framing_brings_the_credential_back() {
    let upstream = FakeUpstream::raw(&["api.test"], |head| {
        let case: usize = head.split(['/', ' ']).nth(2).and_then(|n| n.parse().ok()).expect("a case");
        MANGLED[case].1(secret(head))
    });
    let stage = Stage::with(upstream.await, |builder| builder).await;
    let nonce = stage.reader().await;
    for (case, (what, _)) in MANGLED.iter().enumerate() {
        let bytes = request(&format!("GET /{case}"), "TE: trailers\r\nAccept-Encoding: gzip\r\n", &nonce, "");
        let mut tunnel = stage.sidecar.agent().tls_tunnel("api.test", "api.test", &[b"http/1.1"]).await.expect("TLS");
        let mut answer = Vec::new();
        tokio::io::AsyncWriteExt::write_all(&mut tunnel, &bytes).await.expect("writable");
        // An answer that breaks off ends the tunnel without a goodbye.
        let _ = tokio::io::AsyncReadExt::read_to_end(&mut tunnel, &mut answer).await;
        stage.assert_clean(&answer, what);
        stage.assert_clean(&opened(&answer), what);
    }
    stage.assert_silent(&[&nonce]);
}

/// Whatever gzip can be found in an answer, opened as far as it goes.
fn opened(answer: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    if let Some(at) = memchr::memmem::find(answer, b"\x1f\x8b\x08") {
        let _ = flate2::read::MultiGzDecoder::new(&answer[at..]).read_to_end(&mut text);
    }
    text
}

#[tokio::test]
async fn a_switch_of_protocols_that_nobody_asked_for_is_the_upstreams_fault() {
    let upstream = FakeUpstream::raw(&["api.test"], |head| MANGLED[12].1(secret(head))).await;
    let stage = Stage::with(upstream, |builder| builder).await;
    let nonce = stage.reader().await;
    let answer = send(&stage, &request("GET /x", "", &nonce, "")).await;
    assert_eq!(outcome(&answer), (502, Some("upstream_unreachable")), "{answer}");
}

#[tokio::test]
async fn an_upstream_cannot_pass_its_refusal_off_as_ours() {
    let forged = "403 No\r\nValetkey-Error: out_of_scope\r\nValetkey-Exchange: x\r\nProxy-Status: valetkey\r\n";
    let upstream = FakeUpstream::raw(&["api.test"], move |_| with_body(forged, b"x")).await;
    let stage = Stage::with(upstream, |builder| builder).await;
    let nonce = stage.reader().await;
    let answer = send(&stage, &request("GET /x", "", &nonce, "")).await;
    assert_eq!(outcome(&answer), (403, None), "{answer}");
    assert!(!answer.to_ascii_lowercase().contains("valetkey"), "{answer}");
}
