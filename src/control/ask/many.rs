//! What the calls that are about many nonces, or about none that there is yet, are asked.

use std::time::Duration;

use percent_encoding::percent_decode_str;

use super::reader::{Members, Reader};
use super::{name, no_nonce, scopes, string, task_name, text, ttl};
use crate::control::refusal::Refusal;
use crate::control::types::{
    LEAK_NONCES_MAX, Mistake, REASON_BYTES_MAX, RISK_TTL_SECONDS_MAX, SOURCE_BYTES_MAX, URL_BYTES_MAX,
};
use crate::json::Json;
use crate::lease::Terms;
use crate::model::{AgentName, LevelName, NonceId, ScopeName, ServiceName, TaskName};

/// Bytes of a method at most.
const METHOD_BYTES_MAX: usize = 32;
/// A `Content-Type` in an explanation, in bytes at most.
const CONTENT_TYPE_BYTES_MAX: usize = 256;

/// Which leases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::control) enum Selector {
    Agent(AgentName),
    Task(TaskName),
    Service(ServiceName),
    All,
}

impl Selector {
    /// True for a lease with these terms.
    pub(in crate::control) fn wants(&self, terms: &Terms<'_>) -> bool {
        match self {
            Self::Agent(agent) => terms.agent == agent,
            Self::Task(task) => terms.task == task,
            Self::Service(service) => terms.grants.iter().any(|grant| grant.service == *service),
            Self::All => true,
        }
    }
}

/// Which leases to end, and why.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::control) struct ManyAsked {
    pub(in crate::control) selector: Selector,
    pub(in crate::control) reason: Option<String>,
}

/// Parses the body of a revocation of many.
pub(in crate::control) fn revocation(body: &Json) -> Result<ManyAsked, Refusal> {
    let mut reader = Reader::default();
    let asked = reader.object(body, "", &["agent", "task", "service", "all", "reason"]).and_then(|members| {
        let agent = reader.optional(&members, "agent", name).map(Selector::Agent);
        let task = reader.optional(&members, "task", task_name).map(Selector::Task);
        let service = reader.optional(&members, "service", name).map(Selector::Service);
        let all = reader.optional(&members, "all", yes).map(|()| Selector::All);
        let reason = reader.optional(&members, "reason", text::<REASON_BYTES_MAX>);
        one_of(&mut reader, &members, &["agent", "task", "service", "all"]);
        let selector = agent.or(task).or(service).or(all)?;
        Some(ManyAsked { selector, reason })
    });
    reader.finish(asked)
}

/// Parses the body of a completion, which may be missing: the reason.
pub(in crate::control) fn completion(body: &Json) -> Result<Option<String>, Refusal> {
    if *body == Json::Null {
        return Ok(None);
    }
    let mut reader = Reader::default();
    let members = reader.object(body, "", &["reason"]);
    let asked = members.map(|members| reader.optional(&members, "reason", text::<REASON_BYTES_MAX>));
    reader.finish(asked)
}

/// Reads the name of a task in a path, where `/` is `%2F`.
pub(in crate::control) fn task_in_path(segment: &str) -> Result<TaskName, Refusal> {
    let task = percent_decode_str(segment).decode_utf8().ok().and_then(|text| TaskName::parse(&text).ok());
    let task = task.ok_or(Refusal::NotFound)?;
    no_nonce(task.as_str()).map_err(|problem| Refusal::InvalidRequest(vec![Mistake::at("", problem)]))?;
    Ok(task)
}

/// What may hold nonces, and where it was found. Not for `Debug`: it may hold live ones.
pub(in crate::control) struct LeaksAsked<'a> {
    pub(in crate::control) texts: Vec<&'a str>,
    pub(in crate::control) source: Option<String>,
}

/// Parses a report of leaks.
pub(in crate::control) fn leaks(body: &Json) -> Result<LeaksAsked<'_>, Refusal> {
    let mut reader = Reader::default();
    let asked = reader.object(body, "", &["text", "nonces", "source"]).and_then(|members| {
        let source = reader.optional(&members, "source", text::<SOURCE_BYTES_MAX>);
        one_of(&mut reader, &members, &["text", "nonces"]);
        let texts = match (members.find("text"), members.find("nonces")) {
            (Some((pointer, json)), _) => vec![borrowed(&mut reader, &pointer, json)?],
            (None, Some((pointer, json))) => {
                let items = reader.array(json, &pointer, LEAK_NONCES_MAX)?;
                let item = |(at, item)| borrowed(&mut reader, &format!("{pointer}/{at}"), item);
                items.iter().enumerate().map(item).collect::<Option<Vec<_>>>()?
            }
            (None, None) => return None,
        };
        Some(LeaksAsked { texts, source })
    });
    reader.finish(asked)
}

fn borrowed<'a>(reader: &mut Reader, pointer: &str, json: &'a Json) -> Option<&'a str> {
    string(json).map_err(|problem| reader.mistake(pointer, problem)).ok()
}

