//! Why a call is refused, and how that is said.

use std::time::Duration;

use http::{HeaderValue, StatusCode, header};

use super::answer;
use super::serve::Answer;
use super::types::{Mistake, Problem};
use crate::identity::Refused;
use crate::lease::EndCause;
use crate::model::{ScopeName, ServiceName};
use crate::policy::MintRefusal;

/// When a minter that has too many live nonces may ask again: some of many may have expired.
const NONCES_END_IN: Duration = Duration::from_secs(5);

/// A refusal of the control API; each is one documented code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The request cannot be read; each mistake.
    InvalidRequest(Vec<Mistake>),
    /// The body is not `application/json`.
    MediaType,
    /// The body is too long.
    TooLarge,
    /// The body did not come in time.
    Timeout,
    /// Nobody whom the policy knows as a minter.
    Unauthenticated,
    /// What was shown proves nobody.
    Unproven(Refused),
    /// Known, and may not.
    Forbidden(Forbidden),
    /// The agent may not have this scope.
    ScopeNotGrantable { service: ServiceName, scope: ScopeName, grantable: Vec<ScopeName> },
    /// No such service for this agent.
    UnknownService { service: ServiceName, services: Vec<ServiceName> },
    /// No such agent.
    UnknownAgent,
    /// No such thing.
    NotFound,
    /// The path is there, the method is not.
    MethodNotAllowed(&'static str),
    /// The Idempotency-Key was used otherwise.
    Conflict(Conflict),
    /// The nonce is over, for this reason.
    NotRenewable(EndCause),
    /// The nonce that was to be delegated is over, for this reason.
    NotDelegable(EndCause),
    /// A delegation asks for more than the nonce above has or may give; each thing.
    ExceedsParent(Vec<Mistake>),
    /// The task was completed.
    TaskCompleted,
    /// The allowance of the task is used up.
    BudgetSpent,
    /// More calls than the minter may make, and how long to wait; whether they make nonces.
    TooFast { wait: Duration, is_making: bool },
    /// As many live nonces as the minter may have.
    TooManyNonces,
    /// As many leases as there may be.
    Overloaded,
    /// As many levels of risk in force as there may be.
    TooManyLevels,
    /// As many follow the audit as may.
    TooManyFollowers,
    /// No randomness to be had.
    NoRandomness,
    /// The audit cannot be written.
    AuditUnavailable,
    /// A fault of ours.
    Internal,
}

/// What is forbidden.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Forbidden {
    /// The caller is an agent.
    Agent,
    /// `may` does not hold this permission.
    Permission,
    /// Not one of the caller's agents.
    ForeignAgent,
    /// Another minter's nonce.
    ForeignMinter,
    /// Riskier than the minter may mint.
    Risk,
    /// The agent may not renew by itself.
    SelfRenew,
    /// The Host is not one of this socket's names.
    Host,
    /// A browser's headers.
    Browser,
}

/// What an Idempotency-Key conflicts with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Conflict {
    /// Another body came with it.
    OtherBody,
    /// The nonce that it made is over.
    Over,
}

impl From<MintRefusal> for Refusal {
    fn from(refusal: MintRefusal) -> Self {
        match refusal {
            MintRefusal::UnknownAgent => Self::UnknownAgent,
            // The body's parser refuses this before.
            MintRefusal::Empty => Self::InvalidRequest(vec![Mistake::at("", "must hold a grant with a scope")]),
            MintRefusal::UnknownService { service, services } => Self::UnknownService { service, services },
            MintRefusal::ScopeNotGrantable { service, scope, grantable } => {
                Self::ScopeNotGrantable { service, scope, grantable }
            }
        }
    }
}

