//! What agents may have at a time of what all of them share: connections, and requests under way.
//!
//! A connection is somebody's before anything was said on it: a user's of this machine, or an address's. As long as half
//! of the places are free nobody asks whose it is; the other half is shared out ([`Fair`]). Once a nonce is accepted on
//! it, it counts for the nonce's agent, too. A request counts for its agent from its permit to the end of its bodies.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use super::Limits;
use super::fair::{Fair, Place, Whose};
use crate::model::{AgentName, Denial, Identity};

/// Who opens connections, as far as the connection itself tells.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Caller {
    /// A user of this machine.
    Proven(Identity),
    /// An address; of IPv6 the network, in which one machine may have as many as it likes.
    At(IpAddr),
}

impl Caller {
    /// The owner, if there is one, else where it comes from.
    pub(super) fn of(owner: Option<&Identity>, peer: IpAddr) -> Self {
        owner.cloned().map_or_else(|| Self::At(network(peer)), Self::Proven)
    }
}

/// A network of IPv6 is 64 bits long (RFC 4291, 2.5.1).
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
    }
}

/// The rooms.
#[derive(Debug)]
pub(super) struct Crowd {
    /// Connections that nobody asked whose they are.
    unasked: AtomicUsize,
    unasked_max: usize,
    by_caller: Arc<Fair<Caller>>,
    by_agent: Arc<Fair>,
    requests: Arc<Fair>,
}

impl Crowd {
    pub(super) fn new(limits: &Limits) -> Arc<Self> {
        let unasked_max = limits.connections_max / 2;
        Arc::new(Self {
            unasked: AtomicUsize::new(0),
            unasked_max,
            by_caller: Fair::new(limits.connections_max - unasked_max),
            // All together they are bounded where they are accepted.
            by_agent: Fair::capped(usize::MAX, limits.agent_connections_max),
            requests: Fair::capped(limits.requests_max, limits.agent_requests_max),
        })
    }

    /// A connection's place, until it is dropped. `caller` is asked for only where it matters: that takes a while.
    pub(super) fn connection(self: &Arc<Self>, caller: impl FnOnce() -> Caller) -> Option<Seat> {
        let another = |taken: usize| (taken < self.unasked_max).then_some(taken + 1);
        if self.unasked.fetch_update(Ordering::Relaxed, Ordering::Relaxed, another).is_ok() {
            return Some(Seat::Unasked(self.clone()));
        }
        self.by_caller.take(caller(), 1).map(|place| Seat::Callers { _place: place })
    }

    /// A request's place, until it is dropped, for one that comes with this agent's nonce, or with none.
    ///
    /// # Errors
    /// [`Denial::TooManyAtOnce`]: the agent has its share. [`Denial::Overloaded`]: it has nothing, and nothing is left.
    pub(super) fn request(&self, whose: &Whose) -> Result<Place, Denial> {
        self.requests.take(whose.clone(), 1).ok_or_else(|| match self.requests.has_any(whose) {
            true => Denial::TooManyAtOnce,
            false => Denial::Overloaded,
        })
    }

    /// The same for the connection that it comes on, which belongs to the first agent of whom a nonce came.
    ///
    /// # Errors
    /// [`Denial::TooManyAtOnce`]: the agent has as many connections as it may have.
    pub(super) fn belongs(&self, place: &OnceLock<Place>, agent: &AgentName) -> Result<(), Denial> {
        if place.get().is_none() {
            let taken = self.by_agent.take(Some(agent.clone()), 1).ok_or(Denial::TooManyAtOnce)?;
            // Where two come at the same time, one is given back.
            let _ = place.set(taken);
        }
        Ok(())
    }
}

/// A connection's place among those that callers have.
#[derive(Debug)]
pub(super) enum Seat {
    /// Whose it is was not asked.
    Unasked(Arc<Crowd>),
    /// It is its caller's.
    Callers {
        /// Given back on drop.
        _place: Place<Caller>,
    },
}

impl Drop for Seat {
    fn drop(&mut self) {
        match self {
            Self::Unasked(crowd) => _ = crowd.unasked.fetch_sub(1, Ordering::Relaxed),
            Self::Callers { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crowd(connections_max: usize, requests_max: usize) -> Arc<Crowd> {
        Crowd::new(&Limits {
            connections_max,
            requests_max,
            agent_requests_max: requests_max,
            agent_connections_max: 2,
            ..Limits::default()
        })
    }

    fn user(uid: u32) -> Caller {
        Caller::of(Some(&Identity::Uid(uid)), IpAddr::from([127, 0, 0, 1]))
    }

    #[test]
    fn nobody_asks_whose_a_connection_is_while_half_is_free_and_then_each_leaves_some() {
        let crowd = crowd(100, 1);
        let all_of = |uid| -> Vec<Seat> { std::iter::from_fn(|| crowd.connection(|| user(uid))).take(1_000).collect() };
        let early: Vec<Seat> = (0..50).filter_map(|_| crowd.connection(|| unreachable!("not asked"))).collect();
        assert_eq!(early.len(), 50);
        let greedy = all_of(1);
        assert_eq!((greedy.len(), all_of(2).len()), (25, 13), "half of what is left each time");
        drop(early);
        assert!(crowd.connection(|| unreachable!("half is free again")).is_some());
        drop(greedy);
        assert_eq!((crowd.unasked.load(Ordering::Relaxed), all_of(3).len()), (0, 75));
    }

    #[test]
    fn a_network_of_ipv6_is_one_caller() {
        let at = |text: &str| Caller::of(None, text.parse().unwrap());
        assert_eq!(at("2001:db8::1"), at("2001:db8::ffff:1"));
        assert_ne!(at("2001:db8::1"), at("2001:db8:0:1::1"));
        assert_eq!(at("::ffff:192.0.2.1"), at("192.0.2.1"));
        assert_ne!(at("192.0.2.2"), at("192.0.2.1"));
    }

    #[test]
    fn who_has_its_share_is_told_another_thing_than_who_finds_nothing_left() {
        let crowd = crowd(1, 3);
        let agent = |name| Some(AgentName::parse(name).unwrap());
        let places = [crowd.request(&agent("a")).unwrap(), crowd.request(&agent("b")).unwrap()];
        assert_eq!(crowd.request(&agent("a")).unwrap_err(), Denial::TooManyAtOnce);
        let last = crowd.request(&None).unwrap();
        assert_eq!(crowd.request(&agent("c")).unwrap_err(), Denial::Overloaded);
        drop((places, last));
        assert!(crowd.request(&agent("c")).is_ok());
    }

    #[test]
    fn a_connection_belongs_to_the_first_agent_until_it_ends() {
        let (crowd, agent) = (crowd(1, 1), AgentName::parse("a").unwrap());
        let places = [OnceLock::new(), OnceLock::new(), OnceLock::new()];
        for _ in 0..3 {
            assert_eq!((crowd.belongs(&places[0], &agent), crowd.belongs(&places[1], &agent)), (Ok(()), Ok(())));
        }
        assert_eq!(crowd.belongs(&places[2], &agent), Err(Denial::TooManyAtOnce));
        assert_eq!(crowd.belongs(&places[0], &AgentName::parse("b").unwrap()), Ok(()));
        drop(places);
        assert_eq!(crowd.belongs(&OnceLock::new(), &agent), Ok(()));
    }
}
