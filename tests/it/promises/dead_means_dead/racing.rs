//! Requests over open connections race the answer of `revoke`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::agent::{Tunnel, get, read};
use crate::support::{Agent, Stage};

/// Rounds, each with a nonce of its own: 200, or as many as `VALETKEY_TEST_ROUNDS` says.
fn rounds() -> usize {
    std::env::var("VALETKEY_TEST_ROUNDS").map_or(200, |rounds| rounds.parse().expect("a number"))
}

/// Requests that each client sends after the answer, at least.
const AFTER: usize = 2;

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

    /// Asks until the revocation has been answered, and some more.
    async fn race(mut self, round: usize, nonce: String, is_over: Arc<AtomicBool>) -> Self {
        let refused = Some((401, Some("nonce_revoked".to_owned())));
        let mut after = 0;
        while after < AFTER {
            let is_late = is_over.load(Ordering::SeqCst);
            let path = if is_late { format!("/{round}/after") } else { format!("/{round}/before") };
            let answer = self.ask(&path, &nonce).await;
            if is_late {
                assert_eq!(answer, refused, "round {round}");
                after += 1;
            } else if answer.as_ref().is_some_and(|answer| answer.0 != 200) {
                assert_eq!(answer, refused, "round {round}: what comes in time is served, cut or refused");
            }
        }
        self
    }
}

#[tokio::test]
async fn whatever_begins_after_revoke_has_answered_is_refused() {
    let stage = Stage::new().await;
    let (orchestrator, agent) = (stage.sidecar.orchestrator(), stage.sidecar.agent());
    let mut clients = Vec::new();
    for is_h2 in [false, true, false, true] {
        clients.push(Client::of(agent.clone(), is_h2).await);
    }
    for round in 0..rounds() {
        let (minted, is_over) = (orchestrator.mint("worker", "api", "read").await, Arc::new(AtomicBool::new(false)));
        let start = |client: Client| tokio::spawn(client.race(round, minted.nonce.clone(), is_over.clone()));
        let racing: Vec<_> = clients.drain(..).map(start).collect();
        // At another moment each time: with some requests under way, and with none of them begun.
        tokio::time::sleep(std::time::Duration::from_micros(round as u64 * 37 % 4000)).await;
        orchestrator.revoke(&minted.id).await;
        is_over.store(true, Ordering::SeqCst);
        for client in racing {
            clients.push(client.await.expect("its client"));
        }
    }
    let seen = stage.upstream.seen();
    assert!(seen.iter().any(|seen| seen.target.ends_with("/before")), "some came in time");
    assert!(seen.iter().all(|seen| !seen.target.ends_with("/after")), "nothing goes out");
}
