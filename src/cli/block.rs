//! The block of variables that sends clients through the sidecar and makes them trust it.
//!
//! Most CA variables replace the roots of their client, so they name the bundle; the two that add name our CA alone.
//! `SSL_CERT_DIR` is never set: it would hide the system's roots from OpenSSL. Bundler and Composer have variables of
//! their own, but read `SSL_CERT_FILE` as well, and theirs reach less.
//!
//! - `java`: what the JVM is told
//!
//! Cloud metadata (169.254.169.254) is no exception from the proxy: reached directly it would hand out the machine's
//! identity; the sidecar refuses it with a sentence.

mod java;

use std::path::{Path, PathBuf};

use super::{Failure, shims};
use crate::authority::{PUBLISHED_BUNDLE_FILE, PUBLISHED_FILE, PUBLISHED_TRUSTSTORE_FILE};
use crate::model::{Destination, Scheme};

/// Where clients look for a proxy: some read one spelling only. Many read no `ALL_PROXY`: it never stands alone.
const PROXY: &[&str] = &["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"];
const NO_PROXY: &[&str] = &["NO_PROXY", "no_proxy"];
/// What is always reached directly.
const DIRECT: &str = "localhost,127.0.0.1,::1";
/// Variables that replace a client's roots.
const BUNDLE: &[&str] = &[
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "AWS_CA_BUNDLE",
    "PIP_CERT",
    "CARGO_HTTP_CAINFO",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
    "PERL_LWP_SSL_CA_FILE",
    "npm_config_cafile",
    "HTTPLIB2_CA_CERTS",
    "NIX_SSL_CERT_FILE",
    "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",
    "HEX_CACERTS_PATH",
];
/// Variables that add to a client's roots.
const ADDED: &[&str] = &["NODE_EXTRA_CA_CERTS", "DENO_CERT"];
/// Node (22.21 and later) and Perl's LWP read the proxy variables only with these.
const SWITCHES: &[(&str, &str)] = &[("NODE_USE_ENV_PROXY", "1"), ("PERL_LWP_ENV_PROXY", "1")];

/// Options of the JVM; it reads no other variable.
const JAVA: &str = "JAVA_TOOL_OPTIONS";
/// Options of Node, here the preload.
const NODE: &str = "NODE_OPTIONS";
/// Where Python looks for modules before all other places, here for `sitecustomize`.
const PYTHON: &str = "PYTHONPATH";
/// What wget reads instead of `~/.wgetrc`.
const WGET: &str = "WGETRC";

/// What the block is made of.
#[derive(Debug, Clone)]
pub(super) struct Block {
    /// Where the sidecar listens for agents.
    pub(super) proxy: Destination,
    /// The directory of the published CA files; absolute.
    pub(super) directory: PathBuf,
    /// More hosts that are reached directly.
    pub(super) no_proxy: Vec<String>,
    /// The directory of the shims, where they are wanted; absolute. [`Block::write_shims`] fills it.
    pub(super) shims: Option<PathBuf>,
}

impl Block {
    /// The variables, each once, for an environment that has none of them.
    ///
    /// # Errors
    /// [`Failure`]: a directory whose name no variable can hold.
    pub(super) fn variables(&self) -> Result<Vec<(&'static str, String)>, Failure> {
        let (bundle, own) = (self.published(PUBLISHED_BUNDLE_FILE)?, self.published(PUBLISHED_FILE)?);
        let direct =
            std::iter::once(DIRECT).chain(self.no_proxy.iter().map(String::as_str)).collect::<Vec<_>>().join(",");
        let url = format!("{}://{}", Scheme::Http.as_str(), self.proxy);
        let mut variables = Vec::new();
        for (names, value) in [(PROXY, url), (NO_PROXY, direct), (BUNDLE, bundle), (ADDED, own)] {
            variables.extend(names.iter().map(|name| (*name, value.clone())));
        }
        variables.extend(SWITCHES.iter().map(|(name, value)| (*name, (*value).to_owned())));
        variables.push((JAVA, java::options(&self.proxy, &self.published(PUBLISHED_TRUSTSTORE_FILE)?, &self.no_proxy)));
        if let Some(shims) = &self.shims {
            variables.extend(of_shims(shims)?);
        }
        Ok(variables)
    }

