//! Requests that say their length twice, by `Content-Length` and by `Transfer-Encoding`, seen in the bytes themselves.
//!
//! hyper takes the one, drops the other and leaves no trace of it (RFC 9112, 6.3 allows that), but such a request is
//! how two readers are made to see two ends, so it is refused here: the colon behind the second of the two names is
//! spoilt, and hyper answers 400 and ends the connection, as for every head that is malformed.
//!
//! To know heads from bodies this follows the messages, by hyper's own reading. It only looks for that pair: whatever
//! else is wrong is for hyper to refuse, which ends the connection, so nothing more is looked at behind it.

/// Longer than both names and their colon.
const NAME_MAX: usize = 18;
const LENGTH: &[u8] = b"content-length";
const CODING: &[u8] = b"transfer-encoding";
/// No field's name and no field's value may hold it.
const SPOILT: u8 = 0;

/// Where in a client's messages the next byte stands.
#[derive(Debug, Default)]
pub(super) struct Framing {
    place: Place,
    line: Line,
    head: Head,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Place {
    #[default]
    Head,
    /// So many bytes of a body, or of a chunk's data.
    Body {
        left: u64,
        is_chunk: bool,
    },
    /// A chunk's size, and whatever else is in its line.
    Size {
        size: u64,
        is_read: bool,
    },
    /// The end of the line behind a chunk's data.
    ChunkEnd,
    Trailers,
    /// Nothing is a message any more, or hyper will refuse it.
    Beyond,
}

/// What a head has said so far.
#[derive(Debug, Default)]
struct Head {
    has_begun: bool,
    length: Option<u64>,
    is_coded: bool,
}

/// A line that may come in pieces.
#[derive(Debug, Default)]
struct Line {
    /// It has more than the `\r` of its end.
    is_filled: bool,
    /// Its beginning, as long as it may still be one of the names.
    name: [u8; NAME_MAX],
    count: usize,
    field: Field,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Field {
    /// Its name is not over.
    #[default]
    Unknown,
    Length,
    Other,
}

impl Framing {
    /// Looks at what was read, and spoils it where a head says a length twice.
    pub(super) fn watch(&mut self, bytes: &mut [u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let taken = match self.place {
                Place::Head | Place::Trailers | Place::ChunkEnd => self.in_line(rest),
                Place::Body { left, is_chunk } => self.in_body(left, is_chunk, rest.len()),
                Place::Size { size, is_read } => self.in_size(size, is_read, rest),
                Place::Beyond => return,
            };
            rest = &mut rest[taken..];
        }
    }

    fn in_line(&mut self, rest: &mut [u8]) -> usize {
        let end = memchr::memchr(b'\n', rest);
        let taken = end.map_or(rest.len(), |at| at + 1);
        let text = &mut rest[..end.unwrap_or(taken)];
        match self.place {
            Place::Head => self.in_head(text),
            _ => self.line.fill(text),
        }
        if end.is_some() && self.place != Place::Beyond {
            self.line_ends();
        }
        taken
    }

    /// A piece of a line of a head.
    fn in_head(&mut self, text: &mut [u8]) {
        let value_at = match self.line.take(text) {
            Taken::Nothing => return,
            Taken::Value => 0,
            Taken::Length(value_at) => {
                // That one that is said again is the same is for hyper to see.
                self.line.field = if self.head.length.is_some() { Field::Other } else { Field::Length };
                self.head.length.get_or_insert(0);
                value_at
            }
            Taken::Coding(value_at) => {
                self.head.is_coded = true;
                value_at
            }
        };
        if self.head.is_coded && self.head.length.is_some() {
            self.spoil(&mut text[..value_at]);
        } else if self.line.field == Field::Length {
            self.length_goes_on(&text[value_at..]);
        }
    }

    /// `text` ends with the name's colon.
    fn spoil(&mut self, text: &mut [u8]) {
        if let Some(colon) = text.last_mut() {
            *colon = SPOILT;
        }
        self.place = Place::Beyond;
    }

    fn length_goes_on(&mut self, value: &[u8]) {
        for byte in value {
            let length = self.head.length.unwrap_or(0);
            match byte {
                b'0'..=b'9' => {
                    let next = length.checked_mul(10).and_then(|tens| tens.checked_add(u64::from(byte - b'0')));
                    let Some(next) = next else { return self.place = Place::Beyond };
                    self.head.length = Some(next);
                }
                b' ' | b'\t' | b'\r' => {}
                _ => return self.place = Place::Beyond,
            }
        }
    }

    fn line_ends(&mut self) {
        let is_empty = !self.line.is_filled;
        self.line = Line::default();
        match self.place {
            Place::ChunkEnd => self.place = Place::Size { size: 0, is_read: false },
            Place::Trailers if is_empty => self.place = Place::Head,
            Place::Head if !is_empty => self.head.has_begun = true,
            // Empty lines before a request are passed over.
            Place::Head if self.head.has_begun => {
                let head = std::mem::take(&mut self.head);
                self.place = match head.length {
                    _ if head.is_coded => Place::Size { size: 0, is_read: false },
                    Some(left) if left > 0 => Place::Body { left, is_chunk: false },
                    _ => Place::Head,
                };
            }
            Place::Head | Place::Trailers | Place::Body { .. } | Place::Size { .. } | Place::Beyond => {}
        }
    }

    fn in_body(&mut self, left: u64, is_chunk: bool, count: usize) -> usize {
        let taken = usize::try_from(left).unwrap_or(usize::MAX).min(count);
        self.place = match left - taken as u64 {
            0 if is_chunk => Place::ChunkEnd,
            0 => Place::Head,
            left => Place::Body { left, is_chunk },
        };
        taken
    }

