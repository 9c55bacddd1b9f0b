//! `cobalance maintenance` as an operator types it, over a reload and a restart.

use std::fs;
use std::net::SocketAddr;

use crate::support::origin::{Origin, node};
use crate::support::program::Program;
use crate::support::until;
use crate::{OTHER, RESTART, TESTER, ask, connect, frame, get, rest, websocket};

fn text(dir: &tempfile::TempDir, node: SocketAddr, weight: u32) -> String {
    format!(
        "[server]\nthreads = 1\n[[listener]]\nname = \"public\"\nbind = \"127.0.0.1:0\"\n\
         trusted_proxies = [\"127.0.0.0/8\"]\n[admin]\nbind = \"127.0.0.1:0\"\n\
         [access_log]\npath = \"{}/access.log\"\n[upstream.app]\n\
         nodes = [{{ name = \"n0\", address = \"{node}\", weight = {weight} }}]\n\
         [upstream.app.health_check]\ninterval = \"50ms\"\n",
        dir.path().display()
    )
}

fn start() -> (Program, Origin) {
    let (dir, node) = (tempfile::tempdir().unwrap(), node("n0"));
    let text = text(&dir, node.address, 1);
    let program = Program::of(dir, &text);
    program.until_said("to=\"up\"");
    (program, node)
}

/// Exit code, and what was printed.
fn run(program: &Program, arguments: &[&str]) -> (i32, String) {
    let output = program.command(arguments).output().unwrap();
    let told = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    (output.status.code().unwrap(), told)
}

#[test]
fn it_is_switched_shown_and_logged() {
    let (program, _node) = start();
    let allow = ["--allow", TESTER, "--allow", "10.0.0.0/8", "--node", "n0"];
    let on = [&["maintenance", "on", "--message", "Back at 9"], &allow[..]].concat();
    let (code, told) = run(&program, &on);
    assert_eq!(
        (code, told.as_str()),
        (0, "app is under maintenance; let through to n0: 203.0.113.7, 10.0.0.0/8\n")
    );
    let line = program.until_said("maintenance is on");
    for part in ["upstream=\"app\"", "from=127.0.0.1", "node=\"n0\""] {
        assert!(line.contains(part), "{line}");
    }
    let answer = get(program.address(), "/api/x:list", OTHER);
    assert!(answer.status == 503 && answer.text().contains("Back at 9"));
    assert_eq!(get(program.address(), "/", TESTER).text(), "n0");
    let (mut held, _) = websocket(program.address(), OTHER);
    assert_eq!(frame(&mut held)["payload"]["message"], "Back at 9");
    // It is counted when its answer has left.
    until("it is counted", || run(&program, &["status"]).1.contains("; WebSockets held: 1"));
    let (_, table) = run(&program, &["status"]);
    let row = table.lines().find(|line| line.contains("under maintenance")).unwrap();
    assert!(row.starts_with("app is under maintenance for ") && row.contains("from 127.0.0.1;"));
    assert!(row.ends_with("; WebSockets held: 1"), "{row}");
    let whole = |log: &str| log.ends_with('\n') && log.lines().count() == 3;
    until("all are in the access log", || whole(&program.log()));
    let log = program.log();
    assert_eq!(log.matches("\"reason\":\"maintenance\"").count(), 2, "{log}");
    assert!(log.contains(&format!("\"client\":\"{OTHER}\"")), "{log}");
    let (code, told) = run(&program, &["maintenance", "off"]);
    assert_eq!((code, told.as_str()), (0, "maintenance of app is over\n"));
    program.until_said("maintenance is off");
    assert_eq!(get(program.address(), "/", OTHER).text(), "n0");
    let (code, told) = run(&program, &["maintenance", "off", "--upstream", "app"]);
    assert_eq!((code, told.as_str()), (0, "app was not under maintenance\n"));
}

