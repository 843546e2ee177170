//! Paths: what is judged is what is sent, and no server reads something else in it.

use std::sync::OnceLock;

use valetkey::model::{Host, ScopeName, ServiceName};
use valetkey::policy::{Policy, RequestFacts, Target, Verdict};

use crate::reading::{Reader, segments_of};

/// Allows and denies of every kind: literals, captures with and without a beginning, rests, trailing slashes.
const POLICY: &str = r#"
version = 1
[credentials.c]
source = "env"
name = "KEY"
hosts = ["api.test"]
[services.s]
hosts = ["api.test"]
credential = "c"
slots = ["bearer"]
deny = ["* /v1/keys", "* /v1/public/admin/{*rest}", "* /v1/{id}/secret", "* /v1/items/x-{id}"]
[[services.s.scopes]]
name = "all"
risk = "low"
allow = ["GET /v1/public/{*rest}", "GET /v1/items/{id}", "GET /v1/{id}", "GET /v1/{id}/{part}", "GET /v1/slash/"]
"#;

/// A target is kept byte for byte, its canonical spelling is a fixed point, every spelling of one path is decided alike,
/// and whatever a lenient server makes of an allowed path is allowed too.
///
/// # Panics
/// Where that does not hold.
pub fn path(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(target) = Target::parse(text) else { return };
    assert_eq!(target.as_str(), text, "a target is sent as it came");
    let query = target.query().map_or(String::new(), |query| format!("?{query}"));
    assert_eq!(format!("{}{query}", target.path()), text, "path and query are the whole");
    let canonical = canonical(&target);
    let again = Target::parse(&canonical).unwrap_or_else(|why| panic!("{canonical:?} of {text:?}: {why:?}"));
    assert!(again.segments().eq(target.segments()), "{text:?} and {canonical:?} are one path");
    assert_eq!(again.has_trailing_slash(), target.has_trailing_slash(), "{text:?} and {canonical:?} end alike");
    assert_eq!(self::canonical(&again), canonical, "a canonical spelling is its own");
    assert_eq!(is_allowed(&again), is_allowed(&target), "{text:?} and {canonical:?} are decided alike");
    if !target.has_encoded_slash() {
        let own: Vec<String> = target.segments().map(str::to_owned).collect();
        for reader in Reader::ALL {
            judge_reading(&target, &own, reader);
        }
    }
}

/// What `reader` takes the path for.
fn judge_reading(target: &Target, own: &[String], reader: Reader) {
    let read = segments_of(target.path(), reader);
    assert!(read.len() <= own.len(), "{target} is longer to {reader:?}: {read:?}", target = target.as_str());
    if !reader.cuts() {
        assert_eq!(read.len(), own.len(), "{:?} is {read:?} to {reader:?}", target.as_str());
    }
    if !is_allowed(target) {
        return;
    }
    // A path that was cut in the middle is another one, which the rules need not allow; denied it must not be.
    let text = format!("/{}", read.iter().map(|segment| spelled(segment)).collect::<Vec<_>>().join("/"));
    let Ok(read) = Target::parse(&text) else { return };
    assert!(!is_denied(&read), "{:?} is allowed, and to {reader:?} it is the denied {text:?}", target.as_str());
}

/// The one spelling of a path: unreserved characters as they are, all else in escapes.
fn canonical(target: &Target) -> String {
    let path: String = target.segments().map(|segment| format!("/{}", spelled(segment))).collect();
    if target.has_trailing_slash() || path.is_empty() { path + "/" } else { path }
}

fn spelled(segment: &str) -> String {
    let escaped = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    segment.bytes().map(escaped).collect()
}

fn is_allowed(target: &Target) -> bool {
    matches!(verdict(target), Verdict::Allow { .. })
}

fn is_denied(target: &Target) -> bool {
    let host = Host::parse("api.test").expect("a host");
    let facts = RequestFacts { method: "GET", websocket: false, host: &host, target };
    policy().denying(&service(), &scopes(), &facts).is_some()
}

fn verdict(target: &Target) -> Verdict<'static> {
    let host = Host::parse("api.test").expect("a host");
    let facts = RequestFacts { method: "GET", websocket: false, host: &host, target };
    policy().decide(&service(), &scopes(), &scopes(), &facts)
}

fn service() -> ServiceName {
    ServiceName::parse("s").expect("a name")
}

fn scopes() -> [ScopeName; 1] {
    [ScopeName::parse("all").expect("a name")]
}

fn policy() -> &'static Policy {
    static POLICY_READ: OnceLock<Policy> = OnceLock::new();
    POLICY_READ.get_or_init(|| crate::policy::read(POLICY))
}
