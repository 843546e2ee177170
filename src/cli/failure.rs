//! What ends a command: a sentence for people and an exit code for scripts.

use std::fmt::Display;
use std::io::Write as _;
use std::process::ExitCode;

/// The documented exit codes.
pub const EXIT_CODES: &str = "Exit codes:
  0  done
  1  something else went wrong
  2  the command line is wrong
  3  the policy file has mistakes
  4  the CA cannot be used
  5  an address or the control socket is in use or forbidden
  6  the audit cannot be written, or does not verify
  7  no sidecar answers, or it refused";

/// Why a command ended.
#[derive(Debug)]
pub struct Failure {
    code: u8,
    sentence: String,
}

impl Failure {
    /// Anything that has no code of its own.
    pub fn other(sentence: impl Display) -> Self {
        Self { code: 1, sentence: sentence.to_string() }
    }
    /// The flags do not fit together.
    pub fn usage(sentence: impl Display) -> Self {
        Self { code: 2, sentence: sentence.to_string() }
    }
    /// The policy file has mistakes.
    pub fn policy(sentence: impl Display) -> Self {
        Self { code: 3, sentence: sentence.to_string() }
    }
    /// The CA cannot be used.
    pub fn authority(sentence: impl Display) -> Self {
        Self { code: 4, sentence: sentence.to_string() }
    }
    /// An address or the socket cannot be had.
    pub fn address(sentence: impl Display) -> Self {
        Self { code: 5, sentence: sentence.to_string() }
    }
    /// The audit cannot be written, or does not verify.
    pub fn audit(sentence: impl Display) -> Self {
        Self { code: 6, sentence: sentence.to_string() }
    }
    /// No sidecar answers, or it refused.
    pub fn remote(sentence: impl Display) -> Self {
        Self { code: 7, sentence: sentence.to_string() }
    }

    /// With the exit code of another command, which documents it.
    pub fn with_code(code: u8, sentence: impl Display) -> Self {
        Self { code, sentence: sentence.to_string() }
    }

    /// The sentence.
    pub fn sentence(&self) -> &str {
        &self.sentence
    }

    /// Says it on standard error.
    pub fn report(self) -> ExitCode {
        // Nobody to tell it to: the code still says it.
        let _ = writeln!(anstream::stderr(), "valetkey: {}", self.sentence);
        ExitCode::from(self.code)
    }
}
