//! What the policy file says, in the form in which the data path needs it.
//!
//! A reload replaces it whole. With the policy go the connections that were made under it and the searches that were made
//! of its credentials: nothing of the old one is left behind once the last request under way has finished with it.

use std::sync::Arc;

use http::Request;

use super::Limits;
use super::inject::{Searches, Watched};
use super::leaks::place_in_head;
use super::relay::{Parent, TlsProfiles, Upstream};
use super::scrub::Needles;
use crate::credential::Credentials;
use crate::identity::Prover;
use crate::model::CredentialName;
use crate::net::Dialer;
use crate::policy::Policy;

/// A policy in force.
pub struct Rules {
    /// The policy.
    pub policy: Arc<Policy>,
    /// Its credentials.
    pub credentials: Arc<Credentials>,
    /// What proves its agents by their tokens.
    pub prover: Arc<Prover>,
    pub(super) upstream: Upstream,
    pub(super) searches: Searches,
    watched: Watched,
}

impl Rules {
    pub(super) fn new(
        policy: Arc<Policy>,
        credentials: Arc<Credentials>,
        prover: Arc<Prover>,
        tls: TlsProfiles,
        dialer: Arc<Dialer>,
        limits: Limits,
    ) -> Self {
        let parent = policy.parent_proxy().map(|proxy| Parent::new(proxy.clone(), credentials.clone()));
        let upstream = Upstream::new(dialer, parent, policy.clone(), tls, limits);
        Self { policy, credentials, prover, upstream, searches: Searches::default(), watched: Watched::default() }
    }

    /// The search for all real credentials, if one is loaded.
    pub(super) fn watched(&self) -> Option<Needles> {
        self.watched.search(&self.credentials, &self.searches)
    }

    /// Drops the searches for these credentials and the connections that they went out on; true if there was any.
    pub(super) fn forget(&self, may_go: &dyn Fn(&CredentialName) -> bool) -> bool {
        let were_searched = [self.searches.forget(may_go), self.watched.forget(may_go)];
        self.upstream.forget(may_go) | were_searched.contains(&true)
    }

    /// Where in the head of a request one of them stands.
    pub(super) fn exposed_in<B>(&self, request: &Request<B>) -> Option<&'static str> {
        place_in_head(&self.watched()?, request)
    }
}
