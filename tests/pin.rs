//! One node that serves alone: everything goes there, nobody takes its place, and what would change one node of
//! several is answered.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

#[path = "pin/command.rs"]
mod command;
#[path = "pin/guard.rs"]
mod guard;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use cobalance::control::operator::{Order, OrderError, Ordered, Verb};
use cobalance::control::pin::{Unpin, Unpinned};
use serde_json::Value;
use support::actor::{Act, Actor, Whole, entry};
use support::origin::read_head;
use support::{Answer, until};

/// Quick probes; `{name}` is the upstream's own.
const CHECKED: &str = "[upstream.{name}.health_check]\ninterval = \"50ms\"\nwatch = false\n";
/// A Close frame of a server, with code 1012: the service restarts.
const RESTART: [u8; 4] = [0x88, 2, 3, 0xf4];

struct Rig {
    whole: Whole,
    nodes: Vec<Actor>,
}

impl Rig {
    /// Nodes n0 to n2, all up, and more keys of the upstream.
    fn start(upstream: &'static str, more: &str) -> Rig {
        let nodes: Vec<Actor> = ["n0", "n1", "n2"].map(Actor::up).into();
        let named = |(n, node): (usize, &Actor)| entry(node, &format!(", name = \"n{n}\""));
        let entries: Vec<String> = nodes.iter().enumerate().map(named).collect();
        let whole = Whole::start(upstream, &entries, &format!("{more}\n{CHECKED}")).until_up();
        Rig { whole, nodes }
    }

    fn order(&self, order: Order) -> Result<Ordered, OrderError> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(self.whole.running.handle().order(order)).unwrap()
    }

    fn say(&self, verb: Verb, node: &str) -> Result<Ordered, OrderError> {
        self.order(order(verb, node))
    }

    fn pin(&self, node: &str) -> Ordered {
        self.say(Verb::Pin, node).unwrap()
    }

    fn unpin(&self) -> Unpinned {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let asked = Unpin { upstream: None, from: [127, 0, 0, 1].into() };
        runtime.block_on(self.whole.running.handle().unpin(asked)).unwrap().unwrap()
    }

    fn states(&self) -> Vec<String> {
        self.whole.status().upstreams[0].nodes.iter().map(|node| node.state.clone()).collect()
    }

    fn tunnels(&self) -> Vec<u32> {
        self.whole.status().upstreams[0].nodes.iter().map(|node| node.tunnels).collect()
    }

    fn tunnel(&self) -> TcpStream {
        let mut stream = self.whole.connect();
        stream
            .write_all(
                b"GET /ws HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                  Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            )
            .unwrap();
        let head = read_head(&mut stream).expect("an answer");
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        stream
    }

    /// Who answers the next so many requests.
    fn answers(&self, count: usize) -> Vec<String> {
        (0..count).map(|_| self.whole.post().text()).collect()
    }

    /// Takes a node away as its health check sees it.
    fn fail(&self, n: usize) {
        self.nodes[n].health([Act::Refuse(503, "APP_STOPPED", "gone")]);
        until("it is found", || self.whole.node(n).health == "down");
    }

    fn turns_away(&self) -> bool {
        self.whole.status().upstreams[0].pinned.as_ref().is_some_and(|pin| pin.turns_away)
    }
}

fn order(verb: Verb, node: &str) -> Order {
    Order {
        verb,
        node: node.into(),
        upstream: None,
        window: Some(Duration::ZERO),
        force: false,
        from: [127, 0, 0, 1].into(),
    }
}

fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    rest
}

/// The payload of the next frame, which is a text.
fn frame(stream: &mut TcpStream) -> Value {
    let mut head = [0; 2];
    stream.read_exact(&mut head).unwrap();
    assert_eq!(head[0], 0x81, "a whole text");
    let mut length = usize::from(head[1]);
    if length == 126 {
        stream.read_exact(&mut head).unwrap();
        length = usize::from(u16::from_be_bytes(head));
    }
    let mut text = vec![0; length];
    stream.read_exact(&mut text).unwrap();
    serde_json::from_slice::<Value>(&text).unwrap()["payload"].clone()
}

