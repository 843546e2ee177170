//! From what stands in `Authorization` to a proven identity.

use std::sync::Arc;

use http::header::{AUTHORIZATION, HeaderMap};
use jiff::Timestamp;
use tokio::sync::OwnedSemaphorePermit;

use super::bearer::Bearer;
use super::client_ca::{ClientCa, Shown, Voucher, certify};
use super::fetch::Client;
use super::issuer::{Issuer, IssuerSpec, Judge, Proof};
use super::jwks::SET_BYTES_MAX;
use super::jwt::{TOKEN_BYTES_MAX, Token};
use super::keys::{Fetch, Keys, Origin};
use super::review::Review;
use super::standing::Standing;
use super::workload::Bundle;
use super::{Identities, Refused};
use crate::clock::SharedClock;
use crate::model::Identity;
use crate::net::Dialer;
use crate::net::tls::{ClientTls, TlsError};

/// Where the API server takes reviews.
const REVIEWS_PATH: &str = "/apis/authentication.k8s.io/v1/tokenreviews";

/// What proves tokens.
pub struct Verifier {
    bearers: Arc<[Bearer]>,
    issuers: Vec<Arc<Issuer>>,
    client_cas: Arc<[Arc<Voucher>]>,
    own_pod: Option<String>,
    clock: SharedClock,
}

/// Whom an agent's token or certificate proves.
pub(super) struct Proven {
    pub(super) identity: Identity,
    /// The second at which that is over.
    pub(super) end: i64,
    /// Of who says so.
    pub(super) standing: Standing,
}

/// Why there is no verifier.
#[derive(Debug, thiserror::Error)]
pub enum VerifierError {
    /// The `ca` of an issuer cannot be read.
    #[error("issuer {0}: its `ca` cannot be read: {1}")]
    File(Arc<str>, std::io::Error),
    /// The `ca` of an issuer is of no use.
    #[error("issuer {0}: {1}")]
    Ca(Arc<str>, TlsError),
}

impl Verifier {
    /// `own_pod` is the uid of the pod that the sidecar runs in, of which no token is taken; key servers and API servers
    /// are dialled by `dialer` and verified against the roots of `tls`, and against their own `ca`.
    /// Called within a runtime: the Workload API is followed on it.
    ///
    /// # Errors
    /// [`VerifierError`].
    pub fn new(
        identities: Identities,
        own_pod: Option<String>,
        dialer: &Arc<Dialer>,
        tls: &ClientTls,
        clock: SharedClock,
    ) -> Result<Self, VerifierError> {
        Self::of_nobody(own_pod, clock).renewed(identities, dialer, tls)
    }

    /// The same for the identities of another policy. Issuers and CAs of which it says the same go on with all that they
    /// know: keys that were fetched, and the stream of the Workload API.
    ///
    /// # Errors
    /// [`VerifierError`].
    pub fn renewed(
        &self,
        identities: Identities,
        dialer: &Arc<Dialer>,
        tls: &ClientTls,
    ) -> Result<Self, VerifierError> {
        let Identities { bearers, issuers: specs, client_cas } = identities;
        let mut issuers = Vec::with_capacity(specs.len());
        for spec in specs {
            issuers.push(match self.issuers.iter().find(|issuer| issuer.spec == spec) {
                Some(known) => Arc::clone(known),
                None => {
                    let judge = judge(&spec, dialer, tls, &self.clock)?;
                    Arc::new(Issuer { spec, judge, standing: Standing::default() })
                }
            });
        }
        let client_cas = client_cas.into_iter().map(|ca| self.voucher(ca)).collect();
        Ok(Self {
            bearers: bearers.into_iter().map(Bearer::new).collect(),
            issuers,
            client_cas,
            own_pod: self.own_pod.clone(),
            clock: self.clock.clone(),
        })
    }

    /// Believes nothing.
    pub(super) fn of_nobody(own_pod: Option<String>, clock: SharedClock) -> Self {
        let (bearers, client_cas) = (Arc::default(), Arc::default());
        Self { bearers, issuers: Vec::new(), client_cas, own_pod, clock }
    }

    /// Of a CA that it knows, as it is; of another, a new one.
    fn voucher(&self, ca: ClientCa) -> Arc<Voucher> {
        let known = self.client_cas.iter().find(|voucher| *voucher.ca() == ca);
        known.map_or_else(|| Arc::new(Voucher::new(ca, &self.clock)), Arc::clone)
    }

    /// What was proven by an issuer or a CA that this other one does not have holds no longer.
    pub(super) fn yield_to(&self, next: &Self) {
        self.standings().filter(|own| !next.standings().any(|kept| kept.is(own))).for_each(Standing::end);
    }

    pub(super) fn standings(&self) -> impl Iterator<Item = &Standing> {
        self.issuers
            .iter()
            .map(|issuer| &issuer.standing)
            .chain(self.client_cas.iter().map(|voucher| voucher.standing()))
    }

    /// True where it was made of these identities.
    #[must_use]
    pub fn is_of(&self, identities: &Identities) -> bool {
        self.bearers.iter().map(Bearer::path).eq(&identities.bearers)
            && self.issuers.iter().map(|issuer| &issuer.spec).eq(&identities.issuers)
            && self.client_cas.iter().map(|voucher| voucher.ca()).eq(&identities.client_cas)
    }

