//! Levels of risk in force: what monitors have said of agents and of tasks. Nothing ends by them; the next request is
//! decided with them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::RwLock;

use super::Terms;
use crate::model::{AgentName, Deadline, LevelName, Now, RiskCap, TaskName};

/// Levels in force at most.
const STATES_MAX: usize = 10_000;

/// Of whom it is said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RiskSubject {
    /// All nonces of an agent.
    Agent(AgentName),
    /// Those for a task, of these agents (`None`: of all).
    Task {
        /// The task, whoever minted for it.
        task: TaskName,
        /// The agents that the monitor watches.
        agents: Option<Vec<AgentName>>,
    },
}

/// A level in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restriction {
    /// Its name in the policy.
    pub level: LevelName,
    /// The most that it allows.
    pub cap: RiskCap,
    /// When it ends, by the clock that counts the time since boot: a wall clock that is set ends none.
    pub until: Deadline,
}

/// There are as many levels in force as there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there are too many levels of risk in force")]
pub struct TooMany;

/// All levels in force.
#[derive(Default)]
pub(super) struct Risks {
    /// How many there are: while it is zero, nobody looks further.
    count: AtomicUsize,
    states: RwLock<States>,
}

/// What one monitor says of a task, for these agents (`None`: for all).
type OfTask = (Option<Vec<AgentName>>, Restriction);

#[derive(Default)]
struct States {
    agents: HashMap<AgentName, Restriction>,
    /// A task can have several, of monitors that watch different agents.
    tasks: HashMap<TaskName, Vec<OfTask>>,
    /// When the first of them may be over.
    first_over: Duration,
}

impl Risks {
    /// Puts a level in force, in place of the one that the subject had; without one it has none from now on.
    pub(super) fn set(&self, subject: &RiskSubject, to: Option<Restriction>, now: &Now) -> Result<(), TooMany> {
        let mut states = self.states.write();
        states.prune(now.boot);
        states.remove(subject);
        let is_full = to.is_some() && states.len() >= STATES_MAX;
        if let Some(restriction) = to.filter(|_| !is_full) {
            states.insert(subject, restriction);
        }
        // Under the lock: whoever reads it afterwards and looks, finds what was put there.
        self.count.store(states.len(), Ordering::SeqCst);
        if is_full { Err(TooMany) } else { Ok(()) }
    }

    /// The strictest level in force for a lease.
    pub(super) fn of(&self, terms: &Terms<'_>, now: impl FnOnce() -> Now) -> Option<Restriction> {
        self.find(terms.agent, Some(terms.task), now)
    }

    /// The strictest level in force for an agent, and for a task of its.
    pub(super) fn find(
        &self,
        agent: &AgentName,
        task: Option<&TaskName>,
        now: impl FnOnce() -> Now,
    ) -> Option<Restriction> {
        if self.count.load(Ordering::SeqCst) == 0 {
            return None;
        }
        let states = self.states.read();
        let covers = |agents: &Option<Vec<AgentName>>| agents.as_ref().is_none_or(|list| list.contains(agent));
        let of_task =
            task.and_then(|task| states.tasks.get(task)).into_iter().flatten().filter(|(agents, _)| covers(agents));
        let all = states.agents.get(agent).into_iter().chain(of_task.map(|(_, restriction)| restriction));
        let boot = now().boot;
        all.filter(|restriction| !restriction.is_over(boot)).min_by_key(|restriction| restriction.cap).cloned()
    }

    /// Forgets what is over.
    pub(super) fn prune(&self, now: &Now) {
        if self.count.load(Ordering::SeqCst) == 0 || now.boot < self.states.read().first_over {
            return;
        }
        let mut states = self.states.write();
        states.prune(now.boot);
        self.count.store(states.len(), Ordering::SeqCst);
    }
}

impl Restriction {
    fn is_over(&self, boot: Duration) -> bool {
        boot >= self.until.boot
    }
}

impl States {
    fn len(&self) -> usize {
        self.agents.len() + self.tasks.values().map(Vec::len).sum::<usize>()
    }

    fn prune(&mut self, boot: Duration) {
        self.agents.retain(|_, known| !known.is_over(boot));
        self.tasks.retain(|_, list| {
            list.retain(|(_, known)| !known.is_over(boot));
            !list.is_empty()
        });
        let all = self.agents.values().chain(self.tasks.values().flatten().map(|(_, known)| known));
        self.first_over = all.map(|known| known.until.boot).min().unwrap_or(Duration::MAX);
    }

