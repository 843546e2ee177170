//! Where a credential comes from and where it may go, as `valetkey policy show` prints it.

use serde::Serialize;

use crate::config::duration::spell as spell_duration;
use crate::credential::SourceSpec;

#[derive(Debug, Clone, Serialize)]
pub(in crate::config) struct EffectiveCredential {
    source: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    command: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    environment: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout: Option<String>,
    hosts: Vec<String>,
}

impl EffectiveCredential {
    pub(in crate::config) fn new(source: &SourceSpec, hosts: Vec<String>) -> Self {
        let mut shown = Self {
            source: "env",
            name: None,
            path: None,
            certificate: None,
            command: Vec::new(),
            environment: Vec::new(),
            ttl: None,
            timeout: None,
            hosts,
        };
        match source {
            SourceSpec::Env { name } => shown.name = Some(name.clone()),
            SourceSpec::File { path } => {
                shown.source = "file";
                shown.path = Some(path.display().to_string());
            }
            SourceSpec::Certificate { key, certificate } => {
                shown.source = "file";
                shown.path = Some(key.display().to_string());
                shown.certificate = Some(certificate.display().to_string());
            }
            SourceSpec::Exec { command, arguments, environment, ttl, timeout } => {
                shown.source = "exec";
                shown.command =
                    std::iter::once(command.display().to_string()).chain(arguments.iter().cloned()).collect();
                shown.environment.clone_from(environment);
                shown.ttl = Some(spell_duration(*ttl));
                shown.timeout = Some(spell_duration(*timeout));
            }
        }
        shown
    }
}
