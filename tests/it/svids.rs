//! The proxy over TLS: agents that are known by their certificates, and those that have none.

mod clients;
mod elsewhere;
mod ending;
mod listener;
mod streamed;

use std::path::Path;
use std::sync::Arc;

use rcgen::{ExtendedKeyUsagePurpose, KeyUsagePurpose, SanType};

use crate::support::agent::get;
use crate::support::authority::TestAuthority;
use crate::support::outer::{Certificate, Entry, end_in, svid};
use crate::support::remote::{Parties, write};
use crate::support::wire::answers;
use crate::support::{Agent, Builder, FakeUpstream, Stage, policies};

const WORKER: &str = "spiffe://example.org/worker";
const OTHER: &str = "spiffe://example.org/other";

/// Two agents of a mesh, and the CAs of certificates.
fn policy() -> String {
    let one = policies::ONE_API.replace("[\"any\"]", &format!("[\"{WORKER}\", \"mtls:worker.test\"]"));
    let other = format!("\n[agents.other]\nidentity = [\"{OTHER}\"]\ngrants = {{ api = [\"read\"] }}\n");
    let ca = |name: &str, rest: &str| format!("\n[client_cas.{name}]\nca = \"{{dir}}/{name}.pem\"\n{rest}");
    let mesh = |domain: &str| format!("trust_domain = \"{domain}\"\n");
    [one, other, ca("mesh", &mesh("example.org")), ca("far", &mesh("far.org")), ca("names", "")].concat()
}

/// A sidecar with the listener, and who vouches for whom.
struct Scene {
    stage: Stage,
    entry: Entry,
    mesh: Arc<TestAuthority>,
    far: Arc<TestAuthority>,
    names: Arc<TestAuthority>,
    directory: Arc<tempfile::TempDir>,
}

async fn scene(policy: &str, edit: impl FnOnce(Builder, &Path) -> Builder) -> Scene {
    let directory = Arc::new(tempfile::tempdir().expect("a directory"));
    let (entry, mesh) = (Entry::new(), TestAuthority::new());
    let (far, names) = (TestAuthority::new(), TestAuthority::new());
    entry.lay(directory.path());
    for (name, authority) in [("mesh", &mesh), ("far", &far), ("names", &names)] {
        write(&directory.path().join(format!("{name}.pem")), &authority.pem, 0o644);
    }
    let upstream = FakeUpstream::start(&["api.test"]).await;
    let stage =
        Stage::of(policy, upstream, |builder| edit(Entry::open(builder.within(&directory)), directory.path())).await;
    Scene { stage, entry, mesh, far, names, directory }
}

impl Scene {
    async fn agent(&self, certificate: Certificate) -> Agent {
        self.entry.agent(&self.stage.sidecar, Some(certificate)).await
    }

    async fn worker(&self) -> Agent {
        self.agent(svid(&self.mesh, &[WORKER], |_| {})).await
    }

    async fn plain(&self) -> Agent {
        self.entry.agent(&self.stage.sidecar, None).await
    }
}

/// The status, code and head of the answer to a `CONNECT`.
async fn connect(agent: &Agent) -> (u16, String, String) {
    let (head, _) = agent.connect("api.test:443").await;
    let answer = answers(head.as_bytes(), true).pop().expect("an answer");
    let code = answer.header("valetkey-error").unwrap_or_default().to_owned();
    (answer.status, code, head)
}

/// The status and the code of a request in a tunnel of its own.
async fn ask(agent: &Agent, nonce: &str) -> (u16, Option<String>) {
    let reply = agent.get("api.test", "/x", nonce).await;
    (reply.status.as_u16(), reply.refusal().map(str::to_owned))
}

fn refused(status: u16, code: &str) -> (u16, Option<String>) {
    (status, Some(code.to_owned()))
}

