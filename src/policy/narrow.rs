//! The list of its own that a delegated nonce can have: lines that narrow what its scopes allow.
//!
//! A list never allows anything by itself. A request has to be within the list of the nonce, within those of all above it,
//! and allowed by the scopes of each: so that whatever stands in a list, it opens nothing.

use super::decide::RequestFacts;
use super::rule::{BadSyntax, QueryRule, Rule};

/// Lines of one list at most.
pub const LINES_MAX: usize = 64;

/// Reads one line: method, host where there is one, and path, as in `allow`; of the query, the body and what conditions
/// look at it says nothing.
///
/// # Errors
/// [`BadSyntax`].
pub fn read_line(text: &str) -> Result<Rule, BadSyntax> {
    let rule = Rule::parse(text, QueryRule::Any, false)?;
    if rule.is_any_method() {
        return Err(BadSyntax("name the methods, one line each: * is for denies".to_owned()));
    }
    Ok(rule)
}

/// True where a list lets a request be: one of its lines matches it, or there are none, and so no list. A line that
/// cannot be read matches nothing.
pub fn lists<'a>(lines: impl Iterator<Item = &'a str>, facts: &RequestFacts<'_>) -> bool {
    let mut lines = lines.peekable();
    lines.peek().is_none() || lines.any(|line| read_line(line).is_ok_and(|line| line.matches_line(facts)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Host;
    use crate::policy::Target;

    fn is_listed(lines: &[&str], method: &str, host: &str, path: &str) -> bool {
        let (host, target) = (Host::parse(host).unwrap(), Target::parse(path).unwrap());
        let facts = RequestFacts { method, websocket: method == "WEBSOCKET", host: &host, target: &target };
        lists(lines.iter().copied(), &facts)
    }

    #[test]
    fn a_list_lets_be_what_a_line_says_and_nothing_else() {
        let lines = ["GET /a/{id}", "POST b.test/x", "GET /r/{*rest}", "GET /s/", "WEBSOCKET /w", "GET /c/cus_{id}"];
        for (method, host, path, expected) in [
            ("GET", "a.test", "/a/1", true),
            ("HEAD", "a.test", "/a/1?x=1", true),
            ("POST", "a.test", "/a/1", false),
            ("GET", "a.test", "/a", false),
            ("GET", "a.test", "/a/1/", false),
            ("GET", "a.test", "/a/1/2", false),
            ("GET", "a.test", "/a/1%2F2", false),
            ("POST", "b.test", "/x", true),
            ("POST", "a.test", "/x", false),
            ("GET", "a.test", "/r/1/2", true),
            ("GET", "a.test", "/r", false),
            ("GET", "a.test", "/r/", false),
            ("GET", "a.test", "/s/", true),
            ("GET", "a.test", "/s", false),
            ("WEBSOCKET", "a.test", "/w", true),
            ("GET", "a.test", "/w", false),
            ("GET", "a.test", "/c/cus_1", true),
            ("GET", "a.test", "/c/cus_", false),
            ("GET", "a.test", "/c/card_1", false),
        ] {
            assert_eq!(is_listed(&lines, method, host, path), expected, "{method} {host}{path}");
        }
    }

    #[test]
    fn no_list_narrows_nothing_and_one_that_cannot_be_read_everything() {
        assert!(is_listed(&[], "GET", "a.test", "/a"));
        assert!(!is_listed(&["* /{*path}"], "GET", "a.test", "/a"));
        assert!(!is_listed(&["", "GET"], "GET", "a.test", "/a"));
    }

    #[test]
    fn a_line_names_its_method() {
        assert!(read_line("* /a").is_err() && read_line("GET").is_err() && read_line("CONNECT /a").is_err());
        assert!(read_line("PATCH a.test/a/{*rest}").is_ok());
    }
}
