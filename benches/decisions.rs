//! The pure parts of a request's way: routing, picking, heads, and compiling a configuration.
#![allow(missing_docs, clippy::unwrap_used)]

use std::hint::black_box;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use cobalance::balance::{Balancer, Load};
use cobalance::config::{self, Balance, HostMatch, PathMatch, Rate, Route, Source};
use cobalance::headers::forwarded::Forwarding;
use cobalance::headers::{self, ForNode};
use cobalance::http1::request::RequestHead;
use cobalance::limit::lists::Networks;
use cobalance::limit::rate::Table;
use cobalance::nocobase::Naming;
use cobalance::route::Router;
use cobalance::snapshot::{self, Parts, Resolved, Snapshot};
use cobalance::telemetry::metrics::Metrics;
use cobalance::upstream::Registry;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use ipnet::IpNet;

fn routing(c: &mut Criterion) {
    let mut group = c.benchmark_group("route");
    for count in [10, 1_000, 100_000] {
        let route = |n: usize| Route {
            name: n.to_string(),
            host: n.is_multiple_of(2).then(|| HostMatch::Exact(format!("h{}.example", n / 100))),
            path: Some(PathMatch::Prefix(format!("/p{n}/"))),
            upstream: 0,
            access: Default::default(),
        };
        let routes: Vec<Route> = (0..count).map(route).collect();
        let router = Router::new(&routes);
        let (host, path) =
            (format!("h{}.example", (count - 2) / 100), format!("/p{}/x", count - 2));
        assert_eq!(router.find(&host, &path), Some(count - 2));
        group.bench_function(BenchmarkId::from_parameter(count), |b| {
            b.iter(|| router.find(black_box(&host), black_box(&path)));
        });
    }
}

fn picking(c: &mut Criterion) {
    let mut group = c.benchmark_group("pick");
    let all = [
        ("least_load", Balance::LeastLoad),
        ("round_robin", Balance::RoundRobin),
        ("least_requests", Balance::LeastRequests),
        ("random_two", Balance::RandomTwo),
        ("hash", Balance::Hash),
    ];
    for (name, algorithm) in all {
        for nodes in [3, 32] {
            let mut balancer = Balancer::new(algorithm, 1.25, (0..nodes as u64).collect());
            let eligible: Vec<usize> = (0..nodes).collect();
            let mut rng = fastrand::Rng::with_seed(1);
            let load = |n: usize| Load {
                weight: 1,
                in_flight: n as u32 % 4,
                latency_ns: 2_000_000,
                ..Load::default()
            };
            group.bench_function(BenchmarkId::new(name, nodes), |b| {
                b.iter(|| balancer.pick(black_box(&eligible), load, Some(7), &mut rng));
            });
        }
    }
}

fn limiting(c: &mut Criterion) {
    let mut group = c.benchmark_group("list");
    for count in [10, 1_000, 100_000_u32] {
        let network = |n: u32| IpNet::from(IpAddr::from((20 << 24 | n << 8).to_be_bytes()));
        let networks: Vec<IpNet> = (0..count).map(network).collect();
        let list: Networks = networks.iter().collect();
        assert_eq!(list.ranges(), count as usize);
        let mut rng = fastrand::Rng::with_seed(1);
        group.bench_function(BenchmarkId::from_parameter(count), |b| {
            b.iter(|| list.contains(IpAddr::from((20 << 24 | rng.u32(..1 << 24)).to_be_bytes())));
        });
    }
    group.finish();
    let rate = Rate { count: 10, per: Duration::from_secs(60), burst: 10 };
    let mut group = c.benchmark_group("rate");
    for clients in [1_u64, 10_000, 10_000_000] {
        let (table, mut now) = (Table::new(rate, 65_536, 1), 0);
        let mut rng = fastrand::Rng::with_seed(1);
        group.bench_function(BenchmarkId::new("take, of so many clients", clients), |b| {
            b.iter(|| {
                now += 1_000;
                table.take(&rng.u64(..clients).to_le_bytes(), now)
            });
        });
    }
    let naming = |target: &[u8]| Naming::of(b"POST", target, "/api/").may_call("auth", "signIn");
    for (name, target) in [("plain", "/api/posts:list"), ("escaped", "/api/posts%253Alist/%61/b")] {
        group.bench_function(BenchmarkId::new("action, spelled", name), |b| {
            b.iter(|| naming(black_box(target.as_bytes())));
        });
    }
}

