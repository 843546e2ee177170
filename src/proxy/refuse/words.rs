//! What is said: what happened, why, and what to do next.

use std::borrow::Cow;

use super::Context;
use super::text::clean;
use crate::model::denial::{Misplaced, Missing, SignatureFault, TooLarge, Unclear};
use crate::model::{Ambiguity, Denial, NonceId};

/// Longest `detail`, in characters.
const DETAIL_CHARS_MAX: usize = 600;
/// Longest fact, in characters: with the code before it, it stands within the first 200, since clients cut.
const FACT_CHARS_MAX: usize = 165;
/// Allowed requests that are listed at most, and the longest of them in characters.
const ALLOWED_MAX: usize = 20;
const ALLOWED_CHARS_MAX: usize = 200;

/// The words of one refusal, bounded and clean.
pub(super) struct Words {
    /// What kind of refusal it is; the same for each code.
    pub(super) title: &'static str,
    /// What happened, without the code: one sentence without its full stop.
    pub(super) fact: String,
    /// The part of it that tells most, for a status line.
    pub(super) essence: String,
    /// Code, fact, whether to try again, and the first step.
    pub(super) detail: String,
    /// What to do next, the best first; never empty.
    pub(super) next_steps: Vec<String>,
    /// What is allowed instead.
    pub(super) allowed: Vec<String>,
}

/// Finds the words for a refused request.
pub(super) fn say(denial: &Denial, context: &Context) -> Words {
    let request = Request {
        line: clean(format!("{} {}", clean(&context.method, 12), context.path).trim_end(), 48),
        host: if context.host.is_empty() { "the host".to_owned() } else { clean(&context.host, 64) },
    };
    let code = denial.code();
    let allowed = allowed(denial);
    let fact = clean(&fact(denial, &request), FACT_CHARS_MAX);
    let next_steps: Vec<String> = next_steps(denial).into_iter().map(|step| clean(&step, 300)).collect();
    let again = match denial {
        Denial::UpstreamUnclear(_) => "Repeating it could do it twice.",
        _ if denial.is_retryable() => "It may succeed later.",
        _ => "Retrying it unchanged will not help.",
    };
    let first = next_steps.first().map_or("", String::as_str);
    Words {
        title: title(denial),
        detail: clean(&format!("valetkey {code}: {fact}. {again} Next: {first}."), DETAIL_CHARS_MAX),
        essence: if allowed.is_empty() { fact.clone() } else { clean(&summary(allowed), FACT_CHARS_MAX) },
        allowed: allowed.iter().take(ALLOWED_MAX).map(|rule| clean(rule, ALLOWED_CHARS_MAX)).collect(),
        fact,
        next_steps,
    }
}

/// Finds the words where there is no request yet.
pub(super) fn say_without_request(denial: &Denial) -> Words {
    let context = Context {
        dialect: crate::policy::Dialect::Json,
        exchange_id: String::new(),
        nonce_id: None,
        method: "CONNECT".to_owned(),
        path: String::new(),
        host: String::new(),
        wants_problem_json: false,
        slots: Vec::new(),
    };
    say(denial, &context)
}

/// The lease to name: none for a nonce that is not known, so that all of those get one and the same answer.
pub(super) fn nonce_id<'a>(denial: &Denial, context: &'a Context) -> Option<&'a NonceId> {
    let is_unknown = matches!(denial, Denial::NonceMissing(_) | Denial::NonceUnknown);
    context.nonce_id.as_ref().filter(|_| !is_unknown)
}

struct Request {
    line: String,
    host: String,
}

