//! `valetkey demo`: the main job on real input, in one command, on a machine where nothing was prepared.
//!
//! - `stage`: the sidecar (a process of its own), the upstream that plays three APIs, the agent, the orchestrator
//! - `scenes`: the play, a promise each; `scene`: what one is made of
//! - `account`: what is printed; `trouble`: what goes wrong
//! - `keep`: what to try while it goes on running
//!
//! All sockets are real, on loopback or in a directory of the demo's own. Nothing of the user's is read or written: the
//! policy is in the binary, the credentials are random, and the names lead to the demo's upstream and nowhere else.

mod account;
mod agent;
mod canary;
mod keep;
mod scene;
mod scenes;
mod sidecar;
mod stage;
mod trouble;
mod upstream;
mod workplace;

use std::time::Instant;

use clap::Args;

use super::Failure;
use crate::process::Signals;
use account::{Account, Letters};
use scene::Scene;
use scenes::ACTS;
use stage::Stage;
use trouble::{Context, Trouble};

/// Flags of `valetkey demo`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Print one JSON object at the end, for programs.
    #[arg(long)]
    json: bool,
    /// Go on running after the play, and say what to try with curl; Ctrl-C ends it.
    #[arg(long, conflicts_with = "json")]
    keep: bool,
}

/// Plays the demo; fails unless everything was as promised.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::other(format!("cannot start the runtime: {error}")))?;
    let scenes = runtime
        .block_on(play(arguments))
        .map_err(|error| Failure::other(format!("demo: {}", trouble::told(&*error))))?;
    let broken = scenes.len() - account::held_count(&scenes);
    if broken > 0 {
        return Err(Failure::other(format!("demo: {broken} of {} promises did not hold", scenes.len())));
    }
    Ok(())
}

async fn play(arguments: &Arguments) -> Result<Vec<Scene>, Trouble> {
    let mut signals = Signals::listen()?;
    let account = if arguments.json {
        Account::Program
    } else {
        Account::People(Letters::of_locale(|name| std::env::var(name).ok()))
    };
    let begun = Instant::now();
    let (mut stage, mut scenes) = tokio::select! {
        played = act(account) => played?,
        _ = signals.next() => return Err("ended by a signal before it was over".into()),
    };
    let mut played = begun.elapsed();
    if arguments.keep {
        account.notice(&keep::notice(&mut stage).await?);
        signals.next().await;
    }
    let begun = Instant::now();
    let remains = stage.strike().await.context("the end")?;
    for scene in scenes::afterwards(&remains) {
        account.scene(scenes.len() + 1, &scene);
        scenes.push(scene);
    }
    played += begun.elapsed();
    account.closing(&scenes, played.as_secs_f64());
    Ok(scenes)
}

/// Everything for which the sidecar runs.
async fn act(account: Account) -> Result<(Stage, Vec<Scene>), Trouble> {
    let mut stage = Stage::set().await?;
    account.opening(&stage);
    let mut scenes = Vec::new();
    for act in ACTS {
        let scene = act.play(&mut stage).await;
        account.scene(scenes.len() + 1, &scene);
        scenes.push(scene);
    }
    stage.curtain();
    Ok((stage, scenes))
}
