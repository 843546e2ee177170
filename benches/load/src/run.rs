//! Makes the load of a plan, and measures.

mod board;
mod first;
mod paced;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::LocalSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::Failure;
use crate::client::{Client, H1, H2};
use crate::plan::{Latency, Mode, Outcome, Plan};
use crate::process;
use board::Board;
use first::first;

/// Between two looks at the proxy's memory.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Runs a plan to its end.
pub async fn run(plan: &Plan) -> Result<Outcome, Failure> {
    let plan = Arc::new(plan.clone());
    let client = match plan.mode {
        // There is no proxy yet, and no CA.
        Mode::First => None,
        mode => Some(Client::new(&plan, mode == Mode::Resume)?),
    };
    let board = Rc::new(Board::new(plan.clone())?);
    let local = LocalSet::new();
    for number in 0..plan.connections {
        let (client, board) = (client.clone(), board.clone());
        local.spawn_local(async move { worker(client.as_ref(), &board, number).await });
    }
    let usage = local.spawn_local(usage(plan.clone(), board.from, board.until));
    local.await;
    let (cpu_seconds, other_cpu_seconds, rss_kib) = usage.await?;
    let count = board.count.borrow();
    if let Some(error) = &count.first_error {
        eprintln!("{} errors, the first: {error}", count.errors);
    }
    let micros = |quantile: f64| count.latency.value_at_quantile(quantile) as f64 / 1000.0;
    Ok(Outcome {
        requests: count.requests,
        errors: count.errors,
        seconds: plan.seconds,
        rate: count.requests as f64 / plan.seconds,
        bytes_per_second: count.bytes as f64 / plan.seconds,
        latency: Latency {
            p50: micros(0.5),
            p90: micros(0.9),
            p99: micros(0.99),
            p999: micros(0.999),
            max: count.latency.max() as f64 / 1000.0,
        },
        cpu_seconds,
        other_cpu_seconds,
        rss_kib,
    })
}

/// The proxy's CPU time between the two times, everybody else's, and its memory at the beginning and at its greatest.
async fn usage(plan: Arc<Plan>, from: Instant, until: Instant) -> (f64, f64, (u64, u64)) {
    let at_start = plan.pid.map_or(0, process::rss_kib);
    sleep_until(from).await;
    let read = || {
        (
            plan.pid.map_or(0.0, process::cpu_seconds),
            process::machine_cpu_seconds(),
            process::cpu_seconds(std::process::id())
                + plan.origin_pids.iter().copied().map(process::cpu_seconds).sum::<f64>(),
        )
    };
    let before = read();
    let mut greatest = at_start;
    while Instant::now() < until {
        greatest = greatest.max(plan.pid.map_or(0, process::rss_kib));
        sleep(LOOK_EVERY.min(until - Instant::now())).await;
    }
    let after = read();
    greatest = greatest.max(plan.pid.map_or(0, process::rss_kib));
    let (cpu, all, own) = (after.0 - before.0, after.1 - before.1, after.2 - before.2);
    (cpu, (all - cpu - own).max(0.0), (at_start, greatest))
}

async fn worker(client: Option<&Client>, board: &Rc<Board>, number: usize) {
    while !board.is_over() {
        let outcome = match client {
            Some(client) => through(client, board, number).await,
            None => first(board).await,
        };
        if let Err(failure) = outcome {
            board.failed(&failure);
            // A peer that is down must not make this a busy loop.
            sleep(Duration::from_millis(10)).await;
        }
    }
}

async fn through(client: &Client, board: &Rc<Board>, number: usize) -> Result<(), Failure> {
    match board.plan.mode {
        Mode::KeepAlive | Mode::Download | Mode::Upload | Mode::Events => kept(client, board).await,
        Mode::Open => paced::requests(client, board, number).await,
        Mode::Connect | Mode::Resume => once(client, board, &board.plan.host).await,
        Mode::Hosts => once(client, board, &board.next_host()).await,
        Mode::Held => held(client, board).await,
        Mode::Mint => paced::mints(board, number).await,
        Mode::First => first(board).await,
    }
}

