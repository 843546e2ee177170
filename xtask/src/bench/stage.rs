//! The origins, the proxies under test, and the load generator, each on its core.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::json;

use super::Outcome;
use super::peers::{self, Peer, Place};
use super::scenarios::Scenario;
use crate::workspace::{Workspace, succeeds, works};

/// How long anything may take to be ready.
const READY_MAX: Duration = Duration::from_secs(30);
/// How much longer than planned a run may take.
const GRACE: Duration = Duration::from_secs(60);
/// After its start a proxy rests for so long before its memory counts as idle.
const REST: Duration = Duration::from_millis(300);

/// What is put on the stage, and how.
pub struct Options {
    /// Another binary of the sidecar than the one that is built.
    pub binary: Option<PathBuf>,
    /// A second binary of the sidecar, called `before`.
    pub before: Option<PathBuf>,
    /// Each process on its core.
    pub is_pinned: bool,
    /// Peers besides the sidecar and the floor; empty is all.
    pub peers: Vec<String>,
}

/// Who is measured.
pub struct Runner {
    pub name: String,
    /// What it is, for the report.
    pub version: String,
    proxy: Option<Proxy>,
}

impl Runner {
    /// Resident memory a moment after the start, in KiB, where there is a proxy.
    pub fn idle_rss_kib(&self) -> Option<u64> {
        self.proxy.as_ref().map(|proxy| proxy.idle_rss_kib)
    }
}

/// A proxy that runs.
struct Proxy {
    peer: Peer,
    place: Place,
    listen: SocketAddr,
    bearer: String,
    process: Killed,
    idle_rss_kib: u64,
}

/// A process that ends with this.
pub struct Killed(pub Child);

impl Killed {
    fn end(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        self.end();
    }
}

/// Everything that is needed to measure.
pub struct Stage {
    load: PathBuf,
    place: Place,
    options: Options,
    origins: Vec<(SocketAddr, Killed)>,
    runners: Vec<Runner>,
    /// Proxies that could not be had, and why.
    pub missing: Vec<(String, String)>,
    cores: Option<(String, String)>,
}

