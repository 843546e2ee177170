//! AWS Signature Version 4, both ways: what the agent has signed is verified, and what goes out is signed again.
//!
//! - `canonical`: the one text that both sides make of a request
//! - `authorization`: the header field that carries a signature
//! - `calendar`: the time in it
//! - `presigned`: the query that carries one
//! - `chunks`: a body that is signed chunk by chunk
//!
//! Signatures by elliptic curves (SigV4A) and of version 2 are refused.

mod authorization;
mod calendar;
mod canonical;
mod chunks;
mod presigned;

use std::fmt;
use std::time::Duration;

use http::header::{self, HeaderName};
use http::{HeaderMap, Method};
use jiff::Timestamp;
use ring::{digest, hmac};
use zeroize::Zeroizing;

use self::authorization::Authorization;
use self::canonical::Canonical;
use self::chunks::{Announced, Chain};
pub(super) use self::chunks::{ChunkFault, Chunks};
pub(super) use self::presigned::Parameters;
use self::presigned::{Filling, Query};
use super::flow::Seen;
use crate::lease::StandIn;
use crate::model::denial::SignatureFault;
use crate::model::key_pair::KeyPair;
use crate::model::{Ambiguity, Denial, Scheme};
use crate::policy::Target;

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
    /// What is said of a body that is signed chunk by chunk.
    announced: Option<Announced>,
    /// What has verified the head of such a one.
    verifying: Option<hmac::Key>,
    /// The query that it came in, if it did.
    query: Option<Query>,
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
    /// Nothing yet: each chunk of the body has a signature of its own.
    Chunks,
    /// The same, and so has the checksum behind the body.
    ChunksWithTrailer,
}

/// What goes out in the place of a signature that was verified.
pub(super) struct Again {
    /// Where it goes.
    pub(super) placed: Placed,
    /// The signature itself.
    pub(super) signature: String,
    /// What signs the body again, where that is signed chunk by chunk.
    pub(super) chunks: Option<Box<Chunks>>,
}

