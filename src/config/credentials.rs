//! `[credentials.NAME]`: where real secrets come from and where they may go.

use std::path::PathBuf;
use std::time::Duration;

use super::effective::EffectiveCredential;
use super::hosts;
use super::mistake::Code;
use super::section::{Keys, Named, Node, Section};
use crate::credential::{Form, SourceSpec, Spec};
use crate::model::CredentialName;
use crate::policy::HostPattern;

/// Credentials of a policy at most.
const CREDENTIALS_MAX: usize = 1024;
/// Words of a command, and variables that it gets, at most.
const COMMAND_WORDS_MAX: usize = 64;
/// How long a command's plain answer is good for where the policy does not say.
pub const EXEC_TTL_DEFAULT: Duration = Duration::from_secs(5 * 60);
/// How long a command may run where the policy does not say.
pub const EXEC_TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);
/// How long a command may run at most: requests wait for it.
pub const EXEC_TIMEOUT_MAX: Duration = Duration::from_secs(60);

const ENV: Keys = Keys { known: &["source", "hosts", "name"], later: &["certificate"] };
const FILE: Keys = Keys { known: &["source", "hosts", "path", "certificate"], later: &[] };
const EXEC: Keys =
    Keys { known: &["source", "hosts", "command", "environment", "ttl", "timeout"], later: &["certificate"] };
const ANY: Keys = Keys {
    known: &["source", "hosts", "name", "path", "certificate", "command", "environment", "ttl", "timeout"],
    later: &[],
};

/// Sources of the policy that this build does not have.
const SOURCES_LATER: [&str; 6] = ["vault", "aws-sts", "oauth2", "github-app", "google", "token-exchange"];

/// Whether commands may be run for credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exec {
    Allowed,
    Refused,
}

#[derive(Clone, Copy)]
enum Source {
    Env,
    File,
    Exec,
}

/// A credential as it was read; what is `None` had mistakes.
pub(super) struct ReadCredential {
    /// As the file spells it: what services refer to.
    pub(super) name: String,
    pub(super) spec: Option<Spec>,
    pub(super) hosts: Option<Vec<HostPattern>>,
    /// Whether it is a certificate with its key, and no text.
    pub(super) is_certificate: bool,
}

/// Reads the whole table.
pub(super) fn read(root: &Section<'_>, exec: Exec) -> Vec<ReadCredential> {
    let Some(section) = root.get("credentials").and_then(|node| node.section()) else { return Vec::new() };
    let entries = section.entries();
    if entries.len() > CREDENTIALS_MAX {
        section.fault(
            Code::TooLarge,
            format!("has {} credentials", entries.len()),
            format!("at most {CREDENTIALS_MAX}"),
        );
        return Vec::new();
    }
    entries.iter().map(|entry| read_one(entry, exec)).collect()
}

fn read_one(entry: &Named<'_>, exec: Exec) -> ReadCredential {
    let name = entry.label.name(entry.name, CredentialName::parse);
    let mut read = ReadCredential { name: entry.name.to_owned(), spec: None, hosts: None, is_certificate: false };
    let Some(section) = entry.value.section_at(&entry.label) else { return read };
    let source = read_source(&section, exec);
    read.is_certificate = section.get("certificate").is_some();
    let hint = "hosts = […]: where this credential may ever go";
    read.hosts = section.require("hosts", hint).and_then(|node| hosts::read(&node));
    read.spec = name.zip(source).map(|(name, source)| Spec { name, source, scrubbed: true, form: Form::Text });
    read
}

