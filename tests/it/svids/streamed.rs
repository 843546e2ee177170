//! The bundle of X.509-SVIDs, as the Workload API streams it.

use std::path::Path;
use std::time::Duration;

use super::{OTHER, Scene, WORKER, ask, connect, policy, refused, scene};
use crate::support::Agent;
use crate::support::agent::get;
use crate::support::authority::TestAuthority;
use crate::support::outer::svid;
use crate::support::workload::{Answer, WorkloadApi, bundles, certificates, framed};

const DOMAIN: &str = "spiffe://example.org";
const FAR: &str = "spiffe://far.org";
/// A wait for one thing, in steps of 50 ms.
const STEPS_MAX: usize = 600;

/// The mesh's CAs come from the stream; those of the other tables from their files.
fn streamed() -> String {
    policy().replace("ca = \"{dir}/mesh.pem\"", "workload_api = \"unix://{dir}/agent.sock\"")
}

fn of_domain(authorities: &[&TestAuthority]) -> Answer {
    let certificates_of: Vec<_> = authorities.iter().map(|authority| authority.der()).collect();
    let der: Vec<&[u8]> = certificates_of.iter().map(|der| der.as_ref()).collect();
    certificates(&[(DOMAIN, &der)])
}

/// A scene whose Workload API gives this, and the API.
async fn of_api(answer: impl FnOnce(&Path) -> WorkloadApi) -> (Scene, WorkloadApi) {
    let mut api = None;
    let scene = scene(&streamed(), |builder, directory| {
        api = Some(answer(&directory.join("agent.sock")));
        builder
    })
    .await;
    (scene, api.expect("it was started"))
}

