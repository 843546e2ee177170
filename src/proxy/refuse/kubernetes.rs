//! A Kubernetes `Status` (meta/v1).

use serde::Serialize;

use super::fields::retry_after_seconds;
use super::words::Words;
use super::{Context, Spelled};
use crate::model::Denial;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Status<'a> {
    kind: &'static str,
    api_version: &'static str,
    metadata: Metadata,
    status: &'static str,
    message: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'static str,
    details: Details<'a>,
    code: u16,
}

#[derive(Serialize)]
struct Metadata {}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Details<'a> {
    uid: &'a str,
    causes: Vec<Cause<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_seconds: Option<u64>,
}

#[derive(Serialize)]
struct Cause<'a> {
    reason: &'static str,
    message: &'a str,
}

pub(super) fn spell(denial: &Denial, context: &Context, words: &Words) -> Spelled {
    let causes = words.next_steps.iter().map(|step| Cause { reason: denial.code(), message: step }).collect();
    let status = Status {
        kind: "Status",
        api_version: "v1",
        metadata: Metadata {},
        status: "Failure",
        message: &words.detail,
        reason: reason(denial.status()),
        details: Details { uid: &context.exchange_id, causes, retry_after_seconds: retry_after_seconds(denial) },
        code: denial.status(),
    };
    let body = serde_json::to_string(&status).expect("strings and numbers always become JSON");
    Spelled { content_type: "application/json", body }
}

/// `metav1.StatusReason`; empty stands for unknown there.
fn reason(status: u16) -> &'static str {
    match status {
        400 | 414 | 417 | 421 | 431 => "BadRequest",
        401 => "Unauthorized",
        403 => "Forbidden",
        408 | 504 => "Timeout",
        413 => "RequestEntityTooLarge",
        429 => "TooManyRequests",
        500 => "InternalError",
        503 => "ServiceUnavailable",
        _ => "",
    }
}
