//! What is remembered for seconds alone, filled by one agent as fast as it can: nothing of it is another's.

use futures_util::future::join_all;
use serde_json::json;

use super::built;
use crate::support::agent::get;
use crate::support::{FakeUpstream, Stage, policies};

const DOOR: &str = "valetkey.internal";
/// Of the leases that called lately at the agents' own door so many are remembered of one agent, while there are no others.
const REMEMBERED: usize = 2048;
const LEASES: usize = REMEMBERED + 20;
/// Calls that are under way at once.
const AT_ONCE: usize = 44;

fn policy() -> String {
    let uid = rustix::process::geteuid().as_raw();
    let modest = "\n[agents.modest]\nidentity = [\"any\"]\ngrants = { api = [\"read\"] }\n";
    let minter = format!(
        "\n[minters.office]\nidentity = [\"uid:{uid}\"]\nagents = [\"*\"]\nmay = [\"mint\"]\nrate = \"1000000/s\"\n"
    );
    policies::ONE_API.to_owned() + modest + &minter
}

#[tokio::test]
async fn an_agent_that_calls_at_its_door_with_all_nonces_it_can_get_leaves_room_for_others() {
    let library = built("slow_clock").to_str().expect("a path");
    let upstream = FakeUpstream::start(&["api.test"]).await;
    let stage = Stage::of(&policy(), upstream, |builder| builder.environment("LD_PRELOAD", library)).await;
    let mint = async |agent: &str| {
        let wanted = json!({"agent": agent, "task": "t", "service": "api", "scope": "read", "ttl": "10m"});
        stage.sidecar.orchestrator().mint_with(wanted).await.nonce
    };
    let mut nonces = Vec::new();
    for _ in (0..LEASES).step_by(AT_ONCE) {
        nonces.extend(join_all((0..AT_ONCE).map(|_| mint("worker"))).await);
    }
    nonces.truncate(LEASES);
    let mut tunnel = stage.sidecar.agent().tunnel_h2(DOOR).await;
    let mut outcomes = Vec::new();
    for nonce in &nonces {
        let reply = tunnel.send(get(DOOR, "/v1/self", nonce)).await;
        outcomes.push((reply.status.as_u16(), reply.refusal().map(str::to_owned)));
    }
    let (through, refused) = outcomes.split_at(REMEMBERED);
    assert!(through.iter().all(|(status, _)| *status == 200), "{:?}", through.iter().find(|one| one.0 != 200));
    let is_limited = |(status, code): &(u16, Option<String>)| *status == 429 && code.as_deref() == Some("rate_limited");
    assert!(refused.iter().all(is_limited), "{refused:?}");
    assert_eq!(tunnel.send(get(DOOR, "/v1/self", &nonces[0])).await.status, 200, "those that are known go on");
    let modest = mint("modest").await;
    for _ in 0..2 {
        assert_eq!(tunnel.send(get(DOOR, "/v1/self", &modest)).await.status, 200, "another agent is let in");
    }
}
