//! AWS Signature Version 4, both ways: what the agent has signed is verified, and what goes out is signed again.
//!
//! - `canonical`: the one text that both sides make of a request
//! - `authorization`: the header field that carries a signature
//! - `calendar`: the time in it
//!
//! Only the form in header fields is known, with one signature over the whole request. Signatures in the query
//! (presigned URLs), of each chunk of a body, and by elliptic curves (SigV4A) are refused.

mod authorization;
mod calendar;
mod canonical;

use std::fmt;
use std::time::Duration;

use http::header::{self, HeaderName};
use http::{HeaderMap, Method};
use jiff::Timestamp;
use ring::{digest, hmac};
use zeroize::Zeroizing;

use self::authorization::Authorization;
use self::canonical::Canonical;
use super::flow::Seen;
use crate::lease::StandIn;
use crate::model::denial::SignatureFault;
use crate::model::key_pair::KeyPair;
use crate::model::{Ambiguity, Denial, Scheme};

/// The scheme of `Authorization`.
pub(super) const SCHEME: &str = "AWS4-HMAC-SHA256";
/// Where the token of temporary credentials is; a nonce comes as one.
pub(super) const TOKEN: HeaderName = HeaderName::from_static("x-amz-security-token");
/// When it was signed.
pub(super) const DATE: HeaderName = HeaderName::from_static("x-amz-date");
/// What was signed of the body; S3 wants it, others take the body itself.
const CONTENT: HeaderName = HeaderName::from_static("x-amz-content-sha256");
/// How fields begin that name another object than the path does, which no rule can see.
const OTHER_OBJECTS: [&str; 2] = ["x-amz-copy-source", "x-amz-rename-source"];
/// How the fields begin that a signature has to cover.
const AMZ_PREFIX: &str = "x-amz-";

/// How far the agent's clock and ours may be apart: as far as AWS lets it be.
const SKEW_MAX: Duration = Duration::from_secs(15 * 60);
/// Longest body that is held to be compared with its hash, in bytes.
pub(super) const HELD_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Fields that change on their way or say nothing to AWS: they are not signed again, whoever signed them.
const NOT_SIGNED_AGAIN: [&str; 10] = [
    "accept-encoding",
    "connection",
    "content-length",
    "expect",
    "grpc-accept-encoding",
    "connect-accept-encoding",
    "te",
    "transfer-encoding",
    "user-agent",
    "x-amzn-trace-id",
];

/// What a request was signed with, and over what.
#[derive(Clone)]
pub struct Signed {
    said: Authorization,
    /// As it came: `20150830T123600Z`.
    date: String,
    /// All that was signed but for the body. Holds what the nonce was hashed into, not the nonce.
    canonical: Canonical,
    payload: Payload,
}

/// What stands for the body in what is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Payload {
    /// The hash of the body, which nobody has named.
    Body,
    /// The hash that the request names.
    Named([u8; digest::SHA256_OUTPUT_LEN]),
    /// Nothing: TLS alone covers the body.
    Unsigned,
    /// Nothing, with a checksum behind the body.
    UnsignedWithTrailer,
}

impl fmt::Debug for Signed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signed({}/{})", self.said.region, self.said.service)
    }
}

/// What of a request is signed beside its fields.
#[derive(Clone, Copy)]
pub struct Line<'a> {
    /// The method.
    pub method: &'a Method,
    /// `Host` as it came.
    pub host: &'a str,
    /// Path and query, as they came.
    pub target: &'a str,
}

fn refused(fault: SignatureFault) -> Denial {
    Denial::SignatureRefused(fault)
}

impl Signed {
    /// Reads a signature, strictly. The nonce is still in its field.
    ///
    /// # Errors
    /// [`Denial`].
    pub(super) fn read(headers: &HeaderMap, line: Line<'_>) -> Result<Self, Denial> {
        let value = only(headers, &header::AUTHORIZATION)?.ok_or(refused(SignatureFault::Malformed))?;
        let said = Authorization::parse(value).ok_or(refused(SignatureFault::Malformed))?;
        let date = only(headers, &DATE)?.ok_or(refused(SignatureFault::Malformed))?;
        if !date.starts_with(&said.date) {
            return Err(refused(SignatureFault::Malformed));
        }
        let payload = Payload::read(headers)?;
        check_covered(headers, &said)?;
        let canonical =
            Canonical::of(line, said.is_s3(), headers, &said.headers).ok_or(refused(SignatureFault::NotSigned))?;
        Ok(Self { date: date.to_owned(), said, canonical, payload })
    }

