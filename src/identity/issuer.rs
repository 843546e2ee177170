//! One issuer of the policy: which tokens are its own, how they are verified, and whom they prove.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::Refused;
use super::fetch::Address;
use super::jwks::{Algorithm, Use};
use super::jwt::Token;
use super::keys::Keys;
use super::review::Review;
use super::standing::Standing;
use super::workload::WorkloadApi;
use crate::json::Json;
use crate::model::{Identity, Subject};

/// Claims of an OpenID Connect token that are kept at most.
const CLAIMS_MAX: usize = 64;
/// Longest claim that is kept, in bytes.
const CLAIM_BYTES_MAX: usize = 1024;
/// Longest SPIFFE ID, in bytes (SPIFFE-ID, 2.3).
const SPIFFE_BYTES_MAX: usize = 2048;
/// How the API server spells a service account.
const ACCOUNT_PREFIX: &str = "system:serviceaccount:";

/// One `[issuers.NAME]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerSpec {
    /// Its name in the policy.
    pub name: Arc<str>,
    /// Whom its tokens name.
    pub kind: Kind,
    /// What `iss` has to be; `None` only for SPIFFE, whose tokens need not have it.
    pub issuer: Option<String>,
    /// What `aud` has to hold.
    pub audience: String,
    /// The algorithms, of one family.
    pub algorithms: Vec<Algorithm>,
    /// How its tokens are verified.
    pub proof: Proof,
    /// Roots for the key server or the API server beside the system's, a PEM file.
    pub ca: Option<PathBuf>,
}

/// What kind of issuer it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Service accounts of a cluster.
    Kubernetes,
    /// Workloads of this trust domain.
    Spiffe {
        /// `example.org`
        trust_domain: String,
    },
    /// Anybody whom an OpenID provider vouches for.
    Oidc,
}

/// How tokens are verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// By the keys in this file.
    File(PathBuf),
    /// By the keys that this server publishes.
    Server(Address),
    /// By the bundle of the trust domain that the Workload API streams; for SPIFFE alone.
    Workload(WorkloadApi),
    /// By asking the API server, as who this file's token says.
    Review {
        /// The API server; its path is `/`.
        server: Address,
        /// The sidecar's own token.
        token: PathBuf,
    },
}

/// An issuer at work.
pub(super) struct Issuer {
    pub(super) spec: IssuerSpec,
    pub(super) judge: Judge,
    pub(super) standing: Standing,
}

/// What says whether a token is genuine.
pub(super) enum Judge {
    Keys(Keys),
    Review(Review),
}

impl Kind {
    /// The trust domain; none of another kind, for whom no bundle says anything.
    pub(super) fn trust_domain(&self) -> &str {
        match self {
            Self::Spiffe { trust_domain } => trust_domain,
            Self::Kubernetes | Self::Oidc => "",
        }
    }

    pub(super) fn key_use(&self) -> Use {
        match self {
            Self::Kubernetes | Self::Oidc => Use::Signatures,
            Self::Spiffe { .. } => Use::JwtSvid,
        }
    }
}

impl Issuer {
    /// True when this token says that it is of this issuer.
    pub(super) fn is_named_by(&self, token: &Token<'_>) -> bool {
        let issuer = token.claims.get("iss").and_then(Json::text);
        match &self.spec.kind {
            Kind::Kubernetes | Kind::Oidc => issuer.is_some() && issuer == self.spec.issuer.as_deref(),
            Kind::Spiffe { trust_domain } => {
                let subject = token.claims.get("sub").and_then(Json::text);
                let is_of_domain = subject.and_then(trust_domain_of) == Some(trust_domain);
                is_of_domain && (self.spec.issuer.is_none() || issuer == self.spec.issuer.as_deref())
            }
        }
    }

    /// Verifies a token of this issuer; `text` is the whole token; none of the pod with the uid `own_pod` is taken.
    pub(super) async fn verify(
        &self,
        token: &Token<'_>,
        text: &str,
        now: i64,
        own_pod: Option<&str>,
    ) -> Result<Identity, Refused> {
        if !self.spec.algorithms.contains(&token.algorithm) {
            return Err(Refused::Algorithm);
        }
        token.check_time(now)?;
        token.check_audience(&self.spec.audience)?;
        // Before anybody is asked: what cannot become an identity is not worth a question.
        let identity = self.identity(token, own_pod)?;
        match &self.judge {
            Judge::Keys(keys) => {
                let key = keys.find(&token.kid).await?;
                if !key.verifies(token.algorithm, token.signed, &token.signature) {
                    return Err(Refused::Signature);
                }
            }
            Judge::Review(review) => review.ask(text, &self.spec.audience, token.subject()?, own_pod).await?,
        }
        Ok(identity)
    }

    fn identity(&self, token: &Token<'_>, own_pod: Option<&str>) -> Result<Identity, Refused> {
        let subject = match &self.spec.kind {
            Kind::Spiffe { .. } => token.text("sub")?,
            Kind::Kubernetes | Kind::Oidc => token.subject()?,
        };
        match &self.spec.kind {
            Kind::Kubernetes => service_account(token, subject, own_pod),
            Kind::Spiffe { .. } => spiffe_id(subject).ok_or(Refused::Claim("sub")),
            Kind::Oidc => claims(token, &self.spec.name),
        }
    }
}

