//! The queries of calls, as strict as a body.

use percent_encoding::percent_decode_str;

use super::refusal::Refusal;
use super::types::{Mistake, PAGE_DEFAULT, PAGE_MAX};
use crate::lease::Terms;
use crate::model::name::NameError;
use crate::model::{AgentName, NonceId, ServiceName, TaskName};

/// Parameters that are looked at; a query with more is refused anyway, since none may be there twice.
const PARAMETERS_MAX: usize = 16;

/// Which leases to list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ListAsked {
    pub(super) agent: Option<AgentName>,
    pub(super) task: Option<TaskName>,
    pub(super) service: Option<ServiceName>,
    pub(super) after: Option<NonceId>,
    /// 1 to [`PAGE_MAX`].
    pub(super) limit: usize,
}

impl ListAsked {
    /// Parses a query (`application/x-www-form-urlencoded`).
    pub(super) fn parse(query: Option<&str>) -> Result<Self, Refusal> {
        let mut asked = Self { agent: None, task: None, service: None, after: None, limit: PAGE_DEFAULT };
        read(query, |name, value| asked.take(name, value))?;
        Ok(asked)
    }

    fn take(&mut self, name: &str, value: &str) -> Result<(), String> {
        match name {
            "agent" => self.agent = Some(named(value)?),
            "task" => self.task = Some(named(value)?),
            "service" => self.service = Some(named(value)?),
            "after" => self.after = Some(NonceId::parse(value).ok_or("is not the id of a nonce")?),
            "limit" => self.limit = limit(value).ok_or_else(|| format!("must be a number from 1 to {PAGE_MAX}"))?,
            _ => return Err("is not a parameter of this call".to_owned()),
        }
        Ok(())
    }

    /// True where a lease with these terms was asked for.
    pub(super) fn wants(&self, terms: &Terms<'_>) -> bool {
        self.agent.as_ref().is_none_or(|agent| agent == terms.agent)
            && self.task.as_ref().is_none_or(|task| task == terms.task)
            && self.service.as_ref().is_none_or(|service| terms.grants.iter().any(|grant| grant.service == *service))
    }
}

/// Which records to follow.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct EventsAsked {
    pub(super) agent: Option<AgentName>,
    pub(super) task: Option<TaskName>,
}

impl EventsAsked {
    /// Parses a query, as strict as that of a list.
    pub(super) fn parse(query: Option<&str>) -> Result<Self, Refusal> {
        let mut asked = Self::default();
        read(query, |name, value| {
            match name {
                "agent" => asked.agent = Some(named(value)?),
                "task" => asked.task = Some(named(value)?),
                _ => return Err("is not a parameter of this call".to_owned()),
            }
            Ok(())
        })?;
        Ok(asked)
    }
}

/// Hands each parameter over, decoded and once; finds every mistake.
fn read(query: Option<&str>, mut take: impl FnMut(&str, &str) -> Result<(), String>) -> Result<(), Refusal> {
    let (mut seen, mut mistakes) = (Vec::new(), Vec::new());
    let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    for pair in pairs.take(PARAMETERS_MAX) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let read = match decode(value) {
            Some(value) => take(name, &value),
            None => Err("is not percent-encoded UTF-8".to_owned()),
        };
        let read = if seen.contains(&name) { Err("is there twice".to_owned()) } else { read };
        seen.push(name);
        if let Err(problem) = read {
            mistakes.push(Mistake::in_parameter(name.chars().take(64).collect::<String>(), problem));
        }
    }
    if mistakes.is_empty() { Ok(()) } else { Err(Refusal::InvalidRequest(mistakes)) }
}

fn named<T: std::str::FromStr<Err = NameError>>(value: &str) -> Result<T, String> {
    value.parse().map_err(|error: NameError| error.to_string())
}

fn limit(value: &str) -> Option<usize> {
    let is_plain = value.bytes().all(|byte| byte.is_ascii_digit());
    value.parse().ok().filter(|number| is_plain && (1..=PAGE_MAX).contains(number))
}

fn decode(value: &str) -> Option<String> {
    // A `+` is a blank in a form; no value here has one.
    let value = value.replace('+', " ");
    percent_decode_str(&value).decode_utf8().ok().map(|text| text.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(query: &str) -> Vec<String> {
        match ListAsked::parse(Some(query)) {
            Err(Refusal::InvalidRequest(mistakes)) => mistakes.into_iter().filter_map(|m| m.parameter).collect(),
            other => panic!("{query}: {other:?}"),
        }
    }

    #[test]
    fn parameters_are_read() {
        let asked = ListAsked::parse(Some("agent=billing&task=a%2Fb&service=stripe&limit=7")).unwrap();
        assert_eq!(asked.task.unwrap().as_str(), "a/b");
        assert_eq!((asked.limit, asked.agent.unwrap().as_str()), (7, "billing"));
        assert_eq!(ListAsked::parse(None).unwrap().limit, PAGE_DEFAULT);
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for bad in ["limit=0", "limit=501", "limit=%2B1", "limit=", "limit=1e2", "limit=-1"] {
            assert_eq!(parameters(bad), ["limit"], "{bad}");
        }
        assert_eq!(parameters("after=nc_x"), ["after"]);
        assert_eq!(parameters("agent=a&agent=b"), ["agent"]);
        assert_eq!(parameters("agent=%ff&surprise=1"), ["agent", "surprise"]);
        assert_eq!(parameters("task=a+b"), ["task"]);
        assert_eq!(parameters("nonce=an_x"), ["nonce"]);
    }
}
