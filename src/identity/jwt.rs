//! A JWT (RFC 7519) in the compact form of JWS (RFC 7515), parsed once and strictly; and the claims that everybody's has.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::Refused;
use super::jwks::{Algorithm, KID_BYTES_MAX};
use crate::json::Json;

/// Longest token, in bytes.
pub const TOKEN_BYTES_MAX: usize = 16 * 1024;
/// Longest `sub`, in bytes.
const SUBJECT_BYTES_MAX: usize = 512;
/// Audiences of a token at most.
const AUDIENCES_MAX: usize = 32;
/// How far the issuer's clock may be ahead of ours, in seconds. For `exp` there is no leeway.
const LEEWAY_SECONDS: i64 = 30;
/// Latest moment that a claim may name, in seconds: the year 9999. Beyond it somebody wrote milliseconds, or nonsense.
const MOMENT_MAX: i64 = 253_402_300_799;
/// Kinds of token that are taken; others (`logout+jwt`, `secevent+jwt`, …) say something else than who somebody is.
const TYPES: [&str; 3] = ["jwt", "jose", "at+jwt"];
/// Parameters that name a key of the token's own choosing, or change what is signed. `crit` asks us to understand more.
const PARAMETERS_REFUSED: [&str; 9] = ["crit", "jku", "jwk", "x5u", "x5c", "b64", "zip", "enc", "cty"];

/// A token whose signature nobody has looked at yet.
pub(super) struct Token<'a> {
    pub(super) algorithm: Algorithm,
    pub(super) kid: String,
    pub(super) claims: Json,
    pub(super) signed: &'a [u8],
    pub(super) signature: Vec<u8>,
}

impl<'a> Token<'a> {
    pub(super) fn parse(text: &'a str) -> Result<Self, Refused> {
        if text.len() > TOKEN_BYTES_MAX {
            return Err(Refused::TooLong);
        }
        let mut parts = text.split('.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Refused::Malformed);
        };
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| Refused::Malformed);
        let (algorithm, kid) = read_header(&decode(header)?)?;
        let claims = Json::parse_object(&decode(payload)?).ok_or(Refused::Malformed)?;
        let signature = decode(signature)?;
        if signature.is_empty() {
            return Err(Refused::Signature);
        }
        let signed = text.as_bytes().get(..header.len() + 1 + payload.len()).ok_or(Refused::Malformed)?;
        Ok(Self { algorithm, kid, claims, signed, signature })
    }

    /// A claim that is a text.
    pub(super) fn text(&self, name: &'static str) -> Result<&str, Refused> {
        self.claims.get(name).and_then(Json::text).ok_or(Refused::Claim(name))
    }

    /// `sub`, of a sensible length and printable.
    pub(super) fn subject(&self) -> Result<&str, Refused> {
        let subject = self.text("sub")?;
        let is_fine = (1..=SUBJECT_BYTES_MAX).contains(&subject.len()) && !subject.chars().any(char::is_control);
        if is_fine { Ok(subject) } else { Err(Refused::Claim("sub")) }
    }

    /// `exp`, `nbf` and `iat` at this moment, in seconds.
    pub(super) fn check_time(&self, now: i64) -> Result<(), Refused> {
        if now >= self.expiry()? {
            return Err(Refused::Expired);
        }
        for name in ["nbf", "iat"] {
            if self.moment(name)?.is_some_and(|begin| begin > now.saturating_add(LEEWAY_SECONDS)) {
                return Err(Refused::NotYet);
            }
        }
        Ok(())
    }

    /// `exp`, in seconds.
    pub(super) fn expiry(&self) -> Result<i64, Refused> {
        self.moment("exp")?.ok_or(Refused::Claim("exp"))
    }

    fn moment(&self, name: &'static str) -> Result<Option<i64>, Refused> {
        let Some(claim) = self.claims.get(name) else { return Ok(None) };
        let moment = claim.integer().filter(|moment| (0..=MOMENT_MAX).contains(moment));
        moment.map(Some).ok_or(Refused::Claim(name))
    }

    /// `aud` is ours, or has ours among others.
    pub(super) fn check_audience(&self, ours: &str) -> Result<(), Refused> {
        let claim = self.claims.get("aud").ok_or(Refused::Claim("aud"))?;
        let is_ours = match (claim.text(), claim.array()) {
            (Some(one), _) => one == ours,
            (None, Some(list)) if list.len() <= AUDIENCES_MAX && list.iter().all(|one| one.text().is_some()) => {
                list.iter().any(|one| one.text() == Some(ours))
            }
            (None, _) => return Err(Refused::Claim("aud")),
        };
        if is_ours { Ok(()) } else { Err(Refused::Audience) }
    }
}

