//! Bodies of calls, parsed once into types that hold no bad value; every mistake is found, not only the first.

mod delegation;
mod many;
mod reader;

use std::collections::BTreeMap;
use std::time::Duration;

use super::refusal::Refusal;
use super::types::{
    GRANTS_MAX, INSTANCE_BYTES_MAX, LABEL_NAME_BYTES_MAX, LABEL_VALUE_BYTES_MAX, LABELS_MAX, ON_BEHALF_OF_BYTES_MAX,
    REASON_BYTES_MAX, SCOPES_MAX,
};
use crate::json::Json;
use crate::model::name::NameError;
use crate::model::rate::RATE_COUNT_MAX;
use crate::model::{AgentName, Grant, NonceHash, Rate, ScopeName, ServiceName, TaskName, is_unseen};
pub(super) use delegation::{DelegationAsked, delegation, label_pointer};
pub(super) use many::{
    ManyAsked, OfWhom, RiskAsked, Selector, completion, explanation, leaks, revocation, risk, task_in_path,
};
use reader::{Members, Reader};

/// Fields of a mint that this build enforces or records.
const MINT_FIELDS: &[&str] = &[
    "agent",
    "task",
    "canary",
    "service",
    "scope",
    "grants",
    "ttl",
    "max_uses",
    "rate",
    "instance",
    "on_behalf_of",
    "reason",
    "labels",
];
/// Longest TTL that can be asked for, in seconds; ceilings cap it further.
const TTL_SECONDS_MAX: u64 = u32::MAX as u64;

/// A mint, as asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MintAsked {
    pub(super) agent: AgentName,
    pub(super) task: TaskName,
    /// None for a canary, and for nothing else.
    pub(super) grants: Vec<Grant>,
    pub(super) is_canary: bool,
    pub(super) ttl: Option<Duration>,
    pub(super) max_uses: Option<u32>,
    pub(super) rate: Option<Rate>,
    pub(super) instance: Option<String>,
    pub(super) on_behalf_of: Option<String>,
    pub(super) reason: Option<String>,
    pub(super) labels: BTreeMap<String, String>,
}

/// Parses the body of a mint.
pub(super) fn mint(body: &Json) -> Result<MintAsked, Refusal> {
    let mut reader = Reader::default();
    let asked = reader.object(body, "", MINT_FIELDS).and_then(|members| {
        // Each line reads its field whatever the others hold, so that all mistakes are found.
        let agent = reader.required(&members, "agent", name::<AgentName>);
        let task = reader.required(&members, "task", task_name);
        let is_canary = reader.optional(&members, "canary", boolean).unwrap_or(false);
        let grants = if is_canary { no_grants(&mut reader, &members) } else { grants(&mut reader, &members) };
        let ttl = reader.optional(&members, "ttl", ttl);
        let max_uses = reader.optional(&members, "max_uses", count);
        let rate = reader.optional(&members, "rate", rate);
        let instance = reader.optional(&members, "instance", text::<INSTANCE_BYTES_MAX>);
        let on_behalf_of = reader.optional(&members, "on_behalf_of", text::<ON_BEHALF_OF_BYTES_MAX>);
        let reason = reader.optional(&members, "reason", text::<REASON_BYTES_MAX>);
        let labels = labels(&mut reader, &members);
        Some(MintAsked {
            agent: agent?,
            task: task?,
            grants: grants?,
            is_canary,
            ttl,
            max_uses,
            rate,
            instance,
            on_behalf_of,
            reason,
            labels,
        })
    });
    reader.finish(asked)
}

/// Parses the body of a renewal, which may be missing.
pub(super) fn renewal(body: &Json) -> Result<Option<Duration>, Refusal> {
    if *body == Json::Null {
        return Ok(None);
    }
    let mut reader = Reader::default();
    let members = reader.object(body, "", &["ttl"]);
    let asked = members.map(|members| reader.optional(&members, "ttl", ttl));
    reader.finish(asked)
}

