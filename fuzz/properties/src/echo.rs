//! A secret, its spellings, and texts that echo them: written without a look at how the scrubber spells.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use valetkey::proxy::scrub::{Masker, Needles};

use crate::reading::decoded;

/// Secrets with nothing to escape, with everything to escape, and one whose beginning comes again in it.
const SECRETS: [&[u8]; 4] = [
    b"sk_live_4eC39HqLyjWDarjtT1zdp7dc",
    b"ab/c+d=\"e\\f&g<h>'i j~0123",
    b"abcabcabcabcabcd",
    b"AAAAAAAAAAAAAAAAAAAAAAAA",
];

/// From this byte on, a byte of an input stands for a spelling of the secret.
const SPELLING_FROM: u8 = 0xd0;

pub(crate) struct Echo {
    secret: &'static [u8],
    pub(crate) needles: Needles,
    spellings: Vec<Vec<u8>>,
}

impl Echo {
    pub(crate) fn of(choice: u8) -> Self {
        let secret = SECRETS[usize::from(choice) % SECRETS.len()];
        let bearer = [&b"Bearer "[..], secret].concat();
        Self { secret, needles: Needles::new(secret, &[&bearer]), spellings: spellings(secret) }
    }

    /// A text: bytes from `SPELLING_FROM` on become spellings, every other one of them only the beginning of one.
    pub(crate) fn text(&self, template: &[u8]) -> Vec<u8> {
        let mut text = Vec::new();
        for &byte in template {
            let Some(which) = byte.checked_sub(SPELLING_FROM).map(usize::from) else {
                text.push(byte);
                continue;
            };
            let spelling = &self.spellings[which / 2 % self.spellings.len()];
            let length = if which.is_multiple_of(2) { spelling.len() } else { spelling.len() * 2 / 3 };
            text.extend_from_slice(&spelling[..length]);
        }
        text
    }

    /// The text with every echo masked, taken at once.
    pub(crate) fn masked(&self, text: &[u8]) -> Vec<u8> {
        let mut masker = Masker::new(self.needles.clone());
        [masker.push(Bytes::copy_from_slice(text)), masker.finish()].concat()
    }

    /// No spelling is in what goes out; what was changed was an echo; nothing else was.
    pub(crate) fn judge(&self, text: &[u8], out: &[u8]) {
        assert_eq!(out.len(), text.len(), "the length stays");
        let lower = out.to_ascii_lowercase();
        for spelling in &self.spellings {
            let spelling = spelling.to_ascii_lowercase();
            let is_there = lower.windows(spelling.len()).any(|window| window == spelling);
            assert!(!is_there, "{:?} comes through", String::from_utf8_lossy(&spelling));
        }
        let mut at = 0;
        while at < text.len() {
            if text[at] == out[at] {
                at += 1;
                continue;
            }
            let (start, end) = masked_around(out, at);
            assert!(self.explains(&text[start..end]), "{:?} was masked", String::from_utf8_lossy(&text[start..end]));
            at = end;
        }
    }

    /// Whether a part of a text that was masked holds the secret in any spelling.
    fn explains(&self, masked: &[u8]) -> bool {
        const PART_BYTES: usize = 7;
        let text = masked.to_ascii_lowercase();
        let secret = self.secret.to_ascii_lowercase();
        let holds = |text: &[u8]| {
            text.windows(PART_BYTES).any(|part| secret.windows(PART_BYTES).any(|of_secret| of_secret == part))
        };
        let plain = unescaped(&text);
        let backwards: Vec<u8> = plain.iter().rev().copied().collect();
        let unhexed = |text: &[u8]| text.chunks(2).filter_map(|pair| hex::decode(pair).ok()).flatten().collect();
        let together: Vec<u8> = plain.iter().copied().filter(|byte| !b" :".contains(byte)).collect();
        let (dense, apart): (Vec<u8>, Vec<u8>) = (unhexed(&plain), unhexed(&together));
        let reads = [&plain, &backwards, &dense, &apart].into_iter().any(|text| holds(&text.to_ascii_lowercase()));
        let of_base64 = |blob: &Vec<u8>| {
            let blob = blob.to_ascii_lowercase();
            plain.windows(9).any(|part| blob.windows(9).any(|of_blob| of_blob == part))
        };
        reads || self.spellings.iter().any(of_base64)
    }
}

/// Percent, JSON, HTML and `\x` escapes and the zeros of UTF-16 taken off, twice.
fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut text = text.to_vec();
    for _ in 0..2 {
        text = decoded(&text);
        text.retain(|byte| *byte != 0);
        let mut string = String::from_utf8_lossy(&text).into_owned();
        for (name, character) in [("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("\\/", "/")] {
            string = string.replace(name, character);
        }
        for byte in 0x20..0x7f_u8 {
            for escape in
                [format!("\\u{byte:04x}"), format!("\\x{byte:02x}"), format!("&#{byte};"), format!("&#x{byte:x};")]
            {
                string = string.replace(&escape, &char::from(byte).to_string());
            }
        }
        text = string.replace("\\\\", "\\").replace("\\\"", "\"").into_bytes();
    }
    text
}

/// The run of `*` around a place.
fn masked_around(out: &[u8], at: usize) -> (usize, usize) {
    let start = out[..at].iter().rposition(|byte| *byte != b'*').map_or(0, |before| before + 1);
    let end = out[at..].iter().position(|byte| *byte != b'*').map_or(out.len(), |after| at + after);
    (start, end)
}

fn spellings(secret: &[u8]) -> Vec<Vec<u8>> {
    let each = |spell: &dyn Fn(u8) -> String| secret.iter().map(|byte| spell(*byte)).collect::<String>().into_bytes();
    let kept = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let percent = |byte: u8| if kept(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    let letters =
        |byte: u8, escaped: String| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { escaped };
    let html = |byte: u8| letters(byte, format!("&#{byte};"));
    let json = serde_json::to_string(&String::from_utf8_lossy(secret)).unwrap_or_default();
    let mut spellings = vec![
        secret.to_vec(),
        secret.to_ascii_uppercase(),
        secret.iter().rev().copied().collect(),
        each(&percent),
        each(&|byte| percent(byte).replace('%', "%25")),
        each(&|byte| format!("%{byte:02x}")),
        each(&|byte| format!("{byte:02x}")),
        each(&|byte| format!("{byte:02X}")),
        each(&|byte| format!("\\u{byte:04x}")),
        each(&html),
        each(&|byte| format!("\\x{byte:02x}")),
        json.trim_matches('"').as_bytes().to_vec(),
        each(&|byte| format!("{byte:02x} ")).trim_ascii_end().to_vec(),
        each(&|byte| format!("{byte:02X}:")).strip_suffix(b":").unwrap_or_default().to_vec(),
    ];
    for before in 0..3_usize {
        let text = [&b"xyz"[..before], secret].concat();
        let (first, end) = ((before * 8).div_ceil(6), text.len() * 8 / 6);
        spellings.push(STANDARD_NO_PAD.encode(&text).as_bytes()[first..end].to_vec());
        spellings.push(URL_SAFE_NO_PAD.encode(&text).as_bytes()[first..end].to_vec());
    }
    spellings
}
