//! What was asked for, by flags or by the environment.

use std::str::FromStr;

/// What to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// How often each kind is run with each protocol.
    pub rounds: u64,
    /// What chance begins with.
    pub seed: u64,
    /// Kinds whose name holds one of these; all where there is none.
    pub only: Vec<String>,
    /// Each kind with both protocols of the agent, also where that adds little.
    pub thorough: bool,
    /// How often a sidecar is killed, over all rounds.
    pub kills: u64,
    /// Cases at a time.
    pub jobs: usize,
    pub json: bool,
    /// Print the kinds and run none.
    pub list: bool,
    /// So many minutes of mixed traffic instead.
    pub soak: Option<f64>,
}

/// Reads the arguments. What `cargo test` hands to every runner (`--nocapture` and the like) changes nothing.
pub fn parse() -> Result<Options, String> {
    let mut seed = [0; 8];
    getrandom::fill(&mut seed).map_err(|error| error.to_string())?;
    let mut options = Options {
        rounds: 1,
        seed: u64::from_le_bytes(seed),
        only: Vec::new(),
        thorough: false,
        kills: 2,
        jobs: 12,
        json: false,
        list: false,
        soak: None,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--rounds" => options.rounds = value(&argument, arguments.next())?,
            "--seed" => options.seed = value(&argument, arguments.next())?,
            "--kills" => options.kills = value(&argument, arguments.next())?,
            "--jobs" => options.jobs = value::<usize>(&argument, arguments.next())?.clamp(1, 64),
            "--only" => options.only.push(value(&argument, arguments.next())?),
            "--soak" => options.soak = Some(value(&argument, arguments.next())?),
            "--thorough" => options.thorough = true,
            "--json" => options.json = true,
            "--list" => options.list = true,
            "--nocapture" | "--no-capture" | "--exact" | "--quiet" | "-q" | "--include-ignored" => {}
            "--test-threads" | "--format" | "--color" | "--skip" => drop(arguments.next()),
            name if !name.starts_with('-') => options.only.push(name.to_owned()),
            unknown => return Err(format!("there is no {unknown}")),
        }
    }
    Ok(options)
}

fn value<T: FromStr>(flag: &str, text: Option<String>) -> Result<T, String> {
    text.and_then(|text| text.parse().ok()).ok_or_else(|| format!("{flag} wants a value"))
}
