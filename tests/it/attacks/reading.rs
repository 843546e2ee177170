//! HTTP/1 as RFC 9112 says that it is read, and nothing else: what we compare with, on both sides of a sidecar.
//!
//! To what an agent says [`Manner::Tolerant`] applies, with the few liberties that the RFC gives a recipient and that do
//! not change what is read; what an upstream is told has to be right in the letter.

/// How a message is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// A bare LF ends a line, empty lines may come first (2.2), chunks have extensions (7.1.1), and equal lengths are one
    /// (6.3).
    Tolerant,
    /// None of that.
    Strict,
}

/// A request that was there as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub method: String,
    pub target: String,
    pub body: Vec<u8>,
}

/// What stands at the beginning of some bytes.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// A request, how many bytes it took, and whether another may follow.
    Whole(Message, usize, bool),
    Unfinished,
    /// Not HTTP, or not in one way.
    Wrong(&'static str),
}

/// All requests in these bytes, up to whatever is wrong or unfinished.
pub fn all(mut bytes: &[u8]) -> Vec<Message> {
    let mut found = Vec::new();
    while let Next::Whole(message, used, goes_on) = next(bytes, Manner::Tolerant) {
        found.push(message);
        if !goes_on {
            break;
        }
        bytes = &bytes[used..];
    }
    found
}

/// The request at the beginning of these bytes.
pub fn next(bytes: &[u8], manner: Manner) -> Next {
    read(bytes, manner).unwrap_or_else(|stop| stop)
}

fn read(bytes: &[u8], manner: Manner) -> Result<Next, Next> {
    let mut at = 0;
    let mut first = line(bytes, &mut at, manner)?;
    while first.is_empty() && manner == Manner::Tolerant {
        first = line(bytes, &mut at, manner)?;
    }
    let words: Vec<&str> = text(first)?.split(' ').collect();
    let [method, target, version] = words[..] else { return Err(Next::Wrong("a request line")) };
    let is_1_1 = match version {
        "HTTP/1.1" => true,
        "HTTP/1.0" => false,
        _ => return Err(Next::Wrong("a version")),
    };
    if !is_token(method) || target.is_empty() {
        return Err(Next::Wrong("a request line"));
    }
    let fields = fields(bytes, &mut at, manner)?;
    let values = |wanted: &str| -> Vec<&str> {
        fields.iter().filter(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value.as_str()).collect()
    };
    let (codings, lengths) = (values("transfer-encoding"), values("content-length"));
    let closes = values("connection").iter().any(|value| value.eq_ignore_ascii_case("close"));
    let goes_on = is_1_1 && !closes;
    let body = match (&codings[..], &lengths[..]) {
        ([], []) => Vec::new(),
        ([], [first, rest @ ..]) => {
            if rest.iter().any(|other| other != first) || (!rest.is_empty() && manner == Manner::Strict) {
                return Err(Next::Wrong("several lengths"));
            }
            let whole = bytes.get(at..at + length(first)?).ok_or(Next::Unfinished)?;
            at += whole.len();
            whole.to_vec()
        }
        ([coding], []) if is_1_1 && coding.eq_ignore_ascii_case("chunked") => chunks(bytes, &mut at, manner)?,
        // A recipient may take the one and drop the other (6.3); we refuse it.
        ([_, ..], [_, ..]) => return Err(Next::Wrong("two framings")),
        _ => return Err(Next::Wrong("a transfer coding")),
    };
    Ok(Next::Whole(Message { method: method.to_owned(), target: target.to_owned(), body }, at, goes_on))
}

/// A line without its end.
fn line<'a>(bytes: &'a [u8], at: &mut usize, manner: Manner) -> Result<&'a [u8], Next> {
    let rest = &bytes[*at..];
    let end = memchr::memchr(b'\n', rest).ok_or(Next::Unfinished)?;
    *at += end + 1;
    let whole = match rest[..end].strip_suffix(b"\r") {
        Some(whole) => whole,
        None if manner == Manner::Tolerant => &rest[..end],
        None => return Err(Next::Wrong("a bare LF")),
    };
    if whole.iter().any(|byte| (*byte < b' ' && *byte != b'\t') || *byte == 0x7f) {
        return Err(Next::Wrong("a control character"));
    }
    Ok(whole)
}

fn text(line: &[u8]) -> Result<&str, Next> {
    std::str::from_utf8(line).map_err(|_| Next::Wrong("no text"))
}

