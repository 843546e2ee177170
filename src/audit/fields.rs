//! The members of a record under construction: JSON in printable ASCII, appended to a buffer.
//!
//! Nearly every value is printable ASCII as it stands and is appended whole; `serde_json` does the rest.

use std::fmt::Display;
use std::io::{self, Write};
use std::net::{SocketAddr, SocketAddrV4};

use jiff::Timestamp;
use jiff::tz::Offset;
use serde::Serialize;

use super::chain::Hash;
use crate::model::Destination;

const HEX_DIGITS: &[u8; 16] = b"0123456789abcdef";
/// Every byte in hexadecimal.
const HEX_PAIRS: [[u8; 2]; 256] = {
    let mut pairs = [[0; 2]; 256];
    let mut byte = 0;
    while byte < pairs.len() {
        pairs[byte] = [HEX_DIGITS[byte >> 4], HEX_DIGITS[byte & 0xf]];
        byte += 1;
    }
    pairs
};
/// Characters of a record's hash in hexadecimal.
pub(super) const HASH_CHARACTERS: usize = 64;
/// Most digits of a number.
const NUMBER_DIGITS_MAX: usize = 20;

/// The name of a member with all that stands around it, and the quote that a text begins with: `,"name":"`. Made by
/// [`key!`] alone.
#[derive(Clone, Copy)]
pub(super) struct Key(pub(super) &'static str);

/// The [`Key`] of a name that JSON takes as it is.
macro_rules! key {
    ($name:literal) => {
        $crate::audit::fields::Key(concat!(",\"", $name, "\":\""))
    };
}
pub(super) use key;

/// The members of a record under construction; everything comes out as printable ASCII.
pub(super) struct Fields<'a>(&'a mut Vec<u8>);

impl<'a> Fields<'a> {
    /// Goes on after a first member.
    pub(super) fn after_first(out: &'a mut Vec<u8>) -> Self {
        Self(out)
    }

    /// Adds a text.
    pub(super) fn text(&mut self, key: Key, text: &str) {
        if is_plain(text.as_bytes()) {
            self.open(key);
            self.0.extend_from_slice(text.as_bytes());
            self.0.push(b'"');
        } else {
            self.json(key, text);
        }
    }

    /// Adds a text where there is one.
    pub(super) fn text_some(&mut self, key: Key, text: Option<&str>) {
        if let Some(text) = text {
            self.text(key, text);
        }
    }

    /// Adds a number.
    pub(super) fn number(&mut self, key: Key, number: u64) {
        self.key(key);
        self.digits(number);
    }

    /// Adds a number where there is one.
    pub(super) fn number_some(&mut self, key: Key, number: Option<u64>) {
        if let Some(number) = number {
            self.number(key, number);
        }
    }

    /// Adds a member by its [`Display`] text.
    pub(super) fn show<T: Display + ?Sized>(&mut self, key: Key, value: &T) {
        let before = self.0.len();
        self.open(key);
        let start = self.0.len();
        let is_written = write!(self.0, "{value}").is_ok();
        if is_written && self.0.get(start..).is_some_and(is_plain) {
            self.0.push(b'"');
        } else {
            self.0.truncate(before);
            self.json(key, &Shown(value));
        }
    }

    /// Adds a member by its [`Display`] text where there is one.
    pub(super) fn show_some<T: Display + ?Sized>(&mut self, key: Key, value: Option<&T>) {
        if let Some(value) = value {
            self.show(key, value);
        }
    }

    /// Adds a host with its port, as its [`Display`] text is, where there is one.
    pub(super) fn destination_some(&mut self, key: Key, destination: Option<&Destination>) {
        let Some(destination) = destination else { return };
        let host = destination.host.as_str().as_bytes();
        // An IPv6 address stands in brackets.
        if !is_plain(host) || host.contains(&b':') {
            return self.show(key, destination);
        }
        self.open(key);
        self.0.extend_from_slice(host);
        self.0.push(b':');
        self.digits(destination.port.into());
        self.0.push(b'"');
    }

    /// Adds an address with its port.
    pub(super) fn address(&mut self, key: Key, address: SocketAddr) {
        match address {
            SocketAddr::V4(address) => self.address_v4(key, address),
            SocketAddr::V6(address) => self.show(key, &address),
        }
    }

    fn address_v4(&mut self, key: Key, address: SocketAddrV4) {
        self.open(key);
        for (octet, after) in address.ip().octets().into_iter().zip(*b"...:") {
            self.digits(octet.into());
            self.0.push(after);
        }
        self.digits(address.port().into());
        self.0.push(b'"');
    }

