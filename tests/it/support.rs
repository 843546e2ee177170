//! A sidecar, an upstream and the actors.

pub mod agent;
pub mod authority;
pub mod builder;
pub mod codings;
pub mod leak;
pub mod namespace;
pub mod orchestrator;
pub mod outer;
pub mod policies;
pub mod remote;
pub mod rsa;
pub mod sidecar;
pub mod sigv4;
pub mod skips;
pub mod sockets;
pub mod stage;
pub mod stranger;
pub mod streams;
pub mod upstream;
pub mod watch;
pub mod websocket;
pub mod wire;
pub mod workload;

pub use agent::Agent;
pub use builder::Builder;
pub use namespace::Namespace;
pub use orchestrator::Orchestrator;
pub use sidecar::TestSidecar;
pub use skips::skip;
pub use stage::Stage;
pub use upstream::FakeUpstream;

/// The binary under test: the one in `VALETKEY_TEST_BINARY`, else the one that was built with these tests.
pub fn binary() -> &'static str {
    static BINARY: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    BINARY
        .get_or_init(|| std::env::var("VALETKEY_TEST_BINARY").unwrap_or_else(|_| env!("CARGO_BIN_EXE_valetkey").into()))
}

/// A credential that occurs nowhere else; made afresh for each use, and looked for when a sidecar is over.
pub fn canary() -> String {
    let mut random = [0u8; 20];
    getrandom::fill(&mut random).expect("randomness");
    let canary = format!("sk_live_{}", hex::encode(random));
    watch::guard(&canary);
    canary
}
