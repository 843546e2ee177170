//! The vocabulary of refusals: each has a stable code, a status, a sentence and what to do next.

use std::time::Duration;

use jiff::Timestamp;

use super::ScopeName;

/// Whose fault a refusal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The agent asked for what it may not have, or asked badly.
    Agent,
    /// The API or the way to it failed.
    Upstream,
    /// We failed, or are not able to serve just now.
    Sidecar,
}

/// What about a request two parties could read differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ambiguity {
    /// The path has `.` or `..` segments, plain or encoded.
    DotSegment,
    /// The path has an empty segment.
    EmptySegment,
    /// The path has an encoded slash or a backslash, and no rule of the service allows it.
    EncodedSlash,
    /// A `;` parameter in a segment that could become a dot segment.
    PathParameter,
    /// A control byte, a bad percent escape, a raw byte beyond ASCII, or invalid UTF-8.
    PathBytes,
    /// A percent escape that decodes to another one.
    DoubleEncoding,
    /// The request target is not in a form that this place allows (RFC 9112, 3.2).
    TargetForm,
    /// No `Host`, more than one, or one that is not a host.
    Host,
    /// Message framing: `Content-Length`, `Transfer-Encoding`.
    Framing,
    /// `Connection` names a field that is not hop-by-hop.
    ConnectionOption,
    /// A method-override header or parameter.
    MethodOverride,
    /// A query parameter that decides the rule and is there twice or undecodable.
    Query,
    /// A header that may be there once is there twice.
    RepeatedHeader,
    /// A WebSocket handshake that is not as RFC 6455, 4.1 or RFC 8441, 5 wants it.
    Handshake,
    /// A method that is not allowed inside a tunnel (CONNECT, TRACE, TRACK) or is no token.
    Method,
}

/// Which limit a request ran into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TooLarge {
    /// The request target: 414.
    Target,
    /// The header block: 431.
    Head,
    /// The body: 413.
    Body,
}

/// Why a request counts as one without a nonce.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Missing {
    /// There was none.
    Nowhere,
    /// One came as the proxy's credentials, and the service does not attach those (`attach`).
    NotAttached,
    /// One came as the proxy's credentials, and a web page may have made the request (`Origin`, `Sec-Fetch-Site`).
    WebPage,
    /// One came as the proxy's credentials, and it is not for a service at this host.
    OtherService,
}

/// Where a nonce was that it should not have been.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Misplaced {
    /// In a header field that is not one of the service's slots.
    Header,
    /// In the path.
    Path,
    /// In a query parameter that is not one of the service's slots.
    Query,
    /// On a host that is not one of its services'.
    Host,
    /// In the proxy's credentials, over plain HTTP from beyond loopback.
    Proxy,
    /// In the body.
    Body,
}

impl Misplaced {
    /// The word of the audit.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Header => "header",
            Self::Path => "path",
            Self::Query => "query",
            Self::Host => "host",
            Self::Proxy => "proxy",
            Self::Body => "body",
        }
    }
}

/// Why the signature of a request is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SignatureFault {
    /// It is not written as AWS has it.
    Malformed,
    /// It is not one over this request by the key pair of this nonce.
    Mismatch,
    /// It does not cover the host, the date, the token or another field that AWS reads.
    NotSigned,
    /// It was made too long ago, or will be.
    Stale,
    /// It was made for a time that is over.
    Expired,
    /// It is for a service or region that is not the host's.
    Scope,
    /// The body has another hash than the one that was signed.
    OtherBody,
    /// It leaves the body out where nothing else covers it.
    UnsignedBody,
    /// A form that is not supported: SigV2, SigV4A, over events, or for a WebSocket.
    Unsupported,
    /// The request copies another object than its path names.
    CopySource,
}

/// How an upstream failed after a request had gone out, so that nobody knows whether it was carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unclear {
    /// It broke off before it had answered.
    Broke,
    /// It did not answer in time.
    Late,
}

/// A refusal with its reason. Every variant is one `code` of the documented table.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "the variants are the documented codes; see `Denial::code` and `Denial::sentence`")]
pub enum Denial {
    NonceMissing(Missing),
    NonceUnknown,
    NonceExpired {
        at: Timestamp,
    },
    NonceRevoked {
        at: Timestamp,
    },
    NonceSpent {
        at: Timestamp,
    },
    AgentMismatch,
    OutOfScope {
        allowed: Vec<String>,
        required_scope: Option<ScopeName>,
    },
    RiskRestricted {
        until: Timestamp,
    },
    ConditionFailed {
        because: Option<String>,
    },
    ForeignCredential,
    CredentialExposed,
    NonceMisplaced(Misplaced),
    HostNotListed,
    AddressForbidden,
    RequestAmbiguous(Ambiguity),
    RequestMalformed,
    SlotOccupied,
    SignatureRefused(SignatureFault),
    RequestTimeout,
    RequestTooLarge(TooLarge),
    ExpectationFailed,
    CleartextForbidden,
    AgentUnidentified,
    IdentityRefused {
        because: String,
    },
    IdentityStale,
    IdentityUnavailable,
    DestinationMismatch,
    BudgetSpent,
    RateLimited {
        retry_after: Duration,
    },
    TooManyAtOnce,
    CredentialUnavailable {
        retry_after: Option<Duration>,
    },
    UpstreamUnreachable,
    UpstreamTls,
    UpstreamTimeout,
    /// As [`Denial::UpstreamUnreachable`] or [`Denial::UpstreamTimeout`], whose codes it has, for a request that must
    /// not be repeated blindly (RFC 9110, 9.2.2).
    UpstreamUnclear(Unclear),
    AnswerUnscrubbable,
    AuditUnavailable,
    Overloaded,
    ShuttingDown,
    Internal,
}

