//! Rules that say less than they seem to: one path behind which every operation stands.

use percent_encoding::percent_decode_str;

use super::rules::Side;
use super::section::Node;

/// What is behind such a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Behind {
    /// Queries and mutations alike, in the body or in the query.
    GraphQl,
    /// Requests in a request, each with a path of its own.
    Batch,
    /// Calls by a name in the body.
    Rpc,
}

/// Last segments of a path, in lower case.
const ENDPOINTS: [(&str, Behind); 11] = [
    ("graphql", Behind::GraphQl),
    ("graphiql", Behind::GraphQl),
    ("gql", Behind::GraphQl),
    ("batch", Behind::Batch),
    ("$batch", Behind::Batch),
    ("_batch", Behind::Batch),
    ("rpc", Behind::Rpc),
    ("jsonrpc", Behind::Rpc),
    ("json-rpc", Behind::Rpc),
    ("xmlrpc", Behind::Rpc),
    ("xml-rpc", Behind::Rpc),
];

/// Methods that carry no body to speak of: no batch and no call is in them.
const WITHOUT_BODY: [&str; 4] = ["GET", "HEAD", "DELETE", "OPTIONS"];

/// Warns of an allow that opens more than it seems to.
pub(super) fn warn(node: &Node<'_>, side: Side, text: &str) {
    match side {
        Side::Deny => {}
        Side::Allow => {
            if let Some(sentence) = sentence(text) {
                node.warn(sentence);
            }
        }
    }
}

fn sentence(text: &str) -> Option<&'static str> {
    let (method, place) = text.split_once(' ')?;
    let path = &place[place.find('/')?..];
    if path.starts_with("/{*") {
        return Some("allows every path of the host (name the paths that are needed)");
    }
    let behind = behind(path)?;
    match behind {
        Behind::GraphQl => Some(
            "one path for every operation: a rule cannot tell a query from a mutation (give the credential no more \
             than this agent may do, or put persisted queries with paths of their own in front)",
        ),
        Behind::Batch | Behind::Rpc if WITHOUT_BODY.contains(&method) => None,
        Behind::Batch => Some(
            "a batch holds requests that no rule looks at: this allows everything that can be put into one (allow the \
             requests themselves, each by its own path)",
        ),
        Behind::Rpc => Some(
            "the call is named in the body, which no rule looks at: this allows every call (give the credential no \
             more than this agent may do, or use an endpoint with a path for each call)",
        ),
    }
}

/// What stands behind a path by its last segment; `{*rest}` is what is behind.
fn behind(path: &str) -> Option<Behind> {
    let mut segments = path.trim_end_matches('/').rsplit('/');
    let last = segments.next()?;
    let last = if last.starts_with("{*") { segments.next()? } else { last };
    let last = percent_decode_str(last).decode_utf8().ok()?.to_ascii_lowercase();
    // `/v1:batch`, as Google's APIs spell it.
    let last = last.rsplit(':').next().unwrap_or(&last);
    ENDPOINTS.iter().find(|(name, _)| *name == last).map(|(_, behind)| *behind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_that_hide_operations_are_known_by_their_last_segment() {
        for (rule, word) in [
            ("POST /graphql", "mutation"),
            ("GET /graphql", "mutation"),
            ("WEBSOCKET /graphql", "mutation"),
            ("POST api.test/api/GraphQL/", "mutation"),
            ("POST /v1/gql", "mutation"),
            ("POST /batch", "a batch"),
            ("POST /v1.0/$batch", "a batch"),
            ("POST /v1.0/%24batch", "a batch"),
            ("PUT /batch/drive/v3/{*rest}", ""),
            ("POST /batch/{*rest}", "a batch"),
            ("POST /v1/documents:batch", "a batch"),
            ("POST /rpc", "every call"),
            ("POST /jsonrpc", "every call"),
            ("PATCH /{tenant}/json-rpc", "every call"),
            ("GET /{*rest}", "every path"),
            ("GET /batch", ""),
            ("DELETE /rpc", ""),
            ("POST /v1/batches", ""),
            ("POST /rpc/get_user", ""),
            ("POST /v1/{batch}", ""),
            ("POST /graphql/schema", ""),
        ] {
            match sentence(rule) {
                None => assert_eq!(word, "", "{rule}"),
                Some(said) => assert!(!word.is_empty() && said.contains(word), "{rule}: {said}"),
            }
        }
    }
}
