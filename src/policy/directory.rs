//! Which services list a destination: two hash look-ups at most, no allocation, however many services there are.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;

use super::host::parent;
use super::service::Service;
use crate::model::{Destination, Host, Table};

/// Services by host and port.
pub(super) struct Directory {
    /// Hosts that are written out, each with everything that lists it: wildcards too.
    exact: Table<Destination, Services>,
    /// Wildcards, by port and by what stands behind the `*.`.
    wildcard: Table<u16, Table<Box<str>, Services>>,
    hosts: HashSet<Host>,
    parents: HashSet<Box<str>>,
    /// What nobody lists.
    none: Services,
}

/// The services of one destination, in the order of the file.
type Services = Arc<[Arc<Service>]>;

impl Directory {
    /// Indexes the services; those of one destination stay in their order.
    pub(super) fn new(services: &[Arc<Service>]) -> Self {
        let (mut exact, mut wildcard) = (HashMap::new(), HashMap::<u16, HashMap<_, _>>::new());
        let (mut hosts, mut parents) = (HashSet::new(), HashSet::new());
        for service in services {
            for pattern in &service.hosts {
                if pattern.wildcard {
                    parents.insert(pattern.host.as_str().into());
                    let by_parent = wildcard.entry(pattern.port).or_default();
                    push(by_parent.entry(pattern.host.as_str().into()).or_default(), service);
                } else {
                    hosts.insert(pattern.host.clone());
                    let destination = Destination { host: pattern.host.clone(), port: pattern.port };
                    push(exact.entry(destination).or_default(), service);
                }
            }
        }
        join_wildcards(&mut exact, &wildcard, services);
        let wildcard = wildcard.into_iter().map(|(port, by_parent)| (port, shared(by_parent))).collect();
        Self { exact: shared(exact), wildcard, hosts, parents, none: Services::default() }
    }

    /// The services that list this destination.
    pub(super) fn at(&self, destination: &Destination) -> &Services {
        if let Some(services) = self.exact.get(destination) {
            return services;
        }
        let below = parent(&destination.host).and_then(|parent| self.wildcard.get(&destination.port)?.get(parent));
        below.unwrap_or(&self.none)
    }

    /// True when a service lists this host on any port.
    pub(super) fn lists_host(&self, host: &Host) -> bool {
        self.hosts.contains(host) || parent(host).is_some_and(|parent| self.parents.contains(parent))
    }
}

/// Adds to each written-out host the services that list it by a wildcard.
fn join_wildcards(
    exact: &mut HashMap<Destination, Vec<Arc<Service>>>,
    wildcard: &HashMap<u16, HashMap<Box<str>, Vec<Arc<Service>>>>,
    services: &[Arc<Service>],
) {
    let order: HashMap<*const Service, usize> =
        services.iter().enumerate().map(|(at, service)| (Arc::as_ptr(service), at)).collect();
    for (destination, listed) in exact {
        let below = parent(&destination.host).and_then(|parent| wildcard.get(&destination.port)?.get(parent));
        for service in below.into_iter().flatten() {
            push(listed, service);
        }
        listed.sort_by_key(|service| order.get(&Arc::as_ptr(service)));
    }
}

/// As each request takes them: one count instead of a copy.
fn shared<K: Eq + Hash>(known: HashMap<K, Vec<Arc<Service>>>) -> Table<K, Services> {
    known.into_iter().map(|(key, services)| (key, services.into())).collect()
}

/// Adds a service once.
fn push(services: &mut Vec<Arc<Service>>, service: &Arc<Service>) {
    if !services.iter().any(|known| Arc::ptr_eq(known, service)) {
        services.push(Arc::clone(service));
    }
}
