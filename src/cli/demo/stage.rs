//! Everything that the scenes need, and what is left of it at the end.

use super::agent::{Agent, in_time};
use super::canary::{Canaries, short};
use super::sidecar::{self, Sidecar};
use super::trouble::{Context, Trouble};
use super::upstream::{Received, Upstream};
use super::workplace::Workplace;
use crate::control::client::Client;
use crate::control::types::{NewNonce, ScopeList, TtlAsked};

/// The agent that the policy knows.
const AGENT: &str = "demo-agent";

/// The sidecar, the upstream and the agent. Dropped in this order: the process ends before its directory goes.
pub(super) struct Stage {
    pub(super) sidecar: Sidecar,
    pub(super) upstream: Upstream,
    pub(super) agent: Agent,
    pub(super) orchestrator: Client,
    pub(super) canaries: Canaries,
    /// Every nonce that was minted.
    nonces: Vec<Nonce>,
    played: Played,
    pub(super) place: Workplace,
}

/// A nonce as the orchestrator got it.
#[derive(Debug, Clone)]
pub(super) struct Nonce {
    pub(super) id: String,
    pub(super) plain: String,
    /// In the shape that the service's SDKs accept.
    pub(super) placeholder: String,
}

/// What is left when everything has stopped.
#[derive(Debug, Clone)]
pub(super) struct Remains {
    /// The sidecar's exit code; none if it had to be killed.
    pub(super) exit: Option<i32>,
    pub(super) audit: Vec<u8>,
    pub(super) log: Vec<u8>,
    pub(super) output: Vec<u8>,
    /// Everything that the agent got to see.
    pub(super) answers: Vec<u8>,
    /// Everything that got through to the upstream.
    pub(super) received: Vec<Received>,
    pub(super) nonces: Vec<Nonce>,
    pub(super) played: Played,
    pub(super) canaries: Canaries,
}

/// How much of it belongs to the play; what comes after is whoever's who keeps the demo running.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Played {
    pub(super) requests: usize,
    pub(super) nonces: usize,
}

impl Remains {
    /// What got through while the play went on.
    pub(super) fn played_requests(&self) -> &[Received] {
        &self.received[..self.played.requests.min(self.received.len())]
    }

    /// The nonces of the play.
    pub(super) fn played_nonces(&self) -> &[Nonce] {
        &self.nonces[..self.played.nonces.min(self.nonces.len())]
    }
}

impl Stage {
    /// Starts everything.
    pub(super) async fn set() -> Result<Self, Trouble> {
        let place = Workplace::new()?;
        let canaries = Canaries::new()?;
        let upstream = Upstream::start(canaries.clone()).await?;
        let sidecar = Sidecar::start(&place, &upstream, &canaries).await?;
        let agent = Agent::new(sidecar.proxy, &String::from_utf8_lossy(&place.read(sidecar::CA)))?;
        let orchestrator = Client::new(&place.socket());
        Ok(Self {
            sidecar,
            upstream,
            agent,
            orchestrator,
            canaries,
            nonces: Vec::new(),
            played: Played::default(),
            place,
        })
    }

    /// Mints a nonce over the control API, as an orchestrator does.
    pub(super) async fn mint(&mut self, service: &str, scope: &str, ttl_seconds: u32) -> Result<Nonce, Trouble> {
        let asked = NewNonce {
            agent: AGENT.to_owned(),
            task: "demo".to_owned(),
            service: Some(service.to_owned()),
            scope: Some(ScopeList::One(scope.to_owned())),
            ttl: Some(TtlAsked::Seconds(ttl_seconds)),
            reason: Some("valetkey demo".to_owned()),
            ..NewNonce::default()
        };
        let minted = in_time("minting", self.orchestrator.mint(&asked, None)).await?.context("minting")?;
        let plain = minted.nonce.as_str().to_owned();
        let placeholder =
            minted.placeholders.get(service).map_or_else(|| plain.clone(), |text| text.as_str().to_owned());
        let nonce = Nonce { id: minted.id, plain, placeholder };
        self.nonces.push(nonce.clone());
        Ok(nonce)
    }

    /// Revokes a nonce over the control API.
    pub(super) async fn revoke(&self, nonce: &Nonce) -> Result<(), Trouble> {
        in_time("revoking", self.orchestrator.revoke(&nonce.id)).await?.context("revoking")
    }

    /// The play is over.
    pub(super) fn curtain(&mut self) {
        self.played = Played { requests: self.upstream.received_count(), nonces: self.nonces.len() };
    }

    /// Stops the sidecar, and gathers what is left.
    pub(super) async fn strike(mut self) -> Result<Remains, Trouble> {
        let exit = self.sidecar.stop().await.context("stopping the sidecar")?;
        Ok(Remains {
            exit,
            audit: self.place.read(sidecar::AUDIT),
            log: self.place.read(sidecar::LOG),
            output: self.place.read(sidecar::OUTPUT),
            answers: self.agent.answers(),
            received: self.upstream.received(),
            nonces: std::mem::take(&mut self.nonces),
            played: self.played,
            canaries: self.canaries.clone(),
        })
    }
}

impl Nonce {
    /// The header value, shortened for showing.
    pub(super) fn shown(&self) -> String {
        short(&self.placeholder)
    }
}