fn title(denial: &Denial) -> &'static str {
    match denial {
        Denial::NonceMissing(_) => "No nonce",
        Denial::NonceUnknown => "Unknown nonce",
        Denial::NonceExpired { .. } => "Nonce expired",
        Denial::NonceRevoked { .. } => "Nonce revoked",
        Denial::NonceSpent { .. } => "Nonce used up",
        Denial::AgentMismatch => "Nonce of another agent",
        Denial::OutOfScope { .. } => "Outside the nonce's scopes",
        Denial::RiskRestricted { .. } => "Restricted for now",
        Denial::ConditionFailed { .. } => "Condition not met",
        Denial::ForeignCredential => "Foreign credential",
        Denial::CredentialExposed => "Real credential in a request",
        Denial::NonceMisplaced(_) => "Nonce in the wrong place",
        Denial::HostNotListed => "Host not listed",
        Denial::AddressForbidden => "Address forbidden",
        Denial::RequestAmbiguous(_) => "Ambiguous request",
        Denial::RequestMalformed => "Malformed request",
        Denial::SlotOccupied => "Credential slot occupied",
        Denial::SignatureRefused(_) => "Signature refused",
        Denial::RequestTimeout => "Request timed out",
        Denial::RequestTooLarge(_) => "Request too large",
        Denial::ExpectationFailed => "Unknown expectation",
        Denial::CleartextForbidden => "Clear text forbidden",
        Denial::AgentUnidentified => "Caller not identified",
        Denial::IdentityRefused { .. } => "Proof of identity refused",
        Denial::IdentityStale => "Identity to be proven again",
        Denial::IdentityUnavailable => "Identity cannot be verified",
        Denial::DestinationMismatch => "Destinations disagree",
        Denial::BudgetSpent => "Allowance used up",
        Denial::RateLimited { .. } => "Too many requests",
        Denial::TooManyAtOnce => "Too many at once",
        Denial::CredentialUnavailable { .. } => "Credential unavailable",
        Denial::UpstreamUnreachable | Denial::UpstreamUnclear(Unclear::Broke) => "Upstream unreachable",
        Denial::UpstreamTls => "Upstream TLS failed",
        Denial::UpstreamTimeout | Denial::UpstreamUnclear(Unclear::Late) => "Upstream timed out",
        Denial::AnswerUnscrubbable => "Answer withheld",
        Denial::AuditUnavailable => "Audit unavailable",
        Denial::Overloaded => "Overloaded",
        Denial::ShuttingDown => "Shutting down",
        Denial::Internal => "Internal fault",
    }
}

/// Whose limit is reached.
fn crowded(denial: &Denial) -> &'static str {
    if *denial == Denial::TooManyAtOnce {
        "as many connections or requests are under way as this agent may have beside others"
    } else {
        "this sidecar is at its limit of work"
    }
}

