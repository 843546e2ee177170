//! Real credentials of ours in what an agent sends. No agent should know one, so whatever it wants with it is refused.
//!
//! In a head it is found as it is, percent-encoded up to three times over, and in `Basic`; in a body as it is,
//! percent-encoded, and as JSON writes it. As with nonces, this finds what was spilled, not what is being hidden.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::Request;
use percent_encoding::percent_decode;
use zeroize::Zeroizing;

use crate::model::secret::CREDENTIAL_BYTES_SCRUBBABLE;
use crate::proxy::scrub::Needles;

/// How often a text is percent-decoded at most: a URL in a URL in a URL.
const DECODINGS_MAX: usize = 3;

/// `Basic`, with or without its padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Where in a request's head a real credential stands, in the audit's words.
pub(in crate::proxy) fn place_in_head<B>(needles: &Needles, request: &Request<B>) -> Option<&'static str> {
    let uri = request.uri();
    let is_in = |text: &str| is_in_decoded(needles, text.as_bytes());
    if is_in(request.method().as_str()) {
        return Some("method");
    }
    if uri.authority().is_some_and(|authority| is_in(authority.as_str())) {
        return Some("host");
    }
    if is_in(uri.path()) {
        return Some("path");
    }
    if uri.query().is_some_and(is_in) {
        return Some("query");
    }
    is_in_fields(needles, request.headers()).then_some("header")
}

/// Whether one stands in a field's name or value.
pub(super) fn is_in_fields(needles: &Needles, fields: &http::HeaderMap) -> bool {
    fields.iter().any(|(name, value)| {
        let value = value.as_bytes();
        needles.stand_in(name.as_str().as_bytes())
            || is_in_decoded(needles, value)
            || basic(value).is_some_and(|blob| needles.stand_in(&blob))
    })
}

fn is_in_decoded(needles: &Needles, text: &[u8]) -> bool {
    if text.len() < CREDENTIAL_BYTES_SCRUBBABLE {
        return false; // No decoding makes a text longer.
    }
    let mut text = Cow::Borrowed(text);
    for _ in 0..DECODINGS_MAX {
        if needles.stand_in(&text) {
            return true;
        }
        if memchr::memchr(b'%', &text).is_none() {
            return false;
        }
        text = Cow::Owned(percent_decode(&text).collect());
    }
    needles.stand_in(&text)
}

fn basic(value: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (scheme, rest) = value.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    BASE64.decode(rest.trim_ascii()).ok().map(Zeroizing::new)
}

/// Looks for one in a body that comes in pieces.
pub(super) struct Sieve {
    needles: Needles,
    /// The end of what came, as far as it may be the beginning of one.
    open: Zeroizing<Vec<u8>>,
}

impl Sieve {
    pub(super) fn new(needles: Needles) -> Self {
        Self { needles, open: Zeroizing::default() }
    }

    /// One that has seen nothing yet.
    pub(super) fn fresh(&self) -> Self {
        Self::new(self.needles.clone())
    }

    /// Whether one stands in the next piece, or ends in it.
    pub(super) fn look(&mut self, piece: &[u8]) -> bool {
        if self.open.is_empty() {
            let (is_found, open_from) = self.needles.look(piece);
            self.open.extend_from_slice(&piece[open_from..]);
            return is_found;
        }
        self.open.extend_from_slice(piece);
        let (is_found, open_from) = self.needles.look(&self.open);
        self.open = self.open[open_from..].to_vec().into();
        is_found
    }

    /// Whether one stands in the fields after the body.
    pub(super) fn is_in_fields(&self, fields: &http::HeaderMap) -> bool {
        is_in_fields(&self.needles, fields)
    }

    /// How many of the last bytes may be the beginning of one.
    pub(super) fn open_bytes(&self) -> usize {
        self.open.len()
    }
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    const SECRET: &str = "sk_live_4eC39/HqLyjWDar+jtT1zdp7dc";

    fn needles() -> Needles {
        let own = [Needles::plain(b"ghp_16C7e42F292c6912E7710c838347Ae178B4a"), Needles::plain(SECRET.as_bytes())];
        Needles::any_of(own.iter())
    }

    fn percent(text: &str) -> String {
        text.bytes().map(|byte| format!("%{byte:02X}")).collect()
    }

    fn place(uri: &str, field: (&str, &str)) -> Option<&'static str> {
        let request = Request::get(uri).header("accept", "application/json").header(field.0, field.1);
        place_in_head(&needles(), &request.body(()).unwrap())
    }

    #[test]
    fn it_is_found_wherever_it_stands_in_a_head() {
        let some = ("x-y", "z");
        assert_eq!(place("/v1/charges?limit=3", some), None);
        assert_eq!(place(&format!("/v1/{}/x", percent(SECRET)), some), Some("path"));
        assert_eq!(place(&format!("/v1?key=a{}", SECRET.replace('/', "%2F")), some), Some("query"));
        assert_eq!(place(&format!("/v1?u={}", percent(&percent(SECRET))), some), Some("query"));
        assert_eq!(place(&format!("/?{}{}", percent(&SECRET[..9]), &SECRET[9..]), some), Some("query"));
        for value in [
            format!("Bearer {SECRET}"),
            SECRET.to_ascii_uppercase(),
            format!("a={}; b", percent(SECRET)),
            format!("Basic {}", STANDARD.encode(format!("{SECRET}:"))),
            format!("basic {}", STANDARD.encode(format!("x:{SECRET}")).trim_end_matches('=')),
        ] {
            assert_eq!(place("/", ("x-any", &value)), Some("header"), "{value}");
        }
        assert_eq!(place("/", ("authorization", &format!("Bearer {}", &SECRET[..33]))), None);
    }

    #[test]
    fn a_short_one_is_not_searched_for() {
        let needles = Needles::plain(b"fifteen-bytes-1");
        let request = Request::get("/").header("x-key", "fifteen-bytes-1").body(()).unwrap();
        assert_eq!(place_in_head(&needles, &request), None);
    }

    #[test]
    fn it_is_found_in_a_body_wherever_that_is_cut() {
        for spelling in [SECRET.to_owned(), percent(SECRET), SECRET.replace('/', "\\/"), SECRET.replace('+', "%2b")] {
            let text = format!("{{\"sk_live_4eC39\": \"{spelling}\"}}");
            for cut in 1..text.len() {
                let mut sieve = Sieve::new(needles());
                let found = text.as_bytes().chunks(cut).filter(|piece| sieve.look(piece)).count();
                assert_eq!(found, 1, "{text} cut at {cut}");
                assert_eq!(sieve.open_bytes(), 0);
            }
        }
    }

    #[test]
    fn what_may_still_grow_stays_open_until_it_does_not() {
        let mut sieve = Sieve::new(needles());
        assert!(!sieve.look(format!("x {}", &SECRET[..20]).as_bytes()));
        assert_eq!(sieve.open_bytes(), 20);
        assert!(!sieve.fresh().look(&SECRET.as_bytes()[20..]));
        assert!(!sieve.look(b"!"));
        assert_eq!(sieve.open_bytes(), 0);
    }
}
