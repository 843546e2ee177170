//! Everything from outside: the built binary, real sockets, a fake upstream.

mod admin;
mod architecture;
mod attacks;
mod catalogue;
mod cli;
mod clocks;
mod control;
mod demo;
mod journey;
mod operations;
mod pod;
mod promises;
mod readme;
mod support;
mod svids;
mod transparent;
