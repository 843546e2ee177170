//! Signatures in the query: presigned URLs (AWS, "Authenticating Requests: Using Query Parameters").
//!
//! Seven parameters, each once, spelled as AWS spells them. Whatever some server could take for one of them besides is
//! refused. They leave the target that rules judge, and come back in their places in what goes out.

use std::borrow::Cow;
use std::time::Duration;

use http::{HeaderMap, header};
use percent_encoding::{percent_decode_str, utf8_percent_encode};
use zeroize::Zeroizing;

use super::authorization::Authorization;
use super::canonical::{Canonical, QUERY};
use super::{CONTENT, DATE, Line, Payload, SCHEME, Signed, TOKEN, UNSIGNED};
use super::{check_covered, names_other_object, only, refused};
use crate::model::Denial;
use crate::model::denial::SignatureFault;
use crate::policy::Target;

/// Longest time that a URL may be good for: as long as AWS lets it be.
const EXPIRES_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Names the hash of the body in a query, where S3's clients say that there is none.
const CONTENT_PARAMETER: &str = "x-amz-content-sha256";
/// Of a signature by version 2.
const VERSION_2: &str = "awsaccesskeyid";

/// The parameters that carry a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Name {
    Algorithm,
    Credential,
    Date,
    Expires,
    SignedHeaders,
    Token,
    Signature,
}

impl Name {
    const ALL: [Self; 7] = [
        Self::Algorithm,
        Self::Credential,
        Self::Date,
        Self::Expires,
        Self::SignedHeaders,
        Self::Token,
        Self::Signature,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::Algorithm => "X-Amz-Algorithm",
            Self::Credential => "X-Amz-Credential",
            Self::Date => "X-Amz-Date",
            Self::Expires => "X-Amz-Expires",
            Self::SignedHeaders => "X-Amz-SignedHeaders",
            Self::Token => "X-Amz-Security-Token",
            Self::Signature => "X-Amz-Signature",
        }
    }
}

/// The parameters of a signature, as they came.
pub(in crate::proxy) struct Parameters<'t> {
    target: &'t Target,
    /// In the order of [`Name::ALL`]; decoded.
    values: [Option<Zeroizing<String>>; 7],
}

impl<'t> Parameters<'t> {
    /// Finds them; `None` where there is none.
    ///
    /// # Errors
    /// [`Denial`]: one that is there twice, or spelled in a way that only some servers read; or another object that is named.
    pub(in crate::proxy) fn find(target: &'t Target) -> Result<Option<Self>, Denial> {
        let Some(query) = target.query() else { return Ok(None) };
        let mut taken_for_one = 0;
        for name in query.split(['&', ';']).map(loosely_read) {
            if names_other_object(&name) {
                return Err(refused(SignatureFault::CopySource));
            }
            if name == VERSION_2 {
                return Err(refused(SignatureFault::Unsupported));
            }
            taken_for_one += usize::from(Name::ALL.iter().any(|known| known.as_str().eq_ignore_ascii_case(&name)));
        }
        if taken_for_one == 0 {
            return Ok(None);
        }
        let mut found = Self { target, values: [const { None }; 7] };
        for piece in query.split('&') {
            if let Some((name, value)) = known(piece) {
                let value = percent_decode_str(value).decode_utf8().map_err(|_| refused(SignatureFault::Malformed))?;
                found.values[name as usize] = Some(Zeroizing::new(value.into_owned()));
            }
        }
        let is_clear = found.values.iter().flatten().count() == taken_for_one;
        if is_clear { Ok(Some(found)) } else { Err(refused(SignatureFault::Malformed)) }
    }

    /// Where the nonce is.
    pub(in crate::proxy) fn token(&self) -> Option<&str> {
        self.value(Name::Token)
    }

    fn value(&self, name: Name) -> Option<&str> {
        self.values[name as usize].as_ref().map(|value| value.as_str())
    }

    /// The target without its signature, which is what was signed.
    fn unsigned(&self) -> String {
        let pieces = self.pieces().filter(|piece| known(piece).is_none_or(|(name, _)| name != Name::Signature));
        with_query(self.target.path(), pieces)
    }

