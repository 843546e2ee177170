//! The clients that are probed: how each is asked for one address, and what helps it.

/// Python without one of its libraries, or Perl, says this by its exit code.
pub(super) const NOT_INSTALLED: i32 = 77;

const PYTHON: &str = include_str!("scripts/probe.py");
const NODE: &str = include_str!("scripts/probe.cjs");
const PERL: &str = include_str!("scripts/probe.pl");
/// Compiled and run by `java`, from the scratch directory.
pub(super) const JAVA: &str = include_str!("scripts/Probe.java");
pub(super) const JAVA_FILE: &str = "Probe.java";

/// Stands for `https://HOST/` in arguments and variables.
const URL: &str = "{url}";
/// Stands for a directory of the probe's own.
const SCRATCH: &str = "{scratch}";

/// One client, or one way to use it.
#[derive(Debug)]
pub(super) struct Client {
    /// Lower case letters, digits and `-`: it is a part of the host that is asked for.
    pub(super) name: &'static str,
    /// Looked up in `PATH`.
    pub(super) program: &'static str,
    /// Prints the version; empty where the probe itself does.
    pub(super) version: &'static [&'static str],
    arguments: &'static [&'static str],
    /// Variables of this probe alone: no questions, no retries, no credentials, no caches of the user's.
    variables: &'static [(&'static str, &'static str)],
    /// What helps when it goes past the proxy.
    pub(super) to_proxy: &'static str,
    /// What helps when it does not trust the CA.
    pub(super) to_trust: &'static str,
}

impl Client {
    /// The arguments for a host.
    pub(super) fn arguments(&self, host: &str, scratch: &str) -> Vec<String> {
        self.arguments.iter().map(|text| filled(text, host, scratch)).collect()
    }

    /// The variables for a host.
    pub(super) fn variables(&self, host: &str, scratch: &str) -> Vec<(&'static str, String)> {
        self.variables.iter().map(|(name, text)| (*name, filled(text, host, scratch))).collect()
    }
}

fn filled(text: &str, host: &str, scratch: &str) -> String {
    text.replace(URL, &format!("https://{host}/")).replace(SCRATCH, scratch)
}

const BOTH_CASES: &str = "set HTTPS_PROXY and https_proxy";

