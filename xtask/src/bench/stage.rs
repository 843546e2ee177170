//! The origin, the proxies under test, and the load generator, each on its core.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::json;

use super::peers::{self, Peer};
use super::scenarios::Scenario;
use super::{Outcome, peers::Place};
use crate::workspace::{Workspace, succeeds, works};

/// How long anything may take to be ready.
const READY_MAX: Duration = Duration::from_secs(30);
/// How much longer than planned a run may take.
const GRACE: Duration = Duration::from_secs(60);

/// Who is measured.
pub struct Runner {
    pub name: String,
    /// What it is, for the report.
    pub version: String,
    pub start: Option<Duration>,
    proxy: Option<SocketAddr>,
    ca: PathBuf,
    bearer: String,
    pid: Option<u32>,
    _process: Option<Killed>,
}

/// A process that ends with this.
pub struct Killed(pub Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Everything that is needed to measure.
pub struct Stage {
    load: PathBuf,
    place: Place,
    origins: Vec<(SocketAddr, Killed)>,
    runners: Vec<Runner>,
    /// Proxies that could not be had, and why.
    pub missing: Vec<(String, String)>,
    cores: Option<(String, String)>,
}

impl Stage {
    /// Builds what is measured and what measures it.
    pub fn build(workspace: &Workspace, binary: Option<PathBuf>) -> anyhow::Result<Self> {
        let binary = match binary {
            Some(binary) => std::path::absolute(binary)?,
            None => {
                ensure!(succeeds(workspace.cargo("build").arg("--release"))?, "the sidecar does not build");
                workspace.target.join("release/valetkey")
            }
        };
        let target = workspace.target.join("benches");
        let mut build = workspace.cargo("build");
        build.args(["--release", "--package", "floor", "--package", "load", "--manifest-path"]).arg(workspace.root.join("benches/Cargo.toml"));
        build.arg("--target-dir").arg(&target);
        ensure!(succeeds(&mut build)?, "the benchmarks' programs do not build");
        let directory = workspace.target.join("bench-stage");
        if directory.exists() {
            std::fs::remove_dir_all(&directory)?;
        }
        std::fs::create_dir_all(&directory)?;
        let programs = target.join("release");
        let place = Place {
            root: workspace.root.clone(),
            directory,
            binary,
            floor: programs.join("floor"),
            hudsucker: programs.join("hudsucker-peer"),
            venv: workspace.target.join("clients/bench-venv"),
            key: "sk_bench_0123456789abcdefghijklmnopqrstuv".to_owned(),
            nonce: "an_bench0000000000000000000000000000000".to_owned(),
            origin: "127.0.0.1:0".parse()?,
            origin_h2: "127.0.0.1:0".parse()?,
            offline: workspace.offline,
        };
        Ok(Self {
            load: programs.join("load"),
            place,
            origins: Vec::new(),
            runners: Vec::new(),
            missing: Vec::new(),
            cores: cores(),
        })
    }

    /// Starts the origin and every proxy that can be had.
    pub fn start(&mut self, wanted: &[String]) -> anyhow::Result<()> {
        self.place.origin = self.start_origin()?;
        self.runners.push(Runner {
            name: "direct".to_owned(),
            version: "no proxy".to_owned(),
            start: None,
            proxy: None,
            ca: self.place.directory.join("origin.pem"),
            bearer: self.place.key.clone(),
            pid: None,
            _process: None,
        });
        for peer in peers::all() {
            let is_ours = matches!(peer.name, "valetkey" | "floor");
            if !is_ours && !wanted.is_empty() && !wanted.iter().any(|name| name == peer.name) {
                continue;
            }
            match self.start_peer(&peer) {
                Ok(runner) => self.runners.push(runner),
                Err(error) if is_ours => return Err(error.context(peer.name)),
                Err(error) => {
                    eprintln!("{} is missing: {error:#}", peer.name);
                    self.missing.push((peer.name.to_owned(), format!("{error:#}")));
                }
            }
        }
        Ok(())
    }

    fn start_origin(&mut self) -> anyhow::Result<SocketAddr> {
        let address = free_port()?;
        let mut command = self.pinned(false, &self.load);
        command
            .args(["origin", &address.to_string()])
            .arg(self.place.directory.join("origin.pem"))
            .arg(&self.place.key)
            .arg("h2");
        let process = Killed(command.spawn().context("the origin")?);
        wait_for(address)?;
        self.origins.push((address, process));
        Ok(address)
    }

    fn start_peer(&self, peer: &Peer) -> anyhow::Result<Runner> {
        let version = (peer.prepare)(&self.place)?;
        let listen = free_port()?;
        let prepared = (peer.command)(&self.place, listen)?;
        let mut command = self.pinned(true, Path::new(prepared.get_program()));
        command.args(prepared.get_args()).current_dir(&self.place.directory);
        for (name, value) in prepared.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let log = std::fs::File::create(self.place.directory.join(format!("{}.log", peer.name)))?;
        let begun = Instant::now();
        let process =
            Killed(command.stdout(log.try_clone()?).stderr(log).spawn().with_context(|| peer.name.to_owned())?);
        wait_for(listen).with_context(|| self.log_of(peer.name))?;
        let start = begun.elapsed();
        let bearer = (peer.bearer)(&self.place)?;
        let pid = Some(process.0.id());
        let ca = self.place.directory.join(peer.ca);
        Ok(Runner {
            name: peer.name.to_owned(),
            version,
            start: Some(start),
            proxy: Some(listen),
            ca,
            bearer,
            pid,
            _process: Some(process),
        })
    }

    fn log_of(&self, name: &str) -> String {
        let text = std::fs::read_to_string(self.place.directory.join(format!("{name}.log"))).unwrap_or_default();
        text.lines().rev().take(5).collect::<Vec<_>>().join(" | ")
    }

    /// Who is measured.
    pub fn runners(&self) -> &[Runner] {
        &self.runners
    }

    /// Which cores are used, for the report.
    pub fn cores(&self) -> String {
        match &self.cores {
            Some((proxy, others)) => format!("the proxy on core {proxy}, origin and load generator on core {others}"),
            None => "not pinned: taskset or a second core is missing".to_owned(),
        }
    }

    /// One load through one runner.
    pub fn measure(&self, load: &Scenario, at: usize, seconds: f64) -> anyhow::Result<Outcome> {
        let runner = &self.runners[at];
        let mut plan = load.plan(seconds);
        plan["proxy"] = json!(runner.proxy);
        plan["origin"] = json!(self.place.origin);
        plan["ca"] = json!(runner.ca);
        plan["bearer"] = json!(runner.bearer);
        plan["pid"] = json!(runner.pid);
        let mut command = self.pinned(false, &self.load);
        let child = command.arg("run").arg(plan.to_string()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let output = finish(child, Duration::from_secs_f64(seconds * load.stretch) + GRACE)?;
        if !output.status.success() {
            bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
        }
        let outcome: Outcome = serde_json::from_slice(&output.stdout)?;
        if outcome.errors > 0 {
            eprintln!("{}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(outcome)
    }

    fn pinned(&self, is_proxy: bool, program: &Path) -> Command {
        let mut command = match &self.cores {
            Some((proxy, others)) => {
                let mut command = Command::new("taskset");
                command.args(["--cpu-list", if is_proxy { proxy } else { others }]).arg(program);
                command
            }
            None => Command::new(program),
        };
        command.stdin(Stdio::null());
        command
    }
}

/// The last two cores that we may use, if there are two.
fn cores() -> Option<(String, String)> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?.trim().to_owned();
    let mut all = Vec::new();
    for part in list.split(',') {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        all.extend(from.parse::<usize>().ok()?..=to.parse::<usize>().ok()?);
    }
    let others = all.pop()?;
    let proxy = all.pop()?;
    works("taskset", &["--version"]).then(|| (proxy.to_string(), others.to_string()))
}

fn free_port() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

fn wait_for(address: SocketAddr) -> anyhow::Result<()> {
    let begun = Instant::now();
    while std::net::TcpStream::connect(address).is_err() {
        if begun.elapsed() > READY_MAX {
            bail!("nobody listens on {address}");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// Waits for a child's end within the time; its output is small enough for the pipes.
fn finish(mut child: Child, limit: Duration) -> anyhow::Result<std::process::Output> {
    let begun = Instant::now();
    while child.try_wait()?.is_none() {
        if begun.elapsed() > limit {
            child.kill()?;
            child.wait()?;
            bail!("it did not end within {limit:?}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(child.wait_with_output()?)
}