/// Parses the body of an introspection: the hash of what was presented, whatever that is.
pub(super) fn introspection(body: &Json) -> Result<NonceHash, Refusal> {
    let hash = |json: &Json| string(json).map(|text| NonceHash::of(text.as_bytes()));
    let mut reader = Reader::default();
    let found = reader.object(body, "", &["nonce", "token"]).and_then(|members| {
        let nonce = reader.optional(&members, "nonce", hash);
        let token = reader.optional(&members, "token", hash);
        if members.has("nonce") == members.has("token") {
            reader.mistake("", "must hold one of `nonce` and `token`");
        }
        nonce.or(token)
    });
    reader.finish(found)
}

/// A canary opens nothing: whatever would say what, or how often, was meant for another nonce.
fn no_grants(reader: &mut Reader, members: &Members<'_>) -> Option<Vec<Grant>> {
    let named: Vec<_> =
        ["service", "scope", "grants", "max_uses", "rate"].map(|name| members.find(name)).into_iter().collect();
    for (pointer, _) in named.iter().flatten() {
        reader.mistake(pointer, "does not go with `canary`, which opens nothing");
    }
    named.iter().all(Option::is_none).then(Vec::new)
}

/// Either `grants`, or `service` with `scope`.
fn grants(reader: &mut Reader, members: &Members<'_>) -> Option<Vec<Grant>> {
    let is_short = members.has("service") || members.has("scope");
    if members.has("grants") == is_short {
        reader.mistake("", "must hold either `service` and `scope`, or `grants`");
        return None;
    }
    if is_short {
        let service = reader.required(members, "service", name::<ServiceName>);
        let scopes = reader.member(members, "scope").and_then(|(pointer, json)| scopes(reader, &pointer, json, true));
        return Some(vec![Grant { service: service?, scopes: scopes? }]);
    }
    let (pointer, json) = reader.member(members, "grants")?;
    let items = reader.array(json, &pointer, GRANTS_MAX)?;
    let grants: Vec<_> =
        items.iter().enumerate().map(|(at, item)| grant(reader, &format!("{pointer}/{at}"), item)).collect();
    for (at, grant) in grants.iter().enumerate() {
        let is_same = |other: &Option<Grant>| matches!((other, grant), (Some(a), Some(b)) if a.service == b.service);
        if grants.iter().take(at).any(is_same) {
            reader.mistake(&format!("{pointer}/{at}/service"), "has a grant already");
        }
    }
    let scopes_count: usize = grants.iter().flatten().map(|grant| grant.scopes.len()).sum();
    if scopes_count > SCOPES_MAX {
        reader.mistake(&pointer, format!("must have at most {SCOPES_MAX} scopes together"));
    }
    grants.into_iter().collect()
}

fn grant(reader: &mut Reader, pointer: &str, json: &Json) -> Option<Grant> {
    let members = reader.object(json, pointer, &["service", "scopes"])?;
    let service = reader.required(&members, "service", name::<ServiceName>);
    let scopes = reader.member(&members, "scopes").and_then(|(pointer, json)| scopes(reader, &pointer, json, false));
    Some(Grant { service: service?, scopes: scopes? })
}

/// An array of scopes, or where `or_one` says so a single one.
fn scopes(reader: &mut Reader, pointer: &str, json: &Json, or_one: bool) -> Option<Vec<ScopeName>> {
    if or_one && matches!(json, Json::Text(_)) {
        return reader.value(json, pointer, name::<ScopeName>).map(|scope| vec![scope]);
    }
    let items = reader.array(json, pointer, SCOPES_MAX)?;
    let scopes: Vec<_> = items
        .iter()
        .enumerate()
        .map(|(at, item)| reader.value(item, &format!("{pointer}/{at}"), name::<ScopeName>))
        .collect();
    for (at, scope) in scopes.iter().enumerate() {
        if scope.is_some() && scopes.iter().take(at).any(|other| other == scope) {
            reader.mistake(&format!("{pointer}/{at}"), "is there twice");
        }
    }
    scopes.into_iter().collect()
}

fn labels(reader: &mut Reader, members: &Members<'_>) -> BTreeMap<String, String> {
    let Some((pointer, json)) = members.find("labels") else { return BTreeMap::new() };
    let Some(labels) = reader.free_object(json, &pointer, LABELS_MAX) else { return BTreeMap::new() };
    let mut read = BTreeMap::new();
    for (name, value) in labels {
        let at = reader::join(&pointer, name);
        if let Err(problem) = printable(name, LABEL_NAME_BYTES_MAX) {
            reader.mistake(&at, format!("the label's name {problem}"));
        }
        if let Some(value) = reader.value(value, &at, text::<LABEL_VALUE_BYTES_MAX>) {
            read.insert(name.clone(), value);
        }
    }
    read
}

