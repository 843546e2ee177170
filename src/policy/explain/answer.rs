//! What is said of a request: the verdict, and what goes with it.

use serde::Serialize;

use crate::model::{Ambiguity, Denial, Destination, Risk, Scheme};

/// What would happen, and why; also the JSON form.
#[derive(Debug, Clone, Serialize)]
pub struct Answer {
    /// As asked.
    pub method: String,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// The host, and the port where it is not the scheme's.
    pub destination: String,
    /// Without the query.
    pub path: String,
    /// The verdict.
    pub allowed: bool,
    /// The code of the refusal.
    pub code: Option<&'static str>,
    /// A sentence.
    pub why: String,
    /// By what it is allowed.
    pub by: Option<Way>,
    /// What else allows it, in the order in which it is tried once the uses of the first are gone.
    pub also: Vec<String>,
    /// The deny that stands against it.
    pub denied_by: Option<String>,
    /// The scope that the refusal names to the agent: it would allow the request, and the agent may have it.
    pub required: Option<String>,
    /// The code with which it would be refused, were the service's path rules enforced and not only observed.
    pub observed: Option<&'static str>,
    /// Scopes that would allow it.
    pub would: Vec<Way>,
    /// What the nonce allows instead.
    pub instead: Vec<String>,
}

/// A scope and its rule that allow a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Way {
    /// The service.
    pub service: String,
    /// The scope.
    pub scope: String,
    /// Its risk.
    pub risk: Risk,
    /// The rule, as the policy spells it.
    pub rule: String,
    /// The credential, by its name.
    pub credential: String,
    /// Uses of the scope in a nonce's life.
    pub max_uses: Option<u32>,
    /// Who may have it.
    pub agents: Vec<String>,
}

impl Answer {
    /// The request, without a verdict.
    pub(super) fn of(method: &str, scheme: Scheme, destination: &Destination, path: &str) -> Self {
        Self {
            method: method.to_owned(),
            scheme: scheme.as_str(),
            destination: destination.authority(scheme),
            path: if path.is_empty() { "/".to_owned() } else { path.to_owned() },
            allowed: false,
            code: None,
            why: String::new(),
            by: None,
            also: Vec::new(),
            denied_by: None,
            required: None,
            observed: None,
            would: Vec::new(),
            instead: Vec::new(),
        }
    }

    /// Refused, since two parties could read it differently.
    pub(super) fn ambiguous(self, ambiguity: Ambiguity) -> Self {
        self.refused(&Denial::RequestAmbiguous(ambiguity), words(ambiguity))
    }

    /// Relayed, whatever it is.
    pub(super) fn unread(self) -> Self {
        let why = "no service lists the host: it is relayed unread, without a credential (egress.unlisted)";
        Self { allowed: true, why: why.to_owned(), ..self }
    }

    pub(super) fn refused(self, denial: &Denial, why: impl Into<String>) -> Self {
        Self { code: Some(denial.code()), why: why.into(), ..self }
    }
}

fn words(ambiguity: Ambiguity) -> &'static str {
    match ambiguity {
        Ambiguity::DotSegment => "its path has a `.` or `..` segment",
        Ambiguity::EmptySegment => "its path has an empty segment",
        Ambiguity::EncodedSlash => "its path has an encoded slash or a backslash, and no rule says encoded_slash",
        Ambiguity::PathParameter => "its path has a `;` parameter beside dots",
        Ambiguity::PathBytes => "its path or query has bytes or escapes that are not valid there",
        Ambiguity::DoubleEncoding => "its path is percent-encoded twice",
        Ambiguity::MethodOverride => "a query parameter overrides its method",
        Ambiguity::Query => "a query parameter that a rule looks at is repeated or cannot be decoded",
        Ambiguity::Method => "its method is none that a request may have",
        Ambiguity::TargetForm
        | Ambiguity::Host
        | Ambiguity::Framing
        | Ambiguity::ConnectionOption
        | Ambiguity::RepeatedHeader
        | Ambiguity::Handshake => "it is not in a form that can be judged",
    }
}
