//! The audit's verifier: no byte of a chain changes unseen, and no end is cut off unnamed.

use ring::digest;
use valetkey::audit::{Flaw, verify};

use crate::cuts::Input;

/// Records of one chain at most.
const RECORDS_MAX: usize = 8;

/// Of a chain that was made here: it verifies; any byte of a record changed to any other shows, and so does a record that
/// was taken out, moved, written anew or numbered wrongly; a cut end is told in bytes, and shows against the head. Of any
/// text: what verifies is a chain for another verifier too.
///
/// # Panics
/// Where that does not hold.
pub fn audit(data: &[u8]) {
    any_text(data);
    let mut input = Input(data);
    let (place, change) = (input.number(), input.byte().max(1));
    let chain = Chain::of(input);
    let verified = verify(chain.text.as_slice(), None).unwrap_or_else(|broken| panic!("{broken:?}"));
    assert_eq!((verified.records, verified.torn_tail_bytes), (chain.records.len() as u64, 0));
    assert_eq!((verified.boots, &verified.head), (chain.boots, &chain.head));
    verify(chain.text.as_slice(), Some(&chain.head)).unwrap_or_else(|broken| panic!("{broken:?}"));
    changed(&chain, place % chain.text.len(), change);
    cut(&chain, place % chain.text.len());
    rearranged(&chain, place);
    written_anew(&chain, place);
    numbered(&chain);
}

fn changed(chain: &Chain, at: usize, change: u8) {
    if chain.is_torn(at) {
        return; // Its length is on record, and not what it was.
    }
    let mut text = chain.text.clone();
    text[at] ^= change;
    match verify(text.as_slice(), None) {
        Err(_) => {}
        // The end of the last line is gone: a line that is not ended, which is told.
        Ok(verified) => assert!(at + 1 == text.len() && verified.torn_tail_bytes > 0, "byte {at} was changed unseen"),
    }
    assert!(verify(text.as_slice(), Some(&chain.head)).is_err(), "byte {at} was changed, and the head is there");
}

fn cut(chain: &Chain, at: usize) {
    let text = &chain.text[..at];
    assert!(verify(text, Some(&chain.head)).is_err(), "the end was cut off at {at}, and the head is there");
    let whole = chain.records.iter().rposition(|record| record.end <= at);
    let kept = whole.map_or(0, |last| chain.records[last].end);
    match verify(text, None) {
        Ok(verified) => {
            assert_eq!(verified.records, whole.map_or(0, |last| last as u64 + 1), "{at}");
            assert_eq!(verified.torn_tail_bytes, (at - kept) as u64, "{at}");
        }
        // An unfinished line in the middle, and the record that tells of it cut off.
        Err(broken) if text[kept..].contains(&b'\n') => assert_eq!(broken.what, Flaw::NotARecord),
        Err(broken) => assert!(whole.is_none() && broken.what == Flaw::Empty, "{at}: {broken:?}"),
    }
}

/// A record taken out, or exchanged with the one after it.
fn rearranged(chain: &Chain, which: usize) {
    let pairs = chain.records.len() - 1;
    let Some(at) = which.checked_rem(pairs) else { return };
    let (one, next, text) = (chain.records[at].clone(), chain.records[at + 1].clone(), &chain.text);
    let without = [&text[..one.start], &text[one.end..]].concat();
    assert!(verify(without.as_slice(), None).is_err(), "record {at} was taken out unseen");
    let between = &text[one.end..next.start];
    let exchanged = [&text[..one.start], &text[next.clone()], between, &text[one], &text[next.end..]].concat();
    assert!(verify(exchanged.as_slice(), None).is_err(), "record {at} was moved unseen");
}

/// A record of another text with a hash of its own, by somebody who cannot write anew what follows it.
fn written_anew(chain: &Chain, which: usize) {
    let at = which % chain.records.len();
    let range = chain.records[at].clone();
    let line = &chain.text[range.start..range.end - 1];
    let record: serde_json::Value = serde_json::from_slice(line).expect("a record");
    let (prev, hash) = (record["prev"].as_str().expect("a hash"), record["hash"].as_str().expect("a hash"));
    let open = line.strip_suffix(format!(",\"hash\":\"{hash}\"}}").as_bytes()).expect("the hash is last");
    let open = [open, b",\"added\":1"].concat();
    let end = format!(",\"hash\":\"{}\"}}\n", sealed(prev, &open));
    let text = [&chain.text[..range.start], &open, end.as_bytes(), &chain.text[range.end..]].concat();
    assert!(verify(text.as_slice(), Some(&chain.head)).is_err(), "record {at} was written anew, and the head is there");
    let is_last = at + 1 == chain.records.len();
    assert!(is_last || verify(text.as_slice(), None).is_err(), "record {at} was written anew unseen");
}

