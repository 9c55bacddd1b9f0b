//! What real requests meet.

use std::time::{Duration, Instant};

use crate::support::actor::{Act, Actor, Whole, entries};
use crate::support::said::{listen, said};
use crate::support::{Answer, until};

/// The least time that the first ejection lasts.
const OUT: Duration = Duration::from_millis(300);

fn more(balance: &str) -> String {
    format!(
        "balance = \"{balance}\"\n[upstream.{{name}}.health_check]\ninterval = \"100ms\"\ntimeout = \"20s\"\n\
         [upstream.{{name}}.outlier_detection]\nejection_time = \"{}ms\"\n",
        OUT.as_millis()
    )
}

/// Asks until the first node has failed five times in a row, and is out.
fn eject_first(whole: &Whole, first: &Actor) {
    let before = first.requests();
    first.traffic([Act::Status(502)]);
    until("five failures", || {
        whole.get();
        first.requests() == before + 5
    });
    whole.until_state(0, "ejected");
}

fn until_probation(whole: &Whole) {
    until("probation", || whole.node(0).outlier == "probation");
}

#[test]
fn five_failures_in_a_row_eject_a_node_and_never_the_last_one() {
    listen();
    let (a, b) = (Actor::up("a"), Actor::up("b"));
    let long = more("round_robin").replace("300ms", "10m");
    let whole = Whole::start("row", &entries(&[&a, &b]), &long).until_up();
    // Four and a success are no row.
    a.traffic([
        Act::Status(502),
        Act::Status(503),
        Act::Status(504),
        Act::Status(502),
        Act::Ok("a"),
        Act::Status(502),
    ]);
    until("nine failures", || {
        whole.get();
        a.requests() == 9
    });
    assert_eq!(whole.node(0).state, "up");
    until("ten failures", || {
        whole.get();
        a.requests() == 10
    });
    let node = whole.until_state(0, "ejected");
    assert_eq!((node.health.as_str(), node.outlier.as_str()), ("up", "ejected"));
    assert!(node.cause.starts_with("failures in a row (gateway_error); out for "), "{node:?}");
    assert_eq!(whole.changes(0, "ejected", "ejection"), 1);
    let lines = said(&["node state", "upstream=\"row\"", "from=\"up\" to=\"ejected\""]);
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!((0..20).all(|_| whole.get().text() == "b"));
    assert_eq!(a.requests(), 10);
    // The other one fails as well: it stays, because nobody else is left.
    b.traffic([Act::Status(502)]);
    until("it was considered", || {
        assert_eq!(whole.get().status, 502);
        !said(&["a failing node is kept", "upstream=\"row\""]).is_empty()
    });
    assert_eq!(whole.node(1).state, "up");
    let good = whole.checks(0, "good");
    until("probes are good", || whole.checks(0, "good") > good + 2);
    assert_eq!(whole.node(0).state, "ejected", "a good probe does not disprove a 502");
}

#[test]
fn one_safe_request_decides_about_a_node_that_was_out() {
    let (a, b) = (Actor::up("a"), Actor::up("b"));
    let whole = Whole::start("probation", &entries(&[&a, &b]), &more("round_robin")).until_up();
    eject_first(&whole, &a);
    until_probation(&whole);
    assert_eq!(whole.node(0).state, "ejected", "it is still shown so");
    let before = a.requests();
    assert!((0..20).all(|_| whole.post().text() == "b"));
    assert_eq!(a.requests(), before, "what is unsafe to repeat does not decide");
    // While one request is at it, no other goes there.
    a.traffic([Act::Hold]);
    let mut held = None;
    until("one is at it", || {
        held = whole.ask_or_hold(&a);
        held.is_some()
    });
    assert!((0..20).all(|_| whole.get().text() == "b"));
    assert_eq!(a.requests(), before + 1);
    // A bad one: out again, and for twice the time.
    let begun = Instant::now();
    a.traffic([Act::Status(502)]);
    assert_eq!(Answer::read(&mut held.unwrap()).unwrap().status, 502);
    // The ejection itself may go unseen. The one request of the probation before is taken, that of the next is free.
    // Control is asked last: when it answers, it is not half-way from one to the other.
    let node = whole.running.handle().snapshot().upstreams[0].nodes[0].node.clone();
    until("on probation once more", || {
        node.awaits_probation() && whole.node(0).outlier == "probation"
    });
    assert!(begun.elapsed() >= 2 * OUT, "{:?}", begun.elapsed());
    // A good one: back.
    a.traffic([Act::Ok("a")]);
    until("it has decided", || {
        whole.get();
        whole.node(0).state == "up"
    });
    assert_eq!(whole.changes(0, "up", "probation"), 1);
    assert_eq!(whole.node(0).cause, "a real request went well");
    until("writes reach it again", || whole.post().text() == "a");
}