#[test]
fn it_lasts_over_a_reload_and_a_restart() {
    let (mut program, node) = start();
    assert_eq!(run(&program, &["maintenance", "on", "--message", "Back at 9"]).0, 0);
    fs::write(&program.file, text(&program.dir, node.address, 2)).unwrap();
    assert_eq!(run(&program, &["reload"]).0, 0);
    assert_eq!(get(program.address(), "/", OTHER).status, 503);
    program.restart();
    let answer = get(program.address(), "/", OTHER);
    assert!(answer.status == 503 && answer.text().contains("Back at 9"));
    assert_eq!(run(&program, &["maintenance", "off"]).0, 0);
    program.restart();
    program.until_said("to=\"up\"");
    assert_eq!(get(program.address(), "/", OTHER).text(), "n0");
}

#[test]
fn a_cookie_lets_through_over_a_reload_and_a_restart() {
    let (mut program, node) = start();
    let (code, told) = run(&program, &["maintenance", "on", "--cookie", "--node", "n0"]);
    assert!(code == 0 && told.contains("let through to n0: browsers with the cookie"), "{told}");
    let link = told.lines().last().unwrap().to_owned();
    let opened = get(program.address(), &link, OTHER);
    assert_eq!((opened.status, opened.field("location")), (303, Some("/")));
    let cookie = opened.field("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    let asked = |program: &Program| {
        let field = format!("Cookie: {cookie}\r\n");
        ask(&mut connect(program.address()), "GET /", &field)
    };
    assert_eq!(asked(&program).text(), "n0");
    let whole = |log: &str| log.ends_with('\n') && log.contains("cobalance-pass");
    until("it is logged", || whole(&program.log()));
    assert!(program.log().contains("cobalance-pass=***"), "{}", program.log());
    fs::write(&program.file, text(&program.dir, node.address, 2)).unwrap();
    assert_eq!(run(&program, &["reload"]).0, 0);
    assert_eq!(asked(&program).text(), "n0");
    program.restart();
    program.until_said("to=\"up\"");
    assert_eq!(asked(&program).text(), "n0");
    assert_eq!(get(program.address(), "/", OTHER).status, 503);
    let state = program.dir.path().join("state.json");
    let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(state).unwrap());
    assert_eq!(mode & 0o777, 0o600, "its key is nobody else's");
    let (_, status) = run(&program, &["status", "--json"]);
    assert!(status.contains("\"cookie\":true") && !status.contains("pass"), "{status}");
}

#[test]
fn a_reload_that_removes_the_upstream_ends_it() {
    let (program, node) = start();
    assert_eq!(run(&program, &["maintenance", "on"]).0, 0);
    let (mut held, _) = websocket(program.address(), OTHER);
    assert_eq!(frame(&mut held)["payload"]["code"], "APP_COMMANDING");
    let text = text(&program.dir, node.address, 1);
    fs::write(&program.file, text.replace("upstream.app", "upstream.other")).unwrap();
    assert_eq!(run(&program, &["reload"]).0, 0);
    program.until_said("under maintenance no more");
    until("the new upstream serves", || get(program.address(), "/", OTHER).status == 200);
    assert_eq!(frame(&mut held)["payload"]["code"], "APP_RUNNING");
    assert_eq!(rest(&mut held), RESTART);
    fs::write(&program.file, text).unwrap();
    assert_eq!(run(&program, &["reload"]).0, 0);
    until("the old one serves", || get(program.address(), "/", OTHER).status == 200);
}

#[test]
fn what_cannot_be_meant_is_told() {
    let (program, _node) = start();
    for (arguments, part) in [
        (&["--allow", "nobody"][..], "`nobody` is no address and no network"),
        (&["--upstream", "ap"], "did you mean `app`"),
        (&["--allow", TESTER, "--node", "n1"], "there is no node `n1`"),
    ] {
        let (code, told) = run(&program, &[&["maintenance", "on"], arguments].concat());
        assert!(code == 1 && told.contains(part), "{told}");
    }
    assert_eq!(run(&program, &["maintenance", "on", "--node", "n0"]).0, 2, "without --allow");
    assert_eq!(get(program.address(), "/", OTHER).status, 200, "nothing has changed");
}
