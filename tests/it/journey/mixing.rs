//! Each leg chooses its protocol by itself, and what is said on one is said on the other.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Version};
use tokio::io::AsyncWriteExt;

use crate::support::agent::{PATIENCE, Reply, breaks, get, with};
use crate::support::sidecar::eventually;
use crate::support::streams;
use crate::support::wire::{answers, read_answers};
use crate::support::{FakeUpstream, Stage, TestSidecar, canary, policies};

const LEGS: [(bool, bool); 4] = [(false, false), (false, true), (true, false), (true, true)];

/// A sidecar before an upstream that speaks one protocol.
async fn stage(h2: bool) -> Stage {
    let alpn: &[u8] = if h2 { b"h2" } else { b"http/1.1" };
    Stage::with(FakeUpstream::start_with(&["api.test"], &[alpn]).await, |builder| builder).await
}

async fn send(stage: &Stage, h2: bool, request: Request<http_body_util::Full<Bytes>>) -> Reply {
    let agent = stage.sidecar.agent();
    if h2 { agent.send_h2(request).await } else { agent.send(request).await }
}

#[tokio::test]
async fn bodies_arrive_with_and_without_a_length_and_with_what_follows_them() {
    for (h2, h2_upstream) in LEGS {
        let stage = stage(h2_upstream).await;
        let nonce = stage.writer().await;
        let bearer = format!("Bearer {nonce}");
        let reply = send(&stage, h2, with("POST", "api.test", "/x", &[("authorization", &bearer)], "counted")).await;
        assert_eq!(reply.status, 200);
        if h2 {
            let mut sender = stage.sidecar.agent().frames("api.test").await;
            let request = Request::put("https://api.test/y").header("authorization", &bearer).header("te", "trailers");
            let (response, mut body) =
                sender.send_request(request.body(()).expect("a request"), false).expect("a stream");
            assert!(streams::send(&mut body, Bytes::from_static(b"unc")).await);
            assert!(streams::send(&mut body, Bytes::from_static(b"ounted")).await);
            let trailers = [("x-sum".parse().expect("a name"), "9".parse().expect("a value"))];
            body.send_trailers(trailers.into_iter().collect()).expect("an open stream");
            let response = tokio::time::timeout(PATIENCE, response).await.expect("in time").expect("an answer");
            assert_eq!(response.status(), 200);
        } else {
            let bytes = format!(
                "PUT /y HTTP/1.1\r\nHost: api.test\r\nAuthorization: {bearer}\r\nTransfer-Encoding: chunked\r\n\
                 Trailer: X-Sum\r\nTE: trailers\r\nConnection: TE\r\n\r\n3\r\nunc\r\n6\r\nounted\r\n0\r\nX-Sum: 9\r\n\r\n"
            );
            let answer = stage.sidecar.agent().raw_inside("api.test", bytes.as_bytes()).await;
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        }
        let seen = stage.upstream.seen();
        let version = if h2_upstream { Version::HTTP_2 } else { Version::HTTP_11 };
        assert_eq!(
            (seen[0].version, &seen[0].body[..], seen[0].header("content-length")),
            (version, &b"counted"[..], Some("7"))
        );
        assert_eq!(
            (seen[1].version, &seen[1].body[..], seen[1].header("content-length")),
            (version, &b"uncounted"[..], None)
        );
        if h2_upstream {
            let trailers = seen[1].trailers.as_ref().expect("trailers");
            assert_eq!(trailers["x-sum"], "9", "h2 agent {h2}");
        }
        for seen in seen {
            for name in ["connection", "keep-alive", "proxy-connection", "upgrade"] {
                assert_eq!(seen.header(name), None, "{name}: h2 {h2} {h2_upstream}");
            }
            assert!(seen.header("host").is_none_or(|host| host == "api.test"));
        }
    }
}

