//! The documents are held to the code: their commands run, and what they name is there.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{FakeUpstream, binary, canary};

mod identity;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Where repository paths in the documents begin.
const PLACES: [&str; 10] =
    ["src/", "tests/", "fuzz/", "docs/", "deploy/", "examples/", "certs/", "xtask/", ".ci/", ".cargo/"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every document, by its path from the root.
fn documents() -> BTreeMap<PathBuf, String> {
    let mut paths: Vec<PathBuf> =
        ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"].map(PathBuf::from).to_vec();
    for directory in ["docs", "deploy", "examples", "certs"] {
        let entries = std::fs::read_dir(root().join(directory)).expect("a directory");
        let names = entries.map(|entry| Path::new(directory).join(entry.expect("an entry").file_name()));
        paths.extend(names.filter(|path| path.extension().is_some_and(|extension| extension == "md")));
    }
    paths.into_iter().map(|path| (path.clone(), read(&path))).collect()
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The fenced blocks whose first line is one of these.
fn blocks(text: &str, wanted: impl Fn(&str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(info) = line.strip_prefix("```") {
            let block: String =
                lines.by_ref().take_while(|line| *line != "```").map(|line| format!("{line}\n")).collect();
            if wanted(info) {
                found.push(block);
            }
        }
    }
    found
}

fn block(name: &str) -> String {
    let info = format!("sh test={name}");
    let found = blocks(&read("README.md"), |it| it == info);
    assert_eq!(found.len(), 1, "one block {info}");
    found.concat()
}

/// What follows each `open` up to the next `close`.
fn between<'a>(text: &'a str, open: &'a str, close: char) -> impl Iterator<Item = &'a str> {
    text.split(open).skip(1).filter_map(move |rest| rest.split_once(close).map(|(inner, _)| inner))
}

/// What stands in backquotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

// ── The commands ────────────────────────────────────────────────────────────────────────────────────────────────────

/// A directory in which the README's commands find what they want: no network, no build, ports of their own.
struct Laptop {
    directory: tempfile::TempDir,
    variables: Vec<(&'static str, String)>,
}

impl Laptop {
    fn new(upstream: &FakeUpstream) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let path = |name: &str| directory.path().join(name).to_str().expect("a path").to_owned();
        std::fs::create_dir(path("bin")).expect("a directory");
        std::fs::create_dir(path("runtime")).expect("a directory");
        std::fs::write(path("roots.pem"), &upstream.authority.pem).expect("a file");
        let (roots, ready, address) = (path("roots.pem"), path("ready.json"), upstream.address);
        let binary = binary();
        let serve = format!("SSL_CERT_FILE={roots} exec {binary} \"$@\" --ready-file {ready}");
        let serve = format!("{serve} --connect-to api.stripe.com:443:{address}");
        for (name, script) in [
            ("valetkey", format!("[ \"$1\" != serve ] || {serve}\nexec {binary} \"$@\"\n")),
            // It is built already.
            ("cargo", "exit 0\n".to_owned()),
        ] {
            let program = directory.path().join("bin").join(name);
            std::fs::write(&program, format!("#!/bin/sh\n{script}")).expect("a file");
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(program, mode).expect("a mode");
        }
        let variables = vec![
            ("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin", path("bin"))),
            ("HOME", path("")),
            ("XDG_RUNTIME_DIR", path("runtime")),
            ("VALETKEY_LISTEN", "127.0.0.1:0".to_owned()),
            ("VALETKEY_ADMIN", "127.0.0.1:0".to_owned()),
        ];
        Self { directory, variables }
    }

    fn shell(&self, script: &str) -> Command {
        let mut command = Command::new("bash");
        command.args(["-u", "-o", "pipefail", "-c", script]).current_dir(self.directory.path()).env_clear();
        command.envs(self.variables.iter().map(|(name, value)| (name, value))).stdin(Stdio::null());
        command
    }

    /// Runs the block that starts the sidecar, and types the key.
    fn serve(&mut self, script: &str, key: &str) -> Serving {
        let log = std::fs::File::create(self.directory.path().join("serve.log")).expect("a file");
        let mut command = self.shell(script);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log);
        let mut child = command.spawn().expect("bash");
        writeln!(child.stdin.take().expect("an input"), "{key}").expect("it reads the key");
        let begun = Instant::now();
        let ready: serde_json::Value = loop {
            let text = std::fs::read(self.directory.path().join("ready.json"));
            if let Some(ready) = text.ok().and_then(|text| serde_json::from_slice(&text).ok()) {
                break ready;
            }
            let ended = child.try_wait().expect("a child");
            let log = || std::fs::read_to_string(self.directory.path().join("serve.log")).unwrap_or_default();
            assert!(ended.is_none() && begun.elapsed() < PATIENCE, "it is not ready:\n{}", log());
            std::thread::sleep(Duration::from_millis(10));
        };
        let text = |name: &str| ready[name].as_str().expect("a text").to_owned();
        self.variables.retain(|(name, _)| *name != "VALETKEY_ADMIN");
        self.variables.push(("VALETKEY_ADMIN", text("admin")));
        self.variables.push(("VALETKEY_PROXY", format!("http://{}", text("proxy"))));
        Serving { shell: child, sidecar: ready["pid"].to_string() }
    }
}