    /// Region and service that it is for.
    pub(super) fn scope(&self) -> (&str, &str) {
        (&self.said.region, &self.said.service)
    }

    /// True where the body has to be read before it can be verified.
    pub(super) fn looks_at_body(&self) -> bool {
        match self.payload {
            Payload::Body | Payload::Named(_) => true,
            Payload::Unsigned | Payload::UnsignedWithTrailer => false,
        }
    }

    /// Verifies it with the key pair that was derived from the nonce; `seen` is the whole body, `None` where there is none.
    ///
    /// # Errors
    /// [`Denial`]; whatever is wrong with the pair is one answer, in one time.
    pub(super) fn verify(
        &mut self,
        pair: &StandIn,
        seen: Option<&Seen>,
        (scheme, now): (Scheme, Timestamp),
    ) -> Result<(), Denial> {
        self.check_body(seen, scheme)?;
        let at = calendar::parse(&self.date).ok_or(refused(SignatureFault::Malformed))?;
        if at.duration_since(now).unsigned_abs() > SKEW_MAX {
            return Err(refused(SignatureFault::Stale));
        }
        let text = self.text_to_sign(&self.canonical);
        let key = self.said.signing_key(&pair.secret);
        let is_signed = hmac::verify(&key, text.as_bytes(), &self.said.signature).is_ok();
        // The id is no secret; it is compared so that it means what it says.
        let is_ours = self.said.access_key_id == pair.access_key_id;
        if is_signed && is_ours { Ok(()) } else { Err(refused(SignatureFault::Mismatch)) }
    }

    /// From here on the hash of the body is known.
    fn check_body(&mut self, seen: Option<&Seen>, scheme: Scheme) -> Result<(), Denial> {
        let hash = match (self.payload, seen) {
            (Payload::Unsigned | Payload::UnsignedWithTrailer, _) => {
                let is_covered = scheme == Scheme::Https;
                return if is_covered { Ok(()) } else { Err(refused(SignatureFault::UnsignedBody)) };
            }
            (Payload::Body | Payload::Named(_), Some(seen)) => {
                if !seen.is_whole || seen.bytes.len() > HELD_BYTES_MAX {
                    return Err(Denial::RequestTooLarge(crate::model::denial::TooLarge::Body));
                }
                if seen.has_trailers {
                    return Err(refused(SignatureFault::UnsignedBody));
                }
                sha_256(&seen.bytes)
            }
            (Payload::Body | Payload::Named(_), None) => sha_256(b""),
        };
        match self.payload {
            Payload::Named(named) if named != hash => Err(refused(SignatureFault::OtherBody)),
            Payload::Body | Payload::Named(_) | Payload::Unsigned | Payload::UnsignedWithTrailer => {
                self.payload = Payload::Named(hash);
                Ok(())
            }
        }
    }

    /// Signs what goes out with the real key: the fields that the agent has signed as far as they are still there,
    /// and the others that AWS wants. The result is the value of `Authorization`.
    ///
    /// # Errors
    /// [`Denial::Internal`]: it was not verified, or a field cannot be signed.
    pub(super) fn sign_again(&self, pair: &KeyPair<'_>, headers: &HeaderMap, line: Line<'_>) -> Result<String, Denial> {
        if self.payload == Payload::Body {
            return Err(Denial::Internal);
        }
        let is_signed = |name: &str| {
            let was_signed = self.said.headers.iter().any(|signed| signed == name);
            (was_signed || name.starts_with(AMZ_PREFIX)) && !NOT_SIGNED_AGAIN.contains(&name)
        };
        let names = headers.keys().map(HeaderName::as_str).filter(|name| is_signed(name));
        let mut names: Vec<String> = names.map(str::to_owned).chain([header::HOST.as_str().to_owned()]).collect();
        names.sort_unstable();
        names.dedup();
        let canonical = Canonical::of(line, self.said.is_s3(), headers, &names).ok_or(Denial::Internal)?;
        let key = self.said.signing_key(pair.secret);
        let signature = hmac::sign(&key, self.text_to_sign(&canonical).as_bytes());
        let (scope, names) = (self.said.scope(), names.join(";"));
        Ok(format!(
            "{SCHEME} Credential={}/{scope}, SignedHeaders={names}, Signature={}",
            pair.access_key_id,
            hex::encode(signature)
        ))
    }

