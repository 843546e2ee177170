//! The play: a promise each, in this order. In every file `play` acts and gathers what was seen, and `judge`, which
//! knows nothing but that, says what held.

mod allowed;
mod echo;
mod expiry;
mod misplaced;
mod on_record;
mod revoked;
mod scope;
mod silence;

use std::time::Duration;

use super::agent::Reply;
use super::scene::{Check, Scene};
use super::stage::{Remains, Stage};
use super::trouble::{Context, Trouble};
use super::upstream::Received;

/// Longest that one scene may take; each of its steps has a shorter limit.
const SCENE_MAX: Duration = Duration::from_secs(10);

/// The scenes that need the sidecar.
#[derive(Debug, Clone, Copy)]
pub(super) enum Act {
    Allowed,
    Scope,
    Expiry,
    Echo,
    Misplaced,
    Revoked,
}

/// All of them.
pub(super) const ACTS: [Act; 6] = [Act::Allowed, Act::Scope, Act::Expiry, Act::Echo, Act::Misplaced, Act::Revoked];

impl Act {
    /// Plays it; a scene that breaks off is a promise that was not held.
    pub(super) async fn play(self, stage: &mut Stage) -> Scene {
        let mut scene = Scene::new(self.promise());
        let played = tokio::time::timeout(SCENE_MAX, self.act(stage, &mut scene)).await;
        if let Err(error) = played.context("the scene took too long").flatten() {
            scene.break_off(&error);
        }
        scene
    }

    async fn act(self, stage: &mut Stage, scene: &mut Scene) -> Result<(), Trouble> {
        match self {
            Self::Allowed => allowed::play(stage, scene).await,
            Self::Scope => scope::play(stage, scene).await,
            Self::Expiry => expiry::play(stage, scene).await,
            Self::Echo => echo::play(stage, scene).await,
            Self::Misplaced => misplaced::play(stage, scene).await,
            Self::Revoked => revoked::play(stage, scene).await,
        }
    }

    fn promise(self) -> &'static str {
        match self {
            Self::Allowed => "A call within the scope arrives with the real credential, which the agent never had",
            Self::Scope => "A nonce opens only what it was minted for, and the refusal helps",
            Self::Expiry => "An expired nonce is dead, on a connection already open too",
            Self::Echo => "An upstream that echoes the credential does not give it away",
            Self::Misplaced => "A nonce at the wrong host is refused, and ends there",
            Self::Revoked => "Revoking ends the next request and the open stream of a connection",
        }
    }
}

/// The scenes after the end.
pub(super) fn afterwards(remains: &Remains) -> [Scene; 2] {
    [on_record::look(remains), silence::look(remains)]
}

/// Refused with this status and code, by the sidecar and not by the upstream.
fn refused(what: &str, reply: &Reply, status: u16, code: &str) -> Check {
    let told =
        |status: u16, header: &str, member: &str, origin: &str| format!("{status} {header} ({member} from {origin})");
    let expected = told(status, code, code, "valetkey");
    let seen = told(reply.status, &reply.header("valetkey-error"), &reply.member("code"), &reply.member("origin"));
    Check::same(format!("{what} is refused"), expected, seen)
}

/// Answered with 200.
fn answered(what: &str, reply: &Reply) -> Check {
    let told = |status: u16, refusal: &str| format!("{status} {refusal}").trim_end().to_owned();
    Check::same(format!("{what} is answered"), "200", told(reply.status, &reply.header("valetkey-error")))
}

/// Nothing got through.
fn nothing_arrived(received: &[Received]) -> Check {
    let seen: Vec<_> = received.iter().map(|request| format!("{} {}", request.method, request.target)).collect();
    Check::same(
        "nothing of it reaches the upstream",
        "nothing",
        if seen.is_empty() { "nothing".to_owned() } else { seen.join(", ") },
    )
}

/// The status line and the sentence, as they are read.
fn told(reply: &Reply) -> String {
    format!("{} {}", reply.status, reply.reason).trim_end().to_owned()
}

/// Answers for the judges' tests.
#[cfg(test)]
mod samples {
    use super::*;
    use crate::cli::demo::canary::Canaries;
    use crate::cli::demo::stage::{Nonce, Played};

    pub(super) fn ok(body: &str) -> Reply {
        Reply { status: 200, body: body.to_owned().into(), plain: body.to_owned().into(), ..Reply::default() }
    }

    pub(super) fn refusal(status: u16, code: &str, detail: &str) -> Reply {
        let body = serde_json::json!({ "code": code, "origin": "valetkey", "detail": detail, "next_steps": ["x"] });
        let mut reply = Reply { status, reason: format!("{code}: {detail}"), ..ok(&body.to_string()) };
        reply.headers.insert("valetkey-error", code.parse().expect("a value"));
        reply
    }

    /// What a play of one call and one nonce leaves.
    pub(super) fn remains(audit: Vec<u8>) -> Remains {
        Remains {
            exit: Some(0),
            audit,
            log: b"ready".to_vec(),
            output: Vec::new(),
            answers: b"200".to_vec(),
            received: vec![received("GET", "/v1/customers")],
            nonces: vec![nonce("nc_1"), nonce("nc_kept")],
            played: Played { requests: 1, nonces: 1 },
            canaries: Canaries::new().expect("randomness"),
        }
    }

    pub(super) fn nonce(id: &str) -> Nonce {
        Nonce { id: id.to_owned(), plain: format!("an_{id}"), placeholder: format!("sk_test_an_{id}") }
    }

    pub(super) fn received(method: &str, target: &str) -> Received {
        Received { method: method.to_owned(), target: target.to_owned(), ..Received::default() }
    }

    /// Fails unless exactly these claims did not hold.
    pub(super) fn assert_broken(checks: &[Check], claims: &[&str]) {
        let broken: Vec<_> = checks.iter().filter(|check| !check.held).collect();
        let is_expected = |check: &&Check| claims.iter().any(|claim| check.claim.contains(claim));
        assert!(broken.len() == claims.len() && broken.iter().all(is_expected), "{broken:#?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upstreams_own_refusal_is_not_taken_for_ours() {
        assert!(refused("it", &samples::refusal(403, "out_of_scope", ""), 403, "out_of_scope").held);
        let theirs = Reply { status: 403, ..samples::ok("{\"code\":\"out_of_scope\"}") };
        assert!(!refused("it", &theirs, 403, "out_of_scope").held);
        assert!(!refused("it", &samples::refusal(401, "out_of_scope", ""), 403, "out_of_scope").held);
        assert!(!refused("it", &samples::refusal(403, "nonce_missing", ""), 403, "out_of_scope").held);
    }

    #[test]
    fn only_200_is_an_answer() {
        assert!(answered("it", &samples::ok("")).held);
        assert!(!answered("it", &samples::refusal(502, "upstream_tls", "")).held);
        assert!(!answered("it", &Reply { status: 401, ..samples::ok("") }).held);
    }

    #[test]
    fn whatever_arrived_is_named() {
        assert!(nothing_arrived(&[]).held);
        let check = nothing_arrived(&[samples::received("POST", "/v1/refunds")]);
        assert_eq!((check.held, check.seen.as_str()), (false, "POST /v1/refunds"));
    }
}
