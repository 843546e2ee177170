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

/// The sidecar's binary: the one that was built with these tests, or that `VALETKEY_BINARY_UNDER_TEST` names.
pub fn binary() -> std::ffi::OsString {
    std::env::var_os("VALETKEY_BINARY_UNDER_TEST").unwrap_or_else(|| env!("CARGO_BIN_EXE_valetkey").into())
}

/// A credential that occurs nowhere else; made afresh for each use.
pub fn canary() -> String {
    let mut random = [0u8; 20];
    getrandom::fill(&mut random).expect("randomness");
    format!("sk_live_{}", hex::encode(random))
}
