//! Where upstreams have sent on whoever presents a nonce: a client that follows a redirect with all its fields brings its
//! nonce to a host that nobody chose, and that is no theft.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use smallvec::SmallVec;

use super::Lease;
use crate::model::Host;

/// Hosts that are kept of one lease; another one takes the oldest one's place.
const HOSTS_MAX: usize = 4;
/// How long a client has to follow.
const KEPT: Duration = Duration::from_secs(60);

/// The latest hosts, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Redirects(Mutex<SmallVec<[(Host, Instant); HOSTS_MAX]>>);

impl Redirects {
    fn note(&self, host: Host, now: Instant) {
        let mut hosts = self.0.lock();
        hosts.retain(|(kept, _)| *kept != host);
        if hosts.len() == HOSTS_MAX {
            hosts.remove(0);
        }
        hosts.push((host, now));
    }

    fn lead_to(&self, host: &Host, now: Instant) -> bool {
        self.0.lock().iter().any(|(kept, at)| kept == host && now.saturating_duration_since(*at) < KEPT)
    }
}

impl Lease {
    /// An upstream of its service has just answered with a redirect to this host.
    pub fn redirected_to(&self, host: Host, now: Instant) {
        self.busy_or_new().redirects.get_or_init(Box::default).note(host, now);
    }

    /// True if an upstream of its service redirected to this host within the last minute.
    #[must_use]
    pub fn was_redirected_to(&self, host: &Host, now: Instant) -> bool {
        self.busy().and_then(|busy| busy.redirects.get()).is_some_and(|redirects| redirects.lead_to(host, now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str) -> Host {
        Host::parse(name).expect("a host")
    }

    #[test]
    fn four_are_kept_for_a_minute() {
        let (redirects, now) = (Redirects::default(), Instant::now());
        for name in ["a.test", "b.test", "a.test", "c.test", "d.test", "e.test"] {
            redirects.note(host(name), now);
        }
        let kept =
            |at| ["a.test", "b.test", "c.test", "d.test", "e.test"].map(|name| redirects.lead_to(&host(name), at));
        assert_eq!(kept(now + Duration::from_secs(59)), [true, false, true, true, true], "the oldest one gave way");
        assert_eq!(kept(now + KEPT), [false; 5]);
    }
}
