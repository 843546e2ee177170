//! The spellings of a credential that are searched for.
//!
//! A form here is a whole spelling by one rule: text that mixes rules (half of it percent-encoded), or an encoding that
//! is not listed (base32, encryption, a digest), is not found. Letter case never matters, since the search folds it:
//! `%2F` and `%2f`, both hex alphabets and a reflection in upper case are one form each. With 12 bytes at least, folding
//! makes a false find in random text about as likely as one in 36^12.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use zeroize::Zeroizing;

use crate::model::secret::CREDENTIAL_BYTES_SCRUBBABLE;

/// Shortest form that is searched for, in bytes.
pub(super) const FORM_BYTES_MIN: usize = 12;

const HEX_DIGITS: &[u8; 16] = b"0123456789abcdef";

/// A spelling, in lower case, wiped on drop.
///
/// The credential itself is one: searches for the same credential share theirs ([`super::Needles::plainly`]).
pub(super) type Form = Zeroizing<Vec<u8>>;

/// Writes one byte of the text in its escaped form.
type Escape = fn(u8, &mut Vec<u8>);

/// How many of [`ESCAPES`], from the first on, are percent-encodings.
const PERCENT_ESCAPES: usize = 6;

/// Every escape that is applied to a whole text.
const ESCAPES: [Escape; 21] = [
    |byte, out| percent_unless(byte, b"", false, out),
    |byte, out| percent_unless(byte, b"-._~", true, out),
    |byte, out| percent_unless(byte, b"-._~/", true, out),
    |byte, out| percent_unless(byte, b"-_.!~*'()", true, out),
    |byte, out| percent_unless(byte, b"-_.!~*'();,/?:@&=+$#", true, out),
    |byte, out| percent_unless(byte, b"-._~!$&'()*+,;=:@/?[]\\^`{|}%", true, out),
    form_urlencoded,
    |byte, out| json(byte, b"", out),
    |byte, out| json(byte, b"&<>", out),
    |byte, out| json(byte, b"&<>='", out),
    |byte, out| json(byte, b"&<>'\"", out),
    json_slash,
    json_symbols,
    json_every,
    |byte, out| html(byte, b"&#39;", out),
    |byte, out| html(byte, b"&#x27;", out),
    html_decimal,
    html_hex,
    |byte, out| out.extend_from_slice(format!("&#{byte};").as_bytes()),
    |byte, out| out.extend_from_slice(format!("&#x{byte:x};").as_bytes()),
    |byte, out| out.extend_from_slice(format!("\\x{byte:02x}").as_bytes()),
];

/// The few forms in which a credential stands in a request that somebody spilled it into: as it is, percent-encoded, and
/// as JSON may write it. None of one that is too short to be searched for.
pub(super) fn plain(secret: &[u8]) -> Vec<Form> {
    if secret.len() < CREDENTIAL_BYTES_SCRUBBABLE {
        return Vec::new();
    }
    let mut forms: Vec<Form> =
        vec![secret.to_vec().into(), escaped(secret, json_slash), escaped(secret, form_urlencoded)];
    forms.extend(ESCAPES[..PERCENT_ESCAPES].iter().map(|escape| escaped(secret, *escape)));
    sorted(forms)
}

/// All forms of `secret` and of what `went_out`, each once, none shorter than [`FORM_BYTES_MIN`].
pub(super) fn all(secret: &[u8], went_out: &[&[u8]]) -> Vec<Form> {
    let mut forms = Vec::new();
    add_text(secret, &mut forms);
    forms.push(secret.iter().rev().copied().collect::<Vec<u8>>().into());
    for &text in went_out {
        let text = without_scheme(text);
        add_text(text, &mut forms);
        if let Ok(inner) = STANDARD.decode(text).map(Zeroizing::new) {
            // `user:secret` out of a Basic blob.
            if inner.len() > secret.len() && holds(&inner, secret) {
                add_text(&inner, &mut forms);
            }
        }
    }
    sorted(forms)
}

/// In lower case, in order, each once, without the short ones.
pub(super) fn sorted(mut forms: Vec<Form>) -> Vec<Form> {
    for form in &mut forms {
        form.make_ascii_lowercase();
    }
    forms.retain(|form| form.len() >= FORM_BYTES_MIN);
    forms.sort_unstable_by(|a, b| a.as_slice().cmp(b.as_slice()));
    forms.dedup_by(|a, b| a.as_slice() == b.as_slice());
    forms
}

/// The part of a header value that is the credential.
fn without_scheme(value: &[u8]) -> &[u8] {
    let Some(space) = value.iter().position(|&byte| byte == b' ') else { return value };
    let scheme = &value[..space];
    let is_known = [&b"bearer"[..], b"basic", b"token"].iter().any(|known| scheme.eq_ignore_ascii_case(known));
    if is_known { value[space..].trim_ascii() } else { value }
}

fn holds(text: &[u8], part: &[u8]) -> bool {
    !part.is_empty() && text.windows(part.len()).any(|window| window == part)
}

