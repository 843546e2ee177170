//! Where a nonce may be, and the shape that it may have there.

use std::fmt;

use super::rule::BadSyntax;

/// In which form a nonce comes and the credential goes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Slot {
    /// `Authorization: Bearer NONCE`.
    Bearer,
    /// `Authorization: token NONCE`.
    Token,
    /// `Authorization: NONCE`.
    Raw,
    /// `Authorization: Basic base64(NONCE:password)`.
    BasicUser,
    /// `Authorization: Basic base64(user:NONCE)`.
    BasicPassword,
    /// A header of its own, in lower case.
    Header(String),
    /// A query parameter.
    Query(String),
    /// `X-Amz-Security-Token: NONCE`, under a signature by the key pair that belongs to the nonce.
    AwsSigV4,
}

/// The shape that an SDK insists on: text around the nonce.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placeholder {
    /// Before the nonce: `sk_test_`.
    pub prefix: String,
    /// After it.
    pub suffix: String,
}

/// Longest name of a header or query slot, in bytes.
const SLOT_NAME_BYTES_MAX: usize = 64;
/// Longest placeholder, in bytes, without the nonce.
const PLACEHOLDER_BYTES_MAX: usize = 128;

/// Headers that say who, where or how, and so cannot say with which key: what servers route, frame, cache or judge by.
const FORBIDDEN_HEADERS: [&str; 33] = [
    "host",
    "cookie",
    "cookie2",
    "set-cookie",
    "set-cookie2",
    "user-agent",
    "referer",
    "origin",
    "from",
    "via",
    "forwarded",
    "x-real-ip",
    "x-client-ip",
    "true-client-ip",
    "connection",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
    "expect",
    "max-forwards",
    "range",
    "date",
    "alt-svc",
    "alt-used",
    "early-data",
    "priority",
    "cache-control",
    "pragma",
    "x-original-url",
    "x-rewrite-url",
];
/// The same, by how the name begins.
const FORBIDDEN_BEGINNINGS: [&str; 10] = [
    "x-forwarded",
    "proxy-",
    "content-",
    "accept",
    "if-",
    "sec-",
    "access-control-",
    "x-http-method",
    "x-method-override",
    "valetkey-",
];

impl Slot {
    /// Parses `bearer`, `header:X-Api-Key`, `query:key` …; refuses the header names that no slot may have.
    ///
    /// # Errors
    /// [`BadSyntax`].
    pub fn parse(text: &str) -> Result<Self, BadSyntax> {
        match text {
            "bearer" => return Ok(Self::Bearer),
            "token" => return Ok(Self::Token),
            "raw" => return Ok(Self::Raw),
            "basic-user" => return Ok(Self::BasicUser),
            "basic-password" => return Ok(Self::BasicPassword),
            "aws-sigv4" => return Ok(Self::AwsSigV4),
            _ => {}
        }
        match text.split_once(':') {
            Some(("header", name)) => parse_header(name),
            Some(("query", name)) => parse_query(name),
            _ => Err(BadSyntax(
                "a slot is `bearer`, `token`, `raw`, `basic-user`, `basic-password`, `header:NAME`, `query:NAME` or \
                 `aws-sigv4`"
                    .to_owned(),
            )),
        }
    }
}

fn parse_header(name: &str) -> Result<Slot, BadSyntax> {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if name.is_empty() || name.len() > SLOT_NAME_BYTES_MAX || !name.bytes().all(token) {
        return Err(BadSyntax("after `header:` stands a header name, as in `header:X-Api-Key`".to_owned()));
    }
    let name = name.to_ascii_lowercase();
    // Servers that follow CGI read `_` as `-`.
    let folded = name.replace('_', "-");
    if folded == "authorization" {
        return Err(BadSyntax(
            "for Authorization say `bearer`, `token`, `raw`, `basic-user` or `basic-password`".to_owned(),
        ));
    }
    if FORBIDDEN_HEADERS.contains(&&*folded) || FORBIDDEN_BEGINNINGS.iter().any(|start| folded.starts_with(start)) {
        return Err(BadSyntax(format!("the header `{name}` has another meaning and cannot carry a credential")));
    }
    Ok(Slot::Header(name))
}

fn parse_query(name: &str) -> Result<Slot, BadSyntax> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    let starts = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if !starts || name.len() > SLOT_NAME_BYTES_MAX || !name.bytes().all(plain) {
        return Err(BadSyntax(
            "after `query:` stands a parameter name of letters, digits and `- . _ ~`, as in `query:api_key`".to_owned(),
        ));
    }
    if name.to_ascii_lowercase().replace('_', "-").starts_with("x-http-method") {
        return Err(BadSyntax(format!("the parameter `{name}` names a method and cannot carry a credential")));
    }
    Ok(Slot::Query(name.to_owned()))
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bearer => f.write_str("bearer"),
            Self::Token => f.write_str("token"),
            Self::Raw => f.write_str("raw"),
            Self::BasicUser => f.write_str("basic-user"),
            Self::BasicPassword => f.write_str("basic-password"),
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Query(name) => write!(f, "query:{name}"),
            Self::AwsSigV4 => f.write_str("aws-sigv4"),
        }
    }
}

