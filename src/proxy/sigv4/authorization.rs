//! `Authorization: AWS4-HMAC-SHA256 Credential=…, SignedHeaders=…, Signature=…`, in this order and no other.

use ring::digest;

use super::SCHEME;

/// The end of every scope.
pub(super) const TERMINATOR: &str = "aws4_request";
/// Signed fields at most.
const HEADERS_MAX: usize = 64;
/// Longest name of a region or service, in bytes.
const WORD_BYTES_MAX: usize = 64;
/// Longest access key id, in bytes.
const ID_BYTES_MAX: usize = 128;

/// What it says.
#[derive(Clone)]
pub(super) struct Authorization {
    pub(super) access_key_id: String,
    /// `20150830`
    pub(super) date: String,
    pub(super) region: String,
    pub(super) service: String,
    /// Names in lower case, in order, each once.
    pub(super) headers: Vec<String>,
    pub(super) signature: [u8; digest::SHA256_OUTPUT_LEN],
}

impl Authorization {
    /// Reads it; `None` for everything that is not exactly that.
    pub(super) fn parse(value: &str) -> Option<Self> {
        let rest = value.strip_prefix(SCHEME)?.strip_prefix(' ')?;
        let mut parts = rest.split(',').map(|part| part.trim_matches(' '));
        let credential = parts.next()?.strip_prefix("Credential=")?;
        let headers = parts.next()?.strip_prefix("SignedHeaders=")?;
        let signature = parts.next()?.strip_prefix("Signature=")?;
        if parts.next().is_some() {
            return None;
        }
        Self::of(credential, headers, signature)
    }

    /// Of its three parts.
    pub(super) fn of(credential: &str, headers: &str, signature: &str) -> Option<Self> {
        let signature = hash(signature)?;
        let mut words = credential.split('/');
        let [id, date, region, service, end] = [(); 5].map(|()| words.next());
        if words.next().is_some() || end? != TERMINATOR {
            return None;
        }
        let said = Self {
            access_key_id: id?.to_owned(),
            date: date?.to_owned(),
            region: region?.to_owned(),
            service: service?.to_owned(),
            headers: headers.split(';').take(HEADERS_MAX + 1).map(str::to_owned).collect(),
            signature,
        };
        said.is_valid().then_some(said)
    }

    /// `20150830/us-east-1/iam/aws4_request`
    pub(super) fn scope(&self) -> String {
        [&self.date, &self.region, &self.service, TERMINATOR].join("/")
    }

    fn is_valid(&self) -> bool {
        let id = &self.access_key_id;
        let is_id = (1..=ID_BYTES_MAX).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric());
        let is_date = self.date.len() == 8 && self.date.bytes().all(|b| b.is_ascii_digit());
        let is_name = |name: &String| !name.is_empty() && name.bytes().all(is_of_a_name);
        is_id
            && is_date
            && is_word(&self.region)
            && is_word(&self.service)
            && self.headers.len() <= HEADERS_MAX
            && self.headers.iter().all(is_name)
            && self.headers.is_sorted_by(|one, next| one < next)
    }
}

fn is_word(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=WORD_BYTES_MAX).contains(&text.len()) && text.bytes().all(plain)
}

fn is_of_a_name(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// A SHA-256 in lower-case hex.
pub(super) fn hash(text: &str) -> Option<[u8; digest::SHA256_OUTPUT_LEN]> {
    let mut hash = [0; digest::SHA256_OUTPUT_LEN];
    let is_lower = text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    (is_lower && hex::decode_to_slice(text, &mut hash).is_ok()).then_some(hash)
}