    /// Adds a moment in UTC with microseconds.
    pub(super) fn time(&mut self, key: Key, time: Timestamp) {
        let civil = Offset::UTC.to_datetime(time);
        let Ok(year) = u16::try_from(civil.year()) else {
            return self.show(key, &format_args!("{time:.6}"));
        };
        let mut text = *b"\"0000-00-00T00:00:00.000000Z\"";
        put_digits(&mut text[1..5], year.into());
        put_digits(&mut text[6..8], civil.month().unsigned_abs().into());
        put_digits(&mut text[9..11], civil.day().unsigned_abs().into());
        put_digits(&mut text[12..14], civil.hour().unsigned_abs().into());
        put_digits(&mut text[15..17], civil.minute().unsigned_abs().into());
        put_digits(&mut text[18..20], civil.second().unsigned_abs().into());
        put_digits(&mut text[21..27], civil.subsec_nanosecond().unsigned_abs() / 1000);
        self.key(key);
        self.0.extend_from_slice(&text);
    }

    /// Adds a hash in hexadecimal.
    pub(super) fn hash(&mut self, key: Key, hash: &Hash) {
        self.open(key);
        self.0.extend_from_slice(&hex(hash));
        self.0.push(b'"');
    }

    /// Adds any value; one that has no JSON form becomes `null`.
    pub(super) fn json<T: Serialize + ?Sized>(&mut self, key: Key, value: &T) {
        self.key(key);
        self.value(value);
    }

    /// Adds any value, or nothing.
    pub(super) fn json_some<T: Serialize + ?Sized>(&mut self, key: Key, value: Option<&T>) {
        if let Some(value) = value {
            self.json(key, value);
        }
    }

    /// Adds any value, or `…` for one that takes more than `bytes_max`, its name counted.
    pub(super) fn json_bounded<T: Serialize + ?Sized>(&mut self, key: Key, value: &T, bytes_max: usize) {
        let before = self.0.len();
        self.json(key, value);
        if self.0.len() - before > bytes_max {
            self.0.truncate(before);
            self.text(key, "…");
        }
    }

    /// Begins a member.
    fn key(&mut self, key: Key) {
        self.0.extend_from_slice(key.0.strip_suffix('"').unwrap_or(key.0).as_bytes());
    }

    /// Begins a member that is a text.
    fn open(&mut self, key: Key) {
        self.0.extend_from_slice(key.0.as_bytes());
    }

    fn digits(&mut self, number: u64) {
        let mut digits = [0; NUMBER_DIGITS_MAX];
        let (mut begin, mut rest) = (NUMBER_DIGITS_MAX, number);
        for (at, digit) in digits.iter_mut().enumerate().rev() {
            *digit = b'0' + last_digit(rest);
            (begin, rest) = (at, rest / 10);
            if rest == 0 {
                break;
            }
        }
        self.0.extend_from_slice(&digits[begin..]);
    }

    fn value<T: Serialize + ?Sized>(&mut self, value: &T) {
        let before = self.0.len();
        if value.serialize(&mut serde_json::Serializer::with_formatter(&mut *self.0, Ascii)).is_err() {
            self.0.truncate(before);
            self.0.extend_from_slice(b"null");
        }
    }
}

/// JSON takes it as it stands. Without a way out of the loop, so that the compiler looks at many bytes at once.
fn is_plain(text: &[u8]) -> bool {
    text.iter()
        .fold(true, |is_plain, byte| is_plain & (b' '..=b'~').contains(byte) & (*byte != b'"') & (*byte != b'\\'))
}

/// Writes the last digits of `number`, as many as there is room for.
fn put_digits(room: &mut [u8], number: u32) {
    let mut rest = number;
    for digit in room.iter_mut().rev() {
        *digit = b'0' + last_digit(rest.into());
        rest /= 10;
    }
}

fn last_digit(number: u64) -> u8 {
    u8::try_from(number % 10).unwrap_or_default()
}

/// Lower-case hexadecimal.
pub(super) fn hex(hash: &Hash) -> [u8; HASH_CHARACTERS] {
    let mut text = [0; HASH_CHARACTERS];
    for (pair, byte) in text.as_chunks_mut().0.iter_mut().zip(hash) {
        *pair = HEX_PAIRS[usize::from(*byte)];
    }
    text
}

struct Shown<'a, T: ?Sized>(&'a T);

impl<T: Display + ?Sized> Serialize for Shown<'_, T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self.0)
    }
}

