//! The house rules of `docs/ARCHITECTURE.md`, held mechanically. Each rule is also shown to find a planted breach.

mod rules;
mod source;

use rules::Row;
use source::Source;

/// Words that everybody may use.
macro_rules! with_words {
    ($($module:literal),*) => { &["model", "metrics", "clock", $($module),*] };
}

/// Who may use whom. A module that is not here may not be there.
const TABLE: &[Row] = &[
    // Words: no I/O, no clock, no async.
    Row {
        module: "model",
        may_use: &[],
        must_not_know: &["tokio", "hyper", "rustls", "toml", "std::env", "std::fs", "Instant::now", "Timestamp::now"],
    },
    Row { module: "json", may_use: &[], must_not_know: &["tokio", "hyper", "rustls", "toml", "std::env", "std::fs"] },
    Row { module: "clock", may_use: &["model"], must_not_know: &["hyper", "rustls", "toml"] },
    Row { module: "metrics", may_use: &["model"], must_not_know: &["tokio", "hyper", "rustls", "toml"] },
    // Decisions and owned state.
    Row { module: "audit", may_use: with_words!(), must_not_know: &["hyper", "toml", "std::env"] },
    // Read by who verifies upstreams and by who publishes.
    Row { module: "roots", may_use: &[], must_not_know: &["tokio", "hyper", "toml"] },
    Row { module: "authority", may_use: with_words!("roots"), must_not_know: &["hyper", "toml", "std::env"] },
    Row { module: "lease", may_use: with_words!(), must_not_know: &["hyper", "toml", "std::env"] },
    Row {
        module: "policy",
        may_use: &["model", "metrics"],
        must_not_know: &["tokio", "hyper", "rustls", "toml", "std::env", "std::fs", "Instant::now", "Timestamp::now"],
    },
    // The one thing that the two planes know of each other.
    Row {
        module: "door",
        may_use: with_words!("lease"),
        must_not_know: &["tokio", "hyper", "rustls", "toml", "std::env", "Minter", "Lookup"],
    },
    // The outside world.
    Row { module: "net", may_use: with_words!("roots"), must_not_know: &["hyper", "toml", "std::env"] },
    Row { module: "credential", may_use: with_words!("net"), must_not_know: &["toml"] },
    Row { module: "identity", may_use: with_words!("json", "net"), must_not_know: &["toml", "std::env"] },
    // Two planes, which never know each other.
    Row {
        module: "proxy",
        may_use: with_words!("audit", "authority", "lease", "door", "policy", "net", "credential", "identity"),
        must_not_know: &["toml", "std::env", "std::fs", "Minter"],
    },
    Row {
        module: "control",
        may_use: with_words!("audit", "lease", "door", "policy", "identity", "json", "net"),
        must_not_know: &["toml", "std::env", "Lookup"],
    },
    // Assembly.
    Row {
        module: "config",
        may_use: with_words!(
            "audit",
            "authority",
            "lease",
            "door",
            "policy",
            "net",
            "credential",
            "identity",
            "proxy",
            "control"
        ),
        must_not_know: &["tokio", "hyper"],
    },
    Row { module: "process", may_use: &[], must_not_know: &["hyper", "toml"] },
    Row { module: "telemetry", may_use: &[], must_not_know: &["toml"] },
    Row {
        module: "cli",
        may_use: with_words!(
            "audit",
            "authority",
            "lease",
            "door",
            "policy",
            "net",
            "credential",
            "identity",
            "proxy",
            "control",
            "config",
            "process",
            "roots",
            "telemetry"
        ),
        must_not_know: &["toml"],
    },
];

/// Longest file, its tests not counted.
const FILE_LINES_MAX: usize = 450;
/// Longest `main.rs`.
const MAIN_LINES_MAX: usize = 60;
/// Longest file of these tests.
const TEST_FILE_LINES_MAX: usize = 400;
/// What makes an answer out of nothing. Upstream's answers are passed on by `Response::from_parts` and `map`.
const ANSWER_MAKERS: [&str; 5] =
    ["status_mut(", "Response::builder(", "Response::new(", "StatusCode::from_u16", "StatusCode::try_from"];
/// What may panic on what comes from outside, or was not meant to stay.
const UNFINISHED: [&str; 7] =
    [".unwrap()", ".unwrap_err()", "todo!(", "unimplemented!(", "dbg!(", "panic!(", "unreachable!("];

#[expect(clippy::needless_pass_by_value, reason = "what a rule found is asserted here and nowhere else")]
fn holds(rule: &str, breaches: Vec<String>) {
    assert!(breaches.is_empty(), "{rule}:\n  {}", breaches.join("\n  "));
}

#[test]
fn modules_use_only_what_the_table_says() {
    let sources = source::all();
    let root = sources.iter().find(|source| source.path == "lib.rs").expect("src/lib.rs");
    holds("the table and the modules are the same", rules::rows_match_modules(TABLE, root));
    holds("imports follow the table", rules::imports(TABLE, &sources));
    holds("no path goes beyond its parent", rules::paths_beyond_the_parent(&source::with_tests()));
}

