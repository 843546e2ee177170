//! The wall clock is set, forward and back.

use std::time::Duration;

use super::{Faked, outcome};
use crate::support::agent::get;

const HOUR: i64 = 60 * 60;

#[tokio::test]
async fn a_wall_clock_set_forward_past_the_expiry_ends_a_nonce_for_good() {
    let Some(faked) = Faked::wall().await else { return };
    let minted = faked.mint("10m").await;
    let agent = faked.0.sidecar.agent();
    let (mut h1, mut h2) = (agent.tunnel("api.test").await, agent.tunnel_h2("api.test").await);
    for tunnel in [&mut h1, &mut h2] {
        assert_eq!(outcome(&tunnel.send(get("api.test", "/x", &minted.nonce)).await), (200, None));
    }
    faked.set_wall(9 * 60);
    assert_eq!(outcome(&h1.send(get("api.test", "/x", &minted.nonce)).await), (200, None), "not over yet");
    faked.set_wall(11 * 60);
    assert_eq!(faked.strayed().await, 11, "the clock is faked");
    assert_eq!(outcome(&h1.send(get("api.test", "/x", &minted.nonce)).await), (401, Some("nonce_expired")));
    faked.set_wall(0);
    assert_eq!(faked.strayed().await, 0);
    for tunnel in [&mut h1, &mut h2] {
        let reply = tunnel.send(get("api.test", "/x", &minted.nonce)).await;
        assert_eq!(outcome(&reply), (401, Some("nonce_expired")), "set right again, it does not come to life");
    }
    assert_eq!(faked.0.upstream.seen().len(), 3);
    let is_its_end = |record: &serde_json::Value| record["type"] == "lease_end" && record["cause"] == "expired";
    faked.0.sidecar.audited(|record| is_its_end(record) && record["nonce.id"] == minted.id.as_str()).await;
}

#[tokio::test]
async fn a_wall_clock_set_back_lengthens_nothing() {
    let Some(faked) = Faked::wall().await else { return };
    let (minted, mut tunnel) = (faked.mint("1s").await, faked.0.sidecar.agent().tunnel("api.test").await);
    faked.set_wall(-HOUR);
    assert_eq!(faked.strayed().await, -60, "the clock is faked");
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let reply = tunnel.send(get("api.test", "/x", &minted.nonce)).await;
    assert_eq!(outcome(&reply), (401, Some("nonce_expired")), "its second is over, whatever the wall clock says");
    assert_eq!(faked.0.upstream.seen().len(), 0);
}

#[tokio::test]
async fn what_was_minted_while_the_wall_clock_was_behind_is_over_once_that_is_right() {
    let Some(faked) = Faked::wall().await else { return };
    faked.set_wall(-HOUR);
    let (minted, mut tunnel) = (faked.mint("10m").await, faked.0.sidecar.agent().tunnel("api.test").await);
    assert_eq!(outcome(&tunnel.send(get("api.test", "/x", &minted.nonce)).await), (200, None));
    faked.set_wall(0);
    let reply = tunnel.send(get("api.test", "/x", &minted.nonce)).await;
    assert_eq!(outcome(&reply), (401, Some("nonce_expired")), "the clock that says over decides");
}
