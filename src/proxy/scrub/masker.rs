//! The search over any split into chunks.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::forms::{self, FORM_BYTES_MIN, Form};
use super::skip::{BLOCK_BYTES, Skip, WINDOW_BYTES};

const _: () =
    assert!(*WINDOW_BYTES.start() <= FORM_BYTES_MIN, "a form is at least as long as the window it is found by");

/// How much of a text is looked at at once, in the hope that nothing is in it.
const STRETCH_BYTES: usize = 2048;

/// What masked bytes become: may stand in a header, in JSON, in XML and in a URL.
const MASK: u8 = b'*';

/// What is searched for: the credential in the form that went out and in every documented encoding. Cheap to clone;
/// made once per credential version (only `inject` makes one). Wiped when the last clone is dropped.
#[derive(Clone)]
pub struct Needles(Arc<Compiled>);

struct Compiled {
    /// In lower case, sorted; shared with other searches for the same.
    forms: Vec<Arc<Form>>,
    /// The forms that begin with the same window, by that window's order.
    heads: Vec<Range<usize>>,
    /// Where a window may be.
    skip: Skip,
    /// Whether a form begins with this byte, in either case.
    begins: [bool; 256],
}

/// What a search saw.
#[derive(Default)]
struct Found {
    /// What is to be masked: ordered, neither touching nor overlapping.
    ranges: Vec<Range<usize>>,
    /// Where the longest end of the text begins that could grow into a form; the text's length if none does.
    open_from: usize,
}

impl Needles {
    /// Compiles the search for `secret` and for the forms in which it `went_out` (header values, a Basic blob, …).
    /// Forms shorter than 12 bytes are not searched for: a credential under 16 bytes is not one to scrub.
    #[must_use]
    pub fn new(secret: &[u8], went_out: &[&[u8]]) -> Self {
        Self::of(own(forms::all(secret, went_out)))
    }

    /// Compiles the search for `secret` in what agents send: as it is, percent-encoded, and as JSON may write it. A
    /// credential under 16 bytes is not searched for.
    #[must_use]
    pub fn plain(secret: &[u8]) -> Self {
        Self::of(own(forms::plain(secret)))
    }

    /// The search that [`Needles::plain`] makes, of the forms that this search for the same credential has already: the
    /// credential is not in memory once more for it.
    #[must_use]
    pub fn plainly(&self, secret: &[u8]) -> Self {
        let known = &self.0.forms;
        let shared = |form: Form| match known.binary_search_by(|known| known.as_slice().cmp(&form)) {
            Ok(at) => Arc::clone(&known[at]),
            Err(_) => Arc::new(form),
        };
        Self::of(forms::plain(secret).into_iter().map(shared).collect())
    }

    /// One search for what any of these finds.
    #[must_use]
    pub fn any_of<'a>(all: impl Iterator<Item = &'a Self>) -> Self {
        let mut forms: Vec<Arc<Form>> = all.flat_map(|needles| needles.0.forms.iter().cloned()).collect();
        forms.sort_unstable_by(|a, b| a.as_slice().cmp(b.as_slice()));
        forms.dedup();
        Self::of(forms)
    }

    fn of(forms: Vec<Arc<Form>>) -> Self {
        let window_bytes = window_bytes(&forms);
        let heads = heads(&forms, window_bytes);
        let mut begins = [false; 256];
        for form in &forms {
            begins[usize::from(form[0])] = true;
            begins[usize::from(form[0].to_ascii_uppercase())] = true;
        }
        let skip = Skip::new(window_bytes, heads.iter().map(|head| &forms[head.start][..window_bytes]));
        Self(Arc::new(Compiled { forms, heads, skip, begins }))
    }

    /// Whether a form stands in the text, and where its longest end begins that could grow into one.
    pub(in crate::proxy) fn look(&self, text: &[u8]) -> (bool, usize) {
        let found = self.0.search(text);
        (!found.ranges.is_empty(), found.open_from)
    }

    /// Whether a form stands in the text.
    pub(in crate::proxy) fn stand_in(&self, text: &[u8]) -> bool {
        text.len() >= self.0.skip.window_bytes() && !self.0.scan(text).ranges.is_empty()
    }

    /// The text with every form masked, or `None` if there is none in it.
    pub(super) fn mask(&self, text: &[u8]) -> Option<Vec<u8>> {
        if text.len() < FORM_BYTES_MIN {
            return None;
        }
        // Nothing follows, so that it does not matter what its end could grow into.
        let found = self.0.scan(text);
        if found.ranges.is_empty() {
            return None;
        }
        let mut masked = text.to_vec();
        for range in found.ranges {
            masked[range].fill(MASK);
        }
        Some(masked)
    }
}

