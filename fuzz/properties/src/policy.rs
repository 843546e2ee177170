//! Policy files: any text is a policy or a list of mistakes, and what is in force means the same when it is read again.

use std::sync::Arc;

use valetkey::config::{self, Look};
use valetkey::policy::Policy;

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
                assert_eq!(config::read_environment(&again), config::read_environment(&loaded));
                assert_eq!(again.webhooks.len(), loaded.webhooks.len());
                assert_eq!(again.identities.bearers, loaded.identities.bearers);
                assert_eq!(again.identities.issuers, loaded.identities.issuers);
                assert_eq!(format!("{:?}", again.credentials), format!("{:?}", loaded.credentials));
            }
        }
    }
}

/// A policy that other properties use.
pub(crate) fn read(text: &str) -> Policy {
    let loaded = config::check_policy(&Arc::from("property.toml"), text.as_bytes().to_vec(), false);
    loaded.unwrap_or_else(|mistakes| panic!("{}", mistakes.report(Look::Plain))).policy
}
