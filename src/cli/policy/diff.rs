//! `valetkey policy diff`: what becomes allowed and what becomes denied between two policies, and what else differs.
//!
//! `reach` compares what each agent may do, rule by rule; `settings` compares everything that is in force, key by key.

mod direction;
mod reach;
mod settings;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use clap::{Args, ValueHint};
use owo_colors::{OwoColorize, Style};
use serde::Serialize;

use self::direction::Direction;
use self::reach::Reached;
use self::settings::Change;
use super::{Exec, load};
use crate::cli::Failure;
use crate::cli::print::{self, Table};
use crate::config::{self, Loaded};

pub(super) const EXAMPLES: &str = "Examples:
  valetkey policy diff policy.toml candidate.toml
  git show main:policy.toml > /tmp/old.toml && valetkey policy diff /tmp/old.toml policy.toml --exit-code
  valetkey policy diff old.toml new.toml --json | jq .allowed

What an agent may do is compared rule by rule: a rule that one rule of the other policy includes is no difference. One
that only several together include is told as a difference. Below it stands every setting that differs, marked + where
it gives more, - where it gives less, ~ where it is another.

With --exit-code ends with 1 if there is a difference. Ends with 3 if one of the policies has mistakes.";

/// Flags of `valetkey policy diff`.
#[derive(Debug, Args)]
pub(super) struct Diff {
    /// The policy before.
    #[arg(value_name = "OLD", value_hint = ValueHint::FilePath)]
    old: PathBuf,
    /// The policy after.
    #[arg(value_name = "NEW", value_hint = ValueHint::FilePath)]
    new: PathBuf,
    #[command(flatten)]
    exec: Exec,
    /// End with 1 if there is a difference.
    #[arg(long)]
    exit_code: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Everything that differs; also the JSON form.
#[derive(Debug, Serialize)]
struct Difference {
    same: bool,
    /// What becomes allowed, by agent.
    allowed: Vec<Reached>,
    /// What becomes denied, by agent.
    denied: Vec<Reached>,
    /// Settings, by their way through the file.
    changed: Vec<Change>,
}

/// Compares two policies.
pub(super) fn run(arguments: &Diff) -> Result<(), Failure> {
    let (old, new) = (load(&arguments.old, &arguments.exec)?, load(&arguments.new, &arguments.exec)?);
    let difference = compare(&old, &new)?;
    if arguments.json {
        print::json(&difference)?;
    } else {
        print::text(&render(&difference))?;
    }
    if arguments.exit_code && !difference.same {
        return Err(Failure::other("the policies differ"));
    }
    Ok(())
}

fn compare(old: &Loaded, new: &Loaded) -> Result<Difference, Failure> {
    let allowed = reach::gained(&old.policy, &new.policy);
    let denied = reach::lost(&old.policy, &new.policy);
    let value = |loaded| serde_json::to_value(config::effective(loaded)).map_err(Failure::other);
    let changed = settings::compare(&value(old)?, &value(new)?);
    let same = allowed.is_empty() && denied.is_empty() && changed.is_empty();
    Ok(Difference { same, allowed, denied, changed })
}

fn render(difference: &Difference) -> String {
    if difference.same {
        return "no difference\n".to_owned();
    }
    let (green, red) = (Style::new().green().bold(), Style::new().red().bold());
    let mut out = String::new();
    for (title, style, reached) in
        [("becomes allowed", red, &difference.allowed), ("becomes denied", green, &difference.denied)]
    {
        if !reached.is_empty() {
            out.push_str(&format!("{}\n{}\n", title.style(style), table_of(reached)));
        }
    }
    if difference.allowed.is_empty() && difference.denied.is_empty() {
        out.push_str("no rule becomes allowed or denied to an agent\n\n");
    }
    if !difference.changed.is_empty() {
        out.push_str(&format!("{}\n{}", "settings".style(Style::new().bold()), table_of_settings(&difference.changed)));
    }
    format!("{}\n", out.trim_end())
}

fn table_of(reached: &[Reached]) -> String {
    let mut table = Table::new(&["AGENT", "SERVICE", "SCOPE", "RULE", "SINCE"]);
    for one in reached {
        let scope = one.scope.clone().unwrap_or_else(|| "-".to_owned());
        table.row(&[one.agent.clone(), one.service.clone(), scope, one.rule.clone(), one.since.words().to_owned()]);
    }
    table.render()
}

fn table_of_settings(changed: &[Change]) -> String {
    let mut table = Table::new(&["", "KEY", "WAS", "IS"]);
    for change in changed {
        let mark = match change.direction {
            Direction::More => "+",
            Direction::Less => "-",
            Direction::Other => "~",
        };
        let shown = |value: Option<&serde_json::Value>| value.map_or_else(|| "-".to_owned(), settings::shown);
        table.row(&[mark.to_owned(), change.key.clone(), shown(change.was.as_ref()), shown(change.is.as_ref())]);
    }
    table.render()
}
