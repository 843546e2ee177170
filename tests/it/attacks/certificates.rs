//! Certificates that an upstream should not have: none of them gets a byte of a request.

use std::process::Command;
use std::sync::{Arc, Mutex};

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa,
    KeyPair, NameConstraints, SanType,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::support::agent::get;
use crate::support::authority::TestAuthority;
use crate::support::{FakeUpstream, Stage, TestSidecar, canary, policies, skip};

type Chain = Vec<CertificateDer<'static>>;
type Leaf = (Chain, PrivateKeyDer<'static>);

/// Shows whatever it was given last, and says nothing about whether it makes sense.
#[derive(Debug)]
struct Shown(Mutex<Arc<CertifiedKey>>);

impl Shown {
    fn new(leaf: Leaf) -> Arc<Self> {
        Arc::new(Self(Mutex::new(certified(leaf))))
    }

    fn show(&self, leaf: Leaf) {
        *self.0.lock().expect("not poisoned") = certified(leaf);
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.lock().expect("not poisoned").clone())
    }
}

fn certified((chain, key): Leaf) -> Arc<CertifiedKey> {
    let key = rustls::crypto::ring::sign::any_supported_type(&key).expect("a key");
    Arc::new(CertifiedKey::new(chain, key))
}

/// An upstream over HTTP/1.1 that shows this, and never resumes a session.
async fn upstream(root: &Arc<TestAuthority>, shown: Arc<Shown>) -> FakeUpstream {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_cert_resolver(shown);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    FakeUpstream::start_tls(root.clone(), config).await
}

/// Asks through an upstream that shows these, one after the other: each is refused, and what is good is not.
async fn none_is_believed(root: &Arc<TestAuthority>, bad: Vec<(&str, Leaf)>) {
    let shown = Shown::new(root.leaf(&["api.test"], |_| {}));
    let stage = Stage::with(upstream(root, shown.clone()).await, |builder| builder).await;
    let nonce = stage.reader().await;
    let agent = stage.sidecar.agent();
    for (what, leaf) in bad {
        shown.show(leaf);
        let reply = agent.get("api.test", "/x", &nonce).await;
        assert_eq!((reply.status.as_u16(), reply.refusal()), (502, Some("upstream_tls")), "{what}");
        assert!(stage.upstream.seen().is_empty(), "{what}: a request arrived");
    }
    shown.show(root.leaf(&["api.test"], |_| {}));
    assert_eq!(agent.get("api.test", "/x", &nonce).await.status, 200, "a good one is believed");
}

fn names(texts: &[&str]) -> Vec<SanType> {
    texts.iter().map(|text| SanType::DnsName((*text).try_into().expect("ASCII"))).collect()
}

/// A certificate that vouches for itself.
fn by_itself(name: &str) -> Leaf {
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec![name.to_owned()]).expect("parameters");
    let leaf = params.self_signed(&key).expect("a certificate");
    (vec![leaf.der().clone()], PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())))
}

#[tokio::test]
async fn time_name_and_issuer_have_to_be_right() {
    let (root, other) = (TestAuthority::new(), TestAuthority::new());
    let (middle, _) = root.below("between", |_| {});
    let named = |texts: &[&str]| {
        let texts = names(texts);
        root.leaf(&[], |params| params.subject_alt_names = texts)
    };
    let common = |params: &mut CertificateParams| params.distinguished_name.push(DnType::CommonName, "api.test");
    none_is_believed(
        &root,
        vec![
            ("expired", root.leaf(&["api.test"], |params| params.not_after = rcgen::date_time_ymd(2020, 1, 1))),
            ("not yet", root.leaf(&["api.test"], |params| params.not_before = rcgen::date_time_ymd(2100, 1, 1))),
            ("another name", root.leaf(&["evil.test"], |_| {})),
            ("of itself", by_itself("api.test")),
            ("of nobody we know", other.leaf(&["api.test"], |_| {})),
            ("of somebody who is not shown", middle.leaf(&["api.test"], |_| {})),
            ("a common name alone", root.leaf(&[], common)),
            ("a common name beside another", root.leaf(&["evil.test"], common)),
            ("a zero", named(&["api.test\0.evil.test"])),
            ("a zero behind", named(&["api.test\0"])),
            ("a space", named(&[" api.test", "api.test "])),
            ("a star", named(&["*"])),
            ("a star for all", named(&["*.test"])),
            ("stars", named(&["*.*"])),
            ("a star for a part", named(&["a*.test", "*i.test", "ap*", "api.*"])),
            ("a star below", named(&["*.api.test"])),
            ("an address", root.leaf(&["127.0.0.1"], |_| {})),
        ],
    )
    .await;
}

