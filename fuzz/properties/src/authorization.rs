//! Nonces in requests: found where the grammar of a slot has one, and nothing of them left behind.

use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderValue, Request, header};
use valetkey::model::{Destination, NonceHash};
use valetkey::policy::Policy;
use valetkey::proxy::extract::proxy_nonce;
use valetkey::proxy::{Limits, fuzzing};

const SLOTS: [&str; 6] = [
    "\"bearer\"",
    "\"token\", \"raw\"",
    "\"basic-user\"",
    "\"basic-password\"",
    "\"header:x-api-key\"",
    "\"query:key\"",
];
const NONCE_PREFIX: &str = "an_";
const PLACEHOLDER: (&str, &str) = ("sk_test_", ".end");

/// A nonce is lifted exactly where the slot's grammar has one, by its own hash; what is sent on has neither it nor any
/// other credential; and nothing goes on with an `Authorization` in which there was none.
///
/// # Panics
/// Where that does not hold.
pub fn authorization(data: &[u8]) {
    let Some((&choice, lines)) = data.split_first() else { return };
    let slot = usize::from(choice) % SLOTS.len();
    let (mut headers, mut target) = (HeaderMap::new(), String::from("/v1/x"));
    for line in lines.split(|byte| *byte == b'\n') {
        match line.split_first() {
            Some((b'?', query)) => target = format!("/v1/x?{}", String::from_utf8_lossy(query)),
            Some((b'@', key)) => append(&mut headers, "x-api-key", key),
            Some((b'^', value)) => append(&mut headers, "proxy-authorization", value),
            _ => append(&mut headers, "authorization", line),
        }
    }
    proxy_credentials(&headers, slot);
    let Ok(mut request) = Request::builder().uri(&target).body(()) else { return };
    headers.insert(header::HOST, HeaderValue::from_static("api.test"));
    *request.headers_mut() = headers.clone();
    let Ok(presented) = fuzzing::present(destination(), policy(slot), limits(), request) else { return };
    let expected = nonces(&headers, &target, slot);
    let found = presented.lifted.as_ref().map(|lifted| lifted.hash);
    let hashes: Vec<NonceHash> = expected.iter().map(|nonce| NonceHash::of(nonce.as_bytes())).collect();
    assert_eq!(found.into_iter().collect::<Vec<_>>(), hashes, "exactly what the grammar has is lifted");
    for (name, value) in &presented.head.headers {
        let is_slot = ["authorization", "x-api-key"].contains(&name.as_str());
        assert!(!is_slot || value.is_empty(), "{name} goes on with {value:?}");
        let holds = |nonce: &String| nonce.len() >= 36 && holds(value.as_bytes(), nonce.as_bytes());
        assert!(!presented.strays.is_empty() || !expected.iter().any(holds), "the nonce is left in {name}");
    }
    let is_left = expected.iter().any(|nonce| nonce.len() >= 36 && presented.target.as_str().contains(nonce.as_str()));
    assert!(!is_left || !presented.strays.is_empty(), "the nonce is left in {:?}", presented.target.as_str());
}

/// All nonces in the slots of the request, by the grammar.
fn nonces(headers: &HeaderMap, target: &str, slot: usize) -> Vec<String> {
    let values = |name: &str| headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    let mut found: Vec<String> = match slot {
        4 => values("x-api-key").filter_map(nonce).collect(),
        // Fragments are not sent, and hyper drops them.
        5 => target
            .split('#')
            .next()
            .and_then(|target| target.split_once('?'))
            .into_iter()
            .flat_map(|(_, query)| query.split('&'))
            .filter_map(|pair| pair.split_once('='))
            .filter(|(name, _)| plus_and_escapes(name) == "key")
            .filter_map(|(_, value)| nonce(&plus_and_escapes(value)))
            .collect(),
        _ => Vec::new(),
    };
    for value in values("authorization") {
        let (scheme, rest) = value.split_once(' ').unwrap_or(("", value));
        let nonce = match (slot, scheme.to_ascii_lowercase().as_str()) {
            (0, "bearer") | (1, "token" | "") => nonce(rest),
            (2 | 3, "basic") => pair(rest).and_then(|(user, password)| {
                let (own, other) = if slot == 2 { (user, password) } else { (password, user) };
                nonce(&own).filter(|_| nonce(&other).is_none())
            }),
            _ => None,
        };
        found.extend(nonce);
    }
    found
}

