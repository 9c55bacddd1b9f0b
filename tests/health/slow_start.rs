//! What a node gets that has just come back.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use crate::QUICK;
use crate::support::actor::{Act, Actor, Whole, entries};
use crate::support::origin::{Origin, read_head};
use crate::support::until;

const MAINTAINING: Act = Act::Refuse(503, "APP_COMMANDING", "x");
/// Nobody gets past the first tenth during a test.
const LONG: &str = "slow_start = \"1h\"\n";

/// A node goes and comes back.
fn restart(whole: &Whole, index: usize, node: &Actor) {
    node.health([MAINTAINING]);
    whole.until_state(index, "maintaining");
    node.health([Act::Ok("ok")]);
    whole.until_state(index, "up");
}

/// How many of so many requests went to the first node.
fn share(whole: &Whole, first: &Actor, requests: usize) -> usize {
    let before = first.requests();
    (0..requests).for_each(|_| assert_eq!(whole.get().status, 200));
    first.requests() - before
}

fn weights(whole: &Whole) -> Vec<f64> {
    whole.status().upstreams[0].nodes.iter().map(|node| node.effective_weight).collect()
}

#[test]
fn a_node_that_comes_back_gets_a_tenth_and_nobody_does_at_the_start() {
    let (a, b) = (Actor::up("a"), Actor::up("b"));
    let whole = Whole::start("tenth", &entries(&[&a, &b]), &format!("{LONG}{QUICK}")).until_up();
    assert_eq!(weights(&whole), [1.0, 1.0], "they were up before cobalance was");
    assert_eq!(share(&whole, &a, 20), 10);
    restart(&whole, 0, &a);
    assert_eq!(weights(&whole), [0.1, 1.0]);
    assert!((9..=11).contains(&share(&whole, &a, 110)));
    let node = whole.node(0);
    assert_eq!((node.weight, node.state.as_str()), (1, "up"));
    // Alone it gets everything.
    b.health([MAINTAINING]);
    whole.until_state(1, "maintaining");
    assert_eq!(weights(&whole), [1.0, 1.0]);
    assert_eq!(share(&whole, &a, 10), 10);
    // And beside one that is as cold as it is, its half.
    b.health([Act::Ok("ok")]);
    whole.until_state(1, "up");
    assert_eq!(weights(&whole), [1.0, 1.0]);
    assert!((9..=11).contains(&share(&whole, &a, 20)));
}

#[test]
fn it_has_its_whole_share_when_the_time_is_over() {
    let (a, b) = (Actor::up("a"), Actor::up("b"));
    let more = format!("slow_start = \"300ms\"\n{QUICK}");
    let whole = Whole::start("over", &entries(&[&a, &b]), &more).until_up();
    restart(&whole, 0, &a);
    let mut last = 0.0_f64;
    until("its whole weight", || {
        let weight = weights(&whole)[0];
        assert!(weight >= last.max(0.1), "{weight} after {last}");
        last = weight;
        weight == 1.0
    });
    assert!((9..=11).contains(&share(&whole, &a, 20)));
}

#[test]
fn zero_is_off() {
    let (a, b) = (Actor::up("a"), Actor::up("b"));
    let more = format!("slow_start = \"0s\"\n{QUICK}");
    let whole = Whole::start("off", &entries(&[&a, &b]), &more).until_up();
    restart(&whole, 0, &a);
    assert_eq!(weights(&whole), [1.0, 1.0]);
    assert!((9..=11).contains(&share(&whole, &a, 20)));
}

#[test]
fn a_node_that_was_ejected_starts_slowly() {
    let (a, b) = (Actor::up("a"), Actor::up("b"));
    let more = format!(
        "{LONG}balance = \"round_robin\"\n[upstream.{{name}}.outlier_detection]\n\
         ejection_time = \"100ms\"\n"
    );
    let whole = Whole::start("ejected", &entries(&[&a, &b]), &more).until_up();
    a.traffic([Act::Status(502)]);
    until("it is out", || {
        whole.get();
        whole.node(0).state == "ejected"
    });
    a.traffic([Act::Ok("a")]);
    until("one request was good", || {
        whole.get();
        whole.node(0).state == "up"
    });
    assert_eq!(weights(&whole), [0.1, 1.0]);
}

/// A node with `/ws` whose health a test changes.
fn with_tunnels(up: Arc<AtomicBool>) -> Origin {
    Origin::scripted(move |mut line| {
        while let Some(seen) = line.request() {
            if seen.head.contains(" /ws ") {
                line.send(
                    b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
                );
                line.stream.set_read_timeout(None).unwrap();
                while let Ok(1..) = line.stream.read(&mut [0; 64]) {}
                return;
            }
            let (status, body) = if up.load(SeqCst) { (200, "ok") } else { (500, "no") };
            line.send(format!("HTTP/1.1 {status} X\r\nContent-Length: 2\r\n\r\n{body}").as_bytes());
        }
    })
}

#[test]
fn it_does_not_get_every_new_tunnel() {
    let ups: [Arc<AtomicBool>; 2] = [true, true].map(|up| Arc::new(AtomicBool::new(up)));
    let nodes = ups.each_ref().map(|up| with_tunnels(up.clone()));
    let entries = nodes.each_ref().map(|node| format!("\"{}\"", node.address));
    let whole = Whole::start("tunnels", &entries, &format!("{LONG}{QUICK}")).until_up();
    let mut open: Vec<TcpStream> = Vec::new();
    let mut tunnels = |count: usize| {
        open.extend((0..count).map(|_| tunnel(&whole)));
        until("all are counted", || {
            let all: u32 = (0..2).map(|index| whole.node(index).tunnels).sum();
            all as usize == open.len()
        });
        whole.node(0).tunnels
    };
    ups[0].store(false, SeqCst);
    whole.until_state(0, "down");
    assert_eq!(tunnels(40), 0, "a node that is down gets none");
    ups[0].store(true, SeqCst);
    whole.until_state(0, "up");
    let got = tunnels(22);
    assert!((1..=3).contains(&got), "{got} of 22");
}

fn tunnel(whole: &Whole) -> TcpStream {
    let mut stream = whole.connect();
    let handshake = "GET /ws HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                     Sec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    stream.write_all(handshake.as_bytes()).unwrap();
    let head = read_head(&mut stream).unwrap();
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    stream
}
