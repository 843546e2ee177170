//! `valetkey env`: the variables that send clients through the sidecar and make them trust it.
//!
//! The variables themselves stand in [`super::block`].

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::{Args, ValueHint};
use serde_json::{Map, Value};

use super::block::Block;
use super::{Failure, print};
use crate::authority::{PUBLISHED_BUNDLE_FILE, PUBLISHED_FILE, PUBLISHED_TRUSTSTORE_FILE};
use crate::model::Destination;

/// What the block names.
const PUBLISHED: [&str; 3] = [PUBLISHED_FILE, PUBLISHED_BUNDLE_FILE, PUBLISHED_TRUSTSTORE_FILE];

const EXAMPLES: &str = "Examples:
  eval \"$(valetkey env)\"                         this shell, and what it starts
  valetkey env --dotenv > agent.env              for docker compose and the like
  valetkey env --no-proxy .svc.cluster.local     names that do not go through the sidecar
  valetkey env --shims ~/.valetkey/shims         also for Python's stripe and aiohttp, Node, wget
  valetkey env --k8s --ca-publish /run/valetkey/public   the `env:` of a container

The files are those of `valetkey serve --ca-publish DIR`. docs/ENVIRONMENT.md says which client reads what.";

/// Flags of `valetkey env`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// Where the sidecar listens for agents.
    #[arg(long, env = "VALETKEY_PROXY", value_name = "URL", default_value = "http://127.0.0.1:8080", value_parser = proxy)]
    proxy: Destination,

    /// The directory of ca.pem, ca-bundle.pem and truststore.p12, as given to `serve --ca-publish`.
    #[arg(long, env = "VALETKEY_CA_PUBLISH", value_name = "DIR", default_value = "certs/public", value_hint = ValueHint::DirPath)]
    ca_publish: PathBuf,

    /// More hosts that are reached directly, besides this machine; with commas between them. Repeatable.
    #[arg(long, value_name = "HOST", value_delimiter = ',', value_parser = direct)]
    no_proxy: Vec<String>,

    /// Write the shims into this directory and name them too: for clients that read none of these variables. With
    /// --k8s they are only named.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    shims: Option<PathBuf>,

    #[command(flatten)]
    form: Form,
}

/// How to spell them.
#[derive(Debug, Args)]
#[group(multiple = false)]
struct Form {
    /// Lines for a POSIX shell: export NAME='value' (the default).
    #[arg(long)]
    shell: bool,
    /// Lines for a .env file: NAME=value.
    #[arg(long)]
    dotenv: bool,
    /// One JSON object.
    #[arg(long)]
    json: bool,
    /// A YAML list for the `env` of a container; --ca-publish and --shims are directories in the pod.
    #[arg(long)]
    k8s: bool,
}

/// `http://HOST:PORT`, or `HOST:PORT`. Clients speak plain HTTP to the proxy; TLS is inside the tunnel.
fn proxy(text: &str) -> Result<Destination, String> {
    let authority = text.strip_prefix("http://").unwrap_or(text);
    let authority = authority.strip_suffix('/').unwrap_or(authority);
    Destination::parse(authority, None)
        .map_err(|error| format!("{error}; expected http://HOST:PORT, such as http://127.0.0.1:8080"))
}

/// An entry of `NO_PROXY`: a host, a suffix or a range.
pub(super) fn direct(text: &str) -> Result<String, String> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b".-_:*/[]".contains(&b);
    // An address of a page is no entry that any client understands.
    if !text.is_empty() && !text.contains("//") && text.bytes().all(allowed) {
        return Ok(text.to_owned());
    }
    Err("expected a host such as db.internal, a suffix such as .svc.cluster.local, or a range such as 10.0.0.0/8"
        .to_owned())
}

/// Prints the block.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let in_pod = arguments.form.k8s;
    let directory = |flag, path| if in_pod { pod_directory(flag, path) } else { local_directory(flag, path) };
    let block = Block {
        proxy: arguments.proxy.clone(),
        directory: directory("--ca-publish", &arguments.ca_publish)?,
        no_proxy: arguments.no_proxy.clone(),
        shims: arguments.shims.as_deref().map(|path| directory("--shims", path)).transpose()?,
    };
    if !in_pod {
        warn_of_missing(&block.directory);
        block.write_shims()?;
    }
    print_block(&block, &arguments.form)
}

fn print_block(block: &Block, form: &Form) -> Result<(), Failure> {
    // A shell adds to what it has; the other forms are for environments that we do not see.
    if form.json {
        let object: Map<String, Value> =
            block.variables()?.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
        return print::json(&object);
    }
    let (variables, spell): (_, fn(&str, &str) -> String) = match form {
        Form { dotenv: true, .. } => (block.variables()?, dotenv),
        Form { k8s: true, .. } => (block.variables()?, pod_entry),
        _ => (block.merged(&|name| std::env::var(name).ok())?, shell),
    };
    print::text(&variables.iter().map(|(name, value)| spell(name, value)).collect::<String>())
}

fn local_directory(flag: &str, path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(|error| Failure::usage(format!("{flag} {}: {error}", path.display())))
}

/// A directory somewhere else: nothing here says what a relative path would mean there.
fn pod_directory(flag: &str, path: &Path) -> Result<PathBuf, Failure> {
    if path.is_absolute() {
        return Ok(path.to_owned());
    }
    Err(Failure::usage(format!(
        "{flag} {}: name the directory as the agent's container sees it, such as /run/valetkey/public",
        path.display()
    )))
}

