//! The end of the program: nobody who was accepted is let down, and it ends in time.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use rustix::process::Signal;
use support::origin::{node, read_head};
use support::program::{Program, get, origin};
use support::{Answer, PATIENCE, until};

const ASK: &[u8] = b"GET /api/posts:list HTTP/1.1\r\nHost: t\r\n\r\n";
const HANDSHAKE: &[u8] =
    b"GET /ws HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
/// Connections that wait to be accepted.
const QUEUED: usize = 600;
/// A Close frame of a server, with code 1001, "going away".
const GOING_AWAY: [u8; 4] = [0x88, 2, 3, 0xe9];

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Asks on a connection that stays open.
fn ask(stream: &mut TcpStream) -> Answer {
    stream.write_all(ASK).unwrap();
    Answer::read(stream).expect("an answer")
}

/// Opens a tunnel.
fn tunnel(address: SocketAddr) -> TcpStream {
    let mut stream = connect(address);
    stream.write_all(HANDSHAKE).unwrap();
    assert!(read_head(&mut stream).unwrap().starts_with("HTTP/1.1 101"));
    stream
}

/// It answers only those who ask for it by its address.
fn admin_status(admin: SocketAddr, path: &str) -> u16 {
    let mut stream = connect(admin);
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {admin}\r\n\r\n").unwrap();
    Answer::read(&mut stream).expect("an answer").status
}

fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn during_the_delay_it_is_not_ready_and_serves_on() {
    let node = node("answer");
    // Only the second signal ends this.
    let mut program = Program::with(node.address, "[server]\nshutdown_delay = \"10m\"\n");
    let (address, admin) = (program.address(), program.admin());
    let is = |path, status| admin_status(admin, path) == status;
    let mut kept = connect(address);
    assert_eq!(ask(&mut kept).text(), "answer");
    let mut open = tunnel(address);
    assert!(is("/readyz", 200));
    program.signal(Signal::TERM);
    until("it is not ready", || is("/readyz", 503));
    assert!(is("/livez", 200));
    assert!(get(address, "/new").unwrap().ends_with("answer"), "new connections are served");
    let again = ask(&mut kept);
    assert_eq!((again.status, again.field("connection")), (200, None), "kept ones stay");
    open.write_all(b"\x81\x80abcd").unwrap();
    let mut echo = [0; 6];
    open.read_exact(&mut echo).unwrap();
    program.signal(Signal::TERM);
    assert_eq!(program.exit_code(), Some(130));
}

#[test]
fn what_runs_is_finished_and_connections_are_told_to_close() {
    let (node, slow) = origin();
    let mut program = Program::start(node);
    let address = program.address();
    let mut idle = connect(address);
    assert_eq!(ask(&mut idle).field("connection"), None);
    let mut busy = connect(address);
    assert_eq!(ask(&mut busy).field("connection"), None);
    busy.write_all(b"GET /slow HTTP/1.1\r\nHost: t\r\n\r\n").unwrap();
    let release = slow.recv().unwrap();
    program.signal(Signal::TERM);
    until("no more connections", || TcpStream::connect(address).is_err());
    assert!(rest(&mut idle).is_empty(), "idle connections are closed");
    release.send(()).unwrap();
    let answer = Answer::read(&mut busy).expect("an answer");
    assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
    assert_eq!(answer.field("connection"), Some("close"));
    assert!(rest(&mut busy).is_empty());
    assert_eq!(program.exit_code(), Some(0));
    program.until_said("all work is done");
}

#[test]
fn what_waits_in_the_accept_queue_is_served() {
    let node = node("answer");
    let mut program = Program::with(node.address, "[server]\nthreads = 1\n");
    let address = program.address();
    // It finds them and the signal in the same moment, and they are more than it accepts at one go.
    program.signal(Signal::STOP);
    let mut queued: Vec<TcpStream> = (0..QUEUED).map(|_| connect(address)).collect();
    for stream in &mut queued {
        stream.write_all(ASK).unwrap();
    }
    program.signal(Signal::TERM);
    program.signal(Signal::CONT);
    for (n, stream) in queued.iter_mut().enumerate() {
        let answer = Answer::read(stream).unwrap_or_else(|| panic!("{n} was lost"));
        assert_eq!((answer.status, answer.text().as_str()), (200, "answer"), "{n}");
    }
    drop(queued);
    assert_eq!(program.exit_code(), Some(0));
    program.until_said("all work is done");
    assert_eq!(program.log().matches("\"status\":200").count(), QUEUED);
}

#[test]
fn tunnels_are_told_that_it_goes_away() {
    let node = node("answer");
    let mut program = Program::with(node.address, "[server]\nshutdown_timeout = \"8s\"\n");
    let address = program.address();
    let mut tunnels: Vec<TcpStream> = (0..20).map(|_| tunnel(address)).collect();
    program.signal(Signal::TERM);
    for stream in &mut tunnels {
        assert_eq!(rest(stream), GOING_AWAY);
    }
    drop(tunnels);
    assert_eq!(program.exit_code(), Some(0));
    program.until_said("all work is done");
}

#[test]
fn what_does_not_end_is_cut_after_the_time() {
    let (node, slow) = origin();
    let mut program = Program::with(node, "[server]\nshutdown_timeout = \"500ms\"\n");
    let mut stuck = connect(program.address());
    stuck.write_all(b"GET /slow HTTP/1.1\r\nHost: t\r\n\r\n").unwrap();
    let _release = slow.recv().unwrap();
    program.signal(Signal::TERM);
    assert_eq!(program.exit_code(), Some(0));
    program.until_said("cut: 1 requests, 0 tunnels");
    assert!(Answer::read(&mut stuck).is_none());
}
