//! A second node is asked when the first is late, and one answer is passed on.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::collections::HashMap;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use cobalance::clock;
use cobalance::config::Config;
use cobalance::telemetry::metrics::{AttemptResult, RetryReason};
use parking_lot::Mutex;
use support::actor::{Act, Actor, Whole, entries};
use support::files::written;
use support::origin::{self, Origin};
use support::ports::Closed;
use support::{Answer, Proxy, config, until};

const HEDGE: &str = "balance = \"round_robin\"\nhedge = { after = \"p95\", at_least = \"50ms\" }";
const LIST: &str = "/api/posts:list";

fn proxy(nodes: &[SocketAddr], more: &str) -> Proxy {
    experienced(config(nodes, "", more))
}

/// It knows that heads usually take a millisecond. Without control it learns nothing new.
fn experienced(config: Config) -> Proxy {
    let proxy = Proxy::start(config);
    let heads = &proxy.snapshot.upstreams[0].shared.heads;
    (0..100).for_each(|_| heads.observe(1_000_000));
    heads.renew(0.95, 50_000_000, clock::now_ns());
    assert_eq!(heads.after_ns(), Some(50_000_000));
    proxy
}

fn send(proxy: &Proxy, method: &str, target: &str, fields: &str) -> TcpStream {
    let mut stream = proxy.connect();
    let head =
        format!("{method} {target} HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n{fields}\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    stream
}

fn hedged(proxy: &Proxy) -> u64 {
    proxy.snapshot.upstreams[0].metrics.retries[RetryReason::Hedged as usize].get()
}

fn cancelled(proxy: &Proxy, node: usize) -> u64 {
    proxy.node(node).metrics.attempts[AttemptResult::Cancelled as usize].get()
}

fn answer(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// Answers nothing until its peer leaves.
fn silent() -> Origin {
    Origin::scripted(|mut line| {
        while line.request().is_some() {
            line.wait_closed();
        }
    })
}

#[test]
fn a_node_that_is_late_costs_no_more_than_the_delay() {
    let (a, b) = (silent(), origin::node("b"));
    let proxy = proxy(&[a.address, b.address], HEDGE);
    for _ in 0..8 {
        let answer = Answer::read(&mut send(&proxy, "GET", LIST, "")).unwrap();
        assert_eq!((answer.status, answer.text()), (200, "b".to_owned()));
    }
    until("its attempts are over", || proxy.node(0).in_flight() == 0);
    // Where the other one was asked first and held up, it was asked second; it may not have heard of it then.
    let asked = hedged(&proxy);
    assert!((1..=8).contains(&asked), "{asked}");
    assert_eq!(cancelled(&proxy, 0), asked);
    until("what was given up is closed", || proxy.node(0).connections().1 == 0);
    assert_eq!(proxy.node(0).connections().0, 0, "it is not kept");
    assert_eq!(proxy.node(0).conduct().failures, 0, "being late is no failure");
    assert_eq!(b.seen().len(), 8);
}

#[test]
fn the_last_place_at_the_other_node_is_enough() {
    let (a, b) = (silent(), origin::node("b"));
    let proxy = proxy(&[a.address, b.address], &format!("{HEDGE}\nmax_requests = 1"));
    for _ in 0..4 {
        let answer = Answer::read(&mut send(&proxy, "GET", LIST, "")).unwrap();
        assert_eq!((answer.status, answer.text()), (200, "b".to_owned()));
        until("its attempts are over", || proxy.node(0).in_flight() == 0);
    }
    let asked = hedged(&proxy);
    assert!(asked > 0 && cancelled(&proxy, 0) == asked, "{asked} {}", cancelled(&proxy, 0));
}

/// What has become of a request at two nodes: how many have it, and how many have closed because of it.
#[derive(Clone, Copy, Default)]
struct Met {
    asked: usize,
    closed: usize,
}

/// Two nodes that do with a request what `act` says: their name, the request's number, and what it has met.
fn pair(
    act: impl Fn(&str, &str, &dyn Fn() -> Met) -> Option<Vec<u8>> + Send + Sync + 'static,
) -> [Origin; 2] {
    let (act, all): (_, Arc<Mutex<HashMap<String, Met>>>) = (Arc::new(act), Arc::default());
    ["a", "b"].map(|name| {
        let (act, all) = (act.clone(), all.clone());
        Origin::scripted(move |mut line| {
            while let Some(request) = line.request() {
                let target = request.head.split(' ').nth(1).unwrap();
                let number = target.split('=').nth(1).unwrap_or_default();
                all.lock().entry(number.to_owned()).or_default().asked += 1;
                match act(name, number, &|| all.lock()[number]) {
                    Some(bytes) => line.send(&bytes),
                    None => {
                        drop(line);
                        all.lock().entry(number.to_owned()).or_default().closed += 1;
                        return;
                    }
                }
            }
        })
    })
}

#[test]
fn the_first_one_answers_after_all() {
    // Whoever is asked first answers when the second has been asked; that one never does.
    let first: Arc<Mutex<Option<String>>> = Arc::default();
    let (_never, end) = origin::gate();
    let nodes = pair(move |name, _, met| {
        let is_first = first.lock().get_or_insert_with(|| name.to_owned()) == name;
        if !is_first {
            let _ = end.lock().recv();
            return None;
        }
        until("the second was asked", || met().asked == 2);
        Some(answer("first"))
    });
    let proxy = proxy(&nodes.each_ref().map(|node| node.address), HEDGE);
    let read = Answer::read(&mut send(&proxy, "GET", "/api/posts:list?n=1", "")).unwrap();
    assert_eq!((read.status, read.text(), hedged(&proxy)), (200, "first".to_owned(), 1));
    until("the second was given up", || cancelled(&proxy, 0) + cancelled(&proxy, 1) == 1);
    until("nothing is left", || proxy.node(0).in_flight() + proxy.node(1).in_flight() == 0);
}

#[test]
fn two_answers_at_once_are_never_mixed() {
    // Both answer as soon as both have been asked.
    let nodes = pair(|name, number, met| {
        until("both were asked", || met().asked == 2);
        Some(answer(&format!("{name}-{number}-{}", name.repeat(2_000))))
    });
    let proxy = proxy(&nodes.each_ref().map(|node| node.address), HEDGE);
    let clients = (0..4).map(|client| {
        let mut stream = proxy.connect();
        move || {
            for n in 0..5 {
                let number = client * 100 + n;
                let head = format!("GET /api/posts:list?n={number} HTTP/1.1\r\nHost: t\r\n\r\n");
                stream.write_all(head.as_bytes()).unwrap();
                let text = Answer::read(&mut stream).expect("the connection is kept").text();
                let of = |name: &str| format!("{name}-{number}-{}", name.repeat(2_000));
                assert!(text == of("a") || text == of("b"), "{text}");
            }
        }
    });
    std::thread::scope(|scope| clients.for_each(|client| drop(scope.spawn(client))));
    assert_eq!(hedged(&proxy), 20);
    until("nothing is left", || proxy.node(0).in_flight() + proxy.node(1).in_flight() == 0);
}

#[test]
fn when_the_first_one_dies_meanwhile_the_second_answers() {
    let first: Arc<Mutex<Option<String>>> = Arc::default();
    let lost = first.clone();
    let nodes = pair(move |name, _, met| {
        let is_first = first.lock().get_or_insert_with(|| name.to_owned()) == name;
        until("the second was asked", || met().asked == 2);
        if is_first {
            return None;
        }
        until("the first has closed", || met().closed == 1);
        Some(answer(name))
    });
    let proxy = proxy(&nodes.each_ref().map(|node| node.address), HEDGE);
    let read = Answer::read(&mut send(&proxy, "GET", "/api/posts:list?n=1", "")).unwrap();
    let lost = lost.lock().clone().unwrap();
    assert_eq!(read.status, 200);
    assert_ne!(read.text(), lost);
    let lost = proxy.node(usize::from(lost == "b"));
    until("it was counted", || lost.conduct().failures == 1);
}

#[test]
fn when_the_second_cannot_be_asked_the_first_one_answers() {
    let dead = Closed::new();
    // It answers when the other one has refused.
    let (open, wait) = origin::gate();
    let a = Origin::scripted(move |mut line| {
        while line.request().is_some() {
            wait.lock().recv().unwrap();
            line.send(&answer("a"));
        }
    });
    let proxy = proxy(&[a.address, dead.address], HEDGE);
    let mut stream = send(&proxy, "GET", LIST, "");
    until("it is at the first", || a.seen().len() == 1);
    let refused = || proxy.node(1).metrics.attempts[AttemptResult::Connect as usize].get();
    until("the second has refused", || refused() > 0);
    open.send(()).unwrap();
    assert_eq!(Answer::read(&mut stream).unwrap().text(), "a");
}

/// Sends a request that the silent first node gets. Waits until it would have been hedged long ago.
fn is_never_hedged(proxy: &Proxy, nodes: [&Origin; 2], method: &str, target: &str, fields: &str) {
    let what = format!("{method} {target} {fields}");
    let held = loop {
        let before = nodes[0].seen().len();
        let stream = send(proxy, method, target, fields);
        stream.set_nonblocking(true).unwrap();
        until(&what, || nodes[0].seen().len() > before || stream.peek(&mut [0]).is_ok());
        if nodes[0].seen().len() > before {
            break stream;
        }
    };
    let others = nodes[1].seen().len();
    let begun = clock::now_ns();
    until("time has passed", || clock::now_ns() - begun > 300_000_000);
    assert_eq!((hedged(proxy), nodes[1].seen().len()), (0, others), "{what}");
    drop(held);
    until("it is over", || proxy.node(0).in_flight() == 0);
}

#[test]
fn what_must_not_be_asked_twice_is_not() {
    let (a, b) = (silent(), origin::node("b"));
    let nodes = [&a, &b];
    let hedging = proxy(&[a.address, b.address], HEDGE);
    let stream = "Accept: text/event-stream\r\n";
    for (method, target, fields) in [
        ("POST", "/api/posts:create", ""),
        ("GET", "/api/posts:export", ""),
        ("GET", "/api/posts:destroy", ""),
        ("GET", LIST, stream),
    ] {
        is_never_hedged(&hedging, nodes, method, target, fields);
    }
    // The only node that takes anything.
    hedging.node(1).set_operator(cobalance::health::OperatorState::Draining);
    is_never_hedged(&hedging, nodes, "GET", LIST, "");
    // What is off.
    let off = proxy(&[a.address, b.address], "balance = \"round_robin\"");
    is_never_hedged(&off, nodes, "GET", LIST, "");
    // A backup is for primaries that are gone.
    let backup = format!(
        "[server]\nthreads = 1\n[access_log]\nenabled = false\n[[listener]]\nbind = \"127.0.0.1:0\"\n\
         [upstream.u]\nnodes = [\"{}\", {{ address = \"{}\", backup = true }}]\n{HEDGE}\n",
        a.address, b.address
    );
    is_never_hedged(&experienced(support::parse(&backup)), nodes, "GET", LIST, "");
}

#[test]
fn what_is_late_is_learnt_from_real_requests() {
    let [a, b] = ["a", "b"].map(Actor::up);
    let more = "balance = \"round_robin\"\n[upstream.{name}.hedge]\nafter = \"p99\"\n\
        [upstream.{name}.health_check]\ntimeout = \"20s\"\n";
    let log = tempfile::NamedTempFile::new().unwrap();
    let path = format!("path = \"{}\"", log.path().display());
    let whole = Whole::with_log("late", &entries(&[&a, &b]), more, &path).until_up();
    let upstream = whole.running.handle().snapshot().upstreams[0].clone();
    until("enough was seen", || {
        whole.get();
        upstream.shared.heads.after_ns().is_some()
    });
    a.traffic([Act::Hold]);
    // Others that were held up may have been hedged as well, and may have answered after all.
    let is_it = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let (first, second) = (&line["attempts"][0], &line["attempts"][1]);
        let nodes = [&first["node"], &second["node"]] == [&whole.node(0).name, &whole.node(1).name];
        let results = [&first["result"], &second["result"]] == ["cancelled", "ok"];
        nodes && results && second["hedge"] == true
    };
    until("it was late once, and the log tells", || {
        assert_eq!(whole.get().status, 200);
        let lines = written(log.path());
        lines.lines().filter(|line| line.contains("\"hedge\":true")).any(is_it)
    });
    assert!(upstream.metrics.retries[RetryReason::Hedged as usize].get() > 0);
}

#[test]
fn the_budget_bounds_it() {
    let (a, b) = (silent(), origin::node("b"));
    let proxy = proxy(&[a.address, b.address], HEDGE);
    let budget = &proxy.snapshot.upstreams[0].shared.budget;
    while budget.withdraw(clock::now_ns() / 1_000_000_000) {}
    is_never_hedged(&proxy, [&a, &b], "GET", LIST, "");
}

#[test]
fn the_second_one_goes_on_alone_when_the_first_is_lost() {
    // Whoever is asked first closes when the second has been asked; that one answers when it is told to.
    let first: Arc<Mutex<Option<String>>> = Arc::default();
    let (open, gate) = origin::gate();
    let nodes = pair(move |name, _, met| {
        let is_first = first.lock().get_or_insert_with(|| name.to_owned()) == name;
        if is_first {
            until("the second was asked", || met().asked == 2);
            return None;
        }
        gate.lock().recv().ok()?;
        Some(answer("second"))
    });
    let proxy = proxy(&nodes.each_ref().map(|node| node.address), HEDGE);
    let mut stream = send(&proxy, "GET", "/api/posts:list?n=1", "");
    let lost = |node: usize| proxy.node(node).metrics.attempts[AttemptResult::Reset as usize].get();
    // It is over while the second still takes its time, which is watched like that of any attempt.
    until("the first is over", || lost(0) + lost(1) == 1);
    until("one is left", || proxy.node(0).in_flight() + proxy.node(1).in_flight() == 1);
    open.send(()).unwrap();
    let read = Answer::read(&mut stream).unwrap();
    assert_eq!((read.status, read.text(), hedged(&proxy)), (200, "second".to_owned(), 1));
    assert_eq!(nodes.iter().map(|node| node.seen().len()).sum::<usize>(), 2);
}
