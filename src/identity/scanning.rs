//! Who signs reports of leaked secrets: a scanner's keys, in the format of GitHub's secret scanning partners.

use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;

use super::Refused;
use super::fetch::{Address, Client};
use super::jwks::{KID_BYTES_MAX, SET_BYTES_MAX, Use};
use super::keys::{Fetch, Keys, Origin};
use crate::clock::SharedClock;
use crate::model::Identity;
use crate::net::Dialer;
use crate::net::tls::{ClientTls, TlsError};

/// Which of its keys signed.
const KEY: &str = "github-public-key-identifier";
/// The signature over the body: ECDSA on P-256 with SHA-256, DER in base64.
const SIGNATURE: &str = "github-public-key-signature";
/// Longest signature, in characters.
const SIGNATURE_BYTES_MAX: usize = 256;

/// Where a scanner's keys come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScannerKeys {
    /// A file, read for every report.
    File(PathBuf),
    /// A server; its answer is believed as long as an issuer's.
    Server(Address),
}

/// Proves that a report is a scanner's.
pub struct Scanner {
    keys: Keys,
}

impl Scanner {
    /// A server is dialled by `dialer` and verified against the roots of `tls`, and against those in `ca`.
    ///
    /// # Errors
    /// [`TlsError`]: `ca` is of no use.
    pub fn new(
        keys: ScannerKeys,
        ca: Option<&[u8]>,
        dialer: Arc<Dialer>,
        tls: &ClientTls,
        clock: SharedClock,
    ) -> Result<Self, TlsError> {
        let origin = match keys {
            ScannerKeys::File(path) => Origin::File(path),
            ScannerKeys::Server(address) => {
                let client = Client { dialer, tls: Arc::new(tls.config(ca, &[b"http/1.1"])?) };
                let fetch: Fetch = Arc::new(move || {
                    let (client, address) = (client.clone(), address.clone());
                    Box::pin(async move { client.ask(&address, None, SET_BYTES_MAX).await })
                });
                Origin::Server(fetch)
            }
        };
        Ok(Self { keys: Keys::new("secret scanning".into(), origin, Use::SecretScanning, clock) })
    }

    /// Whether a report names a key and has a signature at all.
    ///
    /// # Errors
    /// [`Refused::Unsigned`].
    pub fn check(headers: &HeaderMap) -> Result<(), Refused> {
        signed(headers).map(|_| ())
    }

    /// Whose report this is.
    ///
    /// # Errors
    /// [`Refused`].
    pub async fn verify(&self, headers: &HeaderMap, body: &[u8]) -> Result<Identity, Refused> {
        let (kid, signature) = signed(headers)?;
        let key = self.keys.find(kid).await?;
        if key.verifies_der(body, &signature) { Ok(Identity::Scanner(kid.into())) } else { Err(Refused::Signature) }
    }
}

/// The key's name and the signature, each there once.
fn signed(headers: &HeaderMap) -> Result<(&str, Vec<u8>), Refused> {
    let one = |name: &str, bytes_max: usize| {
        let mut values = headers.get_all(name).iter();
        let value = values.next().filter(|value| value.len() <= bytes_max)?;
        if values.next().is_some() {
            return None;
        }
        value.to_str().ok().filter(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()))
    };
    let kid = one(KEY, KID_BYTES_MAX).ok_or(Refused::Unsigned)?;
    let signature = one(SIGNATURE, SIGNATURE_BYTES_MAX).and_then(|text| STANDARD.decode(text).ok());
    Ok((kid, signature.ok_or(Refused::Unsigned)?))
}
