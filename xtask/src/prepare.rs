//! What the tests need: Debian packages where that is possible, Python and Node packages under the build directory.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::workspace::{Workspace, succeeds, works};

/// A program, how to ask whether it works, and the Debian package that has it.
const TOOLS: [(&str, &[&str], &str); 11] = [
    ("curl", &["--version"], "curl"),
    ("wget", &["--version"], "wget"),
    ("git", &["--version"], "git"),
    ("python3", &["-c", "import ensurepip, venv"], "python3-venv"),
    ("node", &["--version"], "nodejs"),
    ("npm", &["--version"], "npm"),
    // The tests of redirected connections make network namespaces.
    ("ip", &["-V"], "iproute2"),
    ("nft", &["--version"], "nftables"),
    ("iptables", &["--version"], "iptables"),
    // Makes what no library of ours makes: RSA keys, old signatures.
    ("openssl", &["version"], "openssl"),
    // Tries to attach to the sidecar.
    ("strace", &["--version"], "strace"),
];

/// Everything for the tests of Rust; what they are told of it goes into the command's environment.
pub fn for_rust(workspace: &Workspace, command: &mut Command) -> anyhow::Result<()> {
    tools(workspace)?;
    match faketime(workspace) {
        Ok(library) => _ = command.env("VALETKEY_FAKETIME", library),
        Err(reason) => eprintln!("warning: {reason:#}"),
    }
    Ok(())
}

/// Installs the Debian packages of missing tools, if this is Debian and we may; otherwise says what is missing.
pub fn tools(workspace: &Workspace) -> anyhow::Result<()> {
    let missing: Vec<_> =
        TOOLS.iter().filter(|(program, probe, _)| !works(program, probe)).map(|(.., package)| *package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    if workspace.offline || !is_root() || !works("apt-get", &["--version"]) {
        eprintln!("warning: missing, and not installed from here: {}", missing.join(", "));
        return Ok(());
    }
    let mut update = workspace.command("apt-get");
    let mut install = workspace.command("apt-get");
    install.args(["install", "--yes", "--quiet", "--no-install-recommends"]).args(&missing);
    install.env("DEBIAN_FRONTEND", "noninteractive");
    if !succeeds(update.args(["update", "--quiet"]))? || !succeeds(&mut install)? {
        eprintln!("warning: apt-get could not install {}", missing.join(", "));
    }
    Ok(())
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

/// A virtual environment with the packages of tests/clients/requirements.txt; gives its Python.
pub fn python(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    let wanted = workspace.root.join("tests/clients/requirements.txt");
    let venv = workspace.target.join("clients/venv");
    let python = venv.join("bin/python");
    // Written last: an installation that was interrupted is done again.
    let installed = venv.join("installed.txt");
    if python.exists() && same(&wanted, &installed)? {
        return Ok(python);
    }
    if workspace.offline {
        bail!("the Python packages are not installed, and --offline forbids it");
    }
    step(workspace.command("python3").args(["-m", "venv", "--clear"]).arg(&venv))?;
    step(
        workspace
            .command(&python)
            .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"])
            .arg(&wanted),
    )?;
    std::fs::copy(wanted, installed)?;
    Ok(python)
}

/// The programs of tests/clients/node beside their installed packages; gives their directory.
pub fn node(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    if !works("node", &["--version"]) || !works("npm", &["--version"]) {
        bail!("node and npm are not installed");
    }
    let source = workspace.root.join("tests/clients/node");
    let directory = workspace.target.join("clients/node");
    std::fs::create_dir_all(&directory)?;
    for entry in std::fs::read_dir(&source)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            std::fs::copy(entry.path(), directory.join(entry.file_name()))?;
        }
    }
    let wanted = source.join("package-lock.json");
    let installed = directory.join("node_modules/installed.json");
    if same(&wanted, &installed)? {
        return Ok(directory);
    }
    if workspace.offline {
        bail!("the Node packages are not installed, and --offline forbids it");
    }
    let mut install = workspace.command("npm");
    install.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel", "error"]).current_dir(&directory);
    step(&mut install)?;
    std::fs::copy(wanted, installed)?;
    Ok(directory)
}

/// libfaketime, which the tests of clocks that are set put under the sidecar: the system's, or Debian's package unpacked
/// under the build directory, for which nobody has to be root.
pub fn faketime(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    let directory = workspace.target.join("clients/faketime");
    let find = |root: &Path| {
        let libraries = root.read_dir().into_iter().flatten().flatten().map(|entry| entry.path());
        libraries.map(|path| path.join("faketime/libfaketimeMT.so.1")).find(|path| path.exists())
    };
    let unpacked = directory.join("unpacked/usr/lib");
    if let Some(library) = find(Path::new("/usr/lib")).or_else(|| find(&unpacked)) {
        return Ok(library);
    }
    if workspace.offline {
        bail!("libfaketime is not installed, and --offline forbids it");
    }
    if !works("apt-get", &["--version"]) || !works("dpkg", &["--version"]) {
        bail!("libfaketime is not installed, and this is no Debian to get it from");
    }
    std::fs::create_dir_all(&directory)?;
    let download = || {
        let mut download = workspace.command("apt-get");
        download.args(["download", "--quiet", "libfaketime"]).current_dir(&directory);
        step(&mut download)
    };
    if let Err(error) = download() {
        // A fresh machine has no lists of packages, and to get them one has to be root.
        let has_lists = is_root() && succeeds(workspace.command("apt-get").args(["update", "--quiet"]))?;
        if !has_lists {
            return Err(error);
        }
        download()?;
    }
    let is_package = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "deb");
    let package = directory.read_dir()?.flatten().map(|entry| entry.path()).find(is_package);
    step(workspace.command("dpkg").arg("-x").arg(package.context("no package came")?).arg(directory.join("unpacked")))?;
    find(&unpacked).context("the package has no libfaketimeMT.so.1")
}

fn step(command: &mut Command) -> anyhow::Result<()> {
    if !succeeds(command)? {
        bail!("{} failed", command.get_program().to_string_lossy());
    }
    Ok(())
}

/// True if the second file holds what the first one does.
fn same(wanted: &Path, installed: &Path) -> anyhow::Result<bool> {
    let wanted = std::fs::read(wanted).with_context(|| format!("cannot read {}", wanted.display()))?;
    Ok(std::fs::read(installed).is_ok_and(|installed| installed == wanted))
}

#[cfg(test)]
mod tests {
    const REQUIREMENTS: &str = include_str!("../../tests/clients/requirements.txt");
    const NODE_LOCK: &str = include_str!("../../tests/clients/node/package-lock.json");

    #[test]
    fn every_python_package_has_one_exact_version() {
        let lines = REQUIREMENTS.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        for line in lines {
            let (name, version) = line.split_once("==").unwrap_or_else(|| panic!("{line} names no exact version"));
            assert!(!name.is_empty() && version.starts_with(|letter: char| letter.is_ascii_digit()), "{line}");
        }
    }

    #[test]
    fn the_node_lock_names_hashes_and_no_registry() {
        let lock: serde_json::Value = serde_json::from_str(NODE_LOCK).expect("JSON");
        let packages = lock["packages"].as_object().expect("packages");
        assert!(packages.len() > 1);
        for (name, package) in packages.iter().filter(|(name, _)| !name.is_empty()) {
            assert!(package["integrity"].is_string(), "{name} has no hash");
            assert!(package.get("resolved").is_none(), "{name} names a registry; .npmrc should have kept it out");
        }
    }
}
