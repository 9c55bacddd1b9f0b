//! `guard_changes`: an explanation instead of half a change.

use cobalance::health::HealthState;
use serde_json::Value;

use super::support::origin::{self, Origin};
use super::support::{Proxy, config};
use super::*;

#[test]
fn changes_of_one_node_wait_until_it_serves_alone() {
    let rig = Rig::start("guarded", "guard_changes = true");
    let asked = |target: &str| rig.whole.ask("POST", target);
    for target in ["/api/pm:enable?filterByTk=x", "/api/backups:restore", "/api/app:restart"] {
        let answer = asked(target);
        assert_eq!((answer.status, answer.field("retry-after")), (409, None), "{target}");
        assert_eq!(answer.field("content-type"), Some("application/json; charset=utf-8"));
        let error = &serde_json::from_slice::<Value>(&answer.body).unwrap()["error"];
        assert_eq!(error["code"], "GUARDED_CHANGE");
        assert_eq!(error["maintaining"], false, "the page is not put under its overlay");
        let message = error["message"].as_str().unwrap();
        let name = target.strip_prefix("/api/").unwrap().split('?').next().unwrap();
        assert!(message.contains(&format!("`{name}`")) && message.contains("cobalance pin"));
    }
    assert!(rig.nodes.iter().all(|node| node.requests() == 0), "no node was asked");
    for target in ["/api/pm:list", "/api/backups:create", "/api/posts:create"] {
        assert_eq!(asked(target).status, 200, "{target}");
    }
    rig.pin("n1");
    assert_eq!(asked("/api/pm:enable?filterByTk=x").text(), "n1");
    rig.unpin();
    until("all are up", || rig.states() == ["up", "up", "up"]);
    assert_eq!(asked("/api/pm:enable?filterByTk=x").status, 409);
    // One that is left is alone as well.
    rig.say(Verb::Drain, "n0").unwrap();
    rig.say(Verb::Drain, "n2").unwrap();
    assert_eq!(asked("/api/pm:enable?filterByTk=x").text(), "n1");
}

#[test]
fn it_is_off_unless_it_is_asked_for() {
    let rig = Rig::start("unguarded", "");
    assert_eq!(rig.whole.ask("POST", "/api/pm:enable?filterByTk=x").status, 200);
}

#[test]
fn what_waited_is_looked_at_again() {
    let (open, gate) = origin::gate();
    let busy = Origin::scripted(move |mut line| {
        while line.request().is_some() {
            let _ = gate.lock().recv();
            line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        }
    });
    let other = Origin::ok("no");
    let more = "guard_changes = true\nmax_requests = 1\nqueue_timeout = \"20s\"";
    let proxy = Proxy::start(config(&[busy.address, other.address], "", more));
    proxy.node(1).set_health(HealthState::Down);
    let post = |target: &str| {
        let mut stream = proxy.connect();
        write!(stream, "POST {target} HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n\r\n").unwrap();
        stream
    };
    let mut first = post("/api/posts:create");
    until("it runs", || proxy.node(0).in_flight() == 1);
    let mut change = post("/api/pm:enable?filterByTk=x");
    until("it waits", || proxy.snapshot.upstreams[0].metrics.queue.get() == 1);
    // The only node that was up when it came is not alone any more when it would be asked.
    proxy.node(1).set_health(HealthState::Up);
    let answer = Answer::read(&mut change).unwrap();
    assert!(answer.status == 409 && answer.text().contains("GUARDED_CHANGE"), "{}", answer.text());
    assert!(other.seen().is_empty());
    open.send(()).unwrap();
    assert_eq!(Answer::read(&mut first).unwrap().status, 200);
}
