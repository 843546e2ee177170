//! Everything from outside: the built binary, real sockets, a fake upstream.

mod architecture;
mod cli;
mod demo;
mod journey;
mod operations;
mod pod;
mod promises;
mod readme;
mod support;
