//! Command lines and policies that are wrong: told before the command is started, which it never is.

use super::{Bench, GRANT};
use crate::support::policies;

#[tokio::test]
async fn what_cannot_be_granted_is_told_with_what_can() {
    let bench = Bench::new().await;
    let flags = |grant: &'static str| ["--grant", grant];
    let touch = ["touch", "started"];
    let fail = async |flags: &[&str], code: i32| {
        let _ = std::fs::remove_file(bench.desk.path("audit.jsonl"));
        let done = bench.done(bench.command(flags, &touch)).await.ends(code);
        assert!(!bench.desk.path("started").exists());
        done
    };
    fail(&flags("api:read"), 2).await.says("--grant api:read=NAME");
    fail(&flags("api"), 2).await.says("SERVICE:SCOPE");
    fail(&flags("api:read=A-B"), 2).await.says("no name of a variable");
    fail(&flags("api:read=HTTPS_PROXY"), 2).await.says("HTTPS_PROXY");
    for name in ["PATH", "LD_PRELOAD", "NODE_OPTIONS", "grpc_proxy"] {
        let grant = format!("api:read={name}");
        fail(&["--grant", &grant], 2).await.says(&format!("{name} is for something else than a key"));
    }
    fail(&[&GRANT[..], &["--keep-env", "A=B"]].concat(), 2).await.says("without a value");
    fail(&[&GRANT[..], &["--no-proxy", "http://db.test/"]].concat(), 2).await.says("a host such as");
    fail(&flags("nowhere:read=KEY"), 7).await.says("unknown_service").says("there are: api");
    fail(&flags("api:admin=KEY"), 7).await.says("scope_not_grantable").says("it may have: ");
    fail(&[&GRANT[..], &["--agent", "nobody"]].concat(), 2).await.says("there are: worker");
    fail(&[&GRANT[..], &["--keep-env", "API_KEY"]].concat(), 2).await.says("--keep-env API_KEY");
    fail(&[&GRANT[..], &["--ttl", "soon"]].concat(), 7).await.says("--ttl");
    fail(&[], 2).await.says("--grant");
}

#[tokio::test]
async fn a_command_is_needed_and_so_is_a_policy() {
    let bench = Bench::new().await;
    let grant = [&["run"][..], &GRANT].concat();
    bench.desk.run(&grant).ends(2).says("COMMAND");
    bench.desk.run(&[&grant[..], &["--"]].concat()).ends(2).says("COMMAND");
    let with = |more: &[&'static str]| [&grant[..], more, &["--", "true"]].concat();
    bench.desk.run(&with(&["--policy", "missing.toml"])).ends(3).says("missing.toml");
    bench.desk.run(&with(&["--audit", "-"])).ends(2).says("--audit");
}

#[tokio::test]
async fn what_is_said_twice_is_one_nonce() {
    let bench = Bench::new().await;
    let flags = ["--grant", "api:read,read=KEY,KEY", "--grant", "api:read=KEY"];
    bench.done(bench.command(&flags, &["true"])).await.ends(0).says("KEY opens api:read\n");
}

#[tokio::test]
async fn a_runtime_directory_of_somebody_else_is_done_without() {
    let bench = Bench::new().await;
    let mut command = bench.command(&GRANT, &["sh", "-c", "echo $SSL_CERT_FILE"]);
    let done = bench
        .done({
            command.env("XDG_RUNTIME_DIR", "/proc").env("TMPDIR", bench.runtime());
            command
        })
        .await;
    assert!(done.ends(0).out.starts_with(bench.runtime().to_str().expect("a path")));
    let mut command = bench.command(&GRANT, &["true"]);
    command.env("XDG_RUNTIME_DIR", "/proc").env("TMPDIR", bench.desk.path("none"));
    bench.done(command).await.ends(1).says("TMPDIR names a directory");
}

#[tokio::test]
async fn several_agents_have_to_be_told_apart() {
    let two = format!("{}\n[agents.other]\nidentity = [\"any\"]\ngrants = {{ api = [\"read\"] }}\n", policies::ONE_API);
    let bench = Bench::of(&two).await;
    bench.sh(&[], "true").await.ends(2).says("--agent NAME").says("other, worker");
    bench.sh(&["--agent", "other"], "true").await.ends(0);
}

#[tokio::test]
async fn a_sidecar_that_does_not_start_says_why() {
    let bench = Bench::new().await;
    std::fs::remove_file(bench.desk.path("api.pem")).expect("a file");
    bench.sh(&[], "true").await.ends(4).says("the sidecar did not start").says("api.pem");
}

#[tokio::test]
async fn the_audit_has_a_place_of_its_own() {
    let bench = Bench::new().await;
    let connect_to = format!("api.test:443:{}", bench.upstream.address);
    let line = [&["run", "--connect-to", &connect_to][..], &GRANT, &["--", "true"]].concat();
    let mut command = bench.desk.command(&line);
    command.env("API_KEY", &bench.secret).env("XDG_RUNTIME_DIR", bench.runtime());
    command.env("XDG_STATE_HOME", bench.desk.path("state"));
    bench.done(command).await.ends(0);
    let kept: Vec<_> = std::fs::read_dir(bench.desk.path("state/valetkey/run")).expect("a directory").collect();
    let path = kept[0].as_ref().expect("an entry").path();
    assert!(kept.len() == 1 && path.extension().is_some_and(|extension| extension == "jsonl"), "{path:?}");
}