/// Where a signature goes: where it came.
pub(super) enum Placed {
    /// The value of `Authorization`.
    Field(String),
    /// Path and query, with all that was signed in them.
    Target(Zeroizing<String>),
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
        let announced = Announced::read(payload, headers)?;
        if announced.is_some() && !said.is_s3() {
            return Err(refused(SignatureFault::Unsupported));
        }
        check_covered(headers, &said, &[header::HOST, DATE, TOKEN])?;
        let canonical =
            Canonical::of(line, said.is_s3(), headers, &said.headers).ok_or(refused(SignatureFault::NotSigned))?;
        Ok(Self { date: date.to_owned(), said, canonical, payload, announced, verifying: None, query: None })
    }

    /// Region and service that it is for.
    pub(super) fn scope(&self) -> (&str, &str) {
        (&self.said.region, &self.said.service)
    }

    /// The target that rules judge, where that is not the one that came.
    pub(super) fn rest(&self) -> Option<&Target> {
        self.query.as_ref().map(Query::rest)
    }

    /// True where the body has to be read before it can be verified.
    pub(super) fn looks_at_body(&self) -> bool {
        match self.payload {
            Payload::Body | Payload::Named(_) => true,
            Payload::Unsigned | Payload::UnsignedWithTrailer | Payload::Chunks | Payload::ChunksWithTrailer => false,
        }
    }

    /// True where the body is signed chunk by chunk, and so cannot be missing.
    pub(super) fn is_in_chunks(&self) -> bool {
        self.announced.is_some()
    }

    /// True where the body is data with something between it, whatever `Content-Encoding` says.
    pub(super) fn frames_body(&self) -> bool {
        match self.payload {
            Payload::Body | Payload::Named(_) | Payload::Unsigned => false,
            Payload::UnsignedWithTrailer | Payload::Chunks | Payload::ChunksWithTrailer => true,
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
        self.check_time(now)?;
        let text = self.text_to_sign(&self.canonical);
        let key = self.said.signing_key(&pair.secret);
        let is_signed = hmac::verify(&key, text.as_bytes(), &self.said.signature).is_ok();
        // The id is no secret; it is compared so that it means what it says.
        let is_ours = self.said.access_key_id == pair.access_key_id;
        if !(is_signed && is_ours) {
            return Err(refused(SignatureFault::Mismatch));
        }
        self.verifying = self.is_in_chunks().then_some(key);
        Ok(())
    }

    fn check_time(&self, now: Timestamp) -> Result<(), Denial> {
        let at = calendar::parse(&self.date).ok_or(refused(SignatureFault::Malformed))?;
        let age = now.duration_since(at);
        match &self.query {
            Some(query) if !age.is_negative() && age.unsigned_abs() > query.expires => {
                Err(refused(SignatureFault::Expired))
            }
            Some(_) if !age.is_negative() => Ok(()),
            Some(_) | None if age.unsigned_abs() > SKEW_MAX => Err(refused(SignatureFault::Stale)),
            Some(_) | None => Ok(()),
        }
    }

    /// From here on the hash of the body is known.
    fn check_body(&mut self, seen: Option<&Seen>, scheme: Scheme) -> Result<(), Denial> {
        let hash = match (self.payload, seen) {
            (Payload::Unsigned | Payload::UnsignedWithTrailer, _) => {
                let is_covered = scheme == Scheme::Https;
                return if is_covered { Ok(()) } else { Err(refused(SignatureFault::UnsignedBody)) };
            }
            // Each of them is checked on its way.
            (Payload::Chunks | Payload::ChunksWithTrailer, _) => return Ok(()),
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
            Payload::Body
            | Payload::Named(_)
            | Payload::Unsigned
            | Payload::UnsignedWithTrailer
            | Payload::Chunks
            | Payload::ChunksWithTrailer => {
                self.payload = Payload::Named(hash);
                Ok(())
            }
        }
    }

    /// Signs what goes out with the real key: the fields that the agent has signed as far as they are still there,
    /// and the others that AWS wants.
    ///
    /// # Errors
    /// [`Denial::Internal`]: it was not verified, or a field cannot be signed.
    pub(super) fn sign_again(&self, pair: &KeyPair<'_>, headers: &HeaderMap, line: Line<'_>) -> Result<Again, Denial> {
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
        let key = self.said.signing_key(pair.secret);
        let sign = |line: Line<'_>| {
            let canonical = Canonical::of(line, self.said.is_s3(), headers, &names).ok_or(Denial::Internal)?;
            Ok::<_, Denial>(hex::encode(hmac::sign(&key, self.text_to_sign(&canonical).as_bytes())))
        };
        let (scope, listed) = (self.said.scope(), names.join(";"));
        let credential = format!("{}/{scope}", pair.access_key_id);
        let (placed, signature) = match &self.query {
            None => {
                let signature = sign(line)?;
                let field = format!("{SCHEME} Credential={credential}, SignedHeaders={listed}, Signature={signature}");
                (Placed::Field(field), signature)
            }
            Some(query) => {
                let signed_headers = (names != self.said.headers).then_some(&*listed);
                let (credential, token) = (&*credential, pair.session_token);
                let mut filling = Filling { credential, signed_headers, token, signature: None };
                let signature = sign(Line { target: &query.filled(&filling), ..line })?;
                filling.signature = Some(&signature);
                (Placed::Target(query.filled(&filling)), signature)
            }
        };
        let chunks = self.chunks_again(Chain { key, last: signature.clone() }, scope)?;
        Ok(Again { placed, signature, chunks })
    }

    /// What signs the body again, in a chain that begins with the signature of the head.
    fn chunks_again(&self, ours: Chain, scope: String) -> Result<Option<Box<Chunks>>, Denial> {
        let Some(announced) = &self.announced else { return Ok(None) };
        let key = self.verifying.clone().ok_or(Denial::Internal)?;
        let theirs = Chain { key, last: hex::encode(self.said.signature) };
        Ok(Some(Box::new(Chunks::new((theirs, ours), announced.clone(), (self.date.clone(), scope)))))
    }

    fn text_to_sign(&self, canonical: &Canonical) -> String {
        let hash = match self.payload {
            // Known by then, and never equal to what is.
            Payload::Body => canonical.finish(""),
            Payload::Named(hash) => canonical.finish(&hex::encode(hash)),
            Payload::Unsigned => canonical.finish(UNSIGNED),
            Payload::UnsignedWithTrailer => canonical.finish(UNSIGNED_WITH_TRAILER),
            Payload::Chunks => canonical.finish(CHUNKS),
            Payload::ChunksWithTrailer => canonical.finish(CHUNKS_WITH_TRAILER),
        };
        format!("{SCHEME}\n{}\n{}\n{hash}", self.date, self.said.scope())
    }
}

const UNSIGNED: &str = "UNSIGNED-PAYLOAD";
const UNSIGNED_WITH_TRAILER: &str = "STREAMING-UNSIGNED-PAYLOAD-TRAILER";
const CHUNKS: &str = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD";
const CHUNKS_WITH_TRAILER: &str = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER";

impl Payload {
    fn read(headers: &HeaderMap) -> Result<Self, Denial> {
        match only(headers, &CONTENT)? {
            None => Ok(Self::Body),
            Some(UNSIGNED) => Ok(Self::Unsigned),
            Some(UNSIGNED_WITH_TRAILER) => Ok(Self::UnsignedWithTrailer),
            Some(CHUNKS) => Ok(Self::Chunks),
            Some(CHUNKS_WITH_TRAILER) => Ok(Self::ChunksWithTrailer),
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
fn names_other_object(name: &str) -> bool {
    OTHER_OBJECTS.iter().any(|known| name.starts_with(known))
}

/// Where the request goes to and all that AWS reads of its fields has to be signed, and so have these.
fn check_covered(headers: &HeaderMap, said: &Authorization, these: &[HeaderName]) -> Result<(), Denial> {
    let is_signed = |name: &str| said.headers.iter().any(|signed| signed == name);
    if !these.iter().all(|name| is_signed(name.as_str())) {
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
