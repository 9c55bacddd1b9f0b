//! Requests that wait at a node which falls silent.

use std::net::TcpStream;

use cobalance::telemetry::metrics::RetryReason;

use crate::QUICK;
use crate::support::actor::{Act, Actor, Whole, entries};
use crate::support::{Answer, until};

/// Probes that find a node lost, and do not take it out for that. The others are to be found well meanwhile, also by
/// a machine that pauses: who has fallen together with others is left alone for 10 s.
fn quick() -> String {
    QUICK.replace("\"20s\"", "\"2s\"\nfall = 100")
}

fn fall_silent(node: &Actor) {
    node.health([Act::Hold]);
    node.traffic([Act::Hold]);
}

/// A request that waits at this one of the nodes.
fn held(
    whole: &Whole,
    (method, target): (&str, &str),
    node: &Actor,
    nodes: &[&Actor],
) -> TcpStream {
    let all = || nodes.iter().map(|node| node.requests()).sum::<usize>();
    loop {
        let (before, of_node) = (all(), node.requests());
        let stream = whole.send(method, target);
        until("it is at a node", || all() > before);
        if node.requests() > of_node {
            return stream;
        }
    }
}

fn is_waiting(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let waiting = stream.peek(&mut [0]).is_err();
    stream.set_nonblocking(false).unwrap();
    waiting
}

fn rescued(whole: &Whole) -> u64 {
    let snapshot = whole.running.handle().snapshot();
    snapshot.upstreams[0].metrics.retries[RetryReason::Rescue as usize].get()
}

const GET: (&str, &str) = ("GET", "/api/posts:list");
const POST: (&str, &str) = ("POST", "/api/posts:create");

#[test]
fn what_is_safe_to_repeat_moves_to_another_node_once() {
    let [a, b] = ["a", "b"].map(Actor::up);
    let whole = Whole::start("moved", &entries(&[&a, &b]), &quick()).until_up();
    fall_silent(&a);
    // An action that writes stays with its node, which may be running it.
    let post = held(&whole, POST, &a, &[&a, &b]);
    let mut get = held(&whole, GET, &a, &[&a, &b]);
    let answer = Answer::read(&mut get).unwrap();
    assert_eq!((answer.status, answer.text()), (200, "b".to_owned()));
    assert_eq!(rescued(&whole), 1);
    assert!(is_waiting(&post));
}

#[test]
fn what_was_sent_before_the_last_sign_of_life_moves_as_well() {
    let [a, b] = ["a", "b"].map(Actor::up);
    let whole = Whole::start("before", &entries(&[&a, &b]), &quick()).until_up();
    a.traffic([Act::Hold]);
    let mut get = held(&whole, GET, &a, &[&a, &b]);
    let good = whole.checks(0, "good");
    until("the node is alive meanwhile", || whole.checks(0, "good") > good + 2);
    assert!(is_waiting(&get), "one slow request says nothing about its node");
    a.health([Act::Hold]);
    let answer = Answer::read(&mut get).unwrap();
    assert_eq!((answer.status, answer.text()), (200, "b".to_owned()));
    assert_eq!(rescued(&whole), 1);
}

#[test]
fn nothing_is_handed_on_while_two_nodes_fall_silent() {
    let [a, b, c] = ["a", "b", "c"].map(Actor::up);
    let whole = Whole::start("together", &entries(&[&a, &b, &c]), &quick()).until_up();
    [&a, &b].into_iter().for_each(fall_silent);
    let lost = |times| [0, 1].iter().all(|index| whole.checks(*index, "timeout") > times);
    until("probes have found both lost", || lost(0));
    let waiting = [&a, &b].map(|node| held(&whole, GET, node, &[&a, &b, &c]));
    let answered = c.requests();
    until("many chances have passed", || lost(2));
    assert!(waiting.iter().all(is_waiting));
    assert_eq!((rescued(&whole), c.requests()), (0, answered));
}
