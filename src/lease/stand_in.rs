//! What an agent signs with in place of a real AWS key: derived from its nonce, and stored nowhere.

use ring::hmac;
use zeroize::Zeroizing;

use crate::model::NonceHash;

/// How an access key id of temporary credentials begins.
const ID_PREFIX: &str = "ASIA";
/// Characters behind it: 80 bits.
const ID_CHARACTERS: usize = 16;
/// Those that AWS's ids have.
const ID_ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
/// Characters of a secret: 160 bits in hex, as long as AWS's are.
const SECRET_BYTES: usize = 20;

/// A key pair that opens nothing by itself, with the nonce as its session token. No `Debug`.
pub struct StandIn {
    /// Says nothing of whose it is.
    pub access_key_id: String,
    /// What the agent signs with. Whoever sees a request of it knows the nonce, and cannot sign another one.
    pub secret: Zeroizing<String>,
}

/// The key that all of them are derived from; it ends with the process, as all leases do.
pub(super) struct StandIns(Option<hmac::Key>);

impl StandIns {
    /// A fresh key; without randomness there is none, and no pair.
    pub(super) fn fresh() -> Self {
        let mut key = Zeroizing::new([0; 32]);
        let key = getrandom::fill(key.as_mut_slice()).ok().map(|()| hmac::Key::new(hmac::HMAC_SHA256, key.as_slice()));
        Self(key)
    }

    /// The pair of this nonce.
    pub(super) fn of(&self, hash: &NonceHash) -> Option<StandIn> {
        let key = self.0.as_ref()?;
        let derived = |purpose: &[u8]| {
            let mut context = hmac::Context::with_key(key);
            context.update(purpose);
            context.update(hash.as_bytes());
            context.sign()
        };
        let id = derived(b"valetkey aws access key id\0");
        let characters =
            id.as_ref().iter().take(ID_CHARACTERS).map(|byte| char::from(ID_ALPHABET[usize::from(byte % 32)]));
        let secret = derived(b"valetkey aws secret access key\0");
        Some(StandIn {
            access_key_id: ID_PREFIX.chars().chain(characters).collect(),
            secret: Zeroizing::new(hex::encode(&secret.as_ref()[..SECRET_BYTES])),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_is_of_one_nonce_and_one_process() {
        let (ours, theirs) = (StandIns::fresh(), StandIns::fresh());
        let (one, other) = (NonceHash::of(b"an_one"), NonceHash::of(b"an_other"));
        let pair = ours.of(&one).unwrap();
        assert_eq!((pair.access_key_id.len(), pair.secret.len()), (20, 40));
        assert!(pair.access_key_id.starts_with("ASIA"));
        let again = ours.of(&one).unwrap();
        assert_eq!((&pair.access_key_id, &*pair.secret), (&again.access_key_id, &*again.secret));
        for another in [ours.of(&other).unwrap(), theirs.of(&one).unwrap()] {
            assert_ne!(pair.access_key_id, another.access_key_id);
            assert_ne!(*pair.secret, *another.secret);
        }
    }
}
