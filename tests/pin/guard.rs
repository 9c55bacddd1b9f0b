//! `guard_changes`: an explanation instead of half a change.

use serde_json::Value;

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
