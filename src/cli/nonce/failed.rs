//! What a call that failed is for the person who typed it: what happened, and what to do.

use std::io::ErrorKind;

use crate::cli::{Failure, print};
use crate::control::client::ClientError;
use crate::control::types::{Mistake, Problem};

/// The sentence and the exit code.
pub(in crate::cli) fn say(error: ClientError) -> Failure {
    match error {
        ClientError::Unsendable(_) => Failure::usage("--idempotency-key: expected printable text without line breaks"),
        ClientError::Connect { path, source } => Failure::remote(format!(
            "cannot reach the sidecar at {}: {}\n  {}",
            path.display(),
            reason(&source),
            connect_hint(source.kind())
        )),
        ClientError::Refused(problem) => Failure::remote(refused(&problem)),
        error @ (ClientError::Broken(_) | ClientError::Timeout | ClientError::Unintelligible(_)) => {
            Failure::remote(format!("{error}\n  is it a sidecar of this version? its log says more"))
        }
    }
}

/// A word for programs.
pub(super) fn code(error: &ClientError) -> String {
    match error {
        ClientError::Connect { .. } => "unreachable".to_owned(),
        ClientError::Refused(problem) => problem.code.clone(),
        ClientError::Broken(_) => "broken".to_owned(),
        ClientError::Timeout => "timeout".to_owned(),
        ClientError::Unintelligible(_) => "unintelligible".to_owned(),
        ClientError::Unsendable(_) => "unsendable".to_owned(),
    }
}

fn reason(error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => "there is no such socket".to_owned(),
        ErrorKind::ConnectionRefused => "nobody listens there any more".to_owned(),
        ErrorKind::PermissionDenied => "this user may not".to_owned(),
        _ => error.to_string(),
    }
}

fn connect_hint(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::PermissionDenied => {
            "it is open to the sidecar's own user, and to a group with `valetkey serve --control-group GID`"
        }
        _ => "is it running? `valetkey serve` starts it; --control PATH or VALETKEY_CONTROL names its socket",
    }
}

fn refused(problem: &Problem) -> String {
    let mut said = format!("{}: {}", print::visible(&problem.code), print::visible(&problem.detail));
    let mut add = |line: String| {
        said.push_str("\n  ");
        said.push_str(&line);
    };
    for mistake in &problem.errors {
        add(format!("{}{}", place(mistake), print::visible(&mistake.detail)));
    }
    if let Some(scopes) = &problem.grantable {
        add(format!("it may have: {}", listed(scopes)));
    }
    if let Some(services) = &problem.services {
        add(format!("there are: {}", listed(services)));
    }
    said
}

/// The flag that a member of the request came from.
fn place(mistake: &Mistake) -> String {
    let pointer = mistake.pointer.as_deref().or(mistake.parameter.as_deref()).unwrap_or_default();
    let member = pointer.trim_start_matches('/').split('/').next().unwrap_or_default();
    let flag = match (member, mistake.header.is_some()) {
        (_, true) => "--idempotency-key".to_owned(),
        ("", _) => return String::new(),
        ("grants", _) => "--grant".to_owned(),
        ("labels", _) => "--label".to_owned(),
        (other, _) => format!("--{}", print::visible(other).replace('_', "-")),
    };
    format!("{flag}: ")
}

fn listed(names: &[String]) -> String {
    if names.is_empty() {
        return "nothing".to_owned();
    }
    names.iter().map(|name| print::visible(name)).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_flags_and_what_there_is() {
        let problem = Problem {
            code: "invalid_request".into(),
            detail: "the request has mistakes".into(),
            errors: vec![
                Mistake::at("/max_uses", "is no number"),
                Mistake::at("/grants/0/service", "is empty"),
                Mistake::at("", "is not JSON"),
                Mistake::in_header("idempotency-key", "is too long"),
                Mistake::in_parameter("agent", "is a\u{1b}[2J"),
            ],
            grantable: Some(vec!["read".into(), "write".into()]),
            services: Some(Vec::new()),
            ..Problem::default()
        };
        let lines = [
            "invalid_request: the request has mistakes",
            "--max-uses: is no number",
            "--grant: is empty",
            "is not JSON",
            "--idempotency-key: is too long",
            "--agent: is a\\u{1b}[2J",
            "it may have: read, write",
            "there are: nothing",
        ];
        assert_eq!(refused(&problem), lines.join("\n  "));
    }

    #[test]
    fn who_is_not_let_in_hears_about_groups_and_the_rest_about_starting_it() {
        let said = |kind: ErrorKind| {
            format!("{:?}", say(ClientError::Connect { path: "/run/x.sock".into(), source: kind.into() }))
        };
        assert!(said(ErrorKind::PermissionDenied).contains("--control-group"));
        assert!(said(ErrorKind::NotFound).contains("valetkey serve"));
        assert!(said(ErrorKind::ConnectionRefused).contains("--control PATH"));
    }
}