    fn in_size(&mut self, mut size: u64, mut is_read: bool, rest: &[u8]) -> usize {
        for (at, byte) in rest.iter().enumerate() {
            let digit = char::from(*byte).to_digit(16);
            match digit {
                _ if *byte == b'\n' => {
                    self.place = match size {
                        0 => Place::Trailers,
                        left => Place::Body { left, is_chunk: true },
                    };
                    return at + 1;
                }
                Some(digit) if !is_read => match size.checked_mul(16) {
                    Some(sixteens) => size = sixteens + u64::from(digit),
                    None => return self.beyond(rest.len()),
                },
                _ => is_read = true,
            }
        }
        self.place = Place::Size { size, is_read };
        rest.len()
    }

    fn beyond(&mut self, taken: usize) -> usize {
        self.place = Place::Beyond;
        taken
    }
}

/// What a piece of a line has shown; places are in that piece.
enum Taken {
    Nothing,
    /// All of it is a length.
    Value,
    /// A length begins there.
    Length(usize),
    /// A coding begins there.
    Coding(usize),
}

impl Line {
    fn fill(&mut self, text: &[u8]) {
        self.is_filled |= !matches!(text, b"" | b"\r");
    }

    fn take(&mut self, text: &[u8]) -> Taken {
        self.fill(text);
        match self.field {
            Field::Other => return Taken::Nothing,
            Field::Length => return Taken::Value,
            Field::Unknown => {}
        }
        let begin = &text[..text.len().min(NAME_MAX - self.count)];
        let colon = begin.iter().position(|&byte| byte == b':');
        let name = &begin[..colon.unwrap_or(begin.len())];
        self.name[self.count..self.count + name.len()].copy_from_slice(name);
        self.count += name.len();
        let Some(colon) = colon else {
            if self.count == NAME_MAX {
                self.field = Field::Other;
            }
            return Taken::Nothing;
        };
        self.field = Field::Other;
        let name = &self.name[..self.count];
        if name.eq_ignore_ascii_case(LENGTH) {
            Taken::Length(colon + 1)
        } else if name.eq_ignore_ascii_case(CODING) {
            Taken::Coding(colon + 1)
        } else {
            Taken::Nothing
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is left of it when it comes in pieces of so many bytes.
    fn watched(text: &str, piece_bytes: usize) -> Vec<u8> {
        let (mut framing, mut bytes) = (Framing::default(), text.as_bytes().to_vec());
        bytes.chunks_mut(piece_bytes).for_each(|piece| framing.watch(piece));
        bytes
    }

    fn spoilt_at(text: &str) -> Option<usize> {
        let all: Vec<Option<usize>> = (1..=text.len())
            .map(|piece_bytes| watched(text, piece_bytes).iter().position(|&byte| byte == SPOILT))
            .collect();
        assert!(all.iter().all(|at| at == &all[0]), "{text:?}: by size of the pieces: {all:?}");
        all[0]
    }

    const BOTH: &str = "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n";
    /// Messages behind which the next head is found, and what is in them passes.
    const BEFORE: [&str; 12] = [
        "",
        "\r\n\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\n\n",
        "GET / HTTP/1.1\r\nContent-Length: 0\r\ncontent-length:0\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: \t7 \r\nA: b\r\n\r\nabc\n\n\nd",
        "POST / HTTP/1.1\r\ncontent-length: 002\r\nContent-Length: 002\r\n\r\nab",
        "POST / HTTP/1.1\r\nTRANSFER-ENCODING: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding:chunked\r\n\r\n2;x=Content-Length:1\r\n\n\n\r\n0A \r\n0123456789\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n00;b\r\nContent-Length: 3\r\nb: c\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encodings: 1\r\nTransfer-Encodin: 1\r\nX: Content-Length: 7\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 67\r\n\r\nPOST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n1",
    ];

    #[test]
    fn a_length_that_is_said_twice_is_spoilt_wherever_it_stands() {
        let heads = [
            BOTH,
            "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
            "A: b\r\ncontent-LENGTH:5\r\nC: d\r\ntransfer-ENCODING:chunked\r\nE: f\r\n",
            "Transfer-Encoding: gzip\nContent-Length: 5\n",
            "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
        ];
        for (before, head) in BEFORE.iter().flat_map(|before| heads.map(|head| (before, head))) {
            let text = format!("{before}POST / HTTP/1.1\r\n{head}\r\nhello");
            let lower = text.to_ascii_lowercase();
            let begin = before.len();
            let names = ["content-length:", "transfer-encoding:"];
            let second = names.map(|name| lower[begin..].find(name).expect("both") + begin + name.len() - 1);
            assert_eq!(spoilt_at(&text), second.into_iter().max(), "{text:?}");
        }
    }

    #[test]
    fn whatever_says_it_once_passes_as_it_is() {
        for text in BEFORE.iter().flat_map(|one| BEFORE.map(|other| format!("{one}{other}{one}G"))) {
            assert_eq!(spoilt_at(&text), None, "{text:?}");
        }
    }

    #[test]
    fn nothing_is_looked_at_behind_what_is_refused_anyway() {
        for head in ["Content-Length: x", "Content-Length: 99999999999999999999"] {
            let text = format!("POST / HTTP/1.1\r\n{head}\r\n\r\nPOST / HTTP/1.1\r\n{BOTH}\r\n");
            assert_eq!(spoilt_at(&text), None, "{head}");
        }
        let endless =
            format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{}\r\n\r\n{BOTH}\r\n", "f".repeat(17));
        assert_eq!(spoilt_at(&endless), None);
    }
}
