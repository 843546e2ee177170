//! WebSocket: from an upgrade that was judged to a socket that is watched.
//!
//! An agent asks by `GET` and `Upgrade` (RFC 6455) or by an extended `CONNECT` (RFC 8441); upstream is asked over an
//! HTTP/1.1 connection of its own. Both are one method of the policy, `WEBSOCKET`.
//!
//! - `handshake`: what is asked and answered, on both sides
//! - `key`: the proof that somebody has read the question
//! - `passage`: the bytes after that, both ways, until somebody ends it

mod handshake;
mod key;
mod passage;

pub use handshake::Handshake;
pub(super) use handshake::is_asked_for;
pub(super) use passage::{Opening, pass};

use hyper::upgrade::OnUpgrade;

/// What became of the question.
pub enum Switch {
    /// Nobody asked.
    NotAsked,
    /// Upstream gave another answer, an ordinary one.
    Declined(Handshake),
    /// Upstream has switched.
    Agreed(Box<Agreed>),
}

/// A switch that upstream has agreed to and the agent has not heard of.
pub struct Agreed {
    pub(super) handshake: Handshake,
    pub(super) upstream: OnUpgrade,
}
