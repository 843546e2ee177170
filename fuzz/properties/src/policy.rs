//! Policy files: any text is a policy or a list of mistakes, and what is in force means the same when it is read again.

use std::sync::Arc;

use valetkey::config::{self, Loaded, Look};
use valetkey::model::MinterName;
use valetkey::policy::{Policy, Rule};

/// What is in force is itself a policy file that puts the same in force; mistakes can always be told.
///
/// # Panics
/// Where that does not hold.
pub fn policy(data: &[u8]) {
    let file: Arc<str> = Arc::from("fuzz.toml");
    for allow_exec in [false, true] {
        match config::check_policy(&file, data.to_vec(), allow_exec) {
            Err(mistakes) => assert!(!mistakes.report(Look::Plain).trim().is_empty(), "a refusal says why"),
            Ok(loaded) => {
                let shown = config::effective(&loaded).to_string();
                let again = config::check_policy(&file, shown.clone().into_bytes(), allow_exec)
                    .unwrap_or_else(|mistakes| panic!("{shown}\n{}", mistakes.report(Look::Plain)));
                assert_eq!(config::effective(&again).to_string(), shown, "what is in force stays in force");
                same(&judged_by(&again), &judged_by(&loaded));
                assert_eq!(config::read_environment(&again), config::read_environment(&loaded));
                assert_eq!(again.webhooks.len(), loaded.webhooks.len());
                assert_eq!(again.identities.bearers, loaded.identities.bearers);
                assert_eq!(again.identities.issuers, loaded.identities.issuers);
                assert_eq!(format!("{:?}", again.credentials), format!("{:?}", loaded.credentials));
            }
        }
    }
}

/// All that requests and mints are judged by: what it amounts to could leave something out in both. Rules of one kind have
/// no order among themselves.
fn judged_by(loaded: &Loaded) -> Vec<String> {
    let policy = &loaded.policy;
    let mut judged = Vec::new();
    for service in policy.services() {
        judged.extend(rules(&service.deny));
        for scope in &service.scopes {
            judged.extend(rules(&scope.deny));
            judged.extend(rules(&scope.allow));
        }
    }
    let shown = serde_json::to_value(config::effective(loaded)).expect("what is in force can be written");
    let minters = shown["minters"].as_object().expect("minters by name").keys();
    let minters: Vec<_> = minters.filter_map(|name| policy.minter(&MinterName::parse(name).ok()?)).collect();
    let rest = format!("{:#?}\n{:#?}\n{minters:#?}", policy.services(), policy.agent_rules());
    let mut rest: Vec<String> = rest.lines().map(str::to_owned).collect();
    rest.sort_unstable();
    judged.extend(rest);
    judged.push(format!(
        "{:?} {:?} {:?} {:?} {:?} {:?}",
        policy.risk_levels(),
        policy.unlisted(),
        policy.proxy_auth(),
        policy.on_misplaced(),
        policy.parent_proxy(),
        policy.reattest_min(),
    ));
    judged
}

fn rules(rules: &[Rule]) -> Vec<String> {
    let mut rules: Vec<String> = rules.iter().map(|rule| format!("{rule:?}")).collect();
    rules.sort_unstable();
    rules
}

/// Says where they begin to differ.
fn same(one: &[String], other: &[String]) {
    if let Some((one, other)) = one.iter().zip(other).find(|(one, other)| one != other) {
        panic!("what is judged by does not stay:\n{one}\nwas\n{other}");
    }
    assert_eq!(one.len(), other.len(), "what is judged by stays");
}

/// A policy that other properties use.
pub(crate) fn read(text: &str) -> Policy {
    let loaded = config::check_policy(&Arc::from("property.toml"), text.as_bytes().to_vec(), false);
    loaded.unwrap_or_else(|mistakes| panic!("{}", mistakes.report(Look::Plain))).policy
}