#[tokio::test]
async fn who_vouches_has_to_be_allowed_to() {
    let root = TestAuthority::new();
    let chained = |issuer: &TestAuthority, between: &[&CertificateDer<'static>]| {
        let (mut chain, key) = issuer.leaf(&["api.test"], |_| {});
        chain.extend(between.iter().map(|certificate| (*certificate).clone()));
        (chain, key)
    };
    let subtrees = |name: &str| vec![GeneralSubtree::DnsName(name.to_owned())];
    let (only, only_shown) = root.below("only others", |params| {
        let (permitted_subtrees, excluded_subtrees) = (subtrees("other.test"), Vec::new());
        params.name_constraints = Some(NameConstraints { permitted_subtrees, excluded_subtrees });
    });
    let (but, but_shown) = root.below("all but this", |params| {
        let (permitted_subtrees, excluded_subtrees) = (Vec::new(), subtrees("api.test"));
        params.name_constraints = Some(NameConstraints { permitted_subtrees, excluded_subtrees });
    });
    let (none, none_shown) = root.below("a leaf", |params| params.is_ca = IsCa::ExplicitNoCa);
    let (silent, silent_shown) = root.below("nothing said", |params| params.is_ca = IsCa::NoCa);
    let zero = |params: &mut CertificateParams| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let (last, last_shown) = root.below("the last", zero);
    let (beyond, beyond_shown) = last.below("beyond the last", |_| {});
    let clients = |params: &mut CertificateParams| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    };
    let unknown = |params: &mut CertificateParams| {
        let mut extension = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99_999, 1], vec![5, 0]);
        extension.set_criticality(true);
        params.custom_extensions = vec![extension];
    };
    let authority = |params: &mut CertificateParams| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    none_is_believed(
        &root,
        vec![
            ("for other names", chained(&only, &[&only_shown])),
            ("not for this name", chained(&but, &[&but_shown])),
            ("signed by a leaf", chained(&none, &[&none_shown])),
            ("signed by who is not said to be a CA", chained(&silent, &[&silent_shown])),
            ("too long a path", chained(&beyond, &[&beyond_shown, &last_shown])),
            ("for clients", root.leaf(&["api.test"], clients)),
            ("something critical that nobody knows", root.leaf(&["api.test"], unknown)),
            ("a CA itself", root.leaf(&["api.test"], authority)),
        ],
    )
    .await;
    let (good, good_shown) = root.below("between", |_| {});
    let shown = Shown::new(chained(&good, &[&good_shown]));
    let stage = Stage::with(upstream(&root, shown).await, |builder| builder).await;
    let nonce = stage.reader().await;
    assert_eq!(stage.sidecar.agent().get("api.test", "/x", &nonce).await.status, 200, "a chain as it should be");
}

