//! The program itself, told by signals.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)] // a test that fails here says where

mod support;

use std::fs;
use std::net::TcpStream;

use rustix::process::Signal;
use support::program::{Program, get, origin, text};
use support::until;

#[test]
fn hangup_reloads_and_usr1_reopens_the_log() {
    let (node, _slow) = origin();
    let program = Program::start(node);
    let address = program.address();
    fs::write(&program.file, text(&program.dir, node, "retries = 1\n")).unwrap();
    program.signal(Signal::HUP);
    program.until_said("SIGHUP: the configuration is read");
    program.until_said("the configuration is in use generation=2");
    fs::write(&program.file, "[[listener]]\nbimd = 1\n").unwrap();
    program.signal(Signal::HUP);
    program.until_said("generation 2 stays in use");
    assert!(get(address, "/before").unwrap().starts_with("HTTP/1.1 200 "));
    until("a line", || program.log().contains("/before"));
    let log = program.dir.path().join("access.log");
    fs::rename(&log, program.dir.path().join("access.log.1")).unwrap();
    program.signal(Signal::USR1);
    until("a new file", || log.exists());
    assert!(get(address, "/after").unwrap().starts_with("HTTP/1.1 200 "));
    until("a line", || program.log().contains("/after"));
    assert!(!program.log().contains("/before"));
}

#[test]
fn term_finishes_what_runs_and_exits_with_0() {
    let (node, slow) = origin();
    let mut program = Program::start(node);
    let address = program.address();
    let under_way = std::thread::spawn(move || get(address, "/slow"));
    let release = slow.recv().unwrap();
    program.signal(Signal::TERM);
    until("no more connections", || TcpStream::connect(address).is_err());
    release.send(()).unwrap();
    let answer = under_way.join().unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("ok"), "{answer}");
    assert_eq!(program.exit_code(), Some(0));
    program.until_said("all work is done");
    assert!(program.log().contains("/slow"), "the last lines are written");
}

#[test]
fn a_second_signal_ends_at_once() {
    let (node, slow) = origin();
    let mut program = Program::start(node);
    let address = program.address();
    let under_way = std::thread::spawn(move || get(address, "/slow"));
    let _release = slow.recv().unwrap();
    program.signal(Signal::INT);
    program.until_said("SIGINT: ending");
    program.signal(Signal::TERM);
    assert_eq!(program.exit_code(), Some(130));
    program.until_said("cut: 1 requests");
    assert!(!under_way.join().unwrap().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")));
}
