//! What a request passes through, part by part, without sockets.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use http_body_util::{BodyExt, Full};
use valetkey::audit::{self, Audit, Decided, DecisionFacts, ExchangeFacts};
use valetkey::authority::{Authority, Home, Limits};
use valetkey::clock::{SharedClock, SystemClock};
use valetkey::config;
use valetkey::lease::{self, NewLease, Store};
use valetkey::model::{
    AgentName, Destination, Host, IdentityRule, LeaseGrant, MinterName, Nonce, NonceHash, Scheme, ScopeName,
    ServiceName, TaskName,
};
use valetkey::policy::{RequestFacts, Target};
use valetkey::proxy::scrub::{Masker, Needles, scrub};

const SECRET: &[u8] = b"sk_live_0123456789abcdefghijklmnop";

fn clock() -> SharedClock {
    Arc::new(SystemClock)
}

fn nonce(number: u64) -> Nonce {
    let mut entropy = [7; 32];
    entropy[..8].copy_from_slice(&number.to_be_bytes());
    Nonce::from_entropy(&entropy)
}

fn terms(number: u64) -> NewLease {
    let scope = (ScopeName::parse("read").expect("a name"), None);
    NewLease {
        agent: AgentName::parse("load").expect("a name"),
        identities: Arc::new([IdentityRule::Any]),
        task: TaskName::parse(&format!("task-{}", number % 1000)).expect("a name"),
        minter: MinterName::parse("bench").expect("a name"),
        grants: vec![LeaseGrant { service: ServiceName::parse("api").expect("a name"), scopes: vec![scope] }],
        ttl: Duration::from_secs(3600),
        lifetime: Duration::from_secs(7200),
        max_uses: None,
        instance: None,
        on_behalf_of: None,
        reason: None,
        labels: BTreeMap::new(),
    }
}

fn filled(count: u64) -> Arc<Store> {
    let store = Store::new(lease::Config { live_max: 2_000_000, ..lease::Config::default() }, clock());
    let minter = store.minter();
    for number in 0..count {
        minter.mint(minter.next_id(), &nonce(number), terms(number)).expect("room");
    }
    store
}

fn leases(bench: &mut Criterion) {
    let mut group = bench.benchmark_group("lease");
    for count in [1_000, 1_000_000] {
        let store = filled(count);
        let lookup = store.lookup();
        let texts: Vec<String> = (0..1024).map(|at| nonce(at * (count / 1024).max(1)).as_str().to_owned()).collect();
        let mut at = 0;
        group.bench_function(BenchmarkId::new("lookup, hash included", count), |bench| {
            bench.iter(|| {
                at = (at + 1) % texts.len();
                black_box(lookup.find(&NonceHash::of(texts[at].as_bytes())))
            });
        });
    }
    let store = filled(0);
    let minter = store.minter();
    let mut number = 0;
    group.bench_function("mint, in process", |bench| {
        bench.iter(|| {
            number += 1;
            black_box(minter.mint(minter.next_id(), &nonce(number), terms(number)).is_ok())
        });
    });
    group.finish();
}

/// A policy of so many services with so many rules each.
fn policy(services: usize, rules: usize) -> valetkey::policy::Policy {
    let mut text =
        String::from("version = 1\n[credentials.c]\nsource = \"env\"\nname = \"KEY\"\nhosts = [\"*.bench.test\"]\n");
    for service in 0..services {
        text += &format!(
            "[services.s{service}]\nhosts = [\"s{service}.bench.test\"]\ncredential = \"c\"\nslots = [\"bearer\"]\n"
        );
        text += &format!("[[services.s{service}.scopes]]\nname = \"read\"\nrisk = \"low\"\nallow = [");
        for rule in 0..rules {
            text += &format!("\"GET /v1/things{rule}/{{id}}/parts/{{part}}\",");
        }
        text += "]\n";
    }
    let loaded = config::check_policy(&Arc::from("bench.toml"), text.into_bytes(), false);
    loaded.unwrap_or_else(|mistakes| panic!("{}", mistakes.report(config::Look::Plain))).policy
}

