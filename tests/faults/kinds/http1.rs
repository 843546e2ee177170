//! Answers over HTTP/1.1 that are late, cut, wrong or too much.

use std::time::Duration;

use bytes::Bytes;

use super::{Kind, Row};
use crate::scene::Expect;
use crate::upstream::{At, Fault, Step};

const BROKE: Expect = Expect::Refused(&["upstream_unreachable"]);
const LATE: Expect = Expect::Refused(&["upstream_timeout"]);
const OK: &str = "HTTP/1.1 200 OK\r\n";

/// Bytes after a whole request, and what comes after them.
fn says(text: impl Into<Vec<u8>>, end: Step) -> Fault {
    let text = text.into();
    Fault::h1(At::Whole, move || vec![Step::Say(text.clone()), end.clone()])
}

/// The beginning of a 200, and the end of the connection.
fn ok(rest: &str, end: Step) -> Fault {
    says(format!("{OK}{rest}"), end)
}

pub fn all() -> Vec<Kind> {
    let rows = [silent(), heads(), framings(), bodies(), interim(), requests()];
    rows.into_iter().flatten().map(Row::kind).collect()
}

fn silent() -> Vec<Row> {
    let only = |step: Step| Fault::h1(At::Whole, move || vec![step.clone()]);
    vec![
        Row::new("h1_closed_before_head", only(Step::Close), BROKE),
        Row::new("h1_dropped_before_head", only(Step::Drop), BROKE),
        Row::new("h1_reset_before_head", only(Step::Reset), BROKE),
        Row::new("h1_never_answers", only(Step::Hold), LATE),
    ]
}

fn heads() -> Vec<Row> {
    let whole = format!("{OK}Content-Length: 2\r\n\r\nok");
    let drip = Fault::h1(At::Whole, move || vec![Step::Drip(whole.clone().into_bytes())]);
    let many: String = (0..500).map(|number| format!("X-{number}: y\r\n")).collect();
    let garbage: Vec<u8> = (0..=255).cycle().take(3000).collect();
    vec![
        Row::new("h1_half_head_closed", ok("Content-Len", Step::Close), BROKE),
        Row::new("h1_half_head_reset", ok("Content-Length: 2\r\n", Step::Reset), BROKE),
        Row::new("h1_half_head_silent", ok("Content-Len", Step::Hold), LATE),
        Row::new("h1_head_byte_by_byte", drip, Expect::Whole("ok")),
        Row::new("h1_garbage", says(garbage, Step::Close), BROKE),
        Row::new("h1_status_of_two_digits", says("HTTP/1.1 99 No\r\nContent-Length: 0\r\n\r\n", Step::Close), BROKE),
        Row::new(
            "h1_unasked_switch",
            says("HTTP/1.1 101 No\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", Step::Close),
            BROKE,
        ),
        Row::new("h1_head_too_large", ok(&format!("X: {}\r\n\r\n", "y".repeat(2_000_000)), Step::Close), BROKE),
        Row::new("h1_too_many_fields", ok(&format!("{many}Content-Length: 2\r\n\r\nok"), Step::Close), BROKE),
        Row::new(
            "h1_endless_head",
            Fault::h1(At::Whole, || {
                vec![Step::Say(OK.into()), Step::Flood(b"X: yyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n".repeat(100))]
            }),
            BROKE,
        ),
    ]
}

fn framings() -> Vec<Row> {
    let row = |name, rest: &str| Row::new(name, ok(rest, Step::Close), BROKE);
    let both = "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    let odd = "Transfer-Encoding: x-odd\r\n\r\nok";
    vec![
        row("h1_two_lengths", "Content-Length: 2\r\nContent-Length: 3\r\n\r\nokk"),
        row("h1_length_and_chunks", both),
        row("h1_length_is_no_number", "Content-Length: two\r\n\r\nok"),
        row("h1_length_is_negative", "Content-Length: -2\r\n\r\nok"),
        row("h1_length_overflows", "Content-Length: 99999999999999999999\r\n\r\nok"),
        Row { expect: Expect::Refused(&["answer_unscrubbable"]), ..row("h1_unknown_coding", odd) },
        row("h1_space_before_colon", "Content-Length : 2\r\n\r\nok"),
    ]
}

