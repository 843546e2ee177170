//! Who calls, as whom it may act, and over which agents.

use jiff::Timestamp;

use crate::model::{AgentName, Identity, MinterName, Risk};
use crate::policy::{MinterLimits, MinterRule, Permission, Policy};

use super::refusal::{Forbidden, Refusal};

/// The built-in minter: the sidecar's own user, where the policy gives that user no minter of its own.
const SELF_MINTER: &str = "self";
/// The built-in minter of a supervised sidecar: whoever holds the other end of its channel.
const SUPERVISED_MINTER: &str = "run";
/// Said to a caller with the sidecar's own uid.
const SAME_UID_WARNING: &str = "You call with the sidecar's own uid: an agent that runs with this uid can mint nonces too, \
                                and read the sidecar's files. Run the agent as another user.";

/// All that there is to do.
const ALL: [Permission; 5] =
    [Permission::Mint, Permission::Read, Permission::Revoke, Permission::Events, Permission::Risk];

/// Whether a minter has a permission over an agent by now, whoever acts for it: the policy may have changed since it
/// minted.
pub(super) fn still_may(
    policy: &Policy,
    name: &MinterName,
    permission: Permission,
    agent: &AgentName,
) -> Result<(), Refusal> {
    match policy.minter(name) {
        Some(minter) if !minter.may.contains(&permission) => Err(Refusal::Forbidden(Forbidden::Permission)),
        Some(minter) if !covers(minter, agent) => Err(Refusal::Forbidden(Forbidden::ForeignAgent)),
        Some(_) => Ok(()),
        None if [SELF_MINTER, SUPERVISED_MINTER].contains(&name.as_str()) => Ok(()),
        None => Err(Refusal::Forbidden(Forbidden::Permission)),
    }
}

/// Live nonces that a minter may have by now.
pub(super) fn nonces_max(policy: &Policy, name: &MinterName) -> usize {
    policy.minter(name).map_or_else(MinterLimits::default, |minter| minter.limits).nonces_max
}

/// Whether what is so risky is within a minter's reach by now.
pub(super) fn still_reaches(policy: &Policy, name: &MinterName, risk: Risk) -> Result<(), Refusal> {
    let is_beyond = policy.minter(name).is_some_and(|minter| !reaches(minter, risk));
    if is_beyond { Err(Refusal::Forbidden(Forbidden::Risk)) } else { Ok(()) }
}

/// A caller who may act as at least one minter.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    pub(super) identity: Identity,
    pub(super) minters: Vec<MinterRule>,
    /// When what proved it is over, where that has an end of its own.
    pub(super) until: Option<Timestamp>,
    /// What it should know about this set-up.
    pub(super) warning: Option<&'static str>,
}

impl Caller {
    /// Looks the proven identity up in the policy, on every call.
    pub(super) fn authenticate(policy: &Policy, own_uid: u32, proven: Option<&Identity>) -> Result<Self, Refusal> {
        let identity = proven.ok_or(Refusal::Unauthenticated)?;
        // No agent is the supervisor: the channel is no path that anybody could open.
        if *identity == Identity::Supervisor {
            let minters = vec![built_in(SUPERVISED_MINTER)];
            return Ok(Self { identity: identity.clone(), minters, until: None, warning: None });
        }
        // Before the minters: an agent's uid never mints, even where the policy lists it as a minter's.
        if policy.is_agent(identity) {
            return Err(Refusal::Forbidden(Forbidden::Agent));
        }
        let is_own = *identity == Identity::Uid(own_uid);
        let mut minters: Vec<_> = policy.minters_for(identity).into_iter().cloned().collect();
        // What the policy says of this uid is not widened.
        if is_own && minters.is_empty() {
            minters.push(built_in(SELF_MINTER));
        }
        if minters.is_empty() {
            return Err(Refusal::Unauthenticated);
        }
        Ok(Self { identity: identity.clone(), minters, until: None, warning: is_own.then_some(SAME_UID_WARNING) })
    }

    /// The minter as which the caller has this permission over this agent.
    pub(super) fn acting(&self, permission: Permission, agent: &AgentName) -> Result<&MinterRule, Refusal> {
        self.require(permission)?;
        self.having(permission).find(|minter| covers(minter, agent)).ok_or(Refusal::Forbidden(Forbidden::ForeignAgent))
    }