fn name<T: std::str::FromStr<Err = NameError>>(json: &Json) -> Result<T, String> {
    string(json)?.parse().map_err(|error: NameError| error.to_string())
}

fn string(json: &Json) -> Result<&str, String> {
    if let Json::Text(text) = json { Ok(text) } else { Err("must be a string".to_owned()) }
}

/// A task's name goes into the audit, so that it must not hold a nonce.
fn task_name(json: &Json) -> Result<TaskName, String> {
    let task: TaskName = name(json)?;
    no_nonce(task.as_str())?;
    Ok(task)
}

fn boolean(json: &Json) -> Result<bool, String> {
    if let Json::Bool(value) = json { Ok(*value) } else { Err("must be true or false".to_owned()) }
}

fn count(json: &Json) -> Result<u32, String> {
    let number = if let Json::Number(number) = json { number.as_u64() } else { None };
    number
        .and_then(|number| u32::try_from(number).ok())
        .filter(|number| *number > 0)
        .ok_or_else(|| format!("must be a whole number from 1 to {}", u32::MAX))
}

/// As the policy spells a rate.
fn rate(json: &Json) -> Result<Rate, String> {
    let wrong = || format!("must be a rate such as \"10/min\": 1 to {RATE_COUNT_MAX}, and `s`, `min`, `h` or `d`");
    string(json).ok().and_then(Rate::parse).ok_or_else(wrong)
}

fn ttl(json: &Json) -> Result<Duration, String> {
    let seconds = match json {
        Json::Number(number) => number.as_u64(),
        Json::Text(text) => ttl_seconds(text),
        Json::Null | Json::Bool(_) | Json::Array(_) | Json::Object(_) => None,
    };
    seconds.filter(|seconds| (1..=TTL_SECONDS_MAX).contains(seconds)).map(Duration::from_secs).ok_or_else(|| {
        format!(
            "must be a whole number of seconds from 1 to {TTL_SECONDS_MAX}, or a text such as \"90s\", \"5m\", \"1h\""
        )
    })
}

/// Digits and one unit.
fn ttl_seconds(text: &str) -> Option<u64> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let unit_seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86400,
        _ => return None,
    };
    // `parse` alone would take a sign.
    let is_plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    let number: u64 = digits.parse().ok().filter(|_| is_plain)?;
    number.checked_mul(unit_seconds)
}

fn text<const BYTES_MAX: usize>(json: &Json) -> Result<String, String> {
    let text = string(json)?;
    printable(text, BYTES_MAX)?;
    Ok(text.to_owned())
}

/// These texts are read by people, in logs and terminals: nothing invisible, nothing that turns the line around.
fn printable(text: &str, bytes_max: usize) -> Result<(), String> {
    match text.len() {
        0 => Err("must not be empty".to_owned()),
        length if length > bytes_max => Err(format!("must have at most {bytes_max} bytes")),
        _ if text.chars().any(is_unseen) => Err("must hold printable characters only".to_owned()),
        _ => no_nonce(text),
    }
}

