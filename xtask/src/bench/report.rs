//! Medians, ratios and tables.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::Command;

use super::goals::{self, Goal, Own};
use super::plot::{self, spell};
use super::scenarios::{Figure, Scenario};
use super::stage::Stage;
use super::{Outcome, Results};
use crate::workspace::Workspace;

/// By load.
pub type Medians = BTreeMap<String, Load>;

/// The medians of one load, by runner.
#[derive(Debug, Clone, Default)]
pub struct Load(BTreeMap<String, Median>);

/// The medians of one runner's runs of a load.
#[derive(Debug, Clone, Copy)]
pub struct Median {
    pub rate: f64,
    pub bytes_per_second: f64,
    /// Microseconds.
    pub p50: f64,
    pub p99: f64,
    pub p999: f64,
    /// Microseconds of the proxy's CPU a request.
    pub cpu_each: f64,
    /// The same a megabyte of bodies.
    pub cpu_each_megabyte: f64,
    /// What resident memory grew by at most, in KiB.
    pub rss_growth_kib: f64,
    pub rss_each_kib: f64,
    pub rss_peak_kib: f64,
}

impl Median {
    fn of(runs: &[Outcome]) -> Self {
        let pick = |figure: fn(&Outcome) -> f64| median(runs.iter().map(figure).collect());
        let growth = |run: &Outcome| run.rss_kib.1.saturating_sub(run.rss_kib.0) as f64;
        Self {
            rate: pick(|run| run.rate),
            bytes_per_second: pick(|run| run.bytes_per_second),
            p50: pick(|run| run.latency.p50),
            p99: pick(|run| run.latency.p99),
            p999: pick(|run| run.latency.p999),
            cpu_each: pick(cpu_each),
            cpu_each_megabyte: pick(cpu_each_megabyte),
            rss_growth_kib: median(runs.iter().map(growth).collect()),
            rss_each_kib: median(runs.iter().map(|run| growth(run) / run.requests.max(1) as f64).collect()),
            rss_peak_kib: pick(|run| run.rss_kib.1 as f64),
        }
    }
}

impl Load {
    /// A runner's medians.
    pub fn of(&self, name: &str) -> Option<&Median> {
        self.0.get(name)
    }

    /// A runner's figure of this kind.
    pub fn figure(&self, name: &str, figure: Figure) -> Option<f64> {
        let own = self.of(name)?;
        Some(match figure {
            Figure::Rate => own.rate,
            Figure::Throughput => own.bytes_per_second / 1e6,
            Figure::AddedMedian => own.p50 - self.of("direct")?.p50,
            Figure::Tail => own.p99,
            Figure::Memory => own.rss_each_kib,
            Figure::Start => own.p50 / 1000.0,
        })
    }

    fn ratio(&self, of: impl Fn(&str) -> Option<f64>) -> String {
        of("valetkey").zip(of("floor")).map_or("–".to_owned(), |(own, floor)| format!("{:.2}", own / floor))
    }
}

fn unit(figure: Figure) -> &'static str {
    match figure {
        Figure::Rate => "requests/s",
        Figure::Throughput => "MB/s",
        Figure::AddedMedian => "µs added to the median",
        Figure::Tail => "µs, 99th percentile",
        Figure::Memory => "KiB each",
        Figure::Start => "ms",
    }
}

fn cpu_each(outcome: &Outcome) -> f64 {
    if outcome.requests == 0 { 0.0 } else { outcome.cpu_seconds * 1e6 / outcome.requests as f64 }
}

