//! What was typed → what it means: the policy file and the flags. The only code that knows TOML.

use std::path::Path;

use crate::credential;
use crate::policy::Policy;

/// A policy file that was read without a mistake.
pub struct Loaded {
    /// The policy.
    pub policy: Policy,
    /// Its credentials.
    pub credentials: Vec<credential::Spec>,
    /// What deserves a word at start, each a sentence.
    pub warnings: Vec<String>,
}

/// Every mistake of a policy file, with file, line and column; `Display` is for people, `items` for `--json`.
#[derive(Debug)]
pub struct Mistakes {}

impl std::fmt::Display for Mistakes {
    fn fmt(&self, _f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        todo!()
    }
}

impl std::error::Error for Mistakes {}

/// Reads and checks a policy file.
///
/// # Errors
/// [`Mistakes`]: all of them at once.
pub fn load_policy(_path: &Path, _allow_exec: bool) -> Result<Loaded, Mistakes> {
    todo!()
}
