//! Micro-benchmarks of the sidecar's own parts, and what they have in common.
//!
//! - `cargo bench --manifest-path benches/Cargo.toml --package micro`: each part by itself (`benches/parts.rs`)
//! - `cargo run --release --manifest-path benches/Cargo.toml --bin nonces`: a million live nonces in a process of
//!   their own (`src/bin/nonces.rs`)

pub mod clock;
pub mod minting;
pub mod pauses;
pub mod policies;
pub mod steps;
