//! The block of variables that sends clients through the sidecar and makes them trust it.
//!
//! Most CA variables replace the roots of their client, so they name the bundle; the two that add name our CA alone.
//! `SSL_CERT_DIR` is never set: it would hide the system's roots from OpenSSL.

use std::path::PathBuf;

use super::Failure;
use crate::authority::{PUBLISHED_BUNDLE_FILE, PUBLISHED_FILE};
use crate::model::{Destination, Scheme};

/// Where clients look for a proxy: some read one spelling only.
const PROXY: &[&str] = &["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"];
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
];
/// Variables that add to a client's roots.
const ADDED: &[&str] = &["NODE_EXTRA_CA_CERTS", "DENO_CERT"];
/// Node reads the proxy variables only with this (22.21 and later).
const NODE_SWITCH: (&str, &str) = ("NODE_USE_ENV_PROXY", "1");

/// What the block is made of.
#[derive(Debug, Clone)]
pub(super) struct Block {
    /// Where the sidecar listens for agents.
    pub(super) proxy: Destination,
    /// The directory of the published CA files; absolute.
    pub(super) directory: PathBuf,
    /// More hosts that are reached directly.
    pub(super) no_proxy: Vec<String>,
    /// The directory of the shims, where they are wanted; absolute.
    pub(super) shims: Option<PathBuf>,
}

impl Block {
    /// The variables, each once.
    ///
    /// # Errors
    /// [`Failure`]: a directory whose name no variable can hold.
    pub(super) fn variables(&self) -> Result<Vec<(&'static str, String)>, Failure> {
        let file = |name: &str| {
            let path = self.directory.join(name);
            let usable = path.to_str().filter(|text| !text.contains(['\0', '\n', '\r'])).map(str::to_owned);
            usable.ok_or_else(|| {
                Failure::usage(format!("--ca-publish {}: a variable cannot hold this name", self.directory.display()))
            })
        };
        let (bundle, own) = (file(PUBLISHED_BUNDLE_FILE)?, file(PUBLISHED_FILE)?);
        let direct =
            std::iter::once(DIRECT).chain(self.no_proxy.iter().map(String::as_str)).collect::<Vec<_>>().join(",");
        let url = format!("{}://{}", Scheme::Http.as_str(), self.proxy);
        let mut variables = Vec::new();
        for (names, value) in [(PROXY, url), (NO_PROXY, direct), (BUNDLE, bundle), (ADDED, own)] {
            variables.extend(names.iter().map(|name| (*name, value.clone())));
        }
        variables.push((NODE_SWITCH.0, NODE_SWITCH.1.to_owned()));
        Ok(variables)
    }
}
