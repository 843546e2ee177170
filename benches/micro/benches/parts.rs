//! What a request passes through, part by part, without sockets.

use std::hint::black_box;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use futures_util::future::join_all;
use futures_util::stream;
use http::{HeaderValue, Response, header};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use micro::minting::{self, People};
use micro::policies::{Question, policy};
use valetkey::audit::{self, Audit, Decided, DecisionFacts, ExchangeFacts};
use valetkey::authority::{Authority, Home, Limits};
use valetkey::clock::{SharedClock, SystemClock};
use valetkey::lease::{self, Store};
use valetkey::model::{Destination, Host, NonceHash, Scheme};
use valetkey::policy::Target;
use valetkey::proxy::scrub::{Needles, scrub};

const SECRET: &[u8] = b"sk_live_0123456789abcdefghijklmnop";

/// What arrives of a body at a time.
const CHUNK: usize = 16 * 1024;

/// Exchanges that wait for their decision's record at the same time.
const WAITING: u64 = 32;

/// In a store of more leases not each one is looked up.
const TEXTS_MAX: u64 = 100_000;

fn clock() -> SharedClock {
    Arc::new(SystemClock)
}

/// An empty store without a limit that a long run could reach.
fn store() -> Arc<Store> {
    Store::new(lease::Config { live_max: usize::MAX, ..lease::Config::default() }, clock())
}

fn leases(bench: &mut Criterion) {
    let mut group = bench.benchmark_group("lease");
    let people = People::new();
    for count in [1_000, 1_000_000] {
        let store = store();
        let minter = store.minter();
        let texts: Vec<String> = (0..count)
            .map(|number| minting::mint(&minter, &people, number).expect("room").0.as_str().to_owned())
            // From all over the store, and so many that no cache holds their leases.
            .step_by(if count > TEXTS_MAX { 16 } else { 1 })
            .collect();
        let lookup = store.lookup();
        let mut turns = texts.iter().cycle();
        group.bench_function(BenchmarkId::new("lookup, hash included", count), |bench| {
            bench.iter(|| turns.next().map(|text| lookup.find(&NonceHash::of(text.as_bytes()))));
        });
    }
    let store = store();
    let minter = store.minter();
    let mut numbers = 0..;
    group.bench_function("mint, in process", |bench| {
        bench.iter(|| numbers.next().map(|number| minting::mint(&minter, &people, number).expect("room")));
    });
    group.finish();
}

fn decisions(bench: &mut Criterion) {
    let mut group = bench.benchmark_group("policy");
    for (services, rules) in [(1, 1), (1, 20), (1, 1000), (1000, 20)] {
        let (policy, questions) = (policy(services, rules), Question::all(services, rules));
        assert!(questions.iter().all(|question| question.put(&policy)), "it allows what is asked");
        let mut turns = questions.iter().cycle();
        group.bench_function(BenchmarkId::new("decide", format!("{services} services x {rules} rules")), |bench| {
            bench.iter(|| turns.next().map(|question| question.put(black_box(&policy))));
        });
    }
    group.finish();
}

fn targets(bench: &mut Criterion) {
    let long: String = (0..24).map(|part| format!("/segment-{part:02}-of-a-long-path")).collect();
    let query: String = (0..40).map(|part| format!("&filter{part}=value-{part}")).collect();
    let mut group = bench.benchmark_group("canonical target");
    for (name, target) in [
        ("short", "/v1/customers/cus_NffrFeUfNV2Hib".to_owned()),
        ("short, escapes", "/v1/files/Bericht%20f%C3%BCr%20M%C3%A4rz.pdf".to_owned()),
        ("long", format!("{long}?limit=10{query}")),
        ("long, escapes", format!("{}?limit=10{query}", long.replace("long", "l%C3%B6ng"))),
    ] {
        group.throughput(Throughput::Bytes(target.len() as u64));
        assert!(Target::parse(&target).is_ok(), "{name}");
        group.bench_function(name, |bench| bench.iter(|| Target::parse(black_box(&target))));
    }
    group.finish();
}

/// A megabyte of JSON, and one that looks like nothing at all.
fn bodies() -> [(&'static str, Bytes); 2] {
    let item =
        |number| format!(r#"{{"id":"cus_{number:08}","object":"customer","email":"ada@example.test","balance":0}},"#);
    let json: String = (0..12_000).map(item).collect();
    let mut random = vec![0; 1 << 20];
    getrandom::fill(&mut random).expect("the kernel has randomness");
    [("JSON", json.into()), ("random bytes", random.into())]
}

fn packed(coding: &str, body: &Bytes) -> Bytes {
    match coding {
        "gzip" => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(body).expect("memory");
            encoder.finish().expect("memory").into()
        }
        "deflate" => {
            let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(body).expect("memory");
            encoder.finish().expect("memory").into()
        }
        "br" => {
            let mut encoder = brotli::CompressorWriter::new(Vec::new(), 4096, 5, 22);
            encoder.write_all(body).expect("memory");
            encoder.into_inner().into()
        }
        "zstd" => ruzstd::encoding::compress_to_vec(&body[..], ruzstd::encoding::CompressionLevel::Fastest).into(),
        _ => body.clone(),
    }
}

type Chunks = StreamBody<stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, std::convert::Infallible>>>>;

/// An answer as an upstream sends it.
fn answer(coding: &'static str, body: &Bytes) -> Response<Chunks> {
    let chunks: Vec<_> = (0..body.len())
        .step_by(CHUNK)
        .map(|at| Ok(Frame::data(body.slice(at..(at + CHUNK).min(body.len())))))
        .collect();
    let mut answer = Response::new(StreamBody::new(stream::iter(chunks)));
    answer.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding));
    answer
}

