//! Who may come in at the front: the nonce in the proxy's credentials, before anything is opened for it.

use std::net::IpAddr;

use http::HeaderMap;

use super::Proxy;
use super::accept::Connection;
use super::extract::proxy_nonce;
use super::grant::present;
use crate::audit::DecisionFacts;
use crate::model::denial::Misplaced;
use crate::model::{Denial, NonceHash};
use crate::policy::ProxyAuth;

/// The nonce that vouches for a tunnel or for a request in absolute form, if one came.
///
/// Unless it is required, it is only read here: what is wrong with it is said inside the tunnel, where an agent can read it.
///
/// # Errors
/// [`Denial`]: it came in clear text over a network; or it is required, and did not come or does not hold.
pub(super) fn admit(proxy: &Proxy, connection: &Connection, headers: &HeaderMap) -> Result<Option<NonceHash>, Denial> {
    let rules = proxy.rules();
    let voucher = proxy_nonce(headers, &rules.policy)?;
    let required = rules.policy.proxy_auth();
    stay_on_this_machine(connection.peer.ip(), voucher.is_some(), required)?;
    match (required, voucher) {
        (ProxyAuth::None, voucher) => Ok(voucher),
        (ProxyAuth::Required, None) => Err(Denial::AgentUnidentified),
        (ProxyAuth::Required, Some(hash)) => {
            let mut facts = DecisionFacts { presented_in: Some("proxy"), ..DecisionFacts::default() };
            let presented = present(&proxy.leases, &rules.policy, connection, &hash, &mut facts);
            if let Some(alarm) = facts.alarm {
                proxy.raise(*alarm);
            }
            presented.map(|_| Some(hash))
        }
    }
}

/// The listener speaks plain HTTP, so that a nonce is neither taken from beyond loopback nor asked for there.
fn stay_on_this_machine(peer: IpAddr, has_nonce: bool, required: ProxyAuth) -> Result<(), Denial> {
    match (peer.to_canonical().is_loopback(), required) {
        (true, _) => Ok(()),
        (false, _) if has_nonce => Err(Denial::NonceMisplaced(Misplaced::Proxy)),
        (false, ProxyAuth::Required) => Err(Denial::CleartextForbidden),
        (false, ProxyAuth::None) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_is_taken_over_loopback_alone() {
        let judge = |peer: &str, has_nonce, required| {
            stay_on_this_machine(peer.parse().unwrap(), has_nonce, required).map_err(|denial| denial.code())
        };
        for near in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            assert_eq!(judge(near, true, ProxyAuth::Required), Ok(()), "{near}");
        }
        for far in ["10.0.0.1", "192.0.2.2", "169.254.0.1", "::ffff:10.0.0.1", "fd00::1", "0.0.0.0", "::"] {
            assert_eq!(judge(far, true, ProxyAuth::None), Err("nonce_misplaced"), "{far}");
            assert_eq!(judge(far, true, ProxyAuth::Required), Err("nonce_misplaced"), "{far}");
            assert_eq!(judge(far, false, ProxyAuth::Required), Err("cleartext_forbidden"), "no challenge: {far}");
            assert_eq!(judge(far, false, ProxyAuth::None), Ok(()), "{far}");
        }
    }
}
