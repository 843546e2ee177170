//! Scopes as a piece of a policy file, to read and to paste.

use std::fmt::Write as _;
use std::path::Path;

use super::record::LeftOut;
use super::scope::{Learned, LearnedRule};
use crate::cli::print;

/// The scopes as TOML, with comments on how often each rule was seen.
pub(super) fn spell(audit: &Path, scopes: &[Learned], left_out: &LeftOut) -> String {
    let requests: u64 = scopes.iter().map(Learned::requests).sum();
    let mut out = String::new();
    line(
        &mut out,
        format_args!("# Learned from {}: {}.", print::visible(&audit.to_string_lossy()), requests_of(requests)),
    );
    line(
        &mut out,
        format_args!("# Review it: what was asked for is not what is needed. Queries and bodies are not in an audit."),
    );
    let LeftOut { path, names, rule } = left_out;
    if path + names + rule > 0 {
        line(
            &mut out,
            format_args!(
                "# Left out: {path} with a path that was cut, masked or is always refused, {names} with names that cannot be"
            ),
        );
        line(&mut out, format_args!("# read, {rule} for which no rule can be written."));
    }
    for scope in scopes {
        out.push('\n');
        spell_scope(&mut out, scope);
    }
    out
}

fn spell_scope(out: &mut String, scope: &Learned) {
    line(out, format_args!("# Seen on {}. It may be granted with", scope.hosts.join(", ")));
    line(
        out,
        format_args!(
            "#   [agents.{}] grants = {{ {} = [{}] }}",
            key(&scope.agent),
            key(&scope.service),
            quoted(&scope.name)
        ),
    );
    line(out, format_args!("[[services.{}.scopes]]", key(&scope.service)));
    line(out, format_args!("name = {}", quoted(&scope.name)));
    line(out, format_args!("risk = \"{}\"  # a guess: yours to judge", scope.risk));
    let (plain, tables): (Vec<_>, Vec<_>) = scope.rules.iter().partition(|rule| !rule.encoded_slash);
    spell_rules(out, "allow", &plain, |rule| quoted(&rule.allow));
    spell_rules(out, "rules", &tables, |rule| format!("{{ allow = {}, encoded_slash = true }}", quoted(&rule.allow)));
}

fn spell_rules(out: &mut String, name: &str, rules: &[&LearnedRule], spell: impl Fn(&LearnedRule) -> String) {
    if rules.is_empty() {
        return;
    }
    line(out, format_args!("{name} = ["));
    let entries: Vec<String> = rules.iter().map(|rule| format!("{},", spell(rule))).collect();
    let width = entries.iter().map(String::len).max().unwrap_or(0);
    for (rule, entry) in rules.iter().zip(&entries) {
        line(out, format_args!("  {entry:width$}  # {}", seen(rule)));
    }
    line(out, format_args!("]"));
}

fn seen(rule: &LearnedRule) -> String {
    let counts = [(rule.allowed, "allowed"), (rule.observed, "only observed"), (rule.refused, "refused")];
    let never = (rule.allowed == 0).then(|| "never allowed".to_owned());
    let seen = counts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}"));
    never.into_iter().chain(seen).collect::<Vec<_>>().join(", ")
}

fn requests_of(number: u64) -> String {
    if number == 1 { "1 request".to_owned() } else { format!("{number} requests") }
}

/// A name as a key: bare where it can be.
fn key(name: &str) -> String {
    let is_bare = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if is_bare { name.to_owned() } else { quoted(name) }
}

/// A basic string. Names and rules are visible ASCII, so that two characters need an escape.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{text}");
}
