//! Names of variables: where SDKs look for a key, and what an agent's command does not get.

/// Variables of one well-known API.
struct Known {
    /// What a policy usually calls it.
    service: &'static str,
    hosts: &'static [&'static str],
    /// Where its SDKs and tools look for the key.
    read: &'static [&'static str],
    /// Where real keys of it are found besides.
    secret: &'static [&'static str],
}

const KNOWN: &[Known] = &[
    Known {
        service: "stripe",
        hosts: &["api.stripe.com"],
        read: &["STRIPE_API_KEY", "STRIPE_SECRET_KEY"],
        secret: &["STRIPE_RESTRICTED_KEY", "STRIPE_WEBHOOK_SECRET"],
    },
    Known {
        service: "github",
        hosts: &["api.github.com", "github.com"],
        read: &["GITHUB_TOKEN", "GH_TOKEN"],
        secret: &["GITHUB_PERSONAL_ACCESS_TOKEN", "GITHUB_PAT", "GITHUB_API_TOKEN", "HOMEBREW_GITHUB_API_TOKEN"],
    },
    Known {
        service: "slack",
        hosts: &["slack.com"],
        read: &["SLACK_BOT_TOKEN"],
        secret: &["SLACK_TOKEN", "SLACK_API_TOKEN", "SLACK_USER_TOKEN", "SLACK_APP_TOKEN"],
    },
    Known {
        service: "openai",
        hosts: &["api.openai.com"],
        read: &["OPENAI_API_KEY"],
        secret: &["OPENAI_ADMIN_KEY", "CODEX_API_KEY"],
    },
    Known {
        service: "anthropic",
        hosts: &["api.anthropic.com"],
        read: &["ANTHROPIC_API_KEY"],
        secret: &["ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_ADMIN_KEY", "CLAUDE_CODE_OAUTH_TOKEN"],
    },
];

/// Who this machine or its user is to a cloud, a vault or a build service: taken out whatever the policy says, since
/// it opens more than any one key and needs no proxy. What only names a choice among files (`AWS_PROFILE`,
/// `KUBECONFIG`) stays: without it the same files are read.
const IDENTITY: &[&str] = &[
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_SECURITY_TOKEN",
    "AWS_BEARER_TOKEN_BEDROCK",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "GOOGLE_CREDENTIALS",
    "GOOGLE_CLOUD_KEYFILE_JSON",
    "GCLOUD_KEYFILE_JSON",
    "GOOGLE_OAUTH_ACCESS_TOKEN",
    "CLOUDSDK_AUTH_ACCESS_TOKEN",
    "AZURE_CLIENT_SECRET",
    "AZURE_CLIENT_CERTIFICATE_PATH",
    "AZURE_CLIENT_CERTIFICATE_PASSWORD",
    "AZURE_PASSWORD",
    "AZURE_FEDERATED_TOKEN_FILE",
    "AZURE_STORAGE_CONNECTION_STRING",
    "AZURE_STORAGE_KEY",
    "AZURE_STORAGE_SAS_TOKEN",
    "ARM_CLIENT_SECRET",
    "ARM_CLIENT_CERTIFICATE_PASSWORD",
    "ARM_OIDC_TOKEN",
    "ARM_OIDC_REQUEST_TOKEN",
    "ARM_ACCESS_KEY",
    "ARM_SAS_TOKEN",
    "IDENTITY_ENDPOINT",
    "IDENTITY_HEADER",
    "MSI_ENDPOINT",
    "MSI_SECRET",
    "ACTIONS_ID_TOKEN_REQUEST_TOKEN",
    "ACTIONS_ID_TOKEN_REQUEST_URL",
    "ACTIONS_RUNTIME_TOKEN",
    "CI_JOB_TOKEN",
    "CI_JOB_JWT",
    "CI_JOB_JWT_V2",
    "CI_REGISTRY_PASSWORD",
    "CI_DEPLOY_PASSWORD",
    "CI_DEPENDENCY_PROXY_PASSWORD",
    "SYSTEM_ACCESSTOKEN",
    "BUILDKITE_AGENT_ACCESS_TOKEN",
    "CIRCLE_OIDC_TOKEN",
    "CIRCLE_OIDC_TOKEN_V2",
    "BITBUCKET_STEP_OIDC_TOKEN",
    "VAULT_TOKEN",
    "VAULT_SECRET_ID",
    "BAO_TOKEN",
    "OP_SERVICE_ACCOUNT_TOKEN",
    "OP_CONNECT_TOKEN",
    "BWS_ACCESS_TOKEN",
    "BW_SESSION",
    "DOPPLER_TOKEN",
    "INFISICAL_TOKEN",
    "INFISICAL_UNIVERSAL_AUTH_CLIENT_SECRET",
    "AKEYLESS_TOKEN",
    "CONJUR_AUTHN_API_KEY",
    "SOPS_AGE_KEY",
    "SSH_AUTH_SOCK",
];

