//! Nodes that fall silent, and nodes that are only slow.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::QUICK;
use crate::support::actor::{Act, Actor, Whole, entries};
use crate::support::until;

/// After so long nothing new goes to a node that is silent: a second, and what a machine that pauses
/// adds to it.
const BOUND: Duration = Duration::from_secs(3);

#[test]
fn a_silent_node_is_avoided_before_any_probe_tells() {
    let nodes = ["a", "b", "c"].map(Actor::up);
    // Its probes would need minutes to take it out.
    let slow = "[upstream.{name}.health_check]\ntimeout = \"2m\"\n";
    let whole = Whole::start("silent", &entries(&nodes.each_ref()), slow).until_up();
    until("all serve", || {
        whole.get();
        nodes.iter().all(|node| node.requests() > 3)
    });
    let [silent, others @ ..] = &nodes;
    silent.health([Act::Hold]);
    silent.traffic([Act::Hold]);
    let fell_silent = Instant::now();
    // One client has all the patience in the world.
    let mut held = None;
    until("one waits for it", || {
        held = whole.ask_or_hold(silent);
        held.is_some()
    });
    // Those of the first moment still go there.
    let late =
        |node: &Actor| node.arrivals().iter().filter(|at| **at > fell_silent + BOUND).count();
    until("many requests after the bound", || {
        batch(&whole, &nodes);
        others.iter().map(late).sum::<usize>() >= 200
    });
    assert_eq!(late(silent), 0, "{:?}", silent.arrivals().last().map(|at| *at - fell_silent));
    assert_eq!((whole.node(0).state.as_str(), whole.checks(0, "timeout")), ("up", 0));
    // It is not forgotten: when nothing waits for it any more, it is asked again.
    drop(held);
    until("nobody waits for it", || whole.node(0).in_flight == 0);
    let before = silent.requests();
    silent.traffic([Act::Ok("a")]);
    silent.health([Act::Ok("ok")]);
    until("it is asked again", || {
        whole.get();
        silent.requests() > before
    });
}

/// Requests that are at the nodes at the same time, so that a node is not avoided merely because one
/// waits there. Those that the first node has are given up.
fn batch(whole: &Whole, nodes: &[Actor; 3]) {
    let [_, others @ ..] = nodes;
    others.iter().for_each(|node| node.traffic([Act::Hold]));
    let arrived = || nodes.iter().map(Actor::requests).sum::<usize>();
    let before = arrived();
    let asked: Vec<TcpStream> = (0..8).map(|_| whole.send("GET", "/api/posts:list")).collect();
    until("all have arrived", || arrived() == before + asked.len());
    others.iter().for_each(|node| node.traffic([Act::Ok("other")]));
    until("the others have answered", || {
        (1..nodes.len()).all(|index| whole.node(index).in_flight == 0)
    });
    drop(asked);
    until("only the patient one waits", || whole.node(0).in_flight == 1);
}

#[test]
fn a_node_that_answers_real_requests_survives_probes_that_time_out() {
    let (a, b) = (Actor::up("a"), Actor::up("b"));
    let quick = QUICK.replace("20s", "100ms");
    let whole = Whole::start("busy", &entries(&[&a, &b]), &quick).until_up();
    a.health([Act::Hold]);
    until("many time-outs", || {
        assert_eq!(whole.get().status, 200);
        whole.checks(0, "timeout") >= 9
    });
    let node = whole.node(0);
    assert_eq!(node.state, "up");
    assert!(node.event_loop_lag_ms.unwrap() > 50.0, "at least as late as a probe waited: {node:?}");
    assert_eq!(whole.changes(0, "down", "timeout"), 0);
    // Without requests that prove the contrary, the probes are believed.
    let node = whole.until_state(0, "down");
    assert_eq!(node.last_check.unwrap().result, "timeout");
}
