//! No answer came: whose fault it was, and whether the request may be sent again.

use std::error::Error as _;

use http::Method;

use super::connector::ConnectFault;
use super::lines::NotAnswered;
use crate::model::Denial;
use crate::model::denial::Unclear;
use crate::net::DialError;

/// Why a request was not answered.
pub(in crate::proxy) enum Setback {
    /// The upstream has said, or it is plain, that it did nothing with the request: it may be sent once more.
    Untouched,
    /// It is refused.
    Denied(Denial),
}

impl From<Denial> for Setback {
    fn from(denial: Denial) -> Self {
        Self::Denied(denial)
    }
}

impl Setback {
    /// What the agent is told where it is not sent again.
    pub(in crate::proxy) fn denial(self) -> Denial {
        match self {
            Self::Untouched => Denial::UpstreamUnreachable,
            Self::Denied(denial) => denial,
        }
    }
}

/// Whether a request that may have been carried out may be repeated (RFC 9110, 9.2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    /// Twice is as good as once.
    Harmless,
    /// Twice is not once.
    Harmful,
}

impl Repeat {
    pub(super) fn of(method: &Method) -> Self {
        if method.is_idempotent() { Self::Harmless } else { Self::Harmful }
    }

    /// The denial for a request that went out and was not answered.
    pub(super) fn after(self, unclear: Unclear) -> Denial {
        match (self, unclear) {
            (Self::Harmful, unclear) => Denial::UpstreamUnclear(unclear),
            (Self::Harmless, Unclear::Broke) => Denial::UpstreamUnreachable,
            (Self::Harmless, Unclear::Late) => Denial::UpstreamTimeout,
        }
    }
}

/// How far a request came. What the libraries say stays here: it could quote the request.
pub(super) enum Sent {
    /// There was no connection.
    Nowhere(Denial),
    /// It was not looked at: the stream was refused, or is one of those that a GOAWAY leaves out (RFC 9113, 6.8 and
    /// 8.7), or the library never wrote it.
    Untouched,
    /// Nobody knows.
    Perhaps,
}

impl Sent {
    pub(super) fn of(fault: &NotAnswered) -> Self {
        match fault {
            NotAnswered::Unconnected(fault) => Self::Nowhere(blame(fault)),
            NotAnswered::Unsent => Self::Untouched,
            NotAnswered::Broke(error) => Self::after(error),
        }
    }

    fn after(error: &hyper::Error) -> Self {
        let mut source = error.source();
        while let Some(cause) = source {
            if cause.downcast_ref::<h2::Error>().is_some_and(is_untouched) {
                return Self::Untouched;
            }
            source = cause.source();
        }
        if error.is_canceled() { Self::Untouched } else { Self::Perhaps }
    }

    pub(super) fn setback(self, repeat: Repeat) -> Setback {
        match self {
            Self::Nowhere(denial) => Setback::Denied(denial),
            Self::Untouched => Setback::Untouched,
            Self::Perhaps => Setback::Denied(repeat.after(Unclear::Broke)),
        }
    }
}

pub(super) fn blame(fault: &ConnectFault) -> Denial {
    match fault {
        ConnectFault::Dial(DialError::Forbidden) => Denial::AddressForbidden,
        ConnectFault::Dial(DialError::Timeout) | ConnectFault::Timeout => Denial::UpstreamTimeout,
        ConnectFault::Dial(DialError::Unresolved | DialError::Unreachable) | ConnectFault::Parent | ConnectFault::Http => {
            Denial::UpstreamUnreachable
        }
        ConnectFault::Credential => Denial::CredentialUnavailable { retry_after: None },
        ConnectFault::Tls => Denial::UpstreamTls,
    }
}

/// The library gives a remote GOAWAY as the error of those streams alone that are above its last stream.
fn is_untouched(fault: &h2::Error) -> bool {
    fault.is_remote()
        && (fault.is_go_away() || (fault.is_reset() && fault.reason() == Some(h2::Reason::REFUSED_STREAM)))
}
