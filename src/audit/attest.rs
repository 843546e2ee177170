//! Checking who wrote an audit: each boot's key, its signatures, and which of them the operator knows.

use std::time::Duration;

use jiff::Timestamp;

use super::author::{PublicKey, Role, UNSIGNED_RECORDS_MAX, is_signed};
use super::chain::Sealed;
use super::gaps::{CHECKPOINT_LATE, Gap, Gaps};
use super::verify::{Flaw, Signed};

/// What is known of the signatures, record by record.
pub(super) struct Attest {
    /// Keys that the operator noted.
    noted: Vec<PublicKey>,
    /// A boot with one of them was seen: from here on each must have one.
    is_noted: bool,
    /// Of the present boot.
    key: Option<PublicKey>,
    is_begun: bool,
    is_stopped: bool,
    records: u64,
    /// Up to the last signature.
    covered: u64,
    noted_covered: u64,
    /// Signatures that were checked.
    signatures: u64,
    /// When the first of the records was that no signature covers.
    since: Option<Timestamp>,
    is_late: bool,
}

impl Attest {
    pub(super) fn new(noted: Vec<PublicKey>) -> Self {
        Self {
            noted,
            is_noted: false,
            key: None,
            is_begun: false,
            is_stopped: true,
            records: 0,
            covered: 0,
            noted_covered: 0,
            signatures: 0,
            since: None,
            is_late: false,
        }
    }

    /// The next record, which follows in the chain; `line` is its text.
    pub(super) fn next(&mut self, sealed: &Sealed, line: &[u8], at: u64, gaps: &mut Gaps) -> Result<(), Flaw> {
        self.tell_what_is_missing(sealed, at, gaps);
        let role = Role::in_kind(&sealed.kind);
        if role == Role::Names {
            self.take_key(sealed, at, gaps)?;
        }
        self.is_stopped = sealed.kind == "stop";
        self.records += 1;
        let Some(key) = self.key else { return Ok(()) };
        self.tell_if_late(sealed.time, at, gaps);
        match role {
            Role::Names | Role::Signs => self.check(&key, sealed, line),
            Role::None if self.records - self.covered > UNSIGNED_RECORDS_MAX => Err(Flaw::CheckpointMissing),
            Role::None => {
                self.since = self.since.or(sealed.time);
                Ok(())
            }
        }
    }

    fn tell_what_is_missing(&self, sealed: &Sealed, at: u64, gaps: &mut Gaps) {
        if let Some(bytes) = sealed.torn_bytes {
            gaps.add(at, Gap::Torn(bytes));
        }
        match sealed.kind.as_str() {
            "start" if !self.is_stopped => {
                gaps.add(at, Gap::Killed);
                let uncovered = self.records - self.covered;
                if self.key.is_some() && uncovered > 0 {
                    gaps.add(at, Gap::Uncovered(uncovered));
                }
            }
            "outage" => gaps.add(at, Gap::Outage),
            "lost" => gaps.add(at, Gap::Lost(sealed.records.unwrap_or(0))),
            _ => {}
        }
    }

    /// A boot's first record names its key, and so does the first one of each of its files.
    fn take_key(&mut self, sealed: &Sealed, at: u64, gaps: &mut Gaps) -> Result<(), Flaw> {
        let is_new_boot = sealed.kind == "start" || !self.is_begun;
        if !is_new_boot {
            return if sealed.key == self.key { Ok(()) } else { Err(Flaw::KeyChanged) };
        }
        (self.key, self.is_begun, self.since, self.is_late) = (sealed.key, true, None, false);
        if self.key.is_none() {
            gaps.add(at, Gap::Unsigned);
        }
        let is_noted = self.key.is_some_and(|key| self.noted.contains(&key));
        if self.is_noted && !is_noted {
            return Err(Flaw::KeyUnknown);
        }
        self.is_noted = is_noted;
        Ok(())
    }

    fn check(&mut self, key: &PublicKey, sealed: &Sealed, line: &[u8]) -> Result<(), Flaw> {
        let signed = sealed.signature.as_ref().and_then(|(end, signature)| Some((line.get(..*end)?, signature)));
        if !signed.is_some_and(|(text, signature)| is_signed(key, text, signature)) {
            return Err(Flaw::Signature);
        }
        self.signatures += 1;
        self.covered = self.records;
        if self.is_noted {
            self.noted_covered = self.records;
        }
        (self.since, self.is_late) = (None, false);
        Ok(())
    }

    fn tell_if_late(&mut self, time: Option<Timestamp>, at: u64, gaps: &mut Gaps) {
        let (Some(since), Some(time)) = (self.since, time) else { return };
        let late = Duration::try_from(time.duration_since(since)).unwrap_or(Duration::ZERO);
        if late > CHECKPOINT_LATE && !self.is_late {
            self.is_late = true;
            gaps.add(at, Gap::Late);
        }
    }

    pub(super) fn finish(&self) -> Result<Signed, Flaw> {
        if !self.noted.is_empty() && !self.is_noted {
            return Err(Flaw::KeyMissing);
        }
        Ok(Signed {
            key: self.key.map(hex::encode),
            signatures: self.signatures,
            covered: self.covered,
            uncovered: self.records - self.covered,
            noted_covered: (!self.noted.is_empty()).then_some(self.noted_covered),
        })
    }
}
