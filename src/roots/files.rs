//! Roots in files: PEM, each file and each certificate once.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::{DirEntry, File, Metadata};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use memchr::memmem;
use rustls::pki_types::CertificateDer;

use super::System;

/// Entries of one directory that are looked at.
const ENTRIES_MAX: usize = 10_000;
const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";
const END: &[u8] = b"-----END CERTIFICATE-----";
/// No file with roots is larger, in bytes.
const BYTES_MAX: u64 = 16 * 1024 * 1024;

/// What was seen already.
#[derive(Default)]
struct Found {
    /// Device and number of each file.
    files: HashSet<(u64, u64)>,
    /// As base64: most certificates are met twice, and are decoded once.
    certificates: BTreeSet<Vec<u8>>,
    linked: Vec<PathBuf>,
    /// Where directories are that links lead into. Hundreds lead into one, whose own links are followed once for all.
    homes: HashMap<PathBuf, Option<PathBuf>>,
}

pub(super) fn read(places: &[PathBuf]) -> System {
    let mut found = Found::default();
    for place in places {
        let Ok(metadata) = place.metadata() else { continue };
        found.add(place, &metadata);
        let Ok(entries) = std::fs::read_dir(place) else { continue };
        entries.take(ENTRIES_MAX).filter_map(Result::ok).for_each(|entry| found.add_entry(place, &entry));
    }
    let certificates = found.certificates.iter().filter_map(|base64| decode(base64)).collect();
    System { certificates, linked: found.linked }
}

impl Found {
    fn add_entry(&mut self, place: &Path, entry: &DirEntry) {
        if !entry.file_type().is_ok_and(|kind| kind.is_symlink()) {
            if let Ok(metadata) = entry.metadata() {
                self.add(&entry.path(), &metadata);
            }
        } else if let Some((end, metadata)) = self.end_of(place, &entry.path()) {
            self.add(&end, &metadata);
            self.linked.push(end);
        }
    }

    /// Where a link ends that leads out of its directory, and what is there.
    fn end_of(&mut self, place: &Path, link: &Path) -> Option<(PathBuf, Metadata)> {
        let target = std::fs::read_link(link).ok()?;
        let (home, name) = (target.parent()?, target.file_name()?);
        if home.as_os_str().is_empty() {
            // To its neighbour, which is looked at itself.
            return None;
        }
        let home =
            self.homes.entry(home.to_owned()).or_insert_with(|| place.join(home).canonicalize().ok()).as_ref()?;
        let end = home.join(name);
        let metadata = end.symlink_metadata().ok()?;
        if !metadata.is_symlink() {
            return Some((end, metadata));
        }
        let end = end.canonicalize().ok()?;
        let metadata = end.symlink_metadata().ok()?;
        Some((end, metadata))
    }

    /// What is in a file, unless it was read before, by whatever name.
    fn add(&mut self, path: &Path, metadata: &Metadata) {
        if metadata.is_file()
            && metadata.len() <= BYTES_MAX
            && self.files.insert((metadata.dev(), metadata.ino()))
            && let Some(bytes) = contents(path, metadata.len())
        {
            self.certificates.extend(blocks(&bytes));
        }
    }
}

/// A file of this length: who asks the system anew for its length and its end does so hundreds of times.
fn contents(path: &Path, bytes_count: u64) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(usize::try_from(bytes_count).ok()?);
    File::open(path).ok()?.take(bytes_count).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// The certificates in PEM; what stands around them, and what is damaged, is left out.
#[cfg(test)]
pub(super) fn certificates(pem: &[u8]) -> impl Iterator<Item = CertificateDer<'static>> {
    blocks(pem).filter_map(|base64| decode(&base64))
}

fn decode(base64: &[u8]) -> Option<CertificateDer<'static>> {
    STANDARD.decode(base64).ok().map(CertificateDer::from)
}

/// The base64 of the certificates in PEM, without its line ends.
fn blocks(pem: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let starts = memmem::find_iter(pem, BEGIN).map(|at| &pem[at + BEGIN.len()..]);
    starts.filter_map(|block| {
        // No block is in another: the end of the next one is not taken for the end of one that has none.
        let end = memmem::find(block, b"-----")?;
        block[end..].starts_with(END).then(|| block[..end].split(u8::is_ascii_whitespace).collect::<Vec<_>>().concat())
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_of_a_directory_lead_to_files_elsewhere() {
        let (store, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let real = elsewhere.path().canonicalize().unwrap();
        for name in ["root.pem", "other.pem", "third.pem"] {
            fs::write(real.join(name), "").unwrap();
        }
        fs::write(store.path().join("plain.pem"), "").unwrap();
        symlink(real.join("root.pem"), store.path().join("one.pem")).unwrap();
        symlink(real.join("root.pem"), store.path().join("two.pem")).unwrap();
        symlink("one.pem", store.path().join("0123abcd.0")).unwrap();
        symlink("/nowhere", store.path().join("gone.pem")).unwrap();
        symlink(&real, store.path().join("by-a-link")).unwrap();
        symlink("by-a-link/other.pem", store.path().join("other.pem")).unwrap();
        symlink("third.pem", real.join("link.pem")).unwrap();
        symlink(real.join("link.pem"), store.path().join("third.pem")).unwrap();
        let mut ends: Vec<_> = ["root.pem", "other.pem", "third.pem"].map(|name| real.join(name)).into();
        ends.push(real.clone());
        let linked: BTreeSet<_> = read(&[store.path().to_owned()]).linked.into_iter().collect();
        assert_eq!(linked, ends.into_iter().collect());
        for other in [store.path().join("plain.pem"), PathBuf::from("/nowhere")] {
            assert!(read(&[other]).linked.is_empty());
        }
    }
}