impl Denial {
    /// The stable code, as in the documented table.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NonceMissing(_) => "nonce_missing",
            Self::NonceUnknown => "nonce_unknown",
            Self::NonceExpired { .. } => "nonce_expired",
            Self::NonceRevoked { .. } => "nonce_revoked",
            Self::NonceSpent { .. } => "nonce_spent",
            Self::AgentMismatch => "agent_mismatch",
            Self::OutOfScope { .. } => "out_of_scope",
            Self::RiskRestricted { .. } => "risk_restricted",
            Self::ConditionFailed { .. } => "condition_failed",
            Self::ForeignCredential => "foreign_credential",
            Self::CredentialExposed => "credential_exposed",
            Self::NonceMisplaced(_) => "nonce_misplaced",
            Self::HostNotListed => "host_not_listed",
            Self::AddressForbidden => "address_forbidden",
            Self::RequestAmbiguous(_) => "request_ambiguous",
            Self::RequestMalformed => "request_malformed",
            Self::SlotOccupied => "slot_occupied",
            Self::SignatureRefused(_) => "signature_refused",
            Self::RequestTimeout => "request_timeout",
            Self::RequestTooLarge(_) => "request_too_large",
            Self::ExpectationFailed => "expectation_failed",
            Self::CleartextForbidden => "cleartext_forbidden",
            Self::AgentUnidentified => "agent_unidentified",
            Self::IdentityRefused { .. } => "identity_refused",
            Self::IdentityStale => "identity_stale",
            Self::IdentityUnavailable => "identity_unavailable",
            Self::DestinationMismatch => "destination_mismatch",
            Self::BudgetSpent => "budget_spent",
            Self::RateLimited { .. } => "rate_limited",
            Self::TooManyAtOnce => "too_many_at_once",
            Self::CredentialUnavailable { .. } => "credential_unavailable",
            Self::UpstreamUnreachable | Self::UpstreamUnclear(Unclear::Broke) => "upstream_unreachable",
            Self::UpstreamTls => "upstream_tls",
            Self::UpstreamTimeout | Self::UpstreamUnclear(Unclear::Late) => "upstream_timeout",
            Self::AnswerUnscrubbable => "answer_unscrubbable",
            Self::AuditUnavailable => "audit_unavailable",
            Self::Overloaded => "overloaded",
            Self::ShuttingDown => "shutting_down",
            Self::Internal => "internal",
        }
    }

    /// The HTTP status (RFC 9110, 15).
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::NonceMissing(_)
            | Self::NonceUnknown
            | Self::NonceExpired { .. }
            | Self::NonceRevoked { .. }
            | Self::NonceSpent { .. }
            | Self::AgentUnidentified
            | Self::IdentityRefused { .. }
            | Self::IdentityStale => 401,
            Self::AgentMismatch
            | Self::OutOfScope { .. }
            | Self::RiskRestricted { .. }
            | Self::ConditionFailed { .. }
            | Self::ForeignCredential
            | Self::CredentialExposed
            | Self::NonceMisplaced(_)
            | Self::HostNotListed
            | Self::AddressForbidden
            | Self::CleartextForbidden
            | Self::SignatureRefused(_)
            | Self::BudgetSpent => 403,
            Self::RequestAmbiguous(_) | Self::RequestMalformed | Self::SlotOccupied => 400,
            Self::RequestTimeout => 408,
            Self::ExpectationFailed => 417,
            Self::RequestTooLarge(TooLarge::Body) => 413,
            Self::RequestTooLarge(TooLarge::Target) => 414,
            Self::RequestTooLarge(TooLarge::Head) => 431,
            Self::DestinationMismatch => 421,
            Self::RateLimited { .. } | Self::TooManyAtOnce => 429,
            Self::CredentialUnavailable { .. }
            | Self::IdentityUnavailable
            | Self::AuditUnavailable
            | Self::Overloaded
            | Self::ShuttingDown => 503,
            Self::UpstreamUnreachable
            | Self::UpstreamUnclear(Unclear::Broke)
            | Self::UpstreamTls
            | Self::AnswerUnscrubbable => 502,
            Self::UpstreamTimeout | Self::UpstreamUnclear(Unclear::Late) => 504,
            Self::Internal => 500,
        }
    }

    /// Whose fault it is.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::UpstreamUnreachable
            | Self::UpstreamTls
            | Self::UpstreamTimeout
            | Self::UpstreamUnclear(_)
            | Self::AnswerUnscrubbable => Fault::Upstream,
            Self::CredentialUnavailable { .. }
            | Self::IdentityUnavailable
            | Self::AuditUnavailable
            | Self::Overloaded
            | Self::ShuttingDown
            | Self::Internal => Fault::Sidecar,
            _ => Fault::Agent,
        }
    }

    /// True when the same request can succeed later without anybody changing anything.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::RateLimited { .. }
                | Self::TooManyAtOnce
                | Self::CredentialUnavailable { .. }
                | Self::IdentityUnavailable
                | Self::UpstreamUnreachable
                | Self::UpstreamTimeout
                | Self::RequestTimeout
                | Self::AuditUnavailable
                | Self::Overloaded
                | Self::ShuttingDown
        )
    }
}
