//! Faults on every side of a sidecar, and oracles after each: `cargo xtask faults` and `cargo xtask soak`.
//!
//! - `options`: what was asked for
//! - `runner`: rounds, seeds, counts
//! - `kinds`: the kinds of fault
//! - `scene`: one sidecar before one upstream, and what must hold of them at the end
//! - `client`: one request, and what became of it
//! - `upstream`: an upstream that breaks as a script says, and notes what reached it
//! - `soak`: minutes of mixed traffic
//!
//! Run by `cargo test` it is one short round, which has breaches planted too: an oracle that sees none of them fails.

mod client;
mod kinds;
mod options;
mod runner;
mod scene;
mod soak;
mod upstream;

#[path = "../it"]
mod it {
    #[allow(dead_code, unused_imports, reason = "the tests from outside use more of it")]
    pub mod support;
}
use it::support;

use std::process::ExitCode;

/// More than cores: cases wait for processes and files on them, and nobody's clock is to stand still meanwhile.
const WORKERS: usize = 12;

fn main() -> ExitCode {
    let options = match options::parse() {
        Ok(options) => options,
        Err(message) => {
            eprintln!("error: {message}");
            return ExitCode::from(2);
        }
    };
    // Panics of cases are reported with their case; those of connections that are meant to break are noise.
    std::panic::set_hook(Box::new(runner::note_panic));
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build().expect("a runtime");
    let all_well = match options.soak {
        Some(minutes) => runtime.block_on(soak::run(minutes, &options)),
        None => runtime.block_on(runner::run(&options)),
    };
    if all_well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
