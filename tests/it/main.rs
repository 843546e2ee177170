//! Everything from outside: the built binary, real sockets, a fake upstream.

mod architecture;
mod journey;
mod promises;
mod support;
