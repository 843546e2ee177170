//! The string that the agent holds, its hash, and its public id.

use std::fmt;

use ring::digest;
use zeroize::Zeroizing;

/// What every nonce begins with, so that people and scanners recognise one.
pub const NONCE_PREFIX: &str = "an_";
/// Random base62 characters of a nonce: 160 bits.
pub const NONCE_RANDOM_CHARACTERS: usize = 27;
/// Checksum characters at the end of a nonce: CRC-32 of all before it, in base62.
pub const NONCE_CHECKSUM_CHARACTERS: usize = 6;
/// Length of a whole nonce in bytes.
pub const NONCE_BYTES: usize = NONCE_PREFIX.len() + NONCE_RANDOM_CHARACTERS + NONCE_CHECKSUM_CHARACTERS;
/// Entropy that [`Nonce::from_entropy`] takes, in bytes: 160 bits and a rest that evens the digits out.
pub const NONCE_ENTROPY_BYTES: usize = 32;

const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// A plain nonce. Exists at minting and nowhere else; wiped on drop; never printed.
pub struct Nonce(Zeroizing<String>);

impl Nonce {
    /// Spells a nonce from uniformly random (or HMAC) bytes: the digits of the big number that they are.
    #[must_use]
    pub fn from_entropy(entropy: &[u8; NONCE_ENTROPY_BYTES]) -> Self {
        let mut number = Zeroizing::new(*entropy);
        let mut text = Zeroizing::new(String::with_capacity(NONCE_BYTES));
        text.push_str(NONCE_PREFIX);
        for _ in 0..NONCE_RANDOM_CHARACTERS {
            text.push(char::from(BASE62[usize::from(divide_by_62(number.as_mut_slice()))]));
        }
        let sum = checksum(text.as_bytes());
        text.push_str(std::str::from_utf8(&sum).unwrap_or_default());
        Self(text)
    }

    /// The text that the agent gets, once.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its hash.
    #[must_use]
    pub fn hash(&self) -> NonceHash {
        NonceHash::of(self.0.as_bytes())
    }
}

impl fmt::Debug for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Nonce(…)")
    }
}

/// Divides a big-endian number by 62 in place and returns the remainder.
fn divide_by_62(number: &mut [u8]) -> u8 {
    let mut rest: u16 = 0;
    for byte in number {
        let value = (rest << 8) | u16::from(*byte);
        *byte = u8::try_from(value / 62).unwrap_or(u8::MAX);
        rest = value % 62;
    }
    u8::try_from(rest).unwrap_or(0)
}

fn checksum(text: &[u8]) -> [u8; NONCE_CHECKSUM_CHARACTERS] {
    let mut number = crc32fast::hash(text);
    let mut digits = [b'0'; NONCE_CHECKSUM_CHARACTERS];
    for digit in digits.iter_mut().rev() {
        *digit = BASE62[(number % 62) as usize];
        number /= 62;
    }
    digits
}

/// True for a text with the shape of a whole nonce, whatever its checksum: prefix, length, alphabet.
#[must_use]
pub fn has_shape(text: &[u8]) -> bool {
    text.len() == NONCE_BYTES
        && text.starts_with(NONCE_PREFIX.as_bytes())
        && text[NONCE_PREFIX.len()..].iter().all(u8::is_ascii_alphanumeric)
}

/// True when the last six characters are the checksum of the rest: for scanners and people, not for the proxy.
#[must_use]
pub fn has_checksum(text: &[u8]) -> bool {
    has_shape(text) && {
        let (body, sum) = text.split_at(NONCE_BYTES - NONCE_CHECKSUM_CHARACTERS);
        checksum(body) == sum
    }
}

/// Finds every text with the shape of a nonce in `text`, wherever it stands.
pub fn find_all(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    // By the prefix's last byte, the rarest of them.
    memchr::memchr_iter(b'_', text)
        .filter_map(|at| text.get((at + 1).checked_sub(NONCE_PREFIX.len())?..)?.get(..NONCE_BYTES))
        .filter(|candidate| has_shape(candidate))
}

/// SHA-256 of a nonce: what the lease store, the audit and everything else know of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NonceHash([u8; 32]);