/// Which nonce the request would come with.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::control) enum OfWhom {
    /// One of this agent, with these scopes of this service, or with all that it may have.
    Agent { agent: AgentName, service: Option<ServiceName>, scopes: Vec<ScopeName> },
    /// One that there is.
    Nonce(NonceId),
}

/// A request that may never be made.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::control) struct ExplanationAsked {
    pub(in crate::control) whom: OfWhom,
    pub(in crate::control) method: String,
    pub(in crate::control) url: String,
    pub(in crate::control) body: Option<String>,
    pub(in crate::control) content_type: Option<String>,
}

/// Parses what is to be explained.
pub(in crate::control) fn explanation(body: &Json) -> Result<ExplanationAsked, Refusal> {
    let known = ["agent", "service", "scope", "id", "method", "url", "body", "content_type"];
    let mut reader = Reader::default();
    let asked = reader.object(body, "", &known).and_then(|members| {
        let method = reader.required(&members, "method", text::<METHOD_BYTES_MAX>);
        let url = reader.required(&members, "url", text::<URL_BYTES_MAX>);
        let body = reader.optional(&members, "body", |json| string(json).map(str::to_owned));
        let content_type = reader.optional(&members, "content_type", text::<CONTENT_TYPE_BYTES_MAX>);
        for name in ["body", "content_type"].into_iter().filter(|name| members.has(name) && !members.has("id")) {
            reader.mistake(&format!("/{name}"), "goes with `id`: conditions are judged for a nonce that there is");
        }
        let whom = of_whom(&mut reader, &members);
        Some(ExplanationAsked { whom: whom?, method: method?, url: url?, body, content_type })
    });
    reader.finish(asked)
}

fn of_whom(reader: &mut Reader, members: &Members<'_>) -> Option<OfWhom> {
    one_of(reader, members, &["agent", "id"]);
    let id = reader.optional(members, "id", accessor);
    let agent = reader.optional(members, "agent", name);
    let service = reader.optional(members, "service", name);
    let found = members.find("scope");
    let scopes = found.as_ref().and_then(|(pointer, json)| scopes(reader, pointer, json, true));
    if members.has("id") && (members.has("service") || members.has("scope")) {
        reader.mistake("", "must not hold `service` or `scope` beside `id`: the nonce has its own");
    }
    if members.has("scope") && !members.has("service") {
        reader.mistake("/service", "is missing: a scope is one of a service");
    }
    match id {
        Some(id) => Some(OfWhom::Nonce(id)),
        None => Some(OfWhom::Agent { agent: agent?, service, scopes: scopes.unwrap_or_default() }),
    }
}

fn accessor(json: &Json) -> Result<NonceId, String> {
    NonceId::parse(string(json)?).ok_or_else(|| "is not the id of a nonce".to_owned())
}

/// What a monitor says.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::control) struct RiskAsked {
    /// Either an agent or a task.
    pub(in crate::control) agent: Option<AgentName>,
    pub(in crate::control) task: Option<TaskName>,
    pub(in crate::control) level: LevelName,
    /// How long; none with the level that takes one back, which ends nothing later.
    pub(in crate::control) ttl: Option<Duration>,
    pub(in crate::control) reason: Option<String>,
}

/// Parses what a monitor says; `is_normal` knows the level that takes one back.
pub(in crate::control) fn risk(body: &Json, is_normal: impl Fn(&LevelName) -> bool) -> Result<RiskAsked, Refusal> {
    let mut reader = Reader::default();
    let asked = reader.object(body, "", &["agent", "task", "level", "ttl", "reason"]).and_then(|members| {
        let agent = reader.optional(&members, "agent", name);
        let task = reader.optional(&members, "task", task_name);
        let level: Option<LevelName> = reader.required(&members, "level", name);
        let time = reader.optional(&members, "ttl", risk_ttl);
        let reason = reader.optional(&members, "reason", text::<REASON_BYTES_MAX>);
        one_of(&mut reader, &members, &["agent", "task"]);
        match (level.as_ref().is_some_and(is_normal), members.has("ttl")) {
            (true, true) => reader.mistake("/ttl", "means nothing where a level is taken back"),
            (false, false) => reader.mistake("/ttl", "is missing"),
            (true, false) | (false, true) => {}
        }
        Some(RiskAsked { agent, task, level: level?, ttl: time, reason })
    });
    reader.finish(asked)
}

fn risk_ttl(json: &Json) -> Result<Duration, String> {
    let time = ttl(json)?;
    if time > Duration::from_secs(RISK_TTL_SECONDS_MAX) {
        return Err("must be at most one day".to_owned());
    }
    Ok(time)
}

/// Exactly one of these members must be there.
fn one_of(reader: &mut Reader, members: &Members<'_>, names: &[&str]) {
    if names.iter().filter(|name| members.has(name)).count() != 1 {
        let list: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
        reader.mistake("", format!("must hold exactly one of {}", list.join(", ")));
    }
}

