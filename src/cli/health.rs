//! `valetkey health`: asks a running sidecar's admin listener, as a probe would.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;

use super::{Failure, print, runtime};

const EXAMPLES: &str = "Examples:
  valetkey health                    0 when it is ready, 7 when it is not or nobody answers
  valetkey health --json             every check, for programs

As a probe where there is no HTTP probe: exec: { command: [\"valetkey\", \"health\"] }";

/// For the whole question, from connecting to the last byte.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// An answer in bytes at most.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Flags of `valetkey health`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The sidecar's admin listener.
    #[arg(long, env = "VALETKEY_ADMIN", value_name = "ADDR", default_value = "127.0.0.1:9090")]
    admin: SocketAddr,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What `/readyz?verbose` answers.
#[derive(Debug, Serialize, Deserialize)]
struct Readiness {
    ready: bool,
    /// `ok`, or what is wrong.
    checks: BTreeMap<String, String>,
}

/// Asks and tells.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let (status, body) = look(arguments.admin, "/readyz?verbose")?;
    let Ok(readiness) = serde_json::from_slice::<Readiness>(&body) else {
        return Err(Failure::remote(format!(
            "what answers at {} (status {status}) is not valetkey's admin listener; --admin names another address",
            arguments.admin
        )));
    };
    if arguments.json {
        print::json(&readiness)?;
    }
    // Both must say so: an answer that contradicts itself is no yes.
    if !readiness.ready || status != StatusCode::OK {
        return Err(Failure::remote(format!("not ready: {}", failing(&readiness))));
    }
    if arguments.json { Ok(()) } else { print::text(&render(&readiness)) }
}

/// What a sidecar's admin listener answers.
pub(super) fn look(admin: SocketAddr, target: &'static str) -> Result<(StatusCode, Bytes), Failure> {
    match runtime()?.block_on(async { tokio::time::timeout(ANSWER_TIMEOUT, ask(admin, target)).await }) {
        Ok(answer) => answer.map_err(|problem| unreachable(admin, &problem)),
        Err(_) => Err(unreachable(admin, "no answer within 5 seconds")),
    }
}

fn unreachable(admin: SocketAddr, problem: &str) -> Failure {
    Failure::remote(format!(
        "no sidecar answers at {admin}: {problem}\n  is it running? `valetkey serve` starts it; --admin names another address"
    ))
}

async fn ask(admin: SocketAddr, target: &'static str) -> Result<(StatusCode, Bytes), String> {
    let stream = TcpStream::connect(admin).await.map_err(|error| plainly(&error))?;
    stream.set_nodelay(true).map_err(|error| plainly(&error))?;
    let broken = |error: hyper::Error| format!("the connection broke ({error})");
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let request = Request::builder()
        .method(Method::GET)
        .uri(target)
        .header(header::HOST, admin.to_string())
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let driving = tokio::spawn(connection);
    let answer = sender.send_request(request).await.map_err(broken)?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
    driving.abort();
    Ok((status, body.map_err(|error| format!("the answer cannot be read ({error})"))?.to_bytes()))
}

/// The reason in words, without `os error`.
fn plainly(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "nobody listens there".to_owned(),
        _ => error.to_string(),
    }
}

fn failing(readiness: &Readiness) -> String {
    let failing: Vec<String> = readiness
        .checks
        .iter()
        .filter(|(_, state)| *state != "ok")
        .map(|(name, problem)| format!("{}: {}", print::visible(name), print::visible(problem)))
        .collect();
    if failing.is_empty() { "it does not say why".to_owned() } else { failing.join("; ") }
}

fn render(readiness: &Readiness) -> String {
    let mut block = print::Block::default();
    for (name, state) in &readiness.checks {
        block.fact(&format!("  {name}"), state);
    }
    format!("ready\n{}", block.render())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn readiness(json: &str) -> Readiness {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn what_fails_is_named() {
        let ill = readiness(r#"{"ready":false,"checks":{"audit":"the disk is full\u001b[2J","policy":"ok"}}"#);
        assert_eq!(failing(&ill), "audit: the disk is full\\u{1b}[2J");
        assert_eq!(failing(&readiness(r#"{"ready":false,"checks":{}}"#)), "it does not say why");
    }

    #[test]
    fn what_is_well_is_listed() {
        let well = readiness(r#"{"ready":true,"checks":{"audit":"ok","policy":"ok"}}"#);
        assert_eq!(anstream::adapter::strip_str(&render(&well)).to_string(), "ready\n  audit   ok\n  policy  ok\n");
    }
}