    /// Who sends these headers; `None` where they have no `Authorization`.
    ///
    /// # Errors
    /// [`Refused`]: there is one, and it proves nothing.
    pub async fn authorize(&self, headers: &HeaderMap) -> Result<Option<Identity>, Refused> {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let Some(value) = values.next() else { return Ok(None) };
        if values.next().is_some() {
            return Err(Refused::Authorization);
        }
        let text = value.to_str().map_err(|_| Refused::Authorization)?;
        let (scheme, token) = text.split_once(' ').ok_or(Refused::Authorization)?;
        if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(Refused::Authorization);
        }
        self.verify(token).await.map(Some)
    }

    /// When a token is over that [`Verifier::authorize`] has taken; `None` for one that says nothing of that, as those in
    /// files. Nothing is verified here.
    #[must_use]
    pub fn token_ends(headers: &HeaderMap) -> Option<Timestamp> {
        let (_, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
        Timestamp::from_second(Token::parse(token).ok()?.expiry().ok()?).ok()
    }

    async fn verify(&self, text: &str) -> Result<Identity, Refused> {
        if text.len() > TOKEN_BYTES_MAX {
            return Err(Refused::TooLong);
        }
        if let Some(identity) = self.by_file(text).await? {
            return Ok(identity);
        }
        self.by_issuer(text, self.own_pod.as_deref()).await.map(|proven| proven.identity)
    }

    /// Whom an agent's token proves. The sidecar's own pod is its agent's too, so that a token of it is as good as any
    /// here; and the token of a file proves no agent.
    pub(super) async fn prove(&self, text: &str) -> Result<Proven, Refused> {
        self.by_issuer(text, None).await
    }

    /// True where agents can be proven by their certificates.
    #[must_use]
    pub fn certifies(&self) -> bool {
        !self.client_cas.is_empty()
    }

    /// Whom an agent's certificate proves. The turn lasts as long as the work does, which goes on when the agent has hung
    /// up.
    pub(super) async fn certify(&self, shown: &Arc<Shown>, turn: OwnedSemaphorePermit) -> Result<Proven, Refused> {
        let (cas, shown) = (Arc::clone(&self.client_cas), Arc::clone(shown));
        let now = self.clock.now().wall.as_second();
        // It reads a file.
        let judging = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            certify(&cas, &shown.chain, now)
        });
        judging.await.map_err(|_| Refused::Unavailable)?
    }

    async fn by_issuer(&self, text: &str, banned_pod: Option<&str>) -> Result<Proven, Refused> {
        if self.issuers.is_empty() || !text.contains('.') {
            return Err(Refused::Unknown);
        }
        let token = Token::parse(text)?;
        let now = self.clock.now().wall.as_second();
        let issuer = self.issuers.iter().find(|issuer| issuer.is_named_by(&token)).ok_or(Refused::Issuer)?;
        let identity = issuer.verify(&token, text, now, banned_pod).await?;
        Ok(Proven { identity, end: token.expiry()?, standing: issuer.standing.clone() })
    }

    /// Whose file has this token. Every file is compared, whichever it is.
    async fn by_file(&self, text: &str) -> Result<Option<Identity>, Refused> {
        if self.bearers.is_empty() {
            return Ok(None);
        }
        let bearers = Arc::clone(&self.bearers);
        let text = zeroize::Zeroizing::new(text.to_owned());
        let comparing = tokio::task::spawn_blocking(move || {
            let mut found = None;
            for bearer in bearers.iter() {
                match bearer.is(&text) {
                    Ok(true) => found = Some(Identity::Bearer(bearer.path().clone())),
                    Ok(false) => {}
                    Err(problem) => {
                        tracing::warn!(path = %bearer.path(), %problem, "the token of this file is not taken");
                    }
                }
            }
            found
        });
        comparing.await.map_err(|_| Refused::Unavailable)
    }
}

fn judge(
    spec: &IssuerSpec,
    dialer: &Arc<Dialer>,
    tls: &ClientTls,
    clock: &SharedClock,
) -> Result<Judge, VerifierError> {
    let keys = |origin| Judge::Keys(Keys::new(spec.name.clone(), origin, spec.kind.key_use(), clock.clone()));
    let client = || -> Result<Client, VerifierError> {
        let ca = match &spec.ca {
            Some(path) => Some(std::fs::read(path).map_err(|error| VerifierError::File(spec.name.clone(), error))?),
            None => None,
        };
        let tls = tls.config(ca.as_deref(), &[b"http/1.1"]);
        let tls = tls.map_err(|error| VerifierError::Ca(spec.name.clone(), error))?;
        Ok(Client { dialer: Arc::clone(dialer), tls: Arc::new(tls) })
    };
    Ok(match &spec.proof {
        Proof::File(path) => keys(Origin::File(path.clone())),
        Proof::Server(address) => {
            let (client, address) = (client()?, address.clone());
            let fetch: Fetch = Arc::new(move || {
                let (client, address) = (client.clone(), address.clone());
                Box::pin(async move { client.ask(&address, None, SET_BYTES_MAX).await })
            });
            keys(Origin::Server(fetch))
        }
        Proof::Workload(api) => {
            let domain = spec.kind.trust_domain();
            keys(Origin::Workload(Bundle::follow(api.clone(), domain, spec.name.clone(), clock.clone())))
        }
        Proof::Review { server, token } => {
            let mut address = server.clone();
            REVIEWS_PATH.clone_into(&mut address.path);
            Judge::Review(Review { client: client()?, address, token: token.clone() })
        }
    })
}
