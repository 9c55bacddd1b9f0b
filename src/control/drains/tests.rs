use std::fs;
use std::sync::Arc;

use super::*;
use crate::control::maintenance::{MOST_ALLOWED, MOST_MESSAGE};
use crate::control::tests::support;
use crate::telemetry::metrics::Metrics;
use crate::upstream::{NodeKey, Registry};

fn node(registry: &mut Registry, name: &str, label: &str, address: &str) -> Arc<Node> {
    let address = Some(address.parse().unwrap());
    let key = NodeKey { upstream: "app".into(), name: name.into(), address };
    registry.node(key, label.into())
}

fn registry() -> Registry {
    Registry::new(1, Metrics::new())
}

#[test]
fn a_node_is_known_by_its_name_wherever_it_is() {
    let mut registry = registry();
    let here = node(&mut registry, "a:1", "a:1", "10.0.0.1:1");
    let there = node(&mut registry, "a:1", "a:1", "10.0.0.2:1");
    let one = node(&mut registry, "b:1", "b:1#10.0.0.3", "10.0.0.3:1");
    let two = node(&mut registry, "b:1", "b:1#10.0.0.4", "10.0.0.4:1");
    let mut drains = Drains::default();
    drains.add(&here, "a:1", "x");
    drains.add(&one, "b:1#10.0.0.3", "x");
    assert!(drains.of(&there).is_some(), "a container that comes back elsewhere");
    assert!(drains.of(&one).is_some() && drains.of(&two).is_none());
    // The other has left the name, which now stands for one node.
    let alone = node(&mut registry, "b:1", "b:1", "10.0.0.3:1");
    assert!(drains.of(&alone).is_some());
    drains.add(&two, "b:1", "x");
    assert!(drains.of(&two).is_some());
}

#[test]
fn ready_takes_out_one_of_those_that_were_drained_together() {
    let mut registry = registry();
    let one = node(&mut registry, "b:1", "b:1#10.0.0.3", "10.0.0.3:1");
    let two = node(&mut registry, "b:1", "b:1#10.0.0.4", "10.0.0.4:1");
    let mut drains = Drains::default();
    drains.add(&one, "b:1", "x");
    drains.remove(&one, [&*one, &*two].into_iter());
    assert!(drains.of(&one).is_none() && drains.of(&two).is_some());
    drains.remove(&two, [&*one, &*two].into_iter());
    assert_eq!(drains, Drains::default());
}

#[test]
fn what_is_configured_no_more_is_forgotten() {
    let mut registry = registry();
    let config = support::config(&["a:1", "b:1"]);
    let mut drains = Drains::default();
    for (name, label) in [("a:1", "a:1"), ("b:1", "b:1#10.0.0.3"), ("c:1", "c:1")] {
        drains.add(&node(&mut registry, name, label, "10.0.0.3:1"), label, "x");
    }
    let gone = drains.retain(&config);
    assert_eq!(gone.iter().map(|one| one.node.as_str()).collect::<Vec<_>>(), ["c:1"]);
    assert_eq!(drains.all.len(), 2);
}

#[test]
fn there_is_a_bound() {
    let mut registry = registry();
    let mut drains = Drains::default();
    for n in 0..MOST {
        let name = format!("n{n}");
        assert!(drains.has_room(1));
        drains.add(&node(&mut registry, &name, &name, "10.0.0.3:1"), &name, "x");
    }
    assert!(!drains.has_room(1));
    // As long as anybody can make it: characters that take six bytes each.
    drains.maintained = (0..MOST).map(|n| longest(&format!("{n:0>63}"))).collect();
    let text = drains.render();
    assert!(text.len() <= MOST_BYTES, "{}", text.len());
    assert_eq!(Drains::parse(&text).unwrap(), drains);
}

fn longest(upstream: &str) -> Maintained {
    Maintained {
        upstream: upstream.into(),
        allow: vec!["1111:1111:1111:1111:1111:1111:1111:0000/112".into(); MOST_ALLOWED],
        pass: Some("f".repeat(64)),
        node: Some("n".repeat(63)),
        message: "\u{1}".repeat(MOST_MESSAGE),
        from: "1111:1111:1111:1111:1111:1111:1111:1111".into(),
        since: u64::MAX,
    }
}