#[test]
fn a_node_on_probation_is_asked_although_it_was_slow_or_failed() {
    let (a, b) = (Actor::up("a"), Actor::up("b"));
    let whole = Whole::start("asked", &entries(&[&a, &b]), &more("least_load")).until_up();
    // Five at once: after one failure it would be avoided, and never be ejected.
    [&a, &b].iter().for_each(|node| node.traffic([Act::Hold]));
    let mut open = Vec::new();
    until("five requests wait at the first", || {
        open.push(whole.send("GET", "/api/posts:list"));
        until("it has arrived", || a.requests() + b.requests() == open.len());
        a.requests() == 5
    });
    a.traffic([Act::Status(502)]);
    b.traffic([Act::Ok("b")]);
    whole.until_state(0, "ejected");
    a.traffic([Act::Ok("a")]);
    until_probation(&whole);
    // Its failures count as slow, so by its load alone it would not be picked for a minute.
    assert_eq!(whole.post().text(), "b");
    assert_eq!(whole.get().text(), "a");
    whole.until_state(0, "up");
    assert_eq!(whole.changes(0, "up", "probation"), 1);
}

/// Fails every second request: never twice in a row, and never for long.
fn half_broken(node: &Actor) {
    let acts = [Act::Status(502), Act::Ok("half")];
    node.traffic((0..20_000).flat_map(|_| acts.clone()));
}

#[test]
fn a_node_that_fails_every_second_request_is_ejected_where_others_do_not() {
    let nodes = ["a", "b", "c"].map(Actor::up);
    let whole = Whole::start("ratio", &entries(&nodes.each_ref()), &more("round_robin")).until_up();
    half_broken(&nodes[1]);
    until("it is out", || {
        whole.get();
        whole.node(1).outlier != "in"
    });
    let cause = whole.node(1).cause;
    assert!(
        cause.contains(" requests failed, of the others' in the median 0 %; out for "),
        "{cause}"
    );
    assert_eq!(whole.changes(1, "ejected", "ejection"), 1);
    // A good probe does not disprove it; a real request does, and what was before is forgotten.
    nodes[1].traffic([Act::Hold]);
    let good = whole.checks(1, "good");
    until("probes are good", || whole.checks(1, "good") > good + 2);
    assert_eq!(whole.node(1).state, "ejected");
    nodes[1].traffic([Act::Ok("b")]);
    until("it has decided", || {
        whole.get();
        whole.node(1).state == "up"
    });
    assert_eq!(whole.changes(1, "up", "probation"), 1);
}

#[test]
fn what_fails_everywhere_ejects_nobody() {
    listen();
    let (a, b) = (Actor::up("a"), Actor::up("b"));
    let whole = Whole::start("everywhere", &entries(&[&a, &b]), &more("round_robin")).until_up();
    [&a, &b].into_iter().for_each(half_broken);
    let compared =
        || said(&["a failing node is like the others", "upstream=\"everywhere\""]).len() >= 4;
    until("they were compared", || {
        whole.get();
        compared()
    });
    assert!((0..2).all(|index| whole.node(index).state == "up"));
    assert!((0..2).all(|index| whole.changes(index, "ejected", "ejection") == 0));
}

#[test]
fn without_an_error_ratio_only_a_row_ejects() {
    let (a, b) = (Actor::up("a"), Actor::up("b"));
    let off = format!("{}error_ratio = \"0%\"\n", more("round_robin"));
    let whole = Whole::start("norat", &entries(&[&a, &b]), &off).until_up();
    half_broken(&a);
    let begun = Instant::now();
    until("two comparisons would have been made", || {
        whole.get();
        a.requests() > 40 && begun.elapsed() > Duration::from_secs(2)
    });
    assert_eq!(whole.changes(0, "ejected", "ejection"), 0);
}
