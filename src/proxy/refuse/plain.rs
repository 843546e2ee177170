//! Plain text, which git shows line by line behind `remote:`.

use super::words::{Words, nonce_id};
use super::{Context, Spelled};
use crate::model::Denial;

pub(super) fn spell(denial: &Denial, context: &Context, words: &Words) -> Spelled {
    let mut body = format!("valetkey {}: {}\n", denial.code(), words.fact);
    for rule in &words.allowed {
        body.push_str(&format!("  allowed: {rule}\n"));
    }
    for step in &words.next_steps {
        body.push_str(&format!("  next: {step}\n"));
    }
    if let Some(id) = nonce_id(denial, context) {
        body.push_str(&format!("  nonce: {id}\n"));
    }
    body.push_str(&format!("  exchange: {}\n", context.exchange_id));
    Spelled { content_type: "text/plain; charset=utf-8", body }
}
