//! Answers over HTTP/2 that are late, cut, wrong or too much.

use bytes::Bytes;

use super::{Kind, Row};
use crate::scene::Expect;
use crate::upstream::http2::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, PUSH_PROMISE, SETTINGS, STATUS_200, data, frame,
    goaway, head, head_with_length, reset,
};
use crate::upstream::{At, Fault, Step};

const BROKE: Expect = Expect::Refused(&["upstream_unreachable"]);
const LATE: Expect = Expect::Refused(&["upstream_timeout"]);

/// The codes of RFC 9113, 7.
const CODES: [&str; 14] = [
    "no_error",
    "protocol_error",
    "internal_error",
    "flow_control_error",
    "settings_timeout",
    "stream_closed",
    "frame_size_error",
    "refused_stream",
    "cancel",
    "compression_error",
    "connect_error",
    "enhance_your_calm",
    "inadequate_security",
    "http_1_1_required",
];

/// Frames after a whole request, and what comes after them.
fn says(frames: impl Fn(u32) -> Vec<Vec<u8>> + Send + Sync + 'static, end: Option<Step>) -> Fault {
    Fault::h2(At::Whole, move |stream| frames(stream).into_iter().map(Step::Say).chain(end.clone()).collect())
}

/// As [`says`], for frames that do not depend on the stream.
fn row(name: &str, expect: Expect, end: Step, frames: impl Fn(u32) -> Vec<Vec<u8>> + Send + Sync + 'static) -> Row {
    Row::new(name, says(frames, Some(end)), expect)
}

pub fn all() -> Vec<Kind> {
    let rows = [resets(), goodbyes(), heads(), bodies(), floods(), windows()];
    rows.into_iter().flatten().map(Row::kind).collect()
}

/// RST_STREAM of each code, before the head and in the body.
fn resets() -> Vec<Row> {
    let mut rows = Vec::new();
    for (code, name) in (0..).zip(CODES) {
        let before = says(move |stream| vec![reset(stream, code)], None);
        let within = says(move |stream| vec![head(stream), data(stream, 0, b"half"), reset(stream, code)], None);
        rows.push(Row { may_repeat: name == "refused_stream", ..Row::new(&format!("h2_reset_{name}"), before, BROKE) });
        // The library takes the first of them for an end (RFC 9113, 8.1); the others are all the same to it.
        let is_alike = !matches!(name, "no_error" | "internal_error");
        rows.push(Row { is_alike, ..Row::new(&format!("h2_reset_in_body_{name}"), within, Expect::Cut) });
    }
    rows
}

fn goodbyes() -> Vec<Row> {
    let left_out = row("h2_goaway_without_the_stream", BROKE, Step::Close, |_| vec![goaway(0, 0)]);
    vec![
        Row { may_repeat: true, ..left_out },
        row("h2_goaway_with_the_stream", BROKE, Step::Close, |stream| vec![goaway(stream, 0)]),
        row("h2_goaway_of_an_error", BROKE, Step::Close, |stream| vec![goaway(stream, 2)]),
        row("h2_goaway_and_the_answer", Expect::Whole("ok"), Step::Close, |stream| {
            vec![goaway(stream, 0), head(stream), data(stream, END_STREAM, b"ok")]
        }),
        row("h2_goaway_in_the_body", Expect::Cut, Step::Close, |stream| {
            vec![head(stream), data(stream, 0, b"half"), goaway(stream, 0)]
        }),
        row("h2_goaway_leaves_out_an_answer", Expect::Cut, Step::Close, |stream| {
            vec![head(stream), data(stream, 0, b"half"), goaway(0, 0)]
        }),
        row("h2_closed_before_head", BROKE, Step::Close, |_| Vec::new()),
        row("h2_reset_before_head", BROKE, Step::Reset, |_| Vec::new()),
        row("h2_never_answers", LATE, Step::Hold, |_| Vec::new()),
    ]
}

fn heads() -> Vec<Row> {
    let block = |stream, payload: Vec<u8>| vec![frame(HEADERS, END_HEADERS | END_STREAM, stream, &payload)];
    vec![
        row("h2_half_head", BROKE, Step::Close, |stream| vec![frame(HEADERS, 0, stream, STATUS_200)]),
        row("h2_half_head_silent", LATE, Step::Hold, |stream| vec![frame(HEADERS, 0, stream, STATUS_200)]),
        row("h2_half_frame", BROKE, Step::Close, |stream| vec![head(stream)[..7].to_vec()]),
        row("h2_bad_compression", BROKE, Step::Close, move |stream| block(stream, vec![0xff; 40])),
        row("h2_no_status", BROKE, Step::Close, move |stream| block(stream, vec![0x0f, 0x0d, 1, b'0'])),
        row("h2_garbage", BROKE, Step::Close, |_| vec![(0..=255).cycle().take(3000).collect()]),
        row("h2_frame_too_large", BROKE, Step::Close, |stream| vec![frame(DATA, 0, stream, &vec![0; 100_000])]),
        row("h2_data_before_head", BROKE, Step::Close, |stream| vec![data(stream, END_STREAM, b"ok")]),
        row("h2_answer_on_no_stream", BROKE, Step::Close, |_| vec![head(0)]),
        row("h2_push", Expect::WholeOrNot("ok"), Step::Close, |stream| {
            let promise = [&2u32.to_be_bytes()[..], &[0x82, 0x87, 0x84]].concat();
            vec![frame(PUSH_PROMISE, END_HEADERS, stream, &promise), head(stream), data(stream, END_STREAM, b"ok")]
        }),
    ]
}

