//! Sources of credentials that are down, wrong or slow: nothing goes upstream, and nothing of what a source said goes anywhere.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::{Case, Kind, kind_alike};
use crate::client::Outcome;
use crate::scene::Scene;
use crate::support::policies;
use crate::upstream::Fault;

const FILE: &str = "source = \"file\"\npath = \"{dir}/key\"";
const EXEC: &str = "source = \"exec\"\ncommand = [\"{dir}/fetch\"]\nttl = \"1s\"\ntimeout = \"2s\"";
/// Does what is in a file beside it.
const FETCH: &str = "#!/bin/sh\ncd \"$(dirname \"$0\")\" && . ./mode\n";

pub fn all() -> Vec<Kind> {
    let file = |name: &str, broken: Option<&'static str>| kind_alike(name, move |case| file(case, broken));
    let exec = |name: &str, mode: &'static str| kind_alike(name, move |case| exec(case, mode));
    vec![
        file("credential_file_missing", None),
        file("credential_file_empty", Some("")),
        file("credential_file_of_two_lines", Some("sk_live_one_line_of_two\nand_the_other_line")),
        exec("credential_command_fails", "exit 3"),
        exec("credential_command_tells_all_and_fails", "cat key >&2; cat key; exit 1"),
        exec("credential_command_hangs", "exec sleep 60"),
        exec("credential_command_says_too_much", "head -c 10000000 /dev/zero | tr '\\0' x"),
        exec("credential_command_says_nothing", "true"),
        exec("credential_command_is_killed", "kill -9 $$"),
    ]
}

async fn sourced(case: Case, source: &str) -> (Scene, Arc<tempfile::TempDir>) {
    let directory = Arc::new(tempfile::tempdir().expect("a directory"));
    let place = directory.clone();
    let scene = Scene::with(case, Fault::none(), &policies::one_api_from(source), |builder, secret| {
        write(&place, "key", secret);
        write(&place, "mode", "cat key");
        write(&place, "fetch", FETCH);
        let owner = std::fs::Permissions::from_mode(0o700);
        std::fs::set_permissions(place.path().join("fetch"), owner).expect("our file");
        builder.within(&place).flag("--allow-exec")
    })
    .await;
    (scene, directory)
}

fn write(directory: &Arc<tempfile::TempDir>, name: &str, text: &str) {
    let draft = directory.path().join(format!("{name}.draft"));
    std::fs::write(&draft, text).expect("a file");
    let mode = if name == "key" { 0o600 } else { 0o644 };
    std::fs::set_permissions(&draft, std::fs::Permissions::from_mode(mode)).expect("our file");
    std::fs::rename(&draft, directory.path().join(name)).expect("a rename");
}

async fn file(case: Case, broken: Option<&'static str>) {
    let (scene, directory) = sourced(case, FILE).await;
    scene.works("/before").await;
    match broken {
        Some(text) => write(&directory, "key", text),
        None => std::fs::remove_file(directory.path().join("key")).expect("a file"),
    }
    down(&scene).await;
    write(&directory, "key", &scene.secret);
    scene.works_again().await;
    finish(scene, &directory).await;
}

async fn exec(case: Case, mode: &'static str) {
    let (scene, directory) = sourced(case, EXEC).await;
    scene.works("/before").await;
    write(&directory, "mode", mode);
    down(&scene).await;
    write(&directory, "mode", "cat key");
    scene.works_again().await;
    finish(scene, &directory).await;
}

async fn finish(scene: Scene, directory: &Arc<tempfile::TempDir>) {
    assert!(Path::new(&directory.path().join("key")).exists());
    scene.finish().await;
}

/// Within the time that a credential may be kept, requests are refused, and then none goes upstream.
async fn down(scene: &Scene) {
    let mut refusals = 0;
    for attempt in 0..100 {
        let before = scene.upstream.recorder.sends().len();
        match scene.ask(&scene.request("POST", &format!("/down/{attempt}"), "")).await {
            Outcome::Refused(_, code) => {
                assert_eq!(code, "credential_unavailable");
                assert_eq!(scene.upstream.recorder.sends().len(), before, "it went upstream and was refused");
                refusals += 1;
            }
            // As long as the last one holds.
            Outcome::Whole(200, _) if refusals == 0 => tokio::time::sleep(Duration::from_millis(100)).await,
            other => panic!("{other:?} after {refusals} refusals"),
        }
        if refusals == 2 {
            return;
        }
    }
    panic!("a source that was down was not noticed");
}
