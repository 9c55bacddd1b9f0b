//! Unix sockets on both sides.

use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process};

use super::support::origin::{field, node, read_head};
use super::support::program::Program;
use super::support::{Answer, PATIENCE, until};

/// Lets an origin be reached over a Unix socket.
fn relay(path: &Path, to: SocketAddr) {
    let listener = UnixListener::bind(path).unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let Ok(node) = std::net::TcpStream::connect(to) else { break };
            let (mut from, mut back) = (client.try_clone().unwrap(), node.try_clone().unwrap());
            let (mut client, mut node) = (client, node);
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut from, &mut node);
                let _ = node.shutdown(std::net::Shutdown::Write);
            });
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut back, &mut client);
                let _ = client.shutdown(std::net::Shutdown::Write);
            });
        }
    });
}

fn file(dir: &tempfile::TempDir, listener: &str, nodes: &str, more: &str) -> String {
    let dir = dir.path().display();
    format!(
        "[server]\nthreads = 2\nupgrade_drain_timeout = \"8s\"\n[[listener]]\nname = \"public\"\n\
         bind = \"unix:{dir}/public.sock\"\n{listener}\n[admin]\nbind = \"127.0.0.1:0\"\n\
         [access_log]\npath = \"{dir}/access.log\"\n[upstream.app]\nnodes = [{nodes}]\n{more}"
    )
}

/// A program whose listener and only node are Unix sockets.
struct Rig {
    program: Program,
    path: PathBuf,
}

impl Rig {
    fn start(node: SocketAddr, listener: &str) -> Rig {
        let dir = tempfile::tempdir().unwrap();
        let (path, to_node) = (dir.path().join("public.sock"), dir.path().join("node.sock"));
        relay(&to_node, node);
        let nodes = format!("\"unix:{}\"", to_node.display());
        let text = file(&dir, listener, &nodes, "");
        let program = Program::of(dir, &text);
        program.until_said("to=\"up\"");
        Rig { program, path }
    }

    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    fn ask(&self, stream: &mut UnixStream, more: &str) -> Answer {
        write!(stream, "GET /api/x:list HTTP/1.1\r\nHost: t\r\n{more}\r\n").unwrap();
        Answer::read(stream).expect("an answer")
    }

    fn tunnel(&self) -> UnixStream {
        let mut stream = self.connect();
        let handshake = b"GET /ws HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\n\
                          Upgrade: websocket\r\n\r\n";
        stream.write_all(handshake).unwrap();
        assert!(read_head(&mut stream).unwrap().starts_with("HTTP/1.1 101"));
        stream
    }
}

fn echoes(tunnel: &mut UnixStream) {
    tunnel.write_all(b"\x81\x84\0\0\0\0ping").unwrap();
    let mut heard = [0; 10];
    tunnel.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"\x81\x84\0\0\0\0ping");
}

#[test]
fn requests_probes_and_tunnels_go_over_unix_sockets() {
    let node = node("hello");
    let rig = Rig::start(node.address, "socket_mode = \"0640\"\ntrusted_proxies = [\"127.0.0.1\"]");
    let mode = fs::metadata(&rig.path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
    let mut stream = rig.connect();
    assert_eq!(rig.ask(&mut stream, "").text(), "hello");
    assert_eq!(last(&node.seen(), "x-forwarded-for"), "127.0.0.1");
    assert_eq!(rig.ask(&mut stream, "X-Forwarded-For: 203.0.113.9\r\n").text(), "hello");
    assert_eq!(last(&node.seen(), "x-forwarded-for"), "203.0.113.9, 127.0.0.1");
    echoes(&mut rig.tunnel());
    // Its probes name it as this machine.
    let probes = node.seen().into_iter().filter(|seen| seen.head.contains("__health_check"));
    assert!(probes.map(|seen| seen.head).all(|head| field(&head, "host") == Some("localhost")));
    let logged = || rig.program.log().lines().filter(|line| line.contains("203.0.113.9")).count();
    until("it is logged", || logged() == 1 && rig.program.log().ends_with('\n'));
    assert!(rig.program.log().contains("\"client\":\"203.0.113.9\",\"peer\":\"unix:\""));
    let status = rig.program.command(&["status"]).output().unwrap();
    let status = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(status.contains("node.sock"), "{status}");
}

fn last(seen: &[super::support::origin::Seen], name: &str) -> String {
    let head = seen.iter().rev().map(|seen| &seen.head).find(|head| head.contains("x:list"));
    field(head.unwrap(), name).unwrap_or_default().to_owned()
}

#[test]
fn the_file_is_removed_at_the_end_and_what_a_killed_process_leaves_is_replaced() {
    let node = node("hello");
    let mut rig = Rig::start(node.address, "");
    // A second one of the same file.
    let second = rig.program.file.clone();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_cobalance"))
        .args(["run", "--config"])
        .arg(second)
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && error.contains("`ss -lxp` says which"), "{error}");
    rig.program.signal(Signal::KILL);
    rig.program.exit_code();
    assert!(rig.path.exists(), "nobody was there to remove it");
    rig.program.restart_killed();
    until("it listens", || UnixStream::connect(&rig.path).is_ok());
    rig.program.signal(Signal::TERM);
    assert_eq!(rig.program.exit_code(), Some(0));
    assert!(!rig.path.exists());
}