#[tokio::test]
async fn answers_without_a_body_have_none_and_trailers_come_through() {
    for (h2, h2_upstream) in LEGS {
        let stage = stage(h2_upstream).await;
        let bearer = format!("Bearer {}", stage.reader().await);
        let ask = |method: &str, path: &str| {
            with(method, "api.test", path, &[("authorization", &bearer), ("te", "trailers")], "")
        };
        for (method, path, status) in
            [("HEAD", "/echo", 200), ("GET", "/204", 204), ("GET", "/304", 304), ("GET", "/205", 205)]
        {
            let reply = send(&stage, h2, ask(method, path)).await;
            assert_eq!((reply.status.as_u16(), reply.body.len()), (status, 0), "{path}: h2 {h2} {h2_upstream}");
            assert!(status != 204 || !reply.headers.contains_key("content-length"), "{path}");
            assert!(!reply.headers.contains_key("transfer-encoding"), "{path}");
        }
        let reply = send(&stage, h2, ask("GET", "/trailers")).await;
        assert_eq!(reply.text(), "body");
        if h2 {
            let trailers = reply.trailers.expect("trailers");
            assert_eq!(trailers["x-plain"], "kept", "h2 upstream {h2_upstream}");
            assert_ne!(trailers["x-checksum"], stage.secret.as_str());
        }
        let reply = send(&stage, h2, ask("GET", "/echo")).await;
        assert!(reply.headers.contains_key("content-length"), "h2 {h2} {h2_upstream}: its length was known");
    }
}

#[tokio::test]
async fn trailers_come_through_on_http1_where_they_were_announced() {
    for h2_upstream in [false, true] {
        let stage = stage(h2_upstream).await;
        let nonce = stage.reader().await;
        let mut stream = stage.sidecar.agent().tls_tunnel("api.test", "api.test", &[b"http/1.1"]).await.expect("TLS");
        let bytes = format!(
            "GET /trailers HTTP/1.1\r\nHost: api.test\r\nAuthorization: Bearer {nonce}\r\nTE: trailers\r\nConnection: TE\r\n\r\n"
        );
        stream.write_all(bytes.as_bytes()).await.expect("writable");
        let text = read_answers(&mut stream, 1, PATIENCE).await;
        assert!(text.contains("x-plain: kept\r\n"), "h2 upstream {h2_upstream}: {text}");
        stage.assert_clean(text.as_bytes(), "its trailers");
    }
}

/// A connection over HTTP/2 that is made while a body flows over HTTP/1 has nothing to do with that body.
#[tokio::test]
async fn an_upload_over_http1_ends_no_connection_over_http2() {
    let api = FakeUpstream::start_with(&["api.test"], &[b"http/1.1"]).await;
    let other = FakeUpstream::start_with(&["other.test"], &[b"h2"]).await;
    let sidecar = TestSidecar::with_policy(&policies::TWO_APIS.replacen("GET /", "POST /", 1))
        .upstream(&["api.test"], "api", &api)
        .upstream(&["other.test"], "other", &other)
        .environment("API_KEY", &canary())
        .environment("OTHER_KEY", &canary())
        .flag("--threads")
        .flag("1")
        .flag("--idle-timeout")
        .flag("1s")
        .start()
        .await;
    let writer = sidecar.orchestrator().mint("worker", "api", "read").await.nonce;
    let reader = sidecar.orchestrator().mint("worker", "other", "read").await.nonce;
    let mut upload = sidecar.agent().tls_tunnel("api.test", "api.test", &[b"http/1.1"]).await.expect("TLS");
    let begun = format!(
        "POST /x HTTP/1.1\r\nHost: api.test\r\nAuthorization: Bearer {writer}\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n"
    );
    upload.write_all(begun.as_bytes()).await.expect("writable");
    eventually("the upload to begin", || (!api.seen().is_empty()).then_some(())).await;
    let events = sidecar.agent().tunnel("other.test").await.start(get("other.test", "/endless", &reader)).await;
    upload.write_all(b"0\r\n\r\n").await.expect("writable");
    assert!(read_answers(&mut upload, 1, PATIENCE).await.starts_with("HTTP/1.1 200"));
    let ending = tokio::time::timeout(Duration::from_secs(3), breaks(events)).await;
    assert!(ending.is_err(), "events still come");
}

