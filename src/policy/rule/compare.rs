//! Two rules beside each other, and a rule with all its conditions as text.

use std::fmt;

use super::{End, Method, Pattern, QueryRule, Rule, Segment};
use crate::policy::condition::Condition;
use crate::policy::target::{before_delimiter, without_ends};

impl Rule {
    /// True when this deny can forbid something that `allow` allows. Says true where it is not certain.
    #[must_use]
    pub fn can_forbid(&self, allow: &Rule) -> bool {
        let method = match (&self.method, &allow.method) {
            // A deny of GET forbids HEAD and upgrades too; an allow of GET allows HEAD.
            (Method::Any, _) | (Method::WebSocket, Method::WebSocket) => true,
            (Method::Exact(own), Method::WebSocket) => **own == *b"GET",
            (Method::WebSocket, Method::Exact(_) | Method::Any) => false,
            (Method::Exact(own), Method::Exact(others)) => {
                own == others || [own, others].iter().all(|name| ***name == *b"GET" || ***name == *b"HEAD")
            }
            (Method::Exact(_), Method::Any) => false,
        };
        let host = self.host.is_none() || allow.host.is_none() || self.host == allow.host;
        // A deny reads an encoded slash in every way in which a server could.
        method && host && (allow.encoded_slash || self.path.overlaps(&allow.path))
    }

    /// The rule with its conditions: `GET /v1/charges with query ["limit"]`, `POST /v1/refunds when body.amount > 0`.
    #[must_use]
    pub fn described(&self) -> String {
        let slash = if self.encoded_slash { " with encoded_slash" } else { "" };
        let condition = self.condition().map(Condition::described).unwrap_or_default();
        format!("{}{}{slash}{condition}", self.text, self.query)
    }
}

/// Nothing for any query.
impl fmt::Display for QueryRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => Ok(()),
            Self::Only(names) => write!(f, " with query {names:?}"),
            Self::Exactly(pairs) => {
                let pairs: Vec<String> = pairs.iter().map(|(name, value)| format!("{name:?} = {value:?}")).collect();
                write!(f, " with query {{ {} }}", pairs.join(", "))
            }
        }
    }
}

impl Pattern {
    /// True when a path can match both. A trailing slash is not looked at, as denies do.
    fn overlaps(&self, other: &Self) -> bool {
        let (own, others) = (self.segments.len(), other.segments.len());
        let lengths = match (self.end == End::Rest, other.end == End::Rest) {
            (true, true) => true,
            (true, false) => others > own,
            (false, true) => own > others,
            (false, false) => own == others,
        };
        // Denies also read a path that ends in the middle, at an escaped `?` or `#`: a capture can hold one.
        let ends_early = others >= own && matches!(other.segments.get(own.wrapping_sub(1)), Some(Segment::Capture(_)));
        (lengths || ends_early) && self.segments.iter().zip(&other.segments).all(|(own, others)| own.overlaps(others))
    }
}

impl Segment {
    /// Of a deny, which also reads a segment without what follows `;`, `?` or `#`, and without blanks and dots at its ends.
    fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Literal(own), Self::Literal(others)) => own == others || can_read_as(others, own),
            // The beginning alone is within reach, too: what is captured can be all delimiter or blanks.
            (Self::Literal(own), Self::Capture(beginning)) => {
                own.starts_with(&**beginning) || can_read_as(beginning, own)
            }
            (Self::Capture(beginning), Self::Literal(others)) => {
                others.len() > beginning.len() && others.starts_with(&**beginning)
            }
            (Self::Capture(own), Self::Capture(others)) => own.starts_with(&**others) || others.starts_with(&**own),
        }
    }
}

/// True when a deny can read a segment that begins so as this one: cut at a delimiter, with or without its ends.
fn can_read_as(text: &str, own: &str) -> bool {
    let cut = before_delimiter(text);
    own == cut || own == without_ends(cut)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &str) -> Rule {
        Rule::parse(text, QueryRule::Any, false).unwrap()
    }

    #[test]
    fn a_deny_can_forbid_what_it_has_in_common_with_an_allow() {
        for (deny, allow, can) in [
            ("* /v1/keys", "GET /v1/{id}", true),
            ("* /v1/keys", "GET /v1/keys/{id}", false),
            ("* /v1/keys", "GET /v1/{id}/part", true),
            ("* /v1/keys", "GET /v1/keys./part", false),
            ("* /v1/keys", "GET /v1/keys.", true),
            ("GET /v1/{*rest}", "HEAD /v1/a/b", true),
            ("HEAD /v1/a", "GET /v1/a", true),
            ("GET /v1/a", "WEBSOCKET /v1/a", true),
            ("POST /v1/a", "WEBSOCKET /v1/a", false),
            ("WEBSOCKET /v1/a", "GET /v1/a", false),
            ("POST /v1/a", "GET /v1/a", false),
            ("* a.test/v1/a", "GET /v1/a", true),
            ("* a.test/v1/a", "GET b.test/v1/a", false),
            ("* /v1/a/", "GET /v1/a", true),
            ("* /v1/{*rest}", "GET /{*rest}", true),
            ("* /v1/{*rest}", "GET /v1", false),
            ("* /a/{x}", "GET /{*rest}", true),
            ("* /c/cus_{id}", "GET /c/{id}", true),
            ("* /c/cus_{id}", "GET /c/card_{id}", false),
            ("* /c/cus_{id}", "GET /c/cus_", false),
            ("* /v1/a", "GET /v1/a;v=1", true),
            ("* /v1/a", "GET /v1/a;{x}", true),
            ("* /v1/a", "GET /v1/b;{x}", false),
            ("* /v1", "GET /v1/{*rest}", false),
            ("* /{x}", "GET /{*rest}", true),
            ("* /{x}", "GET /v1/{*rest}", false),
            ("* /c/cus_{id}", "GET /c/cus_1", true),
            ("* /c/cus_{id}", "GET /c/cu", false),
            ("* /c/cus_", "GET /c/cus_{id}", true),
            ("* /c/cus_1", "GET /c/cus_{id}", true),
            ("* /c/card_1", "GET /c/cus_{id}", false),
            ("* /a.", "GET /a.;v=1", true),
            ("* /a.", "GET /a.;{x}", true),
            ("* /a.", "GET /a.{x}", true),
            ("* /a;b", "GET /a;b{x}", true),
            ("* /b", "GET /a;b{x}", false),
        ] {
            assert_eq!(rule(deny).can_forbid(&rule(allow)), can, "{deny} and {allow}");
        }
    }

    #[test]
    fn conditions_are_told() {
        let only = Rule::parse("GET /a", QueryRule::Only(vec!["limit".into()]), true).unwrap();
        assert_eq!(only.described(), "GET /a with query [\"limit\"] with encoded_slash");
        let exactly = QueryRule::Exactly(vec![("service".into(), "x".into())]);
        assert_eq!(
            Rule::parse("GET /a", exactly, false).unwrap().described(),
            "GET /a with query { \"service\" = \"x\" }"
        );
        assert_eq!(rule("GET /a").described(), "GET /a");
    }
}