/// Another process takes over, whose number this is, and ours ends.
fn upgraded(rig: &mut Rig) -> Pid {
    let output = rig.program.command(&["upgrade"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let pid = said.strip_prefix("process ").and_then(|rest| rest.split(' ').next());
    let pid = Pid::from_raw(pid.unwrap_or_else(|| panic!("{said}")).parse().unwrap()).unwrap();
    assert_eq!(rig.program.exit_code(), Some(0));
    pid
}

/// Whether a process runs. One that nobody has asked after yet is no more than its number.
fn is_alive(pid: Pid) -> bool {
    let state = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    state.is_ok_and(|state| state.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z')))
}

/// Another program takes the place of a socket, at once: between two steps ours might put it back.
fn take_place(path: &Path) -> UnixListener {
    let before = path.with_extension("other");
    let other = UnixListener::bind(&before).unwrap();
    fs::rename(&before, path).unwrap();
    other
}

/// Ends the process that has taken over.
fn end(rig: &Rig, pid: Pid) {
    kill_process(pid, Signal::TERM).unwrap();
    until("its file is gone", || !rig.path.exists());
}

#[test]
fn an_upgrade_removes_the_file_of_a_socket_that_nobody_wants_any_more() {
    let node = node("hello");
    let dir = tempfile::tempdir().unwrap();
    let (path, other) = (dir.path().join("public.sock"), dir.path().join("other.sock"));
    let to_node = dir.path().join("node.sock");
    relay(&to_node, node.address);
    let kept = file(&dir, "", &format!("\"unix:{}\"", to_node.display()), "");
    let more = format!("[[listener]]\nname = \"other\"\nbind = \"unix:{}\"\n", other.display());
    let program = Program::of(dir, &(kept.clone() + &more));
    program.until_said("to=\"up\"");
    let mut rig = Rig { program, path };
    assert_eq!(rig.ask(&mut UnixStream::connect(&other).unwrap(), "").text(), "hello");
    fs::write(&rig.program.file, kept).unwrap();
    let pid = upgraded(&mut rig);
    until("the other file is gone", || !other.exists());
    assert_eq!(rig.ask(&mut rig.connect(), "").text(), "hello");
    end(&rig, pid);
}

#[test]
fn permissions_change_when_the_new_process_serves_and_not_before() {
    let node = node("hello");
    let mut rig = Rig::start(node.address, "socket_mode = \"0640\"");
    let mode = |rig: &Rig| fs::metadata(&rig.path).unwrap().permissions().mode() & 0o777;
    let text = fs::read_to_string(&rig.program.file).unwrap();
    let wanted = text.replace("0640", "0600");
    let name = format!("unix:{}", rig.program.dir.path().join("node.sock").display());
    assert!(rig.program.command(&["pin", &name]).output().unwrap().status.success());
    // Found when everything is bound, and by a reload as well.
    fs::write(&rig.program.file, wanted.replace("node.sock", "gone.sock")).unwrap();
    let output = rig.program.command(&["upgrade"]).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("is pinned, and this configuration removes it"), "{error}");
    assert_eq!(mode(&rig), 0o640);
    fs::write(&rig.program.file, &wanted).unwrap();
    let pid = upgraded(&mut rig);
    until("the mode", || mode(&rig) == 0o600);
    end(&rig, pid);
}

#[test]
fn an_upgrade_hands_the_socket_and_its_tunnels_over() {
    let node = node("hello");
    let mut rig = Rig::start(node.address, "");
    let mut tunnel = rig.tunnel();
    echoes(&mut tunnel);
    let pid = upgraded(&mut rig);
    assert!(rig.path.exists(), "it is the other's now");
    assert_eq!(rig.ask(&mut rig.connect(), "").text(), "hello");
    echoes(&mut tunnel);
    end(&rig, pid);
}

#[test]
fn an_upgrade_does_not_take_the_file_of_another_program_for_its_own() {
    let node = node("hello");
    let mut rig = Rig::start(node.address, "");
    let _other = take_place(&rig.path);
    let pid = upgraded(&mut rig);
    let status = || rig.program.command(&["status"]).output().unwrap().stdout;
    until("it says so", || String::from_utf8_lossy(&status()).contains("is reached by nobody"));
    kill_process(pid, Signal::TERM).unwrap();
    until("it has ended", || !is_alive(pid));
    assert!(rig.path.exists(), "that is not ours to remove");
}

#[test]
fn a_reload_keeps_adds_and_removes_unix_sockets() {
    let node = node("hello");
    let rig = Rig::start(node.address, "");
    let mut kept = rig.connect();
    assert_eq!(rig.ask(&mut kept, "").status, 200);
    let other = rig.program.dir.path().join("other.sock");
    let reload = |text: &str| {
        fs::write(&rig.program.file, text).unwrap();
        let output = rig.program.command(&["reload"]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let before = fs::read_to_string(&rig.program.file).unwrap();
    let more = format!("[[listener]]\nname = \"other\"\nbind = \"unix:{}\"\n", other.display());
    let mode = "name = \"public\"\nsocket_mode = \"0600\"";
    reload(&(before.replace("name = \"public\"", mode) + &more));
    assert_eq!(rig.ask(&mut kept, "").status, 200);
    let mut added = UnixStream::connect(&other).unwrap();
    assert_eq!(rig.ask(&mut added, "").status, 200);
    assert_eq!(fs::metadata(&rig.path).unwrap().permissions().mode() & 0o777, 0o600);
    reload(&before);
    assert!(!other.exists());
    assert_eq!(rig.ask(&mut kept, "").status, 200);
    assert_eq!(rig.ask(&mut rig.connect(), "").status, 200);
}

#[test]
fn a_listener_whose_file_is_taken_away_listens_again() {
    let node = node("hello");
    let rig = Rig::start(node.address, "socket_mode = \"0640\"");
    let mut kept = rig.connect();
    assert_eq!(rig.ask(&mut kept, "").status, 200);
    fs::remove_file(&rig.path).unwrap();
    until("it listens again", || UnixStream::connect(&rig.path).is_ok());
    assert_eq!(fs::metadata(&rig.path).unwrap().permissions().mode() & 0o777, 0o640);
    assert_eq!(rig.ask(&mut rig.connect(), "").text(), "hello");
    assert_eq!(rig.ask(&mut kept, "").text(), "hello");
    let other = take_place(&rig.path);
    let line = rig.program.until_said("is reached by nobody: its socket at unix:");
    assert!(line.contains("`ss -lxp` says which"), "{line}");
    let warned = || {
        let status = rig.program.command(&["status", "--json"]).output().unwrap();
        String::from_utf8_lossy(&status.stdout).contains("is reached by nobody")
    };
    until("status tells of it", warned);
    drop(other);
    until("the warning is taken back", || !warned());
    assert_eq!(rig.ask(&mut rig.connect(), "").text(), "hello");
    rig.program.signal(Signal::TERM);
    until("its file is gone", || !rig.path.exists());
}
