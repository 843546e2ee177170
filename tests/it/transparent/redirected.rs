//! What a client gets that knows of no proxy.

use tokio::io::AsyncWriteExt;

use super::{AGENT, ELSEWHERE, OTHER, PATIENCE, Scene, for_the_agent, trust};
use crate::support::wire::{answers, read_answers};
use crate::support::{FakeUpstream, policies};

#[tokio::test]
async fn a_client_without_proxy_variables_is_served_in_ipv4_and_ipv6() {
    let Some(scene) = Scene::new().await else { return };
    for address in ELSEWHERE {
        let nonce = scene.nonce().await;
        let reply = scene.get(AGENT, address, &nonce).await;
        assert_eq!(reply.status(), 200, "{address}: {reply:?}\n{}", scene.stage.sidecar.log());
        let seen = scene.stage.upstream.seen().pop().expect("a request");
        assert_eq!(seen.header("authorization"), Some(format!("Bearer {}", scene.stage.secret).as_str()));
        scene.stage.assert_clean(&reply.answer.expect("an answer").body, "the answer");
        scene.stage.assert_silent(&[&nonce]);
    }
    let record = scene.stage.sidecar.audited(|record| record["type"] == "decision").await;
    assert_eq!(record["destination"], "api.test:443");
    assert_eq!(record["presented_by.identity"], format!("uid:{AGENT}"), "{record:#}");
}

#[tokio::test]
async fn http_2_is_spoken_too() {
    let Some(scene) = Scene::new().await else { return };
    let nonce = scene.nonce().await;
    let bearer = format!("Authorization: Bearer {nonce}");
    let arguments = ["--http2", "--resolve", "api.test:443:198.51.100.7", "-H", &bearer, "https://api.test/echo"];
    assert_eq!(scene.curl(AGENT, &arguments).await.status(), 200);
    let record = scene.stage.sidecar.audited(|record| record["type"] == "decision").await;
    assert_eq!(record["http.version"], "HTTP/2", "{record:#}");
}

#[tokio::test]
async fn clear_text_is_served_where_the_policy_says_so_and_the_host_stays_the_first() {
    let Some(scene) = Scene::in_clear_text().await else { return };
    let nonce = scene.nonce().await;
    let mut stream = scene.inner.connect(AGENT, "198.51.100.7:80").await.expect("redirected");
    let request = |host: &str| format!("GET /echo HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {nonce}\r\n\r\n");
    for (host, status) in [("api.test", 200), ("other.test", 421), ("api.test:80", 200)] {
        stream.write_all(request(host).as_bytes()).await.expect("writable");
        let answer = read_answers(&mut stream, 1, PATIENCE).await;
        let answer = answers(answer.as_bytes(), true).pop().expect("an answer");
        assert_eq!(answer.status, status, "{host}: {}", answer.head);
    }
    let seen = scene.stage.upstream.seen();
    assert_eq!(seen.len(), 2);
    let expected = format!("Bearer {}", scene.stage.secret);
    assert!(seen.iter().all(|seen| seen.header("authorization") == Some(&expected)));
    let record = scene.stage.sidecar.audited(|record| record["type"] == "decision").await;
    assert_eq!((&record["scheme"], &record["destination"]), (&"http".into(), &"api.test:80".into()));
}

#[tokio::test]
async fn clear_text_is_refused_where_the_policy_does_not_allow_it() {
    let Some(scene) = Scene::new().await else { return };
    let reply = scene.curl(AGENT, &["--resolve", "api.test:80:198.51.100.7", "http://api.test/"]).await;
    assert_eq!((reply.status(), reply.refusal()), (403, Some("cleartext_forbidden")), "{reply:?}");
    let reply = scene.curl(AGENT, &["http://169.254.169.254/latest/meta-data/iam/"]).await;
    assert_eq!((reply.status(), reply.refusal()), (403, Some("host_not_listed")), "{reply:?}");
    assert_eq!(scene.stage.upstream.connections(), 0);
}

#[tokio::test]
async fn the_address_that_the_client_believed_in_is_not_dialled() {
    let Some(scene) = Scene::new().await else { return };
    let trap = FakeUpstream::start_on(scene.outer.listener("10.77.0.1:443"), &["api.test"]);
    scene.inner.connect(0, "10.77.0.1:443").await.expect("others than agents reach the trap");
    crate::support::sidecar::eventually("the trap's first caller", || (trap.connections() == 1).then_some(())).await;
    let reply = scene.get(AGENT, "10.77.0.1", &scene.nonce().await).await;
    assert_eq!(reply.status(), 200, "{reply:?}");
    assert_eq!((trap.connections(), scene.stage.upstream.seen().len()), (1, 1), "the real one was asked");
}

#[tokio::test]
async fn an_unlisted_host_is_refused_inside_readably() {
    let Some(scene) = Scene::new().await else { return };
    let reply = scene.curl(AGENT, &["--resolve", "other.test:443:198.51.100.7", "https://other.test/x"]).await;
    assert_eq!((reply.status(), reply.refusal()), (403, Some("host_not_listed")), "{reply:?}");
    assert!(reply.answer.expect("an answer").text().contains("valetkey"), "it says who refused");
}

#[tokio::test]
async fn an_unlisted_host_is_relayed_unread_to_its_own_address_where_the_policy_says_so() {
    let policy = format!("{}\n[egress]\nunlisted = \"tunnel\"\n", for_the_agent(policies::ONE_API));
    let mut other = None;
    let with_other = |builder: crate::support::Builder, inner: &crate::support::Namespace| {
        let other = other.insert(FakeUpstream::start_on(inner.listener("127.0.0.1:0"), &["other.test"]));
        builder.upstream(&["other.test"], "other", other)
    };
    let Some(scene) = Scene::of(&policy, with_other).await else { return };
    let other = other.expect("an upstream");
    let trap = FakeUpstream::start_on(scene.outer.listener("10.77.0.1:443"), &["other.test"]);
    let trusted = trust(&[("ca.pem", &other.authority.pem)]);
    let arguments = ["--resolve", "other.test:443:10.77.0.1", "https://other.test/echo"];
    let reply = super::curl(&scene.inner, AGENT, &trusted, &arguments).await;
    assert_eq!(reply.status(), 200, "{reply:?}");
    assert_eq!((other.connections(), trap.connections()), (1, 0));
    // A listed host is opened all the same.
    let reply =
        super::curl(&scene.inner, AGENT, &trusted, &["--resolve", "api.test:443:10.77.0.1", "https://api.test/"]);
    assert_eq!(reply.await.exit, Some(60), "not a certificate of the upstream's CA");
}

#[tokio::test]
async fn the_fence_leaves_no_other_way_out() {
    let Some(scene) = Scene::new().await else { return };
    for address in ["10.77.0.1:8443", "[fd77::1]:8443"] {
        let _listener = scene.outer.listener(address);
        for uid in [AGENT, OTHER] {
            let refused = scene.inner.connect(uid, address).await;
            assert!(refused.is_err(), "{address} by {uid}");
        }
        scene.inner.connect(0, address).await.expect("nobody else is fenced");
    }
    let sent = |uid| {
        scene.inner.inside(uid, || {
            let socket = std::net::UdpSocket::bind("10.77.0.2:0")?;
            socket.send_to(b"x", "10.77.0.1:53").and_then(|_| socket.send_to(b"x", "10.77.0.1:443"))
        })
    };
    assert!(sent(AGENT).is_err(), "DNS and QUIC");
    assert!(sent(0).is_ok());
}
