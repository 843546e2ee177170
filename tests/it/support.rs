//! A sidecar, an upstream and the actors.

pub mod agent;
pub mod authority;
pub mod builder;
pub mod leak;
pub mod namespace;
pub mod orchestrator;
pub mod policies;
pub mod remote;
pub mod sidecar;
pub mod sockets;
pub mod stage;
pub mod stranger;
pub mod streams;
pub mod upstream;
pub mod websocket;
pub mod wire;

pub use agent::Agent;
pub use builder::Builder;
pub use namespace::Namespace;
pub use orchestrator::Orchestrator;
pub use sidecar::TestSidecar;
pub use stage::Stage;
pub use upstream::FakeUpstream;

/// A credential that occurs nowhere else; made afresh for each use.
pub fn canary() -> String {
    let mut random = [0u8; 20];
    getrandom::fill(&mut random).expect("randomness");
    format!("sk_live_{}", hex::encode(random))
}
