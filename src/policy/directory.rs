//! Which services list a destination: two hash look-ups at most, no allocation, however many services there are.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::host::parent;
use super::service::Service;
use crate::model::{Destination, Host};

/// Services by host and port.
pub(super) struct Directory {
    /// Hosts that are written out, each with everything that lists it: wildcards too.
    exact: HashMap<Destination, Vec<Arc<Service>>>,
    /// Wildcards, by port and by what stands behind the `*.`.
    wildcard: HashMap<u16, HashMap<Box<str>, Vec<Arc<Service>>>>,
    hosts: HashSet<Host>,
    parents: HashSet<Box<str>>,
}

impl Directory {
    /// Indexes the services; those of one destination stay in their order.
    pub(super) fn new(services: &[Arc<Service>]) -> Self {
        let mut directory =
            Self { exact: HashMap::new(), wildcard: HashMap::new(), hosts: HashSet::new(), parents: HashSet::new() };
        for service in services {
            for pattern in &service.hosts {
                if pattern.wildcard {
                    directory.parents.insert(pattern.host.as_str().into());
                    let by_parent = directory.wildcard.entry(pattern.port).or_default();
                    push(by_parent.entry(pattern.host.as_str().into()).or_default(), service);
                } else {
                    directory.hosts.insert(pattern.host.clone());
                    let destination = Destination { host: pattern.host.clone(), port: pattern.port };
                    push(directory.exact.entry(destination).or_default(), service);
                }
            }
        }
        directory.join_wildcards(services);
        directory
    }

    /// Adds to each written-out host the services that list it by a wildcard.
    fn join_wildcards(&mut self, services: &[Arc<Service>]) {
        let order: HashMap<*const Service, usize> =
            services.iter().enumerate().map(|(at, service)| (Arc::as_ptr(service), at)).collect();
        for (destination, listed) in &mut self.exact {
            let below = parent(&destination.host).and_then(|parent| self.wildcard.get(&destination.port)?.get(parent));
            for service in below.into_iter().flatten() {
                push(listed, service);
            }
            listed.sort_by_key(|service| order.get(&Arc::as_ptr(service)));
        }
    }

    /// The services that list this destination.
    pub(super) fn at(&self, destination: &Destination) -> &[Arc<Service>] {
        if let Some(services) = self.exact.get(destination) {
            return services;
        }
        let below = parent(&destination.host).and_then(|parent| self.wildcard.get(&destination.port)?.get(parent));
        below.map_or(&[], Vec::as_slice)
    }

    /// True when a service lists this host on any port.
    pub(super) fn lists_host(&self, host: &Host) -> bool {
        self.hosts.contains(host) || parent(host).is_some_and(|parent| self.parents.contains(parent))
    }
}

/// Adds a service once.
fn push(services: &mut Vec<Arc<Service>>, service: &Arc<Service>) {
    if !services.iter().any(|known| Arc::ptr_eq(known, service)) {
        services.push(Arc::clone(service));
    }
}
