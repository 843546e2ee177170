//! Upstreams that give back what they got, wherever an answer has room for it.

use std::io::Write as _;

use tokio::io::AsyncReadExt;

use super::{outcome, request, send};
use crate::support::agent::{get, with};
use crate::support::{FakeUpstream, Stage, leak};

/// What comes behind `Bearer ` in a request's head.
fn secret(head: &str) -> &str {
    let value = head.lines().find_map(|line| line.split_once(": Bearer ").map(|(_, secret)| secret));
    value.expect("a credential").trim()
}

/// The number in a path `/N`.
fn number(head: &str) -> usize {
    head.split(['/', ' ']).nth(2).and_then(|number| number.parse().ok()).expect("a number")
}

fn whole(head: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

const FIELDS: [&str; 16] = [
    "X-Echo: S",
    "x!weird#name: S",
    "Location: https://evil.test/?key=S",
    "Location: https://user:S@evil.test/",
    "Location: https://evil.test/#S",
    "Location: https://evil.test/S?a=b",
    "Set-Cookie: session=S; Path=/; HttpOnly",
    "WWW-Authenticate: Bearer error=\"invalid_token\", token=\"S\"",
    "Link: <https://evil.test/S>; rel=preload",
    "ETag: \"S\"",
    "Server-Timing: db;desc=\"S\"",
    "Content-Disposition: attachment; filename=\"S\"",
    "Content-Type: text/plain; boundary=S",
    "Refresh: 0; url=https://evil.test/?S",
    "Access-Control-Allow-Origin: S",
    "Warning: 199 - \"S\"",
];
const STATUSES: [&str; 8] = [
    "200 OK",
    "302 Found",
    "400 Bad Request",
    "401 Unauthorized",
    "404 Not Found",
    "429 Too Many Requests",
    "500 Internal Server Error",
    "503 Service Unavailable",
];

#[tokio::test]
async fn no_field_of_any_answer_brings_it_back() {
    let upstream = FakeUpstream::raw_kept(&["api.test"], |head| {
        let (field, status) = (FIELDS[number(head) % FIELDS.len()], STATUSES[number(head) % STATUSES.len()]);
        whole(&format!("{status}\r\n{}", field.replace('S', secret(head))), &format!("you sent:\r\n{head}"))
    });
    let stage = Stage::with(upstream.await, |builder| builder).await;
    let nonce = stage.reader().await;
    for h2 in [false, true] {
        let agent = stage.sidecar.agent();
        let mut tunnel = if h2 { agent.tunnel_h2("api.test").await } else { agent.tunnel("api.test").await };
        for (number, field) in FIELDS.iter().enumerate() {
            let reply = tunnel.send(get("api.test", &format!("/{number}"), &nonce)).await;
            assert_eq!(reply.status.as_str(), &STATUSES[number % STATUSES.len()][..3], "{field}: the answer passes");
            stage.assert_clean(&reply.everything(), field);
            let length = reply.headers["content-length"].to_str().expect("text").parse();
            assert_eq!(length, Ok(reply.body.len()), "{field}: framed as it is");
            assert!(reply.text().to_ascii_lowercase().contains("host: api.test"), "{field}: the rest is there");
        }
    }
    assert_eq!(stage.upstream.connections(), 1, "whoever redirects is not followed");
}

fn apart(text: &str, between: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(between)
}

/// Ways of writing a text, each of which is listed as found.
fn spellings(text: &str) -> Vec<(&'static str, String)> {
    let each = |form: fn(u8) -> String| text.bytes().map(form).collect::<String>();
    let mut all = leak::forms(text);
    all.extend([
        ("HEX", hex::encode_upper(text)),
        ("hex with spaces", apart(text, " ")),
        ("hex with colons", apart(text, ":")),
        ("percent in small letters", each(|byte| format!("%{byte:02x}"))),
        ("JSON escapes in capitals", each(|byte| format!("\\u{byte:04X}"))),
        ("decimal entities", each(|byte| format!("&#{byte};"))),
        ("hexadecimal entities", each(|byte| format!("&#x{byte:x};"))),
        ("\\x escapes", each(|byte| format!("\\x{byte:02x}"))),
    ]);
    all
}

#[tokio::test]
async fn no_spelling_that_is_listed_brings_it_back() {
    let spell = |head: &str| {
        let secret = secret(head);
        let mut all = spellings(secret);
        use base64::Engine;
        for text in [format!("Bearer {secret}"), format!("{secret}:"), format!("x-access-token:{secret}")] {
            all.push(("base64 of a pair", base64::engine::general_purpose::STANDARD.encode(&text)));
            all.push(("base64url of a pair", base64::engine::general_purpose::URL_SAFE.encode(&text)));
        }
        all
    };
    let upstream = FakeUpstream::raw_kept(&["api.test"], move |head| {
        let (_, text) = spell(head).swap_remove(number(head));
        whole(&format!("200 OK\r\nX-Echo: a{text}b"), &format!("before {text} after"))
    });
    let stage = Stage::with(upstream.await, |builder| builder).await;
    let nonce = stage.reader().await;
    let mut tunnel = stage.sidecar.agent().tunnel("api.test").await;
    let spellings = spellings(&stage.secret);
    for number in 0..spellings.len() + 6 {
        let reply = tunnel.send(get("api.test", &format!("/{number}"), &nonce)).await;
        let everything = String::from_utf8_lossy(&reply.everything()).to_ascii_lowercase();
        assert_eq!(reply.status, 200);
        assert!(everything.contains("before ") && everything.contains(" after"), "{number}: {everything}");
        for (form, text) in &spellings {
            assert!(!everything.contains(&text.to_ascii_lowercase()), "{number}, {form}: {everything}");
        }
    }
}

#[tokio::test]
async fn no_cut_hides_it() {
    let upstream = FakeUpstream::speaking_freely(&["api.test"], |first, mut wire| async move {
        let mut head = first;
        while !head.is_empty() {
            let (secret, cut) = (secret(&head).to_owned(), number(&head));
            let (one, two) = secret.split_at(cut);
            let fields = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
            let one = format!("{fields}{:x}\r\n<{one}\r\n", one.len() + 1);
            let two = format!("{:x}\r\n{two}>\r\n0\r\n\r\n", two.len() + 1);
            for piece in [one, two] {
                if tokio::io::AsyncWriteExt::write_all(&mut wire, piece.as_bytes()).await.is_err() {
                    return;
                }
                let _ = tokio::io::AsyncWriteExt::flush(&mut wire).await;
                tokio::time::sleep(std::time::Duration::from_millis(2)).await;
            }
            head = crate::support::upstream::read_head(&mut wire).await;
        }
    });
    let stage = Stage::with(upstream.await, |builder| builder).await;
    let nonce = stage.reader().await;
    for h2 in [false, true] {
        let agent = stage.sidecar.agent();
        let mut tunnel = if h2 { agent.tunnel_h2("api.test").await } else { agent.tunnel("api.test").await };
        for cut in 0..=stage.secret.len() {
            let reply = tunnel.send(get("api.test", &format!("/{cut}"), &nonce)).await;
            assert_eq!(reply.text(), format!("<{}>", "*".repeat(stage.secret.len())), "cut at {cut}, h2 {h2}");
        }
    }
}

#[tokio::test]
async fn codings_that_cannot_be_read_are_withheld() {
    const CODINGS: [&str; 8] =
        ["compress", "dcb", "dcz", "x-foo", "gzip, gzip", "gzip, x-foo", "gzip, br", "identity, zstd"];
    let upstream = FakeUpstream::raw_kept(&["api.test"], |head| {
        whole(&format!("200 OK\r\nContent-Encoding: {}", CODINGS[number(head)]), secret(head))
    });
    let stage = Stage::with(upstream.await, |builder| builder).await;
    let nonce = stage.reader().await;
    for (number, coding) in CODINGS.iter().enumerate() {
        let reply = stage.sidecar.agent().get("api.test", &format!("/{number}"), &nonce).await;
        assert_eq!((reply.status.as_u16(), reply.refusal()), (502, Some("answer_unscrubbable")), "{coding}");
        stage.assert_clean(&reply.everything(), coding);
    }
    let asked: Vec<_> = stage.upstream.seen().iter().map(|seen| seen.headers.get("accept-encoding").cloned()).collect();
    assert_eq!(asked.len(), CODINGS.len(), "none of them is asked for twice");
}

/// What a bomb unpacks to, and what it may take of memory, in KiB.
const BOMB_BYTES: usize = 256 << 20;
const BOMB_GROWTH_KIB_MAX: u64 = 24 * 1024;

#[tokio::test]
async fn a_bomb_is_not_unpacked_into_memory() {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    let piece = vec![0; 1 << 20];
    (0..BOMB_BYTES >> 20).for_each(|_| encoder.write_all(&piece).expect("memory"));
    let bomb = encoder.finish().expect("memory");
    let upstream = FakeUpstream::raw(&["api.test"], move |_| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n", bomb.len());
        [head.as_bytes(), &bomb].concat()
    });
    let stage = Stage::with(upstream.await, |builder| builder).await;
    let nonce = stage.reader().await;
    let before = stage.sidecar.status("VmHWM");
    let mut tunnel = stage.sidecar.agent().tls_tunnel("api.test", "api.test", &[b"http/1.1"]).await.expect("a tunnel");
    let bytes = request("GET /x", "Accept-Encoding: gzip\r\n", &nonce, "");
    tokio::io::AsyncWriteExt::write_all(&mut tunnel, &bytes).await.expect("writable");
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(crate::support::agent::PATIENCE * 3, tunnel.read_to_end(&mut answer)).await;
    let grown = stage.sidecar.status("VmHWM") - before;
    assert!(grown < BOMB_GROWTH_KIB_MAX, "{grown} KiB");
    assert!(answer.len() < 4 << 20 && !answer.ends_with(b"0\r\n\r\n"), "broken off: {} bytes", answer.len());
}

