//! Who may call: proven by the kernel, allowed by the policy.

use std::os::unix::fs::{PermissionsExt, chown};

use serde_json::json;

use crate::support::orchestrator::get;
use crate::support::stranger::{STRANGER, acting, can_be_others};
use crate::support::{Builder, FakeUpstream, Orchestrator, Stage, policies};

/// A group that nobody is in but the ones who act for it here.
pub const GROUP: u32 = 54_321;
const MINTER: u32 = 54_322;
const READER: u32 = 54_323;
const AGENT: u32 = 54_324;

/// A sidecar whose socket is open to a group, in a directory that lets others through.
pub async fn open_to_group(policy: &str) -> Stage {
    let upstream = FakeUpstream::start(&["api.test"]).await;
    let group = |builder: Builder| builder.flag("--control-group").flag(&GROUP.to_string());
    let stage = Stage::of(policy, upstream, group).await;
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(stage.sidecar.directory.path(), open).expect("our directory");
    stage
}

fn policy() -> String {
    let one = policies::ONE_API.replace("\"any\"", &format!("\"uid:{AGENT}\""));
    format!(
        "{one}\n[agents.other]\nidentity = [\"uid:1\"]\ngrants = {{ api = [\"read\"] }}\n\
         [minters.orchestrator]\nidentity = [\"uid:{MINTER}\"]\nagents = [\"worker\"]\nmay = [\"mint\", \"revoke\"]\n\
         [minters.watcher]\nidentity = [\"uid:{READER}\"]\nagents = [\"*\"]\nmay = [\"read\"]\n"
    )
}

/// Calls as another user in the group; status and code.
async fn call(
    stage: &Stage,
    uid: u32,
    method: &'static str,
    path: String,
    body: Option<serde_json::Value>,
) -> (u16, String) {
    let control = stage.sidecar.control();
    acting(uid, GROUP, move || async move {
        let (status, answer) = Orchestrator::new(control).call(method, &path, body).await;
        (status.as_u16(), answer["code"].as_str().unwrap_or_default().to_owned())
    })
    .await
}

fn mint(agent: &str) -> Option<serde_json::Value> {
    Some(json!({"agent": agent, "task": "t", "service": "api", "scope": "read"}))
}

#[tokio::test]
async fn the_socket_is_closed_to_other_users() {
    if !can_be_others() {
        return;
    }
    let stage = Stage::new().await;
    let open = std::fs::Permissions::from_mode(0o755);
    // Even where every directory above lets them through.
    std::fs::set_permissions(stage.sidecar.directory.path(), open.clone()).expect("our directory");
    std::fs::set_permissions(stage.sidecar.path("run"), open).expect("our directory");
    let control = stage.sidecar.control();
    let connected =
        acting(STRANGER, STRANGER, move || async move { tokio::net::UnixStream::connect(control).await.map(drop) });
    let error = connected.await.expect_err("closed");
    assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied);
}

