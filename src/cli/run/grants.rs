//! `--grant`, and which nonces are minted for it: grants with a name in common share one nonce.

use super::names;
use crate::cli::{Failure, print};
use crate::control::types::{GrantAsked, Minted, PlainNonce};

/// Nonces of one run at most.
const NONCES_MAX: usize = 32;
const FORM: &str = "expected SERVICE:SCOPE[,SCOPE…][=NAME[,NAME…]], such as stripe:read:customers=STRIPE_API_KEY";

/// One `--grant` as it was typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wish {
    service: String,
    scopes: Vec<String>,
    /// Where the nonce is exported; empty: where the service's SDKs look.
    names: Vec<String>,
}

/// A service of the policy, as far as it is known here.
#[derive(Debug, Clone)]
pub(super) struct ServiceFacts {
    pub(super) name: String,
    /// As the policy spells them.
    pub(super) hosts: Vec<String>,
}

/// One nonce to be minted.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// What it opens; each service once.
    pub(super) grants: Vec<GrantAsked>,
    /// Where it is exported.
    pub(super) exports: Vec<Export>,
}

/// A variable that holds a nonce.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Export {
    pub(super) name: String,
    /// Whose SDKs read it.
    services: Vec<String>,
}

impl Wish {
    /// `SERVICE:SCOPE[,SCOPE…][=NAME[,NAME…]]`; scopes hold colons, so the first one ends the service, and no `=`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (grant, names) = match text.split_once('=') {
            Some((grant, names)) => (grant, names.split(',').map(str::to_owned).collect()),
            None => (text, Vec::new()),
        };
        let (service, scopes) = grant.split_once(':').ok_or(FORM)?;
        let scopes: Vec<String> = scopes.split(',').map(str::to_owned).collect();
        if service.is_empty() || scopes.iter().any(String::is_empty) {
            return Err(FORM.to_owned());
        }
        if let Some(name) = names.iter().find(|name: &&String| !names::is_variable(name)) {
            return Err(format!("{name:?} is no name of a variable; {FORM}"));
        }
        if let Some(name) = names.iter().find(|name| names::is_taken(name)) {
            return Err(format!(
                "{name} is for something else than a key: name the variable that the client reads it from"
            ));
        }
        Ok(Self { service: service.to_owned(), scopes, names })
    }

    fn exports(&self, services: &[ServiceFacts]) -> Result<Vec<Export>, Failure> {
        let known = services.iter().find(|facts| facts.name == self.service);
        let names = if self.names.is_empty() {
            let hosts = known.map_or(&[][..], |facts| &facts.hosts);
            names::read_by_sdks(&self.service, hosts).iter().map(|name| (*name).to_owned()).collect()
        } else {
            self.names.clone()
        };
        // A service that the policy does not have is refused by the sidecar, which says what there is.
        if names.is_empty() && known.is_some() {
            let grant = format!("{}:{}", self.service, self.scopes.join(","));
            return Err(Failure::usage(format!(
                "--grant {}: say which variable its clients read the key from: --grant {}=NAME",
                print::visible(&grant),
                print::visible(&grant)
            )));
        }
        Ok(names.into_iter().map(|name| Export { name, services: vec![self.service.clone()] }).collect())
    }
}

/// The nonces that these wishes come to, in the order in which they were typed.
///
/// # Errors
/// [`Failure`]: a service whose variable is neither named nor known; too many nonces.
pub(super) fn plan(wishes: &[Wish], services: &[ServiceFacts]) -> Result<Vec<Plan>, Failure> {
    let mut plans: Vec<Plan> = Vec::new();
    for wish in wishes {
        let mut plan = Plan { grants: Vec::new(), exports: Vec::new() };
        let grant = GrantAsked { service: wish.service.clone(), scopes: wish.scopes.clone() };
        plan.absorb(Plan { grants: vec![grant], exports: wish.exports(services)? });
        let mut at = plans.len();
        // A wish with two names can join two nonces into one.
        for index in (0..plans.len()).rev() {
            if plans[index].shares_a_name_with(&plan) {
                let mut earlier = plans.remove(index);
                earlier.absorb(plan);
                (plan, at) = (earlier, index);
            }
        }
        plans.insert(at, plan);
    }
    if plans.len() > NONCES_MAX {
        return Err(Failure::usage(format!(
            "--grant: these are {} nonces, and {NONCES_MAX} are the most",
            plans.len()
        )));
    }
    Ok(plans)
}

impl Plan {
    fn shares_a_name_with(&self, other: &Self) -> bool {
        self.exports.iter().any(|export| other.exports.iter().any(|theirs| theirs.name == export.name))
    }

    fn absorb(&mut self, other: Self) {
        for GrantAsked { service, scopes } in other.grants {
            let at = self.grants.iter().position(|own| own.service == service).unwrap_or_else(|| {
                self.grants.push(GrantAsked { service, scopes: Vec::new() });
                self.grants.len() - 1
            });
            for scope in scopes {
                if !self.grants[at].scopes.contains(&scope) {
                    self.grants[at].scopes.push(scope);
                }
            }
        }
        for export in other.exports {
            match self.exports.iter_mut().find(|own| own.name == export.name) {
                Some(own) => own.services.extend(export.services),
                None => self.exports.push(export),
            }
        }
    }

    /// The variables, for people.
    pub(super) fn names(&self) -> String {
        self.exports.iter().map(|export| export.name.as_str()).collect::<Vec<_>>().join(", ")
    }
}

