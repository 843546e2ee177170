//! Who may come in at the front: the nonce or the token in the proxy's credentials, and the client's certificate, before anything is opened for it.

use std::net::IpAddr;
use std::sync::Arc;

use http::HeaderMap;

use super::Proxy;
use super::accept::Connection;
use super::extract::{proxy_nonce, proxy_token};
use super::grant::{Presenter, present};
use super::rules::Rules;
use crate::audit::DecisionFacts;
use crate::identity::{Refused, TokenProof};
use crate::model::denial::Misplaced;
use crate::model::{Denial, NonceHash};
use crate::policy::ProxyAuth;

/// What came in as the proxy's credentials, or was shown in the handshake, and is good.
#[derive(Debug, Default)]
pub(super) struct Admitted {
    /// The nonce that vouches for the tunnel, or for the request in absolute form.
    pub(super) voucher: Option<NonceHash>,
    /// Whom the token proves that came in its place; or, without one, the client's certificate.
    pub(super) proof: Option<Arc<TokenProof>>,
}

/// Reads the proxy's credentials.
///
/// A nonce that is not required is only read here: what is wrong with it is said inside the tunnel, where an agent can read
/// it. A token is verified, once for the whole tunnel; one that proves nobody gets none. So is, where there is no token, the
/// certificate that the client has shown.
///
/// # Errors
/// [`Denial`]: they came in clear text over a network; the token or the certificate proves nobody; or they are required, and did not come or
/// do not hold.
pub(super) async fn admit(proxy: &Proxy, connection: &Connection, headers: &HeaderMap) -> Result<Admitted, Denial> {
    let rules = proxy.rules();
    let voucher = proxy_nonce(headers, &rules.policy)?;
    let is_looked_for = voucher.is_none() && rules.policy.proves_by_token();
    let token = if is_looked_for { proxy_token(headers)? } else { None };
    let required = rules.policy.proxy_auth();
    if !connection.is_encrypted() {
        stay_on_this_machine(connection.peer.ip(), (voucher.is_some(), token.is_some()), required)?;
    }
    let proof = match token {
        // Boxed, since it is seldom, and large.
        Some(token) => Some(Box::pin(rules.prover.prove(token, rules.policy.reattest_min())).await.map_err(unproven)?),
        None => certified(&rules, connection).await?,
    };
    match required {
        ProxyAuth::None => {}
        ProxyAuth::Required => require(proxy, &rules, connection, voucher.as_ref(), proof.as_deref())?,
    }
    Ok(Admitted { voucher, proof })
}

/// Whom the client's certificate proves. Where the policy has no use for certificates, none is looked at.
async fn certified(rules: &Rules, connection: &Connection) -> Result<Option<Arc<TokenProof>>, Denial> {
    let Some(shown) = connection.shown().filter(|_| rules.prover.verifier().certifies()) else { return Ok(None) };
    Box::pin(rules.prover.certify(shown)).await.map(Some).map_err(unproven)
}

/// A live nonce in the right hands, or an agent by its token or certificate.
fn require(
    proxy: &Proxy,
    rules: &Rules,
    connection: &Connection,
    voucher: Option<&NonceHash>,
    proof: Option<&TokenProof>,
) -> Result<(), Denial> {
    let Some(hash) = voucher else {
        let is_agent = proof.is_some_and(|proof| rules.policy.is_agent(&proof.identity));
        return if is_agent { Ok(()) } else { Err(Denial::AgentUnidentified) };
    };
    let mut facts = DecisionFacts { presented_in: Some("proxy"), ..DecisionFacts::default() };
    let presenter = Presenter { connection, proof };
    let presented = present(&proxy.leases, &rules.policy, presenter, hash, &mut facts);
    if let Some(alarm) = facts.alarm {
        proxy.raise(*alarm);
    }
    presented.map(drop)
}

fn unproven(refused: Refused) -> Denial {
    tracing::debug!(reason = %refused, "what an agent shows proves nothing");
    if refused.is_ours() {
        Denial::IdentityUnavailable
    } else {
        Denial::IdentityRefused { because: refused.to_string() }
    }
}

/// The connection is in clear text, so that neither a nonce nor a token is taken from beyond loopback, or asked for there.
fn stay_on_this_machine(peer: IpAddr, (has_nonce, has_token): (bool, bool), required: ProxyAuth) -> Result<(), Denial> {
    match (peer.to_canonical().is_loopback(), required) {
        (true, _) => Ok(()),
        (false, _) if has_nonce => Err(Denial::NonceMisplaced(Misplaced::Proxy)),
        (false, _) if has_token => Err(Denial::CleartextForbidden),
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
            stay_on_this_machine(peer.parse().unwrap(), (has_nonce, false), required).map_err(|denial| denial.code())
        };
        for near in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            assert_eq!(judge(near, true, ProxyAuth::Required), Ok(()), "{near}");
        }
        for far in ["10.0.0.1", "192.0.2.2", "169.254.0.1", "::ffff:10.0.0.1", "fd00::1", "0.0.0.0", "::"] {
            assert_eq!(judge(far, true, ProxyAuth::None), Err("nonce_misplaced"), "{far}");
            assert_eq!(judge(far, true, ProxyAuth::Required), Err("nonce_misplaced"), "{far}");
            assert_eq!(judge(far, false, ProxyAuth::Required), Err("cleartext_forbidden"), "no challenge: {far}");
            assert_eq!(judge(far, false, ProxyAuth::None), Ok(()), "{far}");
            for required in [ProxyAuth::None, ProxyAuth::Required] {
                let token = stay_on_this_machine(far.parse().unwrap(), (false, true), required);
                assert_eq!(token, Err(Denial::CleartextForbidden), "{far}");
            }
        }
    }
}
