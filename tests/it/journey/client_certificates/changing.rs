//! Certificates that are of no use, and those that are replaced while they are in use.

use std::path::Path;
use std::time::{Duration, Instant};

use rcgen::{ExtendedKeyUsagePurpose, date_time_ymd};

use super::upstream::{VERSIONS, Visits, pair, strict};
use super::{POLICY, nonce, stage};
use crate::support::agent::with;
use crate::support::{Stage, TestSidecar, canary};

/// What upstream answers now; the refusal if it does not get there.
async fn answer(stage: &Stage, nonce: &str) -> Result<String, String> {
    let reply = stage.sidecar.agent().get("api.test", "/x", nonce).await;
    reply.refusal().map_or_else(|| Ok(reply.text()), |code| Err(code.to_owned()))
}

/// Asks until the answer is this one; it has to be within a second and a little for a slow machine.
async fn becomes(stage: &Stage, nonce: &str, wanted: Result<&str, &str>) {
    let begun = Instant::now();
    loop {
        let found = answer(stage, nonce).await;
        if found.as_deref().map_err(String::as_str) == wanted {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(5), "{found:?} instead of {wanted:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn write(sidecar: &TestSidecar, (certificate, key): &(String, String)) {
    std::fs::write(sidecar.path("key/tls.crt"), certificate).expect("a file");
    std::fs::write(sidecar.path("key/tls.key"), key).expect("a file");
}

#[tokio::test]
async fn a_pair_of_no_use_is_said_at_the_start_and_refuses_what_needs_it_until_it_is_mended() {
    let visits = Visits::new();
    let good = pair(&visits.clients, "client one", |_| {});
    let of = |edit: fn(&mut rcgen::CertificateParams)| pair(&visits.clients, "client one", edit);
    let server = of(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]);
    let over = of(|params| params.not_after = date_time_ymd(2020, 1, 1));
    let cases = [
        ((good.0.clone(), server.1.clone()), "holds a private key that does not belong to its certificate"),
        (server, "its certificate is not for TLS clients"),
        (over, "has a certificate that has expired"),
        (of(|params| params.not_before = date_time_ymd(2200, 1, 1)), "has a certificate that is not valid yet"),
        ((good.0.clone(), good.0.clone()), "holds no private key"),
        ((String::new(), good.1.clone()), "has no certificate"),
    ];
    for (pair, words) in cases {
        let upstream = strict(&visits, &["api.test"], VERSIONS[0]).await;
        let stage =
            stage(&visits, upstream, |builder| builder.file("key/tls.crt", &pair.0).file("key/tls.key", &pair.1)).await;
        assert!(stage.sidecar.log().contains(words), "{words}: {}", stage.sidecar.log());
        let nonce = nonce(&stage, "shown").await;
        assert_eq!(answer(&stage, &nonce).await, Err("credential_unavailable".to_owned()), "{words}");
        assert_eq!(stage.upstream.connections(), 0, "{words}");
        write(&stage.sidecar, &good);
        becomes(&stage, &nonce, Ok("client one")).await;
    }
}

#[tokio::test]
async fn another_pair_holds_within_a_second_and_takes_no_session_of_the_first_up() {
    for version in VERSIONS {
        let visits = Visits::new();
        let upstream = visits.closing(&["api.test"], version).await;
        let stage = stage(&visits, upstream, |builder| builder).await;
        let nonce = nonce(&stage, "shown").await;
        for _ in 0..2 {
            assert_eq!(answer(&stage, &nonce).await, Ok("client one".to_owned()));
        }
        assert_eq!((visits.handshakes(false), visits.handshakes(true)), (1, 1));
        let second = pair(&visits.clients, "client two", |_| {});
        // As a careless tool does it: for a while certificate and key are of two pairs, and nothing is sent then.
        std::fs::write(stage.sidecar.path("key/tls.crt"), &second.0).expect("a file");
        becomes(&stage, &nonce, Err("credential_unavailable")).await;
        write(&stage.sidecar, &second);
        becomes(&stage, &nonce, Ok("client two")).await;
        assert_eq!(answer(&stage, &nonce).await, Ok("client two".to_owned()));
        assert_eq!(visits.handshakes(false), 2, "the first of each");
        let names = visits.names();
        let (first, later) =
            names.split_at(names.iter().position(|name| name.as_deref() == Some("client two")).unwrap());
        assert!(first.iter().all(|name| name.as_deref() == Some("client one")), "{names:?}");
        assert!(later.iter().all(|name| name.as_deref() == Some("client two")), "{names:?}");
    }
}

/// The key in the slot stays as it is, and so would its connections.
#[tokio::test]
async fn another_pair_gets_connections_of_its_own_where_a_key_goes_beside_it() {
    let visits = Visits::new();
    let upstream = visits.upstream(&["api.test"], VERSIONS[0], b"h2").await;
    let stage = stage(&visits, upstream, |builder| builder).await;
    let nonce = nonce(&stage, "both").await;
    let agent = stage.sidecar.agent();
    let ask = async || agent.send(with("GET", "api.test", "/x", &[("x-both", &nonce)], "")).await.text();
    assert_eq!([ask().await, ask().await], ["client one", "client one"]);
    write(&stage.sidecar, &pair(&visits.clients, "client two", |_| {}));
    let begun = Instant::now();
    while ask().await != "client two" {
        assert!(begun.elapsed() < Duration::from_secs(5));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(visits.names(), [Some("client one".to_owned()), Some("client two".to_owned())]);
}

#[tokio::test]
async fn a_swapped_mount_is_followed_without_a_refusal_and_connections_are_its_own() {
    let visits = Visits::new();
    let mount = |place: &Path, generation: &str, (certificate, key): &(String, String)| {
        let generation = place.join("mount").join(generation);
        std::fs::create_dir_all(&generation).expect("a directory");
        std::fs::write(generation.join("tls.crt"), certificate).expect("a file");
        std::fs::write(generation.join("tls.key"), key).expect("a file");
    };
    let directory = std::sync::Arc::new(tempfile::tempdir().expect("a directory"));
    mount(directory.path(), "..1", &pair(&visits.clients, "client one", |_| {}));
    let link = |from: &str, to: &str| std::os::unix::fs::symlink(from, directory.path().join("mount").join(to));
    link("..1", "..data").expect("a link");
    link("..data/tls.crt", "tls.crt").expect("a link");
    link("..data/tls.key", "tls.key").expect("a link");
    let upstream = visits.upstream(&["api.test"], VERSIONS[0], b"h2").await;
    let sidecar = TestSidecar::with_policy(&POLICY.replace("{dir}/key/", "{dir}/mount/"))
        .within(&directory)
        .upstream(&["api.test"], "api", &upstream)
        .environment("API_KEY", &canary())
        .start()
        .await;
    let stage = Stage { secret: String::new(), upstream, sidecar };
    let nonce = nonce(&stage, "shown").await;
    assert_eq!(answer(&stage, &nonce).await, Ok("client one".to_owned()));
    mount(directory.path(), "..2", &pair(&visits.clients, "client two", |_| {}));
    link("..2", "..data_tmp").expect("a link");
    let data = directory.path().join("mount");
    std::fs::rename(data.join("..data_tmp"), data.join("..data")).expect("a swap");
    let begun = Instant::now();
    loop {
        let found = answer(&stage, &nonce).await.expect("no request is refused meanwhile");
        if found == "client two" {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(5), "{found}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(visits.names(), [Some("client one".to_owned()), Some("client two".to_owned())]);
}
