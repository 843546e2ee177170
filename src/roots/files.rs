//! Roots in files: PEM, each file and each certificate once.

use std::collections::{BTreeSet, HashSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use memchr::memmem;
use rustls::pki_types::CertificateDer;

use super::ENTRIES_MAX;

const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";
const END: &[u8] = b"-----END CERTIFICATE-----";
/// No file with roots is larger, in bytes.
const BYTES_MAX: u64 = 16 * 1024 * 1024;

/// What was seen already.
#[derive(Default)]
struct Found {
    /// Device and number of each file.
    files: HashSet<(u64, u64)>,
    certificates: BTreeSet<Vec<u8>>,
}

pub(super) fn read(places: &[PathBuf]) -> Vec<CertificateDer<'static>> {
    let mut found = Found::default();
    for place in places {
        found.add(place);
        let Ok(entries) = std::fs::read_dir(place) else { continue };
        entries.take(ENTRIES_MAX).filter_map(Result::ok).for_each(|entry| found.add(&entry.path()));
    }
    found.certificates.into_iter().map(CertificateDer::from).collect()
}

impl Found {
    /// What is in a file, unless it was read before, by whatever name.
    fn add(&mut self, path: &Path) {
        let Ok(metadata) = std::fs::metadata(path) else { return };
        let mut is_new = || self.files.insert((metadata.dev(), metadata.ino()));
        if metadata.is_file()
            && metadata.len() <= BYTES_MAX
            && is_new()
            && let Ok(bytes) = std::fs::read(path)
        {
            self.certificates.extend(certificates(&bytes));
        }
    }
}

/// The certificates in PEM; what stands around them, and what is damaged, is left out.
pub(super) fn certificates(pem: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let starts = memmem::find_iter(pem, BEGIN).map(|at| &pem[at + BEGIN.len()..]);
    starts.filter_map(|block| {
        // No block is in another: the end of the next one is not taken for the end of one that has none.
        let end = memmem::find(block, b"-----")?;
        let base64: Vec<u8> = block[..end].iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
        let is_whole = block[end..].starts_with(END);
        is_whole.then(|| STANDARD.decode(base64).ok()).flatten()
    })
}