impl Export {
    /// The nonce in the shape that the service's SDKs accept; plain, where services with different shapes share it.
    pub(super) fn value<'a>(&self, minted: &'a Minted) -> &'a PlainNonce {
        let mut shapes = self.services.iter().map(|service| minted.placeholders.get(service).unwrap_or(&minted.nonce));
        let first = shapes.next().unwrap_or(&minted.nonce);
        if shapes.all(|shape| shape == first) { first } else { &minted.nonce }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn facts() -> Vec<ServiceFacts> {
        [("stripe", "api.stripe.com"), ("github", "github.com"), ("own", "api.own.test"), ("pay", "api.stripe.com")]
            .map(|(name, host)| ServiceFacts { name: name.to_owned(), hosts: vec![host.to_owned()] })
            .into()
    }

    fn planned(grants: &[&str]) -> Vec<(String, String)> {
        let wishes: Vec<Wish> = grants.iter().map(|grant| Wish::parse(grant).unwrap()).collect();
        let one = |plan: &Plan| {
            let grants: Vec<_> =
                plan.grants.iter().map(|grant| format!("{}:{}", grant.service, grant.scopes.join(","))).collect();
            (grants.join(" "), plan.names())
        };
        plan(&wishes, &facts()).unwrap().iter().map(one).collect()
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(grants, names)| ((*grants).to_owned(), (*names).to_owned())).collect()
    }

    #[test]
    fn a_grant_is_a_service_scopes_and_names() {
        let wish = Wish::parse("stripe:read:customers,write:refunds=A,B_2").unwrap();
        assert_eq!((wish.service.as_str(), wish.scopes.len()), ("stripe", 2));
        assert_eq!((wish.scopes[0].as_str(), wish.names), ("read:customers", vec!["A".to_owned(), "B_2".to_owned()]));
        for text in
            ["", "stripe", "stripe:", ":x", "stripe:x,", "stripe:x=", "stripe:x=A,", "stripe:x=A-B", "stripe:x=2A"]
        {
            assert!(Wish::parse(text).is_err_and(|error| error.contains("SERVICE:SCOPE")), "{text:?}");
        }
    }

    #[test]
    fn a_nonce_breaks_no_program() {
        for name in ["PATH", "HOME", "LD_PRELOAD", "IFS", "BASH_ENV", "NODE_OPTIONS", "grpc_proxy", "VALETKEY_CONTROL"]
        {
            let error = Wish::parse(&format!("own:read=KEY,{name}")).unwrap_err();
            assert!(error.starts_with(name), "{error}");
        }
    }

    #[test]
    fn what_is_said_twice_is_granted_once() {
        assert_eq!(planned(&["own:a,a=X,X", "own:a,b=X"]), pairs(&[("own:a,b", "X")]));
    }

    #[test]
    fn a_known_service_is_exported_where_its_sdks_look() {
        assert_eq!(planned(&["github:read"]), pairs(&[("github:read", "GITHUB_TOKEN, GH_TOKEN")]));
        let by_host = planned(&["pay:read"]);
        assert!(by_host[0].1.contains("STRIPE_API_KEY"), "known by its host: {by_host:?}");
        let wish = Wish::parse("own:read").unwrap();
        assert!(format!("{:?}", plan(&[wish], &facts()).unwrap_err()).contains("--grant own:read=NAME"));
        let nowhere = Wish::parse("nowhere:read").unwrap();
        assert!(plan(&[nowhere], &facts()).is_ok(), "the sidecar says what there is");
    }

    #[test]
    fn grants_with_a_name_in_common_share_a_nonce() {
        assert_eq!(planned(&["own:a=X", "own:b=Y"]), pairs(&[("own:a", "X"), ("own:b", "Y")]));
        assert_eq!(planned(&["own:a=X", "own:b=X"]), pairs(&[("own:a,b", "X")]));
        let joined = planned(&["own:a=X", "github:r=Y", "stripe:c=Z,X"]);
        assert_eq!(joined, pairs(&[("own:a stripe:c", "X, Z"), ("github:r", "Y")]));
        let bridged = planned(&["own:a=X", "github:r=Y", "stripe:c=X,Y"]);
        assert_eq!(bridged, pairs(&[("own:a github:r stripe:c", "X, Y")]));
    }

    #[test]
    fn a_variable_holds_the_shape_of_its_services_and_the_plain_nonce_where_they_differ() {
        let minted: Minted = serde_json::from_value(json!({
            "id": "nc_1", "nonce": "an_x", "placeholders": {"stripe": "sk_test_an_x", "pay": "sk_test_an_x", "own": "an_x"},
            "agent": "a", "task": "t", "issued_at": "2026-01-01T00:00:00Z", "expires_at": "2026-01-01T00:05:00Z",
            "expires_in": 300, "ends_at": "2026-01-01T00:30:00Z", "ttl_capped_by": null, "max_uses": null,
            "uses_left": null, "proxy": "http://127.0.0.1:1", "grants": [],
        }))
        .unwrap();
        let value = |services: &[&str]| {
            let services = services.iter().map(|service| (*service).to_owned()).collect();
            Export { name: "N".to_owned(), services }.value(&minted).as_str().to_owned()
        };
        assert_eq!(value(&["stripe"]), "sk_test_an_x");
        assert_eq!(value(&["stripe", "pay"]), "sk_test_an_x");
        assert_eq!(value(&["stripe", "own"]), "an_x");
    }
}
