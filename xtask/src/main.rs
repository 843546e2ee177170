//! The project's chores: `cargo xtask test`, `cargo xtask check`.

fn main() {}
