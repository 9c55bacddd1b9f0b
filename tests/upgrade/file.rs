//! What the file of the new process has to do with that of the old one.

use super::*;
use crate::support::ports::free;

#[test]
fn a_process_that_cannot_start_leaves_the_old_one_in_place() {
    let node = node("answer");
    let line = Line::start(node.address, "[server]\nupgrade_timeout = \"10s\"\n");
    let good = line.read();
    let reigning = line.reigning();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = format!("[probes]\nbind = \"{}\"\n", taken.local_addr().unwrap());
    for (text, expected) in [
        ("[[listener]]\nbimd = 1\n".to_owned(), "did you mean `bind`"),
        (format!("{good}{taken}"), "Address already in use"),
    ] {
        line.write(&text);
        let output = line.say(&["upgrade"]);
        let error = shown(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.contains(expected) && error.contains("goes on"), "{error}");
        assert_eq!(line.reigning(), reigning);
        assert!(get(line.address, "/").unwrap().ends_with("answer"));
    }
    line.first.until_said("the upgrade failed; this process goes on");
    let metrics = admin(&line, "/metrics");
    assert!(metrics.contains("cobalance_upgrades_total{result=\"failed\"} 2"), "{metrics}");
}

#[test]
fn a_file_that_was_found_bad_or_takes_a_pinned_node_away_is_not_taken_over() {
    let node = node("answer");
    let mut line = Line::start(node.address, SOON);
    let good = line.read();
    let refused = |line: &Line, expected: &str| {
        let output = line.say(&["upgrade"]);
        let error = shown(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.contains(expected) && error.contains("goes on"), "{error}");
    };
    line.write(&good.replace("threads = 2", "threads = 2\nprobation_requests = 7"));
    assert!(line.say(&["reload"]).status.success());
    assert!(line.say(&["rollback"]).status.success());
    refused(&line, "configuration 2 was rolled back to 1");
    line.write(&good);
    assert!(line.say(&["reload"]).status.success());
    assert!(line.say(&["pin", &node.address.to_string(), "--force"]).status.success());
    line.write(&good.replace(&node.address.to_string(), "127.0.0.1:9"));
    refused(&line, "is pinned, and this configuration removes it");
    // One that is only watched is taken, and that is told.
    line.write(&good.replace("threads = 2", "threads = 2\nprobation_requests = 8"));
    assert!(line.say(&["reload"]).status.success());
    line.upgrade();
    line.first.until_said("its probation is not over: the new process takes it as passed");
    assert_eq!(config_in_use(&line)["probation"], serde_json::Value::Null);
}

#[test]
fn a_port_that_nobody_wants_any_more_is_closed() {
    let node = node("answer");
    let free = free();
    let mut line = Line::start(node.address, &format!("[probes]\nbind = \"{free}\"\n{SOON}"));
    until("probes are served", || TcpStream::connect(free).is_ok());
    let text = line.read();
    line.write(&text.replace(&format!("[probes]\nbind = \"{free}\"\n"), ""));
    line.upgrade();
    assert_eq!(line.first.exit_code(), Some(0));
    until("nobody listens", || TcpStream::connect(free).is_err());
}

#[test]
fn probes_move_to_another_host_on_their_port() {
    let node = node("answer");
    let free = free();
    let mut line = Line::start(node.address, &format!("[probes]\nbind = \"{free}\"\n{SOON}"));
    until("probes are served", || get(free, "/livez").is_ok());
    let everywhere = format!("0.0.0.0:{}", free.port());
    line.write(&line.read().replace(&free.to_string(), &everywhere));
    line.upgrade();
    // Only whoever listens everywhere is here as well.
    let elsewhere: SocketAddr = ([127, 0, 0, 2], free.port()).into();
    until("probes are elsewhere", || {
        get(elsewhere, "/livez").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200 "))
    });
    until("no warning", || !admin(&line, "/api/v1/status").contains("cannot be served"));
    assert!(!line.first.has_said("generation=2"), "it is the new process that took the file");
}
