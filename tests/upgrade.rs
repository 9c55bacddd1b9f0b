//! The program itself, upgraded while it works: nobody who uses it notices.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

#[path = "upgrade/file.rs"]
mod file;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use support::origin::{node, read_head};
use support::program::{Program, get, text};
use support::{Answer, PATIENCE, until};

const HANDSHAKE: &[u8] =
    b"GET /ws HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
/// A Close frame of a server, with code 1012, "service restart".
const SERVICE_RESTART: [u8; 4] = [0x88, 2, 3, 0xf4];
/// The same with code 1001, "going away".
const GOING_AWAY: [u8; 4] = [0x88, 2, 3, 0xe9];
/// Its tunnels move within half of that.
const SOON: &str = "[server]\nthreads = 2\nupgrade_drain_timeout = \"8s\"\n";

/// A program and those that take its place, all ended with the test.
struct Line {
    first: Program,
    /// Of those that have taken over.
    later: Vec<i32>,
    address: SocketAddr,
    admin: SocketAddr,
}

impl Line {
    fn start(node: SocketAddr, more: &str) -> Line {
        Line::of(Program::with(node, more))
    }

    fn of(first: Program) -> Line {
        let (address, admin) = (first.address(), first.admin());
        Line { first, later: Vec::new(), address, admin }
    }

    /// What a command says.
    fn say(&self, arguments: &[&str]) -> Output {
        self.first.command(arguments).output().unwrap()
    }

    /// Upgrades by the command; the number of the process that has taken over.
    fn upgrade(&mut self) -> i32 {
        let output = self.say(&["upgrade"]);
        let (out, error) = (shown(&output.stdout), shown(&output.stderr));
        assert!(output.status.success(), "{out}{error}");
        let pid = out.strip_prefix("process ").and_then(|rest| rest.split(' ').next());
        let pid = pid.unwrap_or_else(|| panic!("{out}")).parse().unwrap();
        self.later.push(pid);
        pid
    }

    /// The process that answers at the admin address.
    fn reigning(&self) -> i32 {
        let status = self.say(&["status", "--json"]);
        let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
        i32::try_from(status["pid"].as_i64().unwrap()).unwrap()
    }

    fn signal(&self, pid: i32, signal: Signal) {
        kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
    }

    /// Rewrites the configuration.
    fn write(&self, text: &str) {
        fs::write(&self.first.file, text).unwrap();
    }

    fn read(&self) -> String {
        fs::read_to_string(&self.first.file).unwrap()
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        for pid in &self.later {
            let pid = Pid::from_raw(*pid).unwrap();
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn is_alive(pid: i32) -> bool {
    // A process that has ended and that nobody has asked after is no more than its number.
    let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let ended = state.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z'));
    test_kill_process(Pid::from_raw(pid).unwrap()).is_ok() && !ended
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

fn tunnel(address: SocketAddr) -> TcpStream {
    let mut stream = connect(address);
    stream.write_all(HANDSHAKE).unwrap();
    assert!(read_head(&mut stream).unwrap().starts_with("HTTP/1.1 101"));
    stream
}

/// A load that goes on until it is told to stop; none of its requests may fail.
struct Load {
    stop: AtomicBool,
    answered: AtomicUsize,
}

impl Load {
    fn new() -> Load {
        Load { stop: AtomicBool::new(false), answered: AtomicUsize::new(0) }
    }

    /// On one connection for as long as it is kept, as browsers and pools do.
    fn kept(&self, address: SocketAddr) {
        let mut stream = connect(address);
        while !self.stop.load(SeqCst) {
            stream
                .write_all(b"POST /api/a:create HTTP/1.1\r\nHost: t\r\nContent-Length: 1\r\n\r\nx")
                .unwrap();
            let answer = Answer::read(&mut stream).expect("an answer on a kept connection");
            self.count(&answer);
            if answer.field("connection") == Some("close") {
                stream = connect(address);
            }
        }
    }

    /// On a connection each.
    fn single(&self, address: SocketAddr) {
        while !self.stop.load(SeqCst) {
            let mut stream = connect(address);
            let head = "GET /api/a:list HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n";
            stream.write_all(head.as_bytes()).unwrap();
            self.count(&Answer::read(&mut stream).expect("an answer on a new connection"));
        }
    }

    fn count(&self, answer: &Answer) {
        assert_eq!((answer.status, answer.text().as_str()), (200, "answer"));
        self.answered.fetch_add(1, SeqCst);
    }

    /// Runs while `work` does, and a little longer.
    fn during(&self, address: SocketAddr, work: impl FnOnce()) {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| self.kept(address));
                scope.spawn(|| self.single(address));
            }
            // Also a failure of the work must end the load.
            let _stop = Stop(&self.stop);
            self.more();
            work();
            self.more();
        });
    }

