//! A nonce that came as the proxy's credentials: whom it vouches for, and to which requests its credential is attached.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, header};

use super::{Services, holds, present};
use crate::audit::DecisionFacts;
use crate::lease::{Lease, Lookup};
use crate::model::denial::Missing;
use crate::model::{Denial, NonceHash, Scheme};
use crate::policy::{Policy, Service, Slot, Target};
use crate::proxy::connect::Session;
use crate::proxy::extract::{Basic, Lifted, Presented};
use crate::proxy::refused::Refused;

/// The user beside a password that is attached: GitHub's word for a token, and no service looks at it where only the
/// password counts.
const BASIC_USER: &str = "x-access-token";

/// Whose site made a request, as browsers say (Fetch Metadata, 2.4).
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The nonce of the tunnel, looked up anew for each request in it.
pub struct Voucher {
    lease: Result<Arc<Lease>, Denial>,
    /// What is known of it.
    pub facts: DecisionFacts,
}

impl Voucher {
    /// Looks it up.
    pub fn of(leases: &Lookup, policy: &Policy, session: &Session, hash: &NonceHash, known: &DecisionFacts) -> Self {
        let mut facts = DecisionFacts { presented_in: Some("proxy"), ..known.clone() };
        Self { lease: present(leases, policy, session.presenter(), hash, &mut facts), facts }
    }

    /// Its live lease.
    pub fn admitted(self) -> Result<(Arc<Lease>, DecisionFacts), Refused> {
        match self.lease {
            Ok(lease) => Ok((lease, self.facts)),
            Err(denial) => Err(Refused::new(denial, self.facts)),
        }
    }
}

/// True for two nonces of one minter, agent and task: one may open the tunnel and the other call in it.
pub fn is_same_task(one: &Lease, other: &Lease) -> bool {
    let (one, other) = (one.terms(), other.terms());
    one.agent == other.agent && one.task == other.task && one.minter == other.minter
}

/// The services to whose requests the credential is attached; never none.
pub fn services(lease: &Lease, scheme: Scheme, presented: &Presented) -> Result<Services, Missing> {
    let held = presented.services.iter().filter(|service| holds(lease, service));
    let (mut attaching, mut is_held) = (Services::new(), false);
    for service in held {
        is_held = true;
        if service.attach.is_some() {
            attaching.push(service.clone());
        }
    }
    if !is_held {
        return Err(Missing::OtherService);
    }
    if attaching.is_empty() {
        return Err(Missing::NotAttached);
    }
    if may_be_a_web_page(scheme, &presented.head.headers) {
        return Err(Missing::WebPage);
    }
    Ok(attaching)
}

/// A browser behind this proxy sends the nonce along whoever wrote the page; only the page's own site may use it.
///
/// In clear text it does not say whose page it was (Fetch Metadata, 2), so that nothing of a browser is harmless there;
/// no page can change what the browser calls itself.
fn may_be_a_web_page(scheme: Scheme, headers: &HeaderMap) -> bool {
    let is_browser = |agent: &http::HeaderValue| agent.as_bytes().starts_with(b"Mozilla/");
    if scheme == Scheme::Http && headers.get_all(header::USER_AGENT).iter().any(is_browser) {
        return true;
    }
    let is_harmless = |site: &http::HeaderValue| site == "none" || site == "same-origin";
    headers.contains_key(header::ORIGIN) || !headers.get_all(SEC_FETCH_SITE).iter().all(is_harmless)
}

/// The place that the credential takes; nothing where the service attaches none.
pub fn lifted(session: &Session, service: &Service, target: &Target) -> Option<Lifted> {
    let (hash, slot) = (session.voucher?, service.attach.clone()?);
    let basic = |other: &str| Some(Basic { other: other.to_owned() });
    let (field, basic, parameter) = match &slot {
        Slot::Bearer | Slot::Token | Slot::Raw => (Some(header::AUTHORIZATION), None, None),
        Slot::BasicUser => (Some(header::AUTHORIZATION), basic(""), None),
        Slot::BasicPassword => (Some(header::AUTHORIZATION), basic(BASIC_USER), None),
        Slot::Header(name) => (Some(HeaderName::from_bytes(name.as_bytes()).ok()?), None, None),
        Slot::Query(name) => (None, None, Some(target.room_for_parameter(name))),
        // Who signs has to hold the key; the policy has no such service.
        Slot::AwsSigV4 => return None,
    };
    Some(Lifted { hash, slot, field, basic, parameter, signed: None })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn only_what_no_page_of_another_site_can_send_is_harmless() {
        let judge = |fields: &[(&'static str, &'static str)]| {
            let fields = fields.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v)));
            may_be_a_web_page(Scheme::Https, &fields.collect())
        };
        for harmless in [&[][..], &[("sec-fetch-site", "none")], &[("sec-fetch-site", "same-origin")]] {
            assert!(!judge(harmless), "{harmless:?}");
        }
        for site in ["cross-site", "same-site", "", "None", "none, cross-site", " none"] {
            assert!(judge(&[("sec-fetch-site", site)]), "{site}");
        }
        for origin in ["https://evil.test", "null", ""] {
            assert!(judge(&[("origin", origin), ("sec-fetch-site", "same-origin")]), "{origin}");
        }
        let mut twice = HeaderMap::new();
        twice.append("sec-fetch-site", HeaderValue::from_static("none"));
        twice.append("sec-fetch-site", HeaderValue::from_static("cross-site"));
        assert!(may_be_a_web_page(Scheme::Https, &twice));
        for (agent, is_browser) in [("Mozilla/5.0 (X11)", true), ("curl/8.5.0", false)] {
            let fields = HeaderMap::from_iter([(header::USER_AGENT, HeaderValue::from_static(agent))]);
            assert_eq!(may_be_a_web_page(Scheme::Http, &fields), is_browser, "{agent}");
            assert!(!may_be_a_web_page(Scheme::Https, &fields), "{agent}");
        }
    }
}
