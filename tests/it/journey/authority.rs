//! The local CA: kept, reused, published without its key.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::support::{FakeUpstream, Stage, TestSidecar, canary, policies};

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).expect("a file").mode() & 0o7777
}

#[tokio::test]
async fn its_key_is_kept_for_the_owner_and_reused_at_the_next_start() {
    let upstream = FakeUpstream::start(&["api.test"]).await;
    let start = |builder: crate::support::Builder| builder.ca_dir("{dir}/certs");
    let stage = Stage::with(upstream, start).await;
    let (directory, first) = (stage.sidecar.directory.clone(), stage.sidecar.text("public/ca.pem"));
    assert_eq!(mode(&stage.sidecar.path("certs")), 0o700);
    assert_eq!(mode(&stage.sidecar.path("certs/ca-key.pem")), 0o400);
    // An agent that read the CA before goes on trusting it.
    let old_agent = stage.sidecar.agent();
    let Stage { upstream, mut sidecar, .. } = stage;
    sidecar.signal("TERM");
    assert_eq!(sidecar.wait(), Some(0));
    let stage = Stage::with(upstream, |builder| start(builder).within(&directory)).await;
    assert_eq!(stage.sidecar.text("public/ca.pem"), first);
    let nonce = stage.reader().await;
    let old_agent = old_agent.at(stage.sidecar.proxy);
    assert_eq!(old_agent.get("api.test", "/x", &nonce).await.status, 200);
}

#[tokio::test]
async fn in_memory_it_is_new_each_time_and_leaves_no_key() {
    let (one, other) = (Stage::new().await, Stage::new().await);
    assert_ne!(one.sidecar.text("public/ca.pem"), other.sidecar.text("public/ca.pem"));
    let mut left: Vec<String> = files_below(one.sidecar.directory.path());
    left.sort();
    for name in &left {
        assert!(!name.contains("key"), "{left:?}");
        let bytes = std::fs::read(one.sidecar.path(name)).unwrap_or_default();
        assert!(memchr::memmem::find(&bytes, b"PRIVATE KEY").is_none(), "{name}");
    }
}

fn files_below(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root).expect("a directory").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.path().is_dir() {
            found.extend(files_below(&entry.path()).into_iter().map(|inner| format!("{name}/{inner}")));
        } else {
            found.push(name);
        }
    }
    found
}

#[tokio::test]
async fn what_is_published_is_public_and_whole() {
    let stage = Stage::new().await;
    let mut names = files_below(&stage.sidecar.path("public"));
    names.sort();
    assert_eq!(names, ["ca-bundle.pem", "ca.pem", "truststore.p12"]);
    let (ca, bundle) = (stage.sidecar.text("public/ca.pem"), stage.sidecar.text("public/ca-bundle.pem"));
    assert_eq!(ca.matches("BEGIN CERTIFICATE").count(), 1);
    assert!(bundle.ends_with(&ca) && bundle.matches("BEGIN CERTIFICATE").count() > 50, "system roots and ours");
    for name in names {
        assert_eq!(mode(&stage.sidecar.path("public").join(name)), 0o644, "an agent of another uid reads it");
    }
    let (_, over_the_api) = stage.sidecar.orchestrator().send(crate::support::orchestrator::get("/ca.pem")).await;
    assert_eq!(over_the_api, ca.as_bytes());
}

#[tokio::test]
async fn a_start_that_fails_does_not_replace_what_another_has_published() {
    let stage = Stage::new().await;
    let before = stage.sidecar.text("public/ca.pem");
    let (code, said) = TestSidecar::with_policy(policies::ONE_API)
        .within(&stage.sidecar.directory)
        .file("api.pem", &stage.upstream.authority.pem)
        .environment("API_KEY", &canary())
        .fails();
    assert_eq!(code, Some(5), "{said}");
    assert_eq!(stage.sidecar.text("public/ca.pem"), before, "its agents still trust the one that runs");
    let (code, said) = TestSidecar::with_policy(policies::ONE_API)
        .file("api.pem", &stage.upstream.authority.pem)
        .ca_dir("{dir}/certs")
        .set("--ca-publish", "{dir}/certs")
        .fails();
    assert_eq!(code, Some(4), "never beside the key: {said}");
}

#[tokio::test]
async fn a_leaf_is_made_once_for_many_who_ask_at_the_same_time() {
    let stage = Stage::new().await;
    let agent = stage.sidecar.agent();
    let asking = (0..16).map(|_| {
        let agent = agent.clone();
        tokio::spawn(async move {
            let stream = agent.tls_tunnel("api.test", "api.test", &[]).await.expect("TLS");
            stream.get_ref().1.peer_certificates().expect("a chain")[0].clone()
        })
    });
    let mut leaves = Vec::new();
    for leaf in asking.collect::<Vec<_>>() {
        leaves.push(leaf.await.expect("a leaf"));
    }
    assert!(leaves.windows(2).all(|two| two[0] == two[1]));
    let (_, leaf) = x509_parser::parse_x509_certificate(&leaves[0]).expect("a certificate");
    let days = (leaf.validity().not_after.timestamp() - leaf.validity().not_before.timestamp()) / 86_400;
    assert!(days <= 199, "{days} days");
    assert!(
        leaf.validity().not_before.timestamp() < jiff::Timestamp::now().as_second() - 60,
        "for clocks that are behind"
    );
    assert!(!leaf.subject().to_string().contains("api.test"), "the names are in the SAN alone");
}