fn yes(json: &Json) -> Result<(), String> {
    if *json == Json::Bool(true) { Ok(()) } else { Err("must be true".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Json {
        Json::parse(text.as_bytes()).unwrap()
    }

    fn pointers<T>(read: Result<T, Refusal>) -> Vec<String> {
        match read {
            Err(Refusal::InvalidRequest(mistakes)) => mistakes.into_iter().filter_map(|m| m.pointer).collect(),
            Err(other) => panic!("{other:?}"),
            Ok(_) => Vec::new(),
        }
    }

    #[test]
    fn a_revocation_has_one_selector() {
        let asked = revocation(&json(r#"{"task":"t","reason":"r"}"#)).unwrap();
        assert_eq!(asked.selector, Selector::Task(TaskName::parse("t").unwrap()));
        for (bad, wanted) in [
            ("{}", ""),
            (r#"{"agent":"a","task":"t"}"#, ""),
            (r#"{"all":true,"task":"t"}"#, ""),
            (r#"{"all":false}"#, "/all"),
            (r#"{"all":1}"#, "/all"),
            (r#"{"agent":""}"#, "/agent"),
            (r#"{"agent":"a","surprise":1}"#, "/surprise"),
            (r#"{"agent":"a","agent":"b"}"#, "/agent"),
            (r#"{"agent":"a","reason":""}"#, "/reason"),
            ("[]", ""),
        ] {
            assert!(pointers(revocation(&json(bad))).iter().any(|pointer| pointer == wanted), "{bad}");
        }
    }

    #[test]
    fn a_task_in_a_path_is_decoded_once() {
        assert_eq!(task_in_path("a%2Fb").unwrap().as_str(), "a/b");
        for bad in ["", "a%252Fb", "a b", "%ff", "%00"] {
            assert_eq!(task_in_path(bad).err(), Some(Refusal::NotFound), "{bad}");
        }
        let nonce = crate::model::Nonce::from_entropy(&[7; 32]);
        // Its underscores are no letters of a name that a path could smuggle past the check.
        assert!(task_in_path(nonce.as_str()).is_err());
    }

    #[test]
    fn a_report_of_leaks_has_a_text_or_a_list() {
        let body = json(r#"{"nonces":["a","b"],"source":"ci"}"#);
        let asked = leaks(&body).unwrap_or_else(|refusal| panic!("{refusal:?}"));
        assert_eq!((asked.texts, asked.source.as_deref()), (vec!["a", "b"], Some("ci")));
        for (bad, wanted) in [
            ("{}", ""),
            (r#"{"text":"a","nonces":["a"]}"#, ""),
            (r#"{"nonces":[]}"#, "/nonces"),
            (r#"{"nonces":[1]}"#, "/nonces/0"),
            (r#"{"text":null}"#, "/text"),
            (r#"{"text":"a","source":""}"#, "/source"),
        ] {
            assert!(pointers(leaks(&json(bad))).iter().any(|pointer| pointer == wanted), "{bad}");
        }
    }

    #[test]
    fn an_explanation_is_about_an_agent_or_a_nonce() {
        let asked = explanation(&json(r#"{"agent":"a","service":"s","scope":"r","method":"GET","url":"https://x/"}"#));
        assert!(matches!(asked.unwrap().whom, OfWhom::Agent { scopes, .. } if scopes.len() == 1));
        for (bad, wanted) in [
            (r#"{"method":"GET","url":"https://x/"}"#, ""),
            (r#"{"agent":"a","id":"nc_x","method":"GET","url":"https://x/"}"#, ""),
            (r#"{"id":"nc_x","method":"GET","url":"https://x/"}"#, "/id"),
            (r#"{"agent":"a","scope":"r","method":"GET","url":"https://x/"}"#, "/service"),
            (r#"{"agent":"a","url":"https://x/"}"#, "/method"),
            (r#"{"agent":"a","method":"GET"}"#, "/url"),
        ] {
            assert!(pointers(explanation(&json(bad))).iter().any(|pointer| pointer == wanted), "{bad}");
        }
        let other = explanation(&json(r#"{"agent":"a","method":"GET","url":"https://x/","headers":{}}"#));
        assert!(matches!(other, Err(Refusal::InvalidRequest(_))));
    }

    #[test]
    fn a_level_has_its_time_unless_it_takes_one_back() {
        let read = |text: &str| risk(&json(text), |level| level.as_str() == "normal");
        assert_eq!(read(r#"{"agent":"a","level":"l","ttl":"1d"}"#).unwrap().ttl, Some(Duration::from_secs(86_400)));
        assert!(read(r#"{"task":"t","level":"normal"}"#).is_ok());
        for (bad, wanted) in [
            (r#"{"agent":"a","level":"l"}"#, "/ttl"),
            (r#"{"agent":"a","level":"normal","ttl":1}"#, "/ttl"),
            (r#"{"agent":"a","level":"l","ttl":"2d"}"#, "/ttl"),
            (r#"{"agent":"a","task":"t","level":"l","ttl":1}"#, ""),
            (r#"{"level":"l","ttl":1}"#, ""),
            (r#"{"agent":"a","ttl":1}"#, "/level"),
        ] {
            assert!(pointers(read(bad)).iter().any(|pointer| pointer == wanted), "{bad}");
        }
    }
}
