//! Lists of hosts, and whether one list stays within another.

use super::mistake::Code;
use super::section::Node;
use crate::door::{self, HOST};
use crate::model::Destination;
use crate::policy::HostPattern;

/// Hosts of one service or credential at most.
const HOSTS_MAX: usize = 256;

/// Reads `hosts = […]`; every entry that is not a host, or is there twice, is a mistake of its own.
pub(super) fn read(node: &Node<'_>) -> Option<Vec<HostPattern>> {
    let list = node.filled_list(HOSTS_MAX, "name the hosts, like [\"api.example.com\"]")?;
    let wanted = list.len();
    let mut hosts: Vec<HostPattern> = Vec::with_capacity(wanted);
    for node in list {
        let Some(pattern) = read_one(&node) else { continue };
        if hosts.contains(&pattern) {
            node.visible_fault(Code::Duplicate, "is here already".to_owned(), "take one of them out");
        } else {
            hosts.push(pattern);
        }
    }
    (hosts.len() == wanted).then_some(hosts)
}

fn read_one(node: &Node<'_>) -> Option<HostPattern> {
    let pattern = match HostPattern::parse(node.string()?) {
        Ok(pattern) => pattern,
        Err(problem) => {
            let hint = "an exact name, *.example.com for one label, and a port where it is not 443";
            node.visible_fault(Code::BadValue, problem.to_string(), hint);
            return None;
        }
    };
    if is_reserved(&pattern) {
        let message = format!("{HOST} is the sidecar's own name");
        node.visible_fault(Code::BadValue, message, "give the service a name of its own");
        return None;
    }
    Some(pattern)
}

fn is_reserved(pattern: &HostPattern) -> bool {
    let covers_ours = || HOST.strip_suffix(pattern.host.as_str()).is_some_and(|label| label.ends_with('.'));
    door::is_reserved(&pattern.host) || pattern.wildcard && covers_ours()
}

/// True when every destination that `inner` covers is covered by one of `outer`.
pub(super) fn within(inner: &HostPattern, outer: &[HostPattern]) -> bool {
    outer.iter().any(|outer| {
        if inner.wildcard {
            return outer == inner;
        }
        outer.covers(&Destination { host: inner.host.clone(), port: inner.port })
    })
}
