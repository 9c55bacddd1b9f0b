//! `cobalance rollback` and what `status` says, as an operator uses them.

use std::fs;
use std::process::Output;

use crate::support::origin::Origin;
use crate::support::ports::Closed;
use crate::support::program::{Program, get};
use crate::support::until;
use crate::{ENOUGH, SHORT, text};

/// Exit code, and what was printed.
fn run(program: &Program, arguments: &[&str]) -> (i32, String) {
    let Output { status, stdout, stderr } = program.command(arguments).output().unwrap();
    (status.code().unwrap(), String::from_utf8([stdout, stderr].concat()).unwrap())
}

#[test]
fn the_table_names_the_command_and_the_command_goes_back() {
    let (origin, nobody) = (Origin::ok("a"), Closed::new());
    let program = Program::of(tempfile::tempdir().unwrap(), &text(SHORT, &[origin.address], ""));
    let ask = || get(program.address(), "/x").unwrap();
    assert!((0..ENOUGH).all(|_| ask().starts_with("HTTP/1.1 200 ")));
    let (code, told) = run(&program, &["rollback"]);
    assert!(code == 1 && told.contains("there is nothing to go back to"), "{told}");
    fs::write(&program.file, text(SHORT, &[nobody.address], "")).unwrap();
    assert_eq!(run(&program, &["reload"]).0, 0);
    let table = || run(&program, &["status"]).1;
    assert!(table().contains("on probation "), "{}", table());
    until("it is found worse", || {
        (0..10).for_each(|_| drop(ask()));
        table().contains("WORSE than what was in use before it: `cobalance rollback`")
    });
    let table = table();
    assert!(table.contains("goes back to configuration 1"), "{table}");
    let line = program.until_said("does worse than what was in use before");
    assert!(line.contains("ERROR") && line.contains("no connection to a node"), "{line}");
    let (code, told) = run(&program, &["rollback"]);
    assert_eq!(code, 0, "{told}");
    assert!(
        told.starts_with("rolled back from configuration 2: 3 is in use, as 1 was\n"),
        "{told}"
    );
    assert!(told.contains("note: the file on disk is another one now"), "{told}");
    assert!(ask().starts_with("HTTP/1.1 200 "));
    let (_, table) = run(&program, &["status"]);
    assert!(
        table.contains("from configuration 2 to 1: THE FILE ON DISK IS NOT WHAT RUNS"),
        "{table}"
    );
    assert!(program.until_said("is not what runs").contains("ERROR"));
    let (code, told) = run(&program, &["rollback"]);
    assert!(code == 1 && told.contains("was rolled back to 1 already"), "{told}");
}
