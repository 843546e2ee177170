//! `valetkey policy`: what a policy file says, without a sidecar.
//!
//! | file | what |
//! | --- | --- |
//! | `render` | what would happen to a request, for people |
//! | `test` | a file of requests with expected decisions |
//! | `learn` | the least scopes that cover what an audit has seen |
//! | `diff` | what two policies allow, compared |

mod diff;
#[cfg(test)]
mod explained;
mod learn;
mod render;
mod test;

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum, ValueHint};
use jiff::Timestamp;
use serde_json::json;

use super::{Failure, print};
use crate::config::{self, Loaded, Look, Mistakes};
use crate::policy::explain as explaining;

const EXPLAIN_EXAMPLES: &str = "Examples:
  valetkey policy explain GET https://api.stripe.com/v1/customers
  valetkey policy explain POST https://api.stripe.com/v1/refunds --agent billing --scope read:customers
  valetkey policy explain DELETE https://api.github.com/repos/a/b --agent coder --expect deny

With --scope the nonce holds these scopes, with --agent alone all that this agent may have, without both every scope.
Judged are host, method, path and query; who presents the nonce, its life and the address are judged by the sidecar.";

/// Flags of `valetkey policy`.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Report every mistake of a policy file; ends with 3 if there is one.
    Check {
        #[command(flatten)]
        file: Positional,
        #[command(flatten)]
        exec: Exec,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print the policy as it is in force, presets and defaults filled in.
    Show {
        #[command(flatten)]
        file: Positional,
        #[command(flatten)]
        exec: Exec,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Say whether a request would be allowed, and by what; else why not, and which scope would allow it.
    #[command(after_help = EXPLAIN_EXAMPLES)]
    Explain(Explain),
    /// Run a file of requests with expected decisions; ends with 1 if one fails.
    #[command(after_help = test::EXAMPLES)]
    Test(test::Test),
    /// Print the least scopes that cover what an audit has seen, to review and paste.
    #[command(after_help = learn::EXAMPLES)]
    Learn(learn::Learn),
    /// Say what becomes allowed and what becomes denied between two policies, and what else differs.
    #[command(after_help = diff::EXAMPLES)]
    Diff(diff::Diff),
}

#[derive(Debug, Args)]
struct Positional {
    /// The policy file.
    #[arg(env = "VALETKEY_POLICY", value_name = "FILE", default_value = "policy.toml", value_hint = ValueHint::FilePath)]
    path: PathBuf,
}

#[derive(Debug, Args)]
struct Exec {
    /// Allow credentials with source = "exec", as `serve --allow-exec` does. None is run here.
    #[arg(long, env = "VALETKEY_ALLOW_EXEC")]
    allow_exec: bool,
}

#[derive(Debug, Args)]
struct Explain {
    /// GET, POST, …; WEBSOCKET for an upgrade.
    #[arg(value_name = "METHOD")]
    method: String,
    #[arg(help = "https://HOST[:PORT]/PATH[?QUERY]", value_name = "URL", value_hint = ValueHint::Url)]
    url: String,
    /// For a nonce of this agent.
    #[arg(long)]
    agent: Option<String>,
    /// For a nonce of this service; all that list the host if absent.
    #[arg(long)]
    service: Option<String>,
    /// For a nonce with this scope; several with commas, or repeated.
    #[arg(long = "scope", value_name = "SCOPE", value_delimiter = ',')]
    scopes: Vec<String>,
    /// End with 1 if the answer is another.
    #[arg(long, value_enum, value_name = "ANSWER")]
    expect: Option<Expected>,
    /// The policy file.
    #[arg(long, env = "VALETKEY_POLICY", value_name = "FILE", default_value = "policy.toml", value_hint = ValueHint::FilePath)]
    policy: PathBuf,
    #[command(flatten)]
    exec: Exec,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Expected {
    /// It is allowed.
    Allow,
    /// It is refused.
    Deny,
}

/// Runs one of them.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    match &arguments.command {
        Command::Check { file, exec, json } => check(&file.path, exec, *json),
        Command::Show { file, exec, json } => show(&load(&file.path, exec)?, *json),
        Command::Explain(arguments) => explain(arguments),
        Command::Test(arguments) => test::run(arguments),
        Command::Learn(arguments) => learn::run(arguments),
        Command::Diff(arguments) => diff::run(arguments),
    }
}

fn load(path: &std::path::Path, exec: &Exec) -> Result<Loaded, Failure> {
    config::load_policy(path, exec.allow_exec).map_err(|mistakes| unusable_file(path, &mistakes))
}

pub(super) fn unusable_file(path: &std::path::Path, mistakes: &Mistakes) -> Failure {
    Failure::policy(format!("{} cannot be used\n\n{}", path.display(), mistakes.report(Look::of_stderr()).trim_end()))
}

fn check(path: &std::path::Path, exec: &Exec, json: bool) -> Result<(), Failure> {
    let loaded = match config::load_policy(path, exec.allow_exec) {
        Ok(loaded) => loaded,
        Err(mistakes) if json => {
            print::json(&json!({
                "file": path, "ok": false, "mistakes": mistakes.items(), "left_out": mistakes.left_out(),
            }))?;
            let number = mistakes.items().len() + mistakes.left_out();
            let count = print::count(number, "mistake", "mistakes");
            return Err(Failure::policy(format!("{}: {count}", path.display())));
        }
        Err(mistakes) => return Err(unusable_file(path, &mistakes)),
    };
    let policy = &loaded.policy;
    if json {
        return print::json(&json!({
            "file": path, "ok": true, "digest": &**policy.digest(), "warnings": loaded.warnings, "mistakes": [],
            "left_out": 0,
        }));
    }
    for warning in &loaded.warnings {
        print::warn(print::visible(warning));
    }
    print::text(&format!(
        "{} is in order: {}, {}, {}\n",
        print::visible(&path.to_string_lossy()),
        print::count(policy.services().len(), "service", "services"),
        print::count(policy.agent_rules().len(), "agent", "agents"),
        print::count(loaded.credentials.len(), "credential", "credentials"),
    ))
}

fn show(loaded: &Loaded, json: bool) -> Result<(), Failure> {
    let effective = config::effective(loaded);
    if json { print::json(effective) } else { print::text(&effective.to_string()) }
}

fn explain(arguments: &Explain) -> Result<(), Failure> {
    let loaded = load(&arguments.policy, &arguments.exec)?;
    let asked = explaining::Asked {
        method: &arguments.method,
        url: &arguments.url,
        agent: arguments.agent.as_deref(),
        service: arguments.service.as_deref(),
        holds: match &arguments.scopes[..] {
            [] => explaining::Holds::Unsaid,
            scopes => explaining::Holds::Scopes(scopes),
        },
        supposed: None,
        now: Timestamp::now(),
    };
    let answer = match explaining::read(&loaded.policy, &asked).map_err(Failure::usage)? {
        Ok(question) => explaining::explain(&loaded.policy, &question),
        Err(ambiguous) => ambiguous,
    };
    if arguments.json {
        print::json(&answer)?;
    } else {
        print::text(&render::render(&answer))?;
    }
    let given = if answer.allowed { Expected::Allow } else { Expected::Deny };
    match arguments.expect {
        Some(expected) if expected != given => Err(Failure::other(match expected {
            Expected::Allow => "expected it to be allowed",
            Expected::Deny => "expected it to be refused",
        })),
        _ => Ok(()),
    }
}
