//! A file of requests and expected decisions, for `valetkey policy test`: read as strictly as the policy itself.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use toml::de::DeTable;

use super::mistake::{Code, Finding, Mistakes, Source};
use super::section::{Keys, Node, Notes, Section};
use super::{POLICY_BYTES_MAX, secrets, section, supposed};
use crate::policy::explain::Supposed;

/// Cases of a file at most.
pub const CASES_MAX: usize = 10_000;
/// Scopes that a case can name of one service, and services of a case, at most.
const GRANTS_MAX: usize = 1024;

const ROOT: Keys = Keys { known: &["policy", "case"], later: &[] };
const CASE: Keys = Keys {
    known: &[
        "name",
        "agent",
        "service",
        "scopes",
        "grants",
        "nonce",
        "method",
        "url",
        "expect",
        "scope",
        "rule",
        "now",
        "body",
        "content_type",
        "content_encoding",
        "task",
        "instance",
        "on_behalf_of",
        "labels",
        "age",
        "uses",
        "risk",
    ],
    later: &[],
};

/// Words that `expect` takes beside the codes of refusals.
const ALLOW: &str = "allow";
const DENY: &str = "deny";

/// A file of cases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cases {
    /// The policy that the file names, from where the file is.
    pub policy: Option<PathBuf>,
    /// The cases, in the order of the file.
    pub cases: Vec<TestCase>,
}

/// A request, and what is expected of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestCase {
    /// What it shows; method and URL without the query where it has no name.
    pub name: String,
    /// The line at which it begins, from 1.
    pub line: usize,
    /// Whose nonce it is.
    pub agent: Option<String>,
    /// The service that is asked for.
    pub service: Option<String>,
    /// What the nonce holds.
    pub holds: Holds,
    /// What conditions look at besides.
    pub supposed: Supposed,
    /// When it is made; else now.
    pub now: Option<Timestamp>,
    /// The method.
    pub method: String,
    /// The URL.
    pub url: String,
    /// `allow`, `deny` for any refusal, or the code of one.
    pub expect: String,
    /// The scope that allows, or that the refusal names.
    pub scope: Option<String>,
    /// The rule that allows, or the deny that forbids.
    pub rule: Option<String>,
}

/// What the nonce of a case holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holds {
    /// There is no nonce.
    Nothing,
    /// Nothing is said.
    Unsaid,
    /// Scopes, of whatever service has them.
    Scopes(Vec<String>),
    /// Services, each with scopes.
    Grants(Vec<(String, Vec<String>)>),
}

/// Reads a file of cases. `codes` are the refusals that can be expected.
///
/// # Errors
/// [`Mistakes`]: all of them at once.
pub fn load_cases(path: &Path, codes: &[&str]) -> Result<Cases, Mistakes> {
    let file: Arc<str> = section::echo_path(path).into();
    if !path.exists() {
        let hint = "name the file with the cases, as in `valetkey policy test cases.toml`";
        return Err(Mistakes::of_file(&file, Code::Unreadable, "the file is not there", hint));
    }
    let bytes = super::read_file(path, &file)?;
    if bytes.len() > POLICY_BYTES_MAX {
        return Err(Mistakes::of_file(&file, Code::TooLarge, "the file is over 1 MiB", "make several files of it"));
    }
    let Ok(text) = String::from_utf8(bytes) else {
        return Err(Mistakes::of_file(&file, Code::NotUtf8, "the file is not UTF-8", "save it as UTF-8"));
    };
    let source = Source::new(file, text);
    let mut cases = read(&source, codes).map_err(|findings| Mistakes::locate(source, findings))?;
    let directory = path.parent().unwrap_or(Path::new(""));
    cases.policy = cases.policy.map(|policy| directory.join(policy));
    Ok(cases)
}

fn read(source: &Source, codes: &[&str]) -> Result<Cases, Vec<Finding>> {
    let notes = Notes::default();
    let (table, errors) = DeTable::parse_recoverable(source.text());
    let table = table.into_inner();
    let root = Section::root(&table, &notes);
    root.check_keys(&ROOT);
    let policy = root.get("policy").and_then(|node| node.string().map(PathBuf::from));
    let cases = read_cases(&root, source, codes);
    secrets::look(&table, &notes);
    let (findings, _) = notes.into_parts();
    let findings = super::beside_syntax(source, &errors, findings);
    // Each case that was left out has a finding.
    if findings.is_empty() { Ok(Cases { policy, cases }) } else { Err(findings) }
}

