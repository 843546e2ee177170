//! The body of a delegation.

use std::collections::BTreeMap;
use std::time::Duration;

use super::reader::{self, Members, Reader};
use super::{count, grants, labels, name, rate, text, ttl};
use crate::control::refusal::Refusal;
use crate::control::types::{INSTANCE_BYTES_MAX, ON_BEHALF_OF_BYTES_MAX, REASON_BYTES_MAX};
use crate::json::Json;
use crate::model::{AgentName, Grant, Rate};
use crate::policy::{LINES_MAX, RULE_BYTES_MAX, read_line};

/// Fields of a delegation that this build enforces or records. The task is the one of the nonce above.
const DELEGATION_FIELDS: &[&str] = &[
    "agent",
    "service",
    "scope",
    "grants",
    "rules",
    "ttl",
    "max_uses",
    "rate",
    "instance",
    "on_behalf_of",
    "reason",
    "labels",
];
/// A delegation, as asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::control) struct DelegationAsked {
    pub(in crate::control) agent: AgentName,
    pub(in crate::control) grants: Option<Vec<Grant>>,
    /// How the grants were spelled.
    pub(in crate::control) spelling: Spelling,
    pub(in crate::control) ttl: Option<Duration>,
    pub(in crate::control) max_uses: Option<u32>,
    pub(in crate::control) rate: Option<Rate>,
    pub(in crate::control) instance: Option<String>,
    pub(in crate::control) on_behalf_of: Option<String>,
    pub(in crate::control) reason: Option<String>,
    pub(in crate::control) labels: BTreeMap<String, String>,
    /// Its own list; empty where none was asked for.
    pub(in crate::control) lines: Vec<String>,
}

/// How grants were spelled, for whoever has to point at one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::control) enum Spelling {
    /// `grants`, or nothing.
    Grants,
    /// `service`, with one `scope`.
    One,
    /// `service`, with an array of `scope`.
    Many,
}

impl Spelling {
    /// Points at the service of a grant.
    pub(in crate::control) fn service(self, grant: usize) -> String {
        match self {
            Self::Grants => format!("/grants/{grant}/service"),
            Self::One | Self::Many => "/service".to_owned(),
        }
    }

    /// Points at a scope of a grant.
    pub(in crate::control) fn scope(self, grant: usize, scope: usize) -> String {
        match self {
            Self::Grants => format!("/grants/{grant}/scopes/{scope}"),
            Self::One => "/scope".to_owned(),
            Self::Many => format!("/scope/{scope}"),
        }
    }
}

/// Parses the body of a delegation.
pub(in crate::control) fn delegation(body: &Json) -> Result<DelegationAsked, Refusal> {
    let mut reader = Reader::default();
    let asked = reader.object(body, "", DELEGATION_FIELDS).and_then(|members| {
        let agent = reader.required(&members, "agent", name::<AgentName>);
        let is_narrowed = ["service", "scope", "grants"].iter().any(|name| members.has(name));
        let grants = if is_narrowed { grants(&mut reader, &members).map(Some) } else { Some(None) };
        let spelling = match members.find("scope") {
            None => Spelling::Grants,
            Some((_, Json::Text(_))) => Spelling::One,
            Some(_) => Spelling::Many,
        };
        let ttl = reader.optional(&members, "ttl", ttl);
        let max_uses = reader.optional(&members, "max_uses", count);
        let rate = reader.optional(&members, "rate", rate);
        let instance = reader.optional(&members, "instance", text::<INSTANCE_BYTES_MAX>);
        let on_behalf_of = reader.optional(&members, "on_behalf_of", text::<ON_BEHALF_OF_BYTES_MAX>);
        let reason = reader.optional(&members, "reason", text::<REASON_BYTES_MAX>);
        let labels = labels(&mut reader, &members);
        let lines = lines(&mut reader, &members);
        let (agent, grants, lines) = (agent?, grants?, lines?);
        Some(DelegationAsked {
            agent,
            grants,
            spelling,
            ttl,
            max_uses,
            rate,
            instance,
            on_behalf_of,
            reason,
            labels,
            lines,
        })
    });
    reader.finish(asked)
}

/// `rules`: a list that is there is not empty, since that would narrow nothing.
fn lines(reader: &mut Reader, members: &Members<'_>) -> Option<Vec<String>> {
    let Some((pointer, json)) = members.find("rules") else { return Some(Vec::new()) };
    let items = reader.array(json, &pointer, LINES_MAX)?;
    let lines: Vec<_> =
        items.iter().enumerate().map(|(at, item)| reader.value(item, &format!("{pointer}/{at}"), line)).collect();
    for (at, line) in lines.iter().enumerate() {
        if line.is_some() && lines.iter().take(at).any(|other| other == line) {
            reader.mistake(&format!("{pointer}/{at}"), "is there twice");
        }
    }
    lines.into_iter().collect()
}

fn line(json: &Json) -> Result<String, String> {
    let line = text::<RULE_BYTES_MAX>(json)?;
    read_line(&line).map_err(|problem| problem.to_string())?;
    Ok(line)
}

/// Points at a label.
pub(in crate::control) fn label_pointer(name: &str) -> String {
    reader::join("/labels", name)
}
