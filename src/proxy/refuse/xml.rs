//! XML as AWS writes its errors.

use http::{HeaderMap, HeaderName};

use super::fields::insert;
use super::text::xml;
use super::words::Words;
use super::{Context, Spelled};
use crate::model::Denial;
use crate::model::denial::SignatureFault;

/// S3 has `Error` at the root; the query and REST-XML services have it in an `ErrorResponse`. Clients of the JSON
/// services show such a body whole, and take the code from a header field.
pub(super) fn spell(denial: &Denial, context: &Context, words: &Words) -> Spelled {
    const PROLOGUE: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";
    let code = aws_code(denial);
    let message = xml(&words.detail);
    let id = xml(&context.exchange_id);
    let body = if is_s3(&context.host) {
        format!("{PROLOGUE}<Error><Code>{code}</Code><Message>{message}</Message><RequestId>{id}</RequestId></Error>")
    } else {
        let side = if denial.status() < 500 { "Sender" } else { "Receiver" };
        format!(
            "{PROLOGUE}<ErrorResponse><Error><Type>{side}</Type><Code>{code}</Code><Message>{message}</Message></Error>\
             <RequestId>{id}</RequestId></ErrorResponse>"
        )
    };
    Spelled { content_type: "application/xml", body }
}

/// Where the clients of the JSON services look for the code, and all for the exchange.
pub(super) fn add_fields(headers: &mut HeaderMap, denial: &Denial, context: &Context) {
    insert(headers, HeaderName::from_static("x-amzn-errortype"), aws_code(denial));
    insert(headers, HeaderName::from_static("x-amzn-requestid"), &context.exchange_id);
}

/// `s3.…`, `bucket.s3.…`, `s3-accelerate.…`, `s3express-…`.
fn is_s3(host: &str) -> bool {
    let is_s3_label = |label: &str| label == "s3" || label.starts_with("s3-") || label.starts_with("s3express");
    host.to_ascii_lowercase().split('.').any(is_s3_label)
}

/// A code that AWS's clients know: by it they decide whether to try again or to ask for new credentials.
fn aws_code(denial: &Denial) -> &'static str {
    match (denial, denial.status()) {
        (Denial::NonceExpired { .. }, _) => "ExpiredToken",
        (Denial::SignatureRefused(SignatureFault::Stale), _) => "RequestTimeTooSkewed",
        (Denial::SignatureRefused(SignatureFault::OtherBody), _) => "XAmzContentSHA256Mismatch",
        (Denial::SignatureRefused(SignatureFault::Mismatch), _) => "SignatureDoesNotMatch",
        (_, 401 | 403) => "AccessDenied",
        (_, 408) => "RequestTimeout",
        (_, 429) => "SlowDown",
        (_, 413) => "EntityTooLarge",
        (_, 400..=499) => "InvalidRequest",
        (_, 503) => "ServiceUnavailable",
        (Denial::UpstreamUnreachable | Denial::UpstreamTimeout, _) => "ServiceUnavailable",
        (_, _) => "InternalError",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s3_is_known_by_a_label_of_its_host() {
        for host in ["s3.amazonaws.com", "my.bucket.s3.eu-west-1.amazonaws.com", "S3-accelerate.amazonaws.com"] {
            assert!(is_s3(host), "{host}");
        }
        for host in ["sts.amazonaws.com", "s3tables.eu-west-1.amazonaws.com", "xs3.example.com"] {
            assert!(!is_s3(host), "{host}");
        }
    }
}
