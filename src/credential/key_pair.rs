//! What a credential of a service with the slot `aws-sigv4` has to be: the JSON that AWS's own tools exchange
//! (`credential_process`), as a command prints it, in a file or in a variable.

use std::borrow::Cow;
use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::source::{Loaded, Problem};
use super::value::Value;
use crate::model::key_pair::KeyPair;
use crate::model::{Credential, Now};

/// The only version of the protocol.
const VERSION: u8 = 1;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
struct Answer<'a> {
    version: u8,
    // Borrowed from the wiped buffer; one that holds escapes is a copy, which is wiped below.
    #[serde(borrow)]
    access_key_id: Cow<'a, str>,
    #[serde(borrow)]
    secret_access_key: Cow<'a, str>,
    #[serde(borrow)]
    session_token: Option<Cow<'a, str>>,
    expiration: Option<Timestamp>,
}

/// Reads one object and nothing else.
///
/// # Errors
/// [`Problem::NotKeyPair`], [`Problem::Content`] where it is too long, or [`Problem::Expired`].
pub(super) fn parse(bytes: &[u8], now: &Now) -> Result<Loaded, Problem> {
    // serde_json's words may quote the input: the error is dropped unseen.
    let answer: Answer<'_> = serde_json::from_slice(bytes).map_err(|_| Problem::NotKeyPair)?;
    let (secret, token) = (Text::of(answer.secret_access_key), answer.session_token.map(Text::of));
    let pair = KeyPair {
        access_key_id: &answer.access_key_id,
        secret: secret.as_str(),
        session_token: token.as_ref().map(Text::as_str),
    };
    let joined = pair.joined().filter(|_| answer.version == VERSION).ok_or(Problem::NotKeyPair)?;
    let expires_at = match answer.expiration {
        Some(moment) => {
            let life = Duration::try_from(moment.duration_since(now.wall)).map_err(|_| Problem::Expired)?;
            Some(now.plus(life))
        }
        None => None,
    };
    Ok(Loaded { value: Value::KeyPair(Credential::parse(joined)?), expires_at })
}

/// A text that is wiped where it is a copy.
enum Text<'a> {
    Borrowed(&'a str),
    Copied(Zeroizing<String>),
}

impl<'a> Text<'a> {
    fn of(text: Cow<'a, str>) -> Self {
        match text {
            Cow::Borrowed(text) => Self::Borrowed(text),
            Cow::Owned(text) => Self::Copied(Zeroizing::new(text)),
        }
    }

    fn as_str(&self) -> &str {
        match self {
            Self::Borrowed(text) => text,
            Self::Copied(text) => text,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Option<Duration>, Problem> {
        let now = Now { boot: Duration::from_secs(100), wall: "2026-01-01T00:00:00Z".parse().unwrap() };
        parse(text.as_bytes(), &now).map(|loaded| loaded.expires_at.map(|deadline| deadline.remaining(&now)))
    }

    const KEYS: &str = r#""AccessKeyId":"AKIDEXAMPLE","SecretAccessKey":"wJalrXUtnFEMI\/K7MDENG""#;

    #[test]
    fn the_protocol_is_read() {
        assert_eq!(parsed(&format!("{{\"Version\":1,{KEYS}}}")), Ok(None));
        let more = format!(
            "{{\n  \"Version\": 1,\n  {KEYS},\n  \"SessionToken\": \"0123456789abcdef\",\n  \
             \"Expiration\": \"2026-01-01T01:00:00+00:00\"\n}}\n"
        );
        assert_eq!(parsed(&more), Ok(Some(Duration::from_secs(3600))));
        let over = format!("{{\"Version\":1,{KEYS},\"Expiration\":\"2025-12-31T23:59:59Z\"}}");
        assert_eq!(parsed(&over), Err(Problem::Expired));
    }

    #[test]
    fn anything_else_is_no_key_pair() {
        for text in [
            String::new(),
            "AKIDEXAMPLE:wJalrXUtnFEMIK7MDENG".to_owned(),
            "{}".to_owned(),
            format!("{{{KEYS}}}"),
            format!("{{\"Version\":2,{KEYS}}}"),
            format!("{{\"Version\":\"1\",{KEYS}}}"),
            format!("{{\"Version\":1,{KEYS},\"Region\":\"x\"}}"),
            format!("{{\"Version\":1,\"Version\":1,{KEYS}}}"),
            format!("{{\"Version\":1,{KEYS},\"SessionToken\":\"short\"}}"),
            format!("{{\"Version\":1,{KEYS}}} more"),
            "{\"Version\":1,\"AccessKeyId\":\"A/B\",\"SecretAccessKey\":\"0123456789abcdef\"}".to_owned(),
            "{\"Version\":1,\"AccessKeyId\":\"AB\",\"SecretAccessKey\":\"0123456789\\r\\nabcdef\"}".to_owned(),
        ] {
            assert_eq!(parsed(&text), Err(Problem::NotKeyPair), "{text}");
        }
    }
}