fn decisions(bench: &mut Criterion) {
    let mut group = bench.benchmark_group("policy");
    for (services, rules) in [(1, 1), (1, 20), (1, 1000), (1000, 20)] {
        let policy = policy(services, rules);
        let name = ServiceName::parse(&format!("s{}", services - 1)).expect("a name");
        let host = Host::parse(&format!("{name}.bench.test")).expect("a host");
        let scopes = [ScopeName::parse("read").expect("a name")];
        let target = Target::parse(&format!("/v1/things{}/abc/parts/17?expand=all", rules - 1)).expect("a target");
        let facts = RequestFacts { method: "GET", websocket: false, host: &host, target: &target };
        let destination = Destination::parse(&format!("{host}:443"), None).expect("a destination");
        group.bench_function(BenchmarkId::new("decide", format!("{services} services x {rules} rules")), |bench| {
            bench.iter(|| {
                black_box(policy.services_at(&destination).len());
                black_box(policy.decide(&name, &scopes, &scopes, &facts));
            });
        });
    }
    group.bench_function("canonical target", |bench| {
        bench.iter(|| {
            black_box(Target::parse(black_box("/v1/customers/cus_NffrFeUfNV2Hib/sources?limit=10&starting_after=abc")))
        });
    });
    group.finish();
}

fn scrubbing(bench: &mut Criterion) {
    let needles = Needles::new(SECRET, &[]);
    let item = br#"{"id":"cus_NffrFeUfNV2Hib","object":"customer","email":"ada@example.test","balance":0},"#;
    let text: Bytes = item.repeat((1 << 20) / item.len()).into();
    let binary: Bytes = (0_u64..1 << 17)
        .flat_map(|number| number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes())
        .collect::<Vec<u8>>()
        .into();
    let mut group = bench.benchmark_group("scrub");
    for (name, body) in [("JSON", &text), ("random bytes", &binary)] {
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(BenchmarkId::new("identity, 16 KiB at a time", name), |bench| {
            bench.iter(|| {
                let mut masker = Masker::new(needles.clone());
                for at in (0..body.len()).step_by(16 * 1024) {
                    black_box(masker.push(body.slice(at..(at + 16 * 1024).min(body.len()))));
                }
                black_box(masker.finish());
            });
        });
    }
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(&text).expect("memory");
    let packed: Bytes = encoder.finish().expect("memory").into();
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    group.throughput(Throughput::Bytes(text.len() as u64));
    group.bench_function("gzip, opened and packed again", |bench| {
        bench.iter_batched(
            || {
                let mut answer = http::Response::new(Full::new(packed.clone()));
                answer.headers_mut().insert("content-encoding", http::HeaderValue::from_static("gzip"));
                answer
            },
            |answer| {
                runtime.block_on(async {
                    scrub(answer, &needles, false).expect("searchable").into_body().collect().await.is_ok()
                })
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

fn leaves(bench: &mut Criterion) {
    let limits = Limits { hosts_max: 1024, leaves_per_second: u32::MAX, leaves_burst: u32::MAX };
    let authority = Authority::open_with(&Home::Memory, clock(), limits).expect("a CA");
    let mut number = 0;
    bench.bench_function("leaf for a new host", |bench| {
        bench.iter(|| {
            number += 1;
            black_box(authority.server_config(&Host::parse(&format!("h{number}.bench.test")).expect("a host")).is_ok())
        });
    });
    let host = Host::parse("known.bench.test").expect("a host");
    bench.bench_function("leaf for a known host", |bench| {
        bench.iter(|| black_box(authority.server_config(&host).is_ok()))
    });
}

struct Decision;

impl Decided for Decision {
    fn facts(&self) -> DecisionFacts {
        DecisionFacts { rule: Some("GET /v1/json".to_owned()), ..DecisionFacts::default() }
    }
}

fn records(bench: &mut Criterion) {
    let directory = tempfile::tempdir().expect("a directory");
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let config = audit::Config::new(audit::Sink::File(directory.path().join("audit.jsonl")));
    let audit = runtime.block_on(async { Audit::start(&config, clock(), Default::default()) }).expect("an audit");
    let facts = ExchangeFacts {
        connection_id: 1,
        peer: "127.0.0.1:40000".parse().expect("an address"),
        destination: Destination::parse("api.bench.test:443", None).ok(),
        scheme: Scheme::Https,
        method: "GET".to_owned(),
        path: "/v1/json".to_owned(),
        version: "HTTP/1.1",
    };
    bench.bench_function("audit: one exchange, decision waited for", |bench| {
        bench.iter(|| {
            runtime.block_on(async {
                let mut exchange = audit.open(facts.clone());
                black_box(exchange.record(Decision).await.is_ok());
                exchange.end(audit::Ending::Complete);
            });
        });
    });
}

criterion_group!(parts, leases, decisions, scrubbing, leaves, records);
criterion_main!(parts);
