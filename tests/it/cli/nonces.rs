//! `nonce` against a running sidecar.

use serde_json::Value;

use super::{Desk, Done};
use crate::support::agent::get;
use crate::support::{Stage, TestSidecar, policies};

/// A sidecar and someone who may mint.
struct Office {
    desk: Desk,
    control: String,
}

impl Office {
    fn at(sidecar: &TestSidecar) -> Self {
        Self { desk: Desk::new(), control: sidecar.control().to_str().expect("a path").to_owned() }
    }

    fn run(&self, line: &str) -> Done {
        let line = ["nonce"].into_iter().chain(line.split(' ')).collect::<Vec<_>>();
        Done::of(&self.desk.command(&line).env("VALETKEY_CONTROL", &self.control).output().expect("the binary starts"))
    }
}

const CREATE: &str = "create --agent worker --task t-1 --grant api:read,write";

#[tokio::test]
async fn a_nonce_is_made_used_and_ended() {
    let stage = Stage::new().await;
    let office = Office::at(&stage.sidecar);
    let made = office.run(CREATE).ends(0).says("worker").says("t-1").says("GET /{*path}");
    let nonce = made.out.trim_end();
    assert_eq!(made.out, format!("{nonce}\n"));
    assert!(nonce.starts_with("an_") && !made.err.contains("an_"), "the nonce is on standard output alone");
    let mut tunnel = stage.sidecar.agent().tunnel("api.test").await;
    assert_eq!(tunnel.send(get("api.test", "/x", nonce)).await.status, 200);

    let id = office.run("list --ids").ends(0).out.trim_end().to_owned();
    office.run("list").ends(0).shows(&id).shows("api:read,write").shows("EXPIRES IN");
    office.run(&format!("show {id}")).ends(0).shows("worker").shows("POST /{*path}");
    office.run(&format!("revoke {id}")).ends(0).shows(&format!("revoked {id}"));
    assert_eq!(tunnel.send(get("api.test", "/x", nonce)).await.refusal(), Some("nonce_revoked"));
    let done = office.run("list").ends(0).says("no live nonces");
    assert!(done.out.is_empty());
    office.run(&format!("show {id}")).ends(7);
    stage.assert_silent(&[nonce]);
}

#[tokio::test]
async fn scripts_get_the_nonce_alone_or_everything_as_json() {
    let stage = Stage::new().await;
    let office = Office::at(&stage.sidecar);
    let quiet = office.run(&format!("{CREATE} --quiet")).ends(0);
    assert!(quiet.err.is_empty() && quiet.out.lines().count() == 1);
    let line = "create --agent worker --task t-2 --service api --scope read --ttl 90 --max-uses 3 --label a=1 --label b=2 \
                --instance i --on-behalf-of user:ana --reason why --json";
    let minted = office.run(line).ends(0).json();
    assert_eq!((&minted["max_uses"], &minted["expires_in"]), (&3.into(), &90.into()));
    let id = minted["id"].as_str().unwrap();
    let lease = office.run(&format!("show {id} --json")).ends(0).json();
    assert_eq!((&lease["labels"]["b"], &lease["on_behalf_of"]), (&"2".into(), &"user:ana".into()));
    assert_eq!(lease.get("nonce"), None);
    let listed = |filter: &str| office.run(format!("list --json {filter}").trim_end()).ends(0).json();
    let count = |list: &Value| list["nonces"].as_array().map(Vec::len);
    assert_eq!(count(&listed("")), Some(2));
    assert_eq!(listed("--task t-2")["nonces"][0]["id"], id);
    assert_eq!(count(&listed("--agent worker --service api --task t-2")), Some(1));
    let other = office.run("list --ids --task t-1").ends(0).out.trim_end().to_owned();
    let ended = office.run(&format!("revoke {id} {other} --json")).ends(0).json();
    assert_eq!((&ended[0]["revoked"], &ended[1]["id"]), (&true.into(), &other.as_str().into()));
    assert_eq!(count(&listed("")), Some(0));
}

#[tokio::test]
async fn a_retry_with_a_key_gets_the_same_nonce() {
    let stage = Stage::new().await;
    let office = Office::at(&stage.sidecar);
    let line = format!("{CREATE} --quiet --idempotency-key k-1");
    assert_eq!(office.run(&line).ends(0).out, office.run(&line).ends(0).out);
    office.run(&format!("{line} --ttl 1m")).ends(7).says("idempotency_conflict");
}

#[tokio::test]
async fn a_service_gets_the_shape_that_it_insists_on() {
    let policy = policies::ONE_API.replace("upstream_ca", "placeholder = \"sk_test_{nonce}\"\nupstream_ca");
    let upstream = crate::support::FakeUpstream::start(&["api.test"]).await;
    let sidecar = TestSidecar::with_policy(&policy).upstream(&["api.test"], "api", &upstream).start().await;
    let office = Office::at(&sidecar);
    office.run(CREATE).ends(0).says("--placeholder api");
    let shaped = office.run(&format!("{CREATE} -q --placeholder api")).ends(0);
    assert!(shaped.out.starts_with("sk_test_an_") && shaped.err.is_empty());
    let done = office.run(&format!("{CREATE} -q --placeholder other")).ends(2).says("valetkey nonce revoke nc_");
    assert!(done.out.is_empty());
}

#[tokio::test]
async fn refusals_say_what_there_is() {
    let stage = Stage::new().await;
    let office = Office::at(&stage.sidecar);
    let create = |rest: &str| office.run(&format!("create --agent worker --task t {rest}"));
    create("--grant api:admin").ends(7).says("scope_not_grantable").says("read, write, once");
    create("--grant nothing:read").ends(7).says("unknown_service").says("api");
    create("--grant api:read --ttl never").ends(7).says("invalid_request").says("--ttl: ");
    office.run("show nc_01J8Z4T6V0Q2W4E6R8T0Y2V4X6").ends(7);
    assert!(office.run("list --agent nobody --ids").ends(0).out.is_empty());
}

#[tokio::test]
async fn a_plain_nonce_is_never_taken_for_an_id() {
    let stage = Stage::new().await;
    let office = Office::at(&stage.sidecar);
    let nonce = office.run(&format!("{CREATE} -q")).ends(0).out.trim_end().to_owned();
    for line in [format!("show {nonce}"), format!("revoke {nonce}"), format!("revoke sk_test_{nonce}")] {
        let done = office.run(&line).ends(2).says("not an id");
        assert!(!done.err.contains(&nonce), "it is not repeated");
    }
    stage.assert_silent(&[&nonce]);
}

#[test]
fn without_a_sidecar_it_says_how_to_find_one() {
    let desk = Desk::new();
    let id = "nc_01J8Z4T6V0Q2W4E6R8T0Y2V4X6";
    for line in [
        &["list"][..],
        &["show", id],
        &["revoke", id, id],
        &["create", "--agent", "a", "--task", "t", "--grant", "s:x"],
    ] {
        let line = [&["nonce"][..], line, &["--control", "none.sock"]].concat();
        desk.run(&line).ends(7).says("none.sock").says("valetkey serve").says("VALETKEY_CONTROL");
    }
    // Left behind by a sidecar that is gone.
    drop(std::os::unix::net::UnixListener::bind(desk.path("dead.sock")).unwrap());
    desk.run(&["nonce", "list", "--control", "dead.sock"]).ends(7).says("nobody listens");
}