#[tokio::test]
async fn what_is_said_of_a_connection_stays_on_it() {
    let answer = b"HTTP/1.1 200 Fine Indeed\r\nConnection: keep-alive, x-hop\r\nKeep-Alive: timeout=5\r\n\
                   Proxy-Connection: keep-alive\r\nX-Hop: 1\r\nUpgrade: h2c\r\nServer: theirs\r\nVary: Accept\r\n\
                   Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nX-Unknown: kept\r\nAlt-Svc: h3=\":443\"\r\n\
                   X-Unknown: twice\r\nContent-Length: 4\r\n\r\nbody";
    let stage = Stage::with(FakeUpstream::raw(&["api.test"], |_| answer.to_vec()).await, |builder| builder).await;
    let nonce = stage.reader().await;
    for h2 in [false, true] {
        let request = crate::support::agent::get("api.test", "/x", &nonce);
        let reply = send(&stage, h2, request).await;
        for name in ["connection", "keep-alive", "proxy-connection", "upgrade", "x-hop", "alt-svc"] {
            assert!(!reply.headers.contains_key(name), "{name}: h2 {h2} {:?}", reply.headers);
        }
        let value = |name: &str| reply.headers[name].to_str().expect("text").to_owned();
        assert_eq!(
            [value("server"), value("vary"), value("date"), value("content-length")],
            ["theirs", "Accept", "Sun, 06 Nov 1994 08:49:37 GMT", "4"]
        );
        let unknown: Vec<_> = reply.headers.get_all("x-unknown").iter().collect();
        assert_eq!(unknown, ["kept", "twice"]);
        assert_eq!(reply.reason.as_deref(), (!h2).then_some("Fine Indeed"));
    }
}

#[tokio::test]
async fn cookies_in_crumbs_are_refused_as_whole_ones_are() {
    for h2_upstream in [false, true] {
        let stage = stage(h2_upstream).await;
        let bearer = format!("Bearer {}", stage.reader().await);
        let fields = [("authorization", bearer.as_str()), ("cookie", "a=b"), ("cookie", "c=d")];
        let reply = send(&stage, true, with("GET", "api.test", "/x", &fields, "")).await;
        assert_eq!(reply.refusal(), Some("foreign_credential"));
        assert!(stage.upstream.seen().is_empty());
    }
}

#[tokio::test]
async fn an_http1_head_is_passed_on_in_its_case_and_order() {
    let upstream = FakeUpstream::raw(&["api.test"], |head| {
        format!("HTTP/1.1 200 OK\r\nX-B: 1\r\nx-A: 2\r\nX-c: 3\r\nContent-Length: {}\r\n\r\n{head}", head.len())
            .into_bytes()
    })
    .await;
    let stage = Stage::with(upstream, |builder| builder).await;
    let nonce = stage.reader().await;
    let sent =
        "x-Zed: 1\r\nACCEPT: */*\r\nX-alpha: 2\r\nUser-Agent: me/1\r\nx-list: a\r\nX-Between: b\r\nX-LIST: c\r\n";
    let bytes = format!("GET /x HTTP/1.1\r\nHost: api.test\r\n{sent}Authorization: Bearer {nonce}\r\n\r\n");
    let text = stage.sidecar.agent().raw_inside("api.test", bytes.as_bytes()).await;
    let answer = answers(text.as_bytes(), true).remove(0);
    assert!(answer.head.contains("X-B: 1\r\nx-A: 2\r\nX-c: 3\r\n"), "{}", answer.head);
    let expected =
        "x-Zed: 1\r\nACCEPT: */*\r\nX-alpha: 2\r\nUser-Agent: me/1\r\nx-list: a\r\nX-LIST: c\r\nX-Between: b\r\n";
    assert!(answer.text().contains(expected), "{}", answer.text());
}