/// Compact JSON in printable ASCII: DEL and everything beyond ASCII (bidi controls, line separators, look-alikes)
/// is escaped as `\u`, on top of what `serde_json` escapes.
struct Ascii;

impl serde_json::ser::Formatter for Ascii {
    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.find(|c: char| !(' '..='~').contains(&c)) {
            let (plain, from) = rest.split_at(at);
            writer.write_all(plain.as_bytes())?;
            let mut characters = from.chars();
            if let Some(character) = characters.next() {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    write!(writer, "\\u{unit:04x}")?;
                }
            }
            rest = characters.as_str();
        }
        writer.write_all(rest.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Fields<'_>)) -> String {
        let mut out = Vec::new();
        write(&mut Fields::after_first(&mut out));
        String::from_utf8(out).unwrap()
    }

    /// The same member as `serde_json` alone makes it.
    fn expected<T: Serialize + ?Sized>(value: &T) -> String {
        written(|fields| fields.json(key!("k"), value))
    }

    #[test]
    fn a_value_is_one_line_of_printable_ascii() {
        let nasty = "a\"\\\n\r\0\u{1b}[2J\u{7f}\u{85}\u{202e}\u{2028}é\u{1f600}\",\"decision\":\"allow";
        for text in [
            written(|fields| fields.text(key!("k"), nasty)),
            written(|fields| fields.show(key!("k"), nasty)),
            written(|fields| fields.json(key!("k"), nasty)),
        ] {
            assert!(text.bytes().all(|b| (0x20..=0x7e).contains(&b)), "{text}");
            assert!(text.contains("\\u202e") && text.contains("\\u2028") && text.contains("\\ud83d\\ude00"), "{text}");
            let back: serde_json::Value = serde_json::from_str(&format!("{{\"a\":0{text}}}")).unwrap();
            assert_eq!(back["k"], nasty);
            assert!(back.get("decision").is_none());
        }
    }

    #[test]
    fn the_short_way_writes_what_the_long_way_does() {
        for character in (0..=0x2ff_u32).chain([0x2028, 0xffff, 0x1_f600]).filter_map(char::from_u32) {
            for (before, after) in [(0, 0), (1, 0), (0, 1), (15, 0), (16, 16), (40, 3)] {
                let text = format!("{}{character}{}", "a".repeat(before), "~".repeat(after));
                assert_eq!(written(|fields| fields.text(key!("k"), &text)), expected(&text));
                assert_eq!(written(|fields| fields.show(key!("k"), &text)), expected(&text));
            }
        }
    }

    #[test]
    fn numbers_and_addresses_read_as_always() {
        for number in [0, 1, 9, 10, 99, 100, 65_535, 1_234_567_890, u64::MAX - 1, u64::MAX] {
            assert_eq!(written(|fields| fields.number(key!("k"), number)), format!(",\"k\":{number}"));
        }
        for text in ["0.0.0.0:0", "127.0.0.1:5000", "255.10.100.9:65535", "[::1]:1", "[fe80::1%3]:443"] {
            let address = text.parse().unwrap();
            assert_eq!(written(|fields| fields.address(key!("k"), address)), expected(text));
        }
    }

    #[test]
    fn a_destination_reads_as_always() {
        for text in ["a:1", "api.stripe.com:443", "10.0.0.9:65535", "[2001:db8::1]:8443", "[::1]:80"] {
            let destination = Destination::parse(text, None).unwrap();
            assert_eq!(written(|fields| fields.destination_some(key!("k"), Some(&destination))), expected(text));
        }
    }

    #[test]
    fn a_moment_reads_as_jiff_writes_it() {
        let mut seconds = vec![0, -1, 951_782_399, 1_709_251_199, 4_107_542_399, -62_167_219_200, -62_167_219_201];
        seconds.extend((-377_705_000_000..253_402_000_000).step_by(76_543_217));
        for second in seconds {
            for nanosecond in [0, 1, 999, 1_000, 123_456_789, 999_999_999] {
                let sign = if second < 0 { -1 } else { 1 };
                let time = Timestamp::new(second, sign * nanosecond).unwrap();
                let text = written(|fields| fields.time(key!("k"), time));
                assert_eq!(text, expected(&format!("{time:.6}")));
            }
        }
    }

    #[test]
    fn a_hash_is_lower_case_hexadecimal() {
        let mut hash = [0; 32];
        for first in (0..=224_u8).step_by(32) {
            for (byte, value) in hash.iter_mut().zip(first..=first + 31) {
                *byte = value;
            }
            assert_eq!(written(|fields| fields.hash(key!("k"), &hash)), expected(&hex::encode(hash)));
        }
    }
}
