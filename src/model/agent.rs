//! Who is on the other end of a connection, and whom the policy admits.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// An identity that was proven, not one that was claimed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Identity {
    /// A local user: the peer of a Unix socket, or the owner of a loopback TCP connection.
    Uid(u32),
    /// Whoever started this process and holds the other end of its socket pair; no path leads there.
    Supervisor,
    /// Whoever knows the token in the file at this path.
    Bearer(Arc<str>),
    /// A Kubernetes service account, `namespace/name`, by a token of it.
    Kubernetes(Arc<str>),
    /// A SPIFFE ID, `spiffe://…`, by an SVID.
    Spiffe(Arc<str>),
    /// Whom an OpenID Connect issuer vouches for.
    Oidc(Arc<Subject>),
    /// The one name of a client's certificate.
    Mtls(Arc<str>),
    /// Whoever reports a leak from outside, of whom nothing is known and nothing believed.
    Anybody,
    /// A secret scanner, by the key of this name that signed its report.
    Scanner(Arc<str>),
}

/// What an OpenID Connect token says of its subject.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Subject {
    /// The issuer, as the policy names it.
    pub issuer: Box<str>,
    /// The claims that are texts, numbers or truths, as texts; `sub` is among them.
    pub claims: BTreeMap<Box<str>, Box<str>>,
}

impl Subject {
    /// Without all claims but `sub`, which is the same in each token of this subject.
    #[must_use]
    pub fn bare(&self) -> Self {
        let sub = self.claims.get_key_value("sub").map(|(name, sub)| (name.clone(), sub.clone()));
        Self { issuer: self.issuer.clone(), claims: sub.into_iter().collect() }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uid(uid) => write!(f, "uid:{uid}"),
            Self::Supervisor => f.write_str("supervisor"),
            Self::Bearer(path) => write!(f, "bearer:file:{path}"),
            Self::Kubernetes(account) => write!(f, "kubernetes:{account}"),
            Self::Spiffe(id) => f.write_str(id),
            Self::Oidc(subject) => {
                let sub = subject.claims.get("sub").map_or("", |sub| sub);
                write!(f, "oidc:{}:sub={sub}", subject.issuer)
            }
            Self::Mtls(name) => write!(f, "mtls:{name}"),
            Self::Anybody => f.write_str("anybody"),
            Self::Scanner(key) => write!(f, "scanner:{key}"),
        }
    }
}

/// Whom the policy admits, one line of `identity = […]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum IdentityRule {
    /// Anybody who can reach the listener; spelled out as `"any"`.
    Any,
    /// The local user with this number; `"uid:1000"`.
    Uid(u32),
    /// Who knows the token in this file; `"bearer:file:/run/valetkey/mint-token"`.
    Bearer(Arc<str>),
    /// This service account; `"kubernetes:NAMESPACE/NAME"`.
    Kubernetes(Arc<str>),
    /// This workload; `"spiffe://TRUST-DOMAIN/PATH"`.
    Spiffe(Arc<str>),
    /// Whose token of this issuer has all of these claims; `"oidc:ISSUER:CLAIM=VALUE,…"`.
    Oidc {
        /// The issuer, as the policy names it.
        issuer: Arc<str>,
        /// Claims and what they have to be, in the order of their names.
        claims: Arc<BTreeMap<Box<str>, Box<str>>>,
    },
    /// Whose certificate has this one name; `"mtls:NAME"`.
    Mtls(Arc<str>),
}

impl IdentityRule {
    /// True when a caller with this proven identity (or none) is admitted.
    #[must_use]
    pub fn admits(&self, proven: Option<&Identity>) -> bool {
        let Some(proven) = proven else { return *self == Self::Any };
        match self {
            Self::Any => true,
            Self::Uid(wanted) => *proven == Identity::Uid(*wanted),
            Self::Bearer(wanted) => matches!(proven, Identity::Bearer(path) if path == wanted),
            Self::Kubernetes(wanted) => matches!(proven, Identity::Kubernetes(account) if account == wanted),
            Self::Spiffe(wanted) => matches!(proven, Identity::Spiffe(id) if id == wanted),
            Self::Oidc { issuer, claims } => {
                matches!(proven, Identity::Oidc(subject) if *subject.issuer == **issuer && has(&subject.claims, claims))
            }
            Self::Mtls(wanted) => matches!(proven, Identity::Mtls(name) if name == wanted),
        }
    }