#[tokio::test]
async fn nothing_is_kept_for_whoever_asks_next() {
    let upstream = FakeUpstream::raw_kept(&["api.test"], |_| {
        whole("200 OK\r\nCache-Control: public, max-age=3600\r\nETag: \"1\"\r\nAge: 0", "fresh")
    });
    let stage = Stage::with(upstream.await, |builder| builder).await;
    for (asked, nonce) in [stage.reader().await, stage.reader().await].iter().enumerate() {
        assert_eq!(stage.sidecar.agent().get("api.test", "/same", nonce).await.text(), "fresh");
        assert_eq!(stage.upstream.seen().len(), asked + 1, "asked anew");
    }
}

#[tokio::test]
async fn what_belongs_to_a_connection_is_no_credential_here() {
    let stage = Stage::new().await;
    for value in ["NTLM TlRMTVNTUAABAAAAB4IIogAAAAAAAAAAAAAAAAAAAAA=", "Negotiate YIIabc", "Digest username=\"a\""] {
        let request = with("GET", "api.test", "/x", &[("authorization", value)], "");
        assert_eq!(stage.sidecar.agent().send(request).await.refusal(), Some("foreign_credential"), "{value}");
    }
    assert!(stage.upstream.seen().is_empty(), "so no connection is anybody's");
}