    fn more(&self) {
        let before = self.answered.load(SeqCst);
        until("the load goes on", || self.answered.load(SeqCst) > before + 200);
    }
}

struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

#[test]
fn five_upgrades_under_load_lose_nothing_whatever_the_number_of_threads() {
    let node = node("answer");
    let mut line = Line::start(node.address, SOON);
    let load = Load::new();
    load.during(line.address, || {
        for threads in [1, 4, 2, 3, 2] {
            let text = line.read();
            let (before, _) = text.split_once("threads = ").unwrap();
            let rest = "\nupgrade_drain_timeout = \"8s\"\n";
            line.write(&format!("{before}threads = {threads}{rest}"));
            let pid = line.upgrade();
            until("the new one answers", || line.reigning() == pid);
            load.more();
        }
    });
    assert_eq!(line.first.exit_code(), Some(0), "the first is done");
    let metrics = admin(&line, "/metrics");
    assert!(metrics.contains("cobalance_upgrades_total{result=\"ok\"} 5"), "{metrics}");
    let last = *line.later.last().unwrap();
    until("the others are done", || line.later.iter().all(|pid| *pid == last || !is_alive(*pid)));
    assert!(get(line.address, "/").unwrap().ends_with("answer"));
    println!("{} requests answered over 5 upgrades", load.answered.load(SeqCst));
}

/// A text frame of a client, with a mask of zeros, and as the origin sends it back.
const FRAME: &[u8; 10] = b"\x81\x84\0\0\0\0abcd";

#[test]
fn tunnels_are_passed_on_in_the_middle_of_their_frames() {
    let node = node("answer");
    let mut line = Line::start(node.address, SOON);
    let mut tunnels: Vec<TcpStream> = (0..200).map(|_| tunnel(line.address)).collect();
    // Each is at another place of a frame when the process changes, also inside a header.
    let place = |n: usize| n % FRAME.len();
    for (n, stream) in tunnels.iter_mut().enumerate() {
        stream.write_all(&FRAME[..place(n)]).unwrap();
    }
    let text = line.read();
    for threads in [3, 1] {
        line.write(&text.replace("threads = 2", &format!("threads = {threads}")));
        line.upgrade();
    }
    assert_eq!(line.first.exit_code(), Some(0), "nothing is left to the old one");
    let open = |line: &Line| {
        let status: serde_json::Value =
            serde_json::from_str(&admin(line, "/api/v1/status")).unwrap();
        status["upstreams"][0]["nodes"][0]["tunnels"].as_u64().unwrap()
    };
    until("the new one has all", || open(&line) == 200);
    for (n, stream) in tunnels.iter_mut().enumerate() {
        stream.write_all(&FRAME[place(n)..]).unwrap();
        let mut back = [0; FRAME.len()];
        stream.read_exact(&mut back).unwrap_or_else(|error| panic!("tunnel {n}: {error}"));
        assert_eq!(&back, FRAME, "tunnel {n}");
    }
    // One frame is still open at the end; the others know theirs, and get a Close frame between two.
    let open = tunnels.swap_remove(0);
    (&open).write_all(&FRAME[..5]).unwrap();
    line.signal(*line.later.last().unwrap(), Signal::TERM);
    for stream in &mut tunnels {
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, GOING_AWAY);
    }
}

#[test]
fn tunnels_that_cannot_be_passed_on_are_moved_in_slices_with_close_1012() {
    let node = node("answer");
    let mut line = Line::start(node.address, SOON);
    // What maintenance had decided of a client holds for the process that did.
    assert!(line.say(&["maintenance", "on", "--allow", "127.0.0.1"]).status.success());
    let mut tunnels: Vec<TcpStream> = (0..20).map(|_| tunnel(line.address)).collect();
    line.upgrade();
    // The upgrade itself has closed none: the last of them lives for a while.
    tunnels.iter_mut().for_each(|stream| stream.write_all(FRAME).unwrap());
    let mut echoed = 0;
    for stream in &mut tunnels {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        let echo = all.strip_suffix(&SERVICE_RESTART).unwrap_or_else(|| panic!("{all:?}"));
        echoed += usize::from(!echo.is_empty());
    }
    assert!(echoed > 0, "all were closed at once");
    drop(tunnels);
    assert_eq!(line.first.exit_code(), Some(0));
    line.first.until_said("all work is done");
    let mut again = tunnel(line.address);
    again.write_all(FRAME).unwrap();
    again.read_exact(&mut [0; 10]).unwrap();
}

