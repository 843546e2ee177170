//! A client certificate with its private key: what a service shows to its upstreams.
//!
//! The key never leaves here as bytes: it is taken in by what signs handshakes, which gives nothing else away, and the
//! text that it was read from is wiped.
//!
//! - `pem`: the blocks of a file
//! - `files`: the two files that it comes from

pub(super) mod files;
mod pem;

use std::fmt;
use std::io;
use std::sync::Arc;

use jiff::Timestamp;
use ring::digest::{Context, SHA256};
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer, X509Certificate};

use pem::{Block, blocks};

/// Certificates of a chain at most.
const CHAIN_MAX: usize = 16;

/// Why a certificate and its key are of no use. Says nothing of what is in the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CertificateProblem {
    /// The file with the certificate cannot be read; the key has problems of its own.
    #[error("has a certificate that cannot be read: {0}")]
    Unread(io::ErrorKind),
    /// The file with the certificate is a directory, a pipe or a device, or changes all the time, or is over 64 KiB.
    #[error("has a certificate that cannot be read: it is no regular file of at most 64 KiB that stays as it is")]
    Unusable,
    /// One of the files is not PEM.
    #[error("is of no use: a file is not PEM")]
    Malformed,
    /// No certificate, or more than a chain has.
    #[error("is of no use: the certificate's file has no certificate, or more than 16")]
    Chain,
    /// A block is no certificate, or one without sense.
    #[error("is of no use: a block of the certificate's file is no certificate")]
    Unreadable,
    /// The leaf is for something else.
    #[error("is of no use: its certificate is not for TLS clients (extended key usage)")]
    Use,
    /// No private key.
    #[error("holds no private key")]
    NoKey,
    /// More than one.
    #[error("holds more than one private key")]
    Keys,
    /// It is encrypted, and there is nobody to ask for a password.
    #[error("holds a private key that is encrypted")]
    Encrypted,
    /// Not RSA of 2048 to 4096 bits, ECDSA on P-256 or P-384, or Ed25519.
    #[error("holds a private key of a kind that is not supported")]
    KeyKind,
    /// The key is another certificate's.
    #[error("holds a private key that does not belong to its certificate")]
    Mismatch,
    /// A certificate of the chain is over.
    #[error("has a certificate that has expired")]
    Over,
    /// A certificate of the chain begins later.
    #[error("has a certificate that is not valid yet")]
    NotYet,
}

/// A certificate chain and what signs with its key.
pub struct ClientCertificate {
    certified: Arc<CertifiedKey>,
    /// Of chain and key, to tell one pair from the next.
    digest: [u8; 32],
}

/// When a chain holds: from the latest beginning to the earliest end, in seconds.
type Period = (i64, i64);

impl ClientCertificate {
    /// Takes a chain (leaf first) and its key, both PEM; both may be in one text. What else they hold is passed over.
    /// Also gives the end of the first of its certificates to end.
    ///
    /// # Errors
    /// [`CertificateProblem`].
    pub(super) fn parse(chain: &[u8], key: &[u8], now: Timestamp) -> Result<(Self, Timestamp), CertificateProblem> {
        let chain: Vec<_> = blocks(chain)?.into_iter().filter(|block| block.label == "CERTIFICATE").collect();
        if chain.is_empty() || chain.len() > CHAIN_MAX {
            return Err(CertificateProblem::Chain);
        }
        let period = period(&chain)?;
        if !is_for_clients(&chain[0].der) {
            return Err(CertificateProblem::Use);
        }
        let key = private_key(blocks(key)?)?;
        let mut hash = Context::new(&SHA256);
        chain.iter().chain([&key]).for_each(|block| {
            // Each length first, or two chains could be one text.
            hash.update(&block.der.len().to_be_bytes());
            hash.update(&block.der);
        });
        let digest = hash.finish().as_ref().try_into().map_err(|_| CertificateProblem::Unreadable)?;
        let signer = any_supported_type(&key_der(&key)?).map_err(|_| CertificateProblem::KeyKind)?;
        let chain = chain.iter().map(|block| CertificateDer::from(block.der.to_vec())).collect();
        let certified = CertifiedKey::new(chain, signer);
        certified.keys_match().map_err(|_| CertificateProblem::Mismatch)?;
        let end = within(period, now)?;
        Ok((Self { certified: Arc::new(certified), digest }, end))
    }

    /// What signs handshakes with the key, and the chain that it shows. Only `proxy/inject.rs` may call this (clippy's
    /// `disallowed-methods`).
    #[must_use]
    pub fn certified(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.certified)
    }

    /// Of chain and key.
    pub(super) fn digest(&self) -> [u8; 32] {
        self.digest
    }

    /// True for the same chain with the same key.
    #[must_use]
    pub fn same_as(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientCertificate(…)")
    }
}

/// The one private key among the blocks.
fn private_key(blocks: Vec<Block<'_>>) -> Result<Block<'_>, CertificateProblem> {
    let mut keys = blocks.into_iter().filter(|block| block.label.ends_with("PRIVATE KEY"));
    let key = keys.next().ok_or(CertificateProblem::NoKey)?;
    match keys.next() {
        Some(_) => Err(CertificateProblem::Keys),
        None => Ok(key),
    }
}

/// Borrowed: the library would keep a copy, which nobody wipes.
fn key_der<'a>(key: &'a Block<'_>) -> Result<PrivateKeyDer<'a>, CertificateProblem> {
    let der = key.der.as_slice();
    match key.label {
        "PRIVATE KEY" => Ok(PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(der))),
        "RSA PRIVATE KEY" => Ok(PrivateKeyDer::Pkcs1(PrivatePkcs1KeyDer::from(der))),
        "EC PRIVATE KEY" => Ok(PrivateKeyDer::Sec1(PrivateSec1KeyDer::from(der))),
        "ENCRYPTED PRIVATE KEY" => Err(CertificateProblem::Encrypted),
        _ => Err(CertificateProblem::KeyKind),
    }
}

fn period(chain: &[Block<'_>]) -> Result<Period, CertificateProblem> {
    chain.iter().try_fold((i64::MIN, i64::MAX), |(from, until), block| match X509Certificate::from_der(&block.der) {
        Ok(([], certificate)) => {
            let validity = certificate.validity();
            Ok((from.max(validity.not_before.timestamp()), until.min(validity.not_after.timestamp())))
        }
        Ok(_) | Err(_) => Err(CertificateProblem::Unreadable),
    })
}

/// The end of a period that this moment is in.
fn within((from, until): Period, now: Timestamp) -> Result<Timestamp, CertificateProblem> {
    // Its last second belongs to it (RFC 5280, 4.1.2.5).
    let end = Timestamp::from_second(until.saturating_add(1)).unwrap_or(Timestamp::MAX);
    match () {
        () if now >= end => Err(CertificateProblem::Over),
        () if now.as_second() < from => Err(CertificateProblem::NotYet),
        () => Ok(end),
    }
}

/// Without the extension it is for everything (RFC 5280, 4.2.1.12).
fn is_for_clients(leaf: &[u8]) -> bool {
    let Ok((_, leaf)) = X509Certificate::from_der(leaf) else { return false };
    match leaf.extended_key_usage() {
        Ok(None) => true,
        Ok(Some(usage)) => usage.value.client_auth || usage.value.any,
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests;