/// A browser's request, as NocoBase's pages send it.
const HEAD: &[u8] = b"GET /api/posts:list?page=1&pageSize=20 HTTP/1.1\r\nHost: crm.example.com\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0\r\n\
    Accept: application/json, text/plain, */*\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n\
    Accept-Language: en-US,en;q=0.9\r\nAuthorization: Bearer eyJhbGciOiJIUzI1NiJ9.eyJ1c2VySWQiOjF9.x\r\n\
    Cookie: nb_auth_token_main=x; nb_role_main=admin\r\nReferer: http://crm.example.com/admin\r\n\
    X-Authenticator: basic\r\nX-Hostname: crm.example.com\r\nX-Locale: en-US\r\nX-Role: admin\r\n\
    X-Timezone: +00:00\r\nConnection: keep-alive\r\n\r\n";

fn heads(c: &mut Criterion) {
    c.bench_function("head/parse", |b| {
        b.iter(|| RequestHead::parse(black_box(HEAD).to_vec(), Vec::with_capacity(32)));
    });
    let head = RequestHead::parse(HEAD.to_vec(), Vec::new()).map_err(|_| ()).unwrap();
    let forwarding = Forwarding::new("203.0.113.9".parse().unwrap(), &[], &head);
    let parts = ForNode {
        forwarding: &forwarding,
        request_id: "01a2058b-b914-702d-9464-2b8ccfc81837",
        default_host: "node",
        hidden_cookies: [None; 2],
        framing: head.framing,
        expect_continue: false,
    };
    let mut out = Vec::with_capacity(4096);
    c.bench_function("head/rewrite", |b| {
        b.iter(|| {
            out.clear();
            headers::write_request(&mut out, black_box(&head), &parts);
        });
    });
}

fn configuring(c: &mut Criterion) {
    let nodes: Vec<String> = (1..=32).map(|n| format!("\"10.0.0.{n}:13000\"")).collect();
    let routes: String = (0..10_000)
        .map(|n| format!("[[route]]\nhost = \"h{n}.example\"\nupstream = \"u\"\n"))
        .collect();
    let text = format!(
        "[[listener]]\nbind = \"0.0.0.0:80\"\n[upstream.u]\nnodes = [{}]\n{routes}",
        nodes.join(", ")
    );
    let source = Source { name: "bench.toml".into(), text };
    let mut group = c.benchmark_group("config");
    group.sample_size(10);
    group.bench_function("check 10,000 routes", |b| {
        b.iter(|| config::load(black_box(&source), &|_| None).map_err(|_| ()).unwrap());
    });
    let (config, _) = config::load(&source, &|_| None).map_err(|_| ()).unwrap();
    group.bench_function("route table of 10,000", |b| b.iter(|| Router::new(&config.routes)));
    // As a reload does it: nodes, routes and their metrics are known already.
    let config = Arc::new(config);
    let mut registry = Registry::new(2, Metrics::new());
    let mut compile = |previous: Option<&Snapshot>| {
        let parts = Parts {
            resolved: &Resolved::new(),
            registry: &mut registry,
            previous,
            access_log: None,
        };
        snapshot::compile(config.clone(), parts)
    };
    let previous = compile(None);
    group.bench_function("compile 10,000 routes anew", |b| b.iter(|| compile(Some(&previous))));
    group.bench_function("compile 10,000 routes at the start", |b| {
        b.iter(|| {
            let mut registry = Registry::new(2, Metrics::new());
            snapshot::compile(config.clone(), Parts::bare(&mut registry))
        });
    });
}

criterion_group!(benches, routing, picking, limiting, heads, configuring);
criterion_main!(benches);