/// A connection that was good vouches for no other.
#[tokio::test]
async fn each_new_connection_is_looked_at_anew() {
    let root = TestAuthority::new();
    let shown = Shown::new(root.leaf(&["api.test"], |_| {}));
    let stage = Stage::with(upstream(&root, shown.clone()).await, |builder| builder).await;
    let nonce = stage.reader().await;
    let mut tunnel = stage.sidecar.agent().tunnel("api.test").await;
    let busy = tunnel.start(get("api.test", "/endless", &nonce)).await;
    assert_eq!(busy.status(), 200);
    shown.show(TestAuthority::new().leaf(&["api.test"], |_| {}));
    let reply = stage.sidecar.agent().get("api.test", "/x", &nonce).await;
    assert_eq!((reply.status.as_u16(), reply.refusal()), (502, Some("upstream_tls")));
    assert_eq!(stage.upstream.seen().len(), 1, "the one that is under way");
}

/// Nothing here is timed: each ends at once or not within the patience of the tests.
#[tokio::test]
async fn long_heavy_and_huge_chains_are_given_up() {
    let root = TestAuthority::new();
    let mut line = vec![root.below("0", |_| {})];
    for number in 1..40 {
        let next = line[number - 1].0.below(&number.to_string(), |_| {});
        line.push(next);
    }
    let (mut long, long_key) = line[39].0.leaf(&["api.test"], |_| {});
    long.extend(line.iter().rev().map(|(_, certificate)| certificate.clone()));
    // Of each of these any other may have signed any other.
    let alike: Vec<_> = (0..60).map(|_| TestAuthority::new().below("alike", |_| {})).collect();
    let alike: Vec<_> = alike.iter().map(|(authority, _)| authority.below("alike", |_| {}).1).collect();
    let (lost, _) = TestAuthority::new().below("alike", |_| {});
    let (mut heavy, heavy_key) = lost.leaf(&["api.test"], |_| {});
    heavy.extend(alike);
    let many: Vec<String> = (0..12_000).map(|number| format!("n{number}.test")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).chain(["api.test"]).collect();
    let huge = root.leaf(&many, |_| {});
    none_is_believed(&root, vec![("long", (long, long_key)), ("heavy", (heavy, heavy_key)), ("huge", huge)]).await;
}

/// Runs the system's `openssl`; false where there is none, or where it does not want to.
fn openssl(place: &std::path::Path, words: &str) -> bool {
    let run = Command::new("openssl").args(words.split(' ')).current_dir(place).output();
    run.is_ok_and(|output| output.status.success())
}

/// What no library of ours signs any more.
#[tokio::test]
async fn old_signatures_and_short_keys_are_no_evidence() {
    let place = tempfile::tempdir().expect("a directory");
    let place = place.path();
    std::fs::write(place.join("san"), "subjectAltName=DNS:api.test\nbasicConstraints=CA:FALSE\n").expect("a file");
    let p256 = "ec -pkeyopt ec_paramgen_curve:P-256";
    for (what, ca_key, hash, is_good) in [
        ("as it should be", p256, "sha256", true),
        ("SHA-1", p256, "sha1", false),
        ("RSA with 2048 bits", "rsa:2048", "sha256", true),
        ("RSA with 1024 bits", "rsa:1024", "sha256", false),
        ("RSA and SHA-1", "rsa:2048", "sha1", false),
    ] {
        let made =
            openssl(place, &format!("req -x509 -newkey {ca_key} -nodes -keyout ca.key -out ca.pem -subj /CN=old"))
                && openssl(
                    place,
                    &format!("req -new -newkey {p256} -nodes -keyout leaf.key -out leaf.csr -subj /CN=x"),
                )
                && openssl(
                    place,
                    &format!(
                        "x509 -req -{hash} -in leaf.csr -CA ca.pem -CAkey ca.key -days 9 -out leaf.pem -extfile san"
                    ),
                );
        if !made {
            skip(format!("no openssl here that makes {what}"));
            continue;
        }
        let text = |name: &str| std::fs::read(place.join(name)).expect("a file");
        let leaf = CertificateDer::from_pem_slice(&text("leaf.pem")).expect("PEM");
        let key = PrivateKeyDer::from_pem_slice(&text("leaf.key")).expect("PEM");
        let upstream = upstream(&TestAuthority::new(), Shown::new((vec![leaf], key))).await;
        let old = String::from_utf8(text("ca.pem")).expect("text");
        let policy = policies::ONE_API.replace("{dir}/api.pem", "{dir}/old.pem");
        let stage = Stage::of(&policy, upstream, |builder| builder.file("old.pem", &old)).await;
        let reply = stage.sidecar.agent().get("api.test", "/x", &stage.reader().await).await;
        let expected = if is_good { (200, None) } else { (502, Some("upstream_tls")) };
        assert_eq!((reply.status.as_u16(), reply.refusal()), expected, "{what}");
        assert_eq!(stage.upstream.seen().len(), usize::from(is_good), "{what}");
    }
}