fn plus_and_escapes(value: &str) -> String {
    String::from_utf8_lossy(&crate::reading::decoded(value.replace('+', " ").as_bytes())).into_owned()
}

/// A text that is a nonce, plain or in the placeholder's form.
fn nonce(text: &str) -> Option<String> {
    let inner = text.strip_prefix(PLACEHOLDER.0).and_then(|rest| rest.strip_suffix(PLACEHOLDER.1));
    let whole = inner.filter(|inner| inner.starts_with(NONCE_PREFIX)).unwrap_or(text);
    whole.starts_with(NONCE_PREFIX).then(|| whole.to_owned())
}

fn pair(blob: &str) -> Option<(String, String)> {
    let text = String::from_utf8(STANDARD.decode(blob.trim()).ok()?).ok()?;
    text.split_once(':').map(|(user, password)| (user.to_owned(), password.to_owned()))
}

/// A whole nonce as the proxy's credentials is found by its hash; anything that holds one is not passed over.
fn proxy_credentials(headers: &HeaderMap, slot: usize) {
    let mut values = headers.get_all(header::PROXY_AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return };
    let found = proxy_nonce(headers, policy(slot)).expect("it is there once");
    let Ok(text) = value.to_str() else { return };
    if valetkey::model::nonce::find_all(text.as_bytes()).next().is_some() {
        assert!(found.is_some(), "{text:?} holds a nonce");
    }
    let expected = match text.split_once(' ') {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("bearer") => nonce(rest.trim()),
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("basic") => match pair(rest) {
            Some((user, password)) => match (nonce(&user), nonce(&password)) {
                (Some(one), None) | (None, Some(one)) => Some(one),
                (Some(one), Some(other)) if one == other => Some(one),
                _ => None,
            },
            None => None,
        },
        _ => None,
    };
    if let Some(expected) = expected {
        assert_eq!(found, Some(NonceHash::of(expected.as_bytes())), "{text:?}");
    }
}

fn append(headers: &mut HeaderMap, name: &'static str, value: &[u8]) {
    // As hyper takes values off the wire.
    if let Ok(value) = HeaderValue::from_bytes(value.trim_ascii()) {
        headers.append(name, value);
    }
}

fn holds(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

fn policy(slot: usize) -> &'static Policy {
    static POLICIES: OnceLock<Vec<Policy>> = OnceLock::new();
    let read = |slots: &&str| {
        crate::policy::read(&format!(
            "version = 1\n[credentials.c]\nsource = \"env\"\nname = \"KEY\"\nhosts = [\"api.test\"]\n[services.s]\n\
             hosts = [\"api.test\"]\ncredential = \"c\"\nslots = [{slots}]\nplaceholder = \"sk_test_{{nonce}}.end\"\n\
             [[services.s.scopes]]\nname = \"all\"\nrisk = \"low\"\nallow = [\"GET /{{*rest}}\"]\n"
        ))
    };
    &POLICIES.get_or_init(|| SLOTS.iter().map(read).collect())[slot]
}

pub(crate) fn destination() -> &'static Destination {
    static DESTINATION: OnceLock<Destination> = OnceLock::new();
    DESTINATION.get_or_init(|| Destination::parse("api.test:443", None).expect("a destination"))
}

pub(crate) fn limits() -> &'static Limits {
    static LIMITS: OnceLock<Limits> = OnceLock::new();
    LIMITS.get_or_init(Limits::default)
}
