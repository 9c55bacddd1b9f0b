//! What probes say.

use cobalance::demo::node::{Journal, Pace, Phase, StandIn};

use crate::support::actor::{Act, Actor, Whole, entries, entry};
use crate::support::until;
use crate::{AT_ONCE, QUICK};

const STARTING: Act = Act::Refuse(503, "APP_STARTING", "loading plugins");
const COMMANDING: Act = Act::Refuse(503, "APP_COMMANDING", "installing a plugin");

#[test]
fn nothing_goes_to_a_node_before_its_first_good_probe() {
    let (early, late) = (Actor::up("early"), Actor::new("late", Act::Hold));
    let whole = Whole::start("first", &entries(&[&early, &late]), QUICK);
    whole.until_state(0, "up");
    until("the late node is asked", || late.probes() > 0);
    for _ in 0..20 {
        assert_eq!(whole.get().text(), "early");
    }
    assert_eq!((whole.node(1).state.as_str(), late.requests()), ("unchecked", 0));
    late.health([Act::Ok("ok")]);
    whole.until_state(1, "up");
    until("it gets its share", || whole.get().text() == "late");
}

#[test]
fn without_a_node_clients_are_told_to_come_back_and_only_a_maintained_cluster_says_so() {
    let (a, b) = (Actor::new("a", Act::Hold), Actor::new("b", Act::Hold));
    let whole = Whole::start("none", &entries(&[&a, &b]), &format!("{AT_ONCE}{QUICK}"));
    let told = |maintaining: bool| {
        let answer = whole.get();
        assert_eq!((answer.status, answer.field("retry-after")), (503, Some("2")));
        let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(body["error"]["maintaining"], maintaining, "{body}");
        assert_eq!(body["error"]["status"], 503, "{body}");
    };
    told(false);
    a.health([COMMANDING]);
    whole.until_state(0, "maintaining");
    told(false);
    b.health([STARTING]);
    whole.until_state(1, "starting");
    told(true);
    // Outside the API nobody reads JSON.
    let page = whole.ask("GET", "/admin");
    assert_eq!((page.status, page.field("retry-after")), (503, Some("2")));
    assert!(page.text().starts_with("<!doctype html"), "{}", page.text());
    b.health([Act::Status(500)]);
    whole.until_state(1, "down");
    told(false);
    assert_eq!(a.requests() + b.requests(), 0);
    b.health([Act::Ok("ok")]);
    whole.until_state(1, "up");
    assert_eq!(whole.get().text(), "b");
}

#[test]
fn one_word_of_maintenance_takes_a_node_out_and_a_row_of_good_probes_brings_it_back() {
    let (a, b) = (Actor::up("a"), Actor::up("b"));
    let whole = Whole::start("word", &entries(&[&a, &b]), QUICK).until_up();
    a.health([COMMANDING, Act::Hold]);
    let node = whole.until_state(0, "maintaining");
    assert_eq!(whole.checks(0, "not_serving"), 1, "one is enough");
    let check = node.last_check.unwrap();
    assert_eq!(check.code.as_deref(), Some("APP_COMMANDING"));
    assert_eq!(check.message.as_deref(), Some("installing a plugin"));
    assert_eq!(node.cause, "APP_COMMANDING: installing a plugin");
    let before = a.requests();
    for _ in 0..10 {
        assert_eq!(whole.get().text(), "b");
    }
    assert_eq!(a.requests(), before);
    let good = whole.checks(0, "good");
    a.health([Act::Ok("ok"), Act::Hold]);
    until("a first good probe", || whole.checks(0, "good") == good + 1);
    assert_eq!(whole.node(0).state, "maintaining", "one good probe is not `rise`");
    a.health([Act::Ok("ok"), Act::Hold]);
    until("a second good probe", || whole.checks(0, "good") == good + 2);
    whole.until_state(0, "up");
    until("it gets its share", || whole.get().text() == "a");
}