    fn text_to_sign(&self, canonical: &Canonical) -> String {
        let hash = match self.payload {
            // Known by then, and never equal to what is.
            Payload::Body => canonical.finish(""),
            Payload::Named(hash) => canonical.finish(&hex::encode(hash)),
            Payload::Unsigned => canonical.finish(UNSIGNED),
            Payload::UnsignedWithTrailer => canonical.finish(UNSIGNED_WITH_TRAILER),
        };
        format!("{SCHEME}\n{}\n{}\n{hash}", self.date, self.said.scope())
    }
}

const UNSIGNED: &str = "UNSIGNED-PAYLOAD";
const UNSIGNED_WITH_TRAILER: &str = "STREAMING-UNSIGNED-PAYLOAD-TRAILER";

impl Payload {
    fn read(headers: &HeaderMap) -> Result<Self, Denial> {
        match only(headers, &CONTENT)? {
            None => Ok(Self::Body),
            Some(UNSIGNED) => Ok(Self::Unsigned),
            Some(UNSIGNED_WITH_TRAILER) => Ok(Self::UnsignedWithTrailer),
            Some(text) if text.starts_with("STREAMING-") => Err(refused(SignatureFault::Unsupported)),
            Some(text) => authorization::hash(text).map(Self::Named).ok_or(refused(SignatureFault::Malformed)),
        }
    }
}

/// The value of a field that may be there once.
fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h str>, Denial> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().map(Some).map_err(|_| refused(SignatureFault::Malformed)),
        (Some(_), Some(_)) => Err(Denial::RequestAmbiguous(Ambiguity::RepeatedHeader)),
    }
}

/// True for a field, or a parameter that some servers read as one, that names another object than the path does.
pub(super) fn names_other_object(name: &str) -> bool {
    let begins = |known: &&str| name.get(..known.len()).is_some_and(|start| start.eq_ignore_ascii_case(known));
    OTHER_OBJECTS.iter().any(begins)
}

/// Where the request goes to and all that AWS reads of its fields has to be signed.
fn check_covered(headers: &HeaderMap, said: &Authorization) -> Result<(), Denial> {
    let is_signed = |name: &str| said.headers.iter().any(|signed| signed == name);
    if ![header::HOST.as_str(), DATE.as_str(), TOKEN.as_str()].into_iter().all(is_signed) {
        return Err(refused(SignatureFault::NotSigned));
    }
    for name in headers.keys().map(HeaderName::as_str) {
        // To a server that reads `_` as `-` it is the same field.
        if name.contains('_') && name.replace('_', "-").starts_with(AMZ_PREFIX) {
            return Err(refused(SignatureFault::NotSigned));
        }
        if names_other_object(name) {
            return Err(refused(SignatureFault::CopySource));
        }
        if name.starts_with(AMZ_PREFIX) && !is_signed(name) {
            return Err(refused(SignatureFault::NotSigned));
        }
    }
    Ok(())
}

impl Authorization {
    /// The key for one day, region and service.
    fn signing_key(&self, secret: &str) -> hmac::Key {
        let mut seed = Zeroizing::new(Vec::with_capacity("AWS4".len() + secret.len()));
        seed.extend_from_slice(b"AWS4");
        seed.extend_from_slice(secret.as_bytes());
        let mut key = hmac::Key::new(hmac::HMAC_SHA256, &seed);
        for part in [self.date.as_str(), &self.region, &self.service, authorization::TERMINATOR] {
            key = hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&key, part.as_bytes()).as_ref());
        }
        key
    }

    /// The services whose paths are taken as they are.
    fn is_s3(&self) -> bool {
        matches!(self.service.as_str(), "s3" | "s3express" | "s3-outposts" | "s3-object-lambda")
    }
}

fn sha_256(bytes: &[u8]) -> [u8; digest::SHA256_OUTPUT_LEN] {
    let mut hash = [0; digest::SHA256_OUTPUT_LEN];
    hash.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    hash
}

#[cfg(test)]
mod tests;