#[tokio::test]
async fn the_credential_is_never_put_into_a_table_of_headers() {
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let upstream = FakeUpstream::played(&["api.test"], b"h2", move |mut stream, _| {
        let tell = tell.clone();
        async move {
            stream.read_exact(&mut [0; 24]).await.expect("a preface");
            loop {
                let mut head = [0; 9];
                if stream.read_exact(&mut head).await.is_err() {
                    return;
                }
                let length = usize::from(u16::from_be_bytes([head[1], head[2]]));
                let mut payload = vec![0; length];
                stream.read_exact(&mut payload).await.expect("its payload");
                if head[3] == 1 {
                    let _ = tell.send(payload);
                    return;
                }
            }
        }
    })
    .await;
    let stage = Stage::with(upstream, |builder| builder).await;
    let nonce = stage.reader().await;
    let agent = stage.sidecar.agent();
    let asking = tokio::spawn(async move { agent.get("api.test", "/x", &nonce).await });
    let fields = tokio::time::timeout(crate::support::agent::PATIENCE, told.recv()).await.expect("in time");
    // `authorization` is number 23 of the static table; 0001 is "never indexed" (RFC 7541, 6.2.3).
    let never = memchr::memmem::find(&fields.expect("a head"), &[0x1f, 23 - 15]);
    assert!(never.is_some(), "a literal that is never indexed");
    asking.await.expect("an answer");
}

#[tokio::test]
async fn a_refusal_of_ours_repeats_nothing_of_what_was_asked() {
    const MARK: &str = "mark-7d1f2c";
    let gone = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let broken = FakeUpstream::raw(&["api.test"], |head| format!("nonsense {head}").into_bytes()).await;
    let stage = Stage::with(broken, |builder| builder.flag("--upstream-head-timeout").flag("1s")).await;
    let unreachable = Stage::with(FakeUpstream::start(&["api.test"]).await, |builder| {
        builder.set_flag("--connect-to", &format!("api.test:443:{gone}"))
    })
    .await;
    let untrusted = Stage::with(FakeUpstream::start(&["wrong.test"]).await, |builder| builder).await;
    let silent = FakeUpstream::speaking_freely(&["api.test"], |_, wire| async move {
        let _wire = wire;
        std::future::pending::<()>().await;
    });
    let silent = Stage::with(silent.await, |builder| builder.flag("--upstream-head-timeout").flag("1s")).await;
    let fields = format!("X-Note: {MARK}\r\nUser-Agent: {MARK}\r\n");
    let long = "x".repeat(20_000);
    for (stage, line, more, expected) in [
        (&stage, "GET /x".to_owned(), "", 502),
        (&stage, "POST /x".to_owned(), "", 403),
        (&stage, format!("GET /{long}"), "", 414),
        (&stage, "GET /a/../b".to_owned(), "", 400),
        (&stage, "GET /x".to_owned(), "Cookie: mark-7d1f2c=1\r\n", 403),
        (&stage, "GET /x".to_owned(), "Content-Length: mark-7d1f2c\r\n", 400),
        (&stage, "GET /x".to_owned(), "mark-7d1f2c\r\n", 400),
        (&unreachable, "GET /x".to_owned(), "", 502),
        (&untrusted, "GET /x".to_owned(), "", 502),
        (&silent, "GET /x".to_owned(), "", 504),
    ] {
        let nonce = stage.reader().await;
        let answer = send(stage, &request(&line, &format!("{fields}{more}"), &nonce, "")).await;
        assert_eq!(outcome(&answer).0, expected, "{line} {more}: {answer}");
        for told in [MARK, &nonce] {
            assert!(!answer.contains(told), "{line} {more}: {answer}");
        }
        stage.assert_silent(&[&nonce]);
    }
}
