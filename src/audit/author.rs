//! Who writes: one boot of the process, and the key that it signs its checkpoints with.

use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use zeroize::Zeroizing;

use super::StartError;
use super::record::Body;

/// Most records in a row that no signature covers yet.
pub(super) const UNSIGNED_RECORDS_MAX: u64 = 1_000;

/// An Ed25519 public key.
pub(super) type PublicKey = [u8; 32];

/// An Ed25519 signature.
pub(super) type Signature = [u8; SIGNATURE_BYTES];
const SIGNATURE_BYTES: usize = 64;

const SIGNATURE_MEMBER: &[u8] = b",\"signature\":\"";

/// What the key does in a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// The record names the key, and is signed with it.
    Names,
    /// The record is signed.
    Signs,
    /// The record is covered by the next one that is signed.
    None,
}

impl Role {
    /// In records of this kind.
    pub(super) fn in_body(body: &Body) -> Self {
        match body {
            Body::Start { .. } | Body::Rotated => Self::Names,
            Body::Checkpoint | Body::Stop { .. } => Self::Signs,
            Body::Refused(_)
            | Body::Outage
            | Body::Lost { .. }
            | Body::Decision { .. }
            | Body::End(_)
            | Body::Event(_) => Self::None,
        }
    }

    /// In a record that is read, by its `type`.
    pub(super) fn in_kind(kind: &str) -> Self {
        match kind {
            "start" | "rotated" => Self::Names,
            "checkpoint" | "stop" => Self::Signs,
            _ => Self::None,
        }
    }
}

/// One boot. Its key is made with it, signs nothing but this audit, and never leaves the memory of the process.
pub(super) struct Author {
    pub(super) boot_id: String,
    key: Ed25519KeyPair,
    public: PublicKey,
}

impl Author {
    /// With a new key.
    pub(super) fn new(boot_id: String) -> Result<Self, StartError> {
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *seed).map_err(|_| StartError::Randomness)?;
        Self::of(boot_id, &seed).ok_or(StartError::Randomness)
    }

    /// With the key of this seed; there is one for every seed.
    pub(super) fn of(boot_id: String, seed: &[u8; 32]) -> Option<Self> {
        let key = Ed25519KeyPair::from_seed_unchecked(seed).ok()?;
        let public = key.public_key().as_ref().try_into().ok()?;
        Some(Self { boot_id, key, public })
    }

    /// For whoever checks the signatures.
    pub(super) fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Appends the member `signature`, made over the record as far as it is there: from `start` to the end.
    pub(super) fn sign(&self, out: &mut Vec<u8>, start: usize) {
        let signature = hex::encode(self.key.sign(&out[start..]));
        out.extend_from_slice(SIGNATURE_MEMBER);
        out.extend_from_slice(signature.as_bytes());
        out.push(b'"');
    }
}

/// Where the text that a signature is over ends, and the signature; `open` is a record without its `hash` and brace.
pub(super) fn parse_signature(open: &[u8]) -> Option<(usize, Signature)> {
    let member_bytes = SIGNATURE_MEMBER.len() + 2 * SIGNATURE_BYTES + 1;
    let (text, member) = open.split_at_checked(open.len().checked_sub(member_bytes)?)?;
    let digits = member.strip_prefix(SIGNATURE_MEMBER)?.strip_suffix(b"\"")?;
    let mut signature = [0; SIGNATURE_BYTES];
    hex::decode_to_slice(digits, &mut signature).ok()?;
    (!digits.iter().any(u8::is_ascii_uppercase)).then_some((text.len(), signature))
}

/// True if the holder of `key` signed `text`.
pub(super) fn is_signed(key: &PublicKey, text: &[u8], signature: &Signature) -> bool {
    UnparsedPublicKey::new(&ED25519, key).verify(text, signature).is_ok()
}