    fn pieces(&self) -> impl Iterator<Item = &'t str> {
        self.target.query().unwrap_or_default().split('&')
    }
}

/// One of the parameters, spelled as AWS spells it, and its value as it came.
fn known(piece: &str) -> Option<(Name, &str)> {
    let (name, value) = piece.split_once('=')?;
    Name::ALL.into_iter().find(|known| known.as_str() == name).map(|known| (known, value))
}

/// The name of a parameter as the most lenient server reads it.
fn loosely_read(piece: &str) -> String {
    let name = piece.split('=').next().unwrap_or_default().replace('+', " ");
    let name = percent_decode_str(&name).decode_utf8_lossy();
    name.trim().replace('_', "-").to_ascii_lowercase()
}

fn with_query<'p>(path: &str, pieces: impl Iterator<Item = &'p str>) -> String {
    let pieces: Vec<&str> = pieces.collect();
    if pieces.is_empty() { path.to_owned() } else { format!("{path}?{}", pieces.join("&")) }
}

/// The query of a URL that was presigned, without the nonce and the signature that were in it.
#[derive(Clone)]
pub(super) struct Query {
    /// The target without all seven.
    rest: Target,
    pieces: Vec<Piece>,
    /// How long it is good for.
    pub(super) expires: Duration,
}

#[derive(Clone)]
enum Piece {
    /// As it came.
    Kept(Box<str>),
    Credential,
    SignedHeaders(Box<str>),
    Token,
    Signature,
}

/// What is written into a query.
pub(super) struct Filling<'a> {
    /// `AKIDEXAMPLE/20150830/us-east-1/s3/aws4_request`
    pub(super) credential: &'a str,
    /// `None` where they are those that came.
    pub(super) signed_headers: Option<&'a str>,
    /// `None` for a key pair that has none.
    pub(super) token: Option<&'a str>,
    /// `None` in what is to be signed.
    pub(super) signature: Option<&'a str>,
}

impl Query {
    fn of(parameters: &Parameters<'_>, expires: Duration) -> Result<Self, Denial> {
        let rest = with_query(parameters.target.path(), parameters.pieces().filter(|piece| known(piece).is_none()));
        let rest = Target::parse(&rest).map_err(Denial::RequestAmbiguous)?;
        let of = |piece: &str| match known(piece) {
            Some((Name::Credential, _)) => Piece::Credential,
            Some((Name::SignedHeaders, _)) => Piece::SignedHeaders(piece.into()),
            Some((Name::Token, _)) => Piece::Token,
            Some((Name::Signature, _)) => Piece::Signature,
            Some((Name::Algorithm | Name::Date | Name::Expires, _)) | None => Piece::Kept(piece.into()),
        };
        Ok(Self { rest, pieces: parameters.pieces().map(of).collect(), expires })
    }

    /// What rules judge.
    pub(super) fn rest(&self) -> &Target {
        &self.rest
    }

    /// Path and query with these in their places, and everything else byte for byte.
    pub(super) fn filled(&self, filling: &Filling<'_>) -> Zeroizing<String> {
        let path = self.rest.path();
        let value = |piece: &Piece| match piece {
            Piece::Kept(_) => None,
            Piece::Credential => Some((Name::Credential, filling.credential)),
            Piece::SignedHeaders(_) => filling.signed_headers.map(|names| (Name::SignedHeaders, names)),
            Piece::Token => filling.token.map(|token| (Name::Token, token)),
            Piece::Signature => filling.signature.map(|signature| (Name::Signature, signature)),
        };
        // Room for the longest encoding, so that no copy of the token stays behind in memory that was given back.
        let room = |piece: &Piece| match piece {
            Piece::Kept(text) | Piece::SignedHeaders(text) => text.len(),
            Piece::Credential | Piece::Token | Piece::Signature => 0,
        } + value(piece).map_or(0, |(name, value)| name.as_str().len() + 1 + 3 * value.len());
        let bytes = path.len() + self.pieces.iter().map(|piece| room(piece) + 1).sum::<usize>();
        let mut text = Zeroizing::new(String::with_capacity(bytes));
        text.push_str(path);
        let mut separator = '?';
        for piece in &self.pieces {
            match (value(piece), piece) {
                (Some((name, value)), _) => {
                    text.push(separator);
                    text.push_str(name.as_str());
                    text.push('=');
                    text.extend(utf8_percent_encode(value, QUERY));
                }
                (None, Piece::Kept(kept) | Piece::SignedHeaders(kept)) => {
                    text.push(separator);
                    text.push_str(kept);
                }
                (None, Piece::Credential | Piece::Token | Piece::Signature) => continue,
            }
            separator = '&';
        }
        text
    }
}