#[tokio::test]
async fn an_svid_proves_its_agent() {
    let scene = scene(&policy(), |builder, _| builder).await;
    let nonce = scene.stage.reader().await;
    let agent = scene.worker().await;
    for mut tunnel in [agent.tunnel("api.test").await, agent.tunnel_h2("api.test").await] {
        for _ in 0..2 {
            assert_eq!(tunnel.send(get("api.test", "/x", &nonce)).await.status, 200);
        }
    }
    let record = scene.stage.sidecar.audited(|record| record["presented_by.identity"] == WORKER).await;
    assert_eq!(record["presented_by.proof"], "svid", "{record:#}");
    // In absolute form as well, and on each request of one connection.
    let request = format!("GET https://api.test/x HTTP/1.1\r\nHost: api.test\r\nAuthorization: Bearer {nonce}\r\n\r\n");
    assert!(agent.raw(request.as_bytes()).await.starts_with("HTTP/1.1 200"));
    // At its own door.
    let reply = agent.get("valetkey.internal", "/v1/self", &nonce).await;
    assert_eq!((reply.status.as_u16(), reply.json()["agent"].as_str()), (200, Some("worker")), "{}", reply.text());
    // By a name, of the CA of names.
    let named = scene.agent(scene.names.leaf(&["worker.test"], |_| {})).await;
    assert_eq!(ask(&named, &nonce).await, (200, None));
    let record = scene.stage.sidecar.audited(|record| record["presented_by.identity"] == "mtls:worker.test").await;
    assert_eq!(record["presented_by.proof"], "certificate", "{record:#}");
    // Below another CA, which it shows too.
    let (below, der) = scene.mesh.below("below the mesh", |_| {});
    let (mut chain, key) = svid(&below, &[WORKER], |_| {});
    chain.push(der);
    assert_eq!(ask(&scene.agent((chain, key)).await, &nonce).await, (200, None));
    assert_eq!(scene.stage.upstream.seen().len(), 7);
    scene.stage.assert_silent(&[&nonce]);
}

#[tokio::test]
async fn whatever_is_wrong_with_a_certificate_opens_no_tunnel() {
    let scene = scene(&policy(), |builder, _| builder).await;
    let (mesh, far, names) = (&scene.mesh, &scene.far, &scene.names);
    let stranger = TestAuthority::new();
    let alone = || {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(WORKER.try_into().expect("a URI"))];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let certificate = params.self_signed(&key).expect("a certificate");
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der());
        (vec![certificate.der().clone()], rustls::pki_types::PrivateKeyDer::from(key))
    };
    let (below, _) = scene.mesh.below("below the mesh", |_| {});
    let (no_ca, name, use_, over) = ("no CA", "does not name one", "is not for clients", "has expired");
    for (what, certificate, why) in [
        ("another trust domain's CA", svid(far, &[WORKER], |_| {}), no_ca),
        ("the CA of names", svid(names, &[WORKER], |_| {}), no_ca),
        ("a CA that nobody knows", svid(&stranger, &[WORKER], |_| {}), no_ca),
        ("a trust domain that nobody knows", svid(mesh, &["spiffe://nowhere.org/worker"], |_| {}), no_ca),
        ("a name, of the mesh", mesh.leaf(&["worker.test"], |_| {}), no_ca),
        ("signed by itself", alone(), no_ca),
        ("below a CA that it does not show", svid(&below, &[WORKER], |_| {}), no_ca),
        ("two IDs", svid(mesh, &[WORKER, OTHER], |_| {}), name),
        ("the trust domain itself", svid(mesh, &["spiffe://example.org"], |_| {}), name),
        ("another URI", svid(mesh, &["https://example.org/worker"], |_| {}), name),
        ("two names", names.leaf(&["worker.test", "other.test"], |_| {}), name),
        ("a CA", svid(mesh, &[WORKER], |it| it.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained)), name),
        ("may sign others", svid(mesh, &[WORKER], |it| it.key_usages.push(KeyUsagePurpose::KeyCertSign)), name),
        ("for no signature", svid(mesh, &[WORKER], |it| it.key_usages = vec![KeyUsagePurpose::KeyAgreement]), use_),
        ("for nothing in particular", svid(mesh, &[WORKER], |it| it.key_usages.clear()), use_),
        (
            "a server's",
            svid(mesh, &[WORKER], |it| it.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]),
            use_,
        ),
        ("expired", svid(mesh, &[WORKER], |it| end_in(it, -1)), over),
        ("not valid yet", svid(mesh, &[WORKER], |it| it.not_before = rcgen::date_time_ymd(2999, 1, 1)), over),
    ] {
        let (status, code, head) = connect(&scene.agent(certificate).await).await;
        assert_eq!((status, code.as_str()), (403, "identity_refused"), "{what}: {head}");
        assert!(head.contains(why), "{what}: {head}");
    }
    let nonce = scene.stage.reader().await;
    let agent = scene.agent(svid(far, &[WORKER], |_| {})).await;
    let request = format!("GET https://api.test/x HTTP/1.1\r\nHost: api.test\r\nAuthorization: Bearer {nonce}\r\n\r\n");
    let answer = agent.raw(request.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("identity_refused"), "{answer}");
    let is_it = |record: &serde_json::Value| record["type"] == "connection" && record["code"] == "identity_refused";
    scene.stage.sidecar.audited(is_it).await;
    assert!(scene.stage.upstream.seen().is_empty());
}

