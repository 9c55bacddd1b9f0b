//! `cobalance drain` and `ready` as a script uses them: what they print, and their exit codes.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Output, Stdio};
use std::sync::mpsc;

use cobalance::control::status::{NodeStatus, Status};

use crate::support::origin::node;
use crate::support::ports::Closed;
use crate::support::program::{Program, get, origin};
use crate::support::{Answer, until};
use crate::{RESTART, tunnel};

/// A program with these nodes, called n0, n1 and so on, all up.
fn start(nodes: &[SocketAddr]) -> Program {
    let dir = tempfile::tempdir().unwrap();
    let text = text(nodes, "1");
    let program = Program::of(dir, &text);
    until("all are up", || status(&program).iter().all(|node| node.state == "up"));
    program
}

fn text(nodes: &[SocketAddr], weight: &str) -> String {
    let entry = |(n, node): (usize, &SocketAddr)| {
        format!("{{ name = \"n{n}\", address = \"{node}\", weight = {weight} }}")
    };
    let nodes: Vec<String> = nodes.iter().enumerate().map(entry).collect();
    format!(
        "[server]\nthreads = 2\n[[listener]]\nname = \"public\"\nbind = \"127.0.0.1:0\"\n\
         [admin]\nbind = \"127.0.0.1:0\"\n[access_log]\nenabled = false\n[upstream.app]\n\
         nodes = [{}]\n[upstream.app.health_check]\ninterval = \"50ms\"\n",
        nodes.join(", ")
    )
}

fn status(program: &Program) -> Vec<NodeStatus> {
    let admin = program.admin();
    let mut stream = TcpStream::connect(admin).unwrap();
    write!(stream, "GET /api/v1/status HTTP/1.1\r\nHost: {admin}\r\n\r\n").unwrap();
    let body = Answer::read(&mut stream).expect("an answer").body;
    let status: Status = serde_json::from_slice(&body).unwrap();
    status.upstreams.into_iter().flat_map(|upstream| upstream.nodes).collect()
}

fn states(program: &Program) -> Vec<String> {
    status(program).into_iter().map(|node| node.state).collect()
}

/// Exit code, and what was printed.
fn run(program: &Program, arguments: &[&str]) -> (i32, String) {
    told(program.command(arguments).output().unwrap())
}

fn told(Output { status, stdout, stderr }: Output) -> (i32, String) {
    let told = String::from_utf8([stdout, stderr].concat()).unwrap();
    (status.code().unwrap(), told)
}