/// One more record with a good hash, and a number, a boot or a kind that does not follow.
fn numbered(chain: &Chain) {
    let (seq, boots) = (chain.seq, chain.boots);
    let wrong = [
        (boots, seq, "deny"),
        (boots, seq + 2, "deny"),
        (boots + 1, seq + 1, "deny"),
        (boots + 1, 2, "start"),
        (boots, 1, "start"),
    ];
    for (boot, seq, kind) in wrong {
        let mut longer = chain.clone();
        longer.boots = boot;
        longer.add(seq, kind, None, b"");
        let broken = verify(longer.text.as_slice(), None).expect_err("a number that does not follow");
        assert_eq!(broken.what, Flaw::Misnumbered, "{boot} {seq} {kind}");
    }
}

/// A chain, made as docs/AUDIT.md describes it.
#[derive(Clone)]
struct Chain {
    text: Vec<u8>,
    /// Where each record stands, its newline included.
    records: Vec<std::ops::Range<usize>>,
    /// Number of the last record in its boot.
    seq: u64,
    torn: Vec<std::ops::Range<usize>>,
    boots: u64,
    head: String,
}

impl Chain {
    fn of(mut input: Input<'_>) -> Self {
        let mut chain =
            Self { text: Vec::new(), records: Vec::new(), seq: 0, torn: Vec::new(), boots: 0, head: "0".repeat(64) };
        for _ in 0..=usize::from(input.byte()) % RECORDS_MAX {
            let (kind, length) = (input.byte(), input.byte());
            let content = input.take(usize::from(length % 32));
            let is_start = chain.boots == 0 || kind & 7 == 7;
            let torn = (is_start && chain.boots > 0 && kind & 8 == 8).then(|| chain.tear(content)).flatten();
            let seq = if is_start { 1 } else { chain.seq + 1 };
            chain.boots += u64::from(is_start);
            chain.add(seq, if is_start { "start" } else { "deny" }, torn, content);
        }
        chain
    }

    /// A line that was not ended before the process was.
    fn tear(&mut self, content: &[u8]) -> Option<usize> {
        let torn: Vec<u8> = content.iter().copied().filter(|byte| *byte != b'\n').collect();
        let is_line = !torn.is_empty() && serde_json::from_slice::<serde_json::Value>(&torn).is_err();
        is_line.then(|| {
            let start = self.text.len();
            self.text.extend_from_slice(&torn);
            self.torn.push(start..self.text.len() + 1);
            self.text.push(b'\n');
            torn.len()
        })
    }

    fn add(&mut self, seq: u64, kind: &str, torn: Option<usize>, content: &[u8]) {
        let text = serde_json::Value::from(String::from_utf8_lossy(content).into_owned());
        let torn = torn.map_or(String::new(), |bytes| format!(",\"recovered_torn_bytes\":{bytes}"));
        let (boot, prev) = (self.boots, &self.head);
        let open = format!(
            "{{\"v\":1,\"boot_id\":\"b{boot}\",\"seq\":{seq},\"time\":\"x\",\"type\":\"{kind}\"{torn},\"text\":{text},\"prev\":\"{prev}\""
        );
        let (hash, start) = (sealed(&self.head, open.as_bytes()), self.text.len());
        self.text.extend_from_slice(format!("{open},\"hash\":\"{hash}\"}}\n").as_bytes());
        self.records.push(start..self.text.len());
        self.seq = seq;
        self.head = hash;
    }

    fn is_torn(&self, at: usize) -> bool {
        self.torn.iter().any(|range| range.contains(&at))
    }
}

/// SHA-256 over the hash before and the record without its hash.
fn sealed(prev: &str, open: &[u8]) -> String {
    let text = [&hex::decode(prev).unwrap_or_default()[..], open, b"}"].concat();
    hex::encode(digest::digest(&digest::SHA256, &text))
}

/// What verifies is a chain by the letter: each line that is a record has the hash of its text and names the one before.
fn any_text(data: &[u8]) {
    let Ok(verified) = verify(data, None) else { return };
    let mut head = None;
    let mut records = 0;
    let whole = data.iter().rposition(|byte| *byte == b'\n').map_or(&data[..0], |end| &data[..end]);
    for line in whole.split(|byte| *byte == b'\n') {
        let Ok(record) = serde_json::from_slice::<serde_json::Value>(line) else { continue };
        let (Some(prev), Some(hash)) = (record["prev"].as_str(), record["hash"].as_str()) else { continue };
        assert!(head.is_none_or(|head| head == prev), "a record does not follow the one before");
        let end = format!(",\"hash\":\"{hash}\"}}");
        let open = line.strip_suffix(end.as_bytes()).expect("the hash is last");
        assert_eq!(sealed(prev, open), hash, "the hash is that of the text");
        head = Some(hash.to_owned());
        records += 1;
    }
    assert_eq!((head, records), (Some(verified.head), verified.records));
}