    fn remove(&mut self, subject: &RiskSubject) {
        match subject {
            RiskSubject::Agent(agent) => {
                self.agents.remove(agent);
            }
            RiskSubject::Task { task, agents } => {
                let Some(list) = self.tasks.get_mut(task) else { return };
                list.retain(|(known, _)| known != agents);
                if list.is_empty() {
                    self.tasks.remove(task);
                }
            }
        }
    }

    fn insert(&mut self, subject: &RiskSubject, restriction: Restriction) {
        self.first_over = self.first_over.min(restriction.until.boot);
        match subject {
            RiskSubject::Agent(agent) => {
                self.agents.insert(agent.clone(), restriction);
            }
            RiskSubject::Task { task, agents } => {
                self.tasks.entry(task.clone()).or_default().push((agents.clone(), restriction));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::lease::Store;
    use crate::lease::tests::terms;
    use crate::model::Risk;

    fn now(seconds: u64) -> Now {
        Now { boot: Duration::from_secs(seconds), wall: Timestamp::UNIX_EPOCH }
    }

    fn restriction(cap: RiskCap, seconds: u64) -> Restriction {
        let until = now(0).plus(Duration::from_secs(seconds));
        Restriction { level: LevelName::parse("l").unwrap(), cap, until }
    }

    fn agent(name: &str) -> RiskSubject {
        RiskSubject::Agent(AgentName::parse(name).unwrap())
    }

    fn task(agents: Option<&[&str]>) -> RiskSubject {
        let agents = agents.map(|names| names.iter().map(|name| AgentName::parse(name).unwrap()).collect());
        RiskSubject::Task { task: terms().task, agents }
    }

    /// The cap for the usual lease.
    fn cap(risks: &Risks, seconds: u64) -> Option<RiskCap> {
        let store = Store::new(crate::lease::Config::default(), crate::clock::ManualClock::new());
        let minter = store.minter();
        let nonce = crate::model::Nonce::from_entropy(&[1; 32]);
        let lease = minter.mint(minter.next_id(), &nonce, terms()).unwrap();
        risks.of(&lease.terms(), || now(seconds)).map(|restriction| restriction.cap)
    }

    #[test]
    fn the_strictest_counts_until_it_is_over() {
        let risks = Risks::default();
        assert_eq!(cap(&risks, 0), None);
        risks.set(&agent("billing"), Some(restriction(RiskCap::UpTo(Risk::Medium), 20)), &now(0)).unwrap();
        risks.set(&task(Some(&["billing"])), Some(restriction(RiskCap::Nothing, 10)), &now(0)).unwrap();
        risks.set(&task(Some(&["other"])), Some(restriction(RiskCap::Nothing, 90)), &now(0)).unwrap();
        risks.set(&agent("other"), Some(restriction(RiskCap::Nothing, 90)), &now(0)).unwrap();
        assert_eq!(cap(&risks, 9), Some(RiskCap::Nothing));
        assert_eq!(cap(&risks, 10), Some(RiskCap::UpTo(Risk::Medium)));
        assert_eq!(cap(&risks, 20), None);
    }

    #[test]
    fn a_new_level_takes_the_place_of_the_old_one_and_can_be_taken_back() {
        let risks = Risks::default();
        for subject in [agent("billing"), task(None)] {
            risks.set(&subject, Some(restriction(RiskCap::Nothing, 10)), &now(0)).unwrap();
            risks.set(&subject, Some(restriction(RiskCap::UpTo(Risk::Low), 10)), &now(0)).unwrap();
            assert_eq!(cap(&risks, 0), Some(RiskCap::UpTo(Risk::Low)));
            risks.set(&subject, None, &now(0)).unwrap();
            assert_eq!(cap(&risks, 0), None);
            assert_eq!(risks.count.load(Ordering::SeqCst), 0);
        }
    }

    #[test]
    fn they_are_bounded_and_what_is_over_makes_room() {
        let risks = Risks::default();
        for number in 0..STATES_MAX {
            risks.set(&agent(&format!("a-{number}")), Some(restriction(RiskCap::Nothing, 10)), &now(0)).unwrap();
        }
        assert_eq!(risks.set(&agent("more"), Some(restriction(RiskCap::Nothing, 30)), &now(9)), Err(TooMany));
        risks.set(&agent("more"), Some(restriction(RiskCap::Nothing, 30)), &now(10)).unwrap();
        assert_eq!(risks.count.load(Ordering::SeqCst), 1);
        risks.prune(&now(29));
        assert_eq!(risks.count.load(Ordering::SeqCst), 1);
        risks.prune(&now(30));
        assert_eq!(risks.count.load(Ordering::SeqCst), 0);
    }
}
