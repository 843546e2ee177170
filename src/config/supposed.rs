//! What a case says of a request's body and of its nonce, for the conditions of rules.

use super::mistake::Code;
use super::section::{Node, Section};
use crate::policy::BODY_BYTES_MAX;
use crate::policy::explain::Supposed;

/// Labels of a nonce at most.
const LABELS_MAX: usize = 16;

/// Reads it; a key with a mistake is noted, and left out.
pub(super) fn read(section: &Section<'_>) -> Supposed {
    let text = |name| section.get(name).and_then(|node| node.string()).map(str::to_owned);
    Supposed {
        body: section.get("body").and_then(|node| body(&node)).unwrap_or_default(),
        content_type: text("content_type"),
        content_encoding: text("content_encoding"),
        task: text("task"),
        instance: text("instance"),
        on_behalf_of: text("on_behalf_of"),
        labels: section.get("labels").and_then(|node| labels(&node)).unwrap_or_default(),
        age_seconds: section.get("age").and_then(|node| node.duration()).unwrap_or_default().as_secs(),
        uses: section.get("uses").and_then(|node| node.number(0, u32::MAX)),
        risk: text("risk"),
    }
}

/// A body that some rule could look at.
fn body(node: &Node<'_>) -> Option<String> {
    let text = node.string()?;
    if text.len() <= BODY_BYTES_MAX {
        return Some(text.to_owned());
    }
    node.fault(Code::TooLarge, format!("has {} bytes", text.len()), format!("at most {BODY_BYTES_MAX}"));
    None
}

fn labels(node: &Node<'_>) -> Option<Vec<(String, String)>> {
    let entries = node.section()?.entries();
    if entries.len() > LABELS_MAX {
        node.fault(Code::TooLarge, format!("has {} labels", entries.len()), format!("at most {LABELS_MAX}"));
        return None;
    }
    entries.iter().map(|entry| Some((entry.name.to_owned(), entry.value.string()?.to_owned()))).collect()
}
