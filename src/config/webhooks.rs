//! `[webhooks.NAME]`.

use http::Uri;

use super::credentials;
use super::effective::EffectiveWebhook;
use super::mistake::Code;
use super::section::{Keys, Named, Node, Section};
use crate::control::webhooks::{TOPICS, Topic, Webhook};
use crate::model::Destination;

/// Webhooks at most.
const WEBHOOKS_MAX: usize = 16;
/// Longest name.
const NAME_BYTES_MAX: usize = 64;

const KEYS: Keys = Keys { known: &["url", "secret", "on", "private", "ca"], later: &[] };

/// A webhook with what `policy show` prints of it; `None` where it had mistakes.
pub(super) type ReadWebhook = Option<(Webhook, EffectiveWebhook)>;

pub(super) fn read(root: &Section<'_>) -> Vec<ReadWebhook> {
    let Some(section) = root.get("webhooks").and_then(|node| node.section()) else { return Vec::new() };
    let entries = section.entries();
    if entries.len() > WEBHOOKS_MAX {
        section.fault(Code::TooLarge, format!("has {} webhooks", entries.len()), format!("at most {WEBHOOKS_MAX}"));
        return vec![None];
    }
    entries.iter().map(read_one).collect()
}

fn read_one(entry: &Named<'_>) -> ReadWebhook {
    let section = entry.value.section_at(&entry.label)?;
    section.check_keys(&KEYS);
    let url = section.require("url", "url = \"https://hooks.example.com/valetkey\"").and_then(|node| read_url(&node));
    let secret = section
        .require("secret", "secret = \"/run/secrets/webhook\": a file with `whsec_` and a key in base64")
        .and_then(|node| credentials::absolute_path(&node));
    let on = section.require("on", "on = [\"revoked\", \"leaked\"]").and_then(|node| read_topics(&node));
    let private = section.get("private").map_or(Some(false), |node| node.boolean());
    let ca = match section.get("ca") {
        Some(node) => credentials::absolute_path(&node).map(Some),
        None => Some(None),
    };
    let name = read_name(entry);
    let (destination, target) = url?;
    let webhook = Webhook { name: name?, destination, target, secret: secret?, on: on?, private: private?, ca: ca? };
    let effective = EffectiveWebhook::new(&webhook);
    Some((webhook, effective))
}

/// It stands in metrics and in the audit.
fn read_name(entry: &Named<'_>) -> Option<String> {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
    let is_fine = !entry.name.is_empty() && entry.name.len() <= NAME_BYTES_MAX && entry.name.bytes().all(is_plain);
    if !is_fine {
        entry.label.fault(Code::BadValue, "is no name".to_owned(), "lower-case letters, digits, - and _");
    }
    is_fine.then(|| entry.name.to_owned())
}

/// Not shown where it is wrong: people write secrets into these.
fn read_url(node: &Node<'_>) -> Option<(Destination, String)> {
    let hint = "url = \"https://HOST/PATH\", without a user; what it must not show belongs into `secret`";
    let uri = node.string()?.parse::<Uri>().ok().filter(|uri| uri.scheme_str() == Some("https"));
    let found = uri.and_then(|uri| {
        let destination = Destination::parse(uri.authority()?.as_str(), Some(443)).ok()?;
        Some((destination, uri.path_and_query().map_or("/", |target| target.as_str()).to_owned()))
    });
    if found.is_none() {
        node.fault(Code::BadValue, "is not the https:// URL of a webhook".to_owned(), hint);
    }
    found
}

fn read_topics(node: &Node<'_>) -> Option<Vec<Topic>> {
    let words = node.filled_list(TOPICS.len(), "on = [\"revoked\", \"leaked\", \"misused\", \"denials\"]")?;
    words.iter().map(|word| word.word(&TOPICS)).collect()
}

/// The word of the policy for a topic.
pub(super) fn topic_word(topic: Topic) -> &'static str {
    TOPICS.iter().find(|(_, known)| *known == topic).map_or("", |(word, _)| word)
}