/// The terminal in which the sidecar runs.
struct Serving {
    shell: Child,
    sidecar: String,
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(&self.sidecar).status();
        let _ = self.shell.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_for_a_laptop_do_what_they_say() {
    let upstream = FakeUpstream::start(&["api.stripe.com"]).await;
    let key = canary();
    let mut laptop = Laptop::new(&upstream);
    let made = laptop.shell(&format!("set -e\n{}", block("laptop"))).output().expect("bash");
    assert!(made.status.success(), "{made:?}");
    let _serving = laptop.serve(&block("serve"), &key);

    let script = block("agent");
    let said = laptop.shell(&format!("{script}\necho \"nonce $NONCE\"")).output().expect("bash");
    let text = String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr);
    assert!(said.status.success(), "{text}");
    // In the order of the block: the answer, two refusals, the end, one more refusal.
    let mut rest = text.as_str();
    for mark in ["ok{", "out_of_scope", "host_not_listed", "revoked nc_", "nonce_revoked", "nonce "] {
        let at = rest.find(mark).unwrap_or_else(|| panic!("no {mark:?} in its place:\n{text}"));
        rest = &rest[at + mark.len()..];
    }
    assert_eq!(upstream.only().header("authorization"), Some(basic(&key).as_str()));
    assert!(!text.contains(&key), "the agent's terminal shows the key");
}

fn basic(user: &str) -> String {
    use base64::Engine;
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{user}:")))
}

/// Commands of ours in a shell block: words, without substitutions, comments and quotes.
fn commands(block: &str) -> Vec<Vec<String>> {
    let block = block.replace("\\\n", " ");
    let mut found = Vec::new();
    for line in block.lines() {
        let line = line.split(" #").next().unwrap_or_default();
        let line = line.replace("cargo run --release -- ", "valetkey ");
        for (at, _) in line.match_indices("valetkey ") {
            let starts_word = line[..at].chars().next_back().is_none_or(|before| "(\" ".contains(before));
            // A name in an argument is no command.
            if starts_word && !line[..at].trim_end().ends_with(|c: char| c.is_ascii_alphanumeric() || c == '-') {
                found.push(words(&line[at + "valetkey ".len()..]));
            }
        }
    }
    found
}

fn words(text: &str) -> Vec<String> {
    let mut depth = 0;
    let mut plain = String::new();
    for character in text.chars() {
        match character {
            '(' => depth += 1,
            ')' if depth == 0 => break,
            ')' => depth -= 1,
            '|' | ';' | '&' | '>' if depth == 0 => break,
            _ if depth == 0 => plain.push(character),
            _ => {}
        }
    }
    plain.split_whitespace().map(|word| word.trim_matches(['"', '\'']).to_owned()).collect()
}

#[test]
fn every_command_in_the_documents_is_one_that_we_have() {
    let mut count = 0;
    for (path, text) in documents() {
        for block in blocks(&text, |info| info.starts_with("sh") || info == "console") {
            for command in commands(&block) {
                // With --help nothing is run, and unknown commands and flags are mistakes all the same.
                let output = Command::new(binary()).args(&command).arg("--help").output().expect("the binary");
                let said = String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success(), "{}: valetkey {}: {said}", path.display(), command.join(" "));
                count += 1;
            }
        }
    }
    assert!(count >= 12, "only {count} commands were found");
}

// ── What the documents name ─────────────────────────────────────────────────────────────────────────────────────────