/// An upstream that asks who we are is told nobody, and what it asks of one service it does not get of another.
#[tokio::test]
async fn no_certificate_of_ours_is_shown_to_an_upstream() {
    let root = TestAuthority::new();
    let (chain, key) = root.leaf(&["api.test"], |_| {});
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(root.pem.as_bytes()).expect("PEM")).expect("a root");
    for must in [true, false] {
        let verifier =
            rustls::server::WebPkiClientVerifier::builder_with_provider(roots.clone().into(), provider.clone());
        let verifier = if must { verifier } else { verifier.allow_unauthenticated() };
        let config = rustls::ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_client_cert_verifier(verifier.build().expect("a verifier"))
            .with_single_cert(chain.clone(), key.clone_key())
            .expect("a certificate");
        let stage = Stage::with(FakeUpstream::start_tls(root.clone(), config).await, |builder| builder).await;
        let reply = stage.sidecar.agent().get("api.test", "/x", &stage.reader().await).await;
        assert_eq!(reply.status.as_u16(), if must { 502 } else { 200 }, "{:?}", reply.refusal());
        assert_eq!(stage.upstream.seen().len(), usize::from(!must));
    }
}

/// There is no switch that leaves a certificate unverified.
#[tokio::test]
async fn nothing_switches_verification_off() {
    for line in [
        "insecure = true",
        "verify = false",
        "skip_verify = true",
        "tls_verify = false",
        "insecure_skip_verify = true",
        "tls = \"skip\"",
        "upstream_ca = \"\"",
        "upstream_ca = \"none\"",
    ] {
        let policy = policies::one_api_with(line);
        let policy = if line.starts_with("upstream_ca") {
            policy.replace("upstream_ca = \"{dir}/api.pem\"\n", "")
        } else {
            policy
        };
        let authority = TestAuthority::new();
        let (code, said) =
            TestSidecar::with_policy(&policy).file("api.pem", &authority.pem).environment("API_KEY", &canary()).fails();
        assert!(code.is_some_and(|code| code != 0), "{line}: {said}");
    }
    for flag in ["--insecure", "--skip-verify", "--no-verify", "-k"] {
        let (code, said) = TestSidecar::with_policy(policies::ONE_API).flag(flag).fails();
        assert_eq!(code, Some(2), "{flag}: {said}");
    }
    let upstream = FakeUpstream::start(&["api.test"]).await;
    let policy = policies::ONE_API.replace("upstream_ca = \"{dir}/api.pem\"\n", "");
    let stage = Stage::of(&policy, upstream, |builder| {
        builder
            .environment("NODE_TLS_REJECT_UNAUTHORIZED", "0")
            .environment("PYTHONHTTPSVERIFY", "0")
            .environment("GIT_SSL_NO_VERIFY", "1")
            .environment("VALETKEY_INSECURE", "1")
    })
    .await;
    let reply = stage.sidecar.agent().get("api.test", "/x", &stage.reader().await).await;
    assert_eq!(reply.refusal(), Some("upstream_tls"));
    assert!(stage.upstream.seen().is_empty());
}
