//! Where upstreams have sent on whoever presents a nonce: a client that follows a redirect with all its fields brings its
//! nonce to a host that nobody chose, and that is no theft.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use smallvec::SmallVec;

use super::Lease;
use crate::model::Destination;

/// Destinations that are kept of one lease; another one takes the oldest one's place.
const DESTINATIONS_MAX: usize = 4;
/// How long a client has to follow.
const KEPT: Duration = Duration::from_secs(60);

/// The latest destinations, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Redirects(Mutex<SmallVec<[(Destination, Instant); DESTINATIONS_MAX]>>);

impl Redirects {
    fn note(&self, destination: Destination, now: Instant) {
        let mut destinations = self.0.lock();
        destinations.retain(|(kept, _)| *kept != destination);
        if destinations.len() == DESTINATIONS_MAX {
            destinations.remove(0);
        }
        destinations.push((destination, now));
    }

    fn lead_to(&self, destination: &Destination, now: Instant) -> bool {
        let leads =
            |(kept, at): &(Destination, Instant)| kept == destination && now.saturating_duration_since(*at) < KEPT;
        self.0.lock().iter().any(leads)
    }
}

impl Lease {
    /// An upstream of its service has just answered with a redirect to this host and port.
    pub fn redirected_to(&self, destination: Destination, now: Instant) {
        self.busy_or_new().redirects.get_or_init(Box::default).note(destination, now);
    }

    /// True if an upstream of its service redirected to this host and port within the last minute.
    #[must_use]
    pub fn was_redirected_to(&self, destination: &Destination, now: Instant) -> bool {
        self.busy().and_then(|busy| busy.redirects.get()).is_some_and(|redirects| redirects.lead_to(destination, now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn destination(authority: &str) -> Destination {
        Destination::parse(authority, Some(443)).expect("a destination")
    }

    #[test]
    fn four_are_kept_for_a_minute() {
        let (redirects, now) = (Redirects::default(), Instant::now());
        for name in ["a.test", "b.test", "a.test", "c.test", "d.test", "e.test:8443"] {
            redirects.note(destination(name), now);
        }
        let kept = |at| {
            ["a.test", "b.test", "c.test", "d.test", "e.test:8443", "e.test"]
                .map(|name| redirects.lead_to(&destination(name), at))
        };
        let second = now + Duration::from_secs(59);
        assert_eq!(kept(second), [true, false, true, true, true, false], "the oldest one gave way");
        assert_eq!(kept(now + KEPT), [false; 6]);
    }
}
