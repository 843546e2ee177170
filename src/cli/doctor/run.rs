//! One client, run once: bounded in time and output, and what its words tell.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};

/// Most of a client's output that is read, from each of its two streams, in bytes.
const OUTPUT_BYTES_MAX: u64 = 64 * 1024;

/// What a program did.
#[derive(Debug, Default)]
pub(super) struct Ran {
    /// Its exit code; `None` if it ran into the time limit, was ended by a signal or never started.
    pub(super) code: Option<i32>,
    /// Standard output, then standard error.
    pub(super) said: String,
}

/// Where a program is; the first of that name in `PATH` that can be executed.
pub(super) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let is_executable =
        |path: &PathBuf| path.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0);
    // It is started in another directory than this one.
    let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
    std::env::split_paths(&path).map(|directory| absolute(directory.join(program))).find(is_executable)
}

/// Runs a program to its end or to the limit, in a process group of its own, without input.
pub(super) async fn run(
    program: &Path,
    arguments: &[String],
    variables: &[(&'static str, String)],
    directory: &Path,
    limit: Duration,
) -> Ran {
    let mut command = Command::new(program);
    command.args(arguments).envs(variables.iter().map(|(name, value)| (name, value))).current_dir(directory);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.process_group(0).kill_on_drop(true);
    let Ok(mut child) = command.spawn() else { return Ran::default() };
    let group = child.id();
    let ran = tokio::time::timeout(limit, finished(&mut child)).await;
    if ran.is_err() {
        end(group);
    }
    ran.unwrap_or_default()
}

async fn finished(child: &mut Child) -> Ran {
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let (out, err) = tokio::join!(read(out), read(err));
    let status = child.wait().await;
    Ran { code: status.ok().and_then(|status| status.code()), said: format!("{out}\n{err}") }
}

async fn read(stream: Option<impl AsyncRead + Unpin>) -> String {
    let mut bytes = Vec::new();
    if let Some(stream) = stream {
        // What was read before an error is all there is.
        let _ = stream.take(OUTPUT_BYTES_MAX).read_to_end(&mut bytes).await;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Ends what the client started, too; it was not reaped yet, so the group is still its own.
fn end(group: Option<u32>) {
    let group = group.and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
    if let Some(group) = group {
        // It may have ended by itself.
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
}

/// The first word that is a version: `git version 2.47.0` → `2.47.0`.
pub(super) fn version(said: &str) -> Option<String> {
    let words = said.lines().filter(|line| !line.starts_with("Picked up")).flat_map(str::split_whitespace);
    let mut versions = words.filter_map(|word| {
        let word = word.strip_prefix("version=").unwrap_or(word).trim_matches(['"', ',', '(', ')']);
        let word = word.strip_prefix('v').unwrap_or(word);
        let is_version = word.starts_with(|c: char| c.is_ascii_digit())
            && word.contains('.')
            && word.chars().all(|c| c.is_ascii_graphic());
        is_version.then(|| word.to_owned())
    });
    versions.next().map(|version| version.chars().take(24).collect())
}

/// Proxy and CA as far as a client's own words tell, where no proxy of ours saw it: a status comes from within the
/// tunnel; a complaint about a certificate from one that was begun; an unknown name from a client that asked for it
/// itself, since the name is reserved and exists nowhere.
pub(super) fn judged(ran: &Ran) -> (Option<bool>, Option<bool>) {
    const ANSWERS: &[&str] =
        &["status=", "HTTP/1.1 ", "host_not_listed", "error: 403", "Forbidden", "403 Client Error", "PONG"];
    const CERTIFICATES: &[&str] =
        &["certificate", "CERT_", "PKIX", "self-signed", "self signed", "unknown authority", "UnknownIssuer"];
    const NAMES: &[&str] = &[
        "ENOTFOUND",
        "EAI_AGAIN",
        "UnknownHost",
        "no such host",
        "resolve",
        "Name or service",
        "name resolution",
        "getaddrinfo",
        "Name does not resolve",
        "server misbehaving",
        "nodename nor servname",
        "lookup",
        "FailedToOpenSocket",
    ];
    // What curl prints when there was no answer.
    let said = ran.said.replace("status=000", "");
    let says = |words: &[&str]| words.iter().any(|word| said.contains(word));
    match () {
        // First, since some clients speak of certificates when all is well.
        () if ran.code == Some(0) || says(ANSWERS) => (Some(true), Some(true)),
        () if says(CERTIFICATES) => (Some(true), Some(false)),
        () if says(NAMES) => (Some(false), None),
        () => (None, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_programs_say() {
        for (said, found) in [
            ("git version 2.47.0\n", "2.47.0"),
            ("curl 7.88.1 (x86_64-pc-linux-gnu) libcurl/7.88.1", "7.88.1"),
            ("v20.20.2", "20.20.2"),
            ("Picked up JAVA_TOOL_OPTIONS: -Dx=127.0.0.1\nopenjdk version \"17.0.15\" 2025-04-15", "17.0.15"),
            ("Client Version: v1.32.2", "1.32.2"),
            ("version=3.11.7\nstatus=200", "3.11.7"),
        ] {
            assert_eq!(version(said).as_deref(), Some(found), "{said}");
        }
        assert_eq!(version("none here"), None);
        assert_eq!(version("1.\u{1b}[2J 2.\u{fffd}"), None);
    }

    #[test]
    fn words_tell_how_far_a_client_came() {
        let of = |code, said: &str| judged(&Ran { code: Some(code), said: said.to_owned() });
        assert_eq!(of(0, "status=403"), (Some(true), Some(true)));
        assert_eq!(of(22, "error: 403 Forbidden"), (Some(true), Some(true)));
        assert_eq!(of(8, "Loaded CA certificate 'x'\n  HTTP/1.1 403 host_not_listed: x"), (Some(true), Some(true)));
        assert_eq!(of(60, "SSL certificate problem: unable to get local issuer"), (Some(true), Some(false)));
        assert_eq!(of(6, "Could not resolve host: curl.doctor.invalid"), (Some(false), None));
        assert_eq!(of(6, "status=000\ncurl: (6) Could not resolve host: x"), (Some(false), None));
        assert_eq!(of(7, "status=000\ncurl: (7) Failed to connect to 127.0.0.1 port 1"), (None, None));
        assert_eq!(judged(&Ran::default()), (None, None));
    }

    #[tokio::test]
    async fn a_client_is_ended_at_the_limit() {
        let shell = find("sh").expect("a shell");
        let arguments = ["-c".to_owned(), "sleep 600 & wait".to_owned()];
        let ran = run(&shell, &arguments, &[], Path::new("/"), Duration::from_millis(50)).await;
        assert_eq!((ran.code, ran.said.as_str()), (None, ""));
    }
}