/// A row whose library is asked by the Python script.
const fn python(name: &'static str, arguments: &'static [&'static str]) -> Client {
    Client {
        name,
        program: "python3",
        version: &[],
        arguments,
        variables: &[],
        to_proxy: BOTH_CASES,
        to_trust: "set SSL_CERT_FILE to ca-bundle.pem",
    }
}

/// A row whose way is gone by the Node script.
const fn node(name: &'static str, arguments: &'static [&'static str]) -> Client {
    Client {
        name,
        program: "node",
        version: &["--version"],
        arguments,
        variables: &[],
        to_proxy: "valetkey env --shims (NODE_OPTIONS); for https and fetch alone Node 22.21 or later with NODE_USE_ENV_PROXY=1 does",
        to_trust: "set NODE_EXTRA_CA_CERTS to ca.pem",
    }
}

/// All of them, in the order of the table.
pub(super) const CLIENTS: &[Client] = &[
    Client {
        name: "curl",
        program: "curl",
        version: &["--version"],
        arguments: &["-sS", "-o", "/dev/null", "-w", "status=%{http_code}\n", URL],
        variables: &[],
        to_proxy: BOTH_CASES,
        to_trust: "set CURL_CA_BUNDLE or SSL_CERT_FILE to ca-bundle.pem",
    },
    Client {
        name: "wget",
        program: "wget",
        version: &["--version"],
        arguments: &["-S", "-O", "/dev/null", "--tries=1", URL],
        variables: &[],
        to_proxy: "set https_proxy: wget reads lower case only",
        to_trust: "valetkey env --shims (WGETRC), or --ca-certificate=ca-bundle.pem: wget reads no CA variable",
    },
    Client {
        name: "git",
        program: "git",
        version: &["--version"],
        arguments: &["-c", "credential.helper=", "ls-remote", "{url}probe.git"],
        variables: &[("GIT_TERMINAL_PROMPT", "0"), ("GIT_ASKPASS", "true")],
        to_proxy: "set HTTPS_PROXY, and look for http.proxy in git's configuration, which goes before it",
        to_trust: "set GIT_SSL_CAINFO to ca-bundle.pem: git reads no other CA variable",
    },
    python("python-urllib", &["-c", PYTHON, "urllib", URL]),
    Client {
        to_trust: "set REQUESTS_CA_BUNDLE to ca-bundle.pem: requests does not read SSL_CERT_FILE",
        ..python("python-requests", &["-c", PYTHON, "requests", URL])
    },
    python("python-httpx", &["-c", PYTHON, "httpx", URL]),
    Client {
        to_proxy: "valetkey env --shims (PYTHONPATH), or ClientSession(trust_env=True) in the code",
        ..python("python-aiohttp", &["-c", PYTHON, "aiohttp", URL])
    },
    Client {
        to_trust: "valetkey env --shims (PYTHONPATH), or stripe.ca_bundle_path in the code: stripe reads no CA variable",
        ..python("python-stripe", &["-c", PYTHON, "stripe", URL])
    },
    Client {
        version: &["-m", "pip", "--version"],
        variables: &[("PIP_NO_INPUT", "1")],
        to_trust: "set PIP_CERT or REQUESTS_CA_BUNDLE to ca-bundle.pem",
        ..python(
            "pip",
            &[
                "-m",
                "pip",
                "-vv",
                "download",
                "--no-deps",
                "--no-cache-dir",
                "--disable-pip-version-check",
                "--retries",
                "0",
                "--dest",
                SCRATCH,
                "--index-url",
                "{url}simple",
                "probe",
            ],
        )
    },
    node("node-https", &["-e", NODE, "--", "https", URL]),
    node("node-fetch", &["-e", NODE, "--", "fetch", URL]),
    Client {
        to_proxy: "valetkey env --shims (NODE_OPTIONS): a library's own agent, such as stripe's, reads no variable",
        ..node("node-agent", &["-e", NODE, "--", "agent", URL])
    },
    Client {
        name: "npm",
        program: "npm",
        version: &["--version"],
        arguments: &["ping", "--registry", URL, "--fetch-retries=0", "--cache", SCRATCH],
        variables: &[("npm_config_update_notifier", "false")],
        to_proxy: BOTH_CASES,
        to_trust: "set npm_config_cafile to ca-bundle.pem; without any cafile NODE_EXTRA_CA_CERTS does",
    },
    Client {
        name: "java",
        program: "java",
        version: &["-version"],
        arguments: &["-XX:TieredStopAtLevel=1", "{scratch}/Probe.java", URL],
        variables: &[],
        to_proxy: "set JAVA_TOOL_OPTIONS with -Dhttps.proxyHost and -Dhttps.proxyPort: the JVM reads no proxy variable",
        to_trust: "set JAVA_TOOL_OPTIONS with -Djavax.net.ssl.trustStore=truststore.p12: the JVM reads no PEM file",
    },
    Client {
        name: "gh",
        program: "gh",
        version: &["--version"],
        arguments: &["api", URL],
        variables: &[("GH_TOKEN", "probe"), ("GH_CONFIG_DIR", SCRATCH), ("GH_PROMPT_DISABLED", "1")],
        to_proxy: BOTH_CASES,
        to_trust: "set SSL_CERT_FILE to ca-bundle.pem; on macOS Go reads the keychain alone",
    },
    Client {
        name: "kubectl",
        program: "kubectl",
        version: &["version", "--client"],
        arguments: &["--kubeconfig=/dev/null", "--token=probe", "--server", URL, "get", "--raw", "/version"],
        variables: &[],
        to_proxy: BOTH_CASES,
        to_trust: "set SSL_CERT_FILE to ca-bundle.pem, unless the kubeconfig names a certificate-authority",
    },
    Client {
        name: "cargo",
        program: "cargo",
        version: &["--version"],
        arguments: &["search", "probe", "--index", "sparse+{url}"],
        variables: &[("CARGO_NET_RETRY", "0"), ("CARGO_HOME", SCRATCH)],
        to_proxy: BOTH_CASES,
        to_trust: "set CARGO_HTTP_CAINFO to ca-bundle.pem",
    },
    Client {
        name: "perl-lwp",
        program: "perl",
        version: &[],
        arguments: &["-e", PERL, URL],
        variables: &[],
        to_proxy: "set https_proxy and PERL_LWP_ENV_PROXY=1, or call env_proxy in the code",
        to_trust: "set PERL_LWP_SSL_CA_FILE to ca-bundle.pem",
    },
    Client {
        name: "deno",
        program: "deno",
        version: &["--version"],
        arguments: &["eval", "console.log('status=' + (await fetch(Deno.args[0])).status)", URL],
        variables: &[("DENO_DIR", SCRATCH), ("DENO_NO_UPDATE_CHECK", "1")],
        to_proxy: BOTH_CASES,
        to_trust: "set DENO_CERT to ca.pem",
    },
    Client {
        name: "bun",
        program: "bun",
        version: &["--version"],
        arguments: &["-e", "console.log('status=' + (await fetch(process.argv.at(-1))).status)", URL],
        variables: &[],
        to_proxy: BOTH_CASES,
        to_trust: "set NODE_EXTRA_CA_CERTS to ca.pem",
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Host;

    #[test]
    fn names_are_parts_of_hosts_and_each_stands_once() {
        let mut names: Vec<_> = CLIENTS.iter().map(|client| client.name).collect();
        for name in &names {
            assert!(Host::parse(&format!("{name}.a.invalid")).is_ok(), "{name}");
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), CLIENTS.len());
    }

    #[test]
    fn every_client_is_asked_for_its_host() {
        for client in CLIENTS {
            let arguments = client.arguments("x.invalid", "/scratch");
            assert!(arguments.iter().any(|text| text.contains("https://x.invalid/")), "{}", client.name);
            assert!(!arguments.iter().any(|text| text.contains(URL) || text.contains(SCRATCH)), "{arguments:?}");
        }
    }
}
