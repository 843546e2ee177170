//! The format of GitHub's secret scanning partner programme: what it reports, and what it is answered.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use zeroize::Zeroizing;

use crate::json::Json;
use crate::model::NonceHash;

/// Matches of one report at most.
const MATCHES_MAX: usize = 1000;
/// Longest `type`, in bytes: it is said again in the answer.
const TYPE_BYTES_MAX: usize = 128;

/// One text that the scanner took for a secret of ours.
pub(super) struct Match {
    pub(super) token: Zeroizing<String>,
    kind: String,
    url: String,
    source: String,
}

/// What came of one: GitHub's words.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Label {
    token_hash: String,
    token_type: String,
    label: &'static str,
}

impl Match {
    /// Where it was found, for the record.
    pub(super) fn place(&self) -> &str {
        if self.url.is_empty() { &self.source } else { &self.url }
    }

    /// Whether it was ours. The token is named by its hash: no nonce is in the answer.
    pub(super) fn label(&self, is_ours: bool) -> Label {
        Label {
            token_hash: STANDARD.encode(NonceHash::of(self.token.as_bytes()).as_bytes()),
            token_type: self.kind.clone(),
            label: if is_ours { "true_positive" } else { "false_positive" },
        }
    }
}

/// A list of objects with `token` and `type`, `url` and `source`; of each other member nothing is said.
pub(super) fn parse(bytes: &[u8]) -> Option<Vec<Match>> {
    let Ok(Json::Array(items)) = Json::parse(bytes) else { return None };
    if items.len() > MATCHES_MAX {
        return None;
    }
    items.iter().map(read).collect()
}

fn read(item: &Json) -> Option<Match> {
    let Json::Object(members) = item else { return None };
    // Absent is empty; twice, or of another type, is nothing that could be read in one way.
    let text = |name: &str| {
        let mut found = members.iter().filter(|(known, _)| known == name).map(|(_, value)| value);
        match (found.next(), found.next()) {
            (None, _) | (Some(Json::Null), None) => Some(String::new()),
            (Some(Json::Text(text)), None) => Some(text.clone()),
            (Some(_), _) => None,
        }
    };
    let seen = Match { token: text("token")?.into(), kind: text("type")?, url: text("url")?, source: text("source")? };
    (!seen.token.is_empty() && !seen.kind.is_empty() && seen.kind.len() <= TYPE_BYTES_MAX).then_some(seen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_are_read_strictly() {
        let read = |text: &str| parse(text.as_bytes()).map(|all| all.len());
        let one = r#"{"token":"t","type":"valetkey","url":"https://a.test/x","source":"content"}"#;
        assert_eq!(read(&format!("[{one},{one}]")), Some(2));
        assert_eq!(read("[]"), Some(0));
        assert_eq!(read(r#"[{"token":"t","type":"valetkey","url":null,"more":[1]}]"#), Some(1));
        for bad in [
            "{}",
            one,
            "[1]",
            r#"[{"token":"t"}]"#,
            r#"[{"type":"t"}]"#,
            r#"[{"token":1,"type":"t"}]"#,
            r#"[{"token":"a","token":"b","type":"t"}]"#,
            &format!("[{one}] x"),
            &format!("[{}]", vec![one; MATCHES_MAX + 1].join(",")),
            &format!(r#"[{{"token":"t","type":"{}"}}]"#, "x".repeat(129)),
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_answer_names_tokens_by_their_hash() {
        let all = parse(br#"[{"token":"t","type":"k","url":"","source":"commit"}]"#).unwrap();
        assert_eq!(all[0].place(), "commit");
        let text = serde_json::to_string(&all[0].label(true)).unwrap();
        let hash = "4+NHT02cp0Gimyrm6KWSFXz1YWgD7/tM4/8S6s4CcXI=";
        assert!(text.contains(r#""token_type":"k","label":"true_positive""#), "{text} {hash}");
    }
}
