//! What the credentials of a policy say, and whom they are for.

use std::path::Path;

/// What a credential said, and its hosts.
#[derive(Debug)]
pub struct Source {
    hosts: Vec<String>,
    /// The value, where it is a variable: it is looked for although no test has guarded it.
    variable: Option<String>,
    /// What stands in the file, or in the command and in the files that it names.
    text: String,
}

/// The credentials of a policy, as far as it can be read.
pub(super) fn read(policy: &str, environment: &[(String, String)], directory: &Path) -> Vec<Source> {
    let place = directory.to_str().expect("a path");
    let Ok(policy) = policy.replace("{dir}", place).parse::<toml::Table>() else { return Vec::new() };
    let credentials = policy.get("credentials").and_then(toml::Value::as_table);
    credentials.into_iter().flatten().map(|(_, credential)| Source::of(credential, environment)).collect()
}

impl Source {
    fn of(credential: &toml::Value, environment: &[(String, String)]) -> Self {
        let text = |key| credential.get(key).and_then(toml::Value::as_str);
        let mut files = words(credential.get("command"));
        files.extend(text("path").map(str::to_owned));
        let content = |path: &String| String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned();
        Self {
            hosts: words(credential.get("hosts")),
            variable: environment.iter().find(|(name, _)| text("name") == Some(name)).map(|(_, value)| value.clone()),
            text: files.iter().map(|word| format!("{word}\n{}\n", content(word))).collect(),
        }
    }

    fn says(&self, secret: &str) -> bool {
        self.text.contains(secret) || self.variable.as_ref().is_some_and(|value| value.contains(secret))
    }

    fn is_for(&self, names: &[String]) -> bool {
        self.hosts.iter().any(|host| names.contains(host))
    }
}

fn words(list: Option<&toml::Value>) -> Vec<String> {
    let list = list.and_then(toml::Value::as_array).into_iter().flatten();
    list.filter_map(|word| word.as_str().map(str::to_owned)).collect()
}

/// What an upstream of these names must not hear: what is said by credentials none of which is for it.
pub(super) fn foreign(sources: &[&Source], canaries: &[String], names: &[String]) -> Vec<String> {
    let variables = sources.iter().filter_map(|source| source.variable.as_ref());
    let is_foreign = |secret: &&String| {
        let own: Vec<_> = sources.iter().filter(|source| source.says(secret)).collect();
        !own.is_empty() && !own.iter().any(|source| source.is_for(names))
    };
    canaries.iter().chain(variables).filter(is_foreign).cloned().collect()
}
