//! Policies as files spell them: what each says of one thing, asked in tables.

mod delegated;
mod explained;
mod explained_of_a_nonce;
mod judged;
mod people;

use super::explain::{Answer, Asked, Holds, explain, read};
use super::*;
use crate::config;

/// Where the credential of these tests may go.
const HOSTS: [&str; 8] =
    ["s.test", "t.test", "u.test", "plain.test", "rated.test", "bodies.test", "s.test:8443", "open.test"];

/// The policy of a file with this text, behind a credential for all hosts of these tests.
#[track_caller]
fn policy(text: &str) -> Policy {
    let hosts: Vec<String> = HOSTS.iter().map(|host| format!("\"{host}\"")).collect();
    let credential = format!("[credentials.c]\nsource = \"env\"\nname = \"KEY\"\nhosts = [{}]\n", hosts.join(", "));
    let file: Arc<str> = "policy.toml".into();
    let loaded = config::check_policy(&file, format!("version = 1\n{credential}{text}").into_bytes(), false);
    loaded.unwrap_or_else(|mistakes| panic!("{mistakes}")).policy
}

fn agent(name: &str) -> AgentName {
    AgentName::parse(name).unwrap()
}

fn service(name: &str) -> ServiceName {
    ServiceName::parse(name).unwrap()
}

/// The names of scopes, with blanks between.
fn scopes(names: &str) -> Vec<ScopeName> {
    names.split_whitespace().map(|name| ScopeName::parse(name).unwrap()).collect()
}

/// What stands before the first blank, and after it.
fn halves(text: &str) -> (&str, &str) {
    text.split_once(' ').unwrap()
}
