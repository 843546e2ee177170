//! The raw query: found, taken out and put back byte for byte.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// Where a parameter stood, counted in `&`-separated pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place(pub usize);

/// The pieces of a query as `(name, value)`, not decoded.
pub fn parameters(query: Option<&str>) -> impl Iterator<Item = (&str, &str)> {
    query.into_iter().flat_map(|query| query.split('&')).map(|piece| piece.split_once('=').unwrap_or((piece, "")))
}

/// Decodes a name or value as forms do: `+` is a space.
pub fn decode(text: &str) -> Cow<'_, str> {
    if !text.contains(['%', '+']) {
        return Cow::Borrowed(text);
    }
    let spaced = text.replace('+', " ");
    Cow::Owned(percent_decode_str(&spaced).decode_utf8_lossy().into_owned())
}

/// Takes one piece out: the rest of the query (`None` when nothing is left).
pub fn without(query: &str, place: Place) -> Option<String> {
    let rest: Vec<&str> =
        query.split('&').enumerate().filter(|(at, _)| *at != place.0).map(|(_, piece)| piece).collect();
    if rest.is_empty() { None } else { Some(rest.join("&")) }
}

/// Puts a piece back where it stood.
pub fn with(query: Option<&str>, place: Place, piece: &str) -> String {
    let mut pieces: Vec<&str> = query.map(|query| query.split('&').collect()).unwrap_or_default();
    pieces.insert(place.0.min(pieces.len()), piece);
    pieces.join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_goes_out_and_comes_back_in_its_place() {
        let query = "a=1&key=an_x&b=%20&&c";
        let rest = without(query, Place(1)).unwrap();
        assert_eq!(rest, "a=1&b=%20&&c");
        assert_eq!(with(Some(&rest), Place(1), "key=secret"), "a=1&key=secret&b=%20&&c");
        assert_eq!(without("key=an_x", Place(0)), None);
        assert_eq!(with(None, Place(0), "key=s"), "key=s");
    }
}
