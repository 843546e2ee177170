//! Credentials that no live lease needs: they are let go of, with the searches that were made of them and the connections
//! that they went out on, and had again when a lease needs them, or a request does.
//!
//! Only what can be had again is: a file is read again and a command run again; what came from the environment stays. What
//! is under way keeps what it began with until it ends.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use super::{Proxy, Rules};
use crate::model::CredentialName;

/// How long a credential is kept for the next lease that may need it. A lease that has ended is noticed at once, so that
/// the credential is gone well within a second.
const KEPT: Duration = Duration::from_millis(500);

impl Proxy {
    /// Lets go of credentials as the leases that need them end. Runs until dropped.
    pub async fn tend_credentials(self: Arc<Self>) {
        // No `Rules` is held while nothing happens: it may be replaced meanwhile.
        let arrivals = self.rules().credentials.arrivals();
        loop {
            tokio::select! {
                () = self.leases.needs_changed() => {}
                () = arrivals.next() => {}
            }
            self.recall();
            tokio::time::sleep(KEPT).await;
            // Once more where there was something: a request may have had it in its hands, and put it back.
            while self.let_go() {
                tokio::time::sleep(KEPT).await;
            }
        }
    }

    fn recall(&self) {
        let rules = self.rules();
        let needed = self.needed(&rules);
        rules.credentials.recall(&|name| needed.contains(name));
    }

    fn let_go(&self) -> bool {
        let rules = self.rules();
        let needed = self.needed(&rules);
        let may_go = |name: &CredentialName| !needed.contains(name) && rules.credentials.can_be_had_again(name);
        // The value first: whoever looks for one then finds none to search for.
        let was_held = rules.credentials.release(&|name| !may_go(name));
        let is_gone = rules.forget(&may_go) | was_held;
        if was_held {
            tracing::debug!("credentials that no live nonce needs were dropped");
        }
        is_gone
    }

    /// What the scopes of live leases take, and what the proxy before us asks for as long as there are any.
    fn needed(&self, rules: &Rules) -> HashSet<CredentialName> {
        let mut needed = HashSet::new();
        for service in rules.policy.services() {
            let scopes = service.scopes.iter().filter(|scope| self.leases.needs(&service.name, &scope.name));
            // The certificate goes with each of them, and with none.
            for scope in scopes {
                needed.extend(service.client_certificate.iter().chain([&scope.credential]).cloned());
            }
        }
        if self.leases.needs_any() {
            needed.extend(rules.policy.parent_proxy().and_then(|parent| parent.credential.clone()));
        }
        needed
    }
}