impl Stage {
    /// Builds what is measured and what measures it.
    pub fn build(workspace: &Workspace, options: Options) -> anyhow::Result<Self> {
        let binary = match &options.binary {
            Some(binary) => std::path::absolute(binary)?,
            None => {
                ensure!(succeeds(workspace.cargo("build").arg("--release"))?, "the sidecar does not build");
                workspace.target.join("release/valetkey")
            }
        };
        let target = workspace.target.join("benches");
        let mut build = workspace.cargo("build");
        build.args(["--release", "--package", "floor", "--package", "load"]);
        build.arg("--manifest-path").arg(workspace.root.join("benches/Cargo.toml")).arg("--target-dir").arg(&target);
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
        let cores = cores().filter(|_| options.is_pinned);
        let (origins, runners, missing) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Self { load: programs.join("load"), place, options, origins, runners, missing, cores })
    }

    /// Starts the origins and every proxy that can be had.
    pub fn start(&mut self) -> anyhow::Result<()> {
        self.place.origin = self.start_origin("origin.pem", "h1")?;
        self.place.origin_h2 = self.start_origin("origin-h2.pem", "h2")?;
        self.runners.push(Runner { name: "direct".to_owned(), version: "no proxy".to_owned(), proxy: None });
        for peer in peers::all() {
            let is_ours = matches!(peer.name, "valetkey" | "floor");
            let wanted = &self.options.peers;
            if !is_ours && !wanted.is_empty() && !wanted.iter().any(|name| name == peer.name) {
                continue;
            }
            let place = self.place.clone();
            match self.prepare(peer.name, peer, place) {
                Ok(runner) => self.runners.push(runner),
                Err((name, error)) if is_ours => return Err(error.context(name)),
                Err((name, error)) => {
                    eprintln!("{name} is missing: {error:#}");
                    self.missing.push((name, format!("{error:#}")));
                }
            }
        }
        self.start_before()
    }

    /// A second binary of the sidecar, in a directory of its own.
    fn start_before(&mut self) -> anyhow::Result<()> {
        let Some(binary) = &self.options.before else { return Ok(()) };
        let mut place = self.place.clone();
        place.binary = std::path::absolute(binary)?;
        place.directory = self.place.directory.join("before");
        std::fs::create_dir_all(&place.directory)?;
        for ca in ["origin.pem", "origin-h2.pem"] {
            std::fs::copy(self.place.directory.join(ca), place.directory.join(ca))?;
        }
        let runner = self.prepare("before", peers::sidecar(), place).map_err(|(_, error)| error)?;
        self.runners.push(runner);
        Ok(())
    }

    fn start_origin(&mut self, ca: &str, protocol: &str) -> anyhow::Result<SocketAddr> {
        let address = free_port()?;
        let mut command = self.pinned(false, &self.load);
        command.args(["origin", &address.to_string()]).arg(self.place.directory.join(ca)).arg(&self.place.key);
        let process = Killed(command.arg(protocol).spawn().context("the origin")?);
        wait_for(address)?;
        self.origins.push((address, process));
        Ok(address)
    }

    fn prepare(&self, name: &str, peer: Peer, place: Place) -> Result<Runner, (String, anyhow::Error)> {
        let started = (peer.prepare)(&place).and_then(|version| Ok((version, self.start_proxy(peer, place)?)));
        let (version, proxy) = started.map_err(|error| (name.to_owned(), error))?;
        Ok(Runner { name: name.to_owned(), version, proxy: Some(proxy) })
    }

    /// A peer's command at an address, on the proxies' core.
    fn command(&self, peer: &Peer, place: &Place, listen: SocketAddr) -> anyhow::Result<Command> {
        let prepared = (peer.command)(place, listen)?;
        let mut command = self.pinned(true, Path::new(prepared.get_program()));
        command.args(prepared.get_args()).current_dir(&place.directory);
        for (name, value) in prepared.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        Ok(command)
    }

    fn start_proxy(&self, peer: Peer, place: Place) -> anyhow::Result<Proxy> {
        let listen = free_port()?;
        let log_file = place.directory.join(format!("{}.log", peer.name));
        let log = std::fs::File::create(&log_file)?;
        let mut command = self.command(&peer, &place, listen)?;
        let child = command.stdout(log.try_clone()?).stderr(log).spawn().with_context(|| peer.name.to_owned())?;
        let process = Killed(child);
        wait_for(listen).with_context(|| last_lines(&log_file))?;
        let bearer = (peer.bearer)(&place)?;
        std::thread::sleep(REST);
        let idle_rss_kib = rss_kib(process.0.id());
        Ok(Proxy { peer, place, listen, bearer, process, idle_rss_kib })
    }

    /// Who is measured.
    pub fn runners(&self) -> &[Runner] {
        &self.runners
    }

    /// The sidecar's binary.
    pub fn binary(&self) -> &Path {
        &self.place.binary
    }

    /// Which cores are used, for the report.
    pub fn cores(&self) -> String {
        match &self.cores {
            Some((proxy, others)) => format!("the proxy on core {proxy}, origins and load generator on core {others}"),
            None => "nothing is pinned".to_owned(),
        }
    }

    /// One load through one runner.
    pub fn measure(&mut self, load: &Scenario, at: usize, seconds: f64) -> anyhow::Result<Outcome> {
        if load.is_fresh || load.is_start() {
            self.end(at);
        }
        if load.is_fresh {
            self.start_again(at)?;
        }
        if load.shares_core {
            self.move_origins(true)?;
        }
        let outcome = self.run(load, at, seconds);
        if load.shares_core {
            self.move_origins(false)?;
        }
        if load.is_start() {
            self.start_again(at)?;
        }
        outcome
    }

    fn end(&mut self, at: usize) {
        if let Some(proxy) = &mut self.runners[at].proxy {
            proxy.process.end();
        }
    }

    fn start_again(&mut self, at: usize) -> anyhow::Result<()> {
        let Some(old) = self.runners[at].proxy.take() else { return Ok(()) };
        let idle = old.idle_rss_kib;
        let Proxy { peer, place, .. } = old;
        // The first start's memory stays what counts as idle: nothing was warm then.
        self.runners[at].proxy = Some(Proxy { idle_rss_kib: idle, ..self.start_proxy(peer, place)? });
        Ok(())
    }

    fn run(&self, load: &Scenario, at: usize, seconds: f64) -> anyhow::Result<Outcome> {
        let mut plan = load.plan(seconds);
        plan["origin"] = json!(if load.is_h2() { self.place.origin_h2 } else { self.place.origin });
        plan["origin_pids"] = json!(self.origins.iter().map(|(_, process)| process.0.id()).collect::<Vec<_>>());
        plan["ca"] = json!(self.place.directory.join(if load.is_h2() { "origin-h2.pem" } else { "origin.pem" }));
        plan["bearer"] = json!(self.place.key);
        let mut command = self.pinned(load.shares_core, &self.load);
        if let Some(proxy) = &self.runners[at].proxy {
            plan["proxy"] = json!(proxy.listen);
            plan["pid"] = json!(proxy.process.0.id());
            plan["ca"] = json!(proxy.place.directory.join(proxy.peer.ca));
            plan["bearer"] = json!(proxy.bearer);
            if let Some(body) = proxy.peer.mint {
                plan["mint"] = json!({ "socket": proxy.place.directory.join("control.sock"), "body": body });
            }
            if load.is_start() {
                let start = self.command(&proxy.peer, &proxy.place, proxy.listen)?;
                plan["start"] = json!({
                    "command": words(&start),
                    "directory": proxy.place.directory,
                    "log": proxy.place.directory.join("first.log"),
                });
                plan["pid"] = json!(null);
                command.envs(start.get_envs().filter_map(|(name, value)| Some((name, value?))));
            }
        }
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

    /// What the nonce store's own figures are; see `benches/micro`.
    pub fn nonces(&self, workspace: &Workspace) -> anyhow::Result<serde_json::Value> {
        let mut command = workspace.cargo("run");
        command.args(["--release", "--quiet", "--package", "micro", "--bin", "nonces", "--manifest-path"]);
        command.arg(workspace.root.join("benches/Cargo.toml")).arg("--target-dir");
        command.arg(workspace.target.join("benches")).stderr(Stdio::inherit());
        let output = command.output()?;
        ensure!(output.status.success(), "the nonce store's benchmark failed");
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// Onto the proxy's core, or back to their own.
    fn move_origins(&self, is_to_proxy: bool) -> anyhow::Result<()> {
        let Some((proxy, others)) = &self.cores else { return Ok(()) };
        for (_, process) in &self.origins {
            let mut command = Command::new("taskset");
            command.args(["--all-tasks", "--cpu-list", "--pid", if is_to_proxy { proxy } else { others }]);
            let status = command.arg(process.0.id().to_string()).stdout(Stdio::null()).status()?;
            ensure!(status.success(), "taskset cannot move an origin");
        }
        Ok(())
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

fn words(command: &Command) -> Vec<String> {
    let text = |word: &std::ffi::OsStr| word.to_string_lossy().into_owned();
    std::iter::once(text(command.get_program())).chain(command.get_args().map(text)).collect()
}

fn last_lines(file: &Path) -> String {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines().rev().take(5).collect::<Vec<_>>().join(" | ")
}

/// Resident memory, in KiB.
fn rss_kib(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or_default()
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
