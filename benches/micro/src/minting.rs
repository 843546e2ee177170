//! Nonces and leases as the control API makes them: fresh randomness for each, and terms that differ as they do among
//! many agents.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use valetkey::lease::{Lease, MintError, Minter, NewLease};
use valetkey::model::nonce::NONCE_ENTROPY_BYTES;
use valetkey::model::{
    AgentName, IdentityRule, LeaseGrant, MinterName, Nonce, ScopeLimits, ScopeName, ServiceName, TaskName,
};

const AGENTS: usize = 50;
const SERVICES: usize = 20;
const MINTERS: usize = 4;

/// Leases that one task of an agent has.
const LEASES_PER_TASK: u64 = 4;

/// The first period of every second lease; the others live for [`LONG`].
pub const SHORT: Duration = Duration::from_secs(15 * 60);
/// The first period of the leases that [`SHORT`] is not for.
pub const LONG: Duration = Duration::from_secs(4 * 3600);

/// What a policy would have said of each agent, parsed once, as a policy is.
pub struct People {
    agents: Vec<Agent>,
    minters: Vec<MinterName>,
    is_talkative: bool,
}

struct Agent {
    name: AgentName,
    identities: Arc<[IdentityRule]>,
    grants: Vec<LeaseGrant>,
}

impl People {
    /// Agents with one to three services each, and who mints for them.
    #[must_use]
    pub fn new() -> Self {
        let agents = (0..AGENTS).map(|number| Agent {
            name: AgentName::parse(&format!("agent-{number}")).expect("a name"),
            identities: Arc::new([IdentityRule::Any]),
            grants: (0..=number % 3).map(|at| grant((number + at) % SERVICES)).collect(),
        });
        let minters = (0..MINTERS).map(|number| MinterName::parse(&format!("orchestrator-{number}")).expect("a name"));
        Self { agents: agents.collect(), minters: minters.collect(), is_talkative: true }
    }

    /// The same, who say of a lease no more than they must.
    #[must_use]
    pub fn plain() -> Self {
        Self { is_talkative: false, ..Self::new() }
    }

    /// The terms of the lease with this number. Leases of odd numbers live for [`SHORT`], the others for [`LONG`].
    #[must_use]
    pub fn terms(&self, number: u64) -> NewLease {
        let some = |every: u64, rest: u64| self.is_talkative && number % every == rest;
        let agent = &self.agents[at(number, AGENTS)];
        NewLease {
            lines: Vec::new(),
            agent: agent.name.clone(),
            identities: agent.identities.clone(),
            task: TaskName::parse(&format!("task-{:06}", number / LEASES_PER_TASK)).expect("a name"),
            minter: self.minters[at(number, MINTERS)].clone(),
            grants: agent.grants.clone(),
            ttl: if number % 2 == 1 { SHORT } else { LONG },
            lifetime: 2 * LONG,
            rate: None,
            minter_live_max: usize::MAX,
            max_uses: some(10, 3).then_some(100),
            budget: None,
            instance: None,
            on_behalf_of: some(8, 5).then(|| "ada@example.test".to_owned()),
            reason: None,
            labels: if self.is_talkative { labels(number) } else { BTreeMap::new() },
        }
    }
}

impl Default for People {
    fn default() -> Self {
        Self::new()
    }
}

fn at(number: u64, count: usize) -> usize {
    usize::try_from(number).unwrap_or_default() % count
}

fn grant(service: usize) -> LeaseGrant {
    let scope = |name: &str| (ScopeName::parse(name).expect("a name"), ScopeLimits::default());
    LeaseGrant {
        service: ServiceName::parse(&format!("service-{service}")).expect("a name"),
        scopes: vec![scope("read"), scope("write")],
    }
}

/// One label for every sixteenth, two for another sixteenth.
fn labels(number: u64) -> BTreeMap<String, String> {
    let ticket = ("ticket".to_owned(), format!("OPS-{number}"));
    match number % 16 {
        0 => BTreeMap::from([ticket]),
        1 => BTreeMap::from([ticket, ("region".to_owned(), "eu-west".to_owned())]),
        _ => BTreeMap::new(),
    }
}

/// A nonce of fresh randomness.
#[must_use]
pub fn random_nonce() -> Nonce {
    let mut entropy = [0; NONCE_ENTROPY_BYTES];
    getrandom::fill(&mut entropy).expect("the kernel has randomness");
    Nonce::from_entropy(&entropy)
}

/// Makes the lease with this number, as the control API does it: an accessor, a nonce, and the terms.
///
/// # Errors
/// As [`Minter::mint`].
pub fn mint(minter: &Minter, people: &People, number: u64) -> Result<(Nonce, Arc<Lease>), MintError> {
    let (id, nonce) = (minter.next_id(), random_nonce());
    let lease = minter.mint(id, &nonce, people.terms(number))?;
    Ok((nonce, lease))
}
