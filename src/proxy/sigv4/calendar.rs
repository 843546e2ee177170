//! `20150830T123600Z`, the one form of a time in a signature.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// Reads it; `None` for any other form.
pub(super) fn parse(text: &str) -> Option<Timestamp> {
    let bytes = text.as_bytes();
    if bytes.len() != 16 || bytes[8] != b'T' || bytes[15] != b'Z' {
        return None;
    }
    let number = |from: usize, to: usize| -> Option<i16> {
        let digits = &bytes[from..to];
        digits.iter().all(u8::is_ascii_digit).then_some(())?;
        Some(digits.iter().fold(0, |sum, digit| sum * 10 + i16::from(digit - b'0')))
    };
    let small = |from: usize| number(from, from + 2).and_then(|number| i8::try_from(number).ok());
    let moment = DateTime::new(number(0, 4)?, small(4)?, small(6)?, small(9)?, small(11)?, small(13)?, 0).ok()?;
    moment.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_form_is_read() {
        assert_eq!(parse("20150830T123600Z"), "2015-08-30T12:36:00Z".parse().ok());
        for text in [
            "",
            "20150830T123600",
            "20150830t123600Z",
            "20150830T123600z",
            "20151330T123600Z",
            "2015083 T123600Z",
            "20150830T243600Z",
            "20150830T1236+0Z",
            "2015-08-30T12:36Z",
            "\u{e4}0150830T12360Z",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
