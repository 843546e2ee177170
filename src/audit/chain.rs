//! The chain: how a record is sealed with a hash over itself and the one before, and read back.

use jiff::Timestamp;
use ring::digest;
use serde::Deserialize;

use super::author::{Author, PublicKey, Role, Signature, parse_signature};
use super::fields::{Fields, HASH_CHARACTERS, hex, key};
use super::record::Entry;

/// Longest record, in bytes, its newline not counted.
pub(super) const LINE_BYTES_MAX: usize = 1024 * 1024;

/// A SHA-256.
pub(super) type Hash = [u8; 32];

/// `prev` of a chain's first record.
pub(super) const NO_HASH: Hash = [0; 32];

const HASH_MEMBER: &[u8] = b",\"hash\":\"";
/// `,"hash":"…"}`: the end of every record.
const SEAL_BYTES: usize = HASH_MEMBER.len() + HASH_CHARACTERS + 2;

/// Where a chain stands: the number of the last record of this boot, and its hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) seq: u64,
    pub(super) head: Hash,
}

/// Appends the line of `entry` that follows `position`, and says where the chain stands then.
pub(super) fn seal(
    out: &mut Vec<u8>,
    author: &Author,
    position: Position,
    entry: &Entry,
    torn: Option<u64>,
) -> Position {
    let start = out.len();
    let seq = position.seq + 1;
    out.extend_from_slice(b"{\"v\":1");
    let mut fields = Fields::after_first(out);
    fields.text(key!("boot_id"), &author.boot_id);
    fields.number(key!("seq"), seq);
    fields.time(key!("time"), entry.time);
    fields.text(key!("type"), entry.body.kind());
    if let Some(bytes) = torn {
        fields.number(key!("recovered_torn_bytes"), bytes);
    }
    entry.body.write(&mut fields);
    let role = Role::in_body(&entry.body);
    if role == Role::Names {
        fields.hash(key!("key"), author.public());
    }
    fields.hash(key!("prev"), &position.head);
    if role != Role::None {
        author.sign(out, start);
    }
    let head = hash(&position.head, &out[start..]);
    out.extend_from_slice(HASH_MEMBER);
    out.extend_from_slice(&hex(&head));
    out.extend_from_slice(b"\"}\n");
    Position { seq, head }
}

/// SHA-256 over the hash before and the record without its `hash` member; `open` lacks the closing brace.
fn hash(prev: &Hash, open: &[u8]) -> Hash {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(prev);
    context.update(open);
    context.update(b"}");
    let mut hash = NO_HASH;
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

/// A line that has the form of a record.
#[derive(Debug)]
pub(super) struct Sealed {
    pub(super) version: u64,
    pub(super) boot_id: String,
    pub(super) seq: u64,
    pub(super) kind: String,
    /// When it happened, where that can be read.
    pub(super) time: Option<Timestamp>,
    pub(super) torn_bytes: Option<u64>,
    /// How many were lost.
    pub(super) records: Option<u64>,
    /// The key of its boot.
    pub(super) key: Option<PublicKey>,
    /// Where the text that is signed ends, and the signature.
    pub(super) signature: Option<(usize, Signature)>,
    pub(super) prev: Hash,
    pub(super) hash: Hash,
    /// The hash is that of the text.
    pub(super) is_intact: bool,
}

#[derive(Deserialize)]
struct Members {
    v: u64,
    boot_id: String,
    seq: u64,
    #[serde(rename = "type")]
    kind: String,
    time: String,
    recovered_torn_bytes: Option<u64>,
    records: Option<u64>,
    key: Option<String>,
    prev: String,
    hash: String,
}

impl Sealed {
    /// Reads a line without its newline; `None` when it does not have the form of a record.
    pub(super) fn parse(line: &[u8]) -> Option<Self> {
        let (open, seal) = line.split_at_checked(line.len().checked_sub(SEAL_BYTES)?)?;
        let last = seal.strip_prefix(HASH_MEMBER)?.strip_suffix(b"\"}")?;
        // Members twice are an error here, so nobody can read another `prev` than we do.
        let members: Members = serde_json::from_slice(line).ok()?;
        let (prev, sealed) = (parse_hash(&members.prev)?, parse_hash(&members.hash)?);
        let is_intact = members.hash.as_bytes() == last && hash(&prev, open) == sealed;
        Some(Self {
            version: members.v,
            boot_id: members.boot_id,
            seq: members.seq,
            kind: members.kind,
            time: members.time.parse().ok(),
            torn_bytes: members.recovered_torn_bytes,
            records: members.records,
            key: members.key.as_deref().and_then(parse_hash),
            signature: parse_signature(open),
            prev,
            hash: sealed,
            is_intact,
        })
    }
}

/// Parses 64 lower-case hexadecimal digits.
pub(super) fn parse_hash(text: &str) -> Option<Hash> {
    let mut hash = NO_HASH;
    hex::decode_to_slice(text, &mut hash).ok()?;
    (!text.bytes().any(|b| b.is_ascii_uppercase())).then_some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::record::Body;

    fn line(position: Position) -> (Vec<u8>, Position) {
        let entry = Entry {
            time: jiff::Timestamp::UNIX_EPOCH,
            body: Body::Stop { reason: "x" },
            acknowledge: None,
            _place: None,
        };
        let mut out = Vec::new();
        let author = Author::of("b".into(), &[7; 32]).unwrap();
        let next = seal(&mut out, &author, position, &entry, None);
        assert_eq!(out.pop(), Some(b'\n'));
        (out, next)
    }

    #[test]
    fn a_sealed_line_reads_back() {
        let (first, position) = line(Position { seq: 0, head: NO_HASH });
        let sealed = Sealed::parse(&first).unwrap();
        assert!(sealed.is_intact);
        assert_eq!((sealed.seq, sealed.prev, sealed.hash), (1, NO_HASH, position.head));
        let (second, _) = line(position);
        assert_eq!(Sealed::parse(&second).unwrap().prev, sealed.hash);
        let text = String::from_utf8(first).unwrap();
        assert!(
            text.starts_with(r#"{"v":1,"boot_id":"b","seq":1,"time":"1970-01-01T00:00:00.000000Z","type":"stop","#),
            "{text}"
        );
    }

    #[test]
    fn every_changed_byte_shows() {
        let (line, _) = line(Position { seq: 4, head: [9; 32] });
        for at in 0..line.len() {
            let mut edited = line.clone();
            edited[at] ^= 1;
            assert!(!Sealed::parse(&edited).is_some_and(|sealed| sealed.is_intact), "byte {at}");
        }
    }
}