fn own(forms: Vec<Form>) -> Vec<Arc<Form>> {
    forms.into_iter().map(Arc::new).collect()
}

/// How much of a form's beginning it is found by; what follows is compared.
fn window_bytes(forms: &[Arc<Form>]) -> usize {
    let (least, most) = WINDOW_BYTES.into_inner();
    forms.iter().map(|form| form.len()).min().unwrap_or(least).min(most)
}

/// Runs of sorted forms with one window.
fn heads(forms: &[Arc<Form>], window_bytes: usize) -> Vec<Range<usize>> {
    let mut heads: Vec<Range<usize>> = Vec::new();
    for (index, form) in forms.iter().enumerate() {
        match heads.last_mut() {
            Some(last) if forms[last.start][..window_bytes] == form[..window_bytes] => last.end = index + 1,
            _ => heads.push(index..index + 1),
        }
    }
    heads
}

impl Compiled {
    /// What stands in a text, and what its end may grow into.
    fn search(&self, text: &[u8]) -> Found {
        let mut found = self.scan(text);
        self.judge_end(text, &mut found);
        found
    }

    /// What stands in a text; of its end only what is as long as a window.
    fn scan(&self, text: &[u8]) -> Found {
        let mut found = Found { ranges: Vec::new(), open_from: text.len() };
        if self.heads.is_empty() {
            return found;
        }
        let mut from = 0;
        while from < text.len() {
            let to = text.len().min(from + STRETCH_BYTES);
            // Windows that begin in the stretch end before this.
            let stretch = &text[..text.len().min(to + self.skip.window_bytes() - 1)];
            if to - from < STRETCH_BYTES || !self.skip.is_clear(&stretch[from..]) {
                self.scan_closely(text, stretch, from, &mut found);
            }
            from = to;
        }
        found
    }

    fn scan_closely(&self, text: &[u8], stretch: &[u8], from: usize, found: &mut Found) {
        let mut at = from;
        while let Some(start) = self.skip.next(stretch, at) {
            self.judge(text, start, found);
            at = start + 1;
        }
    }

    /// Which forms stand, or may come to stand, where a window may be.
    fn judge(&self, text: &[u8], start: usize, found: &mut Found) {
        let rest = &text[start..];
        let mut lower = [0; *WINDOW_BYTES.end()];
        let lower = &mut lower[..self.skip.window_bytes()];
        lower.copy_from_slice(&rest[..lower.len()]);
        lower.make_ascii_lowercase();
        let window = |head: &Range<usize>| &self.forms[head.start][..lower.len()];
        let Ok(head) = self.heads.binary_search_by(|head| window(head).cmp(lower)) else { return };
        for form in &self.forms[self.heads[head].clone()] {
            if let Some(candidate) = rest.get(..form.len()) {
                if candidate.eq_ignore_ascii_case(form) {
                    found.add(start..start + form.len());
                }
            } else if rest.eq_ignore_ascii_case(&form[..rest.len()]) {
                found.open_from = found.open_from.min(start);
            }
        }
    }

    /// Whether the last bytes, too few for a window, could be the beginning of one.
    fn judge_end(&self, text: &[u8], found: &mut Found) {
        // A beginning that reaches to the end has the last block in it, unless it is shorter than a block.
        let longest = if self.skip.may_end_a_beginning(text) { self.skip.window_bytes() } else { BLOCK_BYTES };
        let first = text.len().saturating_sub(longest - 1);
        for start in (first..found.open_from).filter(|&start| self.begins[usize::from(text[start])]) {
            if self.is_beginning(&text[start..]) {
                found.open_from = start;
                return;
            }
        }
    }