#[test]
fn everything_goes_to_the_pinned_node_and_all_serve_again_afterwards() {
    let rig = Rig::start("alone", "");
    let mut pages: Vec<TcpStream> = (0..6).map(|_| rig.tunnel()).collect();
    // As they spread: evenly, unless this machine made a node look slow.
    let spread = rig.tunnels();
    assert!(spread.iter().sum::<u32>() == 6 && spread[1] < 6, "{spread:?}");
    let (stay, move_off) = (spread[1], 6 - spread[1]);
    let ordered = rig.pin("n1");
    assert_eq!((ordered.nodes[0].name.as_str(), ordered.others.len()), ("n1", 2));
    assert_eq!(rig.states(), ["draining", "up", "draining"]);
    let other = rig.whole.node(0);
    assert_eq!((other.operator.as_str(), other.health.as_str()), ("aside", "up"));
    assert_eq!(other.cause, "n1 is pinned, from 127.0.0.1");
    let before = [rig.nodes[0].requests(), rig.nodes[2].requests()];
    assert_eq!(rig.answers(20), ["n1"; 20]);
    assert_eq!([rig.nodes[0].requests(), rig.nodes[2].requests()], before);
    until("tunnels are moved", || rig.tunnels() == [0, stay, 0]);
    let told = pages.iter_mut().map(|page| {
        page.set_nonblocking(true).unwrap();
        let mut told = [0; 4];
        let moved = page.read_exact(&mut told).is_ok();
        assert!(!moved || told == RESTART);
        moved
    });
    let told = told.filter(|moved| *moved).count();
    assert_eq!(told, move_off as usize, "who was at the pinned node stays there");
    pages.extend((0..4).map(|_| rig.tunnel()));
    assert_eq!(rig.tunnels(), [0, stay + 4, 0], "and new ones go there");
    let unpinned = rig.unpin();
    assert_eq!(unpinned.upstreams[0].node.as_deref(), Some("n1"));
    until("all are up", || rig.states() == ["up", "up", "up"]);
    assert_eq!(rig.tunnels(), [0, stay + 4, 0], "nobody is moved back");
    until("all serve", || {
        let answers = rig.answers(9);
        ["n0", "n1", "n2"].iter().all(|node| answers.contains(&(*node).to_owned()))
    });
    assert_eq!(rig.unpin().upstreams[0].node, None, "twice is once");
}

#[test]
fn what_the_operator_drained_stays_drained_and_another_node_may_be_pinned_instead() {
    let rig = Rig::start("kept", "");
    rig.say(Verb::Drain, "n2").unwrap();
    rig.pin("n0");
    assert_eq!(rig.answers(5), ["n0"; 5]);
    let cause = rig.whole.node(2).cause;
    assert_eq!(cause, "drained by the operator, from 127.0.0.1");
    rig.pin("n1");
    assert_eq!(rig.answers(5), ["n1"; 5], "at once");
    assert_eq!(rig.whole.node(0).cause, "n1 is pinned, from 127.0.0.1");
    // Drained and made ready while another is pinned: it is still out, for the other cause.
    rig.say(Verb::Drain, "n0").unwrap();
    assert_eq!(rig.whole.node(0).operator, "draining");
    let ready = rig.say(Verb::Ready, "n0").unwrap();
    assert_eq!(
        (ready.nodes[0].state.as_str(), ready.nodes[0].operator.as_str()),
        ("draining", "aside")
    );
    assert_eq!(rig.answers(5), ["n1"; 5]);
    rig.unpin();
    until("all but one are up", || rig.states() == ["up", "up", "draining"]);
}

