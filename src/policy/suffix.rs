//! Public suffixes: names beneath which strangers register theirs.
//!
//! The list is text, looked through from its beginning, since that is done when a policy is read and never for a
//! request. Made into code by the crate `psl` it was larger by half a megabyte.

use memchr::memmem;

/// A rule a line, names as in DNS (punycode), in the order of their bytes, under one line that says where it is from.
const LIST: &str = include_str!("suffixes.txt");

/// Whether strangers register names right below this one. A name of one label always counts as such.
pub(super) fn is_public(host: &str) -> bool {
    let Some((_, parent)) = host.split_once('.') else { return true };
    let is_exempt = has(&format!("!{host}"));
    !is_exempt && (has(host) || has(&format!("*.{parent}")))
}

fn has(rule: &str) -> bool {
    memmem::find(LIST.as_bytes(), format!("\n{rule}\n").as_bytes()).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes_are_what_the_list_says() {
        for name in ["com", "co.uk", "github.io", "nowhere-known", "b.ck", "xn--55qx5d.cn", "x.compute.amazonaws.com"] {
            assert!(is_public(name), "{name}");
        }
        for name in ["example.com", "a.b.ck", "www.ck", "github.com", "o.uk", "ac.example", "example.nowhere-known"] {
            assert!(!is_public(name), "{name}");
        }
    }

    #[test]
    fn the_list_is_whole_and_says_what_the_crate_says() {
        let (head, rules) = LIST.split_once('\n').unwrap();
        let lock = include_str!("../../Cargo.lock");
        let (_, version) = lock.split_once("name = \"psl\"\nversion = \"").unwrap();
        let version = version.split('"').next().unwrap();
        assert!(
            head.ends_with(&format!("as in psl {version}")),
            "docs/DEPENDENCIES.md says how it is made anew: {head}"
        );
        assert!(rules.ends_with('\n') && rules.lines().count() > 10_000);
        assert!(rules.bytes().all(|byte| byte == b'\n' || byte.is_ascii_graphic()));
        // Not all of them, since each is looked for among all. The crate has names as people read them, and finds none as it
        // is in DNS.
        let special = rules.lines().filter(|rule| rule.starts_with('!'));
        let sample = rules.lines().step_by(97).filter(|rule| !rule.contains("xn--")).chain(special);
        for rule in sample {
            let name = rule.trim_start_matches('!').replacen('*', "any", 1);
            for name in [format!("below.{name}"), name] {
                let theirs = psl::suffix_str(&name).is_none_or(|suffix| suffix == name);
                assert_eq!(is_public(&name), theirs, "{name}");
            }
        }
    }
}
