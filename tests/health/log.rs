//! What the access log tells of it.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::support::actor::{Act, Actor, Whole, entries};
use crate::support::files::written;
use crate::support::{Answer, read_to_end, until};
use crate::{AT_ONCE, QUICK};

/// The lines with this path.
fn lines(file: &Path, path: &str) -> Vec<Value> {
    let text = written(file);
    let parsed = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    parsed.filter(|line| line["path"] == path).collect()
}

/// The one line with this path, when it is there.
fn line(file: &Path, path: &str) -> Value {
    until("a line", || !lines(file, path).is_empty());
    let found = lines(file, path);
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].clone()
}

fn start(dir: &Path, name: &'static str, nodes: &[&Actor]) -> Whole {
    let log = format!("path = \"{}\"", dir.join("access.log").display());
    Whole::with_log(name, &entries(nodes), &format!("{AT_ONCE}{QUICK}"), &log).until_up()
}

#[test]
fn a_line_tells_of_each_attempt_and_of_both_ids() {
    let (a, b) = (Actor::up("a"), Actor::up("b"));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("access.log");
    let whole = start(dir.path(), "attempts", &[&a, &b]);
    a.traffic([Act::Close]);
    let before = a.requests();
    let mut n = 0;
    until("the node that closes was asked first", || {
        n += 1;
        assert_eq!(whole.ask("GET", &format!("/api/posts:list?n={n}")).text(), "b");
        a.requests() > before
    });
    let line = line(&file, &format!("/api/posts:list?n={n}"));
    let (first, second) = (&line["attempts"][0], &line["attempts"][1]);
    let sent = |node: &Actor| {
        let seen = node.origin.seen().into_iter().rfind(|seen| seen.head.contains("posts:list"));
        let seen = seen.unwrap();
        assert!(seen.head.contains(&format!("?n={n} ")));
        seen.head
    };
    let (to_a, to_b) = (sent(&a), sent(&b));
    assert_eq!(first["node"], whole.node(0).name.as_str());
    assert_eq!((&first["result"], &first["sent"]), (&"reset".into(), &to_a.len().into()), "{line}");
    assert_eq!(second["node"], whole.node(1).name.as_str());
    assert_eq!((&second["result"], &second["sent"]), (&"ok".into(), &to_b.len().into()), "{line}");
    assert_eq!(line["attempts"].as_array().unwrap().len(), 2);
    assert_eq!((&line["retried"], &line["status"]), (&true.into(), &200.into()));
    assert_eq!(line["node"], second["node"]);
    assert_eq!(line["action"], "posts:list");
    let ours = line["request_id"].as_str().unwrap();
    assert!(to_a.contains(&format!("X-Request-Id: {ours}\r\n")), "{to_a}");
    assert!(to_b.contains(&format!("X-Request-Id: {ours}\r\n")), "{to_b}");
    assert_eq!(line["upstream_request_id"], "of-the-node");
    assert_eq!(line.get("reason"), None, "{line}");
}

#[test]
fn a_line_gives_the_reason_of_our_own_answer() {
    let a = Actor::up("a");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("access.log");
    let whole = start(dir.path(), "reasons", &[&a]);
    a.traffic([Act::Close]);
    assert_eq!(whole.ask("POST", "/api/posts:create?lost").status, 502);
    let lost = line(&file, "/api/posts:create?lost");
    assert_eq!((&lost["status"], &lost["reason"]), (&502.into(), &"connection_terminated".into()));
    assert_eq!(lost["attempts"][0]["result"], "reset");
    assert!(lost["attempts"][0]["sent"].as_u64().unwrap() > 0);
    a.health([Act::Refuse(503, "APP_COMMANDING", "x")]);
    whole.until_state(0, "maintaining");
    let answer = whole.ask("GET", "/api/posts:list?nobody");
    assert_eq!(answer.status, 503);
    let nobody = line(&file, "/api/posts:list?nobody");
    let reason = (&nobody["status"], &nobody["reason"]);
    assert_eq!(reason, (&503.into(), &"destination_unavailable".into()));
    assert_eq!(nobody["attempts"], Value::Array(Vec::new()));
    assert_eq!(nobody["request_id"], answer.field("x-request-id").unwrap());
    // One that was refused before it had a path.
    let mut stream = whole.connect();
    std::io::Write::write_all(&mut stream, b"GET / HTTP/1.1\r\nHost : x\r\n\r\n").unwrap();
    assert!(read_to_end(&mut stream).starts_with("HTTP/1.1 400 "));
    let refused = |text: &str| text.contains("\"reason\":\"http_request_error\"");
    until("its line", || refused(&fs::read_to_string(&file).unwrap()));
}

#[test]
fn after_reopening_lines_go_to_the_new_file() {
    let a = Actor::up("a");
    let dir = tempfile::tempdir().unwrap();
    let (file, old) = (dir.path().join("access.log"), dir.path().join("access.log.1"));
    let whole = start(dir.path(), "reopen", &[&a]);
    assert_eq!(whole.ask("GET", "/before").status, 200);
    line(&file, "/before");
    fs::rename(&file, &old).unwrap();
    let mut kept = whole.send("GET", "/between");
    assert_eq!(Answer::read(&mut kept).unwrap().status, 200);
    line(&old, "/between");
    whole.running.handle().reopen_logs();
    until("a new file", || file.exists());
    assert_eq!(whole.ask("GET", "/after").status, 200);
    line(&file, "/after");
    assert!(lines(&old, "/after").is_empty() && lines(&file, "/before").is_empty());
}