    /// Whether a window begins with these bytes, fewer than it has.
    fn is_beginning(&self, rest: &[u8]) -> bool {
        let mut lower = [0; *WINDOW_BYTES.end()];
        let lower = &mut lower[..rest.len()];
        lower.copy_from_slice(rest);
        lower.make_ascii_lowercase();
        // The heads are sorted, and so are their beginnings.
        let beginning = |head: &Range<usize>| &self.forms[head.start][..rest.len()];
        let at = self.heads.partition_point(|head| beginning(head) < &*lower);
        self.heads.get(at).is_some_and(|head| beginning(head) == &*lower)
    }
}

impl Found {
    /// Adds a range that does not begin before those that are there.
    fn add(&mut self, range: Range<usize>) {
        match self.ranges.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => self.ranges.push(range),
        }
    }
}

/// Masks a text that comes in pieces. Holds back exactly the longest end that may be the beginning of a form, less than
/// the longest form in bytes; an event that ends in a line end is never held, since no form has one.
pub struct Masker {
    needles: Needles,
    /// What was held back, as it came: it is searched again together with what follows.
    held: Bytes,
    /// How many of its first bytes belong to a form that began before it.
    covered: usize,
}

impl Masker {
    /// A masker at the beginning of a text.
    #[must_use]
    pub fn new(needles: Needles) -> Self {
        Self { needles, held: Bytes::new(), covered: 0 }
    }

    /// Takes the next piece, gives what is safe to send: the piece itself, uncopied, if nothing was found or held.
    pub fn push(&mut self, piece: Bytes) -> Bytes {
        let text = self.after_held(piece);
        let found = self.needles.0.search(&text);
        if found.open_from == text.len() {
            self.held = Bytes::new();
            return self.release(text, &found.ranges);
        }
        let safe = text.slice(..found.open_from);
        // A copy, so that a few bytes do not keep a large piece alive.
        self.held = Bytes::copy_from_slice(&text[found.open_from..]);
        self.release(safe, &found.ranges)
    }

    /// Ends the text: what was held back grew into nothing.
    pub fn finish(&mut self) -> Bytes {
        let text = std::mem::take(&mut self.held);
        let found = self.needles.0.search(&text);
        self.release(text, &found.ranges)
    }