impl Refusal {
    /// The stable code, and its status.
    pub(super) fn code(&self) -> (&'static str, StatusCode) {
        match self {
            Self::InvalidRequest(_) => ("invalid_request", StatusCode::BAD_REQUEST),
            Self::MediaType => ("unsupported_media_type", StatusCode::UNSUPPORTED_MEDIA_TYPE),
            Self::TooLarge => ("request_too_large", StatusCode::PAYLOAD_TOO_LARGE),
            Self::Timeout => ("request_timeout", StatusCode::REQUEST_TIMEOUT),
            Self::Unproven(refused) if refused.is_ours() => ("identity_unavailable", StatusCode::SERVICE_UNAVAILABLE),
            Self::Unauthenticated | Self::Unproven(_) => ("unauthenticated", StatusCode::UNAUTHORIZED),
            Self::Forbidden(_) => ("forbidden", StatusCode::FORBIDDEN),
            Self::ScopeNotGrantable { .. } => ("scope_not_grantable", StatusCode::FORBIDDEN),
            Self::UnknownService { .. } => ("unknown_service", StatusCode::NOT_FOUND),
            Self::UnknownAgent => ("unknown_agent", StatusCode::NOT_FOUND),
            Self::NotFound => ("not_found", StatusCode::NOT_FOUND),
            Self::MethodNotAllowed(_) => ("method_not_allowed", StatusCode::METHOD_NOT_ALLOWED),
            Self::Conflict(_) => ("idempotency_conflict", StatusCode::CONFLICT),
            Self::NotRenewable(_) => ("not_renewable", StatusCode::CONFLICT),
            Self::NotDelegable(_) => ("not_delegable", StatusCode::CONFLICT),
            Self::ExceedsParent(_) => ("delegation_exceeds_parent", StatusCode::FORBIDDEN),
            Self::TaskCompleted => ("task_completed", StatusCode::CONFLICT),
            Self::BudgetSpent => ("budget_spent", StatusCode::FORBIDDEN),
            Self::TooFast { is_making: true, .. } | Self::TooManyNonces => {
                ("mint_rate_limited", StatusCode::TOO_MANY_REQUESTS)
            }
            Self::TooFast { is_making: false, .. } => ("rate_limited", StatusCode::TOO_MANY_REQUESTS),
            Self::Overloaded | Self::TooManyLevels | Self::TooManyFollowers | Self::NoRandomness => {
                ("overloaded", StatusCode::SERVICE_UNAVAILABLE)
            }
            Self::AuditUnavailable => ("audit_unavailable", StatusCode::SERVICE_UNAVAILABLE),
            Self::Internal => ("internal", StatusCode::INTERNAL_SERVER_ERROR),
        }
    }

    /// What is wrong and what to do; names of the policy and sentences of ours, no word of the caller's.
    fn detail(&self) -> String {
        let text = match self {
            Self::InvalidRequest(_) => "The request cannot be read; `errors` says where.",
            Self::MediaType => "The body must be `application/json`, not encoded further.",
            Self::TooLarge => "The body may have 65536 bytes.",
            Self::Timeout => "The body did not come within 10 seconds.",
            Self::Unauthenticated => {
                "The policy knows no minter with your uid or other proven identity; add a `[minters.NAME]` with it, or call as the sidecar's own user."
            }
            Self::Unproven(refused) => return format!("Who you are is not proven: {refused}."),
            Self::Forbidden(what) => what.detail(),
            Self::ScopeNotGrantable { service, scope, .. } => {
                return format!(
                    "The policy does not grant {scope} of {service} to this agent; `grantable` is what it may have."
                );
            }
            Self::UnknownService { service, .. } => {
                return format!("There is no service {service} for this agent; `services` are those that there are.");
            }
            Self::UnknownAgent => "The policy has no such agent.",
            Self::NotFound => "There is no such thing, or it is over.",
            Self::MethodNotAllowed(_) => "This path has other methods; `Allow` names them.",
            Self::Conflict(Conflict::OtherBody) => "This Idempotency-Key came with another body before; use a new one.",
            Self::Conflict(Conflict::Over) => "The nonce that this Idempotency-Key made is over; use a new one.",
            Self::NotRenewable(cause) => {
                return format!("The nonce is over ({}) and does not come back; mint a new one.", cause.as_str());
            }
            Self::NotDelegable(cause) => {
                return format!("The nonce is over ({}), and nothing can be delegated from it.", cause.as_str());
            }
            Self::ExceedsParent(_) => {
                "A nonce is delegated within what the one above it has left and the policy lets it give; `errors` says what exceeds that."
            }
            Self::BudgetSpent => {
                "The allowance of this task is used up, and no nonce of it could be used; name another task, or raise `budget` of the agent in the policy."
            }
            Self::TooFast { .. } => {
                "Your minter calls faster than the policy lets it (`rate`); wait as `Retry-After` says."
            }
            Self::TooManyNonces => {
                "Your minter has as many live nonces as the policy lets it have (`nonces_max`), or an agent has made as many of them as leave room for others; revoke some, or try again when some expired."
            }
            Self::Overloaded => {
                "There are as many live nonces as there may be; revoke some, or try again when some expired."
            }
            Self::TaskCompleted => {
                "Your minter has completed this task less than an hour ago; nothing is minted for it any more. Use a new task."
            }
            Self::TooManyLevels => "There are as many levels of risk in force as there may be; take some back.",
            Self::TooManyFollowers => "As many follow the audit as may at once, which are 16.",
            Self::NoRandomness => "The system gives no randomness just now; try again.",
            Self::AuditUnavailable => {
                "This cannot be put on record, so it was not done; try again when the audit works."
            }
            Self::Internal => "A fault of ours; it is in the log.",
        };
        text.to_owned()
    }

