//! How servers read paths that are not as plain as they could be: lenient readers, written without a look at ours.

/// A server's habits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader {
    /// How often escapes are decoded.
    decodings: usize,
    /// `\` is a slash.
    backslash: bool,
    /// What follows `;` in a segment is not of the path.
    parameters: bool,
    /// What follows `?` or `#` is not of the path, even where it was escaped.
    delimiters: bool,
    /// Blanks at the end of a segment are taken off.
    trims: bool,
}

const PLAIN: Reader = Reader { decodings: 1, backslash: false, parameters: false, delimiters: false, trims: false };

impl Reader {
    pub(crate) const ALL: [Self; 7] = [
        PLAIN,
        Self { decodings: 2, ..PLAIN },
        Self { backslash: true, ..PLAIN },
        Self { parameters: true, ..PLAIN },
        Self { delimiters: true, ..PLAIN },
        Self { trims: true, ..PLAIN },
        Self { decodings: 2, backslash: true, parameters: true, delimiters: false, trims: true },
    ];

    /// Whether it may read a shorter path.
    pub(crate) fn cuts(self) -> bool {
        self.delimiters
    }
}

/// The segments that it reads, dot segments resolved and empty ones left out.
pub(crate) fn segments_of(path: &str, reader: Reader) -> Vec<String> {
    let mut bytes = path.as_bytes().to_vec();
    for _ in 0..reader.decodings {
        bytes = decoded(&bytes);
    }
    let mut text = String::from_utf8_lossy(&bytes).into_owned();
    if reader.backslash {
        text = text.replace('\\', "/");
    }
    if reader.delimiters {
        text.truncate(text.find(['?', '#']).unwrap_or(text.len()));
    }
    let mut segments: Vec<String> = Vec::new();
    for segment in text.split('/') {
        let segment = if reader.parameters { segment.split(';').next().unwrap_or_default() } else { segment };
        let segment = if reader.trims { segment.trim_end() } else { segment };
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            _ => segments.push(segment.to_owned()),
        }
    }
    segments
}

/// Escapes decoded; what is none stays.
pub(crate) fn decoded(bytes: &[u8]) -> Vec<u8> {
    let digit = |at: usize| bytes.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    let (mut out, mut at) = (Vec::new(), 0);
    while let Some(&byte) = bytes.get(at) {
        match (byte, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push(u8::try_from(high * 16 + low).unwrap_or_default());
                at += 3;
            }
            _ => {
                out.push(byte);
                at += 1;
            }
        }
    }
    out
}
