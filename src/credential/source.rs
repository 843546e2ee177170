//! What every source of credentials has in common: how it is asked, and how it can fail.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use zeroize::Zeroizing;

use super::certificate::CertificateProblem;
use super::exec::{AnswerError, Distrust};
use super::value::Value;
use super::{Form, key_pair};
use crate::model::secret::CredentialError;
use crate::model::{Credential, Deadline, Now};

/// Most bytes that are read from a file or a command; more is refused, not cut.
pub const SOURCE_BYTES_MAX: usize = 64 * 1024;

/// What a source gave.
#[derive(Debug)]
pub struct Loaded {
    /// The secret.
    pub value: Value,
    /// When it stops working, where the source says so.
    pub expires_at: Option<Deadline>,
}

impl Loaded {
    /// A text.
    pub(super) fn text(credential: Credential, expires_at: Option<Deadline>) -> Self {
        Self { value: Value::Text(credential), expires_at }
    }
}

/// A load under way.
pub type Loading<'a> = Pin<Box<dyn Future<Output = Result<Loaded, Problem>> + Send + 'a>>;

/// How often a source may be asked, and how long it may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// A value is compared with its source when it is this old; `None`: it stands until it expires.
    pub check_every: Option<Duration>,
    /// Longest pause after a failure; pauses start at 250 ms and double.
    pub pause_max: Duration,
    /// Longest that a caller waits for one load.
    pub wait_max: Duration,
}

/// A place that credentials can be had from.
///
/// A source keeps no value and does not remember failures: the slot that holds it does both,
/// and calls [`Source::load`] never twice at a time.
pub trait Source: Send + Sync + 'static {
    /// Fetches the value that holds now.
    ///
    /// # Errors
    /// [`Problem`], which says nothing of the value.
    fn load(&self) -> Loading<'_>;

    /// Its pace.
    fn pace(&self) -> Pace;
}

/// Why a credential cannot be had. The words hold no part of what was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The environment variable was not there at start.
    #[error("is not set")]
    Unset,
    /// No credential came from the environment variable at start, so it was not taken over.
    #[error("was not taken over at start; start the sidecar again")]
    NotTaken,
    /// It was read and cannot be a credential.
    #[error("{0}")]
    Content(#[from] CredentialError),
    /// It is too short to be found again in answers, and the service wants its answers scrubbed.
    #[error("is shorter than 16 bytes, too short to be scrubbed from answers")]
    Short,
    /// More came than [`SOURCE_BYTES_MAX`].
    #[error("gives more than 64 KiB")]
    Long,
    /// The system refused.
    #[error("cannot be read: {0}")]
    Io(io::ErrorKind),
    /// A directory, pipe, socket or device.
    #[error("is not a regular file")]
    NotRegular,
    /// Somebody wrote to it each time it was read.
    #[error("changes while it is read")]
    Changing,
    /// Others could put a program of their own there.
    #[error("is not run: {0}")]
    Distrusted(#[from] Distrust),
    /// The command could not be started.
    #[error("cannot be started: {0}")]
    Start(io::ErrorKind),
    /// The command ended with another code than 0.
    #[error("ended with exit code {0}")]
    ExitCode(i32),
    /// The command was killed.
    #[error("was ended by a signal")]
    Killed,
    /// It took longer than it may.
    #[error("took too long")]
    TimedOut,
    /// The command's JSON is not as documented.
    #[error("{0}")]
    Answer(#[from] AnswerError),
    /// A certificate and its key are not what they should be.
    #[error("{0}")]
    Certificate(#[from] CertificateProblem),
    /// A service signs with it, and it is no key pair.
    #[error("is not the JSON of AWS's credential_process: Version 1, AccessKeyId, SecretAccessKey")]
    NotKeyPair,
    /// What it gave was over already.
    #[error("gave a credential that has expired")]
    Expired,
    /// The load ended without an outcome: a bug of ours, or the process is ending.
    #[error("was not read to the end")]
    Interrupted,
}

/// Takes a credential out of `bytes` as files and commands write it, in the form that it has to have.
pub(super) fn parse(form: Form, bytes: Zeroizing<Vec<u8>>, now: &Now) -> Result<Loaded, Problem> {
    match form {
        Form::Text => Ok(Loaded::text(parse_line(bytes)?, None)),
        Form::AwsKeyPair => key_pair::parse(&bytes, now),
    }
}

/// Takes a credential out of `bytes` as files and commands write it: one line end after it is dropped, no more.
pub(super) fn parse_line(mut bytes: Zeroizing<Vec<u8>>) -> Result<Credential, Problem> {
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
    }
    Ok(Credential::parse(bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(bytes: &[u8]) -> Result<usize, Problem> {
        parse_line(Zeroizing::new(bytes.to_vec())).map(|credential| credential.bytes_count())
    }

    #[test]
    fn exactly_one_line_end_is_dropped() {
        assert_eq!(parsed(b"abc"), Ok(3));
        assert_eq!(parsed(b"abc\n"), Ok(3));
        assert_eq!(parsed(b"abc\r\n"), Ok(3));
        assert_eq!(parsed(b" abc \n"), Ok(5), "spaces are the secret's own");
        for bad in [&b"abc\n\n"[..], b"abc\r\n\r\n", b"abc\r", b"abc\n\r", b"a\nb", b"\nabc"] {
            assert_eq!(parsed(bad), Err(Problem::Content(CredentialError::Character)), "{bad:?}");
        }
        for empty in [&b""[..], b"\n", b"\r\n"] {
            assert_eq!(parsed(empty), Err(Problem::Content(CredentialError::Empty)));
        }
    }
}