fn read_cases(root: &Section<'_>, source: &Source, codes: &[&str]) -> Vec<TestCase> {
    let hint = "[[case]] with method, url and expect";
    let list = root.require("case", hint).and_then(|node| node.filled_list(CASES_MAX, hint)).unwrap_or_default();
    let read = |node: Node<'_>| node.section().and_then(|section| read_case(&section, source, codes));
    list.into_iter().filter_map(read).collect()
}

fn read_case(section: &Section<'_>, source: &Source, codes: &[&str]) -> Option<TestCase> {
    section.check_keys(&CASE);
    let text = |name| section.get(name).and_then(|node| node.string()).map(str::to_owned);
    let needed = |name, hint| section.require(name, hint).and_then(|node| node.string()).map(str::to_owned);
    let method = needed("method", "method = \"GET\"; WEBSOCKET is an upgrade");
    let url = needed("url", "url = \"https://api.example.com/v1/things\"");
    let expect = section.require("expect", "expect = \"allow\", \"deny\" or the code of a refusal");
    let expect = expect.and_then(|node| read_expect(&node, codes));
    let holds = read_holds(section);
    let supposed = supposed::read(section);
    let now = section.get("now").and_then(|node| read_moment(&node));
    let (method, url) = (method?, url?);
    let shown = url.split('?').next().unwrap_or(&url);
    Some(TestCase {
        name: text("name").unwrap_or_else(|| format!("{method} {shown}")),
        line: source.line_of(section.start()) + 1,
        agent: text("agent"),
        service: text("service"),
        holds: holds?,
        supposed,
        now,
        expect: expect?,
        scope: text("scope"),
        rule: text("rule"),
        method,
        url,
    })
}

/// As RFC 3339 writes it.
fn read_moment(node: &Node<'_>) -> Option<Timestamp> {
    let moment = node.string()?.parse().ok();
    if moment.is_none() {
        let hint = "write a moment like \"2026-01-31T12:00:00Z\"";
        node.fault(Code::BadValue, "is not a moment".to_owned(), hint);
    }
    moment
}

fn read_expect(node: &Node<'_>, codes: &[&str]) -> Option<String> {
    let words: Vec<(&str, &str)> = [ALLOW, DENY].iter().chain(codes).map(|word| (*word, *word)).collect();
    node.word(&words).map(str::to_owned)
}

/// `scopes`, `grants` or `nonce = false`: one of them, or none.
fn read_holds(section: &Section<'_>) -> Option<Holds> {
    let (scopes, grants, nonce) = (section.get("scopes"), section.get("grants"), section.get("nonce"));
    if [&scopes, &grants, &nonce].iter().filter(|node| node.is_some()).count() > 1 {
        let message = "says twice what the nonce holds".to_owned();
        section.fault(Code::BadValue, message, "keep one of `scopes`, `grants` and `nonce = false`");
        return None;
    }
    if let Some(node) = nonce {
        return node.boolean().map(|is_there| if is_there { Holds::Unsaid } else { Holds::Nothing });
    }
    if let Some(node) = scopes {
        return read_names(&node).map(Holds::Scopes);
    }
    let Some(node) = grants else { return Some(Holds::Unsaid) };
    let entries = node.section()?.entries();
    if entries.is_empty() || entries.len() > GRANTS_MAX {
        node.fault(Code::BadValue, "names no service, or too many".to_owned(), "grants = { stripe = [\"read\"] }");
        return None;
    }
    let grant = |entry: &section::Named<'_>| Some((entry.name.to_owned(), read_names(&entry.value)?));
    entries.iter().map(grant).collect::<Option<Vec<_>>>().map(Holds::Grants)
}

fn read_names(node: &Node<'_>) -> Option<Vec<String>> {
    let list = node.filled_list(GRANTS_MAX, "name scopes, or leave the key out for all that the agent may have")?;
    list.into_iter().map(|node| node.string().map(str::to_owned)).collect()
}