#[test]
fn what_runs_is_finished_by_the_old_process() {
    let (node, slow) = support::program::origin();
    // It ends when its work is done; until then it has all the time that a slow machine needs.
    let mut line = Line::start(node, &SOON.replace("8s", "10m"));
    let mut busy = connect(line.address);
    busy.write_all(b"GET /slow HTTP/1.1\r\nHost: t\r\n\r\n").unwrap();
    let release = slow.recv().unwrap();
    let mut idle = connect(line.address);
    let ask = |stream: &mut TcpStream| {
        stream.write_all(b"GET /x HTTP/1.1\r\nHost: t\r\n\r\n").unwrap();
        Answer::read(stream).expect("an answer")
    };
    assert_eq!(ask(&mut idle).field("connection"), None);
    line.upgrade();
    line.first.until_said("has taken over; this one finishes 1 requests and passes 0 tunnels on");
    // A kept connection is closed by the answer to its next request, not before.
    let answer = ask(&mut idle);
    assert_eq!((answer.status, answer.field("connection")), (200, Some("close")));
    // What the old process has at the node is left, though the new one counts nothing.
    let told = shown(&line.say(&["drain", &node.to_string(), "--force"]).stdout);
    assert!(told.contains("nothing left in this process; process "), "{told}");
    assert!(told.trim_end().ends_with(", which was upgraded, may still use it"), "{told}");
    let asked = ["drain", &node.to_string(), "--force", "--wait", "--timeout", "1s"];
    let drained = line.say(&asked);
    let error = shown(&drained.stderr);
    assert_eq!(drained.status.code(), Some(75), "{error}");
    assert!(error.contains("which was upgraded, may still use it"), "{error}");
    let status = shown(&line.say(&["status"]).stdout);
    assert!(status.contains("which was upgraded, still finishes its work"), "{status}");
    release.send(()).unwrap();
    let answer = Answer::read(&mut busy).expect("an answer");
    assert_eq!((answer.status, answer.field("connection")), (200, Some("close")));
    assert_eq!(line.first.exit_code(), Some(0));
    let asked = ["drain", &node.to_string(), "--force", "--wait", "--timeout", "20s"];
    assert!(line.say(&asked).status.success(), "nothing is left");
}

/// What `status` says of the configuration.
fn config_in_use(line: &Line) -> serde_json::Value {
    let status: serde_json::Value = serde_json::from_str(&admin(line, "/api/v1/status")).unwrap();
    status["config"].clone()
}

/// What the admin listener answers.
fn admin(line: &Line, path: &str) -> String {
    let mut stream = connect(line.admin);
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", line.admin).unwrap();
    Answer::read(&mut stream).expect("an answer").text()
}

