//! A proxy's start, and the first answer that comes through it.

use std::process::{Command, Stdio};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::board::Board;
use super::paced::minted;
use crate::Failure;
use crate::client::{Client, H1};
use crate::plan::{Plan, Start};

/// How long a proxy may take from its start to its first answer.
const FIRST_MAX: Duration = Duration::from_secs(20);

/// Starts the proxy, and asks until the first answer comes through it.
pub async fn first(board: &Rc<Board>) -> Result<(), Failure> {
    let start = board.plan.start.as_ref().ok_or("nothing to start")?;
    let began = Instant::now();
    let mut process = spawn(start)?;
    let answered = first_answer(&board.plan).await;
    process.kill()?;
    process.wait()?;
    answered?;
    board.done(began);
    Ok(())
}

fn spawn(start: &Start) -> Result<std::process::Child, Failure> {
    let log = std::fs::OpenOptions::new().append(true).create(true).open(&start.log)?;
    let (program, arguments) = start.command.split_first().ok_or("an empty command")?;
    let mut command = Command::new(program);
    command.args(arguments).current_dir(&start.directory).stdin(Stdio::null());
    Ok(command.stdout(log.try_clone()?).stderr(log).spawn()?)
}

/// Each attempt begins anew: nonce, CA, connection, request.
async fn first_answer(plan: &Plan) -> Result<u64, Failure> {
    let attempt = async || {
        let mut plan = plan.clone();
        if let Some(mint) = &plan.mint {
            plan.bearer = minted(mint).await?;
        }
        let plan = Arc::new(plan);
        let client = Client::new(&plan, false)?;
        let mut connection = H1::new(client.connect(&plan.host).await?);
        connection.send(&client.head(&plan.host, "GET", "/v1/json"), 0, |_| ()).await?;
        connection.receive(|_| ()).await
    };
    let until = Instant::now() + FIRST_MAX;
    loop {
        match attempt().await {
            Ok(received) => return Ok(received),
            Err(failure) if Instant::now() > until => return Err(failure),
            Err(_) => sleep(Duration::from_millis(1)).await,
        }
    }
}