#[test]
fn only_inject_reads_a_credential() {
    let breaches =
        rules::nowhere(&source::all(), &[".expose()", "Credential::expose"], |path| path == "proxy/inject.rs");
    let of_keys = rules::nowhere(&source::all(), &[".certified()"], |path| path == "proxy/inject/shown.rs");
    holds("a private key goes to a connection in proxy/inject/shown.rs alone", of_keys);
    holds("a credential is exposed in proxy/inject.rs alone", breaches);
}

#[test]
fn only_refuse_turns_an_error_into_http() {
    let mut sources = source::all();
    sources.retain(|source| source.module() == "proxy");
    // The 200 to a CONNECT is the one answer that is neither a refusal nor an upstream's.
    let connect = sources.iter_mut().find(|source| source.path == "proxy/connect.rs").expect("proxy/connect.rs");
    assert_eq!(connect.code.matches("Response::new(Body::empty())").count(), 1, "one answer to CONNECT");
    connect.code = connect.code.replace("Response::new(Body::empty())", "");
    // An upstream's 101 is a 200 to an agent that speaks HTTP/2 (RFC 8441, 5).
    let path = "proxy/websocket/handshake.rs";
    let handshake = sources.iter_mut().find(|source| source.path == path).expect("proxy/websocket/handshake.rs");
    assert_eq!(handshake.code.matches("*response.status_mut() = StatusCode::OK").count(), 1, "one translation");
    handshake.code = handshake.code.replace("*response.status_mut() = StatusCode::OK", "");
    let is_refuse = |path: &str| path.starts_with("proxy/refuse.") || path.starts_with("proxy/refuse/");
    holds("answers of ours are made in proxy/refuse alone", rules::nowhere(&sources, &ANSWER_MAKERS, is_refuse));
}

#[test]
fn files_are_short_and_finished() {
    let sources = source::all();
    holds("files are short", rules::longer_than(&sources, FILE_LINES_MAX));
    let main: Vec<Source> = sources.iter().filter(|source| source.path == "main.rs").cloned().collect();
    assert_eq!(main.len(), 1);
    holds("main.rs hands over", rules::longer_than(&main, MAIN_LINES_MAX));
    holds("nothing is left open", rules::nowhere(&sources, &UNFINISHED, |_| false));
    let tests = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it");
    holds("tests can be read", rules::longer_than(&source::below(&tests), TEST_FILE_LINES_MAX));
}

#[test]
fn every_tcp_socket_says_no_delay() {
    holds("TCP_NODELAY is set", rules::sockets_with_nagle(&source::all()));
}

/// A rule that finds nothing is worth nothing: each is shown a breach.
#[test]
fn each_rule_finds_a_planted_breach() {
    let imports = |path: &str, text: &str| rules::imports(TABLE, &[Source::of(path, text)]);
    for (path, text) in [
        ("policy/mint.rs", "use crate::lease::Lease;"),
        ("policy/mint.rs", "use crate::{model::Grant, lease::{Lease, Store}};"),
        ("control/mint.rs", "fn a() { crate::proxy::run() }"),
        ("proxy/grant.rs", "use crate::control::Parts;"),
        ("proxy/grant.rs", "use crate::lease::Minter;"),
        ("model/time.rs", "fn now() { std::time::Instant::now() }"),
        ("audit/sink.rs", "use hyper::Request;"),
        ("telemetry.rs", "use crate::model::Risk;"),
        ("stray.rs", "use crate::model::Risk;"),
    ] {
        assert_eq!(imports(path, text).len(), 1, "{path}: {text}");
    }
    for (path, text) in [
        ("proxy/grant.rs", "// use crate::control::Parts;"),
        ("proxy/grant.rs", "#[cfg(test)]\nmod tests {\n use crate::control::Parts;\n}"),
        ("proxy/grant.rs", "use crate::{model, lease::{Lease, Lookup}};"),
        ("control/caller.rs", "use crate::policy::MinterRule;"),
    ] {
        assert_eq!(imports(path, text), Vec::<String>::new(), "{path}: {text}");
    }
    let root = Source::of("lib.rs", "pub mod model;\npub mod surprise;");
    assert!(rules::rows_match_modules(TABLE, &root).contains(&"surprise is not in the table".to_owned()));
    let one = |path: &str, text: &str| vec![Source::of(path, text)];
    assert_eq!(rules::paths_beyond_the_parent(&one("a/b.rs", "use super::super::c;")).len(), 1);
    assert_eq!(rules::paths_beyond_the_parent(&one("a.rs", "use super::c;")).len(), 1);
    assert_eq!(rules::longer_than(&one("a.rs", &"\n".repeat(11)), 10).len(), 1);
    assert_eq!(rules::nowhere(&one("a.rs", "b.unwrap()"), &UNFINISHED, |_| false).len(), 1);
    assert_eq!(rules::nowhere(&one("a.rs", "b.unwrap()"), &UNFINISHED, |path| path == "a.rs").len(), 0);
    assert_eq!(rules::sockets_with_nagle(&one("a.rs", "TcpStream::connect(b).await")).len(), 1);
    assert_eq!(rules::sockets_with_nagle(&one("a.rs", "TcpListener; l.accept().await")).len(), 1);
}
