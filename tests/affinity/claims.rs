//! What only one exchange may have of a node: its probation, its turn for an export. And silence that is not
//! forgotten because nobody has the patience to wait through it.

use std::net::TcpStream;

use cobalance::clock;
use cobalance::health::OutlierState;
use cobalance::upstream::Signal;

use crate::support::origin::{self, Origin};
use crate::support::{Answer, Proxy, until};
use crate::{ask, proxy, send, who};

const EXPORT: &str = "/api/posts:export";

/// Answers nothing until its client leaves.
fn silent() -> Origin {
    Origin::scripted(|mut line| {
        while line.request().is_some() {
            line.wait_closed();
        }
    })
}

/// Whether there is anything to read.
fn is_answered(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let answered = stream.peek(&mut [0]).is_ok();
    stream.set_nonblocking(false).unwrap();
    answered
}

/// Requests that each node has had.
fn requests(nodes: &[&Origin]) -> Vec<usize> {
    nodes.iter().map(|node| node.seen().len()).collect()
}

fn bulk(proxy: &Proxy) -> Vec<u32> {
    let nodes = &proxy.snapshot.upstreams[0].nodes;
    nodes.iter().map(|member| member.node.bulk()).collect()
}

#[test]
fn exports_go_where_there_are_fewest() {
    let nodes = [silent(), silent(), silent()];
    let [a, b, c] = &nodes;
    for balance in ["least_load", "round_robin", "hash"] {
        let proxy = proxy(&[a, b, c], &format!("balance = \"{balance}\""));
        let before = requests(&[a, b, c]);
        let mut open: Vec<TcpStream> = Vec::new();
        for n in 1..=6 {
            let target = if n % 2 == 0 { EXPORT } else { "/api/posts:importXlsx" };
            open.push(send(proxy.address, "POST", target, ""));
            until("it has arrived", || bulk(&proxy).iter().sum::<u32>() == n);
            let (most, least) = (bulk(&proxy).into_iter().max(), bulk(&proxy).into_iter().min());
            assert!(most.unwrap() - least.unwrap() <= 1, "{balance}: {:?}", bulk(&proxy));
        }
        assert_eq!(bulk(&proxy), [2, 2, 2]);
        until("all were sent", || {
            let sent = requests(&[a, b, c]);
            sent.iter().zip(&before).all(|(now, before)| now - before == 2)
        });
        // Clients that leave free their nodes.
        drop(open);
        until("nothing is left", || bulk(&proxy) == [0, 0, 0]);
    }
}

#[test]
fn a_node_that_exports_still_serves_everything_else() {
    let (a, b) = (silent(), origin::node("b"));
    let proxy = proxy(&[&a, &b], "balance = \"round_robin\"");
    let held = loop {
        let stream = send(proxy.address, "POST", EXPORT, "");
        until("it came to one of them", || bulk(&proxy)[0] == 1 || is_answered(&stream));
        if bulk(&proxy)[0] == 1 {
            break stream;
        }
    };
    for _ in 0..6 {
        // An answer may be read before its exchange is over: then both have one.
        until("the other one has none", || bulk(&proxy) == [1, 0]);
        assert_eq!(who(&proxy, "POST", EXPORT, ""), "b");
    }
    assert!(b.seen().iter().any(|seen| seen.head.contains(EXPORT)));
    drop(held);
    until("it is free again", || bulk(&proxy) == [0, 0]);
}

#[test]
fn one_request_of_all_threads_decides_about_a_node_on_probation() {
    let (a, b) = (silent(), origin::node("b"));
    let mut proxy = proxy(&[&a, &b], "balance = \"round_robin\"");
    proxy.node(0).set_outlier(OutlierState::Probation);
    let open: Vec<TcpStream> =
        (0..32).map(|_| send(proxy.address, "GET", "/api/posts:list", "")).collect();
    until("the others were answered", || {
        open.iter().filter(|stream| is_answered(stream)).count() == 31 || a.seen().len() > 1
    });
    // On its way there it may be slower than all of them.
    until("one was asked", || !a.seen().is_empty());
    assert_eq!(a.seen().len(), 1);
    // Its client leaves without a verdict: somebody else is to decide.
    drop(open);
    until("it was given back", || proxy.node(0).awaits_probation());
    let _held = send(proxy.address, "GET", "/api/posts:list", "");
    until("it is asked again", || a.seen().len() == 2);
    assert!(!proxy.node(0).eligible(true));
    while let Ok(signal) = proxy.signals.try_recv() {
        assert!(!matches!(signal, Signal::Probation(..)), "nothing was decided");
    }
}

#[test]
fn a_silence_that_clients_do_not_wait_through_is_remembered() {
    let (a, b) = (silent(), origin::node("b"));
    let proxy = proxy(&[&a, &b], "");
    let silence = || proxy.node(0).load(0, 1, clock::now_ns()).latency_ns;
    let mut held = None;
    until("one waits at the silent one", || {
        let stream = send(proxy.address, "GET", "/api/posts:list", "");
        until("it is somewhere", || is_answered(&stream) || proxy.node(0).in_flight() > 0);
        held = (proxy.node(0).in_flight() > 0).then_some(stream);
        held.is_some()
    });
    until("it counts as silent", || silence() > 2_000_000_000);
    drop(held);
    until("its client has left", || proxy.node(0).in_flight() == 0);
    // It is counted as one that waits a moment longer than as one in flight.
    until("nobody waits", || silence() == silence());
    let left_with = silence();
    assert!(left_with > 2_000_000_000, "{left_with}");
    let before = a.seen().len();
    for _ in 0..40 {
        // An answer may be read before its exchange is over: two at once weigh as much as the silence.
        until("the other one is idle", || proxy.node(1).in_flight() == 0);
        assert_eq!(who(&proxy, "GET", "/api/posts:list", ""), "b");
    }
    assert_eq!(a.seen().len(), before, "nobody else is sent there");
    assert_eq!(silence(), left_with, "while nobody waits it does not grow");
    // A good probe is a sign of life.
    proxy.node(0).good_probe(clock::now_ns());
    assert!(silence() < 2_000_000_000);
    until("it is asked again", || {
        let mut stream = send(proxy.address, "GET", "/api/posts:list", "");
        until("it is somewhere", || is_answered(&stream) || a.seen().len() > before);
        let at_b = a.seen().len() == before;
        assert!(!at_b || Answer::read(&mut stream).unwrap().text() == "b");
        !at_b
    });
}

#[test]
fn an_export_follows_the_sticky_cookie_only_to_a_node_without_another() {
    let nodes = [origin::node("a"), origin::node("b")];
    let sticky = "sticky = { secret = \"0123456789abcdef\" }";
    let proxy = proxy(&nodes.each_ref(), sticky);
    let answer = ask(&proxy, "GET", "/", "");
    let cookie = answer.field("set-cookie").unwrap().split(';').next().unwrap();
    let fields = format!("Cookie: {cookie}\r\n");
    for _ in 0..6 {
        until("the one before is over", || bulk(&proxy) == [0, 0]);
        assert_eq!(who(&proxy, "POST", EXPORT, &fields), answer.text());
    }
    until("all are over", || bulk(&proxy) == [0, 0]);
    let busy = usize::from(answer.text() == "b");
    let _other = cobalance::upstream::claim::Bulk::claim(proxy.node(busy), 0).unwrap();
    let elsewhere = ask(&proxy, "POST", EXPORT, &fields);
    assert_ne!(elsewhere.text(), answer.text());
    assert_eq!(elsewhere.field("set-cookie"), None, "the client is not moved for it");
}