impl Signed {
    /// Reads a signature in the query, strictly.
    ///
    /// # Errors
    /// [`Denial`].
    pub(in crate::proxy) fn read_query(
        headers: &HeaderMap,
        line: Line<'_>,
        parameters: &Parameters<'_>,
    ) -> Result<Self, Denial> {
        let malformed = || refused(SignatureFault::Malformed);
        let value = |name| parameters.value(name).ok_or_else(malformed);
        if [header::AUTHORIZATION, DATE, TOKEN].iter().any(|field| headers.contains_key(field)) {
            return Err(malformed()); // both forms at once
        }
        if value(Name::Algorithm)? != SCHEME {
            return Err(refused(SignatureFault::Unsupported));
        }
        let (credential, names) = (value(Name::Credential)?, value(Name::SignedHeaders)?);
        let said = Authorization::of(credential, names, value(Name::Signature)?).ok_or_else(malformed)?;
        let date = value(Name::Date)?;
        if !date.starts_with(&said.date) {
            return Err(malformed());
        }
        let expires = expires(value(Name::Expires)?).ok_or_else(malformed)?;
        let payload = payload(headers, parameters, said.is_s3())?;
        check_covered(headers, &said, &[header::HOST])?;
        let target = parameters.unsigned();
        let line = Line { target: &target, ..line };
        let canonical =
            Canonical::of(line, said.is_s3(), headers, &said.headers).ok_or(refused(SignatureFault::NotSigned))?;
        let query = Some(Query::of(parameters, expires)?);
        Ok(Self { date: date.to_owned(), said, canonical, payload, announced: None, verifying: None, query })
    }
}

/// One second to seven days.
fn expires(text: &str) -> Option<Duration> {
    let is_plain = (1..=6).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
    let expires = Duration::from_secs(text.parse().ok().filter(|_| is_plain)?);
    (expires <= EXPIRES_MAX).then_some(expires)
}

/// What stands for the body: for S3 nothing, unless a field names its hash.
fn payload(headers: &HeaderMap, parameters: &Parameters<'_>, is_s3: bool) -> Result<Payload, Denial> {
    let unsupported = || refused(SignatureFault::Unsupported);
    let mut others = parameters.pieces().filter(|piece| loosely_read(piece) == CONTENT_PARAMETER);
    let in_query = (others.next(), others.next());
    let named = match (only(headers, &CONTENT)?, in_query) {
        (None, (None, _)) if !is_s3 => return Ok(Payload::Body),
        (None, (None, _)) => return Ok(Payload::Unsigned),
        (None, (Some(piece), None)) if is_s3 && value_of(piece) == UNSIGNED => return Ok(Payload::Unsigned),
        (_, (Some(_), _)) => return Err(unsupported()),
        (Some(_), (None, _)) => Payload::read(headers)?,
    };
    match named {
        Payload::Body | Payload::Named(_) | Payload::Unsigned => Ok(named),
        Payload::UnsignedWithTrailer | Payload::Chunks | Payload::ChunksWithTrailer => Err(unsupported()),
    }
}

fn value_of(piece: &str) -> Cow<'_, str> {
    piece.split_once('=').map_or("".into(), |(_, value)| percent_decode_str(value).decode_utf8_lossy())
}

#[cfg(test)]
mod tests;
