//! The agent's own door: on a host of our own an agent acts for itself, with the nonce that it already holds.
//!
//! The proxy settles who presents which lease and has it on record; what may then be done to that lease is the control
//! plane's. This is all that the two know of each other: a third handle on the lease map, beside `Minter` and `Lookup`,
//! which reaches one lease and nothing else.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use http_body_util::combinators::UnsyncBoxBody;

use crate::lease::Lease;
use crate::model::{Host, Identity};

/// The host on which the sidecar itself answers. It is never resolved and never dialled, and no policy may list it.
pub const HOST: &str = "valetkey.internal";

/// The lease that is presented: read with `GET`, revoked with `DELETE`.
pub const OWN_PATH: &str = "/v1/self";

/// True for the host itself.
#[must_use]
pub fn is_ours(host: &Host) -> bool {
    host.as_str() == HOST
}

/// True for the host itself and for every name below it: none of them is ever anybody else's.
#[must_use]
pub fn is_reserved(host: &Host) -> bool {
    host.as_str().strip_suffix(HOST).is_some_and(|label| label.is_empty() || label.ends_with('.'))
}

/// The body of a call broke off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the body broke off")]
pub struct BrokeOff;

/// A call without its nonce, which was lifted out; the body is not read yet.
pub type Call = Request<UnsyncBoxBody<Bytes, BrokeOff>>;

/// A live lease, in the hands of whom it is bound to.
#[derive(Debug, Clone)]
pub struct Holder {
    /// The lease.
    pub lease: Arc<Lease>,
    /// Who presents it, as far as that was proven.
    pub identity: Option<Identity>,
}

/// What the agent gets.
#[derive(Debug)]
pub struct Answered {
    /// The whole answer.
    pub response: Response<Full<Bytes>>,
    /// The code of the refusal, if it is one.
    pub refused: Option<&'static str>,
}

/// An answer to come.
pub type Answering<'a> = Pin<Box<dyn Future<Output = Answered> + Send + 'a>>;

/// Reads, renews, delegates and revokes the lease that is presented, and no other.
pub trait SelfService: Send + Sync {
    /// Answers one call of a holder.
    fn answer(&self, holder: Holder, call: Call) -> Answering<'_>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_is_one_and_all_names_below_are_reserved() {
        let judge = |text: &str| {
            let host = Host::parse(text).unwrap();
            (is_ours(&host), is_reserved(&host))
        };
        for own in ["valetkey.internal", "VALETKEY.Internal", "valetkey.internal."] {
            assert_eq!(judge(own), (true, true), "{own}");
        }
        assert_eq!(judge("api.valetkey.internal"), (false, true));
        for other in ["xvaletkey.internal", "valetkey.internal.test", "internal", "valetkey", "127.0.0.1"] {
            assert_eq!(judge(other), (false, false), "{other}");
        }
    }
}
