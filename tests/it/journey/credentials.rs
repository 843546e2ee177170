//! Where real credentials come from, as they change.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::support::{FakeUpstream, TestSidecar, canary, policies};

/// A sidecar whose credential comes from `source`, in a directory made ready beforehand.
async fn sidecar(source: &str, prepare: impl FnOnce(&Path), flags: &[&str]) -> (FakeUpstream, TestSidecar) {
    let directory = Arc::new(tempfile::tempdir().expect("a directory"));
    prepare(directory.path());
    let upstream = FakeUpstream::start(&["api.test"]).await;
    let builder = TestSidecar::with_policy(&policies::one_api_from(source)).within(&directory).upstream(
        &["api.test"],
        "api",
        &upstream,
    );
    let sidecar = flags.iter().fold(builder, |builder, flag| builder.flag(flag)).start().await;
    (upstream, sidecar)
}

/// What a request carries upstream now; the refusal if it does not get there.
async fn delivered(upstream: &FakeUpstream, sidecar: &TestSidecar, nonce: &str) -> Result<String, String> {
    let reply = sidecar.agent().get("api.test", "/x", nonce).await;
    match reply.refusal() {
        Some(code) => Err(code.to_owned()),
        None => {
            let seen = upstream.seen().pop().expect("a request");
            Ok(seen.header("authorization").expect("a credential").trim_start_matches("Bearer ").to_owned())
        }
    }
}

