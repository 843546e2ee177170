//! A nonce that there is, as the decision on a request would see it.

use std::iter;
use std::sync::Arc;

use crate::lease::{Lease, Restriction};
use crate::model::{LeaseGrant, Now};
use crate::policy::explain::Member;
use crate::policy::{Circumstances, HeldBody, NonceFacts, Policy, RISK_NORMAL};

/// What would be sent beside the head.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent<'a> {
    pub(super) body: Option<&'a str>,
    pub(super) content_type: Option<&'a str>,
}

/// One nonce of the line, at this moment.
pub(super) struct Known {
    lease: Arc<Lease>,
    grants: Vec<LeaseGrant>,
    restriction: Option<Restriction>,
    /// The level of risk, as conditions see it.
    risk: String,
}

/// The nonce and all above it.
pub(super) fn line(policy: &Policy, lease: &Arc<Lease>) -> Vec<Known> {
    iter::once(lease).chain(lease.ancestors()).map(|lease| Known::of(policy, lease)).collect()
}

impl Known {
    fn of(policy: &Policy, lease: &Arc<Lease>) -> Self {
        let mut grants = lease.terms().grants.to_vec();
        for grant in &mut grants {
            for (scope, limits) in &mut grant.scopes {
                limits.uses = lease.scope_uses_left(&grant.service, scope);
            }
        }
        let restriction = lease.restriction();
        let risk = match &restriction {
            None => RISK_NORMAL.to_owned(),
            Some(known) if policy.risk_levels().iter().any(|level| level.name == known.level) => {
                known.level.to_string()
            }
            Some(_) => String::new(),
        };
        Self { lease: lease.clone(), grants, restriction, risk }
    }

    /// As a request with this would find it.
    pub(super) fn member<'a>(&'a self, policy: &'a Policy, sent: Sent<'a>, now: &Now) -> Member<'a> {
        let terms = self.lease.terms();
        let data = self.grants.iter().flat_map(|grant| {
            let service = policy.service(&grant.service);
            grant.scopes.iter().filter_map(move |(name, _)| service?.scope(name)?.data.as_deref())
        });
        let nonce = NonceFacts {
            agent: terms.agent.as_str(),
            task: terms.task.as_str(),
            instance: terms.instance,
            on_behalf_of: terms.on_behalf_of,
            labels: terms.labels.iter().collect(),
            data: data.collect(),
            age_seconds: self.lease.age(now).as_secs(),
            uses: terms.max_uses.and_then(|max| Some(max.saturating_sub(self.lease.uses_left()?))),
        };
        let bytes = sent.body.unwrap_or_default().as_bytes();
        let (content_type, is_whole) = (sent.content_type, true);
        let body = HeldBody { bytes, is_whole, has_trailers: false, content_type, is_encoded: false };
        Member {
            agent: terms.agent,
            grants: &self.grants,
            lines: terms.lines.iter().collect(),
            cap: self.restriction.as_ref().map(|restriction| restriction.cap),
            circumstances: Circumstances {
                now: now.wall.as_second(),
                size: u64::try_from(bytes.len()).ok(),
                body: Some(body),
                risk: &self.risk,
                nonce,
            },
        }
    }
}