impl NonceHash {
    /// Hashes whatever was presented; any text is a candidate, so that malformed and unknown cost the same.
    #[must_use]
    pub fn of(candidate: &[u8]) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest::digest(&digest::SHA256, candidate).as_ref());
        Self(hash)
    }

    /// The raw hash.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for NonceHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NonceHash(…)")
    }
}

/// The accessor of a lease, `nc_` and a ULID: safe in logs and URLs, useless for calling.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NonceId(
    /// Of a ULID, the first one first: they have its order, and fit anywhere.
    [u8; 16],
);

impl NonceId {
    /// The id with these 128 bits: 48 of Unix milliseconds, 80 of randomness.
    #[must_use]
    pub fn from_parts(unix_milliseconds: u64, random: u128) -> Self {
        Self(ulid::Ulid::from_parts(unix_milliseconds, random).to_bytes())
    }

    /// Parses `nc_…`; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let id = Self(ulid::Ulid::from_string(text.strip_prefix("nc_")?).ok()?.to_bytes());
        (id.to_string() == text).then_some(id)
    }
}

impl fmt::Display for NonceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut digits = [0; ulid::ULID_LEN];
        f.write_str("nc_")?;
        f.write_str(ulid::Ulid::from_bytes(self.0).array_to_str(&mut digits))
    }
}

impl fmt::Debug for NonceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl serde::Serialize for NonceId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_has_its_shape_and_checksum() {
        let nonce = Nonce::from_entropy(&[7; NONCE_ENTROPY_BYTES]);
        assert_eq!(nonce.as_str().len(), 36);
        assert!(has_shape(nonce.as_str().as_bytes()) && has_checksum(nonce.as_str().as_bytes()));
        let mut wrong = nonce.as_str().to_owned().into_bytes();
        wrong[5] = if wrong[5] == b'a' { b'b' } else { b'a' };
        assert!(has_shape(&wrong) && !has_checksum(&wrong));
    }

    #[test]
    fn different_entropy_different_nonce() {
        let mut last = [7; NONCE_ENTROPY_BYTES];
        last[31] ^= 1;
        let mut first = [7; NONCE_ENTROPY_BYTES];
        first[12] ^= 0x80;
        let nonces = [[7; NONCE_ENTROPY_BYTES], last, first].map(|e| Nonce::from_entropy(&e).as_str().to_owned());
        assert_ne!(nonces[0], nonces[1]);
        assert_ne!(nonces[0], nonces[2]);
    }

    #[test]
    fn it_is_found_in_the_middle_of_text() {
        let nonce = Nonce::from_entropy(&[9; NONCE_ENTROPY_BYTES]);
        let text = format!("an_short key=sk_test_{0}&x=an_{0}", nonce.as_str());
        let found: Vec<_> = find_all(text.as_bytes()).collect();
        assert_eq!(found, vec![nonce.as_str().as_bytes(); 2]);
        let bare = format!("_{0}_{0}", nonce.as_str());
        assert_eq!(find_all(bare.as_bytes()).count(), 2, "with `_` around them");
        assert_eq!(find_all(b"_an_").count() + find_all(b"_").count() + find_all(b"").count(), 0);
        assert_eq!(find_all(&nonce.as_str().as_bytes()[1..]).count(), 0, "cut at its beginning");
    }

    #[test]
    fn ids_have_the_order_of_their_time_and_then_of_their_randomness() {
        let parts = [(0, 0), (0, 1), (0, 1 << 79), (1, 0), (255, 7), (256, 6), (1 << 47, 0)];
        let ids = parts.map(|(milliseconds, random)| NonceId::from_parts(milliseconds, random));
        assert!(ids.is_sorted_by(|one, next| one < next));
    }

    #[test]
    fn ids_round_trip() {
        let id = NonceId::from_parts(1_700_000_000_000, 42);
        assert_eq!(NonceId::parse(&id.to_string()), Some(id));
        assert_eq!(NonceId::parse("nc_x"), None);
        assert_eq!(NonceId::parse(&id.to_string().to_lowercase()), None);
    }
}
