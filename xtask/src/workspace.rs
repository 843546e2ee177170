//! Where things are, and how cargo and other programs are called.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

/// What `cargo run` sets for this process and build scripts of dependencies watch: handed on, it would make cargo build
/// them again each time that a chore and a plain `cargo` take turns.
const SET_BY_CARGO_RUN: [&str; 5] =
    ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_CRATE_", "CARGO_BIN_", "CARGO_PRIMARY_PACKAGE"];

/// The repository and its build directory.
#[derive(Debug)]
pub struct Workspace {
    /// The repository.
    pub root: PathBuf,
    /// Cargo's build directory.
    pub target: PathBuf,
    /// Download nothing.
    pub offline: bool,
}

impl Workspace {
    /// Finds the repository that this program was built from.
    pub fn open(offline: bool) -> anyhow::Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies in the repository")?.to_owned();
        let mut workspace = Self { target: root.join("target"), root, offline };
        let metadata = workspace.metadata(&["--no-deps"])?;
        workspace.target =
            metadata["target_directory"].as_str().context("cargo metadata names target_directory")?.into();
        Ok(workspace)
    }

    /// A program run in the repository, free of what cargo set for this one.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.root).stdin(Stdio::null());
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| SET_BY_CARGO_RUN.iter().any(|prefix| name.starts_with(prefix))) {
                command.env_remove(name);
            }
        }
        command
    }

    /// The cargo that runs this program, with the committed Cargo.lock.
    pub fn cargo(&self, subcommand: &str) -> Command {
        let mut command = self.command(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.arg(subcommand);
        if subcommand != "fmt" {
            command.arg("--locked");
            command.args(self.offline.then_some("--offline"));
        }
        command
    }

    /// `cargo metadata`.
    pub fn metadata(&self, arguments: &[&str]) -> anyhow::Result<serde_json::Value> {
        let output = self
            .cargo("metadata")
            .args(["--format-version", "1"])
            .args(arguments)
            .stderr(Stdio::inherit())
            .output()
            .context("cannot run cargo metadata")?;
        if !output.status.success() {
            bail!("cargo metadata failed");
        }
        serde_json::from_slice(&output.stdout).context("cargo metadata is not JSON")
    }
}

/// Says what is run, as one could type it.
pub fn announce(command: &Command) {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let name = |word: &OsStr| word.to_string_lossy().into_owned();
    eprintln!("$ {}", words.map(name).collect::<Vec<_>>().join(" "));
}

/// Runs a command, its output on standard error; true if it ended well.
pub fn succeeds(command: &mut Command) -> anyhow::Result<bool> {
    announce(command);
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command.stdout(std::io::stderr()).status().with_context(|| format!("cannot run {program}"))?;
    Ok(status.success())
}

/// True if the program can be run with these arguments.
pub fn works(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