/// The text itself, escaped, as hex, as UTF-16 and as base64.
fn add_text(text: &[u8], forms: &mut Vec<Form>) {
    forms.push(text.to_vec().into());
    for escape in ESCAPES {
        forms.push(escaped(text, escape));
    }
    // Escaped twice: a URL in a URL, JSON in a string of JSON.
    forms.push(escaped(&escaped(text, ESCAPES[1]), ESCAPES[1]));
    forms.push(escaped(&escaped(text, ESCAPES[7]), ESCAPES[7]));
    forms.push(hex::encode(text).into_bytes().into());
    // As S3 shows what it was sent, and as dumps and fingerprints are written.
    forms.extend([b' ', b':'].map(|between| hex_apart(text, between)));
    forms.push(utf_16(text));
    for offset in 0..3 {
        for alphabet in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
            let blob = base64_inside(text, offset, &alphabet);
            if blob.iter().any(|byte| !byte.is_ascii_alphanumeric()) {
                forms.push(escaped(&blob, ESCAPES[1]));
                forms.push(escaped(&blob, json_slash));
                forms.push(escaped(&blob, json_symbols));
            }
            forms.push(blob);
        }
    }
}

/// In hex, with something between the bytes.
fn hex_apart(text: &[u8], between: u8) -> Form {
    let mut out = Zeroizing::new(Vec::with_capacity(text.len() * 3));
    for &byte in text {
        if !out.is_empty() {
            out.push(between);
        }
        out.extend([byte >> 4, byte & 0xf].map(|digit| HEX_DIGITS[usize::from(digit)]));
    }
    out
}

fn escaped(text: &[u8], escape: Escape) -> Form {
    // Room for the longest escape (`\u00XX`, `&#x27;`, `&quot;`): growing would leave a copy behind.
    let mut out = Zeroizing::new(Vec::with_capacity(text.len() * 6));
    for &byte in text {
        escape(byte, &mut out);
    }
    out
}

/// The base64 characters that `text` alone determines where `offset` other bytes stand before it in its group of three:
/// those at the edges are mixed with bits of the neighbours and left out.
fn base64_inside(text: &[u8], offset: usize, alphabet: &base64::engine::GeneralPurpose) -> Form {
    let mut padded = Zeroizing::new(vec![0; offset]);
    padded.reserve_exact(text.len());
    padded.extend_from_slice(text);
    let encoded = Zeroizing::new(alphabet.encode(&*padded));
    let first = (offset * 8).div_ceil(6);
    let end = (padded.len() * 8) / 6;
    encoded.as_bytes().get(first..end).unwrap_or_default().to_vec().into()
}

/// UTF-16 of either byte order, without the zero byte at the one end or the other.
fn utf_16(text: &[u8]) -> Form {
    let mut out = Zeroizing::new(Vec::with_capacity(text.len() * 2));
    for &byte in text {
        if !out.is_empty() {
            out.push(0);
        }
        out.push(byte);
    }
    out
}

/// RFC 3986, 2.1: everything but `kept` (and letters and digits, with `alphanumeric`) as `%XX`.
fn percent_unless(byte: u8, kept: &[u8], alphanumeric: bool, out: &mut Vec<u8>) {
    if (alphanumeric && byte.is_ascii_alphanumeric()) || kept.contains(&byte) {
        out.push(byte);
    } else {
        out.extend_from_slice(format!("%{byte:02x}").as_bytes());
    }
}

/// `application/x-www-form-urlencoded` (WHATWG URL, 5.2).
fn form_urlencoded(byte: u8, out: &mut Vec<u8>) {
    if byte == b' ' {
        out.push(b'+');
    } else {
        percent_unless(byte, b"*-._", true, out);
    }
}

/// RFC 8259, 7, with the bytes of `escaped` as `\u00XX`.
fn json(byte: u8, escaped: &[u8], out: &mut Vec<u8>) {
    match byte {
        _ if escaped.contains(&byte) || byte < 0x20 => json_every(byte, out),
        b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
        _ => out.push(byte),
    }
}

/// JSON that writes `/` as `\/`.
fn json_slash(byte: u8, out: &mut Vec<u8>) {
    if byte == b'/' {
        out.extend_from_slice(b"\\/");
    } else {
        json(byte, b"", out);
    }
}

/// JSON that writes all but letters and digits as `\u00XX`.
fn json_symbols(byte: u8, out: &mut Vec<u8>) {
    if byte.is_ascii_alphanumeric() {
        out.push(byte);
    } else {
        json_every(byte, out);
    }
}

fn json_every(byte: u8, out: &mut Vec<u8>) {
    out.extend_from_slice(format!("\\u{byte:04x}").as_bytes());
}

/// HTML by names, with the apostrophe as given.
fn html(byte: u8, apostrophe: &[u8], out: &mut Vec<u8>) {
    match byte {
        b'&' => out.extend_from_slice(b"&amp;"),
        b'<' => out.extend_from_slice(b"&lt;"),
        b'>' => out.extend_from_slice(b"&gt;"),
        b'"' => out.extend_from_slice(b"&quot;"),
        b'\'' => out.extend_from_slice(apostrophe),
        _ => out.push(byte),
    }
}