/// A heading as a link spells it.
fn anchor(heading: &str) -> String {
    let plain = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = plain.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn every_link_leads_somewhere() {
    let mut broken = Vec::new();
    for (path, text) in documents() {
        let links = between(&text, "](", ')').filter(|link| !link.starts_with("https://"));
        for link in links {
            let (file, section) = link.split_once('#').map_or((link, None), |(file, section)| (file, Some(section)));
            let directory = path.parent().expect("a file in a directory");
            let target = if file.is_empty() { path.clone() } else { directory.join(file) };
            let exists = root().join(&target).exists();
            let has_section = exists
                && section.is_none_or(|section| {
                    read(&target).lines().any(|line| line.starts_with('#') && anchor(line) == section)
                });
            if !has_section {
                broken.push(format!("{}: {link}", path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn every_path_is_there() {
    let mut missing = Vec::new();
    let mut count = 0;
    for (path, text) in documents() {
        let prose: String = text.split("```").step_by(2).collect();
        for name in quoted(&prose) {
            let is_path = PLACES.iter().any(|place| name.starts_with(place)) && !name.contains([' ', '*', '{', '…']);
            // The example of a directory that a run makes.
            count += usize::from(is_path);
            if is_path && name != "certs/public" && !root().join(name).exists() {
                missing.push(format!("{}: {name}", path.display()));
            }
        }
    }
    assert!(missing.is_empty() && count > 20, "{count} {missing:#?}");
}

#[test]
fn every_test_that_the_readme_names_is_there_and_every_promise_is_named() {
    let readme = read("README.md");
    for line in readme.lines().filter(|line| line.starts_with("| **")) {
        let sources: Vec<_> = between(line, "](", ')').filter(|link| link.ends_with(".rs")).collect();
        assert!(!sources.is_empty(), "a promise without a test: {line}");
        let code: String = sources.iter().map(read).collect();
        let names = quoted(line).filter(|name| name.matches('_').count() >= 2);
        for name in names {
            assert!(code.contains(&format!("fn {name}(")), "{name} is in none of {sources:?}");
        }
    }
    for entry in std::fs::read_dir(root().join("tests/it/promises")).expect("a directory") {
        let name = entry.expect("an entry").file_name().into_string().expect("a name");
        // A folder is a promise's own, whose file is beside it.
        let is_named = readme.contains(&format!("(tests/it/promises/{name}"));
        assert!(is_named, "the README does not name {name}");
    }
}

#[test]
fn every_lesson_names_a_test_that_is_there() {
    let text = read("docs/LESSONS.md");
    let mut count = 0;
    for line in text.lines().filter(|line| line.ends_with("` |")) {
        let cell = line.trim_end_matches(" |").rsplit(" | ").next().expect("a last cell");
        let names: Vec<&str> = quoted(cell).collect();
        let [name, file] = names[..] else { panic!("not a test in a file: {line}") };
        let code = read(file);
        // The properties are tests by a macro that lists their names.
        let is_listed = || code.contains("targets! {") && code.split_whitespace().any(|word| word == name);
        assert!(code.contains(&format!("fn {name}(")) || is_listed(), "{name} is not in {file}");
        count += 1;
    }
    assert!(count >= 60, "only {count} lessons");
}

#[test]
fn every_flag_of_serve_is_described_with_its_default() {
    let help =
        Command::new(binary()).args(["serve", "--help"]).env_remove("XDG_RUNTIME_DIR").output().expect("the binary");
    let help = String::from_utf8(help.stdout).expect("text");
    let text = read("docs/ARCHITECTURE.md");
    let rows: BTreeMap<&str, &str> =
        text.lines().filter_map(|line| Some((line.strip_prefix("| `")?.split_once('`')?.0, line))).collect();
    let mut flag = "";
    let mut seen = BTreeSet::new();
    for line in help.lines().map(str::trim) {
        if let Some(long) = line.split_whitespace().find(|word| word.starts_with("--") && line.starts_with('-')) {
            flag = long;
            seen.insert(flag);
        }
        let given = line.strip_prefix("[default: ").and_then(|rest| rest.strip_suffix(']'));
        if let Some(given) = given.filter(|_| flag != "--control") {
            let row = rows.get(flag).copied().unwrap_or_default();
            assert!(row.contains(&format!("`{given}`")), "{flag}: {given} is not in {row:?}");
        }
    }
    seen.retain(|flag| !["--help", "--version"].contains(flag));
    assert!(seen.len() > 25, "{seen:?}");
    let described: BTreeSet<&str> = rows.keys().copied().filter(|name| name.starts_with("--")).collect();
    assert_eq!(seen, described);
}

#[test]
fn the_exit_codes_are_those_of_the_help() {
    let help = Command::new(binary()).arg("--help").output().expect("the binary");
    let help = String::from_utf8(help.stdout).expect("text");
    let codes =
        help.lines().skip_while(|line| *line != "Exit codes:").skip(1).map_while(|line| line.trim().split_once("  "));
    let rows: Vec<String> = codes.map(|(code, meaning)| format!("| {code} | {} |", meaning.trim())).collect();
    assert!(rows.len() >= 8, "{rows:?}");
    let readme = read("README.md");
    for row in rows {
        assert!(readme.contains(&row), "the README has no line {row}");
    }
}

#[test]
fn every_dependency_has_its_reason() {
    let manifest = read("Cargo.toml");
    let section = manifest.split("\n[dependencies]\n").nth(1).and_then(|rest| rest.split("\n[dev-").next());
    let lines = section.expect("dependencies").lines().filter(|line| !line.starts_with('['));
    let names = lines.filter_map(|line| line.split_once(" = ").map(|(name, _)| name));
    let text = read("docs/DEPENDENCIES.md");
    let taken = text.split("\n## Considered").next().expect("a first part");
    let cells = taken.lines().filter_map(|line| line.strip_prefix("| ")?.split(" |").next());
    let described: BTreeSet<&str> = cells.flat_map(quoted).collect();
    assert_eq!(names.collect::<BTreeSet<_>>(), described);
}
