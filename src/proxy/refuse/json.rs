//! One JSON that many SDKs can read: the members of RFC 9457 beside `message` and `error`.

use serde::Serialize;

use super::words::{Words, nonce_id};
use super::{Context, Spelled};
use crate::model::{Denial, ScopeName};

/// `ok` and the shape of `error` are the only differences between the dialects.
#[derive(Serialize)]
struct Refusal<'a, E> {
    #[serde(skip_serializing_if = "Option::is_none")]
    ok: Option<bool>,
    r#type: String,
    title: &'static str,
    status: u16,
    detail: &'a str,
    instance: String,
    code: &'static str,
    origin: &'static str,
    retryable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    nonce_id: Option<String>,
    exchange_id: &'a str,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    allowed: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    required_scope: Option<&'a str>,
    next_steps: &'a [String],
    message: &'a str,
    error: E,
}

#[derive(Serialize)]
struct ErrorMember<'a> {
    r#type: &'static str,
    code: &'static str,
    message: &'a str,
}

/// `application/json`, which every SDK parses; `application/problem+json` only where it was asked for.
pub(super) fn spell(denial: &Denial, context: &Context, words: &Words) -> Spelled {
    let content_type =
        if context.wants_problem_json { "application/problem+json" } else { "application/json; charset=utf-8" };
    let error = ErrorMember { r#type: denial.code(), code: denial.code(), message: &words.detail };
    Spelled { content_type, body: body(denial, context, words, None, error) }
}

/// Slack's clients want `ok` and a string in `error`.
pub(super) fn spell_slack(denial: &Denial, context: &Context, words: &Words) -> Spelled {
    let body = body(denial, context, words, Some(false), denial.code());
    Spelled { content_type: "application/json; charset=utf-8", body }
}

/// npm shows `error` as it is, which has to be a string then.
pub(super) fn spell_npm(denial: &Denial, context: &Context, words: &Words) -> Spelled {
    let body = body(denial, context, words, None, &words.detail);
    Spelled { content_type: "application/json; charset=utf-8", body }
}

fn body<E: Serialize>(denial: &Denial, context: &Context, words: &Words, ok: Option<bool>, error: E) -> String {
    let code = denial.code();
    let refusal = Refusal {
        ok,
        r#type: format!("urn:valetkey:denial:{code}"),
        title: words.title,
        status: denial.status(),
        detail: &words.detail,
        instance: format!("urn:valetkey:exchange:{}", context.exchange_id),
        code,
        origin: "valetkey",
        retryable: denial.is_retryable(),
        nonce_id: nonce_id(denial, context).map(ToString::to_string),
        exchange_id: &context.exchange_id,
        allowed: &words.allowed,
        required_scope: required_scope(denial),
        next_steps: &words.next_steps,
        message: &words.detail,
        error,
    };
    serde_json::to_string(&refusal).expect("strings, numbers and lists of strings always become JSON")
}

fn required_scope(denial: &Denial) -> Option<&str> {
    let Denial::OutOfScope { required_scope, .. } = denial else { return None };
    required_scope.as_ref().map(ScopeName::as_str)
}
