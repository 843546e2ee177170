//! valetkey: a forward HTTPS proxy beside an AI agent that swaps short-lived nonces for real credentials.

pub mod audit;
pub mod authority;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod credential;
pub mod door;
pub mod identity;
pub mod json;
pub mod lease;
pub mod metrics;
pub mod model;
pub mod net;
pub mod policy;
pub mod process;
pub mod proxy;
pub mod roots;
#[cfg(test)]
#[path = "../tests/it/support/skips.rs"]
mod skips;
pub mod telemetry;