/// Reads a scrubbed answer to its end; how many bytes it had.
async fn drain(answer: Response<Chunks>, needles: &Needles) -> usize {
    let mut body = scrub(answer, needles, false).expect("a coding that can be searched").into_body();
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        bytes += frame.expect("a whole body").data_ref().map_or(0, Bytes::len);
    }
    bytes
}

fn scrubbing(bench: &mut Criterion) {
    let needles = Needles::new(SECRET, &[]);
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let mut group = bench.benchmark_group("scrub");
    for (name, body) in bodies() {
        // Of the content, whatever its coding.
        group.throughput(Throughput::Bytes(body.len() as u64));
        for coding in ["identity", "gzip", "deflate", "br", "zstd"] {
            let body = packed(coding, &body);
            assert!(runtime.block_on(drain(answer(coding, &body), &needles)) > 0, "{coding}");
            group.bench_function(BenchmarkId::new(coding, name), |bench| {
                bench.iter_batched(
                    || answer(coding, &body),
                    |answer| runtime.block_on(drain(answer, &needles)),
                    BatchSize::SmallInput,
                );
            });
        }
    }
    group.finish();
    withholding(bench, &needles);
}

/// Codings that are not searched, and more than one: upstream is never told that they would be taken, and such an answer is
/// withheld. Whoever makes one of them searchable finds it here.
fn withholding(bench: &mut Criterion, needles: &Needles) {
    let mut group = bench.benchmark_group("scrub, withheld unread");
    for coding in ["compress", "gzip, br"] {
        let body = Bytes::from_static(b"never read");
        assert!(scrub(answer(coding, &body), needles, false).is_err(), "{coding} is searched: measure it");
        group.bench_function(coding, |bench| {
            bench.iter_batched(
                || answer(coding, &body),
                |answer| scrub(answer, needles, false).is_err(),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

fn leaves(bench: &mut Criterion) {
    let limits = Limits { hosts_max: 1024, leaves_per_second: u32::MAX, leaves_burst: u32::MAX };
    let authority = Authority::open_with(&Home::Memory, clock(), limits).expect("a CA");
    let mut group = bench.benchmark_group("leaf");
    let mut numbers = 0_u64..;
    group.bench_function("new host", |bench| {
        bench.iter_batched(
            || Host::parse(&format!("h{}.bench.test", numbers.next().unwrap_or_default())).expect("a host"),
            |host| authority.server_config(&host).expect("a leaf"),
            BatchSize::SmallInput,
        );
    });
    let host = Host::parse("known.bench.test").expect("a host");
    group.bench_function("known host", |bench| bench.iter(|| authority.server_config(&host).expect("a leaf")));
    group.finish();
}

struct Decision;

impl Decided for Decision {
    fn facts(&self) -> Arc<DecisionFacts> {
        Arc::new(DecisionFacts { rule: Some("GET /v1/json".to_owned()), ..DecisionFacts::default() })
    }
}

fn exchange() -> ExchangeFacts {
    ExchangeFacts {
        connection_id: 1,
        peer: "127.0.0.1:40000".parse().expect("an address"),
        destination: Destination::parse("api.bench.test:443", None).ok(),
        scheme: Scheme::Https,
        method: "GET".to_owned(),
        path: "/v1/json".to_owned(),
        version: "HTTP/1.1",
    }
}

/// Opens an exchange, waits for its decision to be on record, and ends it.
async fn record(audit: &Audit, facts: &ExchangeFacts) {
    let mut exchange = audit.open(facts.clone());
    assert!(exchange.record(Decision).await.is_ok(), "the audit writes");
    exchange.end(audit::Ending::Complete);
}

fn records(bench: &mut Criterion) {
    let directory = tempfile::tempdir().expect("a directory");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let config = audit::Config::new(audit::Sink::File(directory.path().join("audit.jsonl")));
    let audit = runtime.block_on(async { Audit::start(&config, clock(), Default::default()) }).expect("an audit");
    let facts = exchange();
    let mut group = bench.benchmark_group("audit");
    group.throughput(Throughput::Elements(1));
    group.bench_function("one exchange, decision waited for", |bench| {
        bench.iter(|| runtime.block_on(record(&audit, &facts)));
    });
    group.bench_function("exchanges, 32 waiting at once", |bench| {
        bench.iter_custom(|count| {
            let share = count.div_ceil(WAITING);
            let start = Instant::now();
            runtime.block_on(join_all((0..WAITING).map(|_| async {
                for _ in 0..share {
                    record(&audit, &facts).await;
                }
            })));
            // For as many as were asked for: a few more may have been made.
            start.elapsed().mul_f64(count as f64 / (share * WAITING) as f64)
        });
    });
    group.finish();
}

criterion_group!(parts, leases, decisions, targets, scrubbing, leaves, records);
criterion_main!(parts);
