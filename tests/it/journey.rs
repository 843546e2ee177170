//! Each stage of a request, seen from outside.

mod arriving;
mod authority;
mod credentials;
mod dialects;
mod large;
mod leases;
mod limits;
mod process;
mod relaying;
mod services;
mod starting;
mod stopping;
mod tunnelling;
mod websocket;
mod wire;
