//! An audit that cannot be written: nothing goes upstream without its record.

use std::os::unix::fs::OpenOptionsExt;
use std::process::Command;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use tokio::io::AsyncReadExt;

use super::{Case, Kind, kind_alike};
use crate::client::Outcome;
use crate::scene::Scene;
use crate::support::{Builder, policies};
use crate::upstream::Fault;

pub fn all() -> Vec<Kind> {
    vec![
        kind_alike("audit_file_can_not_grow", can_not_grow),
        kind_alike("audit_directory_gone", directory_gone),
        kind_alike("audit_pipe_not_read", |case| pipe(case, false)),
        kind_alike("audit_pipe_without_a_reader", |case| pipe(case, true)),
    ]
}

async fn scene(case: Case, edit: impl FnOnce(Builder) -> Builder) -> Scene {
    Scene::with(case, Fault::none(), policies::ONE_API, |builder, _| edit(builder)).await
}

/// Asks until it is refused for want of a record, at most `most` times; what is refused does not go upstream.
async fn refused(scene: &Scene, most: usize) {
    let mut refusals = 0;
    for attempt in 0..most {
        let before = scene.upstream.recorder.sends().len();
        match scene.ask(&scene.request("POST", &format!("/unrecorded/{attempt}"), "")).await {
            Outcome::Refused(_, code) => {
                assert!(["audit_unavailable", "overloaded"].contains(&code.as_str()), "{code}");
                assert_eq!(scene.upstream.recorder.sends().len(), before, "it went upstream without a record");
                refusals += 1;
            }
            Outcome::Whole(200, _) if refusals == 0 => {}
            other => panic!("{other:?} after {refusals} refusals"),
        }
        if refusals == 3 {
            return;
        }
    }
    panic!("an audit that cannot be written was not noticed");
}

/// As with a full disk, in the middle of a record.
async fn can_not_grow(case: Case) {
    let scene = scene(case, |builder| builder).await;
    scene.works("/before").await;
    let pid = Pid::from_raw(scene.sidecar.pid().cast_signed()).expect("a pid");
    let usual = getrlimit(Resource::Fsize);
    let length = std::fs::metadata(scene.sidecar.path("audit.jsonl")).expect("a file").len();
    let room = Some(length + case.chance(1, 2000));
    prlimit(Some(pid), Resource::Fsize, Rlimit { current: room, maximum: usual.maximum }).expect("a limit");
    refused(&scene, 20).await;
    prlimit(Some(pid), Resource::Fsize, usual).expect("a limit");
    scene.works_again().await;
    scene.finish().await;
}

async fn directory_gone(case: Case) {
    let directory = std::sync::Arc::new(tempfile::tempdir().expect("a directory"));
    let audits = directory.path().join("audits");
    std::fs::create_dir(&audits).expect("a directory");
    let scene = scene(case, |builder| builder.within(&directory).audit("{dir}/audits/audit.jsonl")).await;
    scene.works("/before").await;
    std::fs::remove_dir_all(&audits).expect("a directory");
    refused(&scene, 20).await;
    std::fs::create_dir(&audits).expect("a directory");
    scene.works_again().await;
    assert!(audits.join("audit.jsonl").is_file());
    scene.finish().await;
}

/// A pipe whose reader stands still, or goes away, and comes back.
async fn pipe(case: Case, goes_away: bool) {
    let directory = std::sync::Arc::new(tempfile::tempdir().expect("a directory"));
    let path = directory.path().join("audit.fifo");
    assert!(Command::new("mkfifo").arg("-m").arg("600").arg(&path).status().expect("mkfifo").success());
    let open = || {
        let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let file = std::fs::OpenOptions::new().read(true).custom_flags(nonblocking).open(&path).expect("a pipe");
        tokio::net::unix::pipe::Receiver::from_file(file).expect("a pipe")
    };
    let mut reader = Some(open());
    let scene = scene(case, |builder| builder.within(&directory).audit("{dir}/audit.fifo")).await;
    scene.works("/before").await;
    if goes_away {
        drop(reader.take());
    }
    refused(&scene, 400).await;
    let mut reader = reader.unwrap_or_else(open);
    let secret = scene.secret.clone();
    let reading = tokio::spawn(async move {
        let mut all = Vec::new();
        let mut buffer = vec![0; 65_536];
        while let Ok(count @ 1..) = reader.read(&mut buffer).await {
            all.extend_from_slice(&buffer[..count]);
            crate::support::leak::assert_clean(&secret, &all, "the audit");
        }
    });
    scene.works_again().await;
    assert!(!reading.is_finished(), "the audit is clean and open");
    reading.abort();
    scene.finish().await;
}