/// A command that goes on in the meantime.
fn begin(program: &Program, arguments: &[&str]) -> Child {
    let mut command = program.command(arguments);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// A program with two nodes, and a request that waits at the first until it is released.
struct Busy {
    program: Program,
    client: TcpStream,
    release: mpsc::Sender<()>,
    /// The node where it waits.
    busy: &'static str,
    idle: &'static str,
}

fn busy() -> Busy {
    let ((a, slow_a), (b, slow_b)) = (origin(), origin());
    let program = start(&[a, b]);
    let mut client = TcpStream::connect(program.address()).unwrap();
    client.write_all(b"GET /slow HTTP/1.1\r\nHost: t\r\n\r\n").unwrap();
    let mut held = None;
    until("the request is held", || {
        let at = |slow: &mpsc::Receiver<_>, busy, idle| Some((slow.try_recv().ok()?, busy, idle));
        held = at(&slow_a, "n0", "n1").or_else(|| at(&slow_b, "n1", "n0"));
        held.is_some()
    });
    let (release, busy, idle) = held.unwrap();
    Busy { program, client, release, busy, idle }
}

#[test]
fn wait_returns_when_what_ran_has_ended() {
    let Busy { program, mut client, release, busy, .. } = busy();
    let waiting = begin(&program, &["drain", busy, "--wait"]);
    until("it is drained", || states(&program).contains(&"draining".into()));
    let left = status(&program).into_iter().find(|node| node.name == busy).unwrap();
    assert_eq!((left.in_flight, left.tunnels), (1, 0));
    let (code, table) = run(&program, &["status"]);
    let row = table.lines().find(|line| line.contains("draining")).unwrap();
    assert!(code == 0 && row.ends_with("; 1 request in flight, 0 tunnels left"), "{table}");
    let line = program.until_said("to=\"draining\"");
    assert!(line.contains("cause=\"drained by the operator, from 127.0.0.1\""), "{line}");
    release.send(()).unwrap();
    assert_eq!(Answer::read(&mut client).expect("it is finished").text(), "ok");
    let (code, told) = told(waiting.wait_with_output().unwrap());
    assert_eq!(code, 0, "{told}");
    assert!(told.ends_with("nothing is left\n"), "{told}");
    let (code, told) = run(&program, &["ready", busy]);
    assert!(code == 0 && told.starts_with(&format!("{busy} is ready, and ")), "{told}");
    until("it is up", || states(&program) == ["up", "up"]);
}

#[test]
fn wait_moves_tunnels_within_its_window() {
    let nodes = [node("a"), node("b")];
    let program = start(&[nodes[0].address, nodes[1].address]);
    let mut tunnels: Vec<TcpStream> = (0..6).map(|_| tunnel(program.address())).collect();
    let readers: Vec<_> = tunnels
        .drain(..)
        .map(|mut stream| {
            std::thread::spawn(move || {
                let mut rest = Vec::new();
                stream.read_to_end(&mut rest).map(|_| rest)
            })
        })
        .collect();
    let (code, told) = run(&program, &["drain", "n0", "--wait", "--window", "2s"]);
    assert_eq!(code, 0, "{told}");
    // One may have been moved by the time that this is told.
    assert!(told.starts_with("n0 is draining: 0 requests in flight, "), "{told}");
    assert!(told.ends_with("nothing is left\n"), "{told}");
    until("three are told", || readers.iter().filter(|one| one.is_finished()).count() == 3);
    let told = readers.into_iter().filter(|one| one.is_finished());
    assert!(told.map(|one| one.join().unwrap().unwrap()).all(|rest| rest == RESTART));
    assert_eq!(status(&program)[1].tunnels, 3, "the others stay");
}

#[test]
fn a_time_out_has_a_code_of_its_own_and_the_node_stays_drained() {
    let Busy { program, busy, client: _client, release: _release, .. } = busy();
    let (code, told) = run(&program, &["drain", busy, "--wait", "--timeout", "300ms"]);
    assert_eq!(code, 75, "{told}");
    assert!(told.contains("not empty in time, and still drained"), "{told}");
    assert!(told.contains("1 request in flight"), "{told}");
    assert!(states(&program).contains(&"draining".into()));
}

#[test]
fn somebody_else_s_ready_ends_the_wait() {
    let Busy { program, busy, client: _client, release: _release, .. } = busy();
    let waiting = begin(&program, &["drain", busy, "--wait"]);
    until("it is drained", || states(&program).contains(&"draining".into()));
    assert_eq!(run(&program, &["ready", busy]).0, 0);
    let (code, told) = told(waiting.wait_with_output().unwrap());
    assert_eq!(code, 1, "{told}");
    assert!(told.contains("was made ready meanwhile"), "{told}");
}

#[test]
fn what_must_not_be_is_refused_with_a_reason() {
    let Busy { program, busy, idle, client: _client, release: _release } = busy();
    let (code, told) = run(&program, &["drain", "n7"]);
    assert_eq!(code, 1);
    assert!(told.contains("no node `n7`, did you mean `n0`?; known: n0, n1"), "{told}");
    assert_eq!(run(&program, &["drain", idle]).0, 0);
    let (code, told) = run(&program, &["drain", busy]);
    assert_eq!(code, 1);
    assert!(told.contains("is the last node of upstream `app`"), "{told}");
    assert!(told.contains("--force"), "{told}");
    let (code, told) = run(&program, &["drain", busy, "--force"]);
    assert_eq!(code, 0, "{told}");
    assert_eq!(states(&program), ["draining", "draining"]);
    assert!(get(program.address(), "/").unwrap().starts_with("HTTP/1.1 503 "));
}

#[test]
fn a_drained_node_stays_so_over_a_reload_and_a_restart() {
    let nodes = [node("a"), node("b")];
    let addresses = [nodes[0].address, nodes[1].address];
    let mut program = start(&addresses);
    let (code, told) = run(&program, &["drain", "n0"]);
    assert_eq!((code, told.as_str()), (0, "n0 is draining: nothing left\n"));
    fs::write(&program.file, text(&addresses, "2")).unwrap();
    assert_eq!(run(&program, &["reload"]).0, 0);
    assert_eq!(states(&program), ["draining", "up"]);
    program.restart();
    until("the other is up", || states(&program) == ["draining", "up"]);
    let cause = status(&program)[0].cause.clone();
    assert_eq!(cause, "drained by the operator, from 127.0.0.1");
    for _ in 0..20 {
        assert!(get(program.address(), "/").unwrap().ends_with('b'));
    }
    assert_eq!(run(&program, &["ready", "n0"]).0, 0);
    program.restart();
    until("both are up", || states(&program) == ["up", "up"]);
}

#[test]
fn a_node_whose_check_fails_gets_nothing_when_it_is_ready() {
    let a = node("a");
    let closed = Closed::new();
    let nodes = [a.address, closed.address];
    let program = Program::of(tempfile::tempdir().unwrap(), &text(&nodes, "1"));
    until("one is up and one down", || states(&program) == ["up", "down"]);
    assert_eq!(run(&program, &["drain", "n1"]).0, 0);
    let (code, told) = run(&program, &["ready", "n1"]);
    assert!(code == 0 && told.starts_with("n1 is ready, and "), "{told}");
    until("its check still counts", || states(&program) == ["up", "down"]);
    assert!(get(program.address(), "/").unwrap().ends_with('a'));
}
