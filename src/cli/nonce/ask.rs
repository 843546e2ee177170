//! What was typed → what is asked of the control API.

use std::collections::BTreeMap;

use clap::Args;

use crate::cli::Failure;
use crate::control::types::{GrantAsked, NewNonce, ScopeList, TtlAsked};

/// Whose nonce, for what, for how long.
#[derive(Debug, Default, Args)]
pub(super) struct Wanted {
    /// For which agent, as the policy names it.
    #[arg(long)]
    agent: String,
    /// For what: a name of yours, by which you find and end its nonces.
    #[arg(long)]
    task: String,
    /// The service; with --scope.
    #[arg(long, requires = "scopes", required_unless_present_any = ["grants", "canary"])]
    service: Option<String>,
    /// A scope of the service; several with commas, or repeated.
    #[arg(long = "scope", value_name = "SCOPE", value_delimiter = ',', requires = "service")]
    scopes: Vec<String>,
    /// A service with scopes: stripe:read:customers or stripe:read:customers,write:refunds. Repeatable.
    #[arg(long = "grant", value_name = "SERVICE:SCOPE", value_parser = grant, conflicts_with_all = ["service", "scopes"])]
    grants: Vec<GrantAsked>,
    /// Open nothing: a nonce to leave lying about, so that any use of it is an alarm.
    #[arg(long, conflicts_with_all = ["service", "scopes", "grants", "max_uses", "rate"])]
    canary: bool,
    /// How long at most, such as 90s, 5m or 1h; the policy's default if absent.
    #[arg(long, value_name = "TIME")]
    ttl: Option<String>,
    /// Requests at most.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_uses: Option<u32>,
    /// How fast at most, such as 10/min.
    #[arg(long, value_name = "RATE")]
    rate: Option<String>,
    /// Which run of the agent. Recorded.
    #[arg(long, value_name = "NAME")]
    instance: Option<String>,
    /// On whose behalf. Recorded.
    #[arg(long, value_name = "WHOM")]
    on_behalf_of: Option<String>,
    /// Why. Recorded.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// A label. Recorded. Repeatable.
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
}

/// `SERVICE:SCOPE[,SCOPE…]`; scopes hold colons, so the first one ends the service.
fn grant(text: &str) -> Result<GrantAsked, String> {
    let parts = text.split_once(':').map(|(service, scopes)| (service, scopes.split(',').map(str::to_owned)));
    match parts {
        Some((service, scopes)) if !service.is_empty() => {
            let scopes: Vec<String> = scopes.collect();
            if scopes.iter().all(|scope| !scope.is_empty()) {
                return Ok(GrantAsked { service: service.to_owned(), scopes });
            }
        }
        _ => {}
    }
    Err("expected SERVICE:SCOPE, such as stripe:read:customers".to_owned())
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE, such as ticket=OPS-12".to_owned()),
    }
}

impl Wanted {
    /// The call's body. What the policy has to say about it, the sidecar says.
    pub(super) fn read(&self) -> Result<NewNonce, Failure> {
        let (service, scope, grants) = match &self.service {
            Some(service) => (Some(service.clone()), Some(ScopeList::Many(self.scopes.clone())), None),
            None if self.canary => (None, None, None),
            None => (None, None, Some(join(&self.grants))),
        };
        Ok(NewNonce {
            agent: self.agent.clone(),
            task: self.task.clone(),
            canary: self.canary,
            service,
            scope,
            grants,
            ttl: self.ttl.as_ref().map(|ttl| match ttl.parse() {
                Ok(seconds) => TtlAsked::Seconds(seconds),
                Err(_) => TtlAsked::Text(ttl.clone()),
            }),
            max_uses: self.max_uses,
            rate: self.rate.clone(),
            instance: self.instance.clone(),
            on_behalf_of: self.on_behalf_of.clone(),
            reason: self.reason.clone(),
            labels: self.labels()?,
        })
    }

    fn labels(&self) -> Result<BTreeMap<String, String>, Failure> {
        let mut labels = BTreeMap::new();
        for (name, value) in &self.labels {
            if labels.insert(name.clone(), value.clone()).is_some() {
                return Err(Failure::usage(format!("--label {}: is there twice", crate::cli::print::visible(name))));
            }
        }
        Ok(labels)
    }
}

/// One grant for each service, in the order in which they were named.
fn join(grants: &[GrantAsked]) -> Vec<GrantAsked> {
    let mut joined: Vec<GrantAsked> = Vec::new();
    for grant in grants {
        match joined.iter_mut().find(|known| known.service == grant.service) {
            Some(known) => known.scopes.extend(grant.scopes.iter().cloned()),
            None => joined.push(grant.clone()),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        wanted: Wanted,
    }

    fn read(line: &str) -> Result<NewNonce, String> {
        let line = Line::try_parse_from(std::iter::once("x").chain(line.split(' '))).map_err(|e| e.to_string())?;
        line.wanted.read().map_err(|failure| format!("{failure:?}"))
    }

    #[test]
    fn a_service_with_scopes_is_asked_for() {
        let asked = read("--agent a --task t --service stripe --scope read:x,read:y --scope z --ttl 300").unwrap();
        assert_eq!(asked.service.as_deref(), Some("stripe"));
        assert_eq!(asked.scope, Some(ScopeList::Many(vec!["read:x".into(), "read:y".into(), "z".into()])));
        assert_eq!(asked.grants, None);
        assert_eq!(asked.ttl, Some(TtlAsked::Seconds(300)));
    }

    #[test]
    fn grants_of_one_service_are_joined() {
        let asked =
            read("--agent a --task t --grant s:read:x --grant g:w --grant s:y,z --ttl 5m --label k=v=w").unwrap();
        let grant = |service: &str, scopes: &[&str]| GrantAsked {
            service: service.into(),
            scopes: scopes.iter().map(|scope| (*scope).into()).collect(),
        };
        assert_eq!(asked.grants, Some(vec![grant("s", &["read:x", "y", "z"]), grant("g", &["w"])]));
        assert_eq!(asked.ttl, Some(TtlAsked::Text("5m".into())));
        assert_eq!(asked.labels.get("k").map(String::as_str), Some("v=w"));
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        for line in [
            "--agent a --task t",
            "--agent a --task t --service s",
            "--agent a --task t --canary --grant s:x",
            "--agent a --task t --canary --max-uses 2",
            "--agent a --task t --scope x",
            "--task t --grant s:x",
            "--agent a --grant s:x",
            "--agent a --task t --grant s:x --service s --scope x",
            "--agent a --task t --grant s",
            "--agent a --task t --grant :x",
            "--agent a --task t --grant s:",
            "--agent a --task t --grant s:x,,y",
            "--agent a --task t --grant s:x --max-uses 0",
            "--agent a --task t --grant s:x --label k",
            "--agent a --task t --grant s:x --label =v",
            "--agent a --task t --grant s:x --label k=v --label k=w",
        ] {
            assert!(read(line).is_err(), "{line}");
        }
    }
}
