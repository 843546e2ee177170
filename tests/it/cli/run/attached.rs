//! `run --attach`: with a sidecar that runs already.

use serde_json::json;

use super::READS;
use crate::cli::{Desk, Done};
use crate::support::Stage;

pub(super) async fn attached(stage: &Stage, desk: &Desk, flags: &[&str], script: &str) -> Done {
    let control = stage.sidecar.control().to_str().expect("a path").to_owned();
    let known = ["run", "--attach", &control, "--grant", "api:read=KEY", "--task", "task-9"];
    let mut command = desk.command(&[&known[..], flags, &["--", "sh", "-c", script]].concat());
    command.env("XDG_RUNTIME_DIR", desk.path(""));
    // The upstream serves meanwhile.
    tokio::task::spawn_blocking(move || Done::of(&command.output().expect("the binary starts"))).await.expect("an end")
}

#[tokio::test]
async fn a_nonce_of_a_running_sidecar_is_dead_when_the_command_is_over() {
    let stage = Stage::new().await;
    let desk = Desk::new();
    let done = attached(&stage, &desk, &[], &format!("echo $KEY; {READS}")).await.ends(0);
    let (nonce, status) = done.out.trim_end().split_once('\n').expect("two lines");
    assert_eq!(status, "200");
    assert_eq!(stage.upstream.only().header("authorization"), Some(&*format!("Bearer {}", stage.secret)));
    let asked = json!({ "nonce": nonce });
    let (_, introspection) = stage.sidecar.orchestrator().call("POST", "/v1/introspect", Some(asked)).await;
    assert_eq!(introspection["active"], false);
    let ended = stage.sidecar.audited(|record| record["type"] == "lease_end").await;
    assert_eq!((&ended["cause"], &ended["task"]), (&"revoked".into(), &"task-9".into()));
    assert_eq!(std::fs::read_dir(desk.path("")).expect("a directory").count(), 0, "the run's directory is gone");
}

#[tokio::test]
async fn a_socket_that_is_not_there_ends_with_7() {
    let desk = Desk::new();
    let grant = ["--grant", "api:read=KEY"];
    let line = [&["run", "--attach", "nowhere.sock"][..], &grant, &["--", "true"]].concat();
    desk.run(&line).ends(7).says("nowhere.sock").says("--attach");
    let line = [&["run", "--attach", "nowhere.sock", "--audit", "x"][..], &grant, &["--", "true"]].concat();
    desk.run(&line).ends(2);
}
