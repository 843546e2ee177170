//! How long a certificate is kept, and that one of two is never shown for the other.

use super::*;
use crate::support::sidecar::eventually;

const DROPPED: &str = "credentials that no live nonce needs were dropped";

/// How often the sidecar said that it let go of something.
fn dropped(stage: &Stage) -> usize {
    stage.sidecar.log().matches(DROPPED).count()
}

/// Waits until that was said so often.
async fn lets_go(stage: &Stage, times: usize) {
    eventually("the certificate is let go of", || (dropped(stage) >= times).then_some(())).await;
}

async fn ask(stage: &Stage, slot: &str, nonce: &str) -> String {
    stage.sidecar.agent().send(with("GET", "api.test", "/x", &[(slot, nonce)], "")).await.text()
}

fn debugging(builder: Builder) -> Builder {
    builder.flag("--log-level").flag("valetkey=debug")
}

#[tokio::test]
async fn a_certificate_that_no_nonce_needs_is_let_go_of_with_its_connections_and_sessions() {
    for version in VERSIONS {
        for is_kept in [true, false] {
            let visits = Visits::new();
            let upstream = if is_kept {
                visits.upstream(&["api.test"], version, b"http/1.1").await
            } else {
                visits.closing(&["api.test"], version).await
            };
            let stage = stage(&visits, upstream, debugging).await;
            lets_go(&stage, 1).await; // it was read at the start, and nobody needed it
            let orchestrator = stage.sidecar.orchestrator();
            for round in 1..=2 {
                let [first, last] = [(); 2].map(|()| orchestrator.mint("worker", "shown", "read"));
                let (first, last) = (first.await, last.await);
                for nonce in [&first, &last] {
                    assert_eq!(ask(&stage, "x-nonce", &nonce.nonce).await, "client one");
                }
                orchestrator.revoke(&first.id).await;
                assert_eq!(ask(&stage, "x-nonce", &last.nonce).await, "client one", "one needs it still");
                let seen = (visits.handshakes(false), visits.handshakes(true));
                // A connection of its own for each round, and a session.
                assert_eq!(seen, if is_kept { (round, 0) } else { (round, 2 * round) }, "{:?}", version.version);
                orchestrator.revoke(&last.id).await;
                lets_go(&stage, 1 + round).await;
            }
            let versions = stage.sidecar.audit().into_iter().filter_map(|record| record["credential.version"].as_u64());
            assert_eq!(versions.max(), Some(1), "it is the same certificate");
        }
    }
}

#[tokio::test]
async fn what_was_replaced_while_nobody_needed_it_is_another_one() {
    let visits = Visits::new();
    let stage = stage(&visits, visits.closing(&["api.test"], VERSIONS[0]).await, debugging).await;
    lets_go(&stage, 1).await;
    let orchestrator = stage.sidecar.orchestrator();
    let first = orchestrator.mint("worker", "shown", "read").await;
    assert_eq!(ask(&stage, "x-nonce", &first.nonce).await, "client one");
    orchestrator.revoke(&first.id).await;
    lets_go(&stage, 2).await;
    let (certificate, key) = pair(&visits.clients, "client two", |_| {});
    std::fs::write(stage.sidecar.path("key/tls.crt"), certificate).expect("a file");
    std::fs::write(stage.sidecar.path("key/tls.key"), key).expect("a file");
    let nonce = nonce(&stage, "shown").await;
    assert_eq!(ask(&stage, "x-nonce", &nonce).await, "client two");
    assert_eq!(visits.handshakes(true), 0);
    stage.sidecar.audited(|record| record["credential.version"] == 2).await;
}

/// Whose certificate it is depends on the service alone, whatever the host, the connections and the sessions of others.
#[tokio::test]
async fn two_certificates_at_one_host_are_never_taken_for_each_other() {
    let second = "[credentials.second]\nsource = \"file\"\npath = \"{dir}/key/second.key\"\n\
                  certificate = \"{dir}/key/second.crt\"\nhosts = [\"api.test\", \"other.test\"]\n\n[credentials.api]";
    let policy = POLICY.replace("[credentials.api]", second).replace(
        "[services.both]\nhosts = [\"api.test\"]\nclient_certificate = \"tls\"",
        "[services.both]\nhosts = [\"api.test\", \"other.test\"]\nclient_certificate = \"second\"",
    );
    for version in VERSIONS {
        for is_kept in [true, false] {
            let visits = Visits::new();
            let hosts = ["api.test", "other.test"];
            let upstream = if is_kept {
                visits.upstream(&hosts, version, b"h2").await
            } else {
                visits.closing(&hosts, version).await
            };
            let (first, other) =
                (pair(&visits.clients, "client one", |_| {}), pair(&visits.clients, "client two", |_| {}));
            let secret = canary();
            let sidecar = TestSidecar::with_policy(&policy)
                .upstream(&hosts, "api", &upstream)
                .environment("API_KEY", &secret)
                .file("key/tls.crt", &first.0)
                .file("key/tls.key", &first.1)
                .file("key/second.crt", &other.0)
                .file("key/second.key", &other.1)
                .start()
                .await;
            let stage = Stage { secret, upstream, sidecar };
            let mut callers = Vec::new();
            for (service, slot, host, name) in [
                ("shown", "x-nonce", "api.test", "client one"),
                ("both", "x-both", "api.test", "client two"),
                ("both", "x-both", "other.test", "client two"),
                ("plain", "x-plain", "other.test", "nobody"),
            ] {
                callers.push((slot, host, nonce(&stage, service).await, name));
            }
            let agent = stage.sidecar.agent();
            for round in 0..3 {
                for (slot, host, nonce, name) in &callers {
                    let reply = agent.send(with("GET", host, "/x", &[(slot, nonce)], "")).await;
                    assert_eq!(reply.text(), *name, "{slot} {host}, round {round}");
                }
            }
            let handshakes = (visits.handshakes(false), visits.handshakes(true));
            assert_eq!(handshakes, if is_kept { (4, 0) } else { (4, 8) }, "{:?}", version.version);
            // Another policy: the same service shows another certificate, over nothing that was there before.
            let path = stage.sidecar.path("policy.toml");
            let text = std::fs::read_to_string(&path).expect("the policy");
            let of_shown = |name: &str| format!("client_certificate = \"{name}\"\nslots = [\"bearer\", ");
            let swapped = text.replace(&of_shown("tls"), &of_shown("second"));
            assert_ne!(text, swapped);
            std::fs::write(path, swapped).expect("our directory");
            stage.sidecar.audited(|record| record["type"] == "policy" && record["outcome"] == "adopted").await;
            let (slot, host, nonce, _) = &callers[0];
            for _ in 0..2 {
                let reply = agent.send(with("GET", host, "/x", &[(slot, nonce)], "")).await;
                assert_eq!(reply.text(), "client two");
            }
            assert_eq!(visits.handshakes(false), 5);
        }
    }
}
