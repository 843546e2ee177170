//! `JWTBundlesResponse` and `X509BundlesResponse` of the Workload API: `map<string, bytes> bundles`, read strictly and without
//! a copy.
//!
//! Fields that are not known are passed over, as protobuf wants it; what is there twice is refused, where protobuf would
//! take the last.

/// In an entry of a map: the key, and the value.
const KEY: u64 = 1;
const VALUE: u64 = 2;

/// A field's number, and its content where that is a run of bytes.
type Field<'a> = (u64, Option<&'a [u8]>);

/// The bundle of this name, if there is one, in the field with this number; `None` where the message is not well-formed.
pub(super) fn bundle<'a>(message: &'a [u8], bundles: u64, wanted: &str) -> Option<Option<&'a [u8]>> {
    let mut rest = message;
    let mut found = None;
    while !rest.is_empty() {
        let (number, content) = field(&mut rest)?;
        if number != bundles {
            continue;
        }
        let (key, value) = entry(content?)?;
        if key == wanted && found.replace(value).is_some() {
            return None;
        }
    }
    Some(found)
}

/// What is not there is empty (proto3).
fn entry(mut rest: &[u8]) -> Option<(&str, &[u8])> {
    let (mut key, mut value) = (None, None);
    while !rest.is_empty() {
        let (number, content) = field(&mut rest)?;
        let place = match number {
            KEY => &mut key,
            VALUE => &mut value,
            _ => continue,
        };
        if place.replace(content?).is_some() {
            return None;
        }
    }
    Some((std::str::from_utf8(key.unwrap_or_default()).ok()?, value.unwrap_or_default()))
}

fn field<'a>(rest: &mut &'a [u8]) -> Option<Field<'a>> {
    let tag = varint(rest)?;
    let number = tag >> 3;
    if number == 0 || number > u64::from(u32::MAX >> 3) {
        return None;
    }
    let content = match tag & 7 {
        0 => varint(rest).map(|_| None)?,
        1 => take(rest, 8).map(|_| None)?,
        2 => {
            let length = varint(rest)?;
            Some(take(rest, usize::try_from(length).ok()?)?)
        }
        5 => take(rest, 4).map(|_| None)?,
        // Groups are of a protobuf that is gone.
        _ => return None,
    };
    Some((number, content))
}

/// Seven bits a byte, the lowest first; ten bytes at most.
fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for place in 0..10 {
        let byte = *take(rest, 1)?.first()?;
        let bits = u64::from(byte & 0x7f);
        if place == 9 && bits > 1 {
            return None;
        }
        value |= bits << (7 * place);
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(length)?;
    *rest = left;
    Some(taken)
}

#[cfg(test)]
mod tests {
    fn bundle<'a>(message: &'a [u8], wanted: &str) -> Option<Option<&'a [u8]>> {
        super::bundle(message, 1, wanted)
    }

    fn run(number: u8, content: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, u8::try_from(content.len()).unwrap()], content].concat()
    }

    fn pair(key: &str, value: &[u8]) -> Vec<u8> {
        run(1, &[run(1, key.as_bytes()), run(2, value)].concat())
    }

    #[test]
    fn the_bundle_of_one_name_is_found_among_others() {
        let unknown =
            [run(9, b"x"), vec![0x18, 0x96, 0x01], vec![0x25, 1, 2, 3, 4], vec![0x29, 1, 2, 3, 4, 5, 6, 7, 8]];
        let message = [pair("spiffe://a", b"A"), unknown.concat(), pair("spiffe://b", b"B")].concat();
        assert_eq!(bundle(&message, "spiffe://b"), Some(Some(&b"B"[..])));
        assert_eq!(bundle(&message, "spiffe://a"), Some(Some(&b"A"[..])));
        assert_eq!(bundle(&message, "spiffe://c"), Some(None));
        assert_eq!(bundle(&[], "spiffe://a"), Some(None));
        let backwards = run(1, &[run(2, b"A"), run(1, b"a")].concat());
        assert_eq!(bundle(&backwards, "a"), Some(Some(&b"A"[..])));
        assert_eq!(bundle(&run(1, &run(1, b"a")), "a"), Some(Some(&b""[..])), "a value that is not there is empty");
    }

    /// As those of certificates are, behind lists of revoked ones.
    #[test]
    fn another_field_holds_other_bundles() {
        let mut second = pair("a", b"B");
        second[0] = 2 << 3 | 2;
        let message = [run(1, b"a list"), second, run(1, b"another")].concat();
        assert_eq!(super::bundle(&message, 2, "a"), Some(Some(&b"B"[..])));
        assert_eq!(super::bundle(&pair("a", b"A"), 2, "a"), Some(None));
    }

    #[test]
    fn what_is_not_well_formed_is_refused() {
        let twice = [pair("a", b"A"), pair("a", b"B")].concat();
        let key_twice = run(1, &[run(1, b"a"), run(1, b"a"), run(2, b"A")].concat());
        let value_twice = run(1, &[run(1, b"a"), run(2, b"A"), run(2, b"A")].concat());
        for bad in [
            twice,
            key_twice,
            value_twice,
            run(1, &run(1, &[0xff])),
            vec![0x08, 0x01],
            vec![0x0a, 0x02, 0x00],
            vec![0x0b, 0x0c],
            vec![0x00, 0x00],
            vec![0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
            [&[0x18], [0xff; 10].as_slice()].concat(),
            [&[0x18], [0xff; 9].as_slice(), &[0x02]].concat(),
        ] {
            assert_eq!(bundle(&bad, "a"), None, "{bad:?}");
        }
        let good = pair("a", b"A");
        for cut in 1..good.len() {
            assert_eq!(bundle(&good[..cut], "a"), None, "cut at {cut}");
        }
    }

    proptest::proptest! {
        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..64)) {
            let _ = bundle(&bytes, "a");
        }
    }
}
