//! Requests over open connections race the answer of `revoke`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;

use crate::support::agent::{Tunnel, get, read};
use crate::support::policies::ONE_API;
use crate::support::{Agent, Stage};

/// Rounds, each with a nonce of its own: 200, or as many as `VALETKEY_TEST_ROUNDS` says.
fn rounds() -> usize {
    std::env::var("VALETKEY_TEST_ROUNDS").map_or(200, |rounds| rounds.parse().expect("a number"))
}

/// Revocations that are raced at a time.
const LANES: usize = 8;

/// Rounds with one sidecar, so that what is kept of them for the assertions has an end.
const OF_A_STAGE: usize = 5000;

/// The one API's, with an agent for each lane, since what one gives up upstream is its own loss, and with an orchestrator
/// that is faster than one is by default.
fn policy() -> String {
    let agent = |lane| format!("[agents.{}]\nidentity = [\"any\"]\ngrants = {{ api = [\"read\"] }}\n", agent_of(lane));
    let (agents, uid) = ((0..LANES).map(agent).collect::<String>(), rustix::process::getuid().as_raw());
    let minter = "agents = [\"*\"]\nmay = [\"mint\", \"read\", \"revoke\"]\nrate = \"100000/s\"";
    format!("{ONE_API}\n{agents}\n[minters.fast]\nidentity = [\"uid:{uid}\"]\n{minter}\n")
}

fn agent_of(lane: usize) -> String {
    format!("lane-{lane}")
}

/// A client with one connection, which is opened anew where a revocation has cut it.
struct Client {
    agent: Agent,
    is_h2: bool,
    tunnel: Tunnel,
}

impl Client {
    async fn of(agent: Agent, is_h2: bool) -> Self {
        let tunnel = Self::open(&agent, is_h2).await;
        Self { agent, is_h2, tunnel }
    }

    async fn open(agent: &Agent, is_h2: bool) -> Tunnel {
        if is_h2 { agent.tunnel_h2("api.test").await } else { agent.tunnel("api.test").await }
    }

    /// Status and refusal; nothing where the answer was cut.
    async fn ask(&mut self, path: &str, nonce: &str) -> Option<(u16, Option<String>)> {
        let answer = match self.tunnel.try_start(get("api.test", path, nonce)).await {
            Ok(response) => read(response).await.ok(),
            Err(_) => None,
        };
        if answer.is_none() {
            self.tunnel = Self::open(&self.agent, self.is_h2).await;
        }
        answer.map(|reply| (reply.status.as_u16(), reply.refusal().map(str::to_owned)))
    }

    /// Asks until the revocation has been answered, and once more.
    async fn race(mut self, round: usize, nonce: String, is_over: Arc<AtomicBool>) -> Self {
        let refused = Some((401, Some("nonce_revoked".to_owned())));
        loop {
            let is_late = is_over.load(Ordering::SeqCst);
            let path = if is_late { format!("/{round}/after") } else { format!("/{round}/before") };
            let answer = self.ask(&path, &nonce).await;
            if is_late {
                assert_eq!(answer, refused, "round {round}");
                break;
            }
            if answer.as_ref().is_some_and(|answer| answer.0 != 200) {
                assert_eq!(answer, refused, "round {round}: what comes in time is served, cut or refused");
            }
        }
        self
    }
}

/// Two connections race one revocation after another.
async fn race_in_lane(stage: &Stage, lane: usize, rounds: std::ops::Range<usize>) {
    let (orchestrator, agent) = (stage.sidecar.orchestrator(), stage.sidecar.agent());
    let name = agent_of(lane);
    let mut clients = vec![Client::of(agent.clone(), false).await, Client::of(agent, true).await];
    for round in rounds {
        let (minted, is_over) = (orchestrator.mint(&name, "api", "read").await, Arc::new(AtomicBool::new(false)));
        let start = |client: Client| tokio::spawn(client.race(round, minted.nonce.clone(), is_over.clone()));
        let racing: Vec<_> = clients.drain(..).map(start).collect();
        // At another moment each time: with some requests under way, and with none of them begun.
        tokio::time::sleep(Duration::from_micros(round as u64 * 37 % 1500)).await;
        orchestrator.revoke(&minted.id).await;
        is_over.store(true, Ordering::SeqCst);
        for client in racing {
            clients.push(client.await.expect("its client"));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_begins_after_revoke_has_answered_is_refused() {
    let rounds = rounds();
    for begin in (0..rounds).step_by(OF_A_STAGE) {
        let (stage, end) = (Stage::of_policy(&policy()).await, rounds.min(begin + OF_A_STAGE));
        let of_lane = (end - begin).div_ceil(LANES);
        let firsts = (begin..end).step_by(of_lane).enumerate();
        join_all(firsts.map(|(lane, first)| race_in_lane(&stage, lane, first..end.min(first + of_lane)))).await;
        let seen = stage.upstream.seen();
        assert!(seen.iter().any(|seen| seen.target.ends_with("/before")), "some came in time");
        assert!(seen.iter().all(|seen| !seen.target.ends_with("/after")), "nothing goes out");
        if begin > 0 {
            println!("{end} of {rounds} rounds"); // a million take a while
        }
    }
}
