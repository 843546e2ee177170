//! Medians, ratios, tables and plots.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::Command;

use super::scenarios::{Figure, Scenario};
use super::stage::Stage;
use super::{Outcome, Results};
use crate::workspace::Workspace;

/// Medians by load and runner: rate, bytes a second, p50, p99, CPU microseconds a request, KiB a connection.
pub type Medians = BTreeMap<String, BTreeMap<String, [f64; 6]>>;

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

fn cpu_each(outcome: &Outcome) -> f64 {
    if outcome.requests == 0 { 0.0 } else { outcome.cpu_seconds * 1e6 / outcome.requests as f64 }
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

/// The medians of everything.
pub fn medians(results: &Results) -> Medians {
    let of = |runs: &Vec<Outcome>| {
        let pick = |figure: fn(&Outcome) -> f64| median(runs.iter().map(figure).collect());
        [
            pick(|run| run.rate),
            pick(|run| run.bytes_per_second),
            pick(|run| run.latency.p50),
            pick(|run| run.latency.p99),
            pick(cpu_each),
            pick(|run| run.rss_kib.1.saturating_sub(run.rss_kib.0) as f64 / run.requests.max(1) as f64),
        ]
    };
    results
        .iter()
        .map(|(load, by)| (load.clone(), by.iter().map(|(name, runs)| (name.clone(), of(runs))).collect()))
        .collect()
}

/// The figure that counts in a load, with the runs of direct requests where it is a difference.
fn figure(load: &Scenario, by: &BTreeMap<String, [f64; 6]>, name: &str) -> Option<f64> {
    let own = by.get(name)?;
    Some(match load.figure {
        Figure::Rate => own[0],
        Figure::Throughput => own[1] / 1e6,
        Figure::AddedMedian => own[2] - by.get("direct").map_or(0.0, |direct| direct[2]),
        Figure::Tail => own[3],
        Figure::Memory => own[5],
    })
}

fn unit(figure: Figure) -> &'static str {
    match figure {
        Figure::Rate => "requests/s",
        Figure::Throughput => "MB/s",
        Figure::AddedMedian => "µs added to the median",
        Figure::Tail => "µs, 99th percentile",
        Figure::Memory => "KiB each",
    }
}

/// The table of all loads: each runner's figure, and its ratio to the floor's.
pub fn table(results: &Results, loads: &[Scenario], stage: &Stage) -> String {
    let medians = medians(results);
    let names: Vec<_> = stage.runners().iter().map(|runner| runner.name.clone()).collect();
    let mut text = format!("| load | unit | {} | sidecar / floor | CPU / floor's |\n| --- | --- |", names.join(" | "));
    text += &" ---: |".repeat(names.len() + 2);
    text.push('\n');
    for load in loads {
        let Some(by) = medians.get(load.name) else { continue };
        let _ = write!(text, "| {} | {} |", load.title, unit(load.figure));
        for name in &names {
            match figure(load, by, name) {
                Some(value) => {
                    let _ = write!(text, " {} |", spell(value));
                }
                None => text.push_str(" – |"),
            }
        }
        let ratio = |of: &dyn Fn(&str) -> Option<f64>| {
            of("valetkey").zip(of("floor")).map_or("–".to_owned(), |(own, floor)| format!("{:.2}", own / floor))
        };
        let cpu = |name: &str| by.get(name).map(|own| own[4]);
        let _ = writeln!(text, " **{}** | {} |", ratio(&|name| figure(load, by, name)), ratio(&cpu));
    }
    text
}

fn spell(value: f64) -> String {
    if value.abs() >= 100.0 { format!("{value:.0}") } else { format!("{value:.1}") }
}

/// Writes docs/PERFORMANCE.md and one plot for each load.
pub fn write(
    workspace: &Workspace,
    results: &Results,
    loads: &[Scenario],
    stage: &Stage,
    table: &str,
) -> anyhow::Result<()> {
    let plots = workspace.root.join("docs/performance");
    std::fs::create_dir_all(&plots)?;
    let medians = medians(results);
    let mut text = String::from(
        "# Performance\n\nMeasured by `cargo xtask bench --write-docs`; nothing here is written by hand but `benches/notes.md`, which follows at the end.\n\n",
    );
    let _ = writeln!(text, "{}\n", machine(stage));
    text += "Ratios within one run count; absolute figures are of this machine alone. The sidecar runs with everything on: a policy of 20 services, audit to a file, scrubbing, metrics. *Floor* is a proxy of the same crates that swaps one header after one look into a map, and does nothing else.\n\n";
    text += table;
    text += "\n| who | version | start to listening |\n| --- | --- | ---: |\n";
    for runner in stage.runners() {
        let start = runner.start.map_or("–".to_owned(), |start| format!("{} ms", start.as_millis()));
        let _ = writeln!(text, "| {} | {} | {start} |", runner.name, runner.version);
    }
    for (name, why) in &stage.missing {
        let _ = writeln!(text, "| {name} | **missing**: {} | – |", why.lines().next().unwrap_or_default());
    }
    text.push('\n');
    for load in loads {
        let Some(by) = medians.get(load.name) else { continue };
        let bars: Vec<_> = stage
            .runners()
            .iter()
            .filter_map(|runner| figure(load, by, &runner.name).map(|value| (runner.name.as_str(), value)))
            .collect();
        std::fs::write(plots.join(format!("{}.svg", load.name)), plot(load, &bars))?;
        let _ = writeln!(text, "![{}](performance/{}.svg)", load.title, load.name);
    }
    let notes = std::fs::read_to_string(workspace.root.join("benches/notes.md")).unwrap_or_default();
    let _ = writeln!(text, "\n{}", notes.trim());
    Ok(std::fs::write(workspace.root.join("docs/PERFORMANCE.md"), text.trim_end().to_owned() + "\n")?)
}

fn machine(stage: &Stage) -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let model = model.map_or("an unknown processor", |(_, name)| name.trim());
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let rustc = Command::new("rustc")
        .arg("--version")
        .output()
        .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    format!(
        "Machine: {model}, {count} cores, Linux {}, {}; {}.",
        kernel.trim(),
        rustc.unwrap_or_default(),
        stage.cores()
    )
}

/// Bars, each with its figure; of a file that browsers and GitHub show.
fn plot(load: &Scenario, bars: &[(&str, f64)]) -> String {
    let (width, label, row) = (640.0, 110.0, 26.0);
    let most = bars.iter().map(|(_, value)| *value).fold(0.0, f64::max).max(f64::MIN_POSITIVE);
    let height = row * bars.len() as f64 + 48.0;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n<text x=\"8\" y=\"20\" font-weight=\"bold\">{} ({})</text>\n",
        load.title,
        unit(load.figure)
    );
    for (at, (name, value)) in bars.iter().enumerate() {
        let y = 34.0 + row * at as f64;
        let length = (value.max(0.0) / most * (width - label - 90.0)).max(1.0);
        let colour = match *name {
            "valetkey" => "#1b6ca8",
            "floor" | "direct" => "#9db4c0",
            _ => "#c9ada7",
        };
        let _ = writeln!(
            text,
            "<text x=\"8\" y=\"{:.0}\">{name}</text><rect x=\"{label}\" y=\"{y:.0}\" width=\"{length:.1}\" height=\"18\" fill=\"{colour}\"/>\
             <text x=\"{:.0}\" y=\"{:.0}\">{}</text>",
            y + 14.0,
            label + length + 6.0,
            y + 14.0,
            spell(*value)
        );
    }
    text + "</svg>\n"
}
