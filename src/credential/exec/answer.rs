//! What a credential command may print.
//!
//! - **Plain text**: the credential, with at most one line end after it; good for the policy's `ttl`.
//! - **JSON**, which it is if and only if its first byte is `{`: one object with `credential` (a string)
//!   and exactly one of `expires_at` (RFC 3339) and `expires_in` (whole seconds from the start of
//!   the command). Any other or repeated member is refused.

use std::borrow::Cow;
use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::credential::source::{Loaded, Problem, parse_line};
use crate::model::{Credential, Now};

/// Why a command's JSON was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// Not the JSON object that is documented.
    #[error("printed JSON that is not an object of `credential` and one of `expires_at` and `expires_in`")]
    Shape,
    /// It says no expiry, or two.
    #[error("printed JSON without exactly one of `expires_at` and `expires_in`")]
    Expiry,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer<'a> {
    // Borrowed from the wiped buffer unless it holds escapes.
    #[serde(borrow)]
    credential: Cow<'a, str>,
    expires_at: Option<Timestamp>,
    expires_in: Option<u64>,
}

/// Reads what a command that was started at `started` has printed.
///
/// # Errors
/// [`Problem::Answer`], [`Problem::Content`] or [`Problem::Expired`].
pub(super) fn parse(bytes: Zeroizing<Vec<u8>>, started: &Now, ttl: Duration) -> Result<Loaded, Problem> {
    if bytes.first() != Some(&b'{') {
        return Ok(Loaded::text(parse_line(bytes)?, Some(started.plus(ttl))));
    }
    // serde_json's words may quote the input: the error is dropped unseen.
    let Answer { credential, expires_at, expires_in } =
        serde_json::from_slice(&bytes).map_err(|_| AnswerError::Shape)?;
    let secret = Zeroizing::new(credential.into_owned().into_bytes());
    let life = match (expires_at, expires_in) {
        (Some(moment), None) => {
            Duration::try_from(moment.duration_since(started.wall)).map_err(|_| Problem::Expired)?
        }
        (None, Some(seconds)) => Duration::from_secs(seconds),
        (None, None) | (Some(_), Some(_)) => return Err(AnswerError::Expiry.into()),
    };
    Ok(Loaded::text(Credential::parse(secret)?, Some(started.plus(life))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Deadline;
    use crate::model::secret::CredentialError;

    fn started() -> Now {
        Now { boot: Duration::from_secs(100), wall: "2026-01-01T00:00:00Z".parse().unwrap() }
    }

    fn parsed(text: &str) -> Result<Option<Deadline>, Problem> {
        parse(Zeroizing::new(text.as_bytes().to_vec()), &started(), Duration::from_secs(300)).map(|it| it.expires_at)
    }

    fn after(seconds: u64) -> Result<Option<Deadline>, Problem> {
        Ok(Some(started().plus(Duration::from_secs(seconds))))
    }

    #[test]
    fn each_form_has_its_expiry() {
        assert_eq!(parsed("token\n"), after(300));
        assert_eq!(parsed(r#"{"credential":"token","expires_in":60}"#), after(60));
        assert_eq!(parsed("{\"credential\":\"a\\/b\",\"expires_at\":\"2026-01-01T00:01:00Z\"}\n"), after(60));
        assert_eq!(parsed(r#"{"credential":"token","expires_at":"2026-01-01T01:01:00+01:00"}"#), after(60));
    }

    #[test]
    fn what_is_not_documented_is_refused() {
        let shape = Err(Problem::Answer(AnswerError::Shape));
        for text in [
            "{",
            "{}",
            r#"{"expires_in":60}"#,
            r#"{"value":"token","expires_in":60}"#,
            r#"{"credential":"token","expires_in":60,"type":"x"}"#,
            r#"{"credential":"token","credential":"other","expires_in":60}"#,
            r#"{"credential":7,"expires_in":60}"#,
            r#"{"credential":"token","expires_in":-1}"#,
            r#"{"credential":"token","expires_in":1.5}"#,
            r#"{"credential":"token","expires_in":"60"}"#,
            r#"{"credential":"token","expires_at":"tomorrow"}"#,
            r#"{"credential":"token","expires_in":60} more"#,
        ] {
            assert_eq!(parsed(text), shape, "{text}");
        }
        let expiry = Err(Problem::Answer(AnswerError::Expiry));
        assert_eq!(parsed(r#"{"credential":"token"}"#), expiry);
        assert_eq!(parsed(r#"{"credential":"t","expires_in":60,"expires_at":"2026-01-01T00:01:00Z"}"#), expiry);
    }

    #[test]
    fn json_smuggles_nothing_into_a_header() {
        let bad = Err(Problem::Content(CredentialError::Character));
        assert_eq!(parsed(r#"{"credential":"a\r\nb","expires_in":60}"#), bad);
        assert_eq!(parsed(" {\"credential\":\"a\",\n\"expires_in\":60}"), bad, "not JSON by its first byte");
    }

    #[test]
    fn an_expiry_in_the_past_is_refused() {
        assert_eq!(parsed(r#"{"credential":"t","expires_at":"2025-12-31T23:59:59Z"}"#), Err(Problem::Expired));
    }
}