#[test]
fn what_operators_said_holds_and_health_is_known_from_the_start() {
    let nodes = [node("answer"), node("answer")];
    let dir = tempfile::tempdir().unwrap();
    let both = text(&dir, nodes[0].address, SOON).replace(
        &format!("\"{}\"", nodes[0].address),
        &format!("\"{}\", \"{}\"", nodes[0].address, nodes[1].address),
    );
    let mut line = Line::of(Program::of(dir, &both));
    let drained = nodes[1].address.to_string();
    until("both are up", || admin(&line, "/readyz").contains("2 of 2 nodes up"));
    assert!(line.say(&["drain", &drained]).status.success());
    line.upgrade();
    let status = line.say(&["status", "--json"]);
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    let known = status["upstreams"][0]["nodes"].as_array().unwrap();
    let states: Vec<_> = known.iter().map(|node| node["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["up", "draining"]);
    assert!(known[1]["cause"].as_str().unwrap().contains("drained by the operator"));
    let state = line.first.dir.path().join("state.json");
    assert!(fs::read_to_string(&state).unwrap().contains(&drained));
    assert!(line.say(&["ready", &drained]).status.success());
    assert!(!fs::read_to_string(&state).unwrap().contains(&drained), "the new one writes it");
}

#[test]
fn usr2_upgrades_as_well() {
    let node = node("answer");
    let mut line = Line::start(node.address, SOON);
    let before = line.reigning();
    line.first.signal(Signal::USR2);
    let said = line.first.until_said("has taken over; this one");
    let pid = said.split("process ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    line.later.push(pid);
    assert_ne!(before, pid);
    until("the new one answers", || line.reigning() == pid);
    assert_eq!(line.first.exit_code(), Some(0));
    // The new one listens to signals like the old one.
    line.signal(pid, Signal::TERM);
    until("its end", || !is_alive(pid));
    assert!(TcpStream::connect(line.address).is_err());
}

/// A directory with a program that is told from outside what it does, under the name of cobalance.
struct Stage {
    dir: tempfile::TempDir,
    node: support::origin::Origin,
}

impl Stage {
    fn program(&self) -> PathBuf {
        self.dir.path().join("cobalance")
    }

    fn new() -> Stage {
        let stage = Stage { dir: tempfile::tempdir().unwrap(), node: node("answer") };
        stage.put(env!("CARGO_BIN_EXE_cobalance").as_ref());
        stage
    }

    /// Puts this in the program's place, by another process: what a child of ours has open cannot be run.
    fn put(&self, from: &Path) {
        let new = self.dir.path().join("new");
        assert!(Command::new("install").arg(from).arg(&new).status().unwrap().success());
        fs::rename(new, self.program()).unwrap();
    }

    /// Puts a script there.
    fn replace(&self, script: &str) {
        let text = self.dir.path().join("script");
        fs::write(&text, format!("#!/bin/sh\n{script}\n")).unwrap();
        self.put(&text);
    }

    fn start(&self, more: &str) -> Line {
        let dir = tempfile::tempdir().unwrap();
        let text = text(&dir, self.node.address, more);
        let line = Line::of(Program::run(&self.program(), dir, &text));
        line.first.until_said("to=\"up\"");
        line
    }
}

#[test]
fn the_program_on_disk_is_started_one_at_a_time_and_not_for_ever() {
    let stage = Stage::new();
    let line = stage.start("[server]\nupgrade_timeout = \"10s\"\n");
    stage.replace("exit 7");
    let output = line.say(&["upgrade"]);
    let error = shown(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(error.contains("ended before it was ready (exit status: 7)"), "{error}");
    // One that hangs holds the others off, and orders too, until its time is over.
    stage.replace(&format!(
        "touch {}; exec sleep 600",
        line.first.dir.path().join("hangs").display()
    ));
    let first = std::thread::scope(|scope| {
        let first = scope.spawn(|| line.say(&["upgrade"]));
        until("it hangs", || line.first.dir.path().join("hangs").exists());
        let second = line.say(&["upgrade"]);
        assert_eq!(second.status.code(), Some(1));
        let error = shown(&second.stderr);
        assert!(error.contains("is under way already"), "{error}");
        let order = line.say(&["drain", &stage.node.address.to_string(), "--force"]);
        assert!(shown(&order.stderr).contains("an upgrade is under way"), "{order:?}");
        let back = line.say(&["rollback"]);
        assert!(shown(&back.stderr).contains("an upgrade is under way"), "{back:?}");
        // Nothing is lost by asking too early: the file is read when the upgrade has failed.
        line.write(&line.read().replace("[upstream.app]", "[upstream.app]\nretries = 1"));
        let reload = line.say(&["reload"]);
        assert!(shown(&reload.stderr).contains("an upgrade is under way"), "{reload:?}");
        first.join().unwrap()
    });
    assert_eq!(first.status.code(), Some(1));
    let error = shown(&first.stderr);
    assert!(error.contains("was not ready within 10 s"), "{error}");
    until("the file is in use", || config_in_use(&line)["generation"] == 2);
    let order = line.say(&["drain", &stage.node.address.to_string(), "--force"]);
    assert!(order.status.success(), "{order:?}");
}

#[test]
fn the_service_manager_learns_who_serves() {
    let dir = tempfile::tempdir().unwrap();
    let manager = UnixDatagram::bind(dir.path().join("notify")).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let told = || {
        let mut text = [0; 512];
        let length = manager.recv(&mut text).unwrap();
        shown(&text[..length])
    };
    let node = node("answer");
    let text = text(&dir, node.address, SOON);
    let notify = dir.path().join("notify");
    let first = Program::with_environment(dir, &text, &[("NOTIFY_SOCKET", notify.as_os_str())]);
    assert!(told().starts_with("READY=1\n"));
    let mut line = Line::of(first);
    line.first.signal(Signal::HUP);
    let reloading = told();
    let (first_line, rest) = reloading.split_once('\n').unwrap();
    assert_eq!(first_line, "RELOADING=1");
    let microseconds = rest.trim().strip_prefix("MONOTONIC_USEC=").unwrap();
    assert!(microseconds.parse::<u64>().unwrap() > 0);
    assert!(told().starts_with("READY=1\n"));
    let pid = line.upgrade();
    assert_eq!(told(), format!("MAINPID={pid}\n"));
    assert!(told().starts_with("READY=1\n"));
    // The old one ends without a word: the service does not.
    assert_eq!(line.first.exit_code(), Some(0));
    line.signal(pid, Signal::TERM);
    assert!(told().starts_with("STOPPING=1\n"));
    until("its end", || !is_alive(pid));
}

#[test]
fn what_is_no_upgrade_is_refused() {
    let output = Command::new(env!("CARGO_BIN_EXE_cobalance"))
        .args(["run", "--listen", "127.0.0.1:0", "--node", "127.0.0.1:9"])
        .env("COBALANCE_UPGRADE", "stdin")
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(shown(&output.stderr).contains("$COBALANCE_UPGRADE is set"), "{output:?}");
}