#[tokio::test]
async fn a_group_may_connect_and_the_policy_says_who_of_it_may_what() {
    if !can_be_others() {
        return;
    }
    let stage = open_to_group(&policy()).await;
    let metadata = std::fs::metadata(stage.sidecar.control()).expect("a socket");
    assert_eq!(metadata.permissions().mode() & 0o777, 0o660);
    assert_eq!(std::os::unix::fs::MetadataExt::gid(&metadata), GROUP);
    let call = async |uid, method, path: &str, body| call(&stage, uid, method, path.to_owned(), body).await;
    let nonces = "/v1/nonces";
    assert_eq!(call(STRANGER, "POST", nonces, mint("worker")).await, (401, "unauthenticated".into()));
    assert_eq!(call(AGENT, "POST", nonces, mint("worker")).await, (403, "forbidden".into()), "an agent never mints");
    assert_eq!(call(AGENT, "GET", "/v1/whoami", None).await, (403, "forbidden".into()));
    assert_eq!(call(MINTER, "POST", nonces, mint("worker")).await, (201, String::new()));
    assert_eq!(call(MINTER, "POST", nonces, mint("other")).await, (403, "forbidden".into()), "not its agent");
    assert_eq!(call(MINTER, "GET", nonces, None).await, (403, "forbidden".into()), "it may not read");
    assert_eq!(call(READER, "GET", nonces, None).await, (200, String::new()));
    assert_eq!(call(READER, "POST", nonces, mint("worker")).await, (403, "forbidden".into()), "it may not mint");
    let lease = stage.sidecar.audited(|record| record["type"] == "mint").await;
    let one = format!("/v1/nonces/{}", lease["nonce.id"].as_str().expect("an id"));
    assert_eq!(call(READER, "DELETE", &one, None).await, (403, "forbidden".into()));
    assert_eq!(call(MINTER, "DELETE", &one, None).await, (204, String::new()));
    assert_eq!(lease["minted_by.identity"], format!("uid:{MINTER}"));
    assert_eq!(lease["minted_by.proof"], "kernel");
    let refused = stage.sidecar.audited(|record| record["caller.identity"] == format!("uid:{STRANGER}")).await;
    assert_eq!(refused["code"], "unauthenticated");
}

#[tokio::test]
async fn a_nonce_opens_only_in_its_agents_hands() {
    if !can_be_others() {
        return;
    }
    let stage = open_to_group(&policy()).await;
    // Our own uid is no minter of this policy and no agent either.
    let nonce = stage.reader().await;
    let agent = stage.sidecar.agent();
    let present = async |uid: u32| {
        let (agent, nonce) = (agent.clone(), nonce.clone());
        acting(uid, uid, move || async move { agent.get("api.test", "/x", &nonce).await }).await
    };
    assert_eq!(present(AGENT).await.status, 200);
    for uid in [STRANGER, MINTER, 0] {
        assert_eq!(present(uid).await.refusal(), Some("agent_mismatch"), "uid {uid}");
    }
    let allowed = stage.sidecar.audited(|record| record["decision"] == "allow").await;
    assert_eq!(allowed["presented_by.identity"], format!("uid:{AGENT}"));
    assert_eq!(allowed["presented_by.proof"], "kernel");
    assert_eq!(stage.upstream.seen().len(), 1);
}

#[tokio::test]
async fn it_is_not_on_the_proxys_port_nor_on_the_admin_listener() {
    let stage = Stage::new().await;
    let reply =
        stage.sidecar.agent().raw(b"POST /v1/nonces HTTP/1.1\r\nHost: valetkey\r\nContent-Length: 0\r\n\r\n").await;
    assert!(reply.starts_with("HTTP/1.1 400"), "{reply}");
    for path in ["/v1/nonces", "/v1/whoami", "/ca.pem"] {
        assert_eq!(stage.sidecar.admin_get(path).await.status, 404, "{path}");
    }
}

#[tokio::test]
async fn a_directory_that_others_could_write_is_no_place_for_it() {
    let directory = std::sync::Arc::new(tempfile::tempdir().expect("a directory"));
    let run = directory.path().join("run");
    std::fs::create_dir(&run).expect("a directory");
    std::fs::set_permissions(&run, std::fs::Permissions::from_mode(0o777)).expect("our directory");
    let start = || Builder::new("version = 1\n").within(&directory).fails();
    let (code, said) = start();
    assert_eq!(code, Some(5), "{said}");
    if can_be_others() {
        std::fs::set_permissions(&run, std::fs::Permissions::from_mode(0o700)).expect("our directory");
        chown(&run, Some(STRANGER), None).expect("root");
        let (code, said) = start();
        assert_eq!(code, Some(5), "{said}");
    }
}

#[tokio::test]
async fn a_same_uid_caller_is_warned_once_in_the_log() {
    let stage = Stage::new().await;
    for _ in 0..3 {
        stage.sidecar.orchestrator().exchange(get("/v1/whoami")).await;
    }
    assert_eq!(stage.sidecar.log().matches("Run the agent as another user").count(), 1, "{}", stage.sidecar.log());
}