#[test]
fn what_stands_against_a_pin_is_told_with_what_to_do() {
    let nodes = ["n0", "n1", "n2"].map(Actor::up);
    let entries = [
        entry(&nodes[0], ", name = \"n0\""),
        entry(&nodes[1], ", name = \"n1\""),
        entry(&nodes[2], ", name = \"n2\", role = \"task\""),
    ];
    let whole = Whole::start("refused", &entries, CHECKED).until_up();
    let rig = Rig { whole, nodes: nodes.into() };
    let refused = |verb, node: &str, part: &str| {
        let error = rig.say(verb, node).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    };
    refused(Verb::Pin, "n2", "`n2` is a task node");
    refused(Verb::Pin, "n7", "there is no node `n7`");
    rig.say(Verb::Drain, "n1").unwrap();
    refused(Verb::Pin, "n1", "`cobalance ready n1` first");
    rig.say(Verb::Ready, "n1").unwrap();
    rig.fail(1);
    refused(Verb::Pin, "n1", "`n1` is down: nobody else of `refused` would serve");
    assert_eq!(rig.answers(3), ["n0"; 3], "nothing has changed");
    rig.order(Order { force: true, ..order(Verb::Pin, "n1") }).unwrap();
    refused(Verb::Drain, "n1", "`cobalance unpin` first");
    let forced = rig.order(Order { force: true, ..order(Verb::Drain, "n1") });
    assert!(matches!(forced, Err(OrderError::Refused(_))), "{forced:?}");
    rig.unpin();
    assert_eq!(rig.answers(3), ["n0"; 3]);
}

#[test]
fn a_pinned_node_that_fails_is_not_replaced_and_everybody_is_told_to_wait() {
    let rig = Rig::start("outage", "park = \"300ms\"\npark_upgrades = \"20s\"");
    rig.pin("n1");
    let mut early = rig.whole.send("POST", "/api/posts:create");
    assert_eq!(Answer::read(&mut early).unwrap().text(), "n1");
    rig.fail(1);
    let others = [rig.nodes[0].requests(), rig.nodes[2].requests()];
    // Parked at first; an upgrade may wait for longer than it takes.
    let mut page = rig.tunnel();
    assert!(rig.turns_away());
    let told = frame(&mut page);
    assert_eq!(
        (&told["code"], &told["command"]["name"]),
        (&"APP_COMMANDING".into(), &"Maintenance".into())
    );
    let answer = rig.whole.post();
    assert_eq!((answer.status, answer.field("retry-after")), (503, Some("10")));
    let error = &serde_json::from_slice::<Value>(&answer.body).unwrap()["error"];
    assert_eq!((&error["maintaining"], &error["code"]), (&true.into(), &"APP_COMMANDING".into()));
    let mut stream = rig.whole.connect();
    stream.write_all(b"GET /admin HTTP/1.1\r\nHost: t\r\nAccept: text/html\r\n\r\n").unwrap();
    let document = Answer::read(&mut stream).unwrap();
    assert_eq!(document.status, 503);
    assert!(document.text().contains("being changed"), "{}", document.text());
    assert_eq!([rig.nodes[0].requests(), rig.nodes[2].requests()], others, "nobody else is asked");
    let metrics = &rig.whole.running.handle().metrics();
    assert_eq!(metrics.upstream("outage").pinned.get(), 1);
    rig.nodes[1].health([Act::Ok("ok")]);
    until("it is back", || !rig.turns_away());
    let told = frame(&mut page);
    assert_eq!((&told["code"], &told["refresh"]), (&"APP_RUNNING".into(), &true.into()));
    assert_eq!(rest(&mut page), RESTART);
    assert_eq!(rig.answers(3), ["n1"; 3]);
}

#[test]
fn unpinning_ends_an_outage_and_what_is_parked_goes_to_the_others() {
    let rig = Rig::start("freed", "park = \"20s\"");
    rig.pin("n1");
    rig.fail(1);
    let mut parked = rig.whole.send("POST", "/api/posts:create");
    until("it is parked", || rig.whole.status().upstreams[0].parked == 1);
    let pin = rig.whole.status().upstreams[0].pinned.clone().unwrap();
    assert_eq!((pin.serves, pin.turns_away), (false, false));
    rig.unpin();
    let answer = Answer::read(&mut parked).unwrap();
    assert_eq!(answer.status, 200);
    assert_ne!(answer.text(), "n1");
    assert_eq!(rig.whole.status().upstreams[0].pinned, None);
}