fn bodies() -> Vec<Row> {
    let cut = |name, rest: &str, end| Row::new(name, ok(rest, end), Expect::Cut);
    let chunked = |rest: &str| format!("Transfer-Encoding: chunked\r\n\r\n{rest}");
    let slow = Fault::h1(At::Whole, || {
        let piece = |text: &str| [Step::Wait(Duration::from_millis(50)), Step::Say(text.into())];
        ["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "1\r\no\r\n", "1\r\nk\r\n", "0\r\n\r\n"]
            .into_iter()
            .flat_map(piece)
            .collect()
    });
    let two = "Content-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    vec![
        cut("h1_length_cut_closed", "Content-Length: 20\r\n\r\nhalf", Step::Close),
        cut("h1_length_cut_dropped", "Content-Length: 20\r\n\r\nhalf", Step::Drop),
        cut("h1_length_cut_reset", "Content-Length: 20\r\n\r\nhalf", Step::Reset),
        cut("h1_length_stalls", "Content-Length: 20\r\n\r\nhalf", Step::Hold),
        cut("h1_chunks_cut_closed", &chunked("4\r\nhalf\r\n"), Step::Close),
        cut("h1_chunks_cut_in_a_chunk", &chunked("9\r\nhalf"), Step::Close),
        cut("h1_chunks_cut_dropped", &chunked("4\r\nhalf\r\n"), Step::Drop),
        cut("h1_chunks_cut_reset", &chunked("4\r\nhalf\r\n"), Step::Reset),
        cut("h1_chunks_stall", &chunked("4\r\nhalf\r\n"), Step::Hold),
        cut("h1_chunk_of_no_size", &chunked("4\r\nhalf\r\nxyz\r\n"), Step::Close),
        cut("h1_chunk_too_large", &chunked("4\r\nhalf\r\nfffffffffffffffff\r\n"), Step::Close),
        cut("h1_chunk_runs_on", &chunked("4\r\nhalfway\r\n0\r\n\r\n"), Step::Close),
        cut("h1_trailers_cut", &chunked("4\r\nhalf\r\n0\r\nX-A: b"), Step::Close),
        cut("h1_trailers_are_garbage", &chunked("4\r\nhalf\r\n0\r\n\x01\x02\r\n\r\n"), Step::Close),
        cut("h1_until_close_dropped", "\r\nhalf", Step::Drop),
        cut("h1_until_close_reset", "\r\nhalf", Step::Reset),
        Row::new("h1_until_close_closed", ok("\r\nok", Step::Close), Expect::Whole("ok")),
        Row::new("h1_slow", slow, Expect::Whole("ok")),
        Row::new("h1_two_answers", ok(two, Step::Close), Expect::Whole("ok")),
    ]
}

fn interim() -> Vec<Row> {
    let hint = "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n";
    // It says that it closes: a request that meets the end of a connection that had rested may have been read.
    let end = "Connection: close\r\nContent-Length: 2\r\n\r\nok";
    let some = says(format!("{}{OK}{end}", hint.repeat(3)), Step::Close);
    let flood = Fault::h1(At::Whole, move || vec![Step::Flood(hint.repeat(500).into_bytes()), Step::Hold]);
    let silent = says(hint, Step::Hold);
    vec![
        Row::new("h1_some_interim", some, Expect::Whole("ok")),
        Row::new("h1_interim_flood", flood, Expect::Refused(&["upstream_unreachable", "upstream_timeout"])),
        Row::new("h1_interim_then_silent", silent, LATE),
    ]
}

/// Upstream and the body of a request.
fn requests() -> Vec<Row> {
    let large = Bytes::from(vec![b'x'; 4_000_000]);
    let early = |end: Step| {
        let answer = b"HTTP/1.1 413 No\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
        Fault::h1(At::Head, move || vec![Step::Say(answer.to_vec()), end.clone()])
    };
    let deaf = Fault::h1(At::Head, || vec![Step::Hold]);
    let with_large = |row: Row| Row { body: large.clone(), ..row };
    vec![
        with_large(Row::new("h1_early_answer_closed", early(Step::Close), Expect::WholeOrNot("ok"))),
        with_large(Row::new("h1_early_answer_reset", early(Step::Reset), Expect::WholeOrNot("ok"))),
        with_large(Row::new("h1_stops_reading", deaf, Expect::Cut)),
        with_large(Row::new("h1_resets_in_a_body", Fault::h1(At::Head, || vec![Step::Reset]), Expect::Cut)),
    ]
}