fn read_source(section: &Section<'_>, exec: Exec) -> Option<SourceSpec> {
    let node = section.require("source", "source = \"env\", \"file\" or \"exec\"");
    let Some(source) = node.as_ref().and_then(source_word) else {
        // Which keys belong here depends on the source; with a later one, nothing can be said of them.
        if !node.as_ref().is_some_and(is_later) {
            section.check_keys(&ANY);
        }
        return None;
    };
    match source {
        Source::Env => {
            section.check_keys(&ENV);
            let name = section.require("name", "name = \"THE_VARIABLE\"")?;
            Some(SourceSpec::Env { name: variable(&name)? })
        }
        Source::File => {
            section.check_keys(&FILE);
            let path = section.require("path", "path = \"/run/secrets/…\"").and_then(|node| absolute_path(&node));
            let certificate = section.get("certificate").map(|node| absolute_path(&node));
            let path = path?;
            Some(match certificate {
                Some(certificate) => SourceSpec::Certificate { key: path, certificate: certificate? },
                None => SourceSpec::File { path },
            })
        }
        Source::Exec => {
            section.check_keys(&EXEC);
            if let (Exec::Refused, Some(node)) = (exec, node) {
                let message = "runs a command, and commands are not allowed".to_owned();
                node.visible_fault(Code::ExecNotAllowed, message, "start with --allow-exec if this command is trusted");
            }
            read_exec(section)
        }
    }
}

fn is_later(node: &Node<'_>) -> bool {
    node.value().as_str().is_some_and(|text| SOURCES_LATER.contains(&text))
}

fn source_word(node: &Node<'_>) -> Option<Source> {
    if is_later(node) {
        node.not_supported(&format!("source \"{}\"", node.string()?));
        return None;
    }
    node.word(&[("env", Source::Env), ("file", Source::File), ("exec", Source::Exec)])
}

fn read_exec(section: &Section<'_>) -> Option<SourceSpec> {
    let command =
        section.require("command", "command = [\"/usr/bin/x\", \"argument\"]").and_then(|node| read_command(&node));
    let environment = match section.get("environment") {
        Some(node) => node.list(COMMAND_WORDS_MAX).map(|list| list.iter().map(variable).collect()),
        None => Some(Some(Vec::new())),
    };
    let ttl = section.get("ttl").map_or(Some(EXEC_TTL_DEFAULT), |node| node.duration());
    let timeout = section.get("timeout").map_or(Some(EXEC_TIMEOUT_DEFAULT), |node| read_timeout(&node));
    let (command, arguments) = command?;
    Some(SourceSpec::Exec { command, arguments, environment: environment??, ttl: ttl?, timeout: timeout? })
}

fn read_command(node: &Node<'_>) -> Option<(PathBuf, Vec<String>)> {
    let words = node.filled_list(COMMAND_WORDS_MAX, "the program's absolute path comes first")?;
    let (program, arguments) = words.split_first()?;
    let program = absolute_path(program);
    let arguments: Option<Vec<_>> = arguments.iter().map(argument).collect();
    program.zip(arguments)
}

fn argument(node: &Node<'_>) -> Option<String> {
    let text = node.string()?;
    if text.contains('\0') {
        node.fault(Code::BadValue, "holds a NUL".to_owned(), "no command can get one");
        return None;
    }
    Some(text.to_owned())
}

fn read_timeout(node: &Node<'_>) -> Option<Duration> {
    let timeout = node.duration()?;
    if timeout > EXEC_TIMEOUT_MAX {
        node.fault(Code::BadValue, "is too long: requests wait for it".to_owned(), "at most 60s");
        return None;
    }
    Some(timeout)
}

/// The name of an environment variable (POSIX, 8.1). The value of the key is never repeated: it may be a secret that
/// somebody put where its name belongs.
fn variable(node: &Node<'_>) -> Option<String> {
    let name = node.string()?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    if name.is_empty() || name.len() > 256 || !name.bytes().all(plain) || name.as_bytes()[0].is_ascii_digit() {
        let hint = "the variable's name, not its value: letters, digits and _";
        node.fault(Code::BadValue, "is not the name of a variable".to_owned(), hint);
        return None;
    }
    Some(name.to_owned())
}

/// A path that means the same wherever the sidecar was started.
pub(super) fn absolute_path(node: &Node<'_>) -> Option<PathBuf> {
    let path = node.string()?;
    if !path.starts_with('/') || path.contains('\0') {
        node.fault(Code::BadValue, "is not an absolute path".to_owned(), "begin it with /");
        return None;
    }
    Some(PathBuf::from(path))
}

/// As `valetkey policy show` prints it.
pub(super) fn effective(spec: &Spec, hosts: &[HostPattern]) -> EffectiveCredential {
    let hosts = hosts.iter().map(ToString::to_string).collect();
    EffectiveCredential::new(&spec.source, hosts)
}