/// What happened, in one sentence without its full stop. A path is named only where the request was understood and
/// holds nothing that should not be repeated.
fn fact(denial: &Denial, Request { line, host }: &Request) -> Cow<'static, str> {
    match denial {
        Denial::NonceMissing(why) => missing(*why, host),
        Denial::NonceUnknown => "this nonce is not known: mistyped, never minted, or gone for long".into(),
        Denial::NonceExpired { at } => format!("this nonce expired at {at:.0}").into(),
        Denial::NonceRevoked { at } => format!("this nonce was revoked at {at:.0}").into(),
        Denial::NonceSpent { at } => format!("the last use of this nonce was spent at {at:.0}").into(),
        Denial::AgentMismatch => {
            "this nonce is bound to another agent, or another task, than the one that presents it".into()
        }
        Denial::OutOfScope { allowed, .. } => format!("{line} is not allowed; {}", summary(allowed)).into(),
        Denial::RiskRestricted { until } => {
            format!("{line} is too risky while a raised level of risk is in force, which ends by {until:.0}").into()
        }
        Denial::ConditionFailed { because: Some(because) } => {
            format!("{line} is allowed only on a condition that does not hold: {because}").into()
        }
        Denial::ConditionFailed { because: None } => {
            format!("{line} is allowed only on a condition that does not hold").into()
        }
        Denial::ForeignCredential => {
            format!("this request carries a credential other than its nonce, and {host} may get none").into()
        }
        Denial::CredentialExposed => "this request contains a real credential, which no agent should hold".into(),
        Denial::NonceMisplaced(place) => misplaced(*place, host),
        Denial::HostNotListed => format!("{host} is not listed in this sidecar's policy").into(),
        Denial::AddressForbidden => {
            format!("{host} is at an address that may not be reached (private, local or metadata)").into()
        }
        Denial::RequestAmbiguous(what) => {
            format!("two parties could read this request differently: {}", ambiguity(*what)).into()
        }
        Denial::RequestMalformed => "this request is not valid HTTP".into(),
        Denial::SlotOccupied => "the place of the credential holds something beside the nonce".into(),
        Denial::SignatureRefused(fault) => signature(*fault).into(),
        Denial::RequestTimeout => "the request did not arrive in time".into(),
        Denial::RequestTooLarge(what) => too_large(*what).into(),
        Denial::ExpectationFailed => "this request expects something other than 100-continue".into(),
        Denial::CleartextForbidden => format!("a credential for {host} would travel over plain http").into(),
        Denial::AgentUnidentified => {
            "the caller could not be identified, and only identified callers are served".into()
        }
        Denial::IdentityRefused { because } => format!("the proof of who calls is not accepted: {because}").into(),
        Denial::IdentityStale => "the identity of the caller was proven too long ago, or its proof has expired".into(),
        Denial::IdentityUnavailable => "who calls cannot be verified just now, and nobody is believed without".into(),
        Denial::DestinationMismatch => "the request names another host than its connection was opened to".into(),
        Denial::BudgetSpent => "the allowance of this task is used up".into(),
        Denial::RateLimited { retry_after } => {
            format!("requests come faster than allowed; wait {} s", seconds(*retry_after)).into()
        }
        Denial::CredentialUnavailable { .. } => format!("the source of the real credential for {host} failed").into(),
        Denial::UpstreamUnreachable => {
            format!("{host} could not be reached, or broke off before it had answered").into()
        }
        Denial::UpstreamTls => format!("the TLS certificate or handshake of {host} was not acceptable").into(),
        Denial::UpstreamTimeout => format!("{host} did not answer in time").into(),
        Denial::UpstreamUnclear(Unclear::Broke) => {
            format!("{host} broke off before it had answered; the request may have been carried out").into()
        }
        Denial::UpstreamUnclear(Unclear::Late) => {
            format!("{host} did not answer in time; the request may have been carried out").into()
        }
        Denial::AnswerUnscrubbable => {
            format!("{host} answered, in a form that cannot be searched for credentials; the answer is withheld").into()
        }
        Denial::AuditUnavailable => "the decision could not be recorded, so nothing was sent".into(),
        Denial::TooManyAtOnce | Denial::Overloaded => crowded(denial).into(),
        Denial::ShuttingDown => "this sidecar is shutting down".into(),
        Denial::Internal => "a fault inside the sidecar".into(),
    }
}

/// As many of the allowed requests as fit the fact.
fn summary(allowed: &[String]) -> String {
    let Some((first, others)) = allowed.split_first() else { return "allowed is nothing at this service".to_owned() };
    let mut text = format!("allowed {}", clean(first, 48));
    for (index, rule) in others.iter().enumerate() {
        if text.len() + rule.len() > 64 {
            return format!("{text} and {} more", others.len() - index);
        }
        text = format!("{text}, {rule}");
    }
    text
}

fn missing(why: Missing, host: &str) -> Cow<'static, str> {
    match why {
        Missing::Nowhere => format!("this request to {host} carries no nonce where its API key belongs").into(),
        Missing::NotAttached => {
            format!("no nonce is where the API key of {host} belongs; the one of the proxy only says who asks").into()
        }
        Missing::WebPage => {
            "the proxy's nonce is not used for what a web page may have sent (Origin, Sec-Fetch-Site)".into()
        }
        Missing::OtherService => {
            format!("the proxy's nonce is not for a service at {host}, and there is no other").into()
        }
    }
}

fn misplaced(place: Misplaced, host: &str) -> Cow<'static, str> {
    match place {
        Misplaced::Header => "a nonce stands in a header field other than the one for its API key".into(),
        Misplaced::Path => "a nonce stands in the path".into(),
        Misplaced::Query => "a nonce stands in a query parameter other than the one for its API key".into(),
        Misplaced::Host => format!("this nonce was presented at {host}, which is not a host of its service").into(),
        Misplaced::Body => "a nonce stands in the body".into(),
        Misplaced::Proxy => "a nonce came as the proxy's credentials, over plain http from beyond loopback".into(),
    }
}

fn too_large(what: TooLarge) -> &'static str {
    match what {
        TooLarge::Target => "the request target is longer than allowed",
        TooLarge::Head => "the request's header block is larger than allowed",
        TooLarge::Body => "the request's body is larger than allowed",
    }
}

