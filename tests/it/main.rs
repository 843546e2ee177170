//! Everything from outside: the built binary, real sockets, a fake upstream.

mod attacks;
mod cli;
mod journey;
mod pod;
mod promises;
mod support;
