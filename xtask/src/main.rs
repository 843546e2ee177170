//! The project's chores: `cargo xtask test`, `attack`, `faults`, `soak`, `fuzz`, `mutants`, `check`, `deny` and `bench`.

mod attack;
mod bench;
mod check;
mod counts;
mod deny;
mod faults;
mod fuzz;
mod mutants;
mod prepare;
mod suites;
mod tee;
mod verdicts;
mod workspace;

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use suites::Suite;
use workspace::Workspace;

/// The project's chores.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Debug, Subcommand)]
enum Chore {
    /// Install what the tests need and run all of them; the last line is `N passed, N failed, N skipped`.
    Test(TestArguments),
    /// Attack the built binary as the catalogue in tests/attacks says, and print which of its rows hold.
    Attack(attack::Arguments),
    /// Measure the sidecar beside a floor and its peers, and print medians and ratios.
    Bench(bench::Arguments),
    /// Break everything around the sidecar, again and again, and look for leaks, lost records, second sends and hangs.
    Faults(faults::Faults),
    /// Minutes of mixed traffic with some faults: errors, growth of memory and descriptors.
    Soak(faults::Soak),
    /// Try the properties of parsers and scrubber on inputs that nobody thought of, each for a while.
    Fuzz(fuzz::Arguments),
    /// Try whether the tests of a subject catch small defects of it. Takes hours.
    Mutants(mutants::Arguments),
    /// Formatting, lints, documentation, and the licences, bans and sources of the dependencies.
    Check(Network),
    /// The licences, bans and sources of the dependencies, as deny.toml has them.
    Deny(Network),
}

#[derive(Debug, Args)]
struct TestArguments {
    /// Run these suites alone; repeatable.
    #[arg(long, value_enum, value_name = "SUITE")]
    only: Vec<Suite>,
    /// Print the summary as one JSON object on standard output, and everything else on standard error.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    network: Network,
}

#[derive(Debug, Args)]
struct Network {
    /// Download and install nothing; what is missing is skipped, and said.
    #[arg(long)]
    offline: bool,
}

fn main() -> ExitCode {
    match run(&Cli::parse().chore) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(chore: &Chore) -> anyhow::Result<ExitCode> {
    let all_well = match chore {
        Chore::Test(arguments) => {
            let workspace = Workspace::open(arguments.network.offline)?;
            suites::run(&workspace, &arguments.only, arguments.json)?
        }
        Chore::Attack(arguments) => attack::run(&Workspace::open(arguments.is_offline())?, arguments)?,
        Chore::Bench(arguments) => bench::run(&Workspace::open(false)?, arguments)?,
        Chore::Faults(arguments) => faults::run(&Workspace::open(false)?, arguments)?,
        Chore::Soak(arguments) => faults::soak(&Workspace::open(false)?, arguments)?,
        Chore::Fuzz(arguments) => fuzz::run(&Workspace::open(true)?, arguments)?,
        Chore::Mutants(arguments) => mutants::run(&Workspace::open(true)?, arguments)?,
        Chore::Check(network) => check::run(&Workspace::open(network.offline)?)?,
        Chore::Deny(network) => deny::run(&Workspace::open(network.offline)?)?,
    };
    Ok(if all_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