/// HTML that writes all but letters and digits by number.
fn html_decimal(byte: u8, out: &mut Vec<u8>) {
    if byte.is_ascii_alphanumeric() {
        out.push(byte);
    } else {
        out.extend_from_slice(format!("&#{byte};").as_bytes());
    }
}

/// The same in hexadecimal.
fn html_hex(byte: u8, out: &mut Vec<u8>) {
    if byte.is_ascii_alphanumeric() {
        out.push(byte);
    } else {
        out.extend_from_slice(format!("&#x{byte:x};").as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &[u8] = b"sk/live+\"1&2'3=4<5>6 7\\8";

    fn texts(secret: &[u8], went_out: &[&[u8]]) -> Vec<String> {
        all(secret, went_out).iter().map(|form| String::from_utf8_lossy(form).into_owned()).collect()
    }

    #[test]
    fn the_usual_spellings_are_there() {
        let forms = texts(SECRET, &[]);
        for expected in [
            r#"sk/live+"1&2'3=4<5>6 7\8"#,
            "sk%2flive%2b%221%262%273%3d4%3c5%3e6%207%5c8",
            "sk%2flive%2b%221%262'3%3d4%3c5%3e6%207%5c8",
            "sk/live+%221&2'3=4%3c5%3e6%207%5c8",
            "sk%2flive%2b%221%262%273%3d4%3c5%3e6+7%5c8",
            "sk%252flive%252b%25221%25262%25273%253d4%253c5%253e6%25207%255c8",
            "%73%6b%2f%6c%69%76%65%2b%22%31%26%32%27%33%3d%34%3c%35%3e%36%20%37%5c%38",
            r#"sk/live+\"1&2'3=4<5>6 7\\8"#,
            r#"sk\/live+\"1&2'3=4<5>6 7\\8"#,
            r#"sk/live+\"1\u00262'3=4\u003c5\u003e6 7\\8"#,
            r#"sk/live+\"1\u00262\u00273\u003d4\u003c5\u003e6 7\\8"#,
            r#"sk/live+\\\"1&2'3=4<5>6 7\\\\8"#,
            "sk/live+&quot;1&amp;2&#39;3=4&lt;5&gt;6 7\\8",
            "sk/live+&quot;1&amp;2&#x27;3=4&lt;5&gt;6 7\\8",
            "736b2f6c6976652b22312632273",
            "s\0k\0/\0l\0i\0v\0e",
            r#"8\7 6>5<4=3'2&1"+evil/ks"#,
        ] {
            assert!(forms.iter().any(|form| form.starts_with(expected)), "{expected} in {forms:#?}");
        }
    }

    #[test]
    fn json_by_serde_is_found() {
        let text = std::str::from_utf8(SECRET).unwrap();
        let spelled = serde_json::to_string(text).unwrap().to_ascii_lowercase();
        assert!(texts(SECRET, &[]).contains(&spelled.trim_matches('"').to_owned()));
    }

    #[test]
    fn base64_is_found_wherever_the_secret_stands() {
        for before in 0..9 {
            for after in 0..9 {
                for alphabet in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
                    let text = [&vec![b'x'; before], SECRET, &vec![b'y'; after]].concat();
                    let encoded = alphabet.encode(text).to_ascii_lowercase();
                    let found = all(SECRET, &[]).iter().any(|form| holds(encoded.as_bytes(), form));
                    assert!(found, "{before} before, {after} after: {encoded}");
                }
            }
        }
    }

    #[test]
    fn the_edges_of_base64_are_left_out() {
        let secret = &[0xff; 16];
        assert_eq!(base64_inside(secret, 0, &STANDARD_NO_PAD).len(), 21);
        assert_eq!(base64_inside(secret, 1, &STANDARD_NO_PAD).as_slice(), &[b'/'; 20][..]);
        assert_eq!(base64_inside(secret, 2, &STANDARD_NO_PAD).as_slice(), &[b'/'; 21][..]);
    }

    #[test]
    fn a_basic_blob_is_searched_for_whole_and_opened() {
        let secret = b"0123456789abcdefXYZ";
        let blob = STANDARD.encode([&b"user-name:"[..], secret].concat());
        let forms = texts(secret, &[format!("Basic {blob}").as_bytes()]);
        assert!(forms.contains(&blob.to_ascii_lowercase()));
        assert!(forms.contains(&"user-name:0123456789abcdefxyz".to_owned()));
        assert!(!forms.iter().any(|form| form.starts_with("basic ")));
    }

    #[test]
    fn every_form_is_there_once_and_none_is_short() {
        let secret = b"0123456789abcdef";
        let forms = all(secret, &[b"Bearer 0123456789abcdef", b"token 0123456789abcdef"]);
        let mut unique = forms.iter().map(|form| form.to_vec()).collect::<Vec<_>>();
        unique.dedup();
        assert_eq!(unique.len(), forms.len());
        assert!(forms.iter().all(|form| form.len() >= FORM_BYTES_MIN));
        assert!(texts(b"short", &[]).iter().all(|form| form.len() >= FORM_BYTES_MIN));
        assert!(all(b"", &[b""]).is_empty());
    }
}