/// Waits until a `CONNECT` comes to this status.
async fn settles(agent: &Agent, status: u16) {
    let mut last = String::new();
    for _ in 0..STEPS_MAX {
        let (now, _, head) = connect(agent).await;
        if now == status {
            return;
        }
        last = head;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("not {status}: {last}");
}

async fn agent(scene: &Scene, by: &TestAuthority, id: &str) -> Agent {
    scene.agent(svid(by, &[id], |_| {})).await
}

#[tokio::test]
async fn an_update_of_the_stream_replaces_the_cas() {
    let (old, new) = (TestAuthority::new(), TestAuthority::new());
    let (scene, api) = of_api(|path| WorkloadApi::start_x509(path, of_domain(&[&old]))).await;
    let nonce = scene.stage.reader().await;
    let (first, second) = (agent(&scene, &old, WORKER).await, agent(&scene, &new, WORKER).await);
    settles(&first, 200).await;
    assert_eq!(ask(&first, &nonce).await, (200, None));
    assert_eq!(ask(&agent(&scene, &old, OTHER).await, &nonce).await, refused(403, "agent_mismatch"));
    let (status, code, _) = connect(&second).await;
    assert_eq!((status, code.as_str()), (403, "identity_refused"));
    assert_eq!(connect(&scene.worker().await).await.0, 403, "the file is not asked");
    let mut open = first.tunnel("api.test").await;
    api.say(of_domain(&[&old, &new]));
    settles(&second, 200).await;
    settles(&first, 200).await;
    api.say(of_domain(&[&new]));
    settles(&first, 403).await;
    settles(&second, 200).await;
    assert_eq!(open.send(get("api.test", "/x", &nonce)).await.status, 200, "a tunnel is judged when it is opened");
    assert_eq!(api.calls(), 1, "all on one stream");
    // A bundle with nothing in it vouches for nobody, and one that is gone is missed.
    api.say(certificates(&[(DOMAIN, &[])]));
    settles(&second, 403).await;
    api.say(certificates(&[(FAR, &[new.der().as_ref()])]));
    settles(&second, 503).await;
    scene.stage.assert_silent(&[&nonce]);
}

#[tokio::test]
async fn a_trust_domain_is_vouched_for_by_its_own_bundle_alone() {
    let (mesh, far) = (TestAuthority::new(), TestAuthority::new());
    let both = |path: &Path| {
        let both = certificates(&[(FAR, &[far.der().as_ref()]), (DOMAIN, &[mesh.der().as_ref()])]);
        WorkloadApi::start_x509(path, both)
    };
    let (scene, _api) = of_api(both).await;
    settles(&agent(&scene, &mesh, WORKER).await, 200).await;
    for (by, id) in [(&far, WORKER), (&mesh, "spiffe://far.org/worker"), (&far, "spiffe://far.org/worker")] {
        let (status, code, head) = connect(&agent(&scene, by, id).await).await;
        assert_eq!((status, code.as_str()), (403, "identity_refused"), "{id}: {head}");
    }
    let named = scene.agent(mesh.leaf(&["worker.test"], |_| {})).await;
    assert_eq!(connect(&named).await.0, 403, "a name, of the mesh");
    let of_file = agent(&scene, &scene.far, "spiffe://far.org/worker").await;
    assert_eq!(connect(&of_file).await.0, 200, "whose table has a file");
}

#[tokio::test]
async fn the_last_cas_hold_while_the_stream_is_gone_and_none_before_it_is_there() {
    let scene = scene(&streamed(), |builder, _| builder).await;
    let (old, new) = (TestAuthority::new(), TestAuthority::new());
    let (first, second) = (agent(&scene, &old, WORKER).await, agent(&scene, &new, WORKER).await);
    let (status, code, head) = connect(&first).await;
    assert_eq!((status, code.as_str()), (503, "identity_unavailable"), "{head}");
    let path = scene.stage.sidecar.path("agent.sock");
    let api = WorkloadApi::start_x509(&path, of_domain(&[&old]));
    settles(&first, 200).await;
    drop(api);
    assert_eq!((connect(&first).await.0, connect(&second).await.0), (200, 403));
    let api = WorkloadApi::start_x509(&path, of_domain(&[&new]));
    settles(&second, 200).await;
    assert_eq!(connect(&first).await.0, 403, "withdrawn meanwhile");
    drop(api);
    // One that speaks of tokens alone is none.
    let api = WorkloadApi::start(&path, bundles(&[(DOMAIN, "{}")]));
    scene.stage.sidecar.audited(|record| record["type"] == "start").await;
    assert_eq!(connect(&second).await.0, 200, "known");
    assert_eq!(api.calls(), 0);
}

#[tokio::test]
async fn garbage_replaces_nothing() {
    let known = TestAuthority::new();
    let (scene, api) = of_api(|path| WorkloadApi::start_x509(path, of_domain(&[&known]))).await;
    let mut agent_of = agent(&scene, &known, WORKER).await;
    settles(&agent_of, 200).await;
    let der = known.der();
    let cut = &der[..der.len() - 1];
    let more = [der.as_ref(), b"x"].concat();
    let garbage = [
        ("no protobuf", Answer::Bytes(framed(b"\xff\xff\xff"))),
        ("PEM", certificates(&[(DOMAIN, &[known.pem.as_bytes()])])),
        ("half a certificate", certificates(&[(DOMAIN, &[cut])])),
        ("more than certificates", certificates(&[(DOMAIN, &[&more])])),
        ("a bundle twice", certificates(&[(DOMAIN, &[&der]), (DOMAIN, &[&der])])),
        ("permission denied", Answer::Status(7)),
    ];
    for (what, answer) in garbage {
        let before = api.calls();
        api.say(answer);
        api.cut();
        crate::support::sidecar::eventually(what, || (api.calls() >= before + 2).then_some(())).await;
        assert_eq!(connect(&agent_of).await.0, 200, "{what}");
        let next = TestAuthority::new();
        agent_of = agent(&scene, &next, WORKER).await;
        // What is good is good again, and the next one goes on from there.
        api.say(of_domain(&[&known, &next]));
        settles(&agent_of, 200).await;
        agent_of = agent(&scene, &known, WORKER).await;
    }
}
