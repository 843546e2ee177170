//! Inputs as numbers and texts, and texts in pieces.

use bytes::Bytes;

/// What an input is taken from, byte for byte; nothing left means zeros.
pub(crate) struct Input<'a>(pub(crate) &'a [u8]);

impl<'a> Input<'a> {
    pub(crate) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    pub(crate) fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    pub(crate) fn number(&mut self) -> usize {
        usize::from(self.byte()) << 8 | usize::from(self.byte())
    }
}

/// Texts up to this length are cut at every place.
const EVERY_CUT_BYTES_MAX: usize = 160;

/// Ways to cut a text: whole, byte by byte, at every place into two (of a longer text: at some), and as `steps` say.
pub(crate) fn all(text: &[u8], steps: &[u8]) -> Vec<Vec<Bytes>> {
    let text = Bytes::copy_from_slice(text);
    let two = |at: usize| vec![text.slice(..at), text.slice(at..)];
    let stride = text.len().div_ceil(EVERY_CUT_BYTES_MAX).max(1);
    let mut ways: Vec<Vec<Bytes>> = (1..text.len()).step_by(stride).map(two).collect();
    ways.push(vec![text.clone()]);
    ways.push(by_steps(&text, &[1]));
    ways.push(by_steps(&text, &[7, 0, 13]));
    ways.push(by_steps(&text, steps));
    ways
}

/// Pieces of these lengths, again and again; no step, or steps of nothing alone, is the whole.
pub(crate) fn by_steps(text: &Bytes, steps: &[u8]) -> Vec<Bytes> {
    if steps.iter().all(|step| *step == 0) {
        return vec![text.clone()];
    }
    let (mut rest, mut pieces) = (text.clone(), Vec::new());
    for step in steps.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        pieces.push(rest.split_to(usize::from(*step).min(rest.len())));
    }
    pieces
}