#[test]
fn a_node_that_refuses_is_down_after_three_probes_and_no_client_notices() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let journal = Journal::default();
    let [a, b] = ["a", "b"].map(|name| StandIn::new(name, &journal).unwrap());
    runtime.block_on(async {
        for node in [&a, &b] {
            node.start(Pace::NONE).await;
            node.wait_for(|phase| *phase == Phase::Running).await;
        }
    });
    let nodes = [&a, &b].map(|node| format!("\"{}\"", node.address()));
    let whole = Whole::start("refusing", &nodes, QUICK).until_up();
    let served_by = |method, target| {
        let answer = whole.ask(method, target);
        assert!(answer.status == 200, "{answer:?}");
        answer.field("x-served-by").unwrap().to_owned()
    };
    let served = |by: &str| {
        let api = served_by("POST", "/api/app:getInfo");
        api == by || served_by("GET", "/") == by
    };
    until("both serve", || served("a"));
    until("both serve", || served("b"));
    runtime.block_on(a.kill());
    // While its probes still count up to three, requests find somebody else.
    until("it is down", || {
        assert!(!served("a"));
        whole.node(0).state == "down"
    });
    let node = whole.node(0);
    assert_eq!(node.last_check.unwrap().result, "refused");
    assert!(node.cause.starts_with("bad probes in a row: 3; "), "{}", node.cause);
    assert!(whole.checks(0, "refused") >= 3);
    runtime.block_on(a.start(Pace::NONE));
    whole.until_state(0, "up");
    until("it serves again", || served("a"));
}

#[test]
fn at_zero_nodes_those_that_are_merely_silent_or_odd_are_tried() {
    let (silent, odd) = (Actor::new("silent", Act::Hold), Actor::new("odd", Act::Ok("no")));
    let quick = format!("{AT_ONCE}{}", QUICK.replace("20s", "100ms"));
    let whole = Whole::start("open", &entries(&[&silent, &odd]), &quick);
    whole.until_state(0, "down");
    whole.until_state(1, "down");
    let answers: Vec<String> = (0..10).map(|_| whole.get().text()).collect();
    assert!(answers.contains(&"silent".into()) && answers.contains(&"odd".into()), "{answers:?}");
    // One that says what it does is believed.
    silent.health([COMMANDING]);
    whole.until_state(0, "maintaining");
    assert!((0..10).all(|_| whole.get().text() == "odd"));
    odd.health([Act::Status(500)]);
    until("its last verdict is a status", || {
        whole.node(1).last_check.is_some_and(|check| check.result == "status")
    });
    // A probe of it may take too long as well, on a slow machine; the next one tells.
    until("nobody is tried", || whole.get().status == 503);
    // Also when it then falls silent.
    silent.health([Act::Hold]);
    until("it is silent", || {
        whole.node(0).last_check.is_some_and(|check| check.result == "timeout")
    });
    until("nobody is tried", || whole.get().status == 503);
}

#[test]
fn the_last_node_is_not_taken_out_for_being_slow() {
    let (a, b) = (Actor::up("a"), Actor::up("b"));
    let quick = format!("{AT_ONCE}{}", QUICK.replace("20s", "100ms"));
    let whole = Whole::start("last", &entries(&[&a, &b]), &quick).until_up();
    b.health([COMMANDING]);
    whole.until_state(1, "maintaining");
    a.health([Act::Hold]);
    until("many time-outs", || whole.checks(0, "timeout") >= 6);
    assert_eq!(whole.node(0).state, "up");
    assert_eq!(whole.get().text(), "a");
    a.health([COMMANDING]);
    whole.until_state(0, "maintaining");
    assert_eq!(whole.get().status, 503, "a statement takes out the last one, too");
}

#[test]
fn task_nodes_and_disabled_nodes_get_no_traffic() {
    let [serve, task, disabled] = ["serve", "task", "disabled"].map(Actor::up);
    let nodes = [
        entry(&serve, ""),
        entry(&task, ", role = \"task\""),
        entry(&disabled, ", disabled = true"),
    ];
    let whole = Whole::start("roles", &nodes, &format!("{AT_ONCE}{QUICK}"));
    whole.until_state(0, "up");
    whole.until_state(1, "up");
    assert_eq!(whole.node(2).state, "disabled");
    assert_eq!(whole.node(1).role, "task");
    for _ in 0..20 {
        assert_eq!(whole.get().text(), "serve");
    }
    until("the task node is watched", || task.probes() > 1);
    assert_eq!(whole.status().upstreams[0].eligible, 1);
    serve.health([COMMANDING]);
    whole.until_state(0, "maintaining");
    let answer = whole.get();
    assert_eq!(answer.status, 503, "also when nobody else is left");
    assert_eq!((task.requests(), disabled.requests()), (0, 0));
}