fn warn_of_missing(directory: &Path) {
    let missing: Vec<&str> = PUBLISHED.into_iter().filter(|name| !directory.join(name).is_file()).collect();
    if missing.is_empty() {
        return;
    }
    let directory = directory.display();
    print::warn(format_args!(
        "{} not in {directory} yet: clients will not trust the sidecar\n  \
         start it with `valetkey serve --ca-publish {directory}`, or name its directory with --ca-publish",
        missing.join(", ") + if missing.len() == 1 { " is" } else { " are" },
    ));
}

/// In single quotes nothing has a meaning but the single quote itself (POSIX, 2.2.2).
fn shell(name: &str, value: &str) -> String {
    format!("export {name}='{}'\n", value.replace('\'', r"'\''"))
}

/// Plain where every reader agrees, else in double quotes with what means something in them escaped.
fn dotenv(name: &str, value: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_-./:,@+*[]".contains(&b);
    if value.bytes().all(plain) {
        return format!("{name}={value}\n");
    }
    let mut line = format!("{name}=\"");
    for character in value.chars() {
        if matches!(character, '"' | '\\' | '$' | '`') {
            line.push('\\');
        }
        line.push(character);
    }
    // Writing to a String cannot fail.
    let _ = writeln!(line, "\"");
    line
}

/// Two lines of YAML. A string of JSON is one of YAML (1.2, 1.3), and `$$` is how a pod writes a `$` before a
/// parenthesis: without it the kubelet would put a variable there.
fn pod_entry(name: &str, value: &str) -> String {
    let quoted = Value::from(value.replace("$(", "$$("));
    format!("- name: {name}\n  value: {quoted}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(directory: &str, no_proxy: &[&str]) -> Vec<(&'static str, String)> {
        let no_proxy: Vec<String> = no_proxy.iter().map(|host| (*host).to_owned()).collect();
        let proxy = proxy("http://127.0.0.1:8080").unwrap();
        Block { proxy, directory: directory.into(), no_proxy, shims: None }.variables().unwrap()
    }

    #[test]
    fn a_proxy_is_a_plain_http_address_with_a_port() {
        for (text, read) in [
            ("http://127.0.0.1:8080", "127.0.0.1:8080"),
            ("http://localhost:1/", "localhost:1"),
            ("127.0.0.1:9", "127.0.0.1:9"),
            ("http://[::1]:8080", "[::1]:8080"),
        ] {
            assert_eq!(proxy(text).map(|d| d.to_string()).as_deref(), Ok(read));
        }
        for text in
            ["", "http://", "http://127.0.0.1", "https://127.0.0.1:8080", "http://u:p@h:1", "http://h:1/x", "a'b:1"]
        {
            assert!(proxy(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn what_replaces_roots_gets_the_bundle_and_what_adds_gets_the_ca() {
        let block = block("/srv/public", &[".svc", "10.0.0.0/8"]);
        let value = |name: &str| block.iter().find(|(own, _)| *own == name).map(|(_, value)| value.as_str());
        for name in ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "GIT_SSL_CAINFO", "npm_config_cafile"] {
            assert_eq!(value(name), Some("/srv/public/ca-bundle.pem"), "{name}");
        }
        for name in ["NODE_EXTRA_CA_CERTS", "DENO_CERT"] {
            assert_eq!(value(name), Some("/srv/public/ca.pem"), "{name}");
        }
        for name in ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"] {
            assert_eq!(value(name), Some("http://127.0.0.1:8080"), "{name}");
        }
        assert_eq!(value("NO_PROXY"), Some("localhost,127.0.0.1,::1,.svc,10.0.0.0/8"));
        assert_eq!(value("no_proxy"), value("NO_PROXY"));
        assert_eq!(value("NODE_USE_ENV_PROXY"), Some("1"));
        assert_eq!(value("SSL_CERT_DIR"), None);
        let mut names: Vec<_> = block.iter().map(|(name, _)| *name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), block.len(), "each variable once");
    }

    #[test]
    fn a_shell_reads_back_what_was_meant() {
        let value = "/srv/o'neil \"$HOME\" `id`\\n;&|";
        let script = format!("{}printf %s \"$X\"", shell("X", value));
        let output = std::process::Command::new("sh").arg("-c").arg(script).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), value);
        assert_eq!(shell("X", "/a b"), "export X='/a b'\n");
    }

    #[test]
    fn dotenv_quotes_only_what_needs_it() {
        assert_eq!(dotenv("X", "/srv/ca.pem"), "X=/srv/ca.pem\n");
        assert_eq!(dotenv("X", "/a b/$c\"\\"), "X=\"/a b/\\$c\\\"\\\\\"\n");
        assert_eq!(dotenv("X", "a#b"), "X=\"a#b\"\n");
    }

    #[test]
    fn a_pod_reads_back_what_was_meant() {
        assert_eq!(pod_entry("X", "1"), "- name: X\n  value: \"1\"\n");
        assert_eq!(pod_entry("X", "/a $(B) \"c\""), "- name: X\n  value: \"/a $$(B) \\\"c\\\"\"\n");
    }

    #[test]
    fn names_that_no_variable_can_hold_are_refused() {
        let proxy = proxy("127.0.0.1:1").unwrap();
        let block = Block { proxy, directory: "/a\nb".into(), no_proxy: Vec::new(), shims: None };
        assert!(block.variables().is_err());
        for text in ["", "a b", "a'b", "$x", "a\n"] {
            assert!(direct(text).is_err(), "{text:?}");
        }
    }
}