/// What is recorded must not hold a nonce.
fn no_nonce(text: &str) -> Result<(), String> {
    if crate::model::nonce::find_all(text.as_bytes()).next().is_some() {
        return Err("holds a nonce, which must never be recorded".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::control::types::{GrantAsked, Mistake, NewNonce, ScopeList, TtlAsked};

    fn parse(text: &str) -> Result<MintAsked, Refusal> {
        mint(&Json::parse(text.as_bytes()).unwrap())
    }

    /// Each case: a body, the code it gets, and the pointers of its mistakes.
    #[test]
    fn every_mistake_has_its_pointer() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/control_mint.json");
        let cases: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let cases = cases.as_array().unwrap();
        assert!(cases.len() > 90);
        for case in cases {
            let body = case["body"].as_str().map_or_else(|| case["body"].to_string(), str::to_owned);
            let (code, mistakes) = match parse(&body) {
                Ok(_) => ("ok", Vec::new()),
                Err(Refusal::InvalidRequest(mistakes)) => ("invalid_request", mistakes),
                Err(other) => panic!("{body}: {other:?}"),
            };
            assert_eq!(code, case["code"], "{body}: {mistakes:?}");
            let pointers: Vec<_> = mistakes.iter().filter_map(|mistake| mistake.pointer.as_deref()).collect();
            let wanted: Vec<_> = case["pointers"].as_array().into_iter().flatten().filter_map(|p| p.as_str()).collect();
            assert_eq!(pointers, wanted, "{body}: {mistakes:?}");
        }
    }

    #[test]
    fn what_the_client_writes_is_what_the_server_reads() {
        let asked = NewNonce {
            agent: "billing".into(),
            task: "t-1".into(),
            grants: Some(vec![GrantAsked { service: "stripe".into(), scopes: vec!["read:customers".into()] }]),
            ttl: Some(TtlAsked::Text("5m".into())),
            max_uses: Some(20),
            instance: Some("run-9".into()),
            on_behalf_of: Some("user:ana".into()),
            reason: Some("Rückzahlung prüfen".into()),
            labels: [("ticket".to_owned(), "OPS-12".to_owned())].into(),
            ..NewNonce::default()
        };
        let read = parse(&serde_json::to_string(&asked).unwrap()).unwrap();
        assert_eq!(read.agent.as_str(), "billing");
        assert_eq!(read.ttl, Some(Duration::from_secs(300)));
        assert_eq!(read.max_uses, Some(20));
        assert_eq!(read.grants[0].scopes[0].as_str(), "read:customers");
        assert_eq!((read.instance, read.on_behalf_of), (asked.instance.clone(), asked.on_behalf_of.clone()));
        assert_eq!((read.reason, read.labels), (asked.reason.clone(), asked.labels.clone()));

        let short = NewNonce {
            grants: None,
            service: Some("stripe".into()),
            scope: Some(ScopeList::One("read:customers".into())),
            ttl: Some(TtlAsked::Seconds(300)),
            ..asked
        };
        let short = parse(&serde_json::to_string(&short).unwrap()).unwrap();
        assert_eq!((short.grants, short.ttl), (read.grants, read.ttl));
    }

    #[test]
    fn a_nonce_is_never_recorded() {
        let nonce = crate::model::Nonce::from_entropy(&[7; 32]);
        for field in ["task", "reason", "instance", "on_behalf_of"] {
            let mut body = serde_json::json!({"agent": "a", "task": "t", "service": "s", "scope": "r"});
            body[field] = nonce.as_str().into();
            let Err(Refusal::InvalidRequest(mistakes)) = parse(&body.to_string()) else { panic!("{field} was taken") };
            assert_eq!(mistakes[0].pointer.as_deref(), Some(format!("/{field}").as_str()));
            assert!(!format!("{mistakes:?}").contains(nonce.as_str()));
        }
    }

    #[test]
    fn mistakes_are_bounded() {
        let members: Vec<_> = (0..5_000).map(|n| format!("\"x{n}\":1")).collect();
        let Err(Refusal::InvalidRequest(mistakes)) = parse(&format!("{{{}}}", members.join(","))) else { panic!() };
        assert_eq!(mistakes.len(), reader::MISTAKES_MAX);
        let long = format!("{{\"{}\":1}}", "y".repeat(60_000));
        let Err(Refusal::InvalidRequest(mistakes)) = parse(&long) else { panic!() };
        assert!(mistakes.iter().all(|m: &Mistake| m.pointer.as_ref().is_none_or(|p| p.len() < 200)));
    }

    #[test]
    fn one_nonce_is_introspected_at_a_time() {
        let read = |text: &str| introspection(&Json::parse(text.as_bytes()).unwrap());
        assert_eq!(read(r#"{"nonce":"x"}"#), Ok(NonceHash::of(b"x")));
        assert_eq!(read(r#"{"token":"x"}"#), Ok(NonceHash::of(b"x")));
        for bad in [r#"{"nonce":"x","token":"x"}"#, "{}", r#"{"nonce":1}"#, r#"{"nonce":"x","nonce":"x"}"#, "[]"] {
            assert!(matches!(read(bad), Err(Refusal::InvalidRequest(_))), "{bad}");
        }
    }
}
