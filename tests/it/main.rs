//! Everything from outside: the built binary, real sockets, a fake upstream.

mod cli;
mod demo;
mod journey;
mod pod;
mod promises;
mod support;