fn bodies() -> Vec<Row> {
    let cut = |name, end, frames: fn(u32) -> Vec<Vec<u8>>| row(name, Expect::Cut, end, frames);
    vec![
        cut("h2_body_cut_closed", Step::Close, |stream| vec![head(stream), data(stream, 0, b"half")]),
        cut("h2_body_cut_reset", Step::Reset, |stream| vec![head(stream), data(stream, 0, b"half")]),
        cut("h2_body_stalls", Step::Hold, |stream| vec![head(stream), data(stream, 0, b"half")]),
        cut("h2_body_shorter_than_said", Step::Close, |stream| {
            vec![head_with_length(stream, 9), data(stream, END_STREAM, b"half")]
        }),
        cut("h2_body_longer_than_said", Step::Close, |stream| {
            vec![head_with_length(stream, 2), data(stream, END_STREAM, b"halfway")]
        }),
        cut("h2_half_data_frame", Step::Close, |stream| {
            vec![head(stream), data(stream, END_STREAM, b"half")[..11].to_vec()]
        }),
        cut("h2_bad_padding", Step::Close, |stream| {
            vec![head(stream), frame(DATA, 8 | END_STREAM, stream, &[200, b'o', b'k'])]
        }),
        cut("h2_length_cut_without_an_error", Step::Hold, |stream| {
            vec![head_with_length(stream, 9), data(stream, 0, b"half"), reset(stream, 0)]
        }),
        cut("h2_trailers_cut", Step::Close, |stream| {
            vec![head(stream), data(stream, 0, b"half"), frame(HEADERS, END_STREAM, stream, &[])]
        }),
        cut("h2_trailers_without_end", Step::Close, |stream| {
            vec![head(stream), data(stream, 0, b"half"), frame(HEADERS, END_HEADERS, stream, &[0, 1, b'x', 1, b'y'])]
        }),
    ]
}

fn floods() -> Vec<Row> {
    let flood = |name, expect, frames: fn(u32) -> Vec<u8>| {
        let steps = move |stream| vec![Step::Flood(frames(stream).repeat(300)), Step::Hold];
        Row::new(name, Fault::h2(At::Whole, steps), expect)
    };
    let either = Expect::Refused(&["upstream_unreachable", "upstream_timeout"]);
    vec![
        flood("h2_interim_flood", either, |stream| frame(HEADERS, END_HEADERS, stream, &[8, 3, b'1', b'0', b'3'])),
        flood("h2_settings_flood", either, |_| frame(SETTINGS, 0, 0, &[])),
        flood("h2_ping_flood", either, |_| frame(PING, 0, 0, &[0; 8])),
        flood("h2_empty_data_flood", Expect::Cut, |stream| data(stream, 0, &[])),
        Row::new(
            "h2_continuation_flood",
            Fault::h2(At::Whole, |stream| {
                let more = frame(CONTINUATION, 0, stream, &[0, 1, b'x', 1, b'y'].repeat(200));
                vec![Step::Say(frame(HEADERS, 0, stream, STATUS_200)), Step::Flood(more), Step::Hold]
            }),
            either,
        ),
    ]
}

/// Upstreams that take nothing, or never begin.
fn windows() -> Vec<Row> {
    let mute = Fault { settings: None, ..Fault::h2(At::Whole, |_| vec![Step::Hold]) };
    // SETTINGS_INITIAL_WINDOW_SIZE of zero: no body can be sent.
    let closed = Fault { settings: Some(vec![0, 4, 0, 0, 0, 0]), ..Fault::h2(At::Whole, |_| vec![Step::Hold]) };
    let streams = Fault { settings: Some(vec![0, 3, 0, 0, 0, 0]), ..Fault::h2(At::Whole, |_| vec![Step::Hold]) };
    let large = Bytes::from(vec![b'x'; 1_000_000]);
    let never = Expect::Refused(&["upstream_timeout", "upstream_unreachable", "request_timeout"]);
    vec![
        Row::new("h2_no_settings", mute, never),
        Row::new("h2_closed_window", closed, Expect::Cut),
        Row::new("h2_no_streams_allowed", streams, never),
        Row { body: large, ..Row::new("h2_stops_reading", Fault::h2(At::Whole, |_| vec![Step::Hold]), Expect::Cut) },
    ]
}