fn is_token(text: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(is_letter)
}

fn fields(bytes: &[u8], at: &mut usize, manner: Manner) -> Result<Vec<(String, String)>, Next> {
    let mut fields = Vec::new();
    loop {
        let field = line(bytes, at, manner)?;
        if field.is_empty() {
            return Ok(fields);
        }
        let field = String::from_utf8_lossy(field);
        let (name, value) = field.split_once(':').ok_or(Next::Wrong("no colon"))?;
        if !is_token(name) {
            return Err(Next::Wrong("a field's name"));
        }
        fields.push((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()));
    }
}

fn length(text: &str) -> Result<usize, Next> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    let number = if is_plain { text.parse().ok().filter(|length| *length < 1 << 62) } else { None };
    number.ok_or(Next::Wrong("a length"))
}

fn chunks(bytes: &[u8], at: &mut usize, manner: Manner) -> Result<Vec<u8>, Next> {
    let mut body = Vec::new();
    loop {
        // Here a bare LF is nowhere the end of a line.
        let head = text(line(bytes, at, Manner::Strict)?)?;
        let (size, extension) = head.split_once(';').map_or((head, false), |(size, _)| (size, true));
        let size = if manner == Manner::Tolerant { size.trim_end_matches([' ', '\t']) } else { size };
        if size.is_empty() || !size.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(Next::Wrong("a chunk's size"));
        }
        if extension && manner == Manner::Strict {
            return Err(Next::Wrong("a chunk's extension"));
        }
        let size = usize::from_str_radix(size, 16).ok().filter(|size| *size < 1 << 62);
        let size = size.ok_or(Next::Wrong("a chunk's size"))?;
        if size == 0 {
            fields(bytes, at, manner)?;
            return Ok(body);
        }
        body.extend_from_slice(bytes.get(*at..*at + size).ok_or(Next::Unfinished)?);
        *at += size;
        match bytes.get(*at..*at + 2) {
            Some(b"\r\n") => *at += 2,
            Some(_) => return Err(Next::Wrong("a chunk's end")),
            None => return Err(Next::Unfinished),
        }
    }
}

#[test]
fn each_doubt_is_one() {
    let head = |fields: &str| format!("POST /x HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    for (fields, body) in [("Content-Length: 2\r\n", "ab"), ("Transfer-Encoding: chunked\r\n", "2\r\nab\r\n0\r\n\r\n")]
    {
        let bytes = head(fields) + body;
        for manner in [Manner::Tolerant, Manner::Strict] {
            let Next::Whole(message, used, true) = next(bytes.as_bytes(), manner) else { panic!("{fields}") };
            assert_eq!((&message.body[..], used), (&b"ab"[..], bytes.len()), "{fields}");
            assert_eq!(next(&bytes.as_bytes()[..used - 1], manner), Next::Unfinished, "{fields}");
        }
    }
    let both = head("Transfer-Encoding: chunked\r\nContent-Length: 9\r\n") + "0\r\n\r\nGET /y HTTP/1.1\r\n\r\n";
    assert_eq!(next(both.as_bytes(), Manner::Tolerant), Next::Wrong("two framings"));
    let loose = ["\r\n", "GET /x HTTP/1.1\n\n", "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0;a=b\r\n\r\n"];
    for bytes in [loose.concat().as_bytes(), loose[1].as_bytes(), loose[2].as_bytes()] {
        assert!(matches!(next(bytes, Manner::Tolerant), Next::Whole(..)), "{bytes:?}");
        assert!(matches!(next(bytes, Manner::Strict), Next::Wrong(_)), "{bytes:?}");
    }
    for fields in ["Content-Length: 01\r\n", "Content-Length : 1\r\n", " X: 1\r\n", "X\r\n", "X: \r1\r\n", "X: \0\r\n"]
    {
        assert!(matches!(next(head(fields).as_bytes(), Manner::Tolerant), Next::Wrong(_)), "{fields:?}");
    }
    for body in ["0x1\r\na\r\n0\r\n\r\n", "1\na\r\n0\r\n\r\n", "1;\na\r\n0\r\n\r\n", "1\r\nab\r\n0\r\n\r\n"] {
        let bytes = head("Transfer-Encoding: chunked\r\n") + body;
        assert!(matches!(next(bytes.as_bytes(), Manner::Tolerant), Next::Wrong(_)), "{body:?}");
    }
}
