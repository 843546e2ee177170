//! The commands that are about many nonces, or about a request that nobody makes.

use clap::{Args, ValueHint};

use super::{Socket, failed, read_id};
use crate::cli::print::{Block, count, visible};
use crate::cli::{Failure, print};
use crate::control::client::Client;
use crate::control::types::{
    CompletionAsked, Explanation, ExplanationAsked, RevocationAsked, Revoked, ScopeList, WayView,
};

pub(super) const REVOKE_EXAMPLES: &str = "Examples:
  valetkey nonce revoke nc_01J8Z4T6V0Q2W4E6R8T0Y2V4X6
  valetkey nonce revoke --task refund-4711
  valetkey nonce revoke --all --reason \"the key was seen in a log\"";

pub(super) const EXPLAIN_EXAMPLES: &str = "Examples:
  valetkey nonce explain GET https://api.stripe.com/v1/customers --agent billing
  valetkey nonce explain POST https://api.stripe.com/v1/refunds --id nc_01J8Z4T6V0Q2W4E6R8T0Y2V4X6

Answered from the policy that is in force, with the uses that are left and the level of risk; without a sidecar it is
`valetkey policy explain`.";

/// In place of ids.
pub(super) const SELECTORS: [&str; 4] = ["agent", "task", "service", "all"];

/// Which nonces to end, in place of ids.
#[derive(Debug, Args)]
pub(super) struct Which {
    /// All of this agent.
    #[arg(long, conflicts_with_all = ["task", "service", "all"])]
    agent: Option<String>,
    /// All for this task, whoever minted them.
    #[arg(long, conflicts_with_all = ["service", "all"])]
    task: Option<String>,
    /// All with a grant of this service.
    #[arg(long, conflicts_with = "all")]
    service: Option<String>,
    /// All of one's own agents.
    #[arg(long)]
    all: bool,
    /// Why; it goes into the audit.
    #[arg(long, value_name = "TEXT", conflicts_with = "ids")]
    reason: Option<String>,
}

/// Flags of `nonce complete`.
#[derive(Debug, Args)]
pub(super) struct Complete {
    /// The task, as it was minted for.
    task: String,
    /// Why; it goes into the audit.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    socket: Socket,
}

/// Flags of `nonce explain`.
#[derive(Debug, Args)]
pub(super) struct Explain {
    /// GET, POST, …; WEBSOCKET for an upgrade.
    #[arg(value_name = "METHOD")]
    method: String,
    #[arg(help = "https://HOST[:PORT]/PATH[?QUERY]", value_name = "URL", value_hint = ValueHint::Url)]
    url: String,
    /// For this live nonce.
    #[arg(long, value_name = "ID", conflicts_with_all = ["agent", "service", "scopes"])]
    id: Option<String>,
    /// For a nonce of this agent.
    #[arg(long, required_unless_present = "id")]
    agent: Option<String>,
    /// For a nonce of this service; all that list the host if absent.
    #[arg(long)]
    service: Option<String>,
    /// For a nonce with this scope; several with commas, or repeated.
    #[arg(long = "scope", value_name = "SCOPE", value_delimiter = ',', requires = "service")]
    scopes: Vec<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    socket: Socket,
}

pub(super) async fn revoke(which: Which, socket: &Socket, json: bool) -> Result<(), Failure> {
    let Which { agent, task, service, all, reason } = which;
    let asked = RevocationAsked { agent, task, service, all: all.then_some(true), reason };
    let revoked = Client::new(&socket.control).revoke_many(&asked).await.map_err(failed::say)?;
    told(&revoked, json)
}

pub(super) async fn complete(arguments: Complete) -> Result<(), Failure> {
    let asked = CompletionAsked { reason: arguments.reason };
    let client = Client::new(&arguments.socket.control);
    told(&client.complete(&arguments.task, &asked).await.map_err(failed::say)?, arguments.json)
}

fn told(revoked: &Revoked, json: bool) -> Result<(), Failure> {
    if json {
        return print::json(revoked);
    }
    let number = usize::try_from(revoked.revoked).unwrap_or(usize::MAX);
    print::text(&format!("revoked {}\n", count(number, "nonce", "nonces")))
}

pub(super) async fn explain(arguments: Explain) -> Result<(), Failure> {
    let id = arguments.id.as_deref().map(read_id).transpose()?.map(|id| id.to_string());
    let scope = (!arguments.scopes.is_empty()).then_some(ScopeList::Many(arguments.scopes));
    let (agent, service, method, url) = (arguments.agent, arguments.service, arguments.method, arguments.url);
    let asked = ExplanationAsked { agent, service, scope, id, method, url, body: None, content_type: None };
    let client = Client::new(&arguments.socket.control);
    let explanation = client.explain(&asked).await.map_err(failed::say)?;
    if arguments.json { print::json(&explanation) } else { print::text(&render(&explanation)) }
}

fn render(explanation: &Explanation) -> String {
    let verdict = match &explanation.code {
        None => "allowed".to_owned(),
        Some(code) => format!("refused {}", visible(code)),
    };
    let mut block = Block::default();
    block.fact("  why", &explanation.why);
    if let Some(by) = &explanation.by {
        block
            .fact("  scope", format_args!("{}:{}", by.service, by.scope))
            .fact("  rule", &by.rule)
            .fact("  risk", &by.risk)
            .fact("  credential", &by.credential)
            .list("  also by", &explanation.also);
    }
    block
        .maybe("  deny", explanation.denied_by.as_ref())
        .list("  would", explanation.would.iter().map(would))
        .list("  instead", &explanation.instead);
    format!("{verdict}\n{}", block.render())
}

fn would(way: &WayView) -> String {
    let agents = way.agents.join(", ");
    format!("{}:{} ({}) by {}; agents: {agents}", way.service, way.scope, way.risk, way.rule)
}
