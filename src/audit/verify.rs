//! Checking a whole audit: nothing edited, removed, moved, inserted or relabelled.

use std::io::{BufRead, ErrorKind, Read};

use super::attest::Attest;
use super::author::PublicKey;
use super::chain::{Hash, LINE_BYTES_MAX, NO_HASH, Sealed, parse_hash};
use super::gaps::Gaps;

/// An audit that holds together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Whole records.
    pub records: u64,
    /// Starts of a process among them.
    pub boots: u64,
    /// Number of the last record in its boot.
    pub seq: u64,
    /// Hash of the last record, 64 hexadecimal digits.
    pub head: String,
    /// Hash before the first record: zeros, or for a rotated file the head of the file before it.
    pub continues: String,
    /// Bytes after the last newline: a record that was being written. 0 when the file is whole.
    pub torn_tail_bytes: u64,
    /// What is signed.
    pub signed: Signed,
    /// What is missing, and told of.
    pub gaps: Gaps,
}

/// How far the signatures of an audit reach. Each of them covers all that stands before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// The last boot's key, 64 hexadecimal digits.
    pub key: Option<String>,
    /// Signatures in it; all are good.
    pub signatures: u64,
    /// Records up to the last signature, that one counted.
    pub covered: u64,
    /// Records after it, of which none is signed yet.
    pub uncovered: u64,
    /// Records up to the last signature by a key that was given; `None` when none was.
    pub noted_covered: Option<u64>,
}

/// What the operator knows of an audit beforehand.
#[derive(Debug, Clone, Default)]
pub struct Known<'a> {
    /// A record that must be in it: its hash, or its number and its hash, `1234:9f…`.
    pub head: Option<&'a str>,
    /// Keys of boots, 64 hexadecimal digits each. The first of them that is found covers all before it; every boot
    /// after that must have one of them, too.
    pub keys: Vec<String>,
}

/// Where an audit does not hold together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct Broken {
    /// Line number, from 1; for a missing head and an empty audit the last line (0 if there is none), for a bad head 0.
    pub line: u64,
    /// What is wrong.
    pub what: Flaw,
}

/// What can be wrong with an audit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// The text does not give the hash.
    #[error("the record was changed: its hash is not that of its text")]
    Edited,
    /// `prev` is not the hash of the record before.
    #[error("the record does not follow the one before: records were removed, moved or inserted here")]
    Unlinked,
    /// The sequence number, the boot id or the type does not fit the record before.
    #[error("the record's number, boot or type does not follow from the record before")]
    Misnumbered,
    /// The first record neither starts a chain nor says that it continues one.
    #[error("the audit does not begin with a start or a rotation: records before it were removed")]
    Headless,
    /// Not one whole record: even an audit of nothing begins with a start.
    #[error("there is no record in it: everything was removed, or it is no audit")]
    Empty,
    /// A line that is no record, and that no later record explains as an interrupted write.
    #[error("the line is no record")]
    NotARecord,
    /// A record tells of an interrupted write that is not there, or is there in another length.
    #[error("the unfinished line that this record tells of was changed or removed")]
    TornLine,
    /// A version that this verifier does not know.
    #[error("the record has a version other than 1")]
    Version,
    /// A line longer than any record.
    #[error("the line is longer than a record can be")]
    TooLong,
    /// The expected head is not in the audit.
    #[error("no record has the given head hash: the end was removed, or the head is of another audit")]
    HeadMissing,
    /// The expected head is not 64 hexadecimal digits, with a number before it or without.
    #[error("the given head is not a hash of 64 lower-case hexadecimal digits, as it is or as NUMBER:HASH")]
    HeadMalformed,
    /// A record that must be signed is not, or not with the key of its boot.
    #[error("the record is not signed with the key of its start: it was written by somebody else")]
    Signature,
    /// More than 1,000 records without one that is signed.
    #[error("more than 1000 records in a row are not signed: they were written by somebody else")]
    CheckpointMissing,
    /// A file goes on with another key, without a start.
    #[error("the key changes without a start: what follows was written by somebody else")]
    KeyChanged,
    /// A start after one with a key that was given has another.
    #[error("this start has a key that was not given: one that was not noted, or a forgery from here on")]
    KeyUnknown,
    /// No boot has a key that was given.
    #[error("no start has a key that was given: all of it was written anew, or it is another audit")]
    KeyMissing,
    /// A key that was given is none.
    #[error("a given key is not 64 lower-case hexadecimal digits")]
    KeyMalformed,
    /// Reading failed.
    #[error("cannot be read: {0}")]
    Unreadable(ErrorKind),
}

/// Verifies an audit file from its first line to its last, in one pass, holding one line (at most 1 MiB) at a time.
///
/// `head` is the hash of a record noted earlier (`Verified::head`): with it, an end that was cut off shows too.
/// A chain proves order and wholeness against everyone who cannot write the whole file anew; against those, keep heads
/// elsewhere.
///
/// # Errors
/// [`Broken`] names the first line at which the audit does not hold together.
pub fn verify(reader: impl BufRead, head: Option<&str>) -> Result<Verified, Broken> {
    verify_against(reader, &Known { head, keys: Vec::new() })
}

/// Verifies as [`verify`] does, against all that is known beforehand.
///
/// # Errors
/// [`Broken`], as there.
pub fn verify_against(mut reader: impl BufRead, known: &Known<'_>) -> Result<Verified, Broken> {
    let malformed = |what| Broken { line: 0, what };
    let wanted = known.head.map(|text| Wanted::parse(text).ok_or(malformed(Flaw::HeadMalformed))).transpose()?;
    let noted: Option<Vec<PublicKey>> = known.keys.iter().map(|text| parse_hash(text)).collect();
    let mut check = Check::new(wanted, noted.ok_or(malformed(Flaw::KeyMalformed))?);
    let mut line = Vec::new();
    loop {
        let is_whole = read_line(&mut reader, &mut line).map_err(|what| check.broken_at_next(what))?;
        if !is_whole {
            return check.finish(line.len() as u64);
        }
        check.next(&line)?;
    }
}

