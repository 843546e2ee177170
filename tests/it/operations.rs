//! What operators do to a sidecar, and what happens to it.

mod ending;
mod flags;
mod records;
mod reloading;
mod webhooks;
