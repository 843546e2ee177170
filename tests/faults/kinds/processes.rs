//! What happens to the process amid traffic: signals, reloads, revocations, too few descriptors, sudden death.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use tokio::task::JoinSet;

use super::{Case, Kind, kind, kind_alike};
use crate::client::{Ask, Outcome};
use crate::scene::Scene;
use crate::support::policies;
use crate::support::sockets::descriptors;
use crate::upstream::Fault;

/// Agents at a time.
const AGENTS: usize = 4;
/// Requests of each, at most.
const REQUESTS_MAX: usize = 200;

pub fn all() -> Vec<Kind> {
    vec![
        kind_alike("hangup_amid_traffic", hangup),
        kind_alike("broken_policy_amid_traffic", broken_policy),
        kind("revocation_amid_traffic", revocation),
        kind("end_amid_traffic", end),
        kind_alike("too_few_descriptors", too_few_descriptors),
        Kind { is_kill: true, ..kind("killed_amid_traffic", killed) },
    ]
}

/// Agents that ask one thing after another until they are told to stop.
struct Traffic {
    tasks: JoinSet<Vec<(String, Outcome)>>,
    stop: Arc<AtomicBool>,
    /// Requests that are over.
    done: Arc<AtomicU64>,
}

impl Traffic {
    fn start(scene: &Arc<Scene>) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut tasks = JoinSet::new();
        for agent in 0..AGENTS {
            let (scene, stop, done) = (scene.clone(), stop.clone(), done.clone());
            tasks.spawn(async move {
                let mut outcomes = Vec::new();
                for number in 0..REQUESTS_MAX {
                    if stop.load(Ordering::SeqCst) {
                        break;
                    }
                    let (method, body) = if number % 2 == 0 { ("GET", "") } else { ("POST", "a body") };
                    let ask = scene.request(method, &format!("/{agent}/{number}"), body);
                    outcomes.push((ask.path.clone(), alone(&scene, ask).await));
                    done.fetch_add(1, Ordering::SeqCst);
                }
                outcomes
            });
        }
        Self { tasks, stop, done }
    }

    /// Waits until so many requests are over.
    async fn reaches(&self, count: u64) {
        for _ in 0..3000 {
            if self.done.load(Ordering::SeqCst) >= count {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("traffic stands still");
    }

    async fn stop(mut self) -> Vec<(String, Outcome)> {
        self.stop.store(true, Ordering::SeqCst);
        let mut all = Vec::new();
        while let Some(outcomes) = self.tasks.join_next().await {
            all.extend(outcomes.expect("agents take what comes"));
        }
        all
    }
}

/// One request in a task of its own: where nobody listens any more, that is an outcome like others.
async fn alone(scene: &Arc<Scene>, ask: Ask) -> Outcome {
    let scene = scene.clone();
    match tokio::spawn(async move { scene.exchange(&ask).await }).await {
        Ok(outcome) => outcome,
        Err(error) => {
            let message = error.try_into_panic().ok();
            let text = message.as_ref().and_then(|text| text.downcast_ref::<String>()).cloned().unwrap_or_default();
            assert!(!text.contains("hung"), "{text}");
            Outcome::Nothing
        }
    }
}

fn all_whole(outcomes: &[(String, Outcome)]) {
    assert!(!outcomes.is_empty());
    for (path, outcome) in outcomes {
        assert_eq!(*outcome, Outcome::Whole(200, b"ok".to_vec()), "{path}");
    }
}

/// What is whole is right, and nothing was sent twice, whatever happened.
pub(super) fn never_twice(scene: &Scene, outcomes: &[(String, Outcome)]) {
    for (path, outcome) in outcomes {
        if let Outcome::Whole(status, body) = outcome {
            assert_eq!((*status, body.as_slice()), (200, &b"ok"[..]), "{path}");
        }
    }
    let mut arrived: BTreeMap<String, usize> = BTreeMap::new();
    for send in scene.upstream.recorder.sends() {
        let head = send.head.unwrap_or_default();
        *arrived.entry(head.lines().next().unwrap_or_default().to_owned()).or_default() += 1;
    }
    let twice: Vec<_> = arrived.iter().filter(|(line, count)| line.starts_with("POST") && **count > 1).collect();
    assert!(twice.is_empty(), "sent twice: {twice:?}");
}

async fn scene(case: Case) -> Arc<Scene> {
    Arc::new(Scene::new(case, Fault::none()).await)
}

async fn finish(scene: Arc<Scene>) {
    Arc::into_inner(scene).expect("traffic is over").finish().await;
}

async fn hangup(case: Case) {
    let scene = scene(case).await;
    let traffic = Traffic::start(&scene);
    for round in 1..=5 {
        traffic.reaches(round * 4).await;
        scene.sidecar.signal("HUP");
    }
    traffic.reaches(30).await;
    let outcomes = traffic.stop().await;
    all_whole(&outcomes);
    never_twice(&scene, &outcomes);
    finish(scene).await;
}

async fn broken_policy(case: Case) {
    let scene = scene(case).await;
    let traffic = Traffic::start(&scene);
    let whole = scene.sidecar.text("policy.toml");
    let broken = ["version = 1\n[agents", "", "version = 99\n", "version = 1\nsurprise = true\n"];
    for (round, text) in (1..).zip(broken) {
        traffic.reaches(round * 4).await;
        std::fs::write(scene.sidecar.path("policy.toml"), text).expect("a file");
        scene.sidecar.signal("HUP");
    }
    scene.sidecar.audited(|record| record["type"] == "policy" && record["outcome"] == "refused").await;
    std::fs::write(scene.sidecar.path("policy.toml"), whole).expect("a file");
    scene.sidecar.signal("HUP");
    traffic.reaches(30).await;
    let outcomes = traffic.stop().await;
    all_whole(&outcomes);
    never_twice(&scene, &outcomes);
    finish(scene).await;
}

/// No request that begins after the answer to the revocation gets anywhere.
async fn revocation(case: Case) {
    let scene = scene(case).await;
    let orchestrator = scene.sidecar.orchestrator();
    let minted = orchestrator.mint("worker", "api", "write").await;
    let is_revoked = Arc::new(AtomicBool::new(false));
    let mut tasks = JoinSet::new();
    for agent in 0..AGENTS {
        let (scene, is_revoked, nonce) = (scene.clone(), is_revoked.clone(), minted.nonce.clone());
        tasks.spawn(async move {
            let mut late = 0;
            for number in 0..REQUESTS_MAX {
                let was_revoked = is_revoked.load(Ordering::SeqCst);
                let path = format!("/revoked/{agent}/{number}");
                let outcome = scene.exchange(&Ask { nonce: nonce.clone(), ..scene.request("POST", &path, "") }).await;
                let is_refused = matches!(&outcome, Outcome::Refused(_, code) if code == "nonce_revoked");
                assert!(is_refused || !was_revoked, "{outcome:?} after the revocation");
                late += usize::from(was_revoked);
                if late == 2 {
                    return;
                }
            }
        });
    }
    tokio::time::sleep(Duration::from_millis(case.chance(1, 100))).await;
    orchestrator.revoke(&minted.id).await;
    is_revoked.store(true, Ordering::SeqCst);
    while let Some(done) = tasks.join_next().await {
        done.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
    }
    finish(scene).await;
}

async fn end(case: Case) {
    let scene = scene(case).await;
    let traffic = Traffic::start(&scene);
    traffic.reaches(1 + case.chance(1, 12)).await;
    scene.sidecar.signal("TERM");
    // Once nobody listens, requests fail at once; what was under way gets its answer or is seen to be cut.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let outcomes = traffic.stop().await;
    never_twice(&scene, &outcomes);
    let mut scene = Arc::into_inner(scene).expect("traffic is over");
    assert_eq!(scene.sidecar.wait(), Some(0), "{}", scene.sidecar.log());
    let last = scene.sidecar.audit().pop().expect("a record");
    assert_eq!(last["type"], "stop", "{last:#}");
    scene.after();
}

async fn too_few_descriptors(case: Case) {
    let scene = scene(case).await;
    scene.works("/before").await;
    let pid = Pid::from_raw(scene.sidecar.pid().cast_signed()).expect("a pid");
    let usual = getrlimit(Resource::Nofile);
    let now = descriptors(scene.sidecar.pid()).unwrap_or(40) as u64;
    let few = Rlimit { current: Some(now + case.chance(1, 6)), maximum: usual.maximum };
    prlimit(Some(pid), Resource::Nofile, few).expect("a limit");
    let agent = scene.sidecar.agent();
    let mut held = Vec::new();
    for _ in 0..20 {
        held.push(agent.tcp().await);
    }
    drop(held);
    prlimit(Some(pid), Resource::Nofile, usual).expect("a limit");
    scene.works_again().await;
    finish(scene).await;
}

/// SIGKILL at any moment; then another life in the same directory.
async fn killed(case: Case) {
    let directory = Arc::new(tempfile::tempdir().expect("a directory"));
    let place = directory.clone();
    let first = Scene::with(case, Fault::none(), policies::ONE_API, |builder, _| builder.within(&place)).await;
    let first = Arc::new(first);
    let traffic = Traffic::start(&first);
    tokio::time::sleep(Duration::from_micros(case.chance(1, 400_000))).await;
    first.sidecar.signal("KILL");
    let outcomes = traffic.stop().await;
    let mut first = Arc::into_inner(first).expect("traffic is over");
    assert_eq!(first.sidecar.wait(), None);
    never_twice(&first, &outcomes);
    first.after();
    let second = Scene::with(case, Fault::none(), policies::ONE_API, |builder, _| builder.within(&directory)).await;
    second.works("/second/life").await;
    leak_free(&first, &second);
    second.finish().await;
}

/// The second life does not tell of the first one's credential.
fn leak_free(first: &Scene, second: &Scene) {
    let told = format!("{}{}", second.sidecar.audit_text(), second.sidecar.log());
    crate::support::leak::assert_clean(&first.secret, told.as_bytes(), "the second life");
}
