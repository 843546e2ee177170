//! Each stage of a request, seen from outside.

mod arriving;
mod authority;
mod credentials;
mod process;
mod relaying;
mod starting;
mod stopping;