    /// As [`Block::variables`], over an environment that may have some of them: what it says in `JAVA_TOOL_OPTIONS`,
    /// `NODE_OPTIONS` and `PYTHONPATH` is kept beside ours, the rest is replaced. Doing it twice changes nothing more.
    ///
    /// # Errors
    /// As [`Block::variables`].
    pub(super) fn merged(
        &self,
        parent: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Vec<(&'static str, String)>, Failure> {
        let mut variables = self.variables()?;
        for (name, ours) in &mut variables {
            let Some(theirs) = parent(name).filter(|theirs| !theirs.trim().is_empty()) else { continue };
            match *name {
                // The last of two equal options counts.
                JAVA | NODE => *ours = joined(&theirs, ours, ' '),
                // The first module found counts.
                PYTHON => *ours = joined(ours, &theirs, ':'),
                _ => {}
            }
        }
        Ok(variables)
    }

    /// Writes the shims, where they are wanted.
    ///
    /// # Errors
    /// [`Failure`]: as [`Block::variables`], or the directory cannot be written.
    pub(super) fn write_shims(&self) -> Result<(), Failure> {
        let Some(shims) = &self.shims else { return Ok(()) };
        shims::write(shims, &self.published(PUBLISHED_BUNDLE_FILE)?)
    }

    /// The path of a published file.
    fn published(&self, name: &str) -> Result<String, Failure> {
        held(&self.directory.join(name), &['\0', '\n', '\r'])
            .ok_or_else(|| unheld("--ca-publish", &self.directory, "a variable cannot hold this name"))
    }
}

/// The variables that name the shims.
fn of_shims(directory: &Path) -> Result<[(&'static str, String); 3], Failure> {
    let path = |name: &str| {
        held(&directory.join(name), &['\0', '\n', '\r', ':'])
            .ok_or_else(|| unheld("--shims", directory, "PYTHONPATH cannot hold this name"))
    };
    // A path without a name would end with a slash, which is one too many for comparing.
    let python = path("")?.trim_end_matches('/').to_owned();
    Ok([(PYTHON, python), (NODE, preload(&path(shims::PRELOAD_FILE)?)), (WGET, path(shims::WGETRC_FILE)?)])
}

/// `--require` rather than `--import`: Node before 18.18 does not start with the latter. Node splits at blanks, but
/// for those in double quotes, in which a backslash escapes.
fn preload(path: &str) -> String {
    if !path.contains([' ', '"']) {
        return format!("--require {path}");
    }
    format!("--require \"{}\"", path.replace('\\', r"\\").replace('"', "\\\""))
}

/// The path as text, if it has none of these.
fn held(path: &Path, but: &[char]) -> Option<String> {
    path.to_str().filter(|text| !text.contains(but)).map(str::to_owned)
}

fn unheld(flag: &str, directory: &Path, why: &str) -> Failure {
    Failure::usage(format!("{flag} {}: {why}", directory.display()))
}

/// Both, but what is there already is not said again.
fn joined(first: &str, last: &str, between: char) -> String {
    let is_said = |whole: &str, part: &str| {
        whole == part
            || whole.strip_prefix(part).is_some_and(|rest| rest.starts_with(between))
            || whole.strip_suffix(part).is_some_and(|rest| rest.ends_with(between))
    };
    match () {
        () if is_said(first, last) => first.to_owned(),
        () if is_said(last, first) => last.to_owned(),
        () => format!("{first}{between}{last}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(directory: &str, shims: Option<&str>) -> Block {
        let proxy = Destination::parse("127.0.0.1:8080", None).unwrap();
        Block { proxy, directory: directory.into(), no_proxy: Vec::new(), shims: shims.map(Into::into) }
    }

    fn value(variables: &[(&'static str, String)], name: &str) -> Option<String> {
        variables.iter().find(|(own, _)| *own == name).map(|(_, value)| value.clone())
    }

    #[test]
    fn what_the_parent_says_is_kept_beside_ours_and_only_once() {
        let block = block("/public", Some("/shims"));
        let ours = block.variables().unwrap();
        let java = value(&ours, JAVA).unwrap();
        let parent = |name: &str| match name {
            "JAVA_TOOL_OPTIONS" => Some("-Xmx1g".to_owned()),
            "NODE_OPTIONS" => Some("--max-old-space-size=99".to_owned()),
            "PYTHONPATH" => Some("/app/lib".to_owned()),
            "NO_PROXY" => Some("*".to_owned()),
            "SSL_CERT_FILE" => Some("/corp.pem".to_owned()),
            _ => None,
        };
        let merged = block.merged(&parent).unwrap();
        assert_eq!(value(&merged, JAVA).unwrap(), format!("-Xmx1g {java}"));
        assert_eq!(value(&merged, NODE).unwrap(), "--max-old-space-size=99 --require /shims/preload.cjs");
        assert_eq!(value(&merged, PYTHON).unwrap(), "/shims:/app/lib");
        for name in ["NO_PROXY", "SSL_CERT_FILE"] {
            assert_eq!(value(&merged, name), value(&ours, name), "{name} is replaced");
        }
        let again = block.merged(&|name| value(&merged, name)).unwrap();
        assert_eq!(again, merged, "twice is once");
        assert_eq!(block.merged(&|_| Some(" ".to_owned())).unwrap(), ours, "nothing is kept of nothing");
    }

    #[test]
    fn shims_have_their_variables_where_they_are_wanted() {
        let without = block("/public", None).variables().unwrap();
        let with = block("/public", Some("/shims/")).variables().unwrap();
        for (name, expected) in [(PYTHON, "/shims"), (NODE, "--require /shims/preload.cjs"), (WGET, "/shims/wgetrc")] {
            assert_eq!((value(&without, name), value(&with, name).as_deref()), (None, Some(expected)));
        }
        let error = block("/public", Some("/a:b")).variables();
        assert!(error.is_err(), "a colon separates paths");
    }

    #[test]
    fn node_reads_back_a_path_with_blanks_and_quotes() {
        let directory = tempfile::tempdir().unwrap();
        let odd = directory.path().join("a \\ \"b\" 'c'");
        std::fs::create_dir(&odd).unwrap();
        std::fs::write(odd.join("x.cjs"), "globalThis.x = 7").unwrap();
        let options = preload(odd.join("x.cjs").to_str().unwrap());
        let mut node = std::process::Command::new("node");
        let Ok(output) = node.args(["-p", "x"]).env("NODE_OPTIONS", options).output() else {
            return crate::skips::skip("no node on this machine");
        };
        assert_eq!(String::from_utf8_lossy(&output.stdout), "7\n", "{output:?}");
    }
}
