use std::sync::Arc;

use parking_lot::Mutex;

use super::*;

#[test]
fn a_demo_tells_of_failover_and_loses_nothing() {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let options =
        Options { listen: local(0), admin: local(0), lasting: Some(Duration::from_secs(14)) };
    let told = lines.clone();
    let summary = run(&options, move |line| told.lock().push(line.to_owned())).unwrap();
    let story = lines.lock().join("\n");
    assert!(summary.mishaps >= 1, "{summary}\n{story}");
    assert!(summary.answered > 50, "{summary}\n{story}");
    let (_, after) = story.split_once("node1 is killed").expect(&story);
    let seen = ["cobalance: node1 is down", "cobalance: node1 is ejected"];
    assert!(seen.iter().any(|seen| after.contains(seen)), "{story}");
    assert_eq!(summary.by_node.len(), 3, "{summary}\n{story}");
    // Whatever befalls a node, what only reads is answered by another, and nothing runs twice. Only a
    // POST that was inside the node when it was killed may fail: nobody knows whether it ran.
    assert_eq!(summary.failed_gets, 0, "{summary}\n{story}");
    assert_eq!((summary.ran_twice, summary.never_ran), (0, 0), "{summary}\n{story}");
    assert!(summary.failed_posts <= 4 * summary.mishaps, "{summary}\n{story}");
}

#[test]
fn a_taken_port_is_no_obstacle() {
    let taken = TcpListener::bind(local(0)).unwrap();
    let address = taken.local_addr().unwrap();
    let lines = Arc::new(Mutex::new(Vec::new()));
    let told = lines.clone();
    let teller = Teller::new(move |line| told.lock().push(line.to_owned()));
    assert_eq!(free(address, &teller), local(0));
    assert!(lines.lock()[0].contains(&address.to_string()));
    assert_eq!(free(local(0), &teller), local(0));
}
