//! The kinds of fault.
//!
//! - `connecting`: before there is HTTP
//! - `http1`, `http2`: upstream's answers
//! - `agents`: agents that go away, or stand still
//! - `credentials`: sources that are down
//! - `audits`: an audit that cannot be written
//! - `processes`: signals, reloads, revocations, descriptors, kills
//! - `oracles`: planted breaches, each of which an oracle has to see

mod agents;
mod audits;
mod connecting;
mod credentials;
mod http1;
mod http2;
mod oracles;
mod processes;

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;

use crate::client::Protocol;
use crate::scene::{Expect, Scene};
use crate::upstream::Fault;

/// One run of one kind.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// What the agent speaks.
    pub protocol: Protocol,
    pub seed: u64,
}

impl Case {
    /// A number below `below`, which is the same for the same seed and `salt`.
    pub fn chance(self, salt: u64, below: u64) -> u64 {
        let mut mixed = self.seed.wrapping_add(salt.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_add(0x9e37_79b9);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % below
    }
}

/// A case under way; it panics where something does not hold.
type Running = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A kind of fault.
pub struct Kind {
    pub name: String,
    /// A death of the process, of which there is a number of its own.
    pub is_kill: bool,
    /// What the agent speaks makes next to no difference.
    pub is_alike: bool,
    pub run: Box<dyn Fn(Case) -> Running + Send + Sync>,
}

/// Every kind.
pub fn all() -> Vec<Kind> {
    let mut kinds = connecting::all();
    kinds.extend(http1::all());
    kinds.extend(http2::all());
    kinds.extend(agents::all());
    kinds.extend(credentials::all());
    kinds.extend(audits::all());
    kinds.extend(processes::all());
    kinds.extend(oracles::all());
    kinds
}

/// A kind that is a function.
pub fn kind<F>(name: &str, run: impl Fn(Case) -> F + Send + Sync + 'static) -> Kind
where
    F: Future<Output = ()> + Send + 'static,
{
    Kind { name: name.to_owned(), is_kill: false, is_alike: false, run: Box::new(move |case| Box::pin(run(case))) }
}

/// As [`kind`], where what the agent speaks makes next to no difference.
fn kind_alike<F>(name: &str, run: impl Fn(Case) -> F + Send + Sync + 'static) -> Kind
where
    F: Future<Output = ()> + Send + 'static,
{
    Kind { is_alike: true, ..kind(name, run) }
}

/// How upstream breaks, and what that must come to.
struct Row {
    name: String,
    fault: Fault,
    expect: Expect,
    /// Upstream says that it did nothing, so that once more is right where there is no body.
    may_repeat: bool,
    /// What the agent speaks makes next to no difference: a refusal is a refusal.
    is_alike: bool,
    /// The body that the last of the requests has.
    body: Bytes,
}

impl Row {
    fn new(name: &str, fault: Fault, expect: Expect) -> Self {
        let is_alike = matches!(expect, Expect::Refused(_));
        let body = Bytes::from_static(b"a body");
        Self { name: name.to_owned(), fault, expect, may_repeat: false, is_alike, body }
    }

    fn kind(self) -> Kind {
        let Self { name, fault, expect, may_repeat, is_alike, body } = self;
        let kind = kind(&name, move |case| {
            let (fault, body) = (fault.clone(), body.clone());
            async move {
                let scene = Scene::new(case, fault).await;
                scene.expect(expect, may_repeat, &body).await;
                scene.finish().await;
            }
        });
        Kind { is_alike, ..kind }
    }
}