#[test]
fn what_could_not_be_read_back_is_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.json");
    save(&path, "{}").unwrap();
    let error = save(&path, &" ".repeat(MOST_BYTES + 1)).unwrap_err().to_string();
    assert_eq!(error, "it would be larger than 16 MiB");
    assert_eq!(fs::read_to_string(&path).unwrap(), "{}");
    // A directory in its place: what was begun is cleared away.
    let taken = dir.path().join("taken");
    fs::create_dir_all(taken.join("x")).unwrap();
    assert!(save(&taken, "{}").is_err());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "nothing else is left");
}

#[test]
fn an_address_that_is_gone_is_told_then_forgotten() {
    let mut registry = registry();
    let one = node(&mut registry, "b:1", "b:1#10.0.0.3", "10.0.0.3:1");
    let two = node(&mut registry, "b:1", "b:1#10.0.0.4", "10.0.0.4:1");
    let mut drains = Drains::default();
    drains.add(&one, "b:1#10.0.0.3", "x");
    drains.add(&two, "b:1#10.0.0.4", "x");
    let absent = |drains: &Drains| -> Vec<String> {
        drains.absent("app").map(|drained| drained.node.clone()).collect()
    };
    let (both, left) = ([&*one, &*two], [&*two]);
    let at = |minutes: u64| Duration::from_secs(60 * minutes);
    assert_eq!(drains.sweep(both.into_iter(), at(0)), []);
    assert_eq!(absent(&drains), Vec::<String>::new());
    assert_eq!(drains.sweep(left.into_iter(), at(1)), []);
    assert_eq!(absent(&drains), ["b:1#10.0.0.3"]);
    // It was back in between: the hour begins anew.
    drains.sweep(both.into_iter(), at(50));
    assert_eq!(drains.sweep(left.into_iter(), at(51)), []);
    assert_eq!(drains.sweep(left.into_iter(), at(110)), []);
    assert_eq!(drains.sweep(left.into_iter(), at(111))[0].node, "b:1#10.0.0.3");
    assert!(drains.of(&one).is_none() && drains.of(&two).is_some());
}

#[test]
fn ready_takes_out_what_means_no_node_any_more() {
    let mut registry = registry();
    let one = node(&mut registry, "b:1", "b:1#10.0.0.3", "10.0.0.3:1");
    let two = node(&mut registry, "b:1", "b:1#10.0.0.4", "10.0.0.4:1");
    let drained = || {
        let mut drains = Drains::default();
        drains.add(&one, "b:1#10.0.0.3", "x");
        drains.add(&two, "b:1#10.0.0.4", "x");
        drains
    };
    let left = [&*two];
    for (upstream, text, gone) in [
        (None, "b:1#10.0.0.3", 1),
        (Some("app"), "b:1#10.0.0.3", 1),
        (Some("other"), "b:1#10.0.0.3", 0),
        (None, "b:1", 1),
        (None, "b:1#10.0.0.4", 0),
        (None, "b", 0),
    ] {
        let mut drains = drained();
        assert_eq!(drains.remove_absent(upstream, text, left.into_iter()).len(), gone, "{text}");
        assert!(drains.of(&two).is_some(), "{text}");
    }
}

#[test]
fn what_is_saved_is_loaded_and_a_second_time_replaces_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.json");
    assert_eq!(Drains::load(&path).unwrap(), Drains::default());
    let mut registry = registry();
    let mut drains = Drains::default();
    for name in ["a:1", "b:1"] {
        drains.add(&node(&mut registry, name, name, "10.0.0.1:1"), name, "127.0.0.1");
        save(&path, &drains.render()).unwrap();
        assert_eq!(Drains::load(&path).unwrap(), drains);
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing else is left");
    let before_maintenance = Drains::parse("{\"version\":1,\"drained\":[]}").unwrap();
    assert_eq!(before_maintenance, Drains::default());
    assert!(save(&dir.path().join("missing/state.json"), "").is_err());
}

#[test]
fn what_is_not_ours_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.json");
    let long = format!("{{\"version\":1,\"drained\":[],\"x\":\"{}\"}}", "x".repeat(MOST_BYTES));
    let cases = [
        ("", "EOF"),
        ("{\"version\":1,\"drained\":[{\"upstr", "EOF"),
        ("1", "Versioned"),
        ("{\"version\":2,\"nodes\":{}}", "it is of version 2"),
        ("{\"version\":1,\"drained\":{}}", "sequence"),
        (&long, "larger"),
    ];
    for (text, expected) in cases {
        fs::write(&path, text).unwrap();
        let error = Drains::load(&path).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    assert!(Drains::load(dir.path()).is_err(), "a directory");
}