#[tokio::test]
async fn a_nonce_is_its_agents_alone() {
    let scene = scene(&policy(), |builder, _| builder).await;
    let nonce = scene.stage.reader().await;
    let other = scene.agent(svid(&scene.mesh, &[OTHER], |_| {})).await;
    assert_eq!(ask(&other, &nonce).await, refused(403, "agent_mismatch"), "another agent");
    let nobody = scene.agent(svid(&scene.mesh, &["spiffe://example.org/nobody"], |_| {})).await;
    assert_eq!(ask(&nobody, &nonce).await, refused(403, "agent_mismatch"), "no agent at all");
    assert_eq!(ask(&scene.plain().await, &nonce).await, refused(401, "agent_unidentified"), "without a certificate");
    assert_eq!(ask(&scene.stage.sidecar.agent(), &nonce).await, refused(401, "agent_unidentified"), "in clear text");
    assert!(scene.stage.upstream.seen().is_empty());
    assert_eq!(ask(&scene.worker().await, &nonce).await, (200, None));
}

#[tokio::test]
async fn what_an_svid_presents_it_never_mints() {
    let minter = "spiffe://example.org/orchestrator";
    let minters =
        format!("\n[minters.remote]\nidentity = [\"{minter}\"]\nagents = [\"worker\"]\nmay = [\"mint\", \"read\"]\n");
    let parties = Parties::new();
    let scene = scene(&(policy() + &minters), |builder, directory| {
        parties.lay(directory);
        Parties::open(builder).set_flag("--control-client-ca", "{dir}/mesh.pem")
    })
    .await;
    let minting = async |id: &str| {
        let certificate = svid(&scene.mesh, &[id], |_| {});
        let caller = parties.caller_with(&scene.stage.sidecar, Some(certificate));
        let body = serde_json::json!({"agent": "worker", "task": "t", "service": "api", "scope": "read"}).to_string();
        let request = http::Request::post("/v1/nonces").header("host", crate::support::remote::NAME);
        let request = request.header("content-type", "application/json").body(http_body_util::Full::from(body));
        caller.send(request.expect("a request")).await.expect("an answer")
    };
    for agent in [WORKER, OTHER] {
        let answer = minting(agent).await;
        assert_eq!((answer.status.as_u16(), &answer.json["code"]), (403, &"forbidden".into()), "{:#}", answer.json);
        let of = |record: &serde_json::Value| record["caller.identity"] == agent && record["type"] == "control_refused";
        scene.stage.sidecar.audited(of).await;
    }
    let answer = minting(minter).await;
    assert_eq!(answer.status.as_u16(), 201, "{:#}", answer.json);
    let nonce = answer.json["nonce"].as_str().expect("a nonce").to_owned();
    assert_eq!(ask(&scene.worker().await, &nonce).await, (200, None));
    // Who has minted it cannot present it.
    let orchestrator = scene.agent(svid(&scene.mesh, &[minter], |_| {})).await;
    assert_eq!(ask(&orchestrator, &nonce).await, refused(403, "agent_mismatch"));
}