fn read_header(bytes: &[u8]) -> Result<(Algorithm, String), Refused> {
    let header = Json::parse_object(bytes).ok_or(Refused::Malformed)?;
    if header.members().unwrap_or_default().iter().any(|(name, _)| PARAMETERS_REFUSED.contains(&name.as_str())) {
        return Err(Refused::Header);
    }
    if let Some(kind) = header.get("typ") {
        let kind = kind.text().ok_or(Refused::Malformed)?.to_ascii_lowercase();
        if !TYPES.contains(&kind.strip_prefix("application/").unwrap_or(&kind)) {
            return Err(Refused::Header);
        }
    }
    let algorithm = header.get("alg").and_then(Json::text).ok_or(Refused::Malformed)?;
    let algorithm = Algorithm::parse(algorithm).ok_or(Refused::Algorithm)?;
    // Without a name, the key would be whichever fits.
    let kid = header.get("kid").and_then(Json::text).filter(|kid| !kid.is_empty() && kid.len() <= KID_BYTES_MAX);
    Ok((algorithm, kid.ok_or(Refused::UnknownKey)?.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(header: &str, payload: &str) -> String {
        format!("{}.{}.c2ln", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload))
    }

    fn refused(header: &str, payload: &str) -> Option<Refused> {
        Token::parse(&token(header, payload)).err()
    }

    const GOOD: &str = r#"{"alg":"ES256","kid":"a"}"#;

    #[test]
    fn headers_that_ask_for_more_are_refused() {
        assert_eq!(refused(GOOD, "{}"), None);
        assert_eq!(refused(r#"{"alg":"ES256","kid":"a","typ":"JWT","x5t":"AAAA"}"#, "{}"), None);
        for name in PARAMETERS_REFUSED {
            assert_eq!(refused(&format!(r#"{{"alg":"ES256","kid":"a","{name}":["x"]}}"#), "{}"), Some(Refused::Header));
        }
        for (header, why) in [
            (r#"{"alg":"none","kid":"a"}"#, Refused::Algorithm),
            (r#"{"alg":"HS256","kid":"a"}"#, Refused::Algorithm),
            (r#"{"alg":"es256","kid":"a"}"#, Refused::Algorithm),
            (r#"{"kid":"a"}"#, Refused::Malformed),
            (r#"{"alg":"ES256"}"#, Refused::UnknownKey),
            (r#"{"alg":"ES256","kid":"a","typ":"logout+jwt"}"#, Refused::Header),
            (r#"{"alg":"ES256","alg":"ES256","kid":"a"}"#, Refused::Malformed),
            (r#"{"alg":"none","alg":"ES256","kid":"a"}"#, Refused::Malformed),
            ("[]", Refused::Malformed),
        ] {
            assert_eq!(refused(header, "{}"), Some(why), "{header}");
        }
    }

    #[test]
    fn only_three_whole_parts_are_a_token() {
        let good = token(GOOD, "{}");
        assert!(Token::parse(&good).is_ok());
        let unsigned = good.trim_end_matches("c2ln");
        assert_eq!(Token::parse(unsigned).err(), Some(Refused::Signature));
        for bad in ["", ".", "..", "a.b.c", &format!("{good}."), &format!("{good}="), &format!(" {good}"), &good[1..]] {
            assert_eq!(Token::parse(bad).err(), Some(Refused::Malformed), "{bad}");
        }
        assert_eq!(refused(GOOD, r#"{"sub":"a","sub":"b"}"#), Some(Refused::Malformed));
        assert_eq!(refused(GOOD, r#"{"a":{"sub":"a","sub":"b"}}"#), Some(Refused::Malformed));
        assert_eq!(Token::parse(&"a".repeat(TOKEN_BYTES_MAX + 1)).err(), Some(Refused::TooLong));
    }

    #[test]
    fn time_has_little_leeway_and_none_at_the_end() {
        let at = |claims: &str| Token::parse(&token(GOOD, claims)).ok().unwrap().check_time(1000);
        assert_eq!(at(r#"{"exp":1001,"nbf":1030,"iat":1030}"#), Ok(()));
        assert_eq!(at(r#"{"exp":1000}"#), Err(Refused::Expired));
        assert_eq!(at(r#"{"exp":1001,"nbf":1031}"#), Err(Refused::NotYet));
        assert_eq!(at(r#"{"exp":1001,"iat":1031}"#), Err(Refused::NotYet));
        for bad in [r"{}", r#"{"exp":"1001"}"#, r#"{"exp":1001.5}"#, r#"{"exp":-1}"#, r#"{"exp":1e20}"#] {
            assert_eq!(at(bad), Err(Refused::Claim("exp")), "{bad}");
        }
        assert_eq!(at(r#"{"exp":1001,"nbf":"x"}"#), Err(Refused::Claim("nbf")));
    }

    #[test]
    fn the_audience_is_ours() {
        let of = |claims: &str| Token::parse(&token(GOOD, claims)).ok().unwrap().check_audience("us");
        assert_eq!(of(r#"{"aud":"us"}"#), Ok(()));
        assert_eq!(of(r#"{"aud":["them","us"]}"#), Ok(()));
        for other in [r#"{"aud":"them"}"#, r#"{"aud":["them"]}"#, r#"{"aud":[]}"#, r#"{"aud":"us "}"#] {
            assert_eq!(of(other), Err(Refused::Audience), "{other}");
        }
        for bad in ["{}", r#"{"aud":7}"#, r#"{"aud":["us",7]}"#, r#"{"aud":null}"#] {
            assert_eq!(of(bad), Err(Refused::Claim("aud")), "{bad}");
        }
    }
}
