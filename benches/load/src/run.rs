//! Makes the load of a plan, and measures.

use std::cell::RefCell;
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::net::UnixStream;
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::Failure;
use crate::client::{Client, H1, H2};
use crate::origin::now_micros;
use crate::plan::{Latency, Mint, Mode, Outcome, Plan, Start};
use crate::process;

/// Between two looks at the proxy's memory.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How long a proxy may take from its start to its first answer.
const FIRST_MAX: Duration = Duration::from_secs(20);

/// What all workers write to; there is one thread.
struct Board {
    plan: Arc<Plan>,
    from: Instant,
    until: Instant,
    count: RefCell<Count>,
}

struct Count {
    requests: u64,
    errors: u64,
    bytes: u64,
    hosts: u64,
    first_error: Option<String>,
    /// In nanoseconds.
    latency: Histogram<u64>,
}

impl Board {
    fn is_over(&self) -> bool {
        Instant::now() >= self.until
    }

    fn done(&self, began: Instant) {
        let now = Instant::now();
        if now < self.from || now > self.until {
            return;
        }
        let mut count = self.count.borrow_mut();
        count.requests += 1;
        let nanoseconds = u64::try_from((now - began).as_nanos()).unwrap_or(u64::MAX);
        count.latency.saturating_record(nanoseconds);
    }

    /// Bytes of a body that have just passed; large bodies do not end within the time.
    fn passed(&self, bytes: usize) {
        let now = Instant::now();
        if now >= self.from && now <= self.until {
            self.count.borrow_mut().bytes += bytes as u64;
        }
    }

    /// An event that was sent at this time by the origin's clock, which is ours.
    fn event(&self, sent_micros: u128) {
        let micros = now_micros().saturating_sub(sent_micros);
        let nanoseconds = u64::try_from(micros.saturating_mul(1000)).unwrap_or(u64::MAX);
        let mut count = self.count.borrow_mut();
        count.requests += 1;
        count.latency.saturating_record(nanoseconds);
    }

    fn failed(&self, failure: &Failure) {
        let mut count = self.count.borrow_mut();
        count.errors += 1;
        count.first_error.get_or_insert_with(|| failure.to_string());
    }

    fn next_host(&self) -> String {
        let mut count = self.count.borrow_mut();
        count.hosts += 1;
        // The process id keeps the rounds' names apart.
        format!("h{}-{}.{}", std::process::id(), count.hosts, self.plan.host)
    }
}

/// Runs a plan to its end.
pub async fn run(plan: &Plan) -> Result<Outcome, Failure> {
    let plan = Arc::new(plan.clone());
    let client = match plan.mode {
        // There is no proxy yet, and no CA.
        Mode::First => None,
        mode => Some(Client::new(&plan, mode == Mode::Resume)?),
    };
    let from = Instant::now() + Duration::from_secs_f64(plan.warmup_seconds);
    let until = from + Duration::from_secs_f64(plan.seconds);
    let count = Count {
        requests: 0,
        errors: 0,
        bytes: 0,
        hosts: 0,
        first_error: None,
        latency: Histogram::new_with_bounds(1, 120_000_000_000, 3)?,
    };
    let board = Rc::new(Board { plan: plan.clone(), from, until, count: RefCell::new(count) });
    let local = LocalSet::new();
    for number in 0..plan.connections {
        let (client, board) = (client.clone(), board.clone());
        local.spawn_local(async move { worker(client.as_ref(), &board, number).await });
    }
    let usage = local.spawn_local(usage(plan.clone(), from, until));
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
        Mode::Open => open(client, board, number).await,
        Mode::Connect | Mode::Resume => once(client, board, &board.plan.host).await,
        Mode::Hosts => once(client, board, &board.next_host()).await,
        Mode::Held => held(client, board).await,
        Mode::Mint => mint(board, number).await,
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

/// Requests that are due at fixed times.
async fn open(client: &Client, board: &Rc<Board>, number: usize) -> Result<(), Failure> {
    let plan = &board.plan;
    let mut connection = H1::new(client.connect(&plan.host).await?);
    let head = client.head(&plan.host, "GET", "/v1/json");
    let mut pace = Pace::new(plan, number);
    while pace.due < board.until {
        let began = pace.next().await;
        connection.send(&head, 0, |_| ()).await?;
        connection.receive(|_| ()).await?;
        board.done(began);
    }
    Ok(())
}

/// Mints that are due at fixed times.
async fn mint(board: &Rc<Board>, number: usize) -> Result<(), Failure> {
    let plan = &board.plan;
    let mint = plan.mint.as_ref().ok_or("this proxy mints nothing")?;
    let mut connection = H1::new(UnixStream::connect(&mint.socket).await?);
    let head = mint_head(mint);
    let mut pace = Pace::new(plan, number);
    while pace.due < board.until {
        let began = pace.next().await;
        connection.send(&head, 0, |_| ()).await?;
        connection.receive(|_| ()).await?;
        board.done(began);
    }
    Ok(())
}

fn mint_head(mint: &Mint) -> Vec<u8> {
    format!(
        "POST /v1/nonces HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{}",
        mint.body.len(),
        mint.body
    )
    .into_bytes()
}

/// Starts the proxy, and asks until the first answer comes through it.
async fn first(board: &Rc<Board>) -> Result<(), Failure> {
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

/// A nonce over the control socket.
async fn minted(mint: &Mint) -> Result<String, Failure> {
    let mut connection = H1::new(UnixStream::connect(&mint.socket).await?);
    connection.send(&mint_head(mint), 0, |_| ()).await?;
    let mut answer = Vec::new();
    connection.receive(|piece| answer.extend_from_slice(piece)).await?;
    let answer: serde_json::Value = serde_json::from_slice(&answer)?;
    Ok(answer["nonce"].as_str().ok_or("the mint's answer has no nonce")?.to_owned())
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
