//! Nodes that tell control that they end, and the pages that are there.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use cobalance::demo::node::{Journal, Pace, Phase, StandIn};
use cobalance::health::HealthState;
use cobalance::telemetry::metrics::{ClosedBy, DialogOutcome};
use cobalance::upstream::maintenance::Terms;

use super::pages::{Page, RESTART, Speaker, message, part};
use super::support::actor::Whole;
use super::support::origin::read_head;
use super::support::{PATIENCE, Proxy, until};
use super::{CLOSING, STOPPED, only, outcomes, proxy};

/// As control does when a node says so.
fn say_no(proxy: &Proxy, node: usize) {
    proxy.node(node).set_health(HealthState::Maintaining);
    proxy.node(node).set_not_serving();
}

#[test]
fn all_pages_of_a_node_that_ends_are_moved_and_other_tunnels_stay() {
    let (a, b) = (Speaker::new(b""), Speaker::new(b""));
    let proxy = proxy(&[&a, &b], "");
    proxy.node(1).set_health(HealthState::Down);
    let mut pages: Vec<Page> = (0..12).map(|_| Page::open(proxy.address, "one")).collect();
    let mut other = Page::open_at(proxy.address, "/elsewhere", "one").unwrap();
    a.until_open(13);
    // Its payload cannot be read, and it has begun.
    let begun = part(0xc1, &[7; 10]);
    a.give(&begun[..5]);
    pages.iter_mut().chain([&mut other]).for_each(|page| page.reads(&begun[..5]));
    say_no(&proxy, 0);
    a.give(&begun[5..]);
    pages.iter_mut().chain([&mut other]).for_each(|page| page.reads(&begun[5..]));
    assert!(pages.iter_mut().all(Page::is_silent), "there is nowhere to go");
    proxy.node(1).set_health(HealthState::Up);
    for page in &mut pages {
        assert_eq!(page.rest(), RESTART);
    }
    until("they are gone", || proxy.node(0).tunnels() == 1);
    assert!(other.is_silent());
    assert_eq!(proxy.node(0).metrics.ws_moved.get(), 12);
    Page::open(proxy.address, "one").reads(&message(CLOSING));
}

#[test]
fn a_node_that_serves_again_keeps_who_is_left() {
    let (a, b) = (Speaker::new(b""), Speaker::new(b""));
    let proxy = proxy(&[&a, &b], "");
    proxy.node(1).set_health(HealthState::Down);
    let mut page = Page::open(proxy.address, "one");
    a.until_open(1);
    say_no(&proxy, 0);
    proxy.node(0).set_health(HealthState::Up);
    proxy.node(1).set_health(HealthState::Up);
    // Two that come after it are told apart by a whole window.
    let (mut two, mut three) =
        (Page::open(proxy.address, "two"), Page::open(proxy.address, "three"));
    until("all have come", || a.cookies().len() + b.cookies().len() == 3);
    proxy.node(1).set_health(HealthState::Maintaining);
    proxy.node(1).set_not_serving();
    until("one is moved", || !two.is_silent() || !three.is_silent());
    let on_b = if two.is_silent() { &mut three } else { &mut two };
    assert_eq!(on_b.rest(), RESTART);
    assert!(page.is_silent(), "the first one had not to leave");
}

#[test]
fn pages_outlive_the_node_that_ends_until_their_turn_comes() {
    let (a, b) = (Speaker::new(b""), Speaker::new(b""));
    let proxy = proxy(&[&a, &b], "");
    proxy.node(1).set_health(HealthState::Down);
    let mut pages: Vec<Page> = (0..40).map(|_| Page::open(proxy.address, "one")).collect();
    a.until_open(40);
    proxy.node(1).set_health(HealthState::Up);
    say_no(&proxy, 0);
    a.end();
    // What a page says in the meantime is of no use to anybody.
    pages.iter_mut().for_each(|page| drop(page.stream.write_all(b"\x81\x84\0\0\0\0ping")));
    for page in &mut pages {
        assert_eq!(page.rest(), RESTART);
    }
    let closed = &proxy.node(0).metrics.ws_closed;
    until("all are counted", || closed[ClosedBy::Drain as usize].get() == 40);
    // A client that leaves before its turn leaves.
    let page = Page::open(proxy.address, "one");
    b.until_open(1);
    proxy.node(0).set_health(HealthState::Up);
    say_no(&proxy, 1);
    b.end();
    drop(page);
    until("it is gone", || proxy.node(1).tunnels() == 0);
}

#[test]
fn the_pages_of_the_last_node_go_when_it_has_closed_its_port() {
    let a = Speaker::new(b"");
    let proxy = proxy(&[&a], "");
    let mut page = Page::open(proxy.address, "one");
    a.until_open(1);
    say_no(&proxy, 0);
    a.say(STOPPED);
    page.reads(&message(STOPPED));
    // NocoBase's process would wait for them for ever.
    proxy.node(0).set_port_closed();
    assert_eq!(page.rest(), RESTART);
    until("the node is told", || a.got()[0].len() == 8);
    proxy.node(0).set_health(HealthState::Up);
    Page::open(proxy.address, "one").reads(&message(CLOSING));
}

#[test]
fn who_verifies_one_node_under_maintenance_sees_what_becomes_of_it() {
    let (a, b) = (Speaker::new(b""), Speaker::new(b""));
    let proxy = proxy(&[&a, &b], "");
    let terms = Terms {
        allow: vec!["127.0.0.0/8".parse().unwrap()],
        node: Some(proxy.node(0).label.clone()),
        ..Terms::default()
    };
    proxy.snapshot.upstreams[0].shared.maintenance.begin(terms);
    let mut page = Page::open(proxy.address, "one");
    a.until_open(1);
    a.say(STOPPED);
    page.reads(&message(STOPPED));
    assert_eq!(outcomes(&proxy, 0), only(DialogOutcome::Alone, 1));
}