/// `system:serviceaccount:NAMESPACE:NAME`, which what the API server says beside it has to agree with.
fn service_account(token: &Token<'_>, subject: &str, own_pod: Option<&str>) -> Result<Identity, Refused> {
    let rest = subject.strip_prefix(ACCOUNT_PREFIX).ok_or(Refused::Claim("sub"))?;
    let (namespace, name) = rest.split_once(':').ok_or(Refused::Claim("sub"))?;
    let account = format!("{namespace}/{name}");
    if !is_service_account(&account) {
        return Err(Refused::Claim("sub"));
    }
    let said = token.claims.get("kubernetes.io").and_then(Json::object).ok_or(Refused::Claim("kubernetes.io"))?;
    let inner = |name: &str, key: &str| said.get(name).and_then(Json::object)?.get(key)?.text();
    let agrees =
        said.get("namespace").and_then(Json::text) == Some(namespace) && inner("serviceaccount", "name") == Some(name);
    if !agrees {
        return Err(Refused::Claim("kubernetes.io"));
    }
    if own_pod.is_some() && inner("pod", "uid") == own_pod {
        return Err(Refused::OwnPod);
    }
    Ok(Identity::Kubernetes(account.into()))
}

/// True for `NAMESPACE/NAME` as Kubernetes names things (RFC 1123).
#[must_use]
pub fn is_service_account(text: &str) -> bool {
    let is_label = |text: &str, dots: bool| {
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || (dots && b == b'.');
        let ends = [text.bytes().next(), text.bytes().last()];
        text.bytes().all(inner) && ends.iter().all(|end| end.is_some_and(|b| b.is_ascii_alphanumeric()))
    };
    text.split_once('/').is_some_and(|(namespace, name)| {
        namespace.len() <= 63 && name.len() <= 253 && is_label(namespace, false) && is_label(name, true)
    })
}

/// The trust domain of a SPIFFE ID.
#[must_use]
pub fn trust_domain_of(id: &str) -> Option<&str> {
    let rest = id.strip_prefix("spiffe://")?;
    Some(rest.split_once('/').map_or(rest, |(domain, _)| domain))
}

/// True for a trust domain as SPIFFE spells it (SPIFFE-ID, 2.1).
#[must_use]
pub fn is_trust_domain(text: &str) -> bool {
    let is_letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_');
    (1..=255).contains(&text.len()) && text.bytes().all(is_letter)
}

/// A SPIFFE ID of a workload: a trust domain and a path without empty or dot segments (SPIFFE-ID, 2.2).
#[must_use]
pub fn spiffe_id(text: &str) -> Option<Identity> {
    let path = text.strip_prefix("spiffe://")?.split_once('/')?.1;
    let is_letter = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    let is_segment = |segment: &str| !matches!(segment, "" | "." | "..") && segment.bytes().all(is_letter);
    let is_fine = text.len() <= SPIFFE_BYTES_MAX
        && trust_domain_of(text).is_some_and(is_trust_domain)
        && path.split('/').all(is_segment);
    is_fine.then(|| Identity::Spiffe(text.into()))
}

/// The claims that a rule can ask for.
fn claims(token: &Token<'_>, issuer: &str) -> Result<Identity, Refused> {
    let short = |(name, value): &(String, Json)| {
        let value = value.scalar().filter(|value| value.len() <= CLAIM_BYTES_MAX)?;
        Some((name.as_str().into(), value.into()))
    };
    let claims: BTreeMap<Box<str>, Box<str>> =
        token.claims.members().unwrap_or_default().iter().filter_map(short).collect();
    if claims.len() > CLAIMS_MAX {
        return Err(Refused::Malformed);
    }
    Ok(Identity::Oidc(Arc::new(Subject { issuer: issuer.into(), claims })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spiffe_ids_are_read_as_the_standard_has_them() {
        for good in ["spiffe://example.org/a", "spiffe://example.org/ns/x/sa/Y_1.-"] {
            assert_eq!(spiffe_id(good), Some(Identity::Spiffe(good.into())));
        }
        for bad in [
            "spiffe://example.org",
            "spiffe://example.org/",
            "spiffe://example.org/a/",
            "spiffe://example.org//a",
            "spiffe://example.org/../a",
            "spiffe://example.org/./a",
            "spiffe://example.org:80/a",
            "spiffe://u@example.org/a",
            "spiffe://Example.org/a",
            "spiffe://example.org/a?b",
            "spiffe://example.org/a%2fb",
            "SPIFFE://example.org/a",
            "https://example.org/a",
            "spiffe:///a",
        ] {
            assert_eq!(spiffe_id(bad), None, "{bad}");
        }
    }

    #[test]
    fn service_accounts_are_two_names() {
        assert!(is_service_account("ns/sa") && is_service_account("a-1/b.c-d"));
        for bad in ["", "/", "ns", "ns/", "/sa", "Ns/sa", "ns/sa/x", "ns/-sa", "n.s/sa", "ns/sa ", "ns:sa"] {
            assert!(!is_service_account(bad), "{bad}");
        }
    }
}
