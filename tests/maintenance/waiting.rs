//! Exchanges that wait for a node while maintenance begins or ends.

use std::sync::mpsc::{Receiver, Sender, channel};

use super::*;

/// n0 takes one request at a time and answers `/slow` only when it is released; n1 is as ever.
fn busy() -> (Rig, Sender<()>) {
    let (release, released): (_, Receiver<()>) = channel();
    let released = parking_lot::Mutex::new(released);
    let slow = Origin::scripted(move |mut line| {
        while let Some(seen) = line.request() {
            if seen.head.contains("/slow") {
                let _ = released.lock().recv();
            }
            line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    });
    let nodes = [slow, node("n1")];
    let text = format!(
        "[server]\nthreads = 1\n[access_log]\nenabled = false\n[admin]\nbind = \"127.0.0.1:0\"\n\
         [[listener]]\nname = \"public\"\nbind = \"127.0.0.1:0\"\n\
         trusted_proxies = [\"127.0.0.0/8\"]\n[upstream.u]\nnodes = [\
         {{ name = \"n0\", address = \"{}\", max_requests = 1 }}, \
         {{ name = \"n1\", address = \"{}\" }}]\n\
         [upstream.u.health_check]\ninterval = \"50ms\"\nwatch = false\n",
        nodes[0].address, nodes[1].address
    );
    let running = server::start(parse(&text), ConfigSource::Flags).unwrap();
    let rig = Rig { running, nodes };
    until("both nodes are up", || (0..2).all(|n| rig.node(n).eligible(false)));
    (rig, release)
}

/// Sends a request of the tester's, and returns when it is at n0 or waits for that.
fn send(rig: &Rig, path: &str, what: &str, arrived: impl Fn() -> bool) -> TcpStream {
    let mut stream = connect(rig.address());
    write!(stream, "GET {path} HTTP/1.1\r\nHost: t\r\nX-Forwarded-For: {TESTER}\r\n\r\n").unwrap();
    until(what, arrived);
    stream
}

#[test]
fn who_waits_in_the_queue_when_it_begins_reaches_no_node() {
    let (rig, release) = busy();
    rig.node(1).set_operator(cobalance::health::OperatorState::Draining);
    let mut first = send(&rig, "/slow", "it is full", || rig.node(0).in_flight() == 1);
    let waits = || rig.sample("cobalance_queue", None) == 1.0;
    let mut queued = send(&rig, "/api/x:list", "it waits", waits);
    rig.on("m");
    release.send(()).unwrap();
    assert_eq!(Answer::read(&mut first).unwrap().text(), "ok", "what runs is finished");
    let answer = Answer::read(&mut queued).unwrap();
    assert_eq!(answer.status, 503);
    assert!(answer.text().contains("APP_COMMANDING"), "{}", answer.text());
    assert_eq!((rig.requests(0), rig.requests(1)), (1, 0));
}

#[test]
fn who_was_let_through_and_waits_when_it_ends_is_served_as_everybody() {
    let (rig, release) = busy();
    rig.on_but_for_tester(Some("n0"));
    let _first = send(&rig, "/slow", "it is full", || rig.node(0).in_flight() == 1);
    let waits = || rig.sample("cobalance_queue", None) == 1.0;
    let mut queued = send(&rig, "/api/x:list", "it waits", waits);
    rig.off();
    rig.node(0).set_operator(cobalance::health::OperatorState::Draining);
    let answer = Answer::read(&mut queued).unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (200, "n1"), "any node will do again");
    drop(release);
}

#[test]
fn what_is_parked_when_it_begins_is_answered() {
    let (rig, _release) = busy();
    for n in 0..2 {
        rig.node(n).set_operator(cobalance::health::OperatorState::Draining);
    }
    let parked = || rig.sample("cobalance_parked", Some("http")) == 1.0;
    let mut parked = send(&rig, "/api/x:list", "it is parked", parked);
    rig.on("m");
    let answer = Answer::read(&mut parked).unwrap();
    assert!(answer.status == 503 && answer.text().contains("APP_COMMANDING"), "{}", answer.text());
}