fn signature(fault: SignatureFault) -> &'static str {
    match fault {
        SignatureFault::Malformed => "its AWS signature is not written, once, as Signature Version 4 has it",
        SignatureFault::Mismatch => "its AWS signature is not one over this request by the key pair of this nonce",
        SignatureFault::NotSigned => "its AWS signature leaves out Host, X-Amz-Date, the token or another X-Amz- field",
        SignatureFault::Stale => "its AWS signature was made more than 15 minutes from now",
        SignatureFault::Expired => "its URL was presigned for a time that is over",
        SignatureFault::Scope => "its AWS signature is for another service or region than this host",
        SignatureFault::OtherBody => "its body is not the one that was signed",
        SignatureFault::UnsignedBody => "its AWS signature leaves out the body, or what comes behind it",
        SignatureFault::Unsupported => {
            "this form of an AWS signature is not supported: SigV2, SigV4A, over events, or for a WebSocket"
        }
        SignatureFault::CopySource => {
            "x-amz-copy-source and x-amz-rename-source reach another object than its path names, unseen by any rule"
        }
    }
}

fn signature_steps(fault: SignatureFault) -> &'static [&'static str] {
    match fault {
        SignatureFault::Malformed
        | SignatureFault::Mismatch
        | SignatureFault::NotSigned
        | SignatureFault::OtherBody => &[
            "sign with the key pair that came with the nonce, the nonce as session token, and change nothing after it",
        ],
        SignatureFault::Stale => &["set the clock of the agent right, and sign again"],
        SignatureFault::Expired => &["presign another URL"],
        SignatureFault::Scope => &["set the region and endpoint of the client to those of the service"],
        SignatureFault::UnsignedBody => &["sign the body, or use https"],
        SignatureFault::Unsupported => &["let the client sign the request with SigV4 (HMAC-SHA256)"],
        SignatureFault::CopySource => &["read the object and write it again under the other name", OWNER],
    }
}

fn ambiguity(what: Ambiguity) -> &'static str {
    match what {
        Ambiguity::DotSegment => "its path has a `.` or `..` segment",
        Ambiguity::EmptySegment => "its path has an empty segment",
        Ambiguity::EncodedSlash => "its path has an encoded slash or a backslash",
        Ambiguity::PathParameter => "its path has a `;` parameter beside dots",
        Ambiguity::PathBytes => "its path has bytes or escapes that are not valid there",
        Ambiguity::DoubleEncoding => "its path is percent-encoded twice",
        Ambiguity::TargetForm => "its target is not in a form that is allowed here",
        Ambiguity::Host => "its Host is missing, repeated or not a host",
        Ambiguity::Framing => "its length is not clear (Content-Length, Transfer-Encoding)",
        Ambiguity::ConnectionOption => "its Connection field names a field that is not hop-by-hop",
        Ambiguity::MethodOverride => "it overrides its own method",
        Ambiguity::Query => "a query parameter that matters is repeated or not decodable",
        Ambiguity::RepeatedHeader => "a header field that may be there once is repeated",
        Ambiguity::Handshake => "its WebSocket handshake is not as RFC 6455 wants it",
        Ambiguity::Method => "its method is not allowed in a tunnel",
    }
}

fn allowed(denial: &Denial) -> &[String] {
    if let Denial::OutOfScope { allowed, .. } = denial { allowed } else { &[] }
}

const MINT: &str = "ask your orchestrator to mint a new nonce for this task";
const OWNER: &str = "do without it, or ask the owner of the policy";
const OPERATOR: &str = "tell the operator of the sidecar, with the exchange's id";
const LATER: &str = "try again after a pause";

