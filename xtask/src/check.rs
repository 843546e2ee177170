//! What must hold beside the tests.

use std::path::Path;
use std::process::Command;

use crate::deny;
use crate::workspace::{Workspace, succeeds};

/// Runs every check, also after one has failed, and says which did not hold.
pub fn run(workspace: &Workspace) -> anyhow::Result<bool> {
    let mut failed = Vec::new();
    let mut settle = |name: &'static str, holds: bool| {
        if !holds {
            failed.push(name);
        }
    };
    settle("formatting", succeeds(workspace.cargo("fmt").args(["--all", "--check"]))?);
    settle(
        "lints",
        succeeds(workspace.cargo("clippy").args(["--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"]))?,
    );
    let benches = workspace.root.join("benches/Cargo.toml");
    settle(
        "formatting of the benchmarks",
        succeeds(workspace.cargo("fmt").args(["--all", "--check", "--manifest-path"]).arg(&benches))?,
    );
    // Their lints would need a nightly compiler's build; what they try is a member of the workspace, and is linted with it.
    settle(
        "formatting of the fuzz targets",
        succeeds(
            workspace.cargo("fmt").args(["--check", "--manifest-path"]).arg(workspace.root.join("fuzz/Cargo.toml")),
        )?,
    );
    settle("lints of the benchmarks", succeeds(&mut lint_benchmarks(workspace, &benches))?);
    settle(
        "documentation",
        succeeds(
            workspace
                .cargo("doc")
                .args(["--workspace", "--no-deps", "--document-private-items", "--quiet"])
                .env("RUSTDOCFLAGS", "-Dwarnings"),
        )?,
    );
    settle("dependencies", deny::run(workspace)?);
    if failed.is_empty() {
        eprintln!("check: formatting, lints, documentation and dependencies hold");
    } else {
        eprintln!("check: FAILED: {}", failed.join(", "));
    }
    Ok(failed.is_empty())
}

/// Without hudsucker's program: what that library needs takes ten minutes to build.
fn lint_benchmarks(workspace: &Workspace, manifest: &Path) -> Command {
    let mut command = workspace.cargo("clippy");
    command.args(["--workspace", "--exclude", "hudsucker-peer", "--all-targets", "--quiet", "--manifest-path"]);
    command.arg(manifest).arg("--target-dir").arg(&workspace.target).args(["--", "-D", "warnings"]);
    command
}
