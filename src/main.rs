//! The `valetkey` binary: hands over to [`valetkey::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    valetkey::cli::main()
}
