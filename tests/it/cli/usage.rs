//! Help, completions, man pages, and command lines that are wrong.

use super::Desk;

#[test]
fn every_command_has_help() {
    let desk = Desk::new();
    for line in [
        "--help",
        "nonce create --help",
        "nonce list --help",
        "nonce show --help",
        "nonce revoke --help",
        "env --help",
        "ca init --help",
        "ca show --help",
        "ca bundle --help",
        "policy check --help",
        "policy show --help",
        "policy explain --help",
        "policy test --help",
        "policy learn --help",
        "policy diff --help",
        "audit verify --help",
        "audit tail --help",
        "health --help",
        "serve --help",
        "--version",
    ] {
        let done = desk.run(&line.split(' ').collect::<Vec<_>>()).ends(0);
        assert!(!done.out.is_empty() && done.err.is_empty(), "{line}");
    }
    desk.run(&["--help"]).ends(0).shows("Exit codes:");
    for line in ["nonce create --help", "env --help", "policy explain --help", "policy test --help"] {
        desk.run(&line.split(' ').collect::<Vec<_>>()).ends(0).shows("Examples:");
    }
}

#[test]
fn a_wrong_command_line_ends_with_2() {
    let desk = Desk::new();
    for line in [
        "",
        "nonsense",
        "nonce",
        "nonce create --agent a --task t",
        "nonce create --agent a --task t --service s",
        "nonce create --agent a --task t --grant stripe",
        "nonce create --agent a --task t --grant s:x --service s --scope x",
        "nonce create --agent a --task t --grant s:x --quiet --json",
        "nonce show",
        "nonce show 4711",
        "nonce revoke",
        "env --shell --json",
        "env --proxy https://127.0.0.1:1",
        "env --no-proxy $(id)",
        "ca",
        "policy explain GET",
        "policy explain GET https://a.test/ --expect maybe",
        "audit verify",
        "audit tail audit.jsonl --last 0",
        "audit tail audit.jsonl --decision perhaps",
        "audit verify audit.jsonl --head 12 extra",
        "health --admin nowhere",
    ] {
        let done = desk.run(&line.split_terminator(' ').collect::<Vec<_>>()).ends(2);
        assert!(!done.err.is_empty() && done.out.is_empty(), "{line}");
    }
}

#[test]
fn completions_and_man_pages_are_written() {
    let desk = Desk::new();
    desk.run(&["completions", "bash"]).ends(0).shows("nonce");
    desk.run(&["man", "pages"]).ends(0);
    assert!(desk.read("pages/valetkey.1").contains("valetkey"));
    assert!(desk.path("pages/valetkey-nonce-create.1").exists());
    desk.write("file", "");
    desk.run(&["man", "file/pages"]).ends(1).says("cannot write man pages");
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let desk = Desk::new();
    for arguments in [&["completions", "zsh"][..], &["policy", "show", &super::root_policy()], &["env", "--json"]] {
        let mut command = desk.command(arguments);
        let mut child = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn();
        let child = child.as_mut().expect("the binary starts");
        drop(child.stdout.take());
        let mut said = String::new();
        std::io::Read::read_to_string(&mut child.stderr.take().expect("a pipe"), &mut said).expect("text");
        assert_eq!(child.wait().expect("a child").code(), Some(0), "{said}");
        assert!(!said.contains("panicked") && !said.contains("cannot write"), "{said}");
    }
}