/// Beginnings of the names of our own settings.
pub(super) const OWN: &str = "VALETKEY_";

/// Proxies of one client or protocol alone, which would lead it around the sidecar.
pub(super) const AROUND: &[&str] = &[
    "grpc_proxy",
    "GRPC_PROXY",
    "no_grpc_proxy",
    "ws_proxy",
    "wss_proxy",
    "WS_PROXY",
    "WSS_PROXY",
    "npm_config_proxy",
    "npm_config_https_proxy",
    "npm_config_noproxy",
    "PIP_PROXY",
    "CARGO_HTTP_PROXY",
];

/// What commands need to run at all, even where a credential's command gets it too.
const HARMLESS: &[&str] = &[
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "LANGUAGE",
    "TZ",
    "TMPDIR",
    "TERM",
    "PWD",
    "HOSTNAME",
    "XDG_RUNTIME_DIR",
    "XDG_CONFIG_HOME",
    "XDG_CACHE_HOME",
    "XDG_STATE_HOME",
    "XDG_DATA_HOME",
    "LC_ALL",
    "LC_CTYPE",
];

/// What says how a program starts, or where: a nonce in there breaks the command, and no client reads a key from it.
const STARTS: &[&str] = &[
    "IFS",
    "ENV",
    "BASH_ENV",
    "SHELLOPTS",
    "PS4",
    "NODE_OPTIONS",
    "PYTHONPATH",
    "PYTHONHOME",
    "PYTHONSTARTUP",
    "PERL5LIB",
    "PERL5OPT",
    "RUBYOPT",
    "RUBYLIB",
    "JAVA_TOOL_OPTIONS",
    "GCONV_PATH",
    "AWS_EC2_METADATA_DISABLED",
];

/// True for a variable that the command, its interpreter or the sidecar's block needs for something else than a key.
pub(super) fn is_taken(name: &str) -> bool {
    let is_own = name.starts_with(OWN) || is_loader(name);
    is_own || is_harmless(name) || STARTS.contains(&name) || AROUND.contains(&name)
}

/// What the dynamic linker loads into programs, or does otherwise at their start (ld.so(8), dyld(1)).
pub(super) fn is_loader(name: &str) -> bool {
    name.starts_with("LD_") || name.starts_with("DYLD_")
}

/// Where the SDKs of a service look for its key; empty for one that is not well known.
pub(super) fn read_by_sdks(service: &str, hosts: &[String]) -> &'static [&'static str] {
    known(service, hosts).map_or(&[], |known| known.read)
}

/// Where real keys of a service are found.
pub(super) fn secrets_of(service: &str, hosts: &[String]) -> impl Iterator<Item = &'static str> {
    known(service, hosts).into_iter().flat_map(|known| known.read.iter().chain(known.secret)).copied()
}

/// By its hosts first, since a policy may call things what it likes.
fn known(service: &str, hosts: &[String]) -> Option<&'static Known> {
    let by_host = KNOWN.iter().find(|known| hosts.iter().any(|host| known.hosts.contains(&host.as_str())));
    by_host.or_else(|| KNOWN.iter().find(|known| known.service == service))
}

/// True for the identity of the machine or its user.
pub(super) fn is_identity(name: &str) -> bool {
    IDENTITY.contains(&name)
}

/// True for what may stay although a credential's command gets it too.
pub(super) fn is_harmless(name: &str) -> bool {
    HARMLESS.contains(&name)
}

/// A name as shells have them (POSIX, 8.1), in either case.
pub(super) fn is_variable(name: &str) -> bool {
    !name.starts_with(|first: char| first.is_ascii_digit())
        && !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// A name of a variable on the command line.
pub(super) fn variable(text: &str) -> Result<String, String> {
    let is_name = !text.is_empty() && !text.contains(['=', '\0']);
    is_name.then(|| text.to_owned()).ok_or_else(|| "expected the name of a variable, without a value".to_owned())
}
