//! Signatures of AWS as a client makes them and a server checks them, written apart from the product.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderValue, header};
use ring::{digest, hmac};
use valetkey::lease::StandIn;
use valetkey::model::key_pair::KeyPair;

pub(crate) const HOST: &str = "s3.test";
pub(crate) const DATE: &str = "20130524T000000Z";
pub(crate) const TOKEN: &str = "an_0123456789";

/// One pair of keys.
#[derive(Clone, Copy)]
pub(crate) struct Signer {
    pub(crate) id: &'static str,
    pub(crate) secret: &'static str,
    pub(crate) token: Option<&'static str>,
}

pub(crate) const AGENT: Signer = Signer { id: "ASIASTANDIN", secret: "a-secret-that-stands-in", token: Some(TOKEN) };
pub(crate) const REAL: Signer =
    Signer { id: "AKIDREAL", secret: "a/secret+that=is-real", token: Some("a/token+of=16bytes") };

impl Signer {
    pub(crate) fn scope(service: &str) -> String {
        format!("20130524/eu-west-1/{service}/aws4_request")
    }

    pub(crate) fn sign(self, service: &str, text: &str) -> String {
        let mut key = format!("AWS4{}", self.secret).into_bytes();
        for part in Self::scope(service).split('/') {
            key = keyed(&key, part);
        }
        hex::encode(keyed(&key, text))
    }

    /// The signature of a request's canonical form.
    pub(crate) fn sign_request(self, service: &str, canonical: &str) -> String {
        let (scope, hash) = (Self::scope(service), sha_256(canonical.as_bytes()));
        self.sign(service, &format!("AWS4-HMAC-SHA256\n{DATE}\n{scope}\n{hash}"))
    }

    pub(crate) fn stand_in(self) -> StandIn {
        StandIn { access_key_id: self.id.to_owned(), secret: self.secret.to_owned().into() }
    }

    pub(crate) fn pair(self) -> KeyPair<'static> {
        KeyPair { access_key_id: self.id, secret: self.secret, session_token: self.token }
    }

    /// The fields of an upload that is signed chunk by chunk, and their signature.
    pub(crate) fn upload(self, target: &str, bytes: usize, trailer: Option<&str>) -> (HeaderMap, String) {
        let kind = if trailer.is_some() { "-TRAILER" } else { "" };
        let mut fields = vec![
            ("x-amz-content-sha256", format!("STREAMING-AWS4-HMAC-SHA256-PAYLOAD{kind}")),
            ("x-amz-date", DATE.to_owned()),
            ("x-amz-decoded-content-length", bytes.to_string()),
            ("x-amz-security-token", self.token.unwrap_or_default().to_owned()),
        ];
        fields.extend(trailer.map(|name| ("x-amz-trailer", name.to_owned())));
        let names: Vec<&str> = std::iter::once("host").chain(fields.iter().map(|(name, _)| *name)).collect();
        let names = names.join(";");
        let lines: String = fields.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
        let payload = &fields[0].1;
        let canonical = format!("PUT\n{target}\n\nhost:{HOST}\n{lines}\n{names}\n{payload}");
        let (signature, scope) = (self.sign_request("s3", &canonical), Self::scope("s3"));
        let said =
            format!("AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={names}, Signature={signature}", self.id);
        fields.push((header::AUTHORIZATION.as_str(), said));
        let fields = fields.into_iter().map(|(name, value)| {
            (http::HeaderName::from_static(name), HeaderValue::from_str(&value).expect("a value"))
        });
        (fields.collect(), signature)
    }

    /// The signature of a chunk, or of trailers, behind another one.
    pub(crate) fn behind(self, last: &str, part: Part<'_>) -> String {
        let scope = Self::scope("s3");
        match part {
            Part::Chunk(data) => {
                let (empty, hash) = (sha_256(b""), sha_256(data));
                self.sign("s3", &format!("AWS4-HMAC-SHA256-PAYLOAD\n{DATE}\n{scope}\n{last}\n{empty}\n{hash}"))
            }
            Part::Trailers(lines) => {
                let hash = sha_256(lines.as_bytes());
                self.sign("s3", &format!("AWS4-HMAC-SHA256-TRAILER\n{DATE}\n{scope}\n{last}\n{hash}"))
            }
        }
    }
}

/// What of a body is signed.
#[derive(Clone, Copy)]
pub(crate) enum Part<'a> {
    Chunk(&'a [u8]),
    Trailers(&'a str),
}

/// When all of it was signed: [`DATE`].
pub(crate) fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_369_353_600)
}

pub(crate) fn sha_256(bytes: &[u8]) -> String {
    hex::encode(digest::digest(&digest::SHA256, bytes))
}

fn keyed(key: &[u8], text: &str) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec()
}

/// Escapes undone, once.
pub(crate) fn decoded(text: &str) -> Vec<u8> {
    let (mut rest, mut out) = (text.as_bytes(), Vec::new());
    while let Some((&first, tail)) = rest.split_first() {
        let escaped = tail.get(..2).filter(|pair| first == b'%' && pair.iter().all(u8::is_ascii_hexdigit));
        match escaped.and_then(|pair| hex::decode(pair).ok()) {
            Some(byte) => {
                out.extend(byte);
                rest = &tail[2..];
            }
            None => {
                out.push(first);
                rest = tail;
            }
        }
    }
    out
}

/// All but unreserved characters in escapes.
pub(crate) fn encoded(bytes: &[u8]) -> String {
    let one = |byte: &u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(*byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    bytes.iter().map(one).collect()
}
