//! Policies that several tests share.

/// One API, `api.test`, whose upstream's CA is `{dir}/api.pem`; the agent may be anybody.
pub const ONE_API: &str = r#"
version = 1

[credentials.api]
source = "env"
name = "API_KEY"
hosts = ["api.test"]

[services.api]
hosts = ["api.test"]
credential = "api"
slots = ["bearer", "token", "basic-user", "basic-password", "header:x-api-key", "query:key"]
upstream_ca = "{dir}/api.pem"

[[services.api.scopes]]
name = "read"
risk = "low"
allow = ["GET /{*path}"]

[[services.api.scopes]]
name = "write"
risk = "medium"
allow = ["POST /{*path}", "PUT /{*path}"]
deny = ["POST /forbidden"]

[[services.api.scopes]]
name = "once"
risk = "high"
max_uses = 1
allow = ["DELETE /{*path}"]

[agents.worker]
identity = ["any"]
grants = { api = ["read", "write", "once"] }
"#;

/// Two APIs with credentials of their own: `api.test` (`API_KEY`) and `other.test` (`OTHER_KEY`).
pub const TWO_APIS: &str = r#"
version = 1

[credentials.api]
source = "env"
name = "API_KEY"
hosts = ["api.test"]

[credentials.other]
source = "env"
name = "OTHER_KEY"
hosts = ["other.test"]

[services.api]
hosts = ["api.test"]
credential = "api"
slots = ["bearer"]
upstream_ca = "{dir}/api.pem"
[[services.api.scopes]]
name = "read"
risk = "low"
allow = ["GET /{*path}"]

[services.other]
hosts = ["other.test"]
credential = "other"
slots = ["bearer"]
upstream_ca = "{dir}/other.pem"
[[services.other.scopes]]
name = "read"
risk = "low"
allow = ["GET /{*path}"]

[agents.worker]
identity = ["any"]
grants = { api = ["read"], other = ["read"] }
"#;

/// [`ONE_API`] with a second agent, `other`, who may read.
pub fn two_agents() -> String {
    ONE_API.to_owned() + "\n[agents.other]\nidentity = [\"any\"]\ngrants = { api = [\"read\"] }\n"
}

/// [`ONE_API`] with its credential from somewhere else.
pub fn one_api_from(source: &str) -> String {
    ONE_API.replace("source = \"env\"\nname = \"API_KEY\"", source)
}

/// [`ONE_API`] with another line in its service.
pub fn one_api_with(line: &str) -> String {
    ONE_API.replace("credential = \"api\"\n", &format!("credential = \"api\"\n{line}\n"))
}

/// One API, `api.test`, with one slot; the text goes on after its service, with scopes and agents.
pub fn bearer_api(rest: &str) -> String {
    const SERVICE: &str = r#"
version = 1

[credentials.api]
source = "env"
name = "API_KEY"
hosts = ["api.test"]

[services.api]
hosts = ["api.test"]
credential = "api"
slots = ["bearer"]
upstream_ca = "{dir}/api.pem"
"#;
    format!("{SERVICE}{rest}")
}
