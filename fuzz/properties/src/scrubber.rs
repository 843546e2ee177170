//! The scrubber: what goes out depends on the text and not on how it came.

use valetkey::proxy::scrub::Masker;

use crate::cuts::{self, Input};
use crate::echo::Echo;

/// For every cut of a text the output is the same, as long as the text, without any spelling of the secret, and otherwise
/// unchanged.
///
/// # Panics
/// Where that does not hold.
pub fn scrubber(data: &[u8]) {
    let mut input = Input(data);
    let echo = Echo::of(input.byte());
    let steps = input.take(3);
    let text = echo.text(input.0);
    let expected = echo.masked(&text);
    echo.judge(&text, &expected);
    for pieces in cuts::all(&text, steps) {
        let mut masker = Masker::new(echo.needles.clone());
        let mut out = Vec::new();
        for piece in pieces {
            out.extend_from_slice(&masker.push(piece));
        }
        out.extend_from_slice(&masker.finish());
        assert!(masker.held_bytes() == 0 && out == expected, "another cut, another text");
    }
}