/// Asks until the answer is this one; it has to be within a second and a little for a slow machine.
async fn becomes(upstream: &FakeUpstream, sidecar: &TestSidecar, nonce: &str, wanted: Result<&str, &str>) {
    let begun = Instant::now();
    loop {
        let found = delivered(upstream, sidecar, nonce).await;
        if found.as_deref().map_err(String::as_str) == wanted {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(3), "{found:?} instead of {wanted:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

const FILE: &str = "source = \"file\"\npath = \"{dir}/key\"";

#[tokio::test]
async fn a_rewritten_file_holds_within_a_second_and_gets_connections_of_its_own() {
    let (first, second) = (canary(), canary());
    let written = format!("{first}\n");
    let (upstream, sidecar) =
        sidecar(FILE, |place| std::fs::write(place.join("key"), &written).expect("a file"), &[]).await;
    let nonce = sidecar.orchestrator().mint("worker", "api", "read").await.nonce;
    assert_eq!(delivered(&upstream, &sidecar, &nonce).await, Ok(first), "one line end is dropped");
    assert_eq!(upstream.connections(), 1);
    std::fs::write(sidecar.path("key"), &second).expect("a file");
    becomes(&upstream, &sidecar, &nonce, Ok(&second)).await;
    assert_eq!(upstream.connections(), 2, "connections are not shared across versions");
    let own = |record: &serde_json::Value| record["type"] == "end" && record["credential.version"] == 2;
    sidecar.audited(own).await;
    for garbage in
        ["", "tooshort\n", "sk_live_with\nnewline_inside_of_it", "sk_live_with\r\n\r\n", "sk_live_größe_größe_größe"]
    {
        std::fs::write(sidecar.path("key"), garbage).expect("a file");
        becomes(&upstream, &sidecar, &nonce, Err("credential_unavailable")).await;
        std::fs::write(sidecar.path("key"), &second).expect("a file");
        becomes(&upstream, &sidecar, &nonce, Ok(&second)).await;
    }
    std::fs::remove_file(sidecar.path("key")).expect("a file");
    becomes(&upstream, &sidecar, &nonce, Err("credential_unavailable")).await;
    let everything = format!("{}{}", sidecar.audit_text(), sidecar.log());
    for word in [second.as_str(), "with\\nnewline", "tooshort", "größe"] {
        assert!(!everything.contains(word), "{word}");
    }
}

#[tokio::test]
async fn kubernetes_swap_of_its_data_link_is_followed() {
    let (first, second) = (canary(), canary());
    let mount = |place: &Path, name: &str, value: &str| {
        std::fs::create_dir_all(place.join("mount").join(name)).expect("a directory");
        std::fs::write(place.join("mount").join(name).join("key"), value).expect("a file");
    };
    let source = "source = \"file\"\npath = \"{dir}/mount/key\"";
    let (upstream, sidecar) = sidecar(
        source,
        |place| {
            mount(place, "..2026_01", &first);
            symlink("..2026_01", place.join("mount/..data")).expect("a link");
            symlink("..data/key", place.join("mount/key")).expect("a link");
        },
        &[],
    )
    .await;
    let nonce = sidecar.orchestrator().mint("worker", "api", "read").await.nonce;
    assert_eq!(delivered(&upstream, &sidecar, &nonce).await, Ok(first));
    mount(sidecar.directory.path(), "..2026_02", &second);
    symlink("..2026_02", sidecar.path("mount/..data_tmp")).expect("a link");
    std::fs::rename(sidecar.path("mount/..data_tmp"), sidecar.path("mount/..data")).expect("a swap");
    std::fs::remove_dir_all(sidecar.path("mount/..2026_01")).expect("the old one");
    becomes(&upstream, &sidecar, &nonce, Ok(&second)).await;
}

fn script(place: &Path, text: &str) {
    let path = place.join("fetch");
    std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("a file");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).expect("our file");
}

const EXEC: &str = "source = \"exec\"\ncommand = [\"{dir}/fetch\", \"argument\"]\nttl = \"1m\"";

#[tokio::test]
async fn a_command_gives_plain_text_or_json_with_an_expiry() {
    let secret = canary();
    let plain = format!("echo run >> \"$(dirname \"$0\")/runs\"; test \"$1\" = argument && echo {secret}");
    let (upstream, plainly) = sidecar(EXEC, |place| script(place, &plain), &["--allow-exec"]).await;
    let nonce = plainly.orchestrator().mint("worker", "api", "read").await.nonce;
    for _ in 0..3 {
        assert_eq!(delivered(&upstream, &plainly, &nonce).await.as_deref(), Ok(secret.as_str()));
    }
    assert_eq!(plainly.text("runs").lines().count(), 1, "it runs when its value is over, not on every request");
    let json = format!(
        "n=$(cat \"$0.n\" 2>/dev/null || echo 0); echo $((n + 1)) > \"$0.n\"; \
         printf '{{\"credential\":\"{secret}_%s\",\"expires_in\":1}}' $n"
    );
    let (upstream, timed) = sidecar(EXEC, |place| script(place, &json), &["--allow-exec"]).await;
    let nonce = timed.orchestrator().mint("worker", "api", "read").await.nonce;
    let first = delivered(&upstream, &timed, &nonce).await.expect("a credential");
    becomes(&upstream, &timed, &nonce, Ok(&format!("{secret}_{}", last_digit(&first) + 1))).await;
}

fn last_digit(text: &str) -> u32 {
    text.chars().next_back().and_then(|digit| digit.to_digit(10)).expect("a digit")
}

#[tokio::test]
async fn a_command_that_fails_refuses_and_shows_nothing_of_what_it_said() {
    let secret = canary();
    for text in
        [format!("echo {secret}; exit 3"), format!("echo {secret} >&2; exit 1"), "printf '{\"a\":1}'".to_owned()]
    {
        let (upstream, failing) = sidecar(EXEC, |place| script(place, &text), &["--allow-exec"]).await;
        let nonce = failing.orchestrator().mint("worker", "api", "read").await.nonce;
        assert_eq!(delivered(&upstream, &failing, &nonce).await, Err("credential_unavailable".to_owned()), "{text}");
        let everything = format!("{}{}", failing.audit_text(), failing.log());
        assert!(!everything.contains(&secret), "{everything}");
    }
}

#[test]
fn commands_need_a_flag_and_a_place_that_others_cannot_write() {
    let policy = policies::one_api_from(EXEC);
    let (code, said) = TestSidecar::with_policy(&policy).fails();
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("--allow-exec"), "{said}");
}

#[tokio::test]
async fn a_command_that_others_can_write_is_not_run() {
    let prepare = |place: &Path| {
        script(place, "echo sk_live_0123456789abcdef0123; touch \"$0.ran\"");
        std::fs::set_permissions(place.join("fetch"), std::fs::Permissions::from_mode(0o777)).expect("our file");
    };
    let (upstream, sidecar) = sidecar(EXEC, prepare, &["--allow-exec"]).await;
    let nonce = sidecar.orchestrator().mint("worker", "api", "read").await.nonce;
    assert_eq!(delivered(&upstream, &sidecar, &nonce).await, Err("credential_unavailable".to_owned()));
    assert!(!sidecar.path("fetch.ran").exists());
}

#[tokio::test]
async fn a_variable_that_would_break_a_header_is_refused() {
    let upstream = FakeUpstream::start(&["api.test"]).await;
    for value in ["sk_live_line\r\nX-Injected: yes", "sk_live_line\nfeed_feed_feed", "sk_live_ümlaut_ümlaut"] {
        let sidecar = TestSidecar::with_policy(policies::ONE_API)
            .upstream(&["api.test"], "api", &upstream)
            .environment("API_KEY", value)
            .start()
            .await;
        let nonce = sidecar.orchestrator().mint("worker", "api", "read").await.nonce;
        let refused = delivered(&upstream, &sidecar, &nonce).await;
        assert_eq!(refused, Err("credential_unavailable".to_owned()), "{value:?}");
        assert!(!sidecar.log().contains("sk_live_"), "{}", sidecar.log());
    }
    assert!(upstream.seen().is_empty());
}
