//! What the command is started with: the environment that it would have had, without secrets, with nonces.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use zeroize::Zeroizing;

use super::grants::ServiceFacts;
use super::names;
use crate::cli::{Failure, print};

/// Shorter values are too common to be taken for a credential wherever they occur.
const VALUE_BYTES_MIN: usize = 16;
/// Keeps AWS SDKs from asking the machine's metadata service who they are.
const METADATA_OFF: (&str, &str) = ("AWS_EC2_METADATA_DISABLED", "true");

/// What is taken out.
#[derive(Debug, Default)]
pub(super) struct Secrets {
    /// Variables that credentials of the policy come from.
    pub(super) credentials: Vec<String>,
    /// The services of the policy.
    pub(super) services: Vec<ServiceFacts>,
    /// Variables that stay nevertheless.
    pub(super) keep: Vec<String>,
}

/// An environment in the making.
pub(super) struct Environment {
    variables: BTreeMap<OsString, Zeroizing<Vec<u8>>>,
    taken: BTreeSet<String>,
}

impl Environment {
    /// The parent's environment without its secrets.
    ///
    /// # Errors
    /// [`Failure`]: one of the policy's own credentials is to be kept.
    pub(super) fn strip(
        parent: impl Iterator<Item = (OsString, OsString)>,
        secrets: &Secrets,
    ) -> Result<Self, Failure> {
        let credentials: Vec<&String> = secrets.credentials.iter().filter(|name| !names::is_harmless(name)).collect();
        if let Some(name) = secrets.keep.iter().find(|name| credentials.contains(name)) {
            let name = print::visible(name);
            return Err(Failure::usage(format!(
                "--keep-env {name}: the policy reads a credential from it, and a command never gets one\n  \
                 give it a nonce under that name: --grant SERVICE:SCOPE={name}"
            )));
        }
        let parent: Vec<_> = parent.map(|(name, value)| (name, Zeroizing::new(value.as_bytes().to_vec()))).collect();
        let holds = |name: &OsStr| credentials.iter().any(|credential| name == credential.as_str());
        let values: Vec<&[u8]> = parent.iter().filter(|(name, _)| holds(name)).map(|(_, value)| &value[..]).collect();
        let values: Vec<&[u8]> = values.into_iter().filter(|value| value.len() >= VALUE_BYTES_MIN).collect();
        let known: BTreeSet<&str> =
            secrets.services.iter().flat_map(|facts| names::secrets_of(&facts.name, &facts.hosts)).collect();
        let is_secret = |name: &OsStr, value: &[u8]| {
            let text = name.to_string_lossy();
            let is_kept = secrets.keep.iter().any(|keep| **keep == *text);
            // Its value is a credential's: no --keep-env lets that through.
            holds(name)
                || values.iter().any(|secret| memchr::memmem::find(value, secret).is_some())
                || !is_kept && (known.contains(&*text) || names::is_identity(&text) || text.starts_with(names::OWN))
        };
        let taken = parent.iter().filter(|(name, value)| is_secret(name, value));
        let taken: BTreeSet<String> = taken.map(|(name, _)| name.to_string_lossy().into_owned()).collect();
        let variables = parent.iter().filter(|(name, value)| !is_secret(name, value)).cloned().collect();
        let mut environment = Self { variables, taken };
        environment.set(METADATA_OFF.0, METADATA_OFF.1);
        Ok(environment)
    }

    /// A variable's value, where it is text.
    pub(super) fn get(&self, name: &str) -> Option<String> {
        let value = self.variables.get(OsStr::new(name))?;
        std::str::from_utf8(value).ok().map(str::to_owned)
    }

    /// Sets a variable.
    pub(super) fn set(&mut self, name: &str, value: &str) {
        self.taken.remove(name);
        self.variables.insert(name.into(), Zeroizing::new(value.as_bytes().to_vec()));
    }

    /// Takes a variable out, without a word.
    pub(super) fn remove(&mut self, name: &str) {
        self.variables.remove(OsStr::new(name));
    }

    /// The variables, for a command.
    pub(super) fn variables(&self) -> impl Iterator<Item = (&OsStr, &OsStr)> {
        self.variables.iter().map(|(name, value)| (name.as_os_str(), OsStr::from_bytes(value)))
    }

    /// Names of the variables that were set and that the command does not get.
    pub(super) fn taken(&self) -> impl Iterator<Item = &str> {
        self.taken.iter().map(String::as_str).filter(|name| !name.starts_with(names::OWN))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REAL: &str = "sk_live_0123456789abcdef";

    fn strip(parent: &[(&str, &str)], keep: &[&str]) -> Result<Environment, Failure> {
        let stripe = ServiceFacts { name: "payments".into(), hosts: vec!["api.stripe.com".into()] };
        let secrets = Secrets {
            credentials: vec!["REAL_KEY".into(), "SHORT".into(), "PATH".into()],
            services: vec![stripe],
            keep: keep.iter().map(|name| (*name).to_owned()).collect(),
        };
        Environment::strip(parent.iter().map(|(name, value)| (name.into(), value.into())), &secrets)
    }

    fn names(environment: &Environment) -> Vec<String> {
        environment.variables().map(|(name, _)| name.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn real_keys_and_identities_go_and_the_rest_stays() {
        let bearer = format!("Bearer {REAL}");
        let parent = [
            ("REAL_KEY", REAL),
            ("COPY", REAL),
            ("HEADER", &bearer),
            ("SHORT", "default"),
            ("AWS_PROFILE", "default"),
            ("STRIPE_API_KEY", "another"),
            ("GITHUB_TOKEN", "of no service here"),
            ("AWS_SESSION_TOKEN", "x"),
            ("SSH_AUTH_SOCK", "/x"),
            ("VALETKEY_CONTROL", "/x"),
            ("PATH", "/bin"),
        ];
        let environment = strip(&parent, &[]).unwrap();
        assert_eq!(names(&environment), ["AWS_EC2_METADATA_DISABLED", "AWS_PROFILE", "GITHUB_TOKEN", "PATH"]);
        let taken: Vec<_> = environment.taken().collect();
        assert_eq!(
            taken,
            ["AWS_SESSION_TOKEN", "COPY", "HEADER", "REAL_KEY", "SHORT", "SSH_AUTH_SOCK", "STRIPE_API_KEY"]
        );
    }

    #[test]
    fn what_is_kept_is_no_credential_of_the_policy() {
        let parent = [("REAL_KEY", REAL), ("COPY", REAL), ("SSH_AUTH_SOCK", "/x"), ("STRIPE_API_KEY", "own")];
        let kept = strip(&parent, &["SSH_AUTH_SOCK", "COPY"]).unwrap();
        assert_eq!(names(&kept), ["AWS_EC2_METADATA_DISABLED", "SSH_AUTH_SOCK"]);
        let said = format!("{:?}", strip(&parent, &["REAL_KEY"]).err().unwrap());
        assert!(said.contains("--keep-env REAL_KEY") && !said.contains(REAL), "{said}");
    }

    #[test]
    fn a_nonce_in_the_place_of_a_key_is_not_told_as_missing() {
        let mut environment = strip(&[("STRIPE_API_KEY", "real")], &[]).unwrap();
        environment.set("STRIPE_API_KEY", "an_x");
        assert_eq!(environment.taken().count(), 0);
        assert_eq!(environment.get("STRIPE_API_KEY").as_deref(), Some("an_x"));
        environment.remove("STRIPE_API_KEY");
        assert_eq!(environment.get("STRIPE_API_KEY"), None);
    }
}