#[test]
fn frames_of_a_sub_app_are_its_own_until_the_node_ends() {
    let (a, b) = (Speaker::new(b""), Speaker::new(b""));
    let proxy = proxy(&[&a, &b], "");
    let target = "/ws?__appName=hr";
    let mut page = Page::open_at(proxy.address, target, "one").unwrap();
    a.until_open(1);
    let starting = STOPPED.replace("APP_STOPPED", "APP_INITIALIZING");
    a.say(&starting);
    page.reads(&message(&starting));
    assert_eq!(outcomes(&proxy, 0), only(DialogOutcome::SubApp, 1));
    say_no(&proxy, 0);
    a.say(STOPPED);
    assert_eq!(page.rest(), RESTART);
    // Whether it was moved before the frame came is chance.
    let [withheld, _, _, passed, _] = outcomes(&proxy, 0);
    assert!(withheld <= 1 && passed == 1);
    let mut back = Page::open_at(proxy.address, target, "one").unwrap();
    back.reads(&message(CLOSING));
}

#[test]
fn a_page_is_not_sent_round_and_round() {
    let (a, b) = (Speaker::new(b""), Speaker::new(b""));
    let proxy = proxy(&[&a, &b], "");
    let mut page = Page::open(proxy.address, "one");
    a.until_open(1);
    a.say(STOPPED);
    assert_eq!(page.rest(), RESTART);
    proxy.node(0).set_health(HealthState::Down);
    let mut page = Page::open(proxy.address, "one");
    proxy.node(0).set_health(HealthState::Up);
    b.until_open(1);
    page.reads(&message(CLOSING));
    b.say(STOPPED);
    page.reads(&message(STOPPED));
    assert_eq!(outcomes(&proxy, 1), only(DialogOutcome::Again, 1));
    // What control knows is another matter.
    say_no(&proxy, 1);
    assert_eq!(page.rest(), RESTART);
}

#[test]
fn when_the_process_ends_pages_that_wait_their_turn_end_with_it() {
    let (a, b) = (Speaker::new(b""), Speaker::new(b""));
    let proxy = proxy(&[&a, &b], "");
    let mut page = Page::open(proxy.address, "one");
    a.until_open(1);
    a.say(STOPPED);
    until("it waits", || outcomes(&proxy, 0) == only(DialogOutcome::Withheld, 1));
    proxy.drain(Duration::ZERO);
    let rest = page.rest();
    assert!(rest == [0x88, 2, 3, 0xe9] || rest == RESTART, "{rest:x?}");
}

/// The whole of cobalance in front of two stand-ins that behave as NocoBase does.
struct Pair {
    runtime: tokio::runtime::Runtime,
    nodes: Vec<StandIn>,
    whole: Whole,
}

impl Pair {
    fn start(upstream: &'static str) -> Pair {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let journal = Journal::default();
        let nodes: Vec<_> =
            ["a", "b"].map(|name| StandIn::new(name, &journal).unwrap()).into_iter().collect();
        nodes.iter().for_each(|node| runtime.block_on(node.start(Pace::NONE)));
        let entries: Vec<_> = nodes.iter().map(|node| format!("\"{}\"", node.address())).collect();
        let quick = "[upstream.{name}.health_check]\ninterval = \"100ms\"\n";
        let whole = Whole::start(upstream, &entries, quick).until_up();
        for n in 0..2 {
            until("it is watched", || whole.node(n).watch == "connected");
        }
        Pair { runtime, nodes, whole }
    }

    /// The node that has the tunnel.
    fn holder(&self) -> usize {
        until("it is counted", || (0..2).any(|n| self.whole.node(n).tunnels == 1));
        (0..2).find(|n| self.whole.node(*n).tunnels == 1).unwrap()
    }
}

fn handshake(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = "GET /ws HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    stream.write_all(request.as_bytes()).unwrap();
    let head = read_head(&mut stream).unwrap();
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    stream
}

#[test]
fn the_page_of_a_node_that_is_terminated_or_killed_never_sees_a_dialog() {
    let pair = Pair::start("restarts");
    for terminate in [true, false] {
        let mut page = handshake(pair.whole.address());
        let holder = pair.holder();
        let node = &pair.nodes[holder];
        match terminate {
            true => pair.runtime.block_on(node.terminate()),
            false => pair.runtime.block_on(node.kill()),
        }
        let mut seen = Vec::new();
        // A process that is killed may leave a reset behind.
        let _ = page.read_to_end(&mut seen);
        let text = String::from_utf8_lossy(&seen);
        assert!(!text.contains("APP_STOPPED") && !text.contains("APP_NOT_FOUND"), "{text}");
        // Its client comes back after a second. By then control knows; before, it might meet the same node.
        until("it is known", || pair.whole.node(holder).state != "up");
        let mut back = handshake(pair.whole.address());
        let mut closing = vec![0; message(CLOSING).len()];
        back.read_exact(&mut closing).unwrap();
        assert_eq!(String::from_utf8_lossy(&closing), String::from_utf8_lossy(&message(CLOSING)));
        until("it is at the other one", || pair.whole.node(1 - holder).tunnels == 1);
        drop(back);
        if terminate {
            assert!(pair.runtime.block_on(node.wait_for(|phase| *phase == Phase::Off)));
        }
        until("it is seen", || pair.whole.node(holder).state == "down");
        pair.runtime.block_on(node.start(Pace::NONE));
        pair.whole.until_state(holder, "up");
        until("it is watched again", || pair.whole.node(holder).watch == "connected");
        until("all have left", || (0..2).all(|n| pair.whole.node(n).tunnels == 0));
    }
}
