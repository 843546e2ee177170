//! Everything from outside: the built binary, real sockets, a fake upstream.

mod architecture;
mod attacks;
mod cli;
mod demo;
mod journey;
mod pod;
mod promises;
mod readme;
mod support;