    /// The body.
    pub(super) fn problem(&self) -> Problem {
        let (code, status) = self.code();
        let mut problem = Problem {
            kind: format!("urn:valetkey:error:{code}"),
            title: code.replace('_', " "),
            status: status.as_u16(),
            detail: self.detail(),
            code: code.to_owned(),
            ..Problem::default()
        };
        if let Self::InvalidRequest(mistakes) | Self::ExceedsParent(mistakes) = self {
            problem.errors.clone_from(mistakes);
        }
        if let Self::ScopeNotGrantable { grantable, .. } = self {
            problem.grantable = Some(grantable.iter().map(ToString::to_string).collect());
        }
        if let Self::UnknownService { services, .. } = self {
            problem.services = Some(services.iter().map(ToString::to_string).collect());
        }
        problem
    }

    /// In how many seconds it may be otherwise.
    fn retry_after(&self) -> Option<u64> {
        match self {
            Self::TooFast { wait, .. } => Some(wait.as_secs() + u64::from(wait.subsec_nanos() > 0)),
            Self::TooManyNonces => Some(NONCES_END_IN.as_secs()),
            other => (other.code().1 == StatusCode::SERVICE_UNAVAILABLE).then_some(1),
        }
    }

    /// The whole answer.
    pub(super) fn answer(&self) -> Answer {
        let problem = self.problem();
        let (_, status) = self.code();
        let mut answer = answer::json(status, &problem);
        let headers = answer.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Self::MethodNotAllowed(allowed) = self {
            headers.insert(header::ALLOW, HeaderValue::from_static(allowed));
        }
        // RFC 9110, 11.6.1 asks for a challenge; ours is proven by the kernel and cannot be sent.
        if *self == Self::Unauthenticated {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("peer-uid realm=\"valetkey\""));
        }
        if let Some(seconds) = self.retry_after() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        // Of what is left of the body not all may be read, so that the connection cannot be used again.
        if matches!(self, Self::TooLarge | Self::Timeout) {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        answer
    }
}

impl Forbidden {
    fn detail(self) -> &'static str {
        match self {
            Self::Agent => {
                "You are an agent in the policy, by your uid or otherwise; an agent never uses this API. Call as another user."
            }
            Self::Permission => "The policy's `may` of your minter does not hold this.",
            Self::ForeignMinter => {
                "Only the minter that minted this nonce may renew it, or delegate it to agents of its own."
            }
            Self::Risk => "This is riskier than `max_risk` of your minter lets it mint, renew or delegate.",
            Self::SelfRenew => {
                "The policy does not let this agent renew (`self_renew`); ask whoever minted this nonce."
            }
            Self::ForeignAgent => "This is not one of your minter's `agents`.",
            Self::Host => {
                "The Host is `localhost` or `valetkey` on the socket, and one of the certificate's names over TLS."
            }
            Self::Browser => "This API is not for browsers.",
        }
    }
}