/// Reads a line without its newline; false when there was no newline before the end.
fn read_line(reader: &mut impl BufRead, line: &mut Vec<u8>) -> Result<bool, Flaw> {
    line.clear();
    let mut bounded = reader.take(LINE_BYTES_MAX as u64 + 1);
    bounded.read_until(b'\n', line).map_err(|error| Flaw::Unreadable(error.kind()))?;
    let is_whole = line.last() == Some(&b'\n');
    if is_whole {
        line.pop();
    } else if line.len() > LINE_BYTES_MAX {
        return Err(Flaw::TooLong);
    }
    Ok(is_whole)
}

/// A record that must be there.
#[derive(Clone, Copy)]
struct Wanted {
    seq: Option<u64>,
    hash: Hash,
}

impl Wanted {
    fn parse(text: &str) -> Option<Self> {
        match text.split_once(':') {
            None => Some(Self { seq: None, hash: parse_hash(text)? }),
            Some((seq, hash)) => Some(Self { seq: Some(seq.parse().ok()?), hash: parse_hash(hash)? }),
        }
    }

    fn is(self, sealed: &Sealed) -> bool {
        self.hash == sealed.hash && self.seq.is_none_or(|seq| seq == sealed.seq)
    }
}

struct Check {
    line: u64,
    records: u64,
    boots: u64,
    /// Boot and number of the record before.
    last: Option<(String, u64)>,
    continues: Hash,
    head: Hash,
    wanted: Option<Wanted>,
    /// Lines that are no records, since the record before: the first of them, and their bytes.
    torn: Option<(u64, u64)>,
    attest: Attest,
    gaps: Gaps,
}

impl Check {
    fn new(wanted: Option<Wanted>, noted: Vec<PublicKey>) -> Self {
        Self {
            line: 0,
            records: 0,
            boots: 0,
            last: None,
            continues: NO_HASH,
            head: NO_HASH,
            wanted,
            torn: None,
            attest: Attest::new(noted),
            gaps: Gaps::default(),
        }
    }

    fn broken(&self, what: Flaw) -> Broken {
        Broken { line: self.line, what }
    }

    fn broken_at_next(&self, what: Flaw) -> Broken {
        Broken { line: self.line + 1, what }
    }

    fn next(&mut self, line: &[u8]) -> Result<(), Broken> {
        self.line += 1;
        let Some(sealed) = Sealed::parse(line) else {
            let (_, bytes) = self.torn.get_or_insert((self.line, 0));
            *bytes += line.len() as u64;
            return Ok(());
        };
        self.link(&sealed).map_err(|what| self.broken(what))?;
        self.check_torn(&sealed)?;
        let (at, gaps) = (self.line, &mut self.gaps);
        self.attest.next(&sealed, line, at, gaps).map_err(|what| self.broken(what))?;
        self.head = sealed.hash;
        self.records += 1;
        self.boots += u64::from(sealed.kind == "start");
        self.wanted = self.wanted.filter(|wanted| !wanted.is(&sealed));
        self.last = Some((sealed.boot_id, sealed.seq));
        Ok(())
    }

    fn link(&mut self, sealed: &Sealed) -> Result<(), Flaw> {
        if sealed.version != 1 {
            return Err(Flaw::Version);
        }
        if !sealed.is_intact {
            return Err(Flaw::Edited);
        }
        let is_start = sealed.kind == "start";
        match &self.last {
            None if sealed.kind == "rotated" => self.continues = sealed.prev,
            None if is_start && sealed.seq == 1 && sealed.prev == NO_HASH => {}
            None => return Err(Flaw::Headless),
            Some(_) if sealed.prev != self.head => return Err(Flaw::Unlinked),
            Some((boot_id, seq)) => {
                let is_next = *boot_id == sealed.boot_id && seq.checked_add(1) == Some(sealed.seq) && !is_start;
                let is_first = *boot_id != sealed.boot_id && sealed.seq == 1 && is_start;
                if !is_next && !is_first {
                    return Err(Flaw::Misnumbered);
                }
            }
        }
        Ok(())
    }

    /// Lines that are no records must be what the next record says was recovered.
    fn check_torn(&mut self, sealed: &Sealed) -> Result<(), Broken> {
        match (self.torn.take(), sealed.torn_bytes) {
            (None, None) => Ok(()),
            (Some((_, bytes)), Some(told)) if bytes == told => Ok(()),
            (Some((line, _)), None) => Err(Broken { line, what: Flaw::NotARecord }),
            (_, Some(_)) => Err(self.broken(Flaw::TornLine)),
        }
    }

    fn finish(self, torn_tail_bytes: u64) -> Result<Verified, Broken> {
        if let Some((line, _)) = self.torn {
            return Err(Broken { line, what: Flaw::NotARecord });
        }
        if self.wanted.is_some() {
            return Err(self.broken(Flaw::HeadMissing));
        }
        if self.records == 0 {
            return Err(self.broken(Flaw::Empty));
        }
        let signed = self.attest.finish().map_err(|what| self.broken(what))?;
        Ok(Verified {
            records: self.records,
            boots: self.boots,
            seq: self.last.as_ref().map_or(0, |(_, seq)| *seq),
            head: hex::encode(self.head),
            continues: hex::encode(self.continues),
            torn_tail_bytes,
            signed,
            gaps: self.gaps,
        })
    }
}
