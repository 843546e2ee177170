//! What is missing in an audit that holds together, because the audit itself says so.

/// Gaps that are listed; all are counted.
const LISTED_MAX: usize = 1_000;

/// Records of one boot may go on so long without a checkpoint; they are due every minute, and clocks are not exact.
pub(super) const CHECKPOINT_LATE: std::time::Duration = std::time::Duration::from_secs(300);

/// Something that is not there, or not as it should be, and no flaw of the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Gap {
    /// A boot that began while the one before had not stopped.
    #[error("the process before did not stop in good order: what it had not written is not there")]
    Killed,
    /// `lost` records.
    #[error("{0} records before this one could not be written and are lost")]
    Lost(u64),
    /// An `outage` record.
    #[error("the audit could not be written for a while before this record")]
    Outage,
    /// Bytes of a record that was never finished.
    #[error("{0} bytes of an unfinished record stand before this one")]
    Torn(u64),
    /// A boot without a key.
    #[error("from here on nothing is signed: a version of valetkey without checkpoints, or a forgery")]
    Unsigned,
    /// Records that no checkpoint followed for more than five minutes.
    #[error("no checkpoint for more than 5 minutes before this record, although there were records")]
    Late,
    /// The last records of a boot that was killed: no signature covers them.
    #[error("the {0} records before this one were not signed by the process that wrote them")]
    Uncovered(u64),
}

impl Gap {
    /// For programs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Killed => "killed",
            Self::Lost(_) => "lost",
            Self::Outage => "outage",
            Self::Torn(_) => "torn",
            Self::Unsigned => "unsigned",
            Self::Late => "late_checkpoint",
            Self::Uncovered(_) => "uncovered",
        }
    }

    /// How many, where the gap has a size.
    #[must_use]
    pub fn size(self) -> Option<u64> {
        match self {
            Self::Lost(size) | Self::Torn(size) | Self::Uncovered(size) => Some(size),
            Self::Killed | Self::Outage | Self::Unsigned | Self::Late => None,
        }
    }
}

/// Gaps by line: the first 1,000, and how many there are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Gaps {
    /// Line and what is missing there.
    pub listed: Vec<(u64, Gap)>,
    /// All of them.
    pub count: u64,
}

impl Gaps {
    pub(super) fn add(&mut self, line: u64, gap: Gap) {
        self.count += 1;
        if self.listed.len() < LISTED_MAX {
            self.listed.push((line, gap));
        }
    }
}
