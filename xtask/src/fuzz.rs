//! The fuzz targets, each for a while, with cargo-fuzz on a nightly compiler. Nothing is installed from here: what is missing
//! is said. A short run of the same properties on stable is a part of the Rust tests.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, bail};
use clap::Args;

use crate::workspace::{Workspace, announce, works};

/// What is asked.
#[derive(Debug, Args)]
pub struct Arguments {
    /// How long each target runs.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    seconds: u32,
    /// Run these targets alone; repeatable.
    #[arg(long, value_name = "TARGET")]
    only: Vec<String>,
    /// Add what was found to fuzz/corpus, as few and short inputs as reach as much.
    #[arg(long)]
    keep: bool,
}

/// Longest input, in bytes: what the short run on stable takes.
const INPUT_BYTES_MAX: u32 = 1024;

/// Runs the targets and prints what each came to; true if every property held.
pub fn run(workspace: &Workspace, arguments: &Arguments) -> anyhow::Result<bool> {
    check_tools()?;
    let targets = wanted(workspace, &arguments.only)?;
    // Builds all of them at once, with the committed fuzz/Cargo.lock.
    if !succeeds(&mut cargo_fuzz(workspace, "build"))? {
        bail!("the fuzz targets do not build");
    }
    let mut failed = Vec::new();
    for (index, target) in targets.iter().enumerate() {
        eprintln!("\n=== {target} ({} of {}) ===", index + 1, targets.len());
        if !fuzz(workspace, target, arguments)? {
            failed.push(target.as_str());
        }
    }
    eprintln!("\n{} targets held, {} did not{}", targets.len() - failed.len(), failed.len(), named(&failed));
    Ok(failed.is_empty())
}

fn named(failed: &[&str]) -> String {
    if failed.is_empty() { String::new() } else { format!(": {} (inputs in fuzz/artifacts)", failed.join(", ")) }
}

fn fuzz(workspace: &Workspace, target: &str, arguments: &Arguments) -> anyhow::Result<bool> {
    let kept = workspace.root.join("fuzz/corpus").join(target);
    // What is found is collected outside of the repository; it goes on from there the next time.
    let found = directory(workspace).join("corpus").join(target);
    std::fs::create_dir_all(&found).with_context(|| format!("cannot make {}", found.display()))?;
    let mut run = cargo_fuzz(workspace, "run");
    run.arg(target).arg(&found).arg(&kept).arg("--");
    run.arg(format!("-max_total_time={}", arguments.seconds)).arg(format!("-max_len={INPUT_BYTES_MAX}"));
    run.args(["-timeout=10", "-rss_limit_mb=4096", "-print_final_stats=1", "-verbosity=0"]);
    let holds = succeeds(&mut run)?;
    if holds && arguments.keep {
        let mut merge = cargo_fuzz(workspace, "run");
        merge.arg(target).arg(&kept).arg(&found);
        merge.args(["--", "-merge=1", "-verbosity=0"]).arg(format!("-max_len={INPUT_BYTES_MAX}"));
        return succeeds(&mut merge);
    }
    Ok(holds)
}

/// `cargo fuzz` with its own build directory. Without a sanitizer: there is no unsafe code here to watch, and it is faster.
fn cargo_fuzz(workspace: &Workspace, subcommand: &str) -> Command {
    let mut command = workspace.command("cargo");
    // This program may have been started by a cargo of another toolchain.
    for name in ["RUSTUP_TOOLCHAIN", "RUSTC", "RUSTDOC", "CARGO"] {
        command.env_remove(name);
    }
    command.args(["+nightly", "fuzz", subcommand, "--sanitizer", "none"]);
    command.arg("--target-dir").arg(directory(workspace));
    command
}

fn directory(workspace: &Workspace) -> PathBuf {
    workspace.target.join("fuzz")
}

fn succeeds(command: &mut Command) -> anyhow::Result<bool> {
    announce(command);
    Ok(command.status().context("cannot run cargo")?.success())
}

fn check_tools() -> anyhow::Result<()> {
    if !works("cargo", &["+nightly", "--version"]) {
        bail!("a nightly compiler is needed: rustup toolchain install nightly");
    }
    if !works("cargo", &["+nightly", "fuzz", "--version"]) {
        bail!("cargo-fuzz is needed: cargo install cargo-fuzz --locked");
    }
    Ok(())
}

/// The targets that were asked for, all where none was.
fn wanted(workspace: &Workspace, only: &[String]) -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(workspace.root.join("fuzz/fuzz_targets")).context("fuzz/fuzz_targets")? {
        let path = entry?.path();
        names.extend(path.file_stem().map(|name| name.to_string_lossy().into_owned()));
    }
    names.sort();
    if let Some(unknown) = only.iter().find(|name| !names.contains(name)) {
        bail!("there is no target {unknown}; there are {}", names.join(", "));
    }
    names.retain(|name| only.is_empty() || only.contains(name));
    Ok(names)
}