/// Microseconds for a megabyte of bodies.
fn cpu_each_megabyte(outcome: &Outcome) -> f64 {
    let megabytes = outcome.bytes_per_second * outcome.seconds / 1e6;
    if megabytes > 0.0 { outcome.cpu_seconds * 1e6 / megabytes } else { 0.0 }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

/// One run, while it goes on.
pub fn line(round: usize, rounds: usize, load: &str, name: &str, outcome: &Outcome) -> String {
    format!(
        "{round}/{rounds} {load:<12}{name:<11}{:>9.0}/s {:>8.1} MB/s  p50 {:>8.0} µs  p99 {:>8.0} µs  {:>6.1} µs CPU each  {} errors, others used {:.2} s",
        outcome.rate,
        outcome.bytes_per_second / 1e6,
        outcome.latency.p50,
        outcome.latency.p99,
        cpu_each(outcome),
        outcome.errors,
        outcome.other_cpu_seconds,
    )
}

/// Everything that is said of a run.
pub struct Report<'a> {
    loads: &'a [Scenario],
    stage: &'a Stage,
    results: &'a Results,
    medians: Medians,
    own: Own,
}

impl<'a> Report<'a> {
    pub fn new(
        results: &'a Results,
        loads: &'a [Scenario],
        stage: &'a Stage,
        nonces: Option<serde_json::Value>,
    ) -> Self {
        let of = |by: &BTreeMap<String, Vec<Outcome>>| {
            Load(by.iter().map(|(name, runs)| (name.clone(), Median::of(runs))).collect())
        };
        let medians = results.iter().map(|(load, by)| (load.clone(), of(by))).collect();
        let sidecar = stage.runners().iter().find(|runner| runner.name == "valetkey");
        let own = Own {
            idle_mib: sidecar.and_then(super::stage::Runner::idle_rss_kib).map(|kib| kib as f64 / 1024.0),
            binary_mb: std::fs::metadata(stage.binary()).ok().map(|file| file.len() as f64 / 1e6),
            nonces,
        };
        Self { loads, stage, results, medians, own }
    }

    /// For the terminal.
    pub fn text(&self) -> String {
        format!("{}\n{}", self.table(), self.goals())
    }

    fn measured(&self) -> impl Iterator<Item = (&'a Scenario, &Load)> {
        self.loads.iter().filter_map(|load| Some((load, self.medians.get(load.name)?)))
    }