    /// The minter as which the caller mints for this agent something so risky.
    pub(super) fn minting(&self, agent: &AgentName, risk: Risk) -> Result<&MinterRule, Refusal> {
        self.acting(Permission::Mint, agent)?;
        let mut minters = self.having(Permission::Mint).filter(|minter| covers(minter, agent));
        minters.find(|minter| reaches(minter, risk)).ok_or(Refusal::Forbidden(Forbidden::Risk))
    }

    /// The minter of this name as which the caller renews or delegates for this agent something so risky.
    pub(super) fn minting_as(&self, name: &MinterName, agent: &AgentName, risk: Risk) -> Result<&MinterRule, Refusal> {
        let minter = self.acting_as(name, Permission::Mint, agent)?;
        if reaches(minter, risk) { Ok(minter) } else { Err(Refusal::Forbidden(Forbidden::Risk)) }
    }

    /// The minter of this name as which the caller has this permission over this agent.
    pub(super) fn acting_as(
        &self,
        name: &MinterName,
        permission: Permission,
        agent: &AgentName,
    ) -> Result<&MinterRule, Refusal> {
        self.acting(permission, agent)?;
        let same = self.having(permission).find(|minter| minter.name == *name && covers(minter, agent));
        same.ok_or(Refusal::Forbidden(Forbidden::ForeignMinter))
    }

    /// Refuses a caller who has this permission over nobody.
    pub(super) fn require(&self, permission: Permission) -> Result<(), Refusal> {
        self.having(permission).next().map(|_| ()).ok_or(Refusal::Forbidden(Forbidden::Permission))
    }

    /// True where the caller has this permission over this agent.
    pub(super) fn has(&self, permission: Permission, agent: &AgentName) -> bool {
        self.having(permission).any(|minter| covers(minter, agent))
    }

    /// True where the caller has this permission over all agents there are and will be.
    pub(super) fn has_over_all(&self, permission: Permission) -> bool {
        self.having(permission).any(|minter| minter.agents.is_none())
    }

    /// The agents over whom the caller has this permission, each once and in order; `None` is all there are and will be.
    pub(super) fn agents(&self, permission: Permission) -> Option<Vec<AgentName>> {
        let lists: Option<Vec<_>> = self.having(permission).map(|minter| minter.agents.as_deref()).collect();
        let mut agents = lists?.concat();
        agents.sort_unstable();
        agents.dedup();
        Some(agents)
    }

    /// The minters as which the caller has this permission.
    pub(super) fn names(&self, permission: Permission) -> Vec<MinterName> {
        self.having(permission).map(|minter| minter.name.clone()).collect()
    }

    /// Who it is for a record: as which minter it does what needs this permission, and how it was proven.
    pub(super) fn described(&self, permission: Permission) -> String {
        let names: Vec<_> = self.having(permission).map(|minter| minter.name.as_str()).collect();
        format!("{} ({})", names.join(", "), self.identity)
    }

    /// True where the caller has any permission over this agent.
    pub(super) fn knows(&self, agent: &AgentName) -> bool {
        self.minters.iter().any(|minter| covers(minter, agent))
    }

    fn having(&self, permission: Permission) -> impl Iterator<Item = &MinterRule> {
        self.minters.iter().filter(move |minter| minter.may.contains(&permission))
    }
}

fn covers(minter: &MinterRule, agent: &AgentName) -> bool {
    minter.agents.as_ref().is_none_or(|agents| agents.contains(agent))
}

fn reaches(minter: &MinterRule, risk: Risk) -> bool {
    minter.max_risk.is_none_or(|max| risk <= max)
}

