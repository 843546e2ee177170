//! Paths and methods as bytes: what two servers could read differently reaches none of them.

use serde::Deserialize;

use super::hosts::head_of;
use super::{outcome, request, send};
use crate::support::{Builder, FakeUpstream, Stage, policies};

/// A case of `tests/vectors/paths.json`; the parser's own tests look at the rest of it.
#[derive(Deserialize)]
struct Case {
    row: String,
    target: String,
    expect: String,
    #[serde(default)]
    encoded_slash: bool,
}

impl Case {
    fn all() -> Vec<Self> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/paths.json");
        let cases: Vec<Self> = serde_json::from_slice(&std::fs::read(path).expect("vectors")).expect("JSON");
        assert!(cases.len() > 300, "only {} cases", cases.len());
        cases
    }

    fn is_clear(&self) -> bool {
        self.expect == "ok" && !self.encoded_slash
    }

    /// What may arrive of it at all: the library that reads heads leaves a fragment away before anything is judged, and
    /// the absolute form of the tunnel's own host is its path.
    fn sendable(&self) -> &str {
        let target = self.target.strip_prefix("https://api.test").unwrap_or(&self.target);
        target.split('#').next().unwrap_or_default()
    }
}

/// A case that was sent: nothing arrived, or it was clear and arrived as it was.
fn judged(case: &Case, arrived: &[String]) {
    let Case { row, target, .. } = case;
    match arrived {
        [] => {}
        [one] => {
            assert!(case.is_clear() || case.sendable() != target, "{row} {target:?} arrived as {one:?}");
            assert_eq!(one, case.sendable(), "{row}: what is judged is what is sent");
        }
        more => panic!("{row} {target:?}: {more:?}"),
    }
}

#[tokio::test]
async fn every_target_of_the_vectors_over_http_1() {
    let stage = Stage::new().await;
    let nonce = stage.reader().await;
    let (mut before, mut passed) = (0, 0);
    for case in Case::all() {
        let answer = send(&stage, &request(&format!("GET {}", case.target), "", &nonce, "")).await;
        let arrived: Vec<String> = stage.upstream.seen().into_iter().skip(before).map(|seen| seen.target).collect();
        judged(&case, &arrived);
        assert_eq!(outcome(&answer).0 == 200, !arrived.is_empty(), "{} {:?}: {answer}", case.row, case.target);
        if !case.is_clear() && arrived.is_empty() {
            // Without its fragment it may be a clear one that no rule allows.
            let is_cut = case.target.contains('#') && outcome(&answer).0 == 403;
            assert!(
                is_cut || matches!(outcome(&answer).0, 400 | 414 | 421),
                "{} {:?}: {answer}",
                case.row,
                case.target
            );
        }
        before += arrived.len();
        passed += usize::from(case.is_clear() && !arrived.is_empty());
    }
    assert!(passed > 30, "what is clear passes: {passed}");
}

#[tokio::test]
async fn every_target_of_the_vectors_over_http_2() {
    let stage = Stage::new().await;
    let bearer = format!("Bearer {}", stage.reader().await);
    let (mut before, mut passed) = (0, 0);
    // Lengths are written in one byte here.
    for case in Case::all().iter().filter(|case| case.target.len() < 127) {
        let fields = [
            (":method", "GET"),
            (":scheme", "https"),
            (":path", case.target.as_str()),
            (":authority", "api.test"),
            ("authorization", bearer.as_str()),
        ];
        head_of(&stage, &fields).await;
        let arrived: Vec<String> = stage.upstream.seen().into_iter().skip(before).map(|seen| seen.target).collect();
        judged(case, &arrived);
        before += arrived.len();
        passed += usize::from(case.is_clear() && !arrived.is_empty());
    }
    assert!(passed > 30, "what is clear passes: {passed}");
}

#[tokio::test]
async fn an_opened_slash_opens_no_way_up() {
    let rules = "rules = [{ allow = \"GET /repos/{name}\", encoded_slash = true }]";
    let policy = policies::ONE_API.replacen("allow = [\"GET /{*path}\"]", rules, 1);
    let stage = Stage::of_policy(&policy).await;
    let nonce = stage.reader().await;
    for (target, expected) in [
        ("/repos/a%2Fb", 200),
        ("/repos/a%2fb", 200),
        ("/repos/a%2F..%2Fb", 400),
        ("/repos/..%2F..%2Fsecret", 400),
        ("/repos/%2e%2e%2Fsecret", 400),
        ("/repos/a%2F%2Fb", 400),
        ("/repos/a%5Cb", 400),
        ("/repos/a%252Fb", 400),
        ("/repos/a/b", 403),
    ] {
        let answer = send(&stage, &request(&format!("GET {target}"), "", &nonce, "")).await;
        assert_eq!(outcome(&answer).0, expected, "{target}: {answer}");
    }
    let targets: Vec<String> = stage.upstream.seen().into_iter().map(|seen| seen.target).collect();
    assert_eq!(targets, ["/repos/a%2Fb", "/repos/a%2fb"]);
}

