//! What operators do to a sidecar, and what happens to it.

mod changing_ca;
mod ending;
mod flags;
mod floods;
mod records;
mod reloading;
mod webhooks;