/// May do everything, for all agents of the policy.
fn built_in(name: &str) -> MinterRule {
    MinterRule {
        name: MinterName::parse(name).expect("a few letters are a name"),
        identities: Vec::new(),
        agents: None,
        may: ALL.to_vec(),
        max_risk: None,
        limits: MinterLimits::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::fixture::{self, agent};

    const OWN: u32 = 1000;

    fn authenticate(uid: u32) -> Result<Caller, Refusal> {
        Caller::authenticate(&fixture::policy(), OWN, Some(&Identity::Uid(uid)))
    }

    #[test]
    fn strangers_and_the_unproven_are_refused() {
        assert_eq!(authenticate(4242).err(), Some(Refusal::Unauthenticated));
        let unproven = Caller::authenticate(&fixture::policy(), OWN, None);
        assert_eq!(unproven.err(), Some(Refusal::Unauthenticated));
    }

    #[test]
    fn an_agents_uid_never_mints_not_even_as_a_listed_minter_or_as_ourselves() {
        assert_eq!(authenticate(fixture::AGENT_UID).err(), Some(Refusal::Forbidden(Forbidden::Agent)));
        assert_eq!(authenticate(fixture::AGENT_AND_MINTER_UID).err(), Some(Refusal::Forbidden(Forbidden::Agent)));
        let own = Identity::Uid(fixture::AGENT_UID);
        let refused = Caller::authenticate(&fixture::policy(), fixture::AGENT_UID, Some(&own));
        assert_eq!(refused.err(), Some(Refusal::Forbidden(Forbidden::Agent)));
    }

    #[test]
    fn our_own_uid_may_mint_and_is_warned() {
        let caller = authenticate(OWN).unwrap();
        assert_eq!(caller.minters[0].name.as_str(), "self");
        assert!(caller.acting(Permission::Mint, &agent("research")).is_ok());
        assert!(caller.warning.is_some());
    }

    #[test]
    fn the_supervisor_is_a_minter_of_its_own_for_all_agents() {
        let supervisor = Some(&Identity::Supervisor);
        // Even where the sidecar, and with it the supervisor, runs with an agent's uid.
        let caller = Caller::authenticate(&fixture::policy(), fixture::AGENT_UID, supervisor).unwrap();
        assert_eq!((caller.minters[0].name.as_str(), caller.minters.len()), ("run", 1));
        assert_eq!((caller.identity.to_string().as_str(), caller.warning), ("supervisor", None));
        for permission in ALL {
            assert!(caller.acting(permission, &agent("research")).is_ok());
        }
    }

    #[test]
    fn only_the_same_minter_acts_as_it() {
        let orchestrator = authenticate(fixture::ORCHESTRATOR_UID).unwrap();
        let acting = |name: &str, whose: &str| {
            let name = MinterName::parse(name).unwrap();
            orchestrator.acting_as(&name, Permission::Mint, &agent(whose)).map(|minter| minter.name.to_string())
        };
        assert_eq!(acting("orchestrator", "billing"), Ok("orchestrator".into()));
        assert_eq!(acting("self", "billing"), Err(Refusal::Forbidden(Forbidden::ForeignMinter)));
        assert_eq!(acting("orchestrator", "research"), Err(Refusal::Forbidden(Forbidden::ForeignAgent)));
    }

    #[test]
    fn the_policys_word_on_our_own_uid_is_not_widened() {
        let policy = fixture::policy();
        let own = Identity::Uid(fixture::ORCHESTRATOR_UID);
        let caller = Caller::authenticate(&policy, fixture::ORCHESTRATOR_UID, Some(&own)).unwrap();
        assert!(caller.warning.is_some());
        let refused = caller.acting(Permission::Mint, &agent("research")).map(|_| ());
        assert_eq!(refused, Err(Refusal::Forbidden(Forbidden::ForeignAgent)));
    }

    #[test]
    fn permissions_hold_over_ones_own_agents_only() {
        let orchestrator = authenticate(fixture::ORCHESTRATOR_UID).unwrap();
        assert!(orchestrator.warning.is_none());
        assert_eq!(orchestrator.acting(Permission::Mint, &agent("billing")).unwrap().name.as_str(), "orchestrator");
        assert!(!orchestrator.has(Permission::Read, &agent("research")));
        let auditor = authenticate(fixture::AUDITOR_UID).unwrap();
        assert!(auditor.has(Permission::Read, &agent("research")));
        let refused = auditor.acting(Permission::Mint, &agent("billing")).map(|_| ());
        assert_eq!(refused, Err(Refusal::Forbidden(Forbidden::Permission)));
    }
}