/// What to do next, the best first, without full stops.
fn next_steps(denial: &Denial) -> Vec<Cow<'static, str>> {
    let fixed: &[&'static str] = match denial {
        Denial::NonceMissing(Missing::OtherService) => &[MINT],
        Denial::NonceMissing(Missing::Nowhere | Missing::NotAttached | Missing::WebPage) => {
            &["send the nonce (an_...) as the API key of this service", MINT]
        }
        Denial::NonceUnknown => &["check that the whole nonce (an_...) is sent as it was given", MINT],
        Denial::NonceExpired { .. } | Denial::NonceSpent { .. } => &[MINT],
        Denial::NonceRevoked { .. } => &["stop using it, and ask your orchestrator whether the task goes on", MINT],
        Denial::AgentMismatch => &["use a nonce that was minted for or delegated to this agent", MINT],
        Denial::OutOfScope { required_scope: Some(scope), .. } => {
            return vec![
                format!("ask your orchestrator for a nonce with the scope {scope}").into(),
                "or go on with what is allowed".into(),
            ];
        }
        Denial::OutOfScope { required_scope: None, .. } => &["go on with what is allowed", OWNER],
        Denial::RiskRestricted { .. } => &["go on with less risky requests, or wait until then", OPERATOR],
        Denial::ConditionFailed { .. } => &["change the request so that the condition holds", OWNER],
        Denial::ForeignCredential => &["send the nonce alone, without other keys, cookies or signatures"],
        Denial::CredentialExposed => &["remove it, and tell your operator where it came from"],
        Denial::NonceMisplaced(_) => &["send a nonce only as the API key of its own service", MINT],
        Denial::HostNotListed => &["use a service that is listed", OWNER],
        Denial::AddressForbidden => &[OWNER],
        Denial::RequestAmbiguous(_) => &["send it in its plain, canonical form"],
        Denial::RequestMalformed => &["send valid HTTP"],
        Denial::SlotOccupied => &["let the nonce be the whole value of the API key"],
        Denial::SignatureRefused(fault) => signature_steps(*fault),
        Denial::RequestTimeout => &["send it again, without pauses"],
        Denial::RequestTooLarge(_) => &["send a smaller request"],
        Denial::ExpectationFailed => &["send it without that Expect field"],
        Denial::CleartextForbidden => &["use https"],
        Denial::AgentUnidentified => &["start the agent under the identity that the policy names", OPERATOR],
        Denial::IdentityRefused { .. } => {
            &["get a fresh token for this sidecar's audience, and connect again", OPERATOR]
        }
        Denial::IdentityStale => &["open a new connection to the proxy, with a fresh token if you use one"],
        Denial::IdentityUnavailable => &[LATER, OPERATOR],
        Denial::DestinationMismatch => &["open a connection of its own to each host"],
        Denial::BudgetSpent => &["ask your orchestrator for a larger allowance, or end the task"],
        Denial::RateLimited { .. } => &["wait as long as Retry-After says, then send it again"],
        Denial::TooManyAtOnce => &["finish or close some of them, then send it again"],
        Denial::CredentialUnavailable { .. } | Denial::AuditUnavailable => &[LATER, OPERATOR],
        Denial::UpstreamUnreachable | Denial::UpstreamTimeout | Denial::Overloaded | Denial::ShuttingDown => &[LATER],
        Denial::UpstreamUnclear(_) => &["look whether it was carried out before you repeat it"],
        Denial::UpstreamTls => &[OPERATOR],
        Denial::AnswerUnscrubbable => &[
            "the request was carried out or may have been: look before you repeat it",
            "ask for a plain representation",
        ],
        Denial::Internal => &[OPERATOR],
    };
    fixed.iter().map(|&step| step.into()).collect()
}

/// Whole seconds, rounded up, at least one.
pub(super) fn seconds(duration: std::time::Duration) -> u64 {
    (duration.as_secs() + u64::from(duration.subsec_nanos() > 0)).max(1)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn seconds_are_whole_and_never_none() {
        assert_eq!(seconds(Duration::ZERO), 1);
        assert_eq!(seconds(Duration::from_millis(1001)), 2);
        assert_eq!(seconds(Duration::from_secs(30)), 30);
    }

    #[test]
    fn allowed_requests_are_counted_where_they_do_not_fit() {
        let rules = |count: usize| vec!["GET /v1/customers".to_owned(); count];
        assert_eq!(summary(&rules(0)), "allowed is nothing at this service");
        assert_eq!(summary(&rules(1)), "allowed GET /v1/customers");
        assert_eq!(summary(&rules(2)), "allowed GET /v1/customers, GET /v1/customers");
        assert_eq!(summary(&rules(9)), "allowed GET /v1/customers, GET /v1/customers, GET /v1/customers and 6 more");
    }
}