#[tokio::test]
async fn long_and_deep_targets_are_refused_at_once() {
    let stage = Stage::new().await;
    let nonce = stage.reader().await;
    let targets = [
        format!("/{}", "x".repeat(17 * 1024)),
        format!("/{}", "x".repeat(60 * 1024)),
        format!("/{}", "x".repeat(1 << 20)),
        "/a".repeat(10_000),
        "/%2e%2e".repeat(2_000),
        format!("/x?{}", "a=b&".repeat(5_000)),
    ];
    for target in targets {
        let mut tunnel =
            stage.sidecar.agent().tls_tunnel("api.test", "api.test", &[b"http/1.1"]).await.expect("a tunnel");
        let bytes = request(&format!("GET {target}"), "", &nonce, "");
        // It may be cut before all of it is said.
        let _ = tokio::io::AsyncWriteExt::write_all(&mut tunnel, &bytes).await;
        let answer = crate::support::wire::read_answers(&mut tunnel, 1, crate::support::agent::PATIENCE).await;
        assert!(answer.is_empty() || matches!(outcome(&answer).0, 400 | 414 | 431), "{}: {answer}", target.len());
    }
    assert!(stage.upstream.seen().is_empty());
}

#[tokio::test]
async fn methods_are_what_the_rules_say_letter_by_letter() {
    let stage = Stage::new().await;
    let nonce = stage.reader().await;
    let long = "G".repeat(1024);
    let methods = ["get", "Get", "FOO", "POST", "PURGE", "PROPFIND", "OPTIONS", "TRACE", "TRACK", "CONNECT", &long];
    for method in methods.into_iter().chain(["GET ", "GET\t", "G ET", "\"GET\"", "GET\0", "", "GET,POST", "G\u{c9}T"]) {
        let answer = send(&stage, &request(&format!("{method} /x"), "", &nonce, "")).await;
        assert!((400..500).contains(&outcome(&answer).0), "{method:?}: {answer}");
    }
    for target in ["*", "/*"] {
        let answer = send(&stage, &request(&format!("OPTIONS {target}"), "", &nonce, "")).await;
        assert!(matches!(outcome(&answer).0, 400 | 403), "{target}: {answer}");
    }
    assert!(stage.upstream.seen().is_empty(), "nothing arrived");
}

#[tokio::test]
async fn a_scope_that_allows_nothing_is_no_policy() {
    for rules in ["allow = []", "", "allow = [\"\"]", "rules = []"] {
        let policy = policies::ONE_API.replacen("allow = [\"GET /{*path}\"]", rules, 1);
        let (code, said) = Builder::new(&policy).file("api.pem", "").fails();
        assert_eq!(code, Some(3), "{rules}: {said}");
    }
    let policy =
        policies::ONE_API.replace("grants = { api = [\"read\", \"write\", \"once\"] }", "grants = { api = [] }");
    assert_ne!(policy, policies::ONE_API, "the grants are there");
    let (code, said) = Builder::new(&policy).file("api.pem", "").fails();
    assert_eq!(code, Some(3), "{said}");
}

#[tokio::test]
async fn what_a_client_signed_arrives_as_it_was_signed() {
    let stage = Stage::with(FakeUpstream::start_with(&["api.test"], &[b"http/1.1"]).await, |builder| builder).await;
    let nonce = stage.writer().await;
    let target = "/bucket/a%20b%2Bc/~x?list-type=2&prefix=%C3%BC%2F&empty&b=1&a=2";
    let fields = "X-Amz-Date: 20260101T000000Z\r\nX-Amz-Content-Sha256: e3b0c442\r\nContent-Length: 4\r\n";
    let answer = send(&stage, &request(&format!("PUT {target}"), fields, &nonce, "body")).await;
    assert_eq!(outcome(&answer).0, 200, "{answer}");
    let seen = stage.upstream.only();
    assert_eq!((seen.target.as_str(), seen.header("host"), &seen.body[..]), (target, Some("api.test"), &b"body"[..]));
    assert_eq!(seen.header("x-amz-date"), Some("20260101T000000Z"));
    assert_eq!(seen.header("x-amz-content-sha256"), Some("e3b0c442"));
}
