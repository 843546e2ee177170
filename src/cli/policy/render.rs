//! An answer for people.

use owo_colors::{OwoColorize, Style};

use crate::cli::print::{Block, count, visible};
use crate::policy::explain::{Answer, Way};

/// The request, the verdict, and what goes with it.
pub(super) fn render(answer: &Answer) -> String {
    let verdict = match answer.code {
        None => "allowed".style(Style::new().green().bold()).to_string(),
        Some(code) => format!("{} {code}", "refused".style(Style::new().red().bold())),
    };
    let mut block = Block::default();
    block.fact("  why", &answer.why);
    if let Some(way) = &answer.by {
        block
            .fact("  scope", format_args!("{}:{}", way.service, way.scope))
            .maybe("  rule", (!way.rule.is_empty()).then_some(&way.rule))
            .fact("  risk", way.risk)
            .fact("  credential", &way.credential)
            .maybe("  uses", way.max_uses.map(|max| format!("{} per nonce", count(max as usize, "use", "uses"))))
            .list("  also by", &answer.also)
            .fact("  agents", agents(way));
    }
    block
        .maybe("  observed", answer.observed)
        .maybe("  deny", answer.denied_by.as_ref())
        .list("  would", answer.would.iter().map(would))
        .list("  instead", &answer.instead);
    let Answer { method, scheme, destination, path, .. } = answer;
    format!("{}\n{verdict}\n{}", visible(&format!("{method} {scheme}://{destination}{path}")), block.render())
}

fn would(way: &Way) -> String {
    format!("{}:{} ({}) by {}; agents: {}", way.service, way.scope, way.risk, way.rule, agents(way))
}

fn agents(way: &Way) -> String {
    if way.agents.is_empty() { "none".to_owned() } else { way.agents.join(", ") }
}
