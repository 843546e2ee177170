//! The audit's opening, and what its first record says.

use serde_json::json;

use super::Arguments;
use super::listeners::{self, Bound};
use crate::audit::{self, Audit};
use crate::cli::Failure;
use crate::clock::SharedClock;
use crate::policy::Policy;
use crate::process::{Confinement, Locked};

/// Opens the audit, and says in its first record what this is and how it stands.
pub(super) fn open_audit(
    arguments: &Arguments,
    clock: &SharedClock,
    (policy, bound): (&Policy, &Bound),
    (confinement, locked): (&Confinement, Locked),
) -> Result<Audit, Failure> {
    let sink = if arguments.audit.as_os_str() == "-" {
        audit::Sink::Stdout
    } else {
        audit::Sink::File(arguments.audit.clone())
    };
    let overrides: Vec<_> = arguments.connect_to.iter().map(ToString::to_string).collect();
    let facts = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "policy_digest": &**policy.digest(),
        "unscrubbed": policy.unscrubbed(),
        "proxy": bound.proxy.to_string(),
        "proxy_tls": bound.outer.map(|address| address.to_string()),
        "transparent": listeners::texts(&bound.transparent),
        "admin": bound.admin.to_string(),
        "control": (!arguments.supervised).then_some(&arguments.control),
        "control_tcp": bound.remote.map(|address| address.to_string()),
        "leaks_tcp": bound.reports.map(|address| address.to_string()),
        "connect_to": overrides,
        "landlock": confinement.word(),
        "memory": locked.word(),
    });
    let config = audit::Config { sync: arguments.audit_sync, ..audit::Config::new(sink) };
    Audit::start(&config, clock.clone(), facts).map_err(Failure::audit)
}