    /// How many bytes are held back.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.held.len()
    }

    fn after_held(&self, piece: Bytes) -> Bytes {
        if self.held.is_empty() {
            return piece;
        }
        let mut text = BytesMut::with_capacity(self.held.len() + piece.len());
        text.extend_from_slice(&self.held);
        text.extend_from_slice(&piece);
        text.freeze()
    }

    /// Masks `safe`, and remembers how far the masked ranges that begin in it reach into what is held. Ranges that begin
    /// in what is held will be found again.
    fn release(&mut self, safe: Bytes, ranges: &[Range<usize>]) -> Bytes {
        let end = safe.len();
        let before = std::mem::take(&mut self.covered);
        let covered = ranges.iter().filter(|range| range.start < end).map(|range| range.end).fold(before, usize::max);
        self.covered = covered.saturating_sub(end);
        if covered == 0 || end == 0 {
            return safe;
        }
        let mut masked = BytesMut::from(&safe[..]);
        for range in std::iter::once(&(0..before)).chain(ranges).filter(|range| range.start < end) {
            masked[range.start..range.end.min(end)].fill(MASK);
        }
        masked.freeze()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECRET: &[u8] = b"sk_live_a/b+c&d=0123456789";

    #[test]
    fn the_search_in_what_agents_send_holds_nothing_of_its_own() {
        let (full, plain) = (Needles::new(SECRET, &[]), Needles::plain(SECRET));
        let shared = full.plainly(SECRET);
        let all = Needles::any_of([&shared, &Needles::plain(b"another_secret_of_ours")].into_iter());
        assert_eq!(shared.0.forms, plain.0.forms);
        for form in &shared.0.forms {
            assert!(full.0.forms.iter().any(|own| Arc::ptr_eq(own, form)));
            assert!(all.0.forms.iter().any(|own| Arc::ptr_eq(own, form)));
        }
    }

    /// Every form at every place, the slow way.
    fn mask_slowly(needles: &Needles, text: &[u8]) -> Vec<u8> {
        let mut masked = text.to_vec();
        for start in 0..text.len() {
            for form in &needles.0.forms {
                let Some(candidate) = text.get(start..start + form.len()) else { continue };
                if candidate.eq_ignore_ascii_case(form) {
                    masked[start..start + form.len()].fill(MASK);
                }
            }
        }
        masked
    }

    fn mask_in_pieces(needles: &Needles, text: &[u8], cuts: &[usize]) -> Vec<u8> {
        let mut masker = Masker::new(needles.clone());
        let longest = needles.0.forms.iter().map(|form| form.len()).max().unwrap_or_default();
        let mut out = Vec::new();
        let mut rest = Bytes::copy_from_slice(text);
        for cut in cuts {
            out.extend_from_slice(&masker.push(rest.split_to((*cut).min(rest.len()))));
            assert!(masker.held_bytes() < longest.max(1));
        }
        out.extend_from_slice(&masker.push(rest));
        out.extend_from_slice(&masker.finish());
        assert_eq!(masker.held_bytes(), 0);
        out
    }

    fn assert_no_form(needles: &Needles, text: &[u8]) {
        let lower = text.to_ascii_lowercase();
        for form in &needles.0.forms {
            assert!(!lower.windows(form.len()).any(|window| window == form.as_slice()));
        }
    }

    #[test]
    fn every_form_is_masked_at_every_single_split() {
        let needles = Needles::new(SECRET, &[b"Basic dXNlcjpza19saXZlX2EvYitjJmQ9MDEyMzQ1Njc4OQ=="]);
        for form in &needles.0.forms {
            let text = [b"{\"echo\": \"", form.as_slice(), b"\"}"].concat();
            let expected = mask_slowly(&needles, &text);
            assert!(expected.windows(form.len()).any(|window| window.iter().all(|&byte| byte == MASK)));
            for cut in 0..=text.len() {
                assert_eq!(mask_in_pieces(&needles, &text, &[cut]), expected);
            }
            assert_eq!(mask_in_pieces(&needles, &text, &vec![1; text.len()]), expected);
        }
    }

    #[test]
    fn a_secret_that_repeats_itself_is_masked_where_it_overlaps() {
        let needles = Needles::new(b"abababababababab", &[]);
        for tail in 0..16 {
            let text = [&b"ab".repeat(20)[..], &b"abababababababab"[..tail], b"\n"].concat();
            let expected = mask_slowly(&needles, &text);
            for cut in 0..text.len() {
                assert_eq!(mask_in_pieces(&needles, &text, &[cut, 3, 1]), expected);
            }
        }
    }

    #[test]
    fn what_belongs_to_no_form_passes_uncopied() {
        let mut masker = Masker::new(Needles::new(SECRET, &[]));
        let piece = Bytes::from(b"data: {\"x\": 1}\n\n".repeat(100));
        let sent = masker.push(piece.clone());
        assert_eq!((sent.as_ptr(), sent.len()), (piece.as_ptr(), piece.len()));
        assert!(masker.finish().is_empty());
    }

    #[test]
    fn an_event_is_not_delayed() {
        let mut masker = Masker::new(Needles::new(SECRET, &[b"Bearer sk_live_a/b+c&d=0123456789"]));
        for event in ["data: sk_live_\n\n", "data: sk_live_a/b+c&d=0123456789\n\n", "\n\n", ": ping\r\n\r\n"] {
            assert_eq!(masker.push(Bytes::from(event)).len(), event.len());
            assert_eq!(masker.held_bytes(), 0);
        }
    }

    #[test]
    fn only_the_end_that_may_grow_is_held() {
        let mut masker = Masker::new(Needles::new(SECRET, &[]));
        assert_eq!(masker.push(Bytes::from_static(b"xx SK_l")), "xx ");
        assert_eq!(masker.push(Bytes::from_static(b"ive_a/b+c&d=012345678")), "");
        assert_eq!(masker.held_bytes(), 25);
        assert_eq!(masker.push(Bytes::from_static(b"8!")), "SK_live_a/b+c&d=0123456788!");
        // Of a form that is whole, only the byte that another one, the reverse, begins with.
        let mut masker = Masker::new(Needles::new(b"0123456789abcdef", &[]));
        assert_eq!(masker.push(Bytes::from_static(b"x 0123456789abcdef")), "x ***************");
        assert_eq!((masker.held_bytes(), masker.finish()), (1, Bytes::from_static(b"*")));
    }

    #[test]
    fn a_form_inside_the_beginning_of_a_longer_one_is_masked_alone() {
        let needles = Needles::new(b"0123456789abcdef", &[b"before-0123456789abcdef-after"]);
        for (text, expected) in [
            ("x before-0123456789abcdef-aft!", "x before-****************-aft!"),
            ("x before-0123456789abcdef-after!", "x *****************************!"),
        ] {
            for cut in 0..text.len() {
                assert_eq!(mask_in_pieces(&needles, text.as_bytes(), &[cut, 1]), expected.as_bytes(), "cut at {cut}");
            }
        }
    }

    #[test]
    fn without_forms_everything_passes() {
        let needles = Needles::new(b"", &[]);
        assert!(needles.mask(b"anything at all, at any length").is_none());
        assert_eq!(mask_in_pieces(&needles, b"anything", &[2, 3]), b"anything");
    }

    #[test]
    fn long_texts_are_masked_wherever_a_form_stands() {
        let needles = Needles::new(SECRET, &[]);
        let form = needles.0.forms[0].to_vec();
        let clear = b"ordinary text of an answer, ".repeat(240);
        for near in [0, STRETCH_BYTES, 2 * STRETCH_BYTES, 3 * STRETCH_BYTES] {
            for at in near.saturating_sub(form.len() + 12)..near + 12 {
                let mut text = clear.clone();
                text[at..at + form.len()].copy_from_slice(&form);
                let masked = needles.mask(&text).expect("it is there");
                let stars = text.len() - form.len();
                assert_eq!(
                    masked.iter().zip(&clear).filter(|(new, old)| new == old && **new != MASK).count(),
                    stars,
                    "{at}"
                );
                assert!(masked[at..at + form.len()].iter().all(|byte| *byte == MASK), "{at}");
            }
        }
        assert!(needles.mask(&clear).is_none());
    }

    #[test]
    fn random_bytes_are_left_alone() {
        let needles = Needles::new(SECRET, &[]);
        let mut text = vec![0; 1 << 20];
        getrandom::fill(&mut text).unwrap();
        assert!(needles.mask(&text).is_none());
        let hex = hex::encode(&text);
        assert!(needles.mask(hex.as_bytes()).is_none());
    }

    /// A text of noise, whole forms (in any case), and beginnings and ends of forms.
    fn planted(needles: &Needles) -> impl Strategy<Value = Vec<u8>> + use<> {
        let forms = needles.0.forms.iter().map(|form| form.to_vec()).collect::<Vec<_>>();
        let form = proptest::sample::select(forms);
        let part = (form.clone(), any::<proptest::sample::Index>(), any::<proptest::sample::Index>()).prop_map(
            |(form, a, b)| {
                let (a, b) = (a.index(form.len()), b.index(form.len()));
                form[a.min(b)..=a.max(b)].to_vec()
            },
        );
        let shouted = form.clone().prop_map(|form| form.to_ascii_uppercase());
        let noise = proptest::collection::vec(any::<u8>(), 0..20);
        let piece = prop_oneof![2 => noise, 3 => form, 1 => shouted, 3 => part];
        proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    fn searches() -> [Needles; 2] {
        [
            Needles::new(SECRET, &[b"Basic dXNlcjpza19saXZlX2EvYitjJmQ9MDEyMzQ1Njc4OQ=="]),
            Needles::new(b"aabaabaabaabaabaab", &[b"aabaabaabaab"]),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn any_split_masks_what_the_whole_text_masks(
            text in prop_oneof![planted(&searches()[0]), planted(&searches()[1])],
            cuts in proptest::collection::vec(0usize..40, 0..60),
            which in 0usize..2,
        ) {
            let needles = &searches()[which];
            let masked = mask_in_pieces(needles, &text, &cuts);
            prop_assert_eq!(masked.len(), text.len());
            prop_assert_eq!(&masked, &mask_slowly(needles, &text));
            prop_assert_eq!(needles.mask(&text).unwrap_or_else(|| text.clone()), masked.clone());
            assert_no_form(needles, &masked);
        }
    }
}
