//! The `valetkey` binary: hands over to [`valetkey::cli`].

use std::alloc::System;
use std::process::ExitCode;

use zeroizing_alloc::ZeroAlloc;

/// Wipes what is given back, so that no library's buffer leaves a credential behind in free memory.
#[global_allocator]
static WIPING: ZeroAlloc<System> = ZeroAlloc(System);

fn main() -> ExitCode {
    valetkey::cli::main()
}
