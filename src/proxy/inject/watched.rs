//! One search for all real credentials at once, for what agents send: none should know one.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::{Searches, plain_needles};
use crate::credential::{Credentials, Versioned};
use crate::model::CredentialName;
use crate::proxy::scrub::Needles;

/// Versions of one credential that are searched for: the value in use and the one before it, which may still be good.
const VERSIONS_MAX: usize = 2;

/// The search, made anew once another value has come into use.
#[derive(Default)]
pub struct Watched(ArcSwap<Known>);

#[derive(Default)]
struct Known {
    /// What [`Credentials::changes`] was; `None` before the first look.
    changes: Option<u64>,
    each: Vec<One>,
    all: Option<Needles>,
}

#[derive(Clone)]
struct One {
    name: CredentialName,
    version: u64,
    needles: Needles,
}

impl Watched {
    /// The search for every credential that was loaded; `None` where there is none. What could be had once is searched
    /// for also while it cannot be had, until it is let go of.
    pub fn search(&self, credentials: &Credentials, searches: &Searches) -> Option<Needles> {
        let changes = credentials.changes();
        let known = self.0.load();
        if known.changes == Some(changes) {
            return known.all.clone();
        }
        // Whoever comes here at the same time does the same.
        let loaded = credentials.loaded();
        self.0.rcu(|known| known.with(&loaded, searches, changes));
        self.0.load().all.clone()
    }

    /// Drops the searches for these, in all versions; true if there was one.
    pub fn forget(&self, may_go: &dyn Fn(&CredentialName) -> bool) -> bool {
        let any = self.0.load().each.iter().any(|one| may_go(&one.name));
        if any {
            self.0.rcu(|known| {
                let kept = known.each.iter().filter(|one| !may_go(&one.name));
                Known::of(kept.cloned().collect(), known.changes)
            });
        }
        any
    }
}

impl Known {
    fn of(each: Vec<One>, changes: Option<u64>) -> Self {
        let all = (!each.is_empty()).then(|| Needles::any_of(each.iter().map(|one| &one.needles)));
        Self { changes, each, all }
    }

    fn with(&self, loaded: &[Arc<Versioned>], searches: &Searches, changes: u64) -> Self {
        let mut each = self.each.clone();
        for versioned in loaded {
            remember(&mut each, versioned, searches);
        }
        // Of two that look at once the later one counts.
        Self::of(each, self.changes.max(Some(changes)))
    }
}

fn remember(each: &mut Vec<One>, versioned: &Versioned, searches: &Searches) {
    // A private key is never sent, and only its files have it.
    if versioned.text().or(versioned.key_pair()).is_none() {
        return;
    }
    let is_same = |one: &One| one.name == versioned.name;
    if each.iter().any(|one| is_same(one) && one.version >= versioned.version) {
        return;
    }
    if each.iter().filter(|one| is_same(one)).count() >= VERSIONS_MAX
        && let Some(oldest) = each.iter().position(is_same)
    {
        each.remove(oldest);
    }
    let (name, version) = (versioned.name.clone(), versioned.version);
    each.push(One { name, version, needles: plain_needles(versioned, searches) });
}