    fn names(&self) -> Vec<&'a str> {
        self.stage.runners().iter().map(|runner| runner.name.as_str()).collect()
    }

    /// Each runner's figure of each load, and its ratio to the floor's.
    fn table(&self) -> String {
        let names = self.names();
        let mut text =
            format!("| load | unit | {} | sidecar / floor | CPU / floor's |\n| --- | --- |", names.join(" | "));
        text += &" ---: |".repeat(names.len() + 2);
        text.push('\n');
        for (load, by) in self.measured() {
            let _ = write!(text, "| {} | {} |", load.title, unit(load.figure));
            for name in &names {
                let value = by.figure(name, load.figure).map_or("–".to_owned(), spell);
                let _ = write!(text, " {value} |");
            }
            let ratio = by.ratio(|name| by.figure(name, load.figure));
            let cpu = |own: &Median| match load.figure {
                Figure::Throughput => own.cpu_each_megabyte,
                _ => own.cpu_each,
            };
            let cpu = by.ratio(|name| by.of(name).map(cpu).filter(|each| *each > 0.0));
            let _ = writeln!(text, " **{ratio}** | {cpu} |");
        }
        text
    }

    /// Latencies, CPU and memory behind the figures that count.
    fn details(&self) -> String {
        let mut text = "| load | who | requests/s | p50 µs | p99 µs | p99.9 µs | CPU µs each | CPU µs a MB | peak RSS MiB | lowest to highest rate | errors |\n| --- | --- |".to_owned();
        text += &" ---: |".repeat(9);
        text.push('\n');
        for (load, by) in self.measured() {
            for name in self.names() {
                let (Some(own), Some(runs)) = (by.of(name), self.results.get(load.name).and_then(|by| by.get(name)))
                else {
                    continue;
                };
                let rates = || runs.iter().map(|run| run.rate);
                let _ = writeln!(
                    text,
                    "| {} | {name} | {} | {} | {} | {} | {} | {} | {} | {} to {} | {} |",
                    load.name,
                    spell(own.rate),
                    spell(own.p50),
                    spell(own.p99),
                    spell(own.p999),
                    spell(own.cpu_each),
                    spell(own.cpu_each_megabyte),
                    spell(own.rss_peak_kib / 1024.0),
                    spell(rates().fold(f64::INFINITY, f64::min)),
                    spell(rates().fold(0.0, f64::max)),
                    runs.iter().map(|run| run.errors).sum::<u64>(),
                );
            }
        }
        text
    }

    /// Goals, met and missed.
    fn goals(&self) -> String {
        let mut text = "| goal | wanted | found | |\n| --- | --- | ---: | --- |\n".to_owned();
        for Goal { what, wanted, found, is_met } in goals::all(&self.medians, &self.own) {
            let (found, verdict) = match found {
                None => ("–".to_owned(), "not measured"),
                Some(found) if is_met => (spell(found), "met"),
                Some(found) => (spell(found), "**missed**"),
            };
            let _ = writeln!(text, "| {what} | {wanted} | {found} | {verdict} |");
        }
        text
    }

    fn who(&self) -> String {
        let mut text = "| who | version | idle RSS |\n| --- | --- | ---: |\n".to_owned();
        for runner in self.stage.runners() {
            let idle = runner.idle_rss_kib().map_or("–".to_owned(), |kib| format!("{:.1} MiB", kib as f64 / 1024.0));
            let _ = writeln!(text, "| {} | {} | {idle} |", runner.name, runner.version);
        }
        for (name, why) in &self.stage.missing {
            let _ = writeln!(text, "| {name} | **missing**: {} | – |", why.lines().next().unwrap_or_default());
        }
        for load in self.loads {
            for runner in self.stage.runners().iter().filter(|runner| runner.name != "direct") {
                if let Some(why) = load.excludes(&runner.name).filter(|_| load.name != "mint") {
                    let _ = writeln!(text, "\n{} has no part in *{}*: {why}.", runner.name, load.title);
                }
            }
        }
        text
    }

    /// Writes docs/PERFORMANCE.md and one plot for each load.
    pub fn write(&self, workspace: &Workspace) -> anyhow::Result<()> {
        let plots = workspace.root.join("docs/performance");
        std::fs::create_dir_all(&plots)?;
        let mut pictures = String::new();
        for (load, by) in self.measured() {
            let names = self.names().into_iter();
            let bars: Vec<_> = names.filter_map(|name| Some((name, by.figure(name, load.figure)?))).collect();
            let title = format!("{} ({})", load.title, unit(load.figure));
            std::fs::write(plots.join(format!("{}.svg", load.name)), plot::bars(&title, &bars))?;
            let _ = writeln!(pictures, "![{}](performance/{}.svg)", load.title, load.name);
        }
        let template = std::fs::read_to_string(workspace.root.join("benches/PERFORMANCE.md"))?;
        let nonces = self.own.nonces.as_ref().map(serde_json::to_string_pretty).transpose()?.unwrap_or_default();
        let notes = std::fs::read_to_string(workspace.root.join("benches/notes.md")).unwrap_or_default();
        let rounds = self.results.values().flat_map(BTreeMap::values).map(Vec::len).max().unwrap_or_default();
        let parts = [
            ("{rounds}", rounds.to_string()),
            ("{notes}", notes),
            ("{machine}", machine(self.stage)),
            ("{goals}", self.goals()),
            ("{table}", self.table()),
            ("{who}", self.who()),
            ("{details}", self.details()),
            ("{plots}", pictures),
            ("{nonces}", format!("```json\n{nonces}\n```\n")),
        ];
        let text = parts.into_iter().fold(template, |text, (name, part)| text.replace(name, part.trim_end()));
        Ok(std::fs::write(workspace.root.join("docs/PERFORMANCE.md"), text)?)
    }
}

fn machine(stage: &Stage) -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let model = model.map_or("an unknown processor", |(_, name)| name.trim());
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let rustc = Command::new("rustc").arg("--version").output();
    let rustc = rustc.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
    format!("{model}, {count} cores, Linux {}, {rustc}; {}.", kernel.trim(), stage.cores())
}
