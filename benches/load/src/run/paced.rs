//! Loads that are due at fixed times, whether or not the answer before has come: open loops.

use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep_until};

use super::board::Board;
use crate::Failure;
use crate::client::{Client, H1};
use crate::plan::{Mint, Plan};

/// Requests through the proxy.
pub async fn requests(client: &Client, board: &Rc<Board>, number: usize) -> Result<(), Failure> {
    let host = &board.plan.host;
    let connection = H1::new(client.connect(host).await?);
    paced(connection, &client.head(host, "GET", "/v1/json"), board, number).await
}

/// Mints over the control socket.
pub async fn mints(board: &Rc<Board>, number: usize) -> Result<(), Failure> {
    let mint = board.plan.mint.as_ref().ok_or("this proxy mints nothing")?;
    let connection = H1::new(UnixStream::connect(&mint.socket).await?);
    paced(connection, &mint_head(mint), board, number).await
}

async fn paced<S>(mut connection: H1<S>, request: &[u8], board: &Rc<Board>, number: usize) -> Result<(), Failure>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut pace = Pace::new(&board.plan, number);
    while pace.due < board.until {
        let began = pace.next().await;
        connection.send(request, 0, |_| ()).await?;
        connection.receive(|_| ()).await?;
        board.done(began);
    }
    Ok(())
}

/// A nonce over the control socket.
pub async fn minted(mint: &Mint) -> Result<String, Failure> {
    let mut connection = H1::new(UnixStream::connect(&mint.socket).await?);
    connection.send(&mint_head(mint), 0, |_| ()).await?;
    let mut answer = Vec::new();
    connection.receive(|piece| answer.extend_from_slice(piece)).await?;
    let answer: serde_json::Value = serde_json::from_slice(&answer)?;
    Ok(answer["nonce"].as_str().ok_or("the mint's answer has no nonce")?.to_owned())
}

fn mint_head(mint: &Mint) -> Vec<u8> {
    format!(
        "POST /v1/nonces HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{}",
        mint.body.len(),
        mint.body
    )
    .into_bytes()
}

/// Waits for the next due time of worker `number`; since when the latency counts.
struct Pace {
    every: Duration,
    due: Instant,
}

impl Pace {
    fn new(plan: &Plan, number: usize) -> Self {
        let every = Duration::from_secs_f64(plan.connections as f64 / plan.rate);
        Self { every, due: Instant::now() + every.mul_f64(number as f64 / plan.connections as f64) }
    }

    /// Who is late catches up, and pays for it in latency: that the answer before was late counts. The timer's own step
    /// of a millisecond does not.
    async fn next(&mut self) -> Instant {
        let due = self.due;
        self.due += self.every;
        if Instant::now() > due {
            return due;
        }
        sleep_until(due).await;
        Instant::now()
    }
}
