//! PEM (RFC 7468), read strictly into memory that is wiped.
//!
//! The library's reader leaves the key behind in buffers that it gives back.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::CertificateProblem;

const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
const DASHES: &str = "-----";

/// One block.
pub(super) struct Block<'a> {
    /// What it says that it is: `CERTIFICATE`.
    pub(super) label: &'a str,
    pub(super) der: Zeroizing<Vec<u8>>,
}

/// All blocks of a text, in order. Lines between them are passed over (OpenSSL writes names there).
pub(super) fn blocks(text: &[u8]) -> Result<Vec<Block<'_>>, CertificateProblem> {
    let text = std::str::from_utf8(text).map_err(|_| CertificateProblem::Malformed)?;
    let mut lines = text.lines().map(str::trim_end);
    let mut blocks = Vec::new();
    while let Some(line) = lines.next() {
        let Some(label) = boundary(line, BEGIN) else { continue };
        blocks.push(Block { label, der: body(&mut lines, label, text.len())? });
    }
    Ok(blocks)
}

/// The label of a line that begins or ends a block.
fn boundary<'a>(line: &'a str, beginning: &str) -> Option<&'a str> {
    line.strip_prefix(beginning)?.strip_suffix(DASHES)
}

fn body<'a>(
    lines: &mut impl Iterator<Item = &'a str>,
    label: &str,
    length_max: usize,
) -> Result<Zeroizing<Vec<u8>>, CertificateProblem> {
    // Allocated once each: a buffer that grows leaves copies behind that nobody wipes.
    let mut encoded = Zeroizing::new(String::with_capacity(length_max));
    for line in lines {
        if let Some(end) = boundary(line, END) {
            let mut der = Zeroizing::new(vec![0; encoded.len().div_ceil(4) * 3]);
            let length = STANDARD.decode_slice(encoded.as_bytes(), &mut der);
            let length = length.ok().filter(|length| *length > 0 && end == label);
            der.truncate(length.ok_or(CertificateProblem::Malformed)?);
            return Ok(der);
        }
        if line.contains(':') {
            // A header, which only encrypted keys of old have (RFC 1421).
            let is_key = label.ends_with("PRIVATE KEY");
            return Err(if is_key { CertificateProblem::Encrypted } else { CertificateProblem::Malformed });
        }
        encoded.push_str(line);
    }
    Err(CertificateProblem::Malformed)
}
