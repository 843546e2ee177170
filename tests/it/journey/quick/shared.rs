//! One connection upstream for many tunnels. A name is looked up when a connection is made, and only then, so that
//! connections count look-ups too.

use std::collections::HashSet;

use crate::support::agent::{get, read};
use crate::support::sidecar::eventually;
use crate::support::{FakeUpstream, Stage, canary, policies, sockets};

const PROTOCOLS: [&[u8]; 2] = [b"http/1.1", b"h2"];

/// A second service and credential for the same host.
pub fn with_a_second() -> String {
    let second = "\n[credentials.second]\nsource = \"env\"\nname = \"SECOND_KEY\"\nhosts = [\"api.test\"]\n\
                  [services.second]\nhosts = [\"api.test\"]\ncredential = \"second\"\nslots = [\"bearer\"]\n\
                  upstream_ca = \"{dir}/api.pem\"\n[[services.second.scopes]]\nname = \"read\"\nrisk = \"low\"\n\
                  allow = [\"GET /{*path}\"]\n";
    policies::ONE_API.replace("\"once\"] }", "\"once\"], second = [\"read\"] }") + second
}

async fn stage(policy: &str, alpn: &[u8]) -> (Stage, String) {
    let second = canary();
    let upstream = FakeUpstream::start_with(&["api.test"], &[alpn]).await;
    let stage = Stage::of(policy, upstream, |builder| builder.environment("SECOND_KEY", &second)).await;
    (stage, second)
}

#[tokio::test]
async fn one_connection_serves_tunnel_after_tunnel_and_nonce_after_nonce() {
    for alpn in PROTOCOLS {
        let (stage, _) = stage(policies::ONE_API, alpn).await;
        let agent = stage.sidecar.agent();
        for nonce in [stage.reader().await, stage.reader().await] {
            for _ in 0..4 {
                assert_eq!(agent.get("api.test", "/x", &nonce).await.status, 200);
                assert_eq!(agent.send_h2(get("api.test", "/x", &nonce)).await.status, 200);
            }
            // Without a tunnel, too.
            let head = format!("GET https://api.test/x HTTP/1.1\r\nHost: api.test\r\nAuthorization: Bearer {nonce}");
            let answer = agent.raw(format!("{head}\r\n\r\n").as_bytes()).await;
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        }
        let seen = stage.upstream.seen();
        assert_eq!((stage.upstream.connections(), seen.len()), (1, 18));
        assert!(seen.iter().all(|seen| (seen.version == http::Version::HTTP_2) == (alpn == b"h2")));
    }
}

/// A burst that finds no connection dials for each of its requests at most; what it leaves behind is used.
#[tokio::test]
async fn after_a_burst_nothing_more_is_dialled() {
    for alpn in PROTOCOLS {
        let (stage, _) = stage(policies::ONE_API, alpn).await;
        let nonce = stage.reader().await;
        let asking: Vec<_> = (0..16)
            .map(|_| {
                let (agent, nonce) = (stage.sidecar.agent(), nonce.clone());
                tokio::spawn(async move { agent.get("api.test", "/x", &nonce).await.status })
            })
            .collect();
        for status in asking {
            assert_eq!(status.await.expect("an answer"), 200);
        }
        for _ in 0..20 {
            assert_eq!(stage.sidecar.agent().get("api.test", "/x", &nonce).await.status, 200);
        }
        assert!(stage.upstream.connections() <= 16, "{}", stage.upstream.connections());
        if alpn == b"h2" {
            let used: HashSet<u64> = stage.upstream.seen()[16..].iter().map(|seen| seen.connection).collect();
            assert_eq!(used.len(), 1, "the others are given up");
        }
    }
}

/// What rests is closed by us, and the next request opens another one.
#[tokio::test]
async fn a_connection_that_rests_for_too_long_is_closed() {
    for alpn in PROTOCOLS {
        let upstream = FakeUpstream::start_with(&["api.test"], &[alpn]).await;
        let stage = Stage::with(upstream, |builder| builder.flag("--idle-timeout").flag("1s")).await;
        let nonce = stage.reader().await;
        for connections in 1..=2 {
            assert_eq!(stage.sidecar.agent().get("api.test", "/x", &nonce).await.status, 200);
            assert_eq!(stage.upstream.connections(), connections);
            let pid = stage.sidecar.pid();
            if sockets::connected(pid).is_none() {
                return;
            }
            eventually("its end", || sockets::connected(pid)?.is_empty().then_some(())).await;
        }
    }
}

#[tokio::test]
async fn two_credentials_never_share_one() {
    for alpn in PROTOCOLS {
        let (stage, second) = stage(&with_a_second(), alpn).await;
        let orchestrator = stage.sidecar.orchestrator();
        let nonces = [stage.reader().await, orchestrator.mint("worker", "second", "read").await.nonce];
        // In one tunnel and in many.
        let mut tunnel = stage.sidecar.agent().tunnel_h2("api.test").await;
        for _ in 0..3 {
            for nonce in &nonces {
                assert_eq!(tunnel.send(get("api.test", "/x", nonce)).await.status, 200);
                assert_eq!(stage.sidecar.agent().get("api.test", "/x", nonce).await.status, 200);
            }
        }
        assert_eq!(stage.upstream.connections(), 2);
        let seen = stage.upstream.seen();
        assert_eq!(seen.len(), 12);
        for (number, seen) in seen.iter().enumerate() {
            let (connection, key) = if number / 2 % 2 == 0 { (1, &stage.secret) } else { (2, &second) };
            assert_eq!(seen.connection, connection, "{number}");
            assert_eq!(seen.header("authorization"), Some(format!("Bearer {key}").as_str()), "{number}");
        }
    }
}

/// What one of them does on a connection is not the other's loss.
#[tokio::test]
async fn two_agents_never_share_one_of_http_2() {
    // The last agent has the only place that is left, and what is under way on the other's connection goes on.
    for (places, connections) in [("2", [1, 2, 1, 2]), ("1", [1, 2, 3, 4])] {
        let upstream = FakeUpstream::start_with(&["api.test"], &[b"h2"]).await;
        let places = |builder: crate::support::Builder| builder.flag("--pool-idle-max").flag(places);
        let stage = Stage::of(&policies::two_agents(), upstream, places).await;
        let mint = async |agent| stage.sidecar.orchestrator().mint(agent, "api", "read").await.nonce;
        let nonces = [mint("worker").await, mint("other").await];
        let mut tunnel = stage.sidecar.agent().tunnel_h2("api.test").await;
        let held = tunnel.start(get("api.test", "/late-echo", &nonces[0])).await;
        assert_eq!(tunnel.send(get("api.test", "/x", &nonces[1])).await.status, 200);
        assert!(read(held).await.is_ok());
        for nonce in &nonces {
            assert_eq!(tunnel.send(get("api.test", "/x", nonce)).await.status, 200);
        }
        let used: Vec<u64> = stage.upstream.seen().iter().map(|seen| seen.connection).collect();
        assert_eq!(used, connections);
    }
}