    /// True when whoever this rule admits is certainly admitted by `other` too.
    #[must_use]
    pub fn is_within(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Oidc { issuer, claims }, Self::Oidc { issuer: other, claims: fewer }) => {
                issuer == other && has(claims, fewer)
            }
            _ => self == other,
        }
    }
}

/// True when `there` has all that is wanted. Nothing wanted is nothing proven.
fn has(there: &BTreeMap<Box<str>, Box<str>>, wanted: &BTreeMap<Box<str>, Box<str>>) -> bool {
    !wanted.is_empty() && wanted.iter().all(|(name, value)| there.get(name) == Some(value))
}

impl fmt::Display for IdentityRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::Uid(uid) => write!(f, "uid:{uid}"),
            Self::Bearer(path) => write!(f, "bearer:file:{path}"),
            Self::Kubernetes(account) => write!(f, "kubernetes:{account}"),
            Self::Spiffe(id) => f.write_str(id),
            Self::Oidc { issuer, claims } => {
                write!(f, "oidc:{issuer}:")?;
                for (at, (name, value)) in claims.iter().enumerate() {
                    let comma = if at == 0 { "" } else { "," };
                    write!(f, "{comma}{name}={value}")?;
                }
                Ok(())
            }
            Self::Mtls(name) => write!(f, "mtls:{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(list: &[(&str, &str)]) -> BTreeMap<Box<str>, Box<str>> {
        list.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    }

    fn rule(list: &[(&str, &str)]) -> IdentityRule {
        IdentityRule::Oidc { issuer: "ci".into(), claims: Arc::new(claims(list)) }
    }

    #[test]
    fn every_claim_of_a_rule_has_to_be_there() {
        let proven = |issuer: &str, list: &[(&str, &str)]| {
            Identity::Oidc(Arc::new(Subject { issuer: issuer.into(), claims: claims(list) }))
        };
        let wanted = rule(&[("repository", "acme/app"), ("ref", "refs/heads/main")]);
        let whole = [("sub", "x"), ("repository", "acme/app"), ("ref", "refs/heads/main")];
        assert!(wanted.admits(Some(&proven("ci", &whole))));
        assert!(!wanted.admits(Some(&proven("other", &whole))));
        assert!(!wanted.admits(Some(&proven("ci", &whole[..2]))));
        assert!(!wanted.admits(Some(&proven("ci", &[("repository", "acme/app"), ("ref", "refs/heads/dev")]))));
        assert!(!rule(&[]).admits(Some(&proven("ci", &whole))), "no claim is no proof");
        assert!(!wanted.admits(None) && !wanted.admits(Some(&Identity::Uid(0))));
    }

    #[test]
    fn kinds_are_not_mixed_up() {
        let text: Arc<str> = "spiffe://a/b".into();
        let proven = [
            Identity::Bearer(text.clone()),
            Identity::Kubernetes(text.clone()),
            Identity::Spiffe(text.clone()),
            Identity::Mtls(text.clone()),
        ];
        let rules = [
            IdentityRule::Bearer(text.clone()),
            IdentityRule::Kubernetes(text.clone()),
            IdentityRule::Spiffe(text.clone()),
            IdentityRule::Mtls(text),
        ];
        for (at, identity) in proven.iter().enumerate() {
            for (index, rule) in rules.iter().enumerate() {
                assert_eq!(rule.admits(Some(identity)), at == index, "{rule} {identity}");
            }
        }
    }

    #[test]
    fn a_rule_with_more_claims_is_within_one_with_fewer() {
        let (narrow, wide) = (rule(&[("sub", "x"), ("ref", "y")]), rule(&[("sub", "x")]));
        assert!(narrow.is_within(&wide) && !wide.is_within(&narrow));
        assert!(IdentityRule::Uid(1).is_within(&IdentityRule::Uid(1)));
        assert!(!IdentityRule::Uid(1).is_within(&IdentityRule::Any));
    }
}
