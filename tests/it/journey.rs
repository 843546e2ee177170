//! Each stage of a request, seen from outside.

mod arriving;
mod authority;
mod credentials;
mod limits;
mod process;
mod relaying;
mod starting;
mod stopping;
mod tunnelling;
mod wire;