/// The request of a mode: method, path, and bytes of its body.
fn request(plan: &Plan) -> (&'static str, String, u64) {
    match plan.mode {
        Mode::Download => ("GET", format!("/bytes/{}", plan.body_bytes), 0),
        Mode::Upload => ("POST", "/sink".to_owned(), plan.body_bytes),
        Mode::Events => ("GET", "/events/200".to_owned(), 0),
        Mode::KeepAlive
        | Mode::Open
        | Mode::Connect
        | Mode::Resume
        | Mode::Hosts
        | Mode::Held
        | Mode::Mint
        | Mode::First => ("GET", "/v1/json".to_owned(), 0),
    }
}

fn h2_request(plan: &Plan, host: &str) -> Result<(http::Request<()>, u64), Failure> {
    let (method, path, body_bytes) = request(plan);
    let request = http::Request::builder()
        .method(method)
        .uri(format!("https://{host}{path}"))
        .header("user-agent", "load/1")
        .header("accept", "*/*")
        .header("authorization", format!("Bearer {}", plan.bearer));
    Ok((request.body(())?, body_bytes))
}

/// A piece of an answer's body.
fn received(board: &Board, piece: &[u8]) {
    match board.plan.mode {
        Mode::Events => events(board, piece),
        // There the upload is what counts.
        Mode::Upload => {}
        _ => board.passed(piece.len()),
    }
}

/// Latencies of the events in a piece; one event is one frame here.
fn events(board: &Board, piece: &[u8]) {
    for event in piece.split(|byte| *byte == b'\n') {
        let sent = event.strip_prefix(b"data: ").and_then(|text| std::str::from_utf8(text).ok()?.parse().ok());
        if let Some(sent) = sent {
            board.event(sent);
        }
    }
}

/// One request after the other on a kept connection, or several at a time over HTTP/2.
async fn kept(client: &Client, board: &Rc<Board>) -> Result<(), Failure> {
    let plan = &board.plan;
    let stream = client.connect(&plan.host).await?;
    if plan.h2 {
        let connection = H2::new(stream).await?;
        let streams = (0..plan.streams).map(|_| h2_stream(&connection, board));
        futures_util::future::try_join_all(streams).await?;
        return Ok(());
    }
    let mut connection = H1::new(stream);
    let (method, path, body_bytes) = request(plan);
    let head = client.head(&plan.host, method, &path);
    while !board.is_over() {
        let began = Instant::now();
        connection.send(&head, body_bytes, |bytes| board.passed(bytes)).await?;
        connection.receive(|piece| received(board, piece)).await?;
        if plan.mode != Mode::Events {
            board.done(began);
        }
    }
    Ok(())
}

async fn h2_stream(connection: &H2, board: &Rc<Board>) -> Result<(), Failure> {
    let plan = &board.plan;
    while !board.is_over() {
        let (request, body_bytes) = h2_request(plan, &plan.host)?;
        let began = Instant::now();
        connection.exchange(request, body_bytes, |piece| received(board, piece)).await?;
        if plan.mode != Mode::Events {
            board.done(began);
        }
    }
    Ok(())
}

/// One request on a connection of its own.
async fn once(client: &Client, board: &Rc<Board>, host: &str) -> Result<(), Failure> {
    let began = Instant::now();
    let stream = client.connect(host).await?;
    if board.plan.h2 {
        let (request, body_bytes) = h2_request(&board.plan, host)?;
        H2::new(stream).await?.exchange(request, body_bytes, |_| ()).await?;
    } else {
        let mut connection = H1::new(stream);
        connection.send(&client.head(host, "GET", "/v1/json"), 0, |_| ()).await?;
        connection.receive(|_| ()).await?;
    }
    board.done(began);
    Ok(())
}

/// A connection that is used once and then held to the end.
async fn held(client: &Client, board: &Rc<Board>) -> Result<(), Failure> {
    let mut connection = H1::new(client.connect(&board.plan.host).await?);
    connection.send(&client.head(&board.plan.host, "GET", "/v1/json"), 0, |_| ()).await?;
    connection.receive(|_| ()).await?;
    board.count.borrow_mut().requests += 1;
    sleep_until(board.until).await;
    Ok(())
}
