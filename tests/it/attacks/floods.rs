//! Floods of frames: each ends with its connection or is worked off, and takes neither memory nor anybody else along.

use super::frames::{
    CONTINUATION, DATA, END_HEADERS, HEADERS, PING, PRIORITY, RST_STREAM, SETTINGS, WHOLE, WINDOW_UPDATE,
};
use super::frames::{Said, block, field, frame, speak, usual};
use crate::support::sidecar::eventually;
use crate::support::{FakeUpstream, Stage};

/// What any of these may take at most, in KiB.
const GROWTH_KIB_MAX: u64 = 64 * 1024;

/// Says all this and checks what it has cost.
async fn flood(stage: &Stage, what: &str, frames: &[u8], last: u32) -> Said {
    let before = stage.sidecar.status("VmRSS");
    let said = speak(stage, frames, last).await;
    let after = stage.sidecar.status("VmHWM");
    assert!(after < before + GROWTH_KIB_MAX, "{what}: from {before} to {after} KiB");
    let nonce = stage.reader().await;
    assert_eq!(stage.sidecar.agent().get("api.test", "/after", &nonce).await.status, 200, "{what}: others are served");
    said
}

/// The streams of a client, one after the other.
fn streams(count: u32) -> impl Iterator<Item = u32> {
    (0..count).map(|number| 2 * number + 1)
}

/// An id that no stream has.
const NONE: u32 = u32::MAX;

#[tokio::test]
async fn resets_without_end_end_the_connection() {
    let stage = Stage::new().await;
    let bearer = format!("Bearer {}", stage.reader().await);
    let head = block(&usual("GET", "/stall", &bearer));
    let opened = |stream| frame(HEADERS, WHOLE, stream, &head);
    // Reset by the client, and by the server, which the client makes do it.
    let rapid = |stream| [opened(stream), frame(RST_STREAM, 0, stream, &8u32.to_be_bytes())].concat();
    let made = |stream| [opened(stream), frame(WINDOW_UPDATE, 0, stream, &[0; 4])].concat();
    let overflown = |stream| [opened(stream), frame(WINDOW_UPDATE, 0, stream, &0x7fff_ffffu32.to_be_bytes())].concat();
    let late = |stream| [opened(stream), frame(DATA, 0, stream, b"x")].concat();
    let floods: [(&str, Vec<u8>); 4] = [
        ("rapid reset", streams(20_000).flat_map(rapid).collect()),
        ("made to reset by a window of nothing", streams(5_000).flat_map(made).collect()),
        ("made to reset by a window that overflows", streams(5_000).flat_map(overflown).collect()),
        ("made to reset by data after the end", streams(5_000).flat_map(late).collect()),
    ];
    for (what, frames) in floods {
        let said = flood(&stage, what, &frames, NONE).await;
        assert!(said.ended(), "{what}: {said:?}");
    }
    let stalled = stage.upstream.seen().iter().filter(|seen| seen.target == "/stall").count();
    assert!(stalled < 10_000, "{stalled} of 35,000 arrived");
}

#[tokio::test]
async fn heads_without_end_and_heads_that_swell_are_not_kept() {
    let stage = Stage::new().await;
    let bearer = format!("Bearer {}", stage.reader().await);
    let usual = block(&usual("GET", "/x", &bearer));
    let begun = frame(HEADERS, 1, 1, &usual);
    let piece = field(0, b"x", &[b'y'; 16_000]);
    let endless = [begun.clone(), frame(CONTINUATION, 0, 1, &piece).repeat(2_000)].concat();
    let empty = [begun.clone(), frame(CONTINUATION, 0, 1, b"").repeat(100_000)].concat();
    let many = field(0, b"x", b"y").repeat(3_000);
    let many = [begun, frame(CONTINUATION, 0, 1, &many).repeat(20), frame(CONTINUATION, END_HEADERS, 1, b"")].concat();
    // 4 KB in the table, sixteen thousand times: 64 MB from 20 KB.
    let swollen = [&usual[..], &field(64, b"x", &[b'y'; 4_000]), &[0xbe; 12_000][..]].concat();
    let swollen = frame(HEADERS, WHOLE, 1, &swollen[..16_384.min(swollen.len())]);
    let sizes = [&[0x20, 0x3f, 0xe1, 0x1f].repeat(2_000)[..], &usual].concat();
    for (what, frames) in [
        ("a head without end", endless),
        ("continuations of nothing", empty),
        ("60,000 fields", many),
        ("a head that swells", swollen),
        ("a table that is sized again and again", frame(HEADERS, WHOLE, 1, &sizes)),
    ] {
        let said = flood(&stage, what, &frames, 1).await;
        assert!(said.ended() || said.over == [1], "{what}: {said:?}");
    }
    assert!(stage.upstream.seen().iter().all(|seen| seen.target == "/after" || seen.headers.len() < 20));
}

#[tokio::test]
async fn frames_without_meaning_are_worked_off_or_end_the_connection() {
    let stage = Stage::new().await;
    let bearer = format!("Bearer {}", stage.writer().await);
    let last = frame(HEADERS, WHOLE, 3, &block(&usual("POST", "/last", &bearer)));
    let open = frame(HEADERS, END_HEADERS, 1, &block(&usual("POST", "/x", &bearer)));
    for (what, one) in [
        ("settings", frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 255, 255])),
        ("empty settings", frame(SETTINGS, 0, 0, b"")),
        ("pings", frame(PING, 0, 0, b"12345678")),
        ("priorities", frame(PRIORITY, 0, 5, &[0, 0, 0, 1, 16])),
        ("windows", frame(WINDOW_UPDATE, 0, 0, &1u32.to_be_bytes())),
        ("empty data", frame(DATA, 0, 1, b"")),
        ("padded data", frame(DATA, 8, 1, &[[255].as_slice(), &[0; 255]].concat())),
        ("unknown frames", frame(0xbb, 0, 0, b"x")),
    ] {
        let frames = [&open[..], &one.repeat(20_000), &last].concat();
        let said = flood(&stage, what, &frames, 3).await;
        assert!(said.ended() || said.over.contains(&3), "{what}: {said:?}");
    }
}

#[tokio::test]
async fn a_hundred_readers_that_take_nothing_hold_nothing() {
    let upstream = FakeUpstream::start(&["api.test"]).await;
    let stage = Stage::with(upstream, |builder| builder.flag("--idle-timeout").flag("1s")).await;
    let bearer = format!("Bearer {}", stage.reader().await);
    for (what, window) in [("no window", 0u8), ("a window of one byte", 1)] {
        let before = stage.sidecar.audit().len();
        let head = block(&usual("GET", "/large?pieces=100", &bearer));
        let heads: Vec<u8> = streams(100).flat_map(|stream| frame(HEADERS, WHOLE, stream, &head)).collect();
        // All of them end with the idle limit; the last to do so is not known.
        let frames = [frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, window]), heads].concat();
        flood(&stage, what, &frames, 199).await;
        eventually("all to end", || {
            let audit = stage.sidecar.audit();
            let ends = audit[before..].iter().filter(|record| record["type"] == "end").count();
            let decisions = audit[before..].iter().filter(|record| record["type"] == "decision").count();
            (ends == decisions && decisions >= 100).then_some(())
        })
        .await;
    }
}
