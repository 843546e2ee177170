//! The examples of who presents and who mints, held to the reader of policies.

use std::collections::BTreeSet;
use std::process::Command;

use super::{blocks, read};
use crate::support::binary;

/// What a policy has to have and an example in docs/IDENTITY.md leaves out; each by its first line.
const FRAME: [&str; 3] = [
    "[credentials.stripe]\nsource = \"env\"\nname = \"STRIPE_RESTRICTED_KEY\"\nhosts = [\"api.stripe.com\"]\n",
    "[services.stripe]\npreset = \"stripe@1\"\ncredential = \"stripe\"\n",
    "[agents.billing]\nidentity = [\"uid:1000\"]\ngrants = { stripe = [\"read:customers\"] }\n",
];

/// What has to have an example: who is proven by which kind of identity, and what vouches for it.
const SHOWN: [&str; 17] = [
    "agents kubernetes",
    "agents mtls",
    "agents oidc",
    "agents spiffe",
    "agents uid",
    "client_cas ca",
    "client_cas workload_api",
    "issuers api_server",
    "issuers jwks",
    "issuers workload_api",
    "minters bearer",
    "minters kubernetes",
    "minters mtls",
    "minters oidc",
    "minters spiffe",
    "minters uid",
    "services attach",
];

/// What an example shows, spelled as in [`SHOWN`].
fn shown(block: &str) -> Vec<String> {
    let mut found = Vec::new();
    let sections: toml::Table = block.parse().unwrap_or_else(|error| panic!("{error}:\n{block}"));
    for (section, entries) in &sections {
        for entry in entries.as_table().into_iter().flatten().filter_map(|(_, entry)| entry.as_table()) {
            let identities = entry.get("identity").and_then(toml::Value::as_array).into_iter().flatten();
            let kinds = identities.filter_map(|identity| identity.as_str()?.split_once(':')).map(|(kind, _)| kind);
            let keys = entry.keys().map(String::as_str);
            found.extend(kinds.chain(keys).map(|what| format!("{section} {what}")));
        }
    }
    found
}

#[test]
fn every_example_of_who_is_proven_is_a_policy_without_a_warning() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("policy.toml");
    let mut seen = BTreeSet::new();
    for block in blocks(&read("docs/IDENTITY.md"), |info| info == "toml") {
        let is_missing = |piece: &&&str| !block.contains(piece.lines().next().expect("a first line"));
        let frame: String = FRAME.iter().filter(is_missing).copied().collect();
        std::fs::write(&path, format!("version = 1\n{frame}{block}")).expect("a file");
        let output = Command::new(binary()).args(["policy", "check"]).arg(&path).output().expect("the binary");
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && !said.contains("warning"), "{said}\n{block}");
        seen.extend(shown(&block));
    }
    let missing: Vec<_> = SHOWN.iter().filter(|what| !seen.contains(**what)).collect();
    assert!(missing.is_empty(), "without an example: {missing:?}");
}