impl Placeholder {
    /// Parses a text with `{nonce}` in it once: letters, digits and `- _ . ~` around it, which every slot carries
    /// unchanged (`Basic` splits at a colon, a query escapes the rest).
    ///
    /// # Errors
    /// [`BadSyntax`].
    pub fn parse(text: &str) -> Result<Self, BadSyntax> {
        let Some((prefix, suffix)) = text.split_once("{nonce}") else {
            return Err(BadSyntax("a placeholder holds `{nonce}`, as in `sk_test_{nonce}`".to_owned()));
        };
        if suffix.contains("{nonce}") {
            return Err(BadSyntax("a placeholder holds `{nonce}` once".to_owned()));
        }
        if prefix.len() + suffix.len() > PLACEHOLDER_BYTES_MAX {
            return Err(BadSyntax(format!("a placeholder has at most {PLACEHOLDER_BYTES_MAX} bytes around the nonce")));
        }
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~".contains(&b);
        if !prefix.bytes().chain(suffix.bytes()).all(plain) {
            return Err(BadSyntax("around `{nonce}` a placeholder has letters, digits and `- _ . ~` only".to_owned()));
        }
        Ok(Self { prefix: prefix.to_owned(), suffix: suffix.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_spelled_as_they_are_parsed() {
        for text in [
            "bearer",
            "token",
            "raw",
            "basic-user",
            "basic-password",
            "header:x-api-key",
            "header:private-token",
            "query:key",
            "aws-sigv4",
        ] {
            assert_eq!(Slot::parse(text).map(|slot| slot.to_string()).as_deref(), Ok(text));
        }
        assert_eq!(Slot::parse("header:X-Api-Key"), Ok(Slot::Header("x-api-key".to_owned())));
        assert_eq!(Slot::parse("query:Key"), Ok(Slot::Query("Key".to_owned())), "query names have a case");
    }

    #[test]
    fn no_slot_is_a_header_with_another_meaning() {
        for name in [
            "Host",
            "Cookie",
            "User-Agent",
            "Referer",
            "Origin",
            "X-Forwarded-For",
            "X_Forwarded_Host",
            "Forwarded",
            "Via",
            "Connection",
            "Keep-Alive",
            "TE",
            "Trailer",
            "Transfer-Encoding",
            "Upgrade",
            "Proxy-Authorization",
            "Proxy-Connection",
            "Content-Length",
            "Content-Type",
            "Content-MD5",
            "Authorization",
            "Expect",
            "Range",
            "Accept",
            "Accept-Encoding",
            "If-Match",
            "Sec-Fetch-Site",
            "X-HTTP-Method-Override",
            "X-Method-Override",
            "Valetkey-Error",
            "",
            "a b",
            "a:b",
            "a\r\nb",
            ":authority",
            "\u{e4}",
        ] {
            assert!(Slot::parse(&format!("header:{name}")).is_err(), "{name:?}");
        }
        for text in [
            "",
            "Bearer",
            "basic",
            "header",
            "query:",
            "query:a b",
            "query:a&b",
            "query:_method",
            "AWS-SigV4",
            "cookie:x",
        ] {
            assert!(Slot::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_placeholder_holds_the_nonce_once_in_plain_characters() {
        let parsed = |text| Placeholder::parse(text).map(|p| (p.prefix, p.suffix));
        assert_eq!(parsed("sk_test_{nonce}"), Ok(("sk_test_".to_owned(), String::new())));
        assert_eq!(parsed("xoxb-1-{nonce}.end"), Ok(("xoxb-1-".to_owned(), ".end".to_owned())));
        assert_eq!(parsed("{nonce}"), Ok((String::new(), String::new())));
        for bad in [
            "",
            "sk_test_",
            "{nonce}{nonce}",
            "a {nonce}",
            "a:{nonce}",
            "a\r\n{nonce}",
            "{Nonce}",
            "{{nonce}}",
            "\u{e9}{nonce}",
            "a,{nonce}",
        ] {
            assert!(Placeholder::parse(bad).is_err(), "{bad:?}");
        }
        for (before, after, is_taken) in [(128, 0, true), (100, 28, true), (100, 29, false), (129, 0, false)] {
            let text = format!("{}{{nonce}}{}", "a".repeat(before), "b".repeat(after));
            assert_eq!(Placeholder::parse(&text).is_ok(), is_taken, "{before} and {after}");
        }
    }

    #[test]
    fn a_name_has_as_many_bytes_as_it_may_and_no_more() {
        for kind in ["header", "query"] {
            for (bytes, is_taken) in [(1, true), (64, true), (65, false), (66, false)] {
                let text = format!("{kind}:{}", "k".repeat(bytes));
                assert_eq!(Slot::parse(&text).is_ok(), is_taken, "{kind} of {bytes}");
            }
        }
    }
}
